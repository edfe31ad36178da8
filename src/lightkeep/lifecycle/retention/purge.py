"""Run a plan: each object is decided on again, its intent made durable, then it is moved to the trash.

    planned ──> pending ──store.trash──> trashed ──store.destroy──> destroyed   (`.purge_destroy`)
       │           └────────undone <────────┴── undo, for as long as the rule's window
       └──> skipped: something changed; the item says what

The order, which no crash can turn into a loss: the decision and the intent are one transaction, then the bytes
move within their store, then the catalogue knows where they are. `recover` brings what a crash left between the
two to the one or the other side, and every run begins with it. Nothing here removes a byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from lightkeep.lifecycle.health import guards
from lightkeep.lifecycle.retention.purge_destroy import destroy
from lightkeep.lifecycle.retention.purge_plan import lacking, must_not_be_suspended
from lightkeep.lifecycle.retention.purge_session import (
    Piece,
    Purged,
    Session,
    all_items,
    evidence_of,
    pieces,
    replica_of,
)
from lightkeep.lifecycle.retention.purger import Fence, purger
from lightkeep.model.errors import Conflict, Corrupt, LightkeepError, NotFound, StorageError
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.retention import ItemState, PlanReason, PlanState, PurgeItem, PurgePlan
from lightkeep.model.stores import Proof, Replica, ReplicaState, Store, split_member
from lightkeep.model.techniques import Report
from lightkeep.policy.case import Case, Step, Verdict

if TYPE_CHECKING:
    from lightkeep.catalog.changes import Change
    from lightkeep.facility import Facility

_UNDO_DAYS: Final = 14
"""Where no rule says it any more."""


def run(facility: Facility, plan_id: str, *, principal: Principal, report: Report | None = None) -> Purged:
    """Move what an approved plan names to the trash, as far as every condition still holds.

    Again: it goes on where it was stopped. With reason emergency the trash is emptied at once.

    Raises
    ------
    Forbidden: the principal may not destroy on the facility.
    Conflict: purges are suspended, the plan may not run, its list was changed, or another purger works here.
    StoreUnavailable: the store is not there, or is another one: nothing was touched.
    """
    facility.catalog.view(principal).require(Verb.DESTROY)
    plan = facility.catalog.view(principal).plan(plan_id)
    must_not_be_suspended(facility)
    with purger(facility, plan.store_id, principal=principal) as fence:
        recover_store(facility, plan.store_id, fence)
        plan = _started(facility, plan_id, principal)
        work = _Run(Session(facility, plan, fence, principal), report)
        done = work.all()
    if plan.reason is PlanReason.EMERGENCY:
        destroy(facility, plan_id=plan_id, principal=principal)
    return done


def _started(facility: Facility, plan_id: str, principal: Principal) -> PurgePlan:
    """Return the plan as running. Conflict when it may not run."""
    with facility.catalog.change(principal) as tx:
        plan = tx.plan(plan_id)
        if plan.state is PlanState.APPROVED and facility.clock.now() < plan.expires_at:
            tx.set_plan_state(plan_id, PlanState.RUNNING)
            plan = tx.plan(plan_id)
    if plan.state is PlanState.RUNNING:
        return plan
    why = f"plan {plan_id} is {plan.state}"
    if plan.state is PlanState.FROZEN:
        why = f"plan {plan_id} is not approved: {lacking(facility, plan, plan.approvals)}"
        raise Conflict(why, remedy=f"look at it, then: lightkeep purge approve {plan_id}")
    if plan.state is PlanState.APPROVED:
        why = f"plan {plan_id} was to be run before {plan.expires_at:%Y-%m-%d %H:%M} UTC"
    raise Conflict(why, remedy="make a new plan: `lightkeep purge plan STORE`, then have it approved")


class _Run:
    """One call of `run`."""

    def __init__(self, session: Session, report: Report | None) -> None:
        self.session = session
        self.facility = session.facility
        self.plan = session.plan
        self.report = report
        self.done = Purged(session.plan.id)

    def all(self) -> Purged:
        """Deal with every item that is planned, in order."""
        if self.session.hash != self.plan.hash:
            raise Conflict(
                f"the list of plan {self.plan.id} is not the one that was approved: nothing was deleted",
                remedy="look at the audit trail (`lightkeep doctor`), then make a new plan",
            )
        for piece in pieces(all_items(self.facility, self.plan.id, ItemState.PLANNED)):
            if self._is_enough():
                break
            why = self._one(piece)
            if why:
                return self._left(why)
            if self.report is not None:
                self.report(min(1.0, (piece[-1].position + 1) / max(self.plan.files, 1)), piece[-1].key)
        self._end()
        return self.done

    def _is_enough(self) -> bool:
        if self.plan.reason is PlanReason.EXPIRY:
            return False
        return self.facility.catalog.view(SERVICE).plan(self.plan.id).freed >= self.plan.need

    def _one(self, piece: Piece) -> str:
        """Trash one object, or skip it; return why the run must end here, or nothing."""
        strange = self._changed(piece)
        if strange:
            self._skip(piece, {item.replica_id: {"changed": strange} for item in piece})
            return ""
        verdicts = self._intend(piece)
        stale = _stale(verdicts)
        if stale and self._read_back(piece, stale):
            verdicts = self._intend(piece)
        if not verdicts:
            return ""
        if not all(verdicts):
            today = next((each.reason for each in verdicts if _is_for_today(each)), "")
            if today:
                return today
            self._skip(piece, evidence_of(piece, verdicts))
            return ""
        self._trash(piece)
        return ""

    def _changed(self, piece: Piece) -> str:
        """Return what is other than it was when the plan was made; empty: nothing. Its replica becomes suspect."""
        item, unit = piece[0], split_member(piece[0].key)
        try:
            found = self.session.store.stat(unit[0] if unit else item.key)
            size = self._unit_size(unit[0]) if unit else item.size
        except NotFound:
            strange = "the object is not there"
        else:
            known = item.evidence.get("mtime_ns")
            strange = f"it has {found.size} bytes, not {size}" if found.size != size else ""
            if not strange and known is not None and known != found.mtime_ns:
                strange = "it was written to after the plan was made"
        return strange

    def _unit_size(self, key: str) -> int:
        """Return the bytes that the tar of an archive unit has. NotFound: the catalogue knows no such unit."""
        return self.facility.catalog.view(SERVICE).unit_at(self.plan.store_id, key).size

    def _intend(self, piece: Piece) -> list[Verdict]:
        """Decide, and when all of the object may go, make the intent durable (P5). Nothing: it was skipped."""
        with self.facility.catalog.change(self.session.principal) as tx:
            verdicts = self.session.decide(tx, piece, Step.TRASH)
            twins = [twin for item in piece for twin in tx.twins(item)]
            if not twins:
                if all(verdicts):
                    tx.move_items(piece, ItemState.PENDING, evidence=evidence_of(piece, verdicts))
                return verdicts
        same = {"changed": f"replica {twins[0]} is the same object: run `lightkeep doctor`"}
        self._skip(piece, {item.replica_id: same for item in piece})
        return []

    def _read_back(self, piece: Piece, stale: set[str]) -> bool:
        """Read the copies that stay, and write down what was found; return whether all were whole."""
        view = self.facility.catalog.view(SERVICE)
        by_file = {item.file_id: item for item in piece}
        whole = True
        for replica in view.replicas(list(by_file)):
            if replica.id in stale:
                whole &= read_back(self.facility, replica, by_file[replica.file_id])
        return whole

    def _trash(self, piece: Piece) -> None:
        item, store = piece[0], self.session.store
        unit = split_member(item.key)
        key = unit[0] if unit else item.key
        size = self._unit_size(key) if unit else item.size
        try:
            store.check_identity()
            trash_key = store.trash(key, bin=self.plan.id, size=size)
        except (Conflict, NotFound) as error:  # it changed at the last moment: nothing was moved
            _give_up(self.facility, piece, error, self.session.fence)
            self.done = replace(self.done, skipped=self.done.skipped + len(piece))
            return
        try:
            finish(self.facility, piece, trash_key, self.session.fence)
        except Conflict:  # we slept too long, and somebody else has decided: what we did must not stand
            store.recover(trash_key, key)
            raise
        self._count(piece)

    def _skip(self, piece: Piece, evidence: Mapping[str, Any]) -> None:
        with self.facility.catalog.change(self.session.principal) as tx:
            self.session.fence.check(tx)
            tx.move_items(piece, ItemState.SKIPPED, evidence=evidence)
            if any("changed" in each for each in evidence.values()):
                _suspect(tx, piece)
        self.done = replace(self.done, skipped=self.done.skipped + len(piece))

    def _count(self, piece: Piece) -> None:
        size = sum(item.size for item in piece)
        self.session.freed(size)
        self.done = replace(self.done, items=self.done.items + len(piece), size=self.done.size + size)

    def _left(self, why: str) -> Purged:
        left = sum(1 for _ in all_items(self.facility, self.plan.id, ItemState.PLANNED))
        return replace(self.done, left=left, why_left=why)

    def _end(self) -> None:
        """Give up what the need did not ask for, and close the plan."""
        reason = {"enough": f"store {self.plan.store_id} has lost what it must"}
        for piece in pieces(all_items(self.facility, self.plan.id, ItemState.PLANNED)):
            self._skip(piece, {item.replica_id: reason for item in piece})
        with self.facility.catalog.change(self.session.principal) as tx:
            self.session.fence.check(tx)
            tx.set_plan_state(self.plan.id, PlanState.DONE)


def finish(facility: Facility, piece: Piece, trash_key: str, fence: Fence) -> None:
    """Write down that an object is in the trash, and until when it can be undone.

    Raises
    ------
    Conflict: another purger has taken the store meanwhile.
    """
    with facility.catalog.change(SERVICE) as tx:
        fence.check(tx)
        now, _ = guards.time(facility, tx)
        days = max(_undo_days(case) for case in tx.cases([(item.file_id, item.replica_id) for item in piece]))
        tx.move_items(piece, ItemState.TRASHED, trash_key=trash_key, destroy_after=now + timedelta(days))


def _undo_days(case: Case) -> int:
    rule = case.home.policy.rule_for(case.home.facts) if case.home.policy else None
    return rule.undo_days if rule else _UNDO_DAYS


def _give_up(facility: Facility, piece: Piece, error: LightkeepError, fence: Fence) -> None:
    """Take an intent back because the object is not as it was: nothing was moved, and somebody must look."""
    with facility.catalog.change(SERVICE) as tx:
        fence.check(tx)
        tx.move_items(piece, ItemState.UNDONE, evidence={i.replica_id: {"changed": error.message} for i in piece})
        _suspect(tx, piece)


def _suspect(tx: Change, piece: Piece) -> None:
    """Have the replicas of an object read back before they count again."""
    for _, of_dataset in groupby(piece, key=lambda item: item.dataset_id):
        with suppress(Conflict):  # suspect or worse already
            tx.set_replicas([replica_of(item) for item in of_dataset], state=ReplicaState.SUSPECT)


def read_back(facility: Facility, replica: Replica, item: PurgeItem) -> bool:
    """Read one copy whole and write down what was found; return whether it is good, and past the cache."""
    try:
        found = facility.stores[replica.store_id].verify(replica.key)
    except (NotFound, Corrupt):
        found = None
    except StorageError:
        return False
    is_good = found is not None and (found.sha256, found.size) == (item.sha256, item.size)
    with facility.catalog.change(SERVICE) as tx:
        if not is_good:
            with suppress(Conflict):
                tx.set_replicas([replica], state=ReplicaState.SUSPECT)
        elif found is not None and found.proof is not Proof.UNPROVEN:
            at = facility.clock.now()
            tx.set_replicas([replica], state=ReplicaState.VERIFIED, verified_at=at, proof=found.proof)
    return is_good and found is not None and found.proof is not Proof.UNPROVEN


def _stale(verdicts: Sequence[Verdict]) -> set[str]:
    """Return the replicas that must be read back first, when nothing else is missing."""
    if all(verdicts) or not all(each.holds_but("P16") for each in verdicts):
        return set()
    return {
        name
        for verdict in verdicts
        for condition in verdict.conditions
        if condition.id == "P16" and not condition.met
        for name in condition.evidence.get("stale", ())
    }


def _is_for_today(verdict: Verdict) -> bool:
    """Return whether only the caps stand against it: it may go tomorrow, or when the plan is made anew."""
    return not verdict.allow and verdict.holds_but("P7")


# ---- after a crash


def recover(facility: Facility) -> int:
    """Bring everything that a crash left half done to its end; return how many items.

    A store that is away, or where a purger works right now, is passed over: the next look sees to it.
    """
    store_ids = {item.store_id for item in facility.catalog.view(SERVICE).items_to_finish()}
    done = 0
    for store_id in sorted(store_ids):
        with suppress(Conflict, StorageError), purger(facility, store_id, principal=SERVICE) as fence:
            done += recover_store(facility, store_id, fence)
    return done


def recover_store(facility: Facility, store_id: str, fence: Fence) -> int:
    """Finish, or where something holds it now undo, every pending item of a store; return how many."""
    items = [each for each in facility.catalog.view(SERVICE).items_to_finish() if each.store_id == store_id]
    if not items:
        return 0
    store = facility.stores[store_id]
    store.check_identity()
    for piece in pieces(items):
        try:
            _recover_one(facility, store, piece, fence)
        except (Conflict, NotFound) as error:
            _give_up(facility, piece, error, fence)
    return len(items)


def _recover_one(facility: Facility, store: Store, piece: Piece, fence: Fence) -> None:
    unit = split_member(piece[0].key)
    key = unit[0] if unit else piece[0].key
    is_held = _is_held(facility, piece)
    trash_key = store.trash(key, bin=piece[0].plan_id, size=_size_on(store, piece, unit))
    if not is_held:
        finish(facility, piece, trash_key, fence)
        return
    store.recover(trash_key, key)
    with facility.catalog.change(SERVICE) as tx:
        fence.check(tx)
        tx.move_items(piece, ItemState.UNDONE)


def _size_on(store: Store, piece: Piece, unit: tuple[str, int, int] | None) -> int:
    if unit is None:
        return piece[0].size
    in_bin = [each for each in store.trashed(piece[0].plan_id) if each.key.endswith(f"/{unit[0]}")]
    return in_bin[0].size if in_bin else store.stat(unit[0]).size


def _is_held(facility: Facility, piece: Piece) -> bool:
    known = facility.catalog.view(SERVICE).cases([(item.file_id, item.replica_id) for item in piece])
    now = facility.clock.now()
    return any(
        any(hold.stands(now) for hold in (*case.home.holds, *case.holds)) or case.home.leases or case.home.runs
        for case in known
    )


# ---- undo


def undo(
    facility: Facility,
    plan_id: str,
    *,
    principal: Principal,
    replica_ids: Sequence[str] | None = None,
) -> Purged:
    """Give trashed objects of a plan their names back: all that one may, or only some.

    Who may write an experiment may take back what was purged of it; an archive unit comes back as a whole, with
    any of its members. Again: nothing.

    Raises
    ------
    NotFound: there is no such plan, or nothing in it that the principal may see.
    Conflict: another purger works on the store.
    """
    view = facility.catalog.view(principal)
    experiments = facility.catalog.view(SERVICE).plan_experiments(plan_id)
    mine = {each for each in experiments if view.can(Verb.WRITE, experiment_id=each)}
    trashed = [item for item in all_items(facility, plan_id, ItemState.TRASHED) if item.experiment_id in mine]
    asked = None if replica_ids is None else set(replica_ids)
    found = [
        piece
        for piece in pieces(trashed)
        if asked is None or not asked.isdisjoint(item.replica_id for item in piece)
    ]
    if not found:
        raise NotFound(
            f"nothing of plan {plan_id} is in the trash", remedy="`lightkeep purge show` says where it is"
        )
    store = facility.stores[trashed[0].store_id]
    store.check_identity()
    done = Purged(plan_id)
    with purger(facility, store.record.id, principal=principal) as fence:
        for piece in found:
            why = _undo_one(facility, store, piece, fence, principal)
            if why:
                done = replace(done, left=done.left + len(piece), why_left=why)
            else:
                size = sum(item.size for item in piece)
                done = replace(done, items=done.items + len(piece), size=done.size + size)
    return done


def _undo_one(facility: Facility, store: Store, piece: Piece, fence: Fence, principal: Principal) -> str:
    unit = split_member(piece[0].key)
    with facility.catalog.change(principal) as tx:
        fence.check(tx)
        if any(tx.twins(item) for item in piece):
            return f"{piece[0].key} is on store {store.record.id} again already"
    try:
        store.recover(piece[0].trash_key, unit[0] if unit else piece[0].key)
    except (Conflict, NotFound) as error:
        return error.message
    with facility.catalog.change(principal) as tx:
        fence.check(tx)
        tx.move_items(piece, ItemState.UNDONE)
    return ""
