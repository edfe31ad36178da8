"""Plan what goes: a frozen list, in order, no longer than it must be.

    plan ──> frozen ──approve──> approved ──run──> running ──> done
               └──────cancel───────┴──> cancelled | expired (a day after it was made)

Only what a policy lets expire gets onto a list, never a name or a pattern that somebody typed: the list is made
from the catalogue, item by item through `policy.purge.may_delete`, and ends at the item that reaches the need.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from lightkeep.catalog.candidates import Candidate, Expiring
from lightkeep.catalog.plans import list_hash
from lightkeep.lifecycle.health import guards
from lightkeep.model.datasets import DatasetKind
from lightkeep.model.errors import Conflict, Forbidden, InvalidInput, LightkeepError
from lightkeep.model.people import SERVICE, Principal, Role, Scope, Verb
from lightkeep.model.quantity import bytes_in_words
from lightkeep.model.retention import PlanReason, PlanState, PurgeItem, PurgePlan
from lightkeep.model.stores import ReplicaState, Store, StoreRecord, split_member
from lightkeep.policy.case import Case, Condition, UnitFacts, Verdict
from lightkeep.policy.purge import BY_PLANNING, may_delete_all

if TYPE_CHECKING:
    from lightkeep.catalog import View
    from lightkeep.facility import Facility

VALID: Final = timedelta(days=1)
"""A plan that was not run by then is made anew: what it was based on is old."""
_DAY: Final = timedelta(days=1)
_OF_DATASET: Final = frozenset({"P8", "P10", "P11", "P14", "P17"})
"""Conditions that are the same for all replicas of a dataset on a store: one refusal is all."""

_Judged = tuple[Candidate, Case, Verdict]


@dataclass
class _List:
    """The list as it grows."""

    plan_id: str
    reason: PlanReason
    need: int
    cap: int
    cap_text: str
    """What the cap is a part of, for a person."""
    most: int
    items: list[PurgeItem] = field(default_factory=list)
    size: int = 0
    is_full: bool = False
    refused: dict[str, str] = field(default_factory=dict)
    """What keeps the others, in the order in which it was met: condition -> one sentence."""
    units: set[str] = field(default_factory=set)
    """Archive units that were decided on already."""

    def add(self, piece: Sequence[PurgeItem]) -> None:
        """Take the items of one more object, and say when the list is full."""
        for item in piece:
            self.items.append(replace(item, plan_id=self.plan_id, position=len(self.items)))
            self.size += item.size
        is_enough = self.reason is not PlanReason.EXPIRY and self.size >= self.need
        self.is_full = is_enough or len(self.items) >= self.most

    def takes(self, piece: Sequence[PurgeItem]) -> bool:
        """Return whether one more object is within the caps; when another plan could take it, this one is full."""
        size = sum(item.size for item in piece)
        if self.size + size > self.cap:
            self.refused.setdefault("P7", self.cap_text)
            self.is_full |= size <= self.cap
            return False
        if len(self.items) + len(piece) > self.most:
            self.refused.setdefault("P7", f"one plan names at most {self.most:,} files (purge.max_files)")
            self.is_full |= len(piece) <= self.most
            return False
        return not self.is_full


def plan(
    facility: Facility,
    store_id: str,
    *,
    principal: Principal,
    reason: PlanReason = PlanReason.EXPIRY,
    experiments: Sequence[str] | None = None,
) -> PurgePlan:
    """Freeze a list of replicas of one store that may go, and return the plan.

    Parameters
    ----------
    reason: expiry: what is over its time; pressure, emergency: as much as the store must lose, when it is above
        its high watermark, from the oldest on.
    experiments: only of these; None: of all. An empty list is an error, not "all".

    Raises
    ------
    Forbidden: the principal does not manage the facility.
    InvalidInput: the store is not managed, or the list of experiments is empty.
    StoreUnavailable: the store is not there, or is another one.
    Conflict: purges are suspended, or nothing can go now: the reason is said.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.MANAGE)
    if experiments is not None:
        if not experiments:
            raise InvalidInput("a plan for no experiment", remedy="name the experiments, or leave the option away")
        experiments = [view.experiment(each).id for each in experiments]
    store = facility.stores[store_id]
    if not store.record.is_managed:
        raise InvalidInput(f"store {store_id} is not managed: Lightkeep deletes nothing there")
    store.check_identity()
    must_not_be_suspended(facility)
    found = _list(facility, store, reason, set(experiments) if experiments is not None else None)
    if not found.items:
        remedy = "`lightkeep explain DATASET` says until when each dataset stays, and why"
        if "P7" in found.refused and not store.record.capacity:
            remedy = f"say how large it is: `lightkeep store set {store_id} --capacity 100TB`"
        raise Conflict(
            f"nothing can go from store {store_id} now: "
            + ("; ".join(found.refused.values()) or "nothing is over"),
            remedy=remedy,
        )
    now = facility.clock.now()
    made = PurgePlan(
        found.plan_id,
        store_id,
        store.record.uuid,
        reason,
        list_hash(found.items),
        len(found.items),
        found.size,
        found.need,
        now + VALID,
    )
    with facility.catalog.change(principal) as tx:
        return tx.add_plan(made, found.items)


