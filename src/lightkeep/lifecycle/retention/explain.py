"""Where is it, until when, and why? The answer is the decision itself, `policy.purge.may_delete`, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from lightkeep.lifecycle.health import guards
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.retention import HoldScope
from lightkeep.model.stores import Replica, ReplicaState, StoreRecord, Tier, split_member
from lightkeep.policy import access
from lightkeep.policy.case import Case, Condition, UnitFacts, Verdict
from lightkeep.policy.purge import BY_PLANNING, may_delete, may_delete_all

if TYPE_CHECKING:
    from lightkeep.catalog import View
    from lightkeep.facility import Facility

_MOST: Final = 2_000
"""Replicas on one store that are decided one by one; a dataset of more files is explained by these."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What holds for some replicas on a store."""

    files: int
    size: int
    """Bytes."""
    text: str
    """One sentence: until when they stay, and what keeps them."""
    stays_until: datetime | None
    """The earliest moment at which they may go, if people are told today and a plan is approved. None: for ever,
    or until something happens that no date is known of."""
    conditions: tuple[Condition, ...]
    """Each with its evidence, and the date on which it turns true."""
    example: str
    """Path of one of the files."""
    policy: str = ""
    rule: str = ""


@dataclass(frozen=True, slots=True)
class Place:
    """What of a dataset lies on one store."""

    store_id: str
    tier: Tier
    is_managed: bool
    is_durable: bool
    failure_domain: str
    files: int
    size: int
    verified: int
    """Files whose bytes were read back and found equal."""
    verified_at: datetime | None
    """When the one that was read back longest ago was."""
    trashed: int
    """Files in the trash, that can be taken back."""
    deleted: int
    """Files that were here once."""
    destroy_after: datetime | None
    """When the first of the trashed ones may be destroyed."""
    answers: tuple[Answer, ...]
    """Most files first. Files that the same conditions keep are one answer."""
    is_sampled: bool = False
    """True: only some of the files were looked at."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a dataset is, until when, and why."""

    dataset_id: str
    name: str
    experiment_id: str
    at: datetime
    policy: str
    """Stamp `id@version`; empty: no policy applies, it is kept for ever."""
    rule: str
    clock_at: datetime | None
    """When the experiment's clock started; None: it does not run."""
    text: str
    """One sentence for a person."""
    places: tuple[Place, ...]
    """By store."""


def explain(facility: Facility, dataset_id: str, *, principal: Principal, path: str = "") -> Explanation:
    """Return where a dataset is, until when it stays on each store, and what keeps it there.

    Parameters
    ----------
    path: only this file of it.

    Returns
    -------
    : without `answers` for whom no role but the public one lets see the experiment: what its team decided, and who
    in it, is the team's.

    Raises
    ------
    NotFound: there is no such dataset or file, or the principal may not see it.
    """
    view = facility.catalog.view(principal)
    dataset = view.dataset(dataset_id)
    only = view.file(dataset_id, path).id if path else ""
    replicas = view.replicas([only] if only else dataset_id)
    paths = {file.id: file.path for file in view.files(dataset_id, limit=10_000).items}
    judge = _Judge(facility, view)
    is_team = _is_team(facility, dataset.experiment_id, principal)
    shares = {share.store_id: share for lying in view.lying(dataset_id=dataset_id) for share in lying.shares}
    stores = {store.id: store for store in facility.catalog.view(SERVICE).stores()}
    ends = _trash_ends(view, dataset_id)
    places = []
    clock_at, policy, rule = None, "", ""
    for store_id in sorted({each.store_id for each in replicas}):
        here = [each for each in replicas if each.store_id == store_id]
        there = [each for each in here if _is_there(each)]
        cases = judge.cases(there[:_MOST])
        if cases:
            clock_at = cases[0].home.clock.started_at
        answers = judge.answers(cases, paths) if is_team else ()
        policy, rule = next(((a.policy, a.rule) for a in answers if a.policy), (policy, rule))
        size = shares[store_id].size if store_id in shares and not only else sum(case.size for case in cases)
        places.append(_place(stores[store_id], here, there, size, ends.get(store_id), answers))
    named = (dataset_id, dataset.name, dataset.experiment_id)
    return Explanation(*named, judge.now, policy, rule, clock_at, _text(places), tuple(places))


