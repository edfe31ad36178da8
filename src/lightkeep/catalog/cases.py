"""Cases for `policy.purge.may_delete`: all that the catalogue knows about a deletion, read in one transaction.

One gatherer serves planning, running and explaining. What is not in the catalogue, whoever decides must add: the
plan and its hash, the budget, the guards and the identity that was read from the store. Without them nothing goes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, TextClause, and_, func, select, true

from lightkeep.catalog import rows, schema
from lightkeep.catalog.holds import hold_of, lease_of, stands
from lightkeep.catalog.notices import notice_of
from lightkeep.catalog.policies import newest_policies
from lightkeep.catalog.text import encode_path
from lightkeep.catalog.transaction import Transaction, parts
from lightkeep.catalog.view_base import ViewBase
from lightkeep.model.datasets import DatasetKind, DatasetState
from lightkeep.model.errors import NotFound
from lightkeep.model.experiments import ExperimentState
from lightkeep.model.retention import (
    Hold,
    HoldScope,
    ItemState,
    Lease,
    Notice,
    PlanReason,
    PlanState,
    RestoreState,
)
from lightkeep.model.runs import RunState
from lightkeep.model.stores import ReplicaState, StoreRecord, split_member
from lightkeep.policy.case import Budget, Case, Copy, Guards, Home, Step, Told, UnitFacts
from lightkeep.policy.retention import ClockFacts, Facts, Policy, applicable

UNASKED = Guards(clock_doubt="the clock was not checked", catalog_doubt="the catalogue was not checked")
"""The guards of a case that nobody has completed: nothing may go."""
_NO_BUDGET = Budget(held=0)
_NEVER_WHOLE = 2**62
_STATES = {state.value: state for state in ReplicaState}
_LIVE_PLANS = [PlanState.FROZEN.value, PlanState.APPROVED.value, PlanState.RUNNING.value]
_LIVE_ITEMS = [ItemState.PLANNED.value, ItemState.PENDING.value, ItemState.TRASHED.value]
_LIVE_RUNS = [RunState.QUEUED.value, RunState.RUNNING.value]
_r, _f, _d, _e = schema.replica.c, schema.file.c, schema.dataset.c, schema.experiment.c
_l, _n = schema.lease.c, schema.notice.c

Key = tuple[str, str]
"""(file id, replica id)."""


class CaseChanges(Transaction):
    """The part of `Change` that decides on deletions: what it reads cannot change before the change commits."""

    def cases(
        self, keys: Sequence[Key], *, step: Step = Step.TRASH, reason: PlanReason = PlanReason.EXPIRY
    ) -> list[Case]:
        """Cases of replicas, in the order of the keys, as of now. NotFound: one of them does not exist."""
        return gather(self._connection, keys, now=self._clock.now(), step=step, reason=reason)


class CaseViews(ViewBase):
    """The part of `View` that explains deletions."""

    def cases(
        self, keys: Sequence[Key], *, step: Step = Step.TRASH, reason: PlanReason = PlanReason.EXPIRY
    ) -> list[Case]:
        """Cases of replicas that one may see, in the order of the keys. NotFound: one of them is not there."""
        with self._read() as connection:
            return gather(connection, keys, now=self._now, step=step, reason=reason, see=self._see)


def gather(
    connection: Connection,
    keys: Sequence[Key],
    *,
    now: datetime,
    step: Step = Step.TRASH,
    reason: PlanReason = PlanReason.EXPIRY,
    see: ColumnElement[bool] | TextClause | None = None,
) -> list[Case]:
    """Return the case of each replica, in order, with a fixed number of statements for each 1,000 of them.

    Parameters
    ----------
    see: condition on experiment; a replica of another one is not there.

    Raises
    ------
    NotFound: a replica does not exist, or may not be seen.

    Notes: `plan`, `budget`, `guards` and `uuid_seen` are not filled in; of a unit only how many members it has is.
    """
    house = _House(connection, now)
    return [
        case for part in parts(keys) for case in _cases(house, part, step, reason, true() if see is None else see)
    ]


class _House:
    """What is the same for every case of a facility."""

    def __init__(self, connection: Connection, now: datetime) -> None:
        self.connection = connection
        self.now = now
        self.policies = newest_policies(connection)
        self.stores: Mapping[str, StoreRecord] = {
            row["id"]: rows.store_of(row) for row in connection.execute(select(schema.store)).mappings()
        }
        live = select(schema.run.c.id, schema.run.c.dataset_id, schema.run.c.params, schema.run.c.resolved)
        self.runs = connection.execute(live.where(schema.run.c.state.in_(_LIVE_RUNS))).all()
        self._applies: dict[tuple[str, str], Policy | None] = {}
        self._holds: dict[tuple[str, str], list[Hold]] = {}
        for row in connection.execute(select(schema.hold).where(stands(now))).mappings():
            self._holds.setdefault((row["scope"], row["scope_id"]), []).append(hold_of(row))
        self.leases: dict[str, list[Lease]] = {}
        for row in connection.execute(select(schema.lease).where(_l.expires_at > now)).mappings():
            self.leases.setdefault(row["dataset_id"], []).append(lease_of(row))
        live = select(schema.purge_plan.c.id).where(schema.purge_plan.c.state.in_(_LIVE_PLANS))
        self.has_plans = connection.execute(live.limit(1)).first() is not None

    def policy(self, policy_id: str, station_id: str) -> Policy | None:
        """Return the policy that an experiment follows."""
        key = (policy_id, station_id)
        if key not in self._applies:
            self._applies[key] = applicable(self.policies, policy_id=policy_id, station_id=station_id)
        return self._applies[key]

    def holds(self, *places: tuple[HoldScope, str]) -> tuple[Hold, ...]:
        """Return the holds that stand on some things."""
        return tuple([hold for scope, what in places for hold in self._holds.get((scope.value, what), ())])

    def readers(self, dataset_id: str) -> tuple[str, ...]:
        """Return the runs that read a dataset: the one that they were asked for, and those that they name."""
        return tuple(
            run.id
            for run in self.runs
            if run.dataset_id == dataset_id or dataset_id in run.params or dataset_id in run.resolved
        )

    def all(self, statement: Select[Any]) -> Sequence[Any]:
        """Return the rows that a statement finds."""
        return self.connection.execute(statement).all()


_COLUMNS = (
    _r.id, _r.file_id, _r.store_id, _r.key, _r.state, _r.verified_at, _f.size, _f.sha256,
    _d.id.label("dataset_id"), _d.experiment_id,
)  # fmt: skip


def _cases(house: _House, keys: Sequence[Key], step: Step, reason: PlanReason, see: Any) -> list[Case]:
    replica_rows = _replica_rows(house, [file_id for file_id, _ in keys], see)
    by_id = {row.id: row for row in replica_rows}
    for file_id, replica_id in keys:
        if replica_id not in by_id or by_id[replica_id].file_id != file_id:
            raise NotFound(f"replica {replica_id!r} does not exist")
    subjects = [by_id[replica_id] for _, replica_id in keys]
    planned = _planned(house, list(by_id)) if house.has_plans else set()
    copies = {row.id: _copy(house, row, row.id in planned) for row in replica_rows}
    of_file: dict[str, list[Copy]] = {}
    for row in replica_rows:
        if row.state != ReplicaState.DELETED:
            of_file.setdefault(row.file_id, []).append(copies[row.id])
    homes = _homes(house, {row.dataset_id for row in subjects})
    notices, listed = _notices(house, subjects)
    cached = _cached(house, {row.dataset_id for row in subjects})
    units = _units(house, subjects)
    return [
        Case(
            copies[row.id],
            homes[row.dataset_id],
            row.file_id,
            row.size,
            bytes(row.sha256).hex(),
            _NO_BUDGET,
            UNASKED,
            step,
            reason,
            tuple([copy for copy in of_file.get(row.file_id, ()) if copy.replica_id != row.id]),
            house.holds((HoldScope.FILE, row.file_id), (HoldScope.STORE, row.store_id)),
            tuple(
                [
                    Told(n, (n.listing, row.id) in listed)
                    for n in notices.get((row.experiment_id, row.store_id), ())
                ]
            ),
            cached.get((row.dataset_id, row.store_id)),
            unit=units.get(row.id),
        )
        for row in subjects
    ]


def _replica_rows(house: _House, file_ids: Iterable[str], see: Any) -> Sequence[Any]:
    joined = (
        select(*_COLUMNS)
        .join_from(schema.replica, schema.file, _f.id == _r.file_id)
        .join(schema.dataset, _d.number == _f.dataset_number)
        .join(schema.experiment, _e.id == _d.experiment_id)
    )
    return house.all(joined.where(_r.file_id.in_(list(dict.fromkeys(file_ids))), see))


def _copy(house: _House, row: Any, is_planned: bool) -> Copy:
    return Copy(
        row.id,
        house.stores[row.store_id],
        _STATES[row.state],
        os.fsdecode(row.key),
        row.verified_at,
        is_planned,
    )


def _planned(house: _House, replica_ids: list[str]) -> set[str]:
    i, p = schema.purge_item.c, schema.purge_plan.c
    found = select(i.replica_id).join_from(schema.purge_item, schema.purge_plan, p.id == i.plan_id)
    live = and_(p.state.in_(_LIVE_PLANS), i.state.in_(_LIVE_ITEMS))
    return {row[0] for part in parts(replica_ids) for row in house.all(found.where(i.replica_id.in_(part), live))}


def _homes(house: _House, dataset_ids: set[str]) -> dict[str, Home]:
    datasets = house.all(
        select(
            _d.id, _d.experiment_id, _d.kind, _d.technique, _d.size, _d.state, _e.station_id, _e.policy_id,
            _e.state.label("experiment_state"), _e.ends_at, _e.closed_at, _e.released_at,
        )
        .join_from(schema.dataset, schema.experiment, _e.id == _d.experiment_id)
        .where(_d.id.in_(dataset_ids))
    )  # fmt: skip
    newest = _newest_raw(house, {row.experiment_id for row in datasets})
    return {
        row.id: Home(
            row.id,
            row.experiment_id,
            Facts(row.station_id, row.technique, DatasetKind(row.kind), row.size),
            ClockFacts(
                ExperimentState(row.experiment_state), row.ends_at, row.closed_at, newest.get(row.experiment_id)
            ),
            house.policy(row.policy_id, row.station_id),
            row.state != DatasetState.RECEIVING,
            row.released_at is not None and row.released_at <= house.now,
            house.holds(
                (HoldScope.FACILITY, ""),
                (HoldScope.STATION, row.station_id),
                (HoldScope.EXPERIMENT, row.experiment_id),
                (HoldScope.DATASET, row.id),
            ),
            tuple(house.leases.get(row.id, ())),
            house.readers(row.id),
        )
        for row in datasets
    }


def _newest_raw(house: _House, experiment_ids: set[str]) -> dict[str, datetime]:
    newest = select(_d.experiment_id, func.max(_d.completed_at)).where(
        _d.experiment_id.in_(experiment_ids), _d.kind == DatasetKind.RAW.value, _d.completed_at.is_not(None)
    )
    return {row[0]: row[1] for row in house.all(newest.group_by(_d.experiment_id))}


def _notices(
    house: _House, subjects: Sequence[Any]
) -> tuple[dict[tuple[str, str], list[Notice]], set[tuple[str, str]]]:
    """Return the notices by (experiment, store), and which of the replicas are on which list."""
    found = select(schema.notice).where(
        _n.experiment_id.in_({row.experiment_id for row in subjects}),
        _n.store_id.in_({row.store_id for row in subjects}),
    )
    notices: dict[tuple[str, str], list[Notice]] = {}
    for row in house.connection.execute(found).mappings():
        notices.setdefault((row["experiment_id"], row["store_id"]), []).append(notice_of(row))
    hashes = {bytes.fromhex(notice.listing) for group in notices.values() for notice in group}
    if not hashes:
        return {}, set()
    c = schema.listing.c
    on_list = select(c.hash, c.replica_id).where(
        c.hash.in_(hashes), c.replica_id.in_([row.id for row in subjects])
    )
    return notices, {(bytes(row[0]).hex(), row[1]) for row in house.all(on_list)}


def _cached(house: _House, dataset_ids: set[str]) -> dict[tuple[str, str], datetime]:
    """Return until when a dataset was restored onto a store; a part of it counts as all of it."""
    c = schema.restore.c
    found = select(c.dataset_id, c.target_id, func.max(c.cache_until)).where(
        c.dataset_id.in_(dataset_ids), c.state != RestoreState.FAILED.value
    )
    return {(row[0], row[1]): row[2] for row in house.all(found.group_by(c.dataset_id, c.target_id))}


def _units(house: _House, subjects: Sequence[Any]) -> dict[str, UnitFacts]:
    """Return the unit that a replica is a member of. One that the catalogue does not know is never whole."""
    members = {
        row.id: (row.store_id, found[0]) for row in subjects if (found := split_member(os.fsdecode(row.key)))
    }
    if not members:
        return {}
    c = schema.archive_unit.c
    wanted = {encode_path(key) for _, key in members.values()}
    sizes = {
        (row.store_id, os.fsdecode(row.key)): row.members
        for row in house.all(select(c.store_id, c.key, c.members).where(c.key.in_(wanted)))
    }
    return {id_: UnitFacts(sizes.get(place, _NEVER_WHOLE), 0) for id_, place in members.items()}
