"""Purge plans: frozen lists, what became of each entry, and the one purger that works on a store.

Nothing here decides: `policy.purge.may_delete` did, in the transaction that calls these.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, case, func, or_, select, type_coerce, update

from lightkeep.catalog import schema
from lightkeep.catalog.columns import Instant, to_microseconds
from lightkeep.catalog.conditions import allowed
from lightkeep.catalog.page import Page
from lightkeep.catalog.text import encode_path, to_json
from lightkeep.catalog.transaction import Transaction
from lightkeep.catalog.view_base import ViewBase, row_limit, row_offset
from lightkeep.model.datasets import DatasetKind
from lightkeep.model.errors import Conflict, InvalidInput, NotFound
from lightkeep.model.people import Verb
from lightkeep.model.retention import ItemState, PlanReason, PlanState, PurgeItem, PurgePlan
from lightkeep.model.stores import UNITS, ReplicaState, split_member
from lightkeep.policy import access

_p, _i = schema.purge_plan.c, schema.purge_item.c
_e = schema.experiment
_d = schema.dataset
_AFTER_UNITS: Final = UNITS[:-1].encode() + bytes([ord(UNITS[-1]) + 1])
"""The first key after those of archive units."""
_ITEM_COLUMNS: Final = tuple(schema.purge_item.c.keys())
_PLAN_AFTER: Final[Mapping[PlanState, frozenset[PlanState]]] = {
    PlanState.FROZEN: frozenset({PlanState.APPROVED, PlanState.CANCELLED, PlanState.EXPIRED}),
    PlanState.APPROVED: frozenset({PlanState.RUNNING, PlanState.CANCELLED, PlanState.EXPIRED}),
    PlanState.RUNNING: frozenset({PlanState.DONE}),
    PlanState.DONE: frozenset(),
    PlanState.CANCELLED: frozenset(),
    PlanState.EXPIRED: frozenset(),
}
_ITEM_AFTER: Final[Mapping[ItemState, frozenset[ItemState]]] = {
    ItemState.PLANNED: frozenset({ItemState.PENDING, ItemState.SKIPPED}),
    ItemState.PENDING: frozenset({ItemState.TRASHED, ItemState.UNDONE}),
    ItemState.TRASHED: frozenset({ItemState.DESTROYED, ItemState.UNDONE}),
    ItemState.SKIPPED: frozenset(),
    ItemState.UNDONE: frozenset(),
    ItemState.DESTROYED: frozenset(),
}
_REPLICA_IS: Final = {
    ItemState.PENDING: ReplicaState.DELETE_PENDING,
    ItemState.UNDONE: ReplicaState.VERIFIED,
    ItemState.DESTROYED: ReplicaState.DELETED,
}
"""What becomes of the replica when its item becomes this."""


def list_hash(items: Iterable[PurgeItem]) -> str:
    """Return the SHA-256 over what a plan's items name, in their order: not over what became of them."""
    digest = hashlib.sha256()
    for item in items:
        names = (item.replica_id, item.file_id, item.dataset_id, item.experiment_id, item.store_id, item.key)
        line = json.dumps([item.position, *names, item.size, item.sha256, item.policy, item.notice_id])
        digest.update(line.encode() + b"\n")
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class PlanFlags:
    """What asks for more than a manager's approval."""

    last_copy_policies: tuple[str, ...]
    """Stamps of the policies under which a last copy would go."""
    is_public: bool
    """True: public data would go."""


@dataclass(frozen=True, slots=True)
class PlanPart:
    """Items of one plan that are alike."""

    experiment_id: str
    dataset_id: str
    name: str
    """Of the dataset."""
    policy: str
    """Stamp `id@version`."""
    notice_id: str
    state: ItemState
    files: int
    size: int
    """Bytes."""
    is_due: bool
    """True: in the trash, and their time to be taken back is over."""
    destroy_after: datetime | None
    """When the first of them may be removed for good."""
    packed: int = 0
    """How many of the files lie in archive units, which go as a whole."""