def _is_team(facility: Facility, experiment_id: str, principal: Principal) -> bool:
    view = facility.catalog.view(principal)
    experiment = view.experiment(experiment_id)
    as_private = replace(experiment, released_at=None)
    return access.allows(view.grants(), principal, Verb.SEE, as_private, now=facility.clock.now()).allow


def _is_there(replica: Replica) -> bool:
    gone = (ReplicaState.PLANNED, ReplicaState.COPYING, ReplicaState.DELETE_PENDING, ReplicaState.DELETED)
    return replica.state not in gone


def _place(
    store: StoreRecord,
    here: Sequence[Replica],
    there: Sequence[Replica],
    size: int,
    destroy_after: datetime | None,
    answers: tuple[Answer, ...],
) -> Place:
    states = [each.state for each in here]
    read = [each.verified_at for each in there if each.state is ReplicaState.VERIFIED and each.verified_at]
    return Place(
        store.id,
        store.tier,
        store.is_managed,
        store.is_durable,
        store.failure_domain,
        len(there),
        size,
        states.count(ReplicaState.VERIFIED),
        min(read, default=None),
        states.count(ReplicaState.DELETE_PENDING),
        states.count(ReplicaState.DELETED),
        destroy_after,
        answers,
        len(there) > _MOST,
    )


def _trash_ends(view: View, dataset_id: str) -> dict[str, datetime]:
    ends: dict[str, datetime] = {}
    for item in view.tombstones(dataset_id, limit=10_000):
        if item.destroy_after is not None and item.ended_at is None:
            ends[item.store_id] = min(ends.get(item.store_id, item.destroy_after), item.destroy_after)
    return ends


@dataclass(frozen=True, slots=True)
class _Latest:
    """The member of a unit that stays longest."""

    text: str
    until: datetime | None
    """None: no date is known."""


_AT_ONCE: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _unit_of(case: Case) -> tuple[str, str] | None:
    found = split_member(case.replica.key) if case.unit else None
    return (case.replica.store.id, found[0]) if found else None


def _together(case: Case, members: int, stays: str, until: datetime | None) -> Case:
    """Return a case as it is when its whole unit is asked about."""
    unit = case.unit and UnitFacts(case.unit.members, members, stays=stays, stays_until=until)
    return replace(case, unit=unit)


def _why(verdict: Verdict, until: datetime | None) -> str:
    """Return what keeps a member: until when, or why."""
    unmet = [each for each in verdict.conditions if not each.met and each.id not in BY_PLANNING]
    keeps = next((each for each in unmet if each.turns_true_at == until), unmet[0] if unmet else None)
    return (f" until {until:%Y-%m-%d}" if until else "") + (f": {keeps.text}" if keeps else "")


