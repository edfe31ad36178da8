"""How much lies where: counted once, then kept up by what the audit trail says has changed.

A group is one (experiment, store, technique, kind). `usage_sample` holds what a group gained or lost on a day: its
sum is what lies there now, its sum up to a day is what lay there then. Every change of a replica leaves an event
with its experiment (invariant A1), so only the experiments that the trail names after the last sample are counted
again, and those exactly. Counting all of a million datasets takes seconds; this takes a fraction of one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    true,
    type_coerce,
    update,
)

from lightkeep.catalog import schema
from lightkeep.catalog.columns import Instant
from lightkeep.catalog.rows import experiment_of
from lightkeep.catalog.transaction import Transaction, parts
from lightkeep.catalog.view_base import ViewBase
from lightkeep.model.datasets import DatasetKind, DatasetState
from lightkeep.model.errors import Conflict, NotFound
from lightkeep.model.experiments import Experiment
from lightkeep.model.people import Scope
from lightkeep.model.stores import ReplicaState, StoreRecord
from lightkeep.model.usage import Growth, Quota, Step

SAMPLED = "usage.seq"
"""Fact: number of the last event that the samples know of; 0, or absent: everything is counted again."""
_GONE = (ReplicaState.PLANNED.value, ReplicaState.COPYING.value, ReplicaState.DELETED.value)
_e, _d, _f, _r, _u = schema.experiment, schema.dataset, schema.file, schema.replica, schema.usage_sample


class Group(NamedTuple):
    """What is counted together."""

    experiment_id: str
    store_id: str
    technique: str
    kind: str


class Amount(NamedTuple):
    """How much of it."""

    files: int
    """Copies of files; two copies of one file count twice."""
    size: int
    """Bytes."""


Groups = dict[Group, Amount]


@dataclass(frozen=True, slots=True)
class Arrived:
    """What was completed at a station in a span of time."""

    station_id: str
    technique: str
    kind: DatasetKind
    size: int
    first_at: datetime


class Changed(NamedTuple):
    """What was added (above 0) or taken away on a day."""

    day: datetime
    """Midnight UTC."""
    key: str
    """Store, station, experiment, technique or kind."""
    files: int
    size: int
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Fresh:
    """What a sample has to add: read in one go, written by `UsageChanges.add_samples`."""

    before: int
    """The event that the last sample knew of."""
    upto: int
    """The event that this one knows of."""
    changes: Mapping[Group, Amount]


class UsageChanges(Transaction):
    """The part of `Change` about room: samples, stores, growth and quotas."""

    def add_samples(self, day: datetime, fresh: Fresh) -> None:
        """Write down what changed, on a day (midnight UTC). No event: it repeats what the trail says.

        Raises
        ------
        Conflict: somebody else sampled in between; read again.
        """
        c = schema.fact.c
        known = self._connection.execute(select(c.value).where(c.name == SAMPLED)).scalar()
        if int(known or 0) != fresh.before:
            raise Conflict("another process wrote the usage samples", remedy="try again")
        today = _u.c.day == day
        sums = {Group(*row[:4]): Amount(*row[4:]) for row in self._connection.execute(_grouped(today))}
        stations = {key: at for key, at in self._connection.execute(select(_e.c.id, _e.c.station_id))}  # noqa: C416
        groups = [group for group, change in fresh.changes.items() if any(change)]
        for part in parts(groups):
            rows = [(group, _sum(sums.get(group), fresh.changes[group])) for group in part]
            again = [group for group in part if group in sums]
            for group in again:
                self._connection.execute(delete(_u).where(today, *_is(group)))
            values = [
                {"day": day, "station_id": stations[group.experiment_id], **group._asdict(), **amount._asdict()}
                for group, amount in rows
            ]
            self._connection.execute(insert(_u), values)
        now = self._clock.now()
        if known is None:
            self._insert(schema.fact, name=SAMPLED, value=str(fresh.upto), changed_at=now)
        else:
            changed = {"value": str(fresh.upto), "changed_at": now}
            self._connection.execute(update(schema.fact).where(c.name == SAMPLED).values(changed))

    def set_store(self, store: StoreRecord) -> None:
        """Change what is said of a store: tier, failure domain, durability and room. The same again: nothing."""
        row = self._row(schema.store, store.id, "store")
        values = {
            "tier": store.tier.value,
            "failure_domain": store.failure_domain,
            "is_durable": store.is_durable,
            "capacity": store.capacity,
            "high": store.high,
            "low": store.low,
        }
        changed = {name: value for name, value in values.items() if row[name] != value}
        if changed:
            self._set(schema.store, store.id, **changed)
            self._record("store.changed", store.id, "", changed)

    def set_growth(self, growth: Growth) -> None:
        """Say how fast a station will grow, in place of what was measured. The same again: nothing."""
        self._row(schema.station, growth.station_id, "station")
        c = schema.growth.c
        here = and_(c.station_id == growth.station_id, c.technique == growth.technique)
        steps = json.dumps([[step.at.isoformat(), step.factor] for step in growth.steps])
        values = {"bytes_per_day": growth.bytes_per_day, "per_year": growth.per_year, "steps": steps}
        row = self._connection.execute(select(schema.growth).where(here)).mappings().first()
        if row is not None and all(row[name] == value for name, value in values.items()):
            return
        self._connection.execute(delete(schema.growth).where(here))
        self._insert(
            schema.growth,
            station_id=growth.station_id,
            technique=growth.technique,
            created_by=self._principal.id,
            created_at=self._clock.now(),
            **values,
        )
        self._record("growth.set", growth.station_id, "", {"technique": growth.technique, **values})

    def remove_growth(self, station_id: str, technique: str = "") -> None:
        """Go back to what was measured. NotFound when nothing was set."""
        c = schema.growth.c
        here = and_(c.station_id == station_id, c.technique == technique)
        if not self._connection.execute(delete(schema.growth).where(here)).rowcount:
            raise NotFound(f"no growth is set for station {station_id}")
        self._record("growth.removed", station_id, "", {"technique": technique})

    def set_quota(self, quota: Quota) -> None:
        """Bound what an experiment or a station may have on managed stores. The same again: nothing."""
        table = schema.station if quota.scope is Scope.STATION else schema.experiment
        self._row(table, quota.scope_id, quota.scope.value)
        c = schema.quota.c
        here = and_(c.scope == quota.scope.value, c.scope_id == quota.scope_id)
        values = {"size": quota.size, "is_hard": quota.is_hard, "warn_at": quota.warn_at}
        row = self._connection.execute(select(schema.quota).where(here)).mappings().first()
        if row is not None and all(row[name] == value for name, value in values.items()):
            return
        self._connection.execute(delete(schema.quota).where(here))
        self._insert(
            schema.quota,
            scope=quota.scope.value,
            scope_id=quota.scope_id,
            created_by=self._principal.id,
            created_at=self._clock.now(),
            **values,
        )
        experiment = quota.scope_id if quota.scope is Scope.EXPERIMENT else ""
        self._record("quota.set", quota.scope_id, experiment, {"scope": quota.scope, **values})

    def remove_quota(self, scope: Scope, scope_id: str) -> None:
        """Take a bound away. NotFound when there is none."""
        c = schema.quota.c
        here = and_(c.scope == scope.value, c.scope_id == scope_id)
        if not self._connection.execute(delete(schema.quota).where(here)).rowcount:
            raise NotFound(f"{scope} {scope_id} has no quota")
        self._record("quota.removed", scope_id, scope_id if scope is Scope.EXPERIMENT else "", {"scope": scope})


class UsageViews(ViewBase):
    """The part of `View` about usage: of experiments that one may see, and of nothing else."""

    def usage(self, *, experiment_id: str = "", station_id: str = "") -> Groups:
        """How much lies where now: every copy that takes room, also in a trash; exact."""
        wanted = _only(experiment_id, station_id)
        with self._read() as connection:
            seq = _sampled(connection)
            changed = _changed_since(connection, seq)
            groups = _amounts(connection, _grouped(self._see, wanted, ~_e.c.id.in_(changed)))
            groups.update(_counted(connection, self._see, wanted, _e.c.id.in_(changed)))
        return {group: amount for group, amount in groups.items() if any(amount)}

    def fresh_usage(self) -> Fresh:
        """What the samples do not know yet; for Lightkeep itself, which sees everything."""
        with self._read() as connection:
            before = _sampled(connection)
            upto = int(connection.execute(select(schema.chain_head.c.seq)).scalar_one())
            changed = _changed_since(connection, before)
            old = _amounts(connection, _grouped(_e.c.id.in_(changed)))
            new = _counted(connection, _e.c.id.in_(changed))
        none = Amount(0, 0)
        differences = {
            group: Amount(
                new.get(group, none).files - old.get(group, none).files,
                new.get(group, none).size - old.get(group, none).size,
            )
            for group in {**old, **new}
        }
        return Fresh(before, upto, differences)

    def usage_history(
        self, by: str, *, since: datetime | None = None, station_id: str = "", experiment_id: str = ""
    ) -> list[Changed]:
        """What was added and taken away on each day, by store_id, station_id, experiment_id, technique or kind.

        The running sum is what lay there. Before `since` everything counts as one change on that day.
        """
        key = _u.c[by]
        first = literal(since, Instant())
        clamped = _u.c.day if since is None else case((_u.c.day < first, first), else_=_u.c.day)
        day = type_coerce(clamped, Instant()).label("day")
        found = (
            select(day, key.label("key"), func.sum(_u.c.files), func.sum(_u.c.size))
            .join_from(_u, _e, _e.c.id == _u.c.experiment_id)
            .where(self._see, _only(experiment_id, station_id))
            .group_by(day, key)
            .order_by(day, key)
        )
        with self._read() as connection:
            return [Changed(row[0], row[1], int(row[2]), int(row[3])) for row in connection.execute(found)]

    def usage_experiments(self) -> list[Experiment]:
        """Every experiment that one may see, by id, with its counters; not a page of them."""
        return self._all(select(_e).where(self._see).order_by(_e.c.id), experiment_of)

    def newest(self) -> dict[str, datetime]:
        """When the newest complete dataset of each experiment was begun; absent: it has none."""
        ours = (_d.c.experiment_id == _e.c.id, _d.c.state == DatasetState.COMPLETE.value)
        last = select(func.max(_d.c.created_at)).where(*ours).scalar_subquery()
        found = select(_e.c.id, type_coerce(last, Instant())).where(self._see, _e.c.datasets > 0)
        with self._read() as connection:
            return {key: at for key, at in connection.execute(found)}  # noqa: C416

    def newest_raw(self) -> dict[str, datetime]:
        """When the newest raw dataset of each experiment was completed: what the clock of its policy runs by."""
        found = (
            select(_d.c.experiment_id, type_coerce(func.max(_d.c.completed_at), Instant()))
            .join_from(_d, _e, _e.c.id == _d.c.experiment_id)
            .where(self._see, _d.c.kind == DatasetKind.RAW.value, _d.c.completed_at.is_not(None))
            .group_by(_d.c.experiment_id)
        )
        with self._read() as connection:
            return {key: at for key, at in connection.execute(found)}  # noqa: C416

    def arrived(self, since: datetime) -> list[Arrived]:
        """What was completed since a time, by station, technique and kind: what growth is measured from."""
        keys = (_e.c.station_id, _d.c.technique, _d.c.kind)
        found = (
            select(*keys, func.sum(_d.c.size), type_coerce(func.min(_d.c.completed_at), Instant()))
            .join_from(_d, _e, _e.c.id == _d.c.experiment_id)
            .where(self._see, _d.c.state == DatasetState.COMPLETE.value, _d.c.completed_at >= since)
            .group_by(*keys)
            .order_by(*keys)
        )
        with self._read() as connection:
            return [
                Arrived(station, technique, DatasetKind(kind), int(size), first)
                for station, technique, kind, size, first in connection.execute(found)
            ]

    def growth(self) -> list[Growth]:
        """What was set about the growth of stations, by station and technique; no secret."""
        c = schema.growth.c
        return self._all(select(schema.growth).order_by(c.station_id, c.technique), _growth_of)

    def quotas(self) -> list[Quota]:
        """Quotas of experiments that one sees, and of stations for who is signed in."""
        c = schema.quota.c
        mine = select(_e.c.id).where(self._see)
        seen = and_(c.scope == Scope.EXPERIMENT.value, c.scope_id.in_(mine))
        if not self._principal.is_anonymous:
            seen = seen | (c.scope == Scope.STATION.value)
        return self._all(select(schema.quota).where(seen).order_by(c.scope, c.scope_id), _quota_of)


def _sampled(connection: Connection) -> int:
    found = connection.execute(select(schema.fact.c.value).where(schema.fact.c.name == SAMPLED)).scalar()
    return int(found or 0)


def _changed_since(connection: Connection, seq: int) -> Select[Any]:
    """Return a select of the experiments that the trail names after an event; of all when nothing was sampled."""
    if not seq:
        return select(_e.c.id)
    c = schema.event.c
    ids = list(connection.scalars(select(c.experiment_id).where(c.seq > seq, c.experiment_id != "").distinct()))
    return select(_e.c.id).where(_e.c.id.in_(ids))


def _grouped(*where: Any) -> Select[Any]:
    keys = (_u.c.experiment_id, _u.c.store_id, _u.c.technique, _u.c.kind)
    return (
        select(*keys, func.sum(_u.c.files), func.sum(_u.c.size))
        .join_from(_u, _e, _e.c.id == _u.c.experiment_id)
        .where(*where)
        .group_by(*keys)
    )


def _counted(connection: Connection, *where: Any) -> Groups:
    """Count copies of files, dataset by dataset first: the two inner columns are the keys that rows lie in."""
    per = (
        select(_f.c.dataset_number, _r.c.store_id, func.count().label("files"), func.sum(_f.c.size).label("size"))
        .join_from(_f, _r, _r.c.file_id == _f.c.id)
        .where(_r.c.state.not_in(_GONE), _f.c.dataset_number.in_(_numbers(*where)))
        .group_by(_f.c.dataset_number, _r.c.store_id)
        .subquery()
    )
    keys = (_d.c.experiment_id, per.c.store_id, _d.c.technique, _d.c.kind)
    found = (
        select(*keys, func.sum(per.c.files), func.sum(per.c.size))
        .join_from(per, _d, _d.c.number == per.c.dataset_number)
        .group_by(*keys)
    )
    return _amounts(connection, found)


def _numbers(*where: Any) -> Select[Any]:
    return select(_d.c.number).join_from(_d, _e, _e.c.id == _d.c.experiment_id).where(*where)


def _amounts(connection: Connection, found: Select[Any]) -> Groups:
    return {Group(*row[:4]): Amount(int(row[4]), int(row[5])) for row in connection.execute(found)}


def _only(experiment_id: str, station_id: str) -> ColumnElement[bool]:
    wanted: ColumnElement[bool] = true()
    if experiment_id:
        wanted = and_(wanted, _e.c.id == experiment_id)
    if station_id:
        wanted = and_(wanted, _e.c.station_id == station_id)
    return wanted


def _is(group: Group) -> Sequence[ColumnElement[bool]]:
    return [_u.c[name] == value for name, value in group._asdict().items()]


def _sum(first: Amount | None, second: Amount) -> Amount:
    return Amount(first.files + second.files, first.size + second.size) if first else second


def _growth_of(row: RowMapping) -> Growth:
    steps = tuple(Step(date.fromisoformat(at), factor) for at, factor in json.loads(row["steps"]))
    return Growth(row["station_id"], row["technique"], row["bytes_per_day"], row["per_year"], steps)


def _quota_of(row: RowMapping) -> Quota:
    return Quota(Scope(row["scope"]), row["scope_id"], row["size"], bool(row["is_hard"]), row["warn_at"])
