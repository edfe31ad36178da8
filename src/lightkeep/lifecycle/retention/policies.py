"""Adopt a retention policy, check one, and see on the real catalogue what it would do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from lightkeep.lifecycle.health import guards
from lightkeep.model.errors import Forbidden, InvalidInput, SignInRequired
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.retention import Hold, HoldScope, PolicyVersion
from lightkeep.model.stores import StoreRecord
from lightkeep.policy import document
from lightkeep.policy.retention import Expiry, Keep, Policy, applicable, expiry

if TYPE_CHECKING:
    from lightkeep.catalog.whereabouts import Lying, Share
    from lightkeep.facility import Facility


@dataclass(frozen=True, slots=True)
class Checked:
    """A text that is a policy."""

    policy: Policy
    findings: tuple[str, ...]
    """What somebody should look at before it is adopted, one sentence each."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What becomes of the data of one experiment on one store by a day."""

    store_id: str
    experiment_id: str
    policy: str
    """Stamp `id@version`; empty where no policy applies."""
    rule: str
    files: int
    """All that lies there today."""
    size: int
    """Bytes of all that lies there today."""
    goes: int
    """Bytes whose time is over by then and of which enough copies stay."""
    under_pressure: int
    """More bytes that may go if the store is above its high watermark."""
    held: int
    """Bytes whose time is over, and that a hold keeps."""
    lacks_copies: int
    """Bytes whose time is over, and of which too few good copies lie elsewhere today."""
    last_copies: int
    """Bytes among `goes` of which no good copy stays; people must be asked first."""


@dataclass(frozen=True, slots=True)
class Simulated:
    """What the policies would let go by a day, if everything else stayed as it is."""

    at: datetime
    effects: tuple[Effect, ...]
    """By store, experiment and rule."""

    def by_store(self) -> dict[str, dict[str, int]]:
        """Return the sums of each store: size, goes, under_pressure, held, lacks_copies, last_copies."""
        names = ("size", "goes", "under_pressure", "held", "lacks_copies", "last_copies")
        sums: dict[str, dict[str, int]] = defaultdict(lambda: dict.fromkeys(names, 0))
        for effect in self.effects:
            for name in names:
                sums[effect.store_id][name] += getattr(effect, name)
        return dict(sums)


def check(text: str) -> Checked:
    """Read a policy and look for what may not be meant. InvalidInput: it is no policy."""
    policy = document.parse(text)
    return Checked(policy, document.check(policy))


def adopt(facility: Facility, text: str, *, principal: Principal) -> PolicyVersion:
    """Adopt a text as the next version of the policy that it names; it decides from now on.

    Raises
    ------
    Forbidden: the principal does not manage the facility, or is not a person.
    InvalidInput: the text is no policy, or names a store that does not exist.
    """
    if principal.is_service:
        raise Forbidden("only a person can adopt a policy", remedy="sign in as a manager of the facility")
    view = facility.catalog.view(principal)
    view.require(Verb.MANAGE)
    policy = document.parse(text)
    known = {store.id for store in view.stores()}
    named = {target.store_id for rule in policy.rules for target in rule.copies if target.store_id}
    if missing := sorted(named - known):
        raise InvalidInput(
            f"policy {policy.id} wants copies on store {missing[0]}, which does not exist",
            remedy=f"stores here: {', '.join(sorted(known)) or 'none'}",
        )
    with facility.catalog.change(principal) as tx:
        return tx.adopt_policy(text)


def assign(facility: Facility, experiment_id: str, policy_id: str, *, principal: Principal) -> None:
    """Give an experiment a policy of its own; an empty id: the one that its station follows.

    Raises
    ------
    NotFound, Forbidden: as of `manage` on the experiment. Conflict: no such policy was adopted.
    """
    facility.catalog.view(principal).require(Verb.MANAGE, experiment_id=experiment_id)
    with facility.catalog.change(principal) as tx:
        tx.assign_policy(experiment_id, policy_id)


