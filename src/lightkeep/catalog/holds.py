"""What keeps data: holds, and leases of those who read right now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, RowMapping, and_, delete, or_, select, update

from lightkeep.catalog import rows, schema
from lightkeep.catalog.page import Page
from lightkeep.catalog.transaction import Transaction, parts
from lightkeep.catalog.view_base import ViewBase
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import Conflict, InvalidInput, NotFound
from lightkeep.model.retention import Hold, HoldKind, HoldScope, Lease, LeaseKind, NoticeState
from lightkeep.model.runs import RunState

_h, _l, _n = schema.hold.c, schema.lease.c, schema.notice.c
_e, _d, _f = schema.experiment, schema.dataset, schema.file
_TABLES = {
    HoldScope.STATION: schema.station,
    HoldScope.STORE: schema.store,
    HoldScope.EXPERIMENT: schema.experiment,
    HoldScope.DATASET: schema.dataset,
    HoldScope.FILE: schema.file,
}


class HoldChanges(Transaction):
    """The part of `Change` about holds and leases."""

    def add_hold(self, hold: Hold) -> Hold:
        """Hold something. What was announced about it is void: before anything goes, people are told anew.

        Raises
        ------
        NotFound: there is no such thing. InvalidInput: it would end before it begins.
        """
        now = self._clock.now()
        if hold.until is not None and hold.until <= now:
            raise InvalidInput("a hold cannot end in the past", remedy="name a later day")
        if (hold.scope is HoldScope.FACILITY) != (not hold.scope_id):
            raise InvalidInput(f"a hold on a {hold.scope} needs its id; one on the facility has none")
        self._must_be_new(schema.hold, hold.id, "hold")
        experiment_id = self._experiment_of(hold.scope, hold.scope_id)
        self._insert(
            schema.hold,
            id=hold.id,
            scope=hold.scope.value,
            scope_id=hold.scope_id,
            kind=hold.kind.value,
            reason=hold.reason,
            until=hold.until,
            created_by=self._principal.id,
            created_at=now,
            released_by="",
            released_at=None,
        )
        until = hold.until.isoformat() if hold.until else ""
        detail = {"scope": hold.scope, "on": hold.scope_id, "kind": hold.kind, "until": until, "why": hold.reason}
        self._record("hold.added", hold.id, experiment_id, detail)
        self._void_notices(hold, experiment_id)
        return hold_of(self._row(schema.hold, hold.id, "hold"))

    def release_hold(self, hold_id: str, *, reason: str = "") -> None:
        """End a hold now. Conflict when it has ended."""
        row = self._row(schema.hold, hold_id, "hold")
        now = self._clock.now()
        if not hold_of(row).stands(now):
            raise Conflict(f"hold {hold_id} has ended already", remedy="`lightkeep hold list` shows what stands")
        self._set(schema.hold, hold_id, released_by=self._principal.id, released_at=now)
        experiment_id = self._experiment_of(HoldScope(row["scope"]), row["scope_id"])
        detail = {"scope": row["scope"], "on": row["scope_id"], "reason": reason}
        self._record("hold.released", hold_id, experiment_id, detail)

    def _experiment_of(self, scope: HoldScope, scope_id: str) -> str:
        """Return the experiment that a held thing belongs to; empty when it is wider. NotFound."""
        if scope is HoldScope.FACILITY:
            return ""
        row = self._row(_TABLES[scope], scope_id, scope.value)
        if scope is HoldScope.EXPERIMENT:
            return scope_id
        if scope is HoldScope.DATASET:
            return str(row["experiment_id"])
        if scope is HoldScope.FILE:
            found = select(_d.c.experiment_id).where(_d.c.number == row["dataset_number"])
            return str(self._connection.execute(found).scalar_one())
        return ""

    def _void_notices(self, hold: Hold, experiment_id: str) -> None:
        """Take back every announcement that the hold reaches: its list or its date is no longer right (P3)."""
        reached: ColumnElement[bool] = _n.state.in_([NoticeState.DUE, NoticeState.SENT, NoticeState.ACKNOWLEDGED])
        if experiment_id:
            reached &= _n.experiment_id == experiment_id
        elif hold.scope is HoldScope.STATION:
            reached &= _n.experiment_id.in_(select(_e.c.id).where(_e.c.station_id == hold.scope_id))
        elif hold.scope is HoldScope.STORE:
            reached &= _n.store_id == hold.scope_id
        self._connection.execute(update(schema.notice).where(reached).values(state=NoticeState.VOID.value))

    # ---- leases: no events, they come and go with every download

    def add_lease(self, lease: Lease) -> None:
        """Keep a dataset while somebody reads it. NotFound when it is not there."""
        self._row(schema.dataset, lease.dataset_id, "dataset")
        self._insert(
            schema.lease,
            id=lease.id,
            dataset_id=lease.dataset_id,
            kind=lease.kind.value,
            holder=lease.holder,
            expires_at=lease.expires_at,
            created_at=self._clock.now(),
        )

    def renew_lease(self, lease_id: str, *, expires_at: datetime) -> None:
        """Let a lease last longer. NotFound when it has been cleared away."""
        done = self._connection.execute(
            update(schema.lease).where(_l.id == lease_id).values(expires_at=expires_at)
        )
        if not done.rowcount:
            raise NotFound(f"lease {lease_id} is over")

    def end_lease(self, lease_id: str) -> None:
        """Give a dataset free again; no lease of that id: nothing."""
        self._connection.execute(delete(schema.lease).where(_l.id == lease_id))

    def clear_leases(self) -> int:
        """Forget the leases of readers that died; return how many."""
        done = self._connection.execute(delete(schema.lease).where(_l.expires_at <= self._clock.now()))
        return int(done.rowcount)


class HoldViews(ViewBase):
    """The part of `View` about holds and leases."""

    def holds(
        self,
        *,
        scope: HoldScope | None = None,
        scope_id: str = "",
        standing: bool = True,
        limit: int = 100,
        offset: int = 0,
    ) -> Page[Hold]:
        """Holds that one may see, newest first.

        Parameters
        ----------
        scope, scope_id: only those on this thing itself.
        standing: only those that stand now.
        """
        found = select(schema.hold).where(self._holds_seen())
        if scope is not None:
            found = found.where(_h.scope == scope.value, _h.scope_id == scope_id)
        if standing:
            found = found.where(stands(self._now))
        return self._page(found, (_h.created_at.desc(), _h.id.desc()), hold_of, limit, offset)

    def hold(self, id: str) -> Hold:  # noqa: A002
        """One hold. NotFound."""
        return self._one(select(schema.hold).where(_h.id == id, self._holds_seen()), hold_of, f"hold {id!r}")

    def holds_over(self, dataset_id: str) -> list[Hold]:
        """Holds that stand over any part of a dataset, widest first. NotFound."""
        with self._read() as connection:
            seen = select(_d.c.id).join_from(_d, _e, _e.c.id == _d.c.experiment_id)
            if connection.execute(seen.where(_d.c.id == dataset_id, self._see)).first() is None:
                raise NotFound(f"dataset {dataset_id!r} does not exist")
            found = connection.execute(select(schema.hold).where(over_dataset(dataset_id), stands(self._now)))
            widest = list(HoldScope)
            return sorted(map(hold_of, found.mappings()), key=lambda hold: widest.index(hold.scope))

    def dataset_of_file(self, file_id: str) -> Dataset:
        """Return the dataset that a file belongs to. NotFound."""
        joined = select(_d).join_from(_f, _d, _d.c.number == _f.c.dataset_number)
        found = joined.join(_e, _e.c.id == _d.c.experiment_id).where(_f.c.id == file_id, self._see)
        return self._one(found, lambda row: rows.dataset_of(row, ()), f"file {file_id!r}")

    def readers(self, dataset_ids: Sequence[str]) -> dict[str, list[str]]:
        """Return who reads which of some datasets right now, in words; a dataset that nobody reads is absent."""
        with self._read() as connection:
            return leased(connection, dataset_ids, now=self._now)

    def _holds_seen(self) -> ColumnElement[bool]:
        """Return what one may see: holds on experiments that one sees; the wide ones when one is signed in."""
        experiments = select(_e.c.id).where(self._see)
        datasets = select(_d.c.id).join_from(_d, _e, _e.c.id == _d.c.experiment_id).where(self._see)
        files = (
            select(_f.c.id)
            .join_from(_f, _d, _d.c.number == _f.c.dataset_number)
            .join(_e, _e.c.id == _d.c.experiment_id)
            .where(_f.c.id == _h.scope_id, self._see)
        )
        narrow = or_(
            and_(_h.scope == HoldScope.EXPERIMENT.value, _h.scope_id.in_(experiments)),
            and_(_h.scope == HoldScope.DATASET.value, _h.scope_id.in_(datasets)),
            and_(_h.scope == HoldScope.FILE.value, files.exists()),
        )
        if self._principal.is_anonymous:
            return narrow
        wide = [HoldScope.FACILITY.value, HoldScope.STATION.value, HoldScope.STORE.value]
        return or_(narrow, _h.scope.in_(wide))


def stands(now: datetime) -> ColumnElement[bool]:
    """Return the condition on hold that it holds at a time."""
    return and_(_h.released_at.is_(None), or_(_h.until.is_(None), _h.until > now))


def over_dataset(dataset_id: str) -> ColumnElement[bool]:
    """Return the condition on hold that it reaches a dataset: itself, something wider, or a part of it."""
    one = select(_d.c.experiment_id).where(_d.c.id == dataset_id).scalar_subquery()
    station = select(_e.c.station_id).where(_e.c.id == one).scalar_subquery()
    number = select(_d.c.number).where(_d.c.id == dataset_id).scalar_subquery()
    files = select(_f.c.id).where(_f.c.dataset_number == number, _f.c.id == _h.scope_id)
    replicas = select(schema.replica.c.store_id).join_from(schema.replica, _f, _f.c.id == schema.replica.c.file_id)
    return or_(
        _h.scope == HoldScope.FACILITY.value,
        and_(_h.scope == HoldScope.STATION.value, _h.scope_id == station),
        and_(
            _h.scope == HoldScope.STORE.value,
            replicas.where(_f.c.dataset_number == number, schema.replica.c.store_id == _h.scope_id).exists(),
        ),
        and_(_h.scope == HoldScope.EXPERIMENT.value, _h.scope_id == one),
        and_(_h.scope == HoldScope.DATASET.value, _h.scope_id == dataset_id),
        and_(_h.scope == HoldScope.FILE.value, files.exists()),
    )


def leased(connection: Connection, dataset_ids: Sequence[str], *, now: datetime) -> dict[str, list[str]]:
    """Return who reads which dataset at a time, in words: leases that last, and runs that wait or compute.

    A run reads the dataset it was asked for and every dataset that its parameters name.
    """
    readers: dict[str, list[str]] = {}
    for part in parts(list(dataset_ids)):
        found = connection.execute(select(schema.lease).where(_l.dataset_id.in_(part), _l.expires_at > now))
        for lease in map(lease_of, found.mappings()):
            readers.setdefault(lease.dataset_id, []).append(
                f"{lease.kind} of {lease.holder} until {lease.expires_at:%Y-%m-%d %H:%M} UTC"
            )
    r = schema.run.c
    live = select(r.id, r.dataset_id, r.params, r.resolved, r.state)
    wanted = set(dataset_ids)
    for row in connection.execute(live.where(r.state.in_([RunState.QUEUED.value, RunState.RUNNING.value]))):
        named = {each for each in wanted if each in row.params or each in row.resolved} | (
            {row.dataset_id} & wanted
        )
        for dataset_id in sorted(named):
            readers.setdefault(dataset_id, []).append(f"run {row.id} is {row.state}")
    return readers


def hold_of(row: RowMapping) -> Hold:
    """Return the hold of a row."""
    return Hold(**{**row, "scope": HoldScope(row["scope"]), "kind": HoldKind(row["kind"])})


def lease_of(row: RowMapping) -> Lease:
    """Return the lease of a row."""
    return Lease(**{**row, "kind": LeaseKind(row["kind"])})