class _Judge:
    """Asks the decision as if a plan named everything."""

    def __init__(self, facility: Facility, view: View) -> None:
        status = guards.status(facility)
        self._view = view
        self._guards = guards.facts(status)
        self.now = max(facility.clock.now(), status.high_water or facility.clock.now())

    def cases(self, replicas: Sequence[Replica]) -> list[Case]:
        """Return the cases of replicas; the store is taken for the one that the catalogue knows."""
        found = self._known([(each.file_id, each.id) for each in replicas])
        units = {unit: self._unit(*unit) for unit in dict.fromkeys(_unit_of(case) for case in found) if unit}
        return [self._in_unit(case, *units[unit]) if (unit := _unit_of(case)) else case for case in found]

    def _known(self, keys: Sequence[tuple[str, str]]) -> list[Case]:
        found = self._view.cases(keys)
        return [replace(case, guards=self._guards, uuid_seen=case.replica.store.uuid) for case in found]

    def _unit(self, store_id: str, key: str) -> tuple[int, _Latest]:
        """Return how many members of a unit one sees, and which of them stays longest.

        Of a unit with more than `_MOST` members those that are held or not verified are looked at first.
        """
        members = self._view.members(store_id, key)
        held = {hold.scope_id for hold in self._view.holds(scope=HoldScope.FILE, limit=10_000).items}
        first = sorted(members, key=lambda m: (m.state is ReplicaState.VERIFIED, m.candidate.file_id not in held))
        cases = self._known([(m.candidate.file_id, m.candidate.replica_id) for m in first[:_MOST]])
        together = [_together(case, len(members), "", None) for case in cases]
        latest = _Latest("", _AT_ONCE)
        for member, case, verdict in zip(first, together, may_delete_all(together, self.now), strict=False):
            until = earliest(case, verdict, self.now)
            if until is None or (latest.until is not None and until > latest.until):
                latest = _Latest(f"{member.name} stays{_why(verdict, until)}", until)
            if until is None:
                break
        return len(members), latest

    def _in_unit(self, case: Case, members: int, latest: _Latest) -> Case:
        """Return a case with what keeps the unit when it is let go itself."""
        alone = _together(case, members, "", None)
        until = earliest(alone, may_delete(alone, self.now), self.now)
        if until is None or (latest.until is not None and until >= latest.until):
            return alone
        return _together(case, members, latest.text, latest.until)

    def answers(self, cases: Sequence[Case], paths: dict[str, str]) -> tuple[Answer, ...]:
        """Return one answer for all cases that the same conditions keep."""
        groups: dict[tuple[object, ...], list[tuple[Case, Verdict]]] = {}
        for case, verdict in zip(cases, may_delete_all(cases, self.now), strict=True):
            key = tuple((each.id, each.met, each.turns_true_at) for each in verdict.conditions)
            groups.setdefault(key, []).append((case, verdict))
        found = [self._answer(group, paths) for group in groups.values()]
        return tuple(sorted(found, key=lambda answer: (-answer.files, answer.example)))

    def _answer(self, group: Sequence[tuple[Case, Verdict]], paths: dict[str, str]) -> Answer:
        case, verdict = group[0]
        until = earliest(case, verdict, self.now)
        return Answer(
            len(group),
            sum(each.size for each, _ in group),
            _until_text(verdict, until),
            until,
            verdict.conditions,
            paths.get(case.file_id, ""),
            verdict.policy,
            verdict.rule,
        )


def earliest(case: Case, verdict: Verdict, now: datetime) -> datetime | None:
    """Return the earliest moment at which a replica may go, if people are told today and a plan is approved.

    None: for ever, or until something happens that no date is known of.
    """
    rule = case.home.policy.rule_for(case.home.facts) if case.home.policy else None
    dates = [now]
    for each in verdict.conditions:
        if each.met or each.id in BY_PLANNING:
            continue
        if each.turns_true_at is not None:
            dates.append(each.turns_true_at)
        elif each.id == "P3" and rule is not None:
            dates.append(now + timedelta(rule.notice_days[0]))
        else:
            return None
    return max(dates)


def _until_text(verdict: Verdict, until: datetime | None) -> str:
    unmet = [each for each in verdict.conditions if not each.met and each.id not in BY_PLANNING]
    why = next(
        (each.text for each in unmet if until is None and each.turns_true_at is None and each.id != "P3"), ""
    )
    if not why:
        latest = [each for each in unmet if each.turns_true_at is not None and each.turns_true_at == until]
        why = (latest or unmet)[0].text if unmet else "nothing but a plan and its approval"
    if until is None:
        return f"stays: {why}"
    return f"stays at least until {until:%Y-%m-%d}: {why}" if unmet else f"may go once a plan names it: {why}"


def _text(places: Sequence[Place]) -> str:
    lying = [place for place in places if place.files]
    if not lying:
        return "no bytes of it are left; its record, its checksums and its history stay"
    named = ", ".join(f"{at.store_id} ({at.files} {'file' if at.files == 1 else 'files'})" for at in lying)
    good = sum(place.verified >= place.files > 0 and place.is_managed for place in lying)
    return f"on {named}; {good} good {'copy' if good == 1 else 'copies'}"