def simulate(
    facility: Facility, *, at: datetime, principal: Principal, policies: Sequence[Policy] | None = None
) -> Simulated:
    """Return what would go by a day, from each store, of each experiment that one may see. Nothing is changed.

    Parameters
    ----------
    at: the day; data and copies are those of today.
    policies: in place of those that were adopted; one with the id of an adopted one takes its place.

    Raises
    ------
    InvalidInput: the day is in the past. SignInRequired: nobody is signed in.

    Notes: decided by dataset, not by file: copies of it count where all its files were read back. Whoever runs a
    purge decides file by file, and asks more: notices, approvals, that the copies were read back just now.
    """
    if principal.is_anonymous:
        raise SignInRequired("only somebody signed in may simulate policies", remedy="sign in")
    view = facility.catalog.view(principal)
    if at < max(facility.clock.now(), guards.status(facility).high_water or at):
        raise InvalidInput("the day of a simulation lies in the past", remedy="name a later one")
    found = _with(view.policies(), policies or ())
    stores = {store.id: store for store in facility.catalog.view(SERVICE).stores()}
    holds = _Holds(facility.catalog.view(SERVICE).holds_standing(at))
    applies: dict[tuple[str, str], Policy | None] = {}
    sums: dict[tuple[str, str, str, str], list[int]] = {}
    for lying in view.lying():
        key = (lying.policy_id, lying.facts.station_id)
        if key not in applies:
            applies[key] = applicable(found, policy_id=key[0], station_id=key[1])
        for share in lying.shares:
            if not share.files:
                continue
            store = stores[share.store_id]
            limit = expiry(applies[key], lying.clock, lying.facts, tier=store.tier)
            place = (share.store_id, lying.experiment_id, limit.policy, limit.rule)
            effect = _effect(applies[key], limit, lying, share, store, stores, holds, at)
            sums[place] = [a + b for a, b in zip(sums.get(place, [0] * 7), effect, strict=True)]
    return Simulated(at, tuple(Effect(*place, *numbers) for place, numbers in sorted(sums.items())))


def _with(adopted: Sequence[Policy], others: Sequence[Policy]) -> list[Policy]:
    names = {policy.id for policy in others}
    return [*(policy for policy in adopted if policy.id not in names), *others]


class _Holds:
    """Which datasets a hold keeps."""

    def __init__(self, holds: Sequence[Hold]) -> None:
        self._places = {(hold.scope, hold.scope_id) for hold in holds}
        self._all = any(hold.scope is HoldScope.FACILITY for hold in holds)

    def reach(self, lying: Lying, store_id: str) -> bool:
        """Return whether one of them keeps a dataset on a store. Holds on single files are left out."""
        return self._all or not self._places.isdisjoint(
            {
                (HoldScope.STATION, lying.facts.station_id),
                (HoldScope.STORE, store_id),
                (HoldScope.EXPERIMENT, lying.experiment_id),
                (HoldScope.DATASET, lying.dataset_id),
            }
        )


def _effect(
    policy: Policy | None,
    limit: Expiry,
    lying: Lying,
    share: Share,
    store: StoreRecord,
    stores: Mapping[str, StoreRecord],
    holds: _Holds,
    at: datetime,
) -> tuple[int, int, int, int, int, int, int]:
    """Return files, size, goes, under_pressure, held, lacks_copies, last_copies of one dataset on one store."""
    size = share.size
    is_over = limit.at is not None and limit.at <= at
    may_early = limit.pressure_at is not None and limit.pressure_at <= at
    rule = policy.rule_for(lying.facts) if policy else None
    if rule is None or not store.is_managed or not (is_over or may_early):
        return share.files, size, 0, 0, 0, 0, 0
    if holds.reach(lying, store.id):
        return share.files, size, 0, 0, size, 0, 0
    keep = rule.keep[store.tier]
    others = [
        stores[other.store_id]
        for other in lying.shares
        if other.store_id != store.id and other.verified >= share.files and stores[other.store_id].is_managed
    ]
    if not _enough(others, keep) and not keep.last_copy:
        return share.files, size, 0, 0, 0, size, 0
    last = 0 if others else size
    return share.files, size, *((size, 0) if is_over else (0, size)), 0, 0, last


def _enough(others: Sequence[StoreRecord], keep: Keep) -> bool:
    return (
        len(others) >= keep.min_copies
        and len({store.failure_domain for store in others}) >= keep.min_domains
        and (not keep.durable or any(store.is_durable for store in others))
    )