class PlanChanges(Transaction):
    """The part of `Change` about purge plans. With `set_replicas`, the one way to a deleted replica."""

    def add_plan(self, plan: PurgePlan, items: Sequence[PurgeItem]) -> PurgePlan:
        """Freeze a list. InvalidInput when the plan's figures are not those of its items."""
        self._must_be_new(schema.purge_plan, plan.id, "plan")
        figures = (len(items), sum(item.size for item in items), list_hash(items))
        if (plan.files, plan.size, plan.hash) != figures or any(
            (item.plan_id, item.position, item.store_id) != (plan.id, position, plan.store_id)
            for position, item in enumerate(items)
        ):
            raise InvalidInput(f"the items of plan {plan.id} are not those that its hash was made of")
        now = self._clock.now()
        values = {column: getattr(plan, column) for column in schema.purge_plan.c.keys()}  # noqa: SIM118
        values.update(
            reason=plan.reason.value,
            state=PlanState.FROZEN.value,
            created_by=self._principal.id,
            created_at=now,
            approvals="[]",
            approved_at=None,
            freed=0,
        )
        self._insert(schema.purge_plan, **values)
        self._dialect.insert(self._connection, "purge_item", _ITEM_COLUMNS, [_item_values(i) for i in items])
        detail = {
            "store": plan.store_id, "reason": plan.reason, "hash": plan.hash,
            "files": plan.files, "bytes": plan.size, "need": plan.need,
        }  # fmt: skip
        self._record("plan.frozen", plan.id, "", detail)
        return plan_of(self._row(schema.purge_plan, plan.id, "plan"))

    def approve_plan(self, plan_id: str, *, person_id: str, is_enough: bool) -> None:
        """Add an approval; with `is_enough` the plan may run. Conflict when it is not frozen, or approved so."""
        row = self._row(schema.purge_plan, plan_id, "plan")
        plan = plan_of(row)
        if plan.state is not PlanState.FROZEN:
            raise Conflict(f"plan {plan_id} is {plan.state}: nobody can approve it", remedy="make a new plan")
        if person_id in plan.approvals:
            raise Conflict(f"{person_id} has approved plan {plan_id} already", remedy="a second person must")
        approvals = (*plan.approvals, person_id)
        self._set(schema.purge_plan, plan_id, approvals=to_json(approvals))
        self._record("plan.approval_given", plan_id, "", {"person": person_id, "hash": plan.hash})
        if is_enough:
            self._set(schema.purge_plan, plan_id, approved_at=self._clock.now())
            self.set_plan_state(plan_id, PlanState.APPROVED)

    def set_plan_state(self, plan_id: str, state: PlanState) -> None:
        """Move a plan on. Conflict when the state may not follow the present one."""
        now = PlanState(self._row(schema.purge_plan, plan_id, "plan")["state"])
        if state not in _PLAN_AFTER[now]:
            raise Conflict(f"plan {plan_id} is {now} and cannot become {state}", remedy="make a new plan")
        self._set(schema.purge_plan, plan_id, state=state.value)
        self._record(f"plan.{state}", plan_id, "", {"from": now})

    def move_items(
        self, items: Sequence[PurgeItem], state: ItemState, *, evidence: Mapping[str, Any] | None = None,
        trash_key: str = "", destroy_after: datetime | None = None,
    ) -> None:  # fmt: skip
        """Move the items of one object on, and their replicas with them: all of it, or nothing.

        Parameters
        ----------
        evidence: why, item by item under the replica's id; what is absent keeps what it has.
        trash_key, destroy_after: where the bytes are and until when, with state trashed.

        Raises
        ------
        Conflict: an item or its replica is not in the state before: somebody else was faster.
        """
        now = self._clock.now()
        for item in items:
            row = self.item(item.plan_id, item.position)
            if state not in _ITEM_AFTER[row.state]:
                raise Conflict(
                    f"item {item.position} of plan {item.plan_id} is {row.state} and cannot become {state}",
                    remedy="`lightkeep purge show` says what became of each item",
                )
            values: dict[str, Any] = {"state": state.value}
            if evidence and item.replica_id in evidence:
                values["evidence"] = to_json(evidence[item.replica_id])
            if state is ItemState.TRASHED:
                values.update(trash_key=encode_path(trash_key), trashed_at=now, destroy_after=destroy_after)
            if state in (ItemState.SKIPPED, ItemState.UNDONE, ItemState.DESTROYED):
                values["ended_at"] = now
            here = (_i.plan_id == item.plan_id) & (_i.position == item.position)
            self._connection.execute(update(schema.purge_item).where(here).values(values))
            if state in _REPLICA_IS:
                self._follow(item, state)
            detail = {"plan": item.plan_id, "position": item.position, "replica": item.replica_id}
            detail |= {"bytes": item.size, "store": item.store_id, "sha256": item.sha256, "policy": item.policy}
            why = (evidence or {}).get(item.replica_id, {})
            self._record(f"purge.{state}", item.file_id, item.experiment_id, {**detail, "evidence": why})
        if state in _REPLICA_IS:
            self._units_follow(items, _REPLICA_IS[state])
        self._count_freed(items, state)

    def note_items(self, items: Sequence[PurgeItem], evidence: Mapping[str, Any], verb: str) -> None:
        """Write down what is about to be done to items that stay in their state: durable before it is done."""
        for item in items:
            here = (_i.plan_id == item.plan_id) & (_i.position == item.position)
            kept = to_json(evidence[item.replica_id])
            self._connection.execute(update(schema.purge_item).where(here).values(evidence=kept))
            detail = {"plan": item.plan_id, "position": item.position, "replica": item.replica_id}
            why = {**detail, "evidence": evidence[item.replica_id]}
            self._record(f"purge.{verb}", item.file_id, item.experiment_id, why)

    def _follow(self, item: PurgeItem, state: ItemState) -> None:
        """Move the replica as its item moves. Conflict when it is not in the state before."""
        c = schema.replica.c
        before = ReplicaState.VERIFIED if state is ItemState.PENDING else ReplicaState.DELETE_PENDING
        here = (c.file_id == item.file_id) & (c.id == item.replica_id) & (c.state == before.value)
        moved = self._connection.execute(update(schema.replica).where(here).values(state=_REPLICA_IS[state].value))
        if moved.rowcount != 1:
            raise Conflict(
                f"replica {item.replica_id} is no longer {before}", remedy="`lightkeep purge show` says more"
            )

    def _units_follow(self, items: Sequence[PurgeItem], state: ReplicaState) -> None:
        """Move the archive units of some items: their members are one object."""
        u = schema.archive_unit.c
        found = {(item.store_id, unit[0]) for item in items if (unit := split_member(item.key))}
        for store_id, key in sorted(found):
            here = (u.store_id == store_id) & (u.key == encode_path(key))
            self._connection.execute(update(schema.archive_unit).where(here).values(state=state.value))

    def _count_freed(self, items: Sequence[PurgeItem], state: ItemState) -> None:
        sign = {ItemState.PENDING: 1, ItemState.UNDONE: -1}.get(state, 0)
        for plan_id in {item.plan_id for item in items} if sign else ():
            size = sign * sum(item.size for item in items if item.plan_id == plan_id)
            self._connection.execute(
                update(schema.purge_plan).where(_p.id == plan_id).values(freed=_p.freed + size)
            )

    # ---- reads of the transaction itself: what it decides on must not be older than it

    def plan(self, plan_id: str) -> PurgePlan:
        """Return a plan as this transaction sees it. NotFound."""
        return plan_of(self._row(schema.purge_plan, plan_id, "plan"))

    def item(self, plan_id: str, position: int) -> PurgeItem:
        """Return one item as this transaction sees it. NotFound."""
        found = select(schema.purge_item).where(_i.plan_id == plan_id, _i.position == position)
        row = self._connection.execute(found).mappings().first()
        if row is None:
            raise NotFound(f"plan {plan_id} has no item {position}")
        return item_of(row)

    def twins(self, item: PurgeItem) -> list[str]:
        """Return the ids of other replicas of the same file at the same place that are not deleted."""
        c = schema.replica.c
        same = (c.file_id == item.file_id) & (c.id != item.replica_id) & (c.store_id == item.store_id)
        same &= (c.key == encode_path(item.key)) & (c.state != ReplicaState.DELETED.value)
        return [row.id for row in self._connection.execute(select(c.id).where(same))]

    def freed_since(self, store_id: str, at: datetime) -> int:
        """Return the bytes that purges took from a store since a time."""
        return freed_since(self._connection, store_id, at)