def must_not_be_suspended(facility: Facility) -> None:
    """Look at the guards. Conflict when one of them stands against deleting."""
    reasons = guards.look(facility).reasons
    if reasons:
        raise Conflict(
            f"purges are suspended: {reasons[0]}",
            remedy="`lightkeep purge status` says what to do about it",
            reasons=list(reasons),
        )


def need_of(facility: Facility, record: StoreRecord, *, held: int | None = None) -> int:
    """Return the bytes that a store must lose: down to its low watermark, once it is above the high one.

    A store of unknown capacity must lose nothing.
    """
    if record.capacity <= 0:
        return 0
    held = facility.catalog.view(SERVICE).bytes_held(record.id) if held is None else held
    return max(0, held - int(record.low * record.capacity)) if held > record.high * record.capacity else 0


def _list(facility: Facility, store: Store, reason: PlanReason, only: set[str] | None) -> _List:
    view = facility.catalog.view(SERVICE)
    record = store.record
    now = facility.clock.now()
    held = view.bytes_held(record.id)
    settings = facility.config.purge
    need = 0 if reason is PlanReason.EXPIRY else need_of(facility, record, held=held)
    cap, text = _cap(record, held, settings.max_fraction)
    if settings.max_bytes_per_day:
        left = settings.max_bytes_per_day - view.freed_since(record.id, now - _DAY)
        if left < cap:
            cap, text = left, f"store {record.id} may lose {bytes_in_words(max(0, left))} more today"
    found = _List(facility.ids.new("plan"), reason, need, cap, text, settings.max_files)
    if reason is not PlanReason.EXPIRY and not need:
        return found
    for dataset in _in_order(view.expiring(record.tier), reason, now):
        if only is not None and dataset.experiment_id not in only:
            continue
        for piece in _of_dataset(facility, store, dataset, reason, found):
            found.add(piece)
        if found.is_full:
            break
    return found


def _cap(record: StoreRecord, held: int, fraction: float) -> tuple[int, str]:
    """Return the most bytes that one plan may take, and in words what they are a part of."""
    whole = record.capacity or held
    of = "its capacity" if record.capacity else "what it holds, as long as nobody has said how large it is"
    cap = int(fraction * whole)
    return cap, f"one plan takes at most {bytes_in_words(cap)} from store {record.id}: {fraction:.0%} of {of}"


def _in_order(datasets: Sequence[Expiring], reason: PlanReason, now: datetime) -> list[Expiring]:
    """Return the datasets whose time is over: what can be made again first, then the oldest, then the largest."""

    def over(dataset: Expiring) -> datetime | None:
        return dataset.expiry.at if reason is PlanReason.EXPIRY else dataset.expiry.pressure_at

    def key(dataset: Expiring) -> tuple[int, datetime, int, str]:
        return _rank(dataset), over(dataset) or now, -dataset.facts.size, dataset.dataset_id

    return sorted([each for each in datasets if (at := over(each)) is not None and at <= now], key=key)


def _rank(dataset: Expiring) -> int:
    if dataset.facts.kind is DatasetKind.DERIVED:
        return 0 if dataset.is_rerunnable else 1
    return 3 if dataset.facts.kind is DatasetKind.RAW else 2