class PlanViews(ViewBase):
    """The part of `View` about purge plans: staff see whole plans, others the items of what they see."""

    def plans(
        self, *, store_id: str = "", state: PlanState | None = None, limit: int = 50, offset: int = 0
    ) -> Page[PurgePlan]:
        """Purge plans, newest first: all for who manages the facility; for who manages a station those that name
        data which they see, and of these that part; others see none."""
        found = select(schema.purge_plan).where(self._reviewed())
        if store_id:
            found = found.where(_p.store_id == store_id)
        if state is not None:
            found = found.where(_p.state == state.value)
        page = self._page(found, (_p.created_at.desc(), _p.id.desc()), plan_of, limit, offset)
        return Page(self._parts_of(page.items), page.total)

    def plan(self, id: str) -> PurgePlan:  # noqa: A002
        """One plan, or the part of it that one sees. NotFound."""
        found = select(schema.purge_plan).where(_p.id == id, self._reviewed())
        return self._parts_of([self._one(found, plan_of, f"plan {id!r}")])[0]

    def _reviewed(self) -> ColumnElement[bool]:
        """Return which plans one sees: none of which every item is of experiments that one does not."""
        everywhere = allowed(access.granted_on_facility(self._principal, Verb.MANAGE))
        item = select(_i.plan_id).join_from(schema.purge_item, _e, _e.c.id == _i.experiment_id)
        return or_(everywhere, and_(self._staff(), item.where(_i.plan_id == _p.id, self._see).exists()))

    def _parts_of(self, plans: Sequence[PurgePlan]) -> list[PurgePlan]:
        """Return plans with the figures of the items that one sees, where these are not all."""
        took = _i.state.in_([ItemState.PENDING.value, ItemState.TRASHED.value, ItemState.DESTROYED.value])
        found = (
            select(_i.plan_id, func.count(), func.sum(_i.size), func.sum(case((took, _i.size), else_=0)))
            .join_from(schema.purge_item, _e, _e.c.id == _i.experiment_id)
            .where(_i.plan_id.in_([each.id for each in plans]), self._see)
            .group_by(_i.plan_id)
        )
        with self._read() as connection:
            seen = {row[0]: row[1:] for row in connection.execute(found)}
        return [_part_of(plan, *seen.get(plan.id, (0, 0, 0))) for plan in plans]

    def may_review(self) -> bool:
        """Return whether one sees purge plans at all."""
        with self._read() as connection:
            return bool(connection.execute(select(case((self._staff(), 1), else_=0))).scalar_one())

    def plan_items(
        self,
        plan_id: str,
        *,
        state: ItemState | None = None,
        dataset_id: str = "",
        limit: int = 1000,
        after: int = -1,
    ) -> list[PurgeItem]:
        """Items of a plan behind a position, in order: those of experiments that one sees."""
        found = select(schema.purge_item).join_from(schema.purge_item, _e, _e.c.id == _i.experiment_id)
        found = found.where(_i.plan_id == plan_id, _i.position > after, self._see)
        if dataset_id:
            found = found.where(_i.dataset_id == dataset_id)
        if state is not None:
            found = found.where(_i.state == state.value)
        return self._all(found.order_by(_i.position).limit(row_limit(limit)), item_of)

    def item_counts(self, plan_id: str) -> dict[str, tuple[int, int]]:
        """Return state -> (items, bytes) of a plan, of experiments that one sees. NotFound."""
        self.plan(plan_id)
        found = select(_i.state, func.count(), func.sum(_i.size))
        found = found.join_from(schema.purge_item, _e, _e.c.id == _i.experiment_id)
        found = found.where(_i.plan_id == plan_id, self._see).group_by(_i.state)
        with self._read() as connection:
            return {row[0]: (row[1], int(row[2])) for row in connection.execute(found)}

    def plan_parts(self, plan_id: str) -> list[PlanPart]:
        """What a plan names, of experiments that one sees: by dataset, policy, notice and state. NotFound."""
        self.plan(plan_id)
        is_due = (_i.state == ItemState.TRASHED.value) & (_i.destroy_after <= self._now)
        due = case((is_due, 1), else_=0).label("is_due")
        packed = case(((_i.key >= UNITS.encode()) & (_i.key < _AFTER_UNITS), 1), else_=0)
        keys = (_i.experiment_id, _i.dataset_id, _d.c.name, _i.policy, _i.notice_id, _i.state, due)
        ends = type_coerce(func.min(_i.destroy_after), Instant()).label("ends")
        found = (
            select(*keys, func.count().label("n"), func.sum(_i.size).label("amount"), ends)
            .add_columns(func.sum(packed).label("packed"))
            .join_from(schema.purge_item, _e, _e.c.id == _i.experiment_id)
            .join(_d, _d.c.id == _i.dataset_id)
            .where(_i.plan_id == plan_id, self._see)
            .group_by(*keys)
            .order_by(func.min(_i.position))
        )
        with self._read() as connection:
            return [
                PlanPart(
                    each.experiment_id,
                    each.dataset_id,
                    each.name,
                    each.policy,
                    each.notice_id,
                    ItemState(each.state),
                    each.n,
                    int(each.amount),
                    bool(each.is_due),
                    each.ends,
                    int(each.packed),
                )
                for each in connection.execute(found)
            ]

    def plan_experiments(self, plan_id: str) -> list[str]:
        """Return the ids of the experiments whose files a plan names."""
        found = select(_i.experiment_id).where(_i.plan_id == plan_id).distinct().order_by(_i.experiment_id)
        with self._read() as connection:
            return [row.experiment_id for row in connection.execute(found)]

    def plan_names(self, plan_id: str) -> tuple[tuple[str, ...], tuple[DatasetKind, ...]]:
        """Return the stamps of the policies of a plan's items, and the kinds of their datasets."""
        found = select(_i.policy, _d.c.kind).join_from(schema.purge_item, _d, _d.c.id == _i.dataset_id)
        with self._read() as connection:
            rows = connection.execute(found.where(_i.plan_id == plan_id).distinct()).all()
        return tuple(sorted({row.policy for row in rows})), tuple(sorted({DatasetKind(row.kind) for row in rows}))

    def plan_flags(self, plan_id: str) -> PlanFlags:
        """Return what is special about the items of a plan, as the planner noted it."""
        found = select(_i.policy, _i.evidence).where(_i.plan_id == plan_id)
        last, public = '%"is_last_copy":true%', '%"is_public":true%'
        with self._read() as connection:
            stamps = connection.execute(found.where(_i.evidence.like(last))).all()
            is_public = connection.execute(found.where(_i.evidence.like(public)).limit(1)).first() is not None
        return PlanFlags(tuple(sorted({row.policy for row in stamps})), is_public)

    def tombstones(self, dataset_id: str, *, limit: int = 1000, offset: int = 0) -> list[PurgeItem]:
        """What was purged of a dataset, or is in the trash, with the evidence, newest first: kept for ever."""
        found = select(schema.purge_item).join_from(schema.purge_item, _e, _e.c.id == _i.experiment_id)
        gone = [ItemState.PENDING.value, ItemState.TRASHED.value, ItemState.DESTROYED.value]
        found = found.where(_i.dataset_id == dataset_id, _i.state.in_(gone), self._see)
        ordered = found.order_by(_i.plan_id.desc(), _i.position).limit(row_limit(limit)).offset(row_offset(offset))
        return self._all(ordered, item_of)

    def tombstones_of(self, file_id: str) -> list[PurgeItem]:
        """What was purged of one file, the latest first."""
        gone = [ItemState.PENDING.value, ItemState.TRASHED.value, ItemState.DESTROYED.value]
        c = schema.replica.c
        replicas = select(c.id).where(c.file_id == file_id)
        found = select(schema.purge_item).join_from(schema.purge_item, _e, _e.c.id == _i.experiment_id)
        found = found.where(_i.replica_id.in_(replicas), _i.state.in_(gone), self._see)
        return self._all(found.order_by(_i.plan_id.desc()), item_of)

    def items_to_finish(self) -> list[PurgeItem]:
        """Items whose intent is durable and whose bytes may or may not be in the trash: what a crash leaves."""
        found = select(schema.purge_item).where(_i.state == ItemState.PENDING.value)
        return self._all(found.order_by(_i.plan_id, _i.position), item_of)

    def items_in_trash(self, *, store_id: str = "", limit: int = 1000) -> list[PurgeItem]:
        """Items whose bytes are in the trash, by plan and position."""
        found = select(schema.purge_item).where(_i.state == ItemState.TRASHED.value)
        if store_id:
            found = found.where(_i.store_id == store_id)
        return self._all(found.order_by(_i.plan_id, _i.position).limit(limit), item_of)

    def trash_of(self, store_id: str) -> tuple[int, int, datetime | None]:
        """Return (objects, bytes, when the last of them can no longer be undone) of a store's trash."""
        here = (_i.state == ItemState.TRASHED.value) & (_i.store_id == store_id)
        found = select(func.count(), func.coalesce(func.sum(_i.size), 0), func.max(_i.destroy_after)).where(here)
        with self._read() as connection:
            row = connection.execute(found).one()
        return row[0], int(row[1]), row[2]

    def plans_in_trash(self, *, until: datetime) -> list[str]:
        """Return the plans with items in the trash whose window ends by a time."""
        due = (_i.state == ItemState.TRASHED.value) & (_i.destroy_after <= until)
        with self._read() as connection:
            found = connection.execute(select(_i.plan_id).where(due).distinct().order_by(_i.plan_id))
            return [row.plan_id for row in found]

    def freed_since(self, store_id: str, at: datetime) -> int:
        """Return the bytes that purges took from a store since a time."""
        with self._read() as connection:
            return freed_since(connection, store_id, at)

    def _staff(self) -> ColumnElement[bool]:
        everywhere = allowed(access.granted_on_facility(self._principal, Verb.MANAGE))
        somewhere = select(schema.station.c.id).where(
            allowed(access.granted_on_station(self._principal, Verb.MANAGE))
        )
        return or_(everywhere, somewhere.exists())