def _of_dataset(
    facility: Facility, store: Store, dataset: Expiring, reason: PlanReason, found: _List
) -> Iterator[list[PurgeItem]]:
    """Yield the items of each object that holds files of a dataset and may go: one, or all members of a unit."""
    view = facility.catalog.view(SERVICE)
    keep = dataset.rule.keep[store.record.tier]
    pages = view.candidates(dataset.number, store.record.id, need_copy=not keep.last_copy)
    for group in _probing(pages):
        alone = [each for each in group if split_member(each.key) is None]
        for judged in _judged(facility, view, store, alone, reason):
            unmet = _unmet(judged)
            if unmet:
                found.refused.setdefault(unmet[0].id, unmet[0].text)
                if any(each.id in _OF_DATASET or (each.id == "P3" and not judged[1].told) for each in unmet):
                    return
                continue
            piece = [_item(store, judged, _mtime(store, judged[0].key))]
            if found.takes(piece):
                yield piece
            elif found.is_full:
                return
        for key in dict.fromkeys(unit[0] for each in group if (unit := split_member(each.key))):
            if key not in found.units and not found.is_full:
                found.units.add(key)
                if (piece := _unit(facility, view, store, key, reason, found)) and found.takes(piece):
                    yield piece
        if found.is_full:
            return


def _unit(
    facility: Facility, view: View, store: Store, key: str, reason: PlanReason, found: _List
) -> list[PurgeItem]:
    """Return the items of an archive unit when every member may go; otherwise none, and why the unit stays."""
    members = view.members(store.record.id, key)
    names = {each.candidate.replica_id: each.name for each in members}
    whole = len(members), sum(each.candidate.size for each in members)
    mtime_ns = _mtime(store, key)
    candidates = [each.candidate for each in members]
    judged = list(_judged(facility, view, store, candidates, reason, together=whole))
    kept = [
        (each[2].conditions.index(unmet[0]), number)
        for number, each in enumerate(judged)
        if (unmet := _unmet(each))
    ]
    if kept:
        first, number = min(kept)  # a hold before the notice that it made void
        candidate, _, verdict = judged[number]
        why = verdict.conditions[first]
        found.refused.setdefault(why.id, f"an archive unit stays for {names[candidate.replica_id]}: {why.text}")
        return []
    return [_item(store, each, mtime_ns) for each in judged]


def _unmet(judged: _Judged) -> list[Condition]:
    """Return the conditions that a plan, its approval and its run will not meet either."""
    _, case, verdict = judged
    waived = (*BY_PLANNING, *_by_approval(case, verdict))
    return [each for each in verdict.conditions if not each.met and each.id not in waived]


def _probing(pages: Iterator[list[Candidate]]) -> Iterator[list[Candidate]]:
    """Yield the candidates in groups, the first alone: where it says that none of them may go, it was cheap."""
    for number, page in enumerate(pages):
        yield from (page[:1], page[1:]) if number == 0 else (page,)


def _judged(
    facility: Facility,
    view: View,
    store: Store,
    page: Sequence[Candidate],
    reason: PlanReason,
    *,
    together: tuple[int, int] = (0, 0),
) -> Iterator[_Judged]:
    """Yield what the decision says of each candidate, as if a plan named it.

    Parameters
    ----------
    together: files and bytes of the unit whose members they are.
    """
    if not page:
        return
    now, state = facility.clock.now(), guards.status(facility)
    said = guards.facts(state)
    cases = view.cases([(each.file_id, each.replica_id) for each in page], reason=reason)
    cases = [
        replace(
            case,
            guards=said,
            uuid_seen=store.record.uuid,
            unit=case.unit and UnitFacts(case.unit.members, *together),
        )
        for case in cases
    ]
    yield from zip(page, cases, may_delete_all(cases, max(now, state.high_water or now)), strict=True)


def _by_approval(case: Case, verdict: Verdict) -> tuple[str, ...]:
    """Return the conditions that are unmet only because nobody has approved the plan yet."""
    by_id = {each.id: each for each in verdict.conditions}
    last, public = by_id["P4"], by_id["P12"]
    waived: list[str] = []
    if (
        not last.met
        and last.turns_true_at is None
        and "second" in last.evidence
        and len(last.evidence["notices"]) > 1
    ):
        answered, final = last.evidence["answered"], last.evidence["final"]
        if answered or final:
            waived.append("P4")
    if not public.met and any(copy.state is ReplicaState.VERIFIED for copy in case.others):
        waived.append("P12")
    return tuple(waived)