def freed_since(connection: Connection, store_id: str, at: datetime) -> int:
    """Return the bytes that purges took from a store since a time."""
    took = [ItemState.TRASHED.value, ItemState.DESTROYED.value]
    found = select(func.coalesce(func.sum(_i.size), 0)).where(
        _i.store_id == store_id, _i.state.in_(took), _i.trashed_at > at
    )
    return int(connection.execute(found).scalar_one())


def plan_of(row: RowMapping) -> PurgePlan:
    """Return the plan of a row."""
    more = {"reason": PlanReason(row["reason"]), "state": PlanState(row["state"])}
    return PurgePlan(**{**row, **more, "approvals": tuple(json.loads(row["approvals"]))})


def _part_of(plan: PurgePlan, files: int, size: int, freed: int) -> PurgePlan:
    """Return a plan without what tells of files that one does not see."""
    if files == plan.files:
        return plan
    return replace(plan, files=files, size=int(size), freed=int(freed), need=0, hash="", is_whole=False)


def item_of(row: RowMapping) -> PurgeItem:
    """Return the item of a row."""
    names = {"key": os.fsdecode(row["key"]), "trash_key": os.fsdecode(row["trash_key"])}
    more = {"sha256": bytes(row["sha256"]).hex(), "evidence": json.loads(row["evidence"])}
    return PurgeItem(**{**row, **names, **more, "state": ItemState(row["state"])})


def _item_values(item: PurgeItem) -> tuple[Any, ...]:
    at = [None if each is None else to_microseconds(each) for each in (item.trashed_at, item.destroy_after)]
    return (
        item.plan_id, item.position, item.replica_id, item.file_id, item.dataset_id, item.experiment_id,
        item.store_id, encode_path(item.key), item.size, bytes.fromhex(item.sha256), item.policy, item.notice_id,
        item.state.value, to_json(item.evidence), encode_path(item.trash_key), *at, None,
    )  # fmt: skip