def _item(store: Store, judged: _Judged, mtime_ns: int | None) -> PurgeItem:
    candidate, case, verdict = judged
    notices = next(each for each in verdict.conditions if each.id == "P3").evidence.get("notices", [])
    is_last = any(each.id == "P4" and not each.met for each in verdict.conditions)
    evidence: dict[str, Any] = {"mtime_ns": mtime_ns}
    if is_last:
        evidence["is_last_copy"] = True
    if case.home.is_public:
        evidence["is_public"] = True
    return PurgeItem(
        "",
        0,
        candidate.replica_id,
        candidate.file_id,
        case.home.dataset_id,
        case.home.experiment_id,
        store.record.id,
        candidate.key,
        candidate.size,
        candidate.sha256,
        verdict.policy,
        notices[0] if notices else "",
        evidence=evidence,
    )


def _mtime(store: Store, key: str) -> int | None:
    """Return when an object was last written, by its store; None when it does not say."""
    try:
        return store.stat(key).mtime_ns
    except LightkeepError:
        return None


# ---- approvals


def approve(facility: Facility, plan_id: str, *, principal: Principal) -> PurgePlan:
    """Approve a plan, as a person; return it. It may run when enough people have.

    One manager is enough for what expired; two for an emergency; for the loss of a last copy one of them is not
    the author of its policy, and for public data one is an administrator of the facility.

    Raises
    ------
    Forbidden: the principal manages neither the facility nor every station whose data the plan names.
    Conflict: the plan is not frozen any more, or was approved by this person already.
    """
    if principal.is_service:
        raise Forbidden("only a person can approve a plan", remedy="sign in as a station manager")
    view = facility.catalog.view(principal)
    made = view.plan(plan_id)
    if facility.clock.now() >= made.expires_at and made.state is PlanState.FROZEN:
        expire(facility)
        raise Conflict(f"plan {plan_id} is over", remedy="make a new plan")
    for experiment_id in facility.catalog.view(SERVICE).plan_experiments(plan_id):
        if not view.can(Verb.MANAGE, experiment_id=experiment_id):
            raise Forbidden(
                f"plan {plan_id} names data that {principal.id} does not manage",
                remedy="ask an administrator of the facility",
            )
    approvals = (*made.approvals, principal.id)
    with facility.catalog.change(principal) as tx:
        tx.approve_plan(plan_id, person_id=principal.id, is_enough=not lacking(facility, made, approvals))
    return view.plan(plan_id)


def lacking(facility: Facility, made: PurgePlan, approvals: Sequence[str]) -> str:
    """Return whose approval a plan still waits for, given who approved; empty: it may run."""
    if not made.is_whole:
        return "an administrator of the facility must approve it"
    people = replace(made, approvals=tuple(approvals)).people
    if not approvals:
        return "a manager must approve it"
    if made.reason is PlanReason.EMERGENCY and len(people) < 2:
        return "a second person must approve it: it is an emergency"
    service = facility.catalog.view(SERVICE)
    flags = service.plan_flags(made.id)
    authors = {service.policy_version(*_stamp(stamp)).author for stamp in flags.last_copy_policies}
    if any(not people - {author} for author in authors):
        return "somebody other than the author of the policy must approve it: last copies would go"
    if flags.is_public and not people & set(admins(facility)):
        return "an administrator of the facility must approve it: public data would go"
    return ""


def admins(facility: Facility) -> list[str]:
    """Return the administrators of the facility."""
    grants = facility.catalog.view(SERVICE).grants()
    return [each.person_id for each in grants if each.scope is Scope.FACILITY and each.role is Role.FACILITY_ADMIN]


def _stamp(stamp: str) -> tuple[str, int]:
    name, _, version = stamp.rpartition("@")
    return name, int(version)


def cancel(facility: Facility, plan_id: str, *, principal: Principal) -> PurgePlan:
    """Give a plan up before it runs. Needs `manage` on the facility; Conflict when it runs or has run."""
    view = facility.catalog.view(principal)
    view.require(Verb.MANAGE)
    view.plan(plan_id)
    with facility.catalog.change(principal) as tx:
        tx.set_plan_state(plan_id, PlanState.CANCELLED)
    return view.plan(plan_id)


def expire(facility: Facility) -> int:
    """End the plans that were not run in time; return how many."""
    view, now, ended = facility.catalog.view(SERVICE), facility.clock.now(), 0
    for state in (PlanState.FROZEN, PlanState.APPROVED):
        for made in view.plans(state=state, limit=10_000):
            if now >= made.expires_at:
                with facility.catalog.change(SERVICE) as tx:
                    tx.set_plan_state(made.id, PlanState.EXPIRED)
                ended += 1
    return ended
