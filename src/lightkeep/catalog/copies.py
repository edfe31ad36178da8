"""Further copies of files: replicas on other stores, archive units, restores, and what is due to be read back."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, RowMapping, Select, and_, func, select, true

from lightkeep.catalog import rows, schema, transitions
from lightkeep.catalog.manifest import REPLICA_COLUMNS, replica_rows
from lightkeep.catalog.page import Page
from lightkeep.catalog.text import encode_path
from lightkeep.catalog.transaction import Transaction, parts
from lightkeep.catalog.view_base import ViewBase, row_limit, row_offset
from lightkeep.model.datasets import DatasetState, File
from lightkeep.model.errors import Conflict, InvalidInput
from lightkeep.model.retention import ArchiveUnit, Restore, RestoreState
from lightkeep.model.stores import Proof, Replica, ReplicaState

_r, _f, _d, _e = schema.replica, schema.file, schema.dataset, schema.experiment
_u, _q = schema.archive_unit.c, schema.restore.c
_LIVE: Final = (ReplicaState.PRESENT, ReplicaState.VERIFIED, ReplicaState.SUSPECT)


@dataclass(frozen=True, slots=True)
class Held:
    """A replica and the file that it should be."""

    replica: Replica
    file: File
    experiment_id: str


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long ago the replicas of a store were read back (V2)."""

    replicas: int
    """Those that count as copies: present, verified, suspect."""
    overdue: int
    """Of these, not read back since the date asked about."""
    corrupt: int
    oldest_at: datetime | None
    """When the verified replica that waits longest was read back."""

    @property
    def overdue_fraction(self) -> float:
        """0 to 1."""
        return self.overdue / self.replicas if self.replicas else 0.0


class CopyChanges(Transaction):
    """The part of `Change` about further copies."""

    def add_replicas(
        self, dataset_id: str, replicas: Sequence[Replica], *, gone: Collection[str] = ()
    ) -> list[Replica]:
        """Register further replicas of a complete dataset's files; return those that were new.

        Known already (same file, store and key, and not being deleted): left as it is. Nothing new: no event.

        Parameters
        ----------
        gone: ids of replicas that were deleted, bytes and all, before the copying began: their keys are free.

        Raises
        ------
        Conflict: the dataset is not complete; or a key is that of a replica that is bad, is being deleted, or was
            deleted meanwhile: what was found under the key may be about to go.
        InvalidInput: a file is of another dataset.
        """
        row = self._row(_d, dataset_id, "dataset")
        if row["state"] == DatasetState.RECEIVING:
            raise Conflict(
                f"dataset {dataset_id} is receiving: it cannot be copied yet", remedy="complete it first"
            )
        for store_id in {replica.store_id for replica in replicas}:
            self._row(schema.store, store_id, "store")
        file_ids = list(dict.fromkeys(replica.file_id for replica in replicas))
        sizes = self._sizes(row["number"], file_ids)
        if len(sizes) != len(file_ids):
            raise InvalidInput(f"{len(file_ids) - len(sizes)} files are not of dataset {dataset_id}")
        standing = self._standing(file_ids, gone)
        new = [r for r in replicas if self._is_new(r, standing.get((r.file_id, r.store_id, encode_path(r.key))))]
        if not new:
            return []
        now = self._clock.now()
        new = [replace(replica, created_at=now) for replica in new]
        self._dialect.insert(self._connection, "replica", REPLICA_COLUMNS, replica_rows(new, now))
        ids = sorted(replica.id for replica in new)
        detail = {
            "replicas": len(new),
            "bytes": sum(sizes[replica.file_id] for replica in new),
            "stores": sorted({replica.store_id for replica in new}),
            "digest": hashlib.sha256("\n".join(ids).encode()).hexdigest(),
            "first": ids[:20],
        }
        self._record("dataset.replicas_added", dataset_id, row["experiment_id"], detail)
        return new

    def _sizes(self, number: int, file_ids: Sequence[str]) -> dict[str, int]:
        c = _f.c
        return {
            row.id: row.size
            for part in parts(file_ids)
            for row in self._connection.execute(
                select(c.id, c.size).where(c.id.in_(part), c.dataset_number == number)
            )
        }

    def _standing(
        self, file_ids: Sequence[str], gone: Collection[str]
    ) -> dict[tuple[str, str, bytes], ReplicaState]:
        c = _r.c
        return {
            (row.file_id, row.store_id, bytes(row.key)): ReplicaState(row.state)
            for part in parts(file_ids)
            for row in self._connection.execute(
                select(c.id, c.file_id, c.store_id, c.key, c.state).where(c.file_id.in_(part))
            )
            if not (row.state == ReplicaState.DELETED and row.id in gone)
        }

    @staticmethod
    def _is_new(replica: Replica, standing: ReplicaState | None) -> bool:
        if standing is None:
            return True
        if standing in _LIVE:
            return False
        raise Conflict(
            f"a copy under {replica.key!r} on store {replica.store_id} is {standing}",
            remedy="try again: another name is taken then",
        )

    def add_unit(self, unit: ArchiveUnit) -> bool:
        """Register a unit that is on its store, whole; False, with no event, when it is known."""
        self._row(schema.store, unit.store_id, "store")
        self._row(_e, unit.experiment_id, "experiment")
        place = (_u.store_id == unit.store_id) & (_u.key == encode_path(unit.key))
        if self._connection.execute(select(_u.id).where(place)).first() is not None:
            return False
        self._must_be_new(schema.archive_unit, unit.id, "unit")
        self._insert(
            schema.archive_unit,
            id=unit.id,
            store_id=unit.store_id,
            key=encode_path(unit.key),
            experiment_id=unit.experiment_id,
            size=unit.size,
            sha256=bytes.fromhex(unit.sha256),
            members=unit.members,
            content_size=unit.content_size,
            state=unit.state.value,
            created_at=self._clock.now(),
        )
        detail = {
            "store": unit.store_id,
            "key": unit.key,
            "members": unit.members,
            "bytes": unit.content_size,
            "sha256": unit.sha256,
        }
        self._record("unit.added", unit.id, unit.experiment_id, detail)
        return True

    def add_restore(self, restore: Restore) -> Restore:
        """Queue a request. NotFound when the dataset or the store is not there."""
        row = self._row(_d, restore.dataset_id, "dataset")
        self._row(schema.store, restore.target_id, "store")
        self._must_be_new(schema.restore, restore.id, "restore")
        restore = replace(
            restore,
            state=RestoreState.QUEUED,
            files_done=0,
            error="",
            created_by=restore.created_by or self._principal.id,
            created_at=self._clock.now(),
            ended_at=None,
        )
        values = {column: getattr(restore, column) for column in schema.restore.c.keys()}  # noqa: SIM118
        self._insert(
            schema.restore, **{**values, "paths": json.dumps(list(restore.paths)), "state": restore.state.value}
        )
        detail = {"dataset": restore.dataset_id, "store": restore.target_id, "files": len(restore.paths)}
        self._record("restore.queued", restore.id, row["experiment_id"], detail)
        return restore

    def update_restore(
        self,
        restore_id: str,
        *,
        state: RestoreState | None = None,
        files_done: int | None = None,
        cache_until: datetime | None = None,
        error: str = "",
    ) -> None:
        """Write down how a restore goes. A change of state is an event, and so is a later date; a count is not.

        Raises
        ------
        Conflict: the state may not follow the present one.
        """
        row = self._row(schema.restore, restore_id, "restore")
        now = RestoreState(row["state"])
        values: dict[str, Any] = {}
        if files_done is not None:
            values["files_done"] = files_done
        if cache_until is not None and cache_until > row["cache_until"]:
            values["cache_until"] = cache_until
        if state is not None and state is not now:
            transitions.check(transitions.RESTORE, f"restore {restore_id}", now=now, then=state)
            values.update(state=state.value, error=error)
            if state in (RestoreState.DONE, RestoreState.FAILED):
                values["ended_at"] = self._clock.now()
        if not values:
            return
        self._set(schema.restore, restore_id, **values)
        experiment_id = self._row(_d, row["dataset_id"], "dataset")["experiment_id"]
        if "state" in values:
            self._record(f"restore.{state}", restore_id, experiment_id, {"from": now, "error": error})
        elif "cache_until" in values:
            self._record(
                "restore.extended", restore_id, experiment_id, {"until": values["cache_until"].isoformat()}
            )


class CopyViews(ViewBase):
    """The part of `View` about further copies."""

    def units(
        self, *, experiment_id: str = "", store_id: str = "", limit: int = 100, offset: int = 0
    ) -> Page[ArchiveUnit]:
        """Archive units of experiments that one may see, oldest first."""
        found = self._units()
        if experiment_id:
            found = found.where(_u.experiment_id == experiment_id)
        if store_id:
            found = found.where(_u.store_id == store_id)
        return self._page(found, (_u.created_at, _u.id), unit_of, limit, offset)

    def unit(self, id: str) -> ArchiveUnit:  # noqa: A002
        """One unit. NotFound."""
        return self._one(self._units().where(_u.id == id), unit_of, f"unit {id!r}")

    def unit_at(self, store_id: str, key: str) -> ArchiveUnit:
        """The unit of a tar on a store. NotFound."""
        found = self._units().where(_u.store_id == store_id, _u.key == encode_path(key))
        return self._one(found, unit_of, f"unit {key!r} on store {store_id}")

    def restores(
        self,
        *,
        dataset_id: str = "",
        states: Collection[RestoreState] = (),
        limit: int = 100,
        offset: int = 0,
        newest_first: bool = True,
    ) -> Page[Restore]:
        """Requests to have archived datasets near again."""
        found = self._restores()
        if dataset_id:
            found = found.where(_q.dataset_id == dataset_id)
        if states:
            found = found.where(_q.state.in_([state.value for state in states]))
        order = (_q.created_at.desc(), _q.id.desc()) if newest_first else (_q.created_at, _q.id)
        return self._page(found, order, restore_of, limit, offset)

    def restore(self, id: str) -> Restore:  # noqa: A002
        """One request. NotFound."""
        return self._one(self._restores().where(_q.id == id), restore_of, f"restore {id!r}")

    # ---- what is to be read back

    def due(
        self, store_id: str, state: ReplicaState, *, before: datetime | None, limit: int = 1000, offset: int = 0
    ) -> list[Held]:
        """Replicas of a store in one state that were not read back since a time, or at all; the oldest first."""
        c = _r.c
        late = true() if before is None else c.verified_at < before
        found = self._held(and_(c.store_id == store_id, c.state == state.value, late))
        page = found.order_by(c.verified_at, c.file_id, c.id).limit(row_limit(limit)).offset(row_offset(offset))
        return self._all(page, _held_of)

    def corrupt(self, store_id: str, *, limit: int = 1000) -> list[Held]:
        """Corrupt replicas of a store whose file has no other live one there: what waits for repair."""
        other = _r.alias("other")
        live = select(other.c.id).where(
            other.c.file_id == _r.c.file_id,
            other.c.store_id == store_id,
            other.c.state.in_([state.value for state in _LIVE]),
        )
        found = self._held(
            and_(_r.c.store_id == store_id, _r.c.state == ReplicaState.CORRUPT.value, ~live.exists())
        )
        return self._all(found.order_by(_r.c.file_id, _r.c.id).limit(row_limit(limit)), _held_of)

    def held_of(self, dataset_id: str) -> list[Held]:
        """Every replica of a dataset's files, with its file, by path."""
        found = self._held(_d.c.id == dataset_id)
        return self._all(found.order_by(_f.c.path, _f.c.version, _r.c.id), _held_of)

    def held(self, file_ids: Sequence[str]) -> list[Held]:
        """Every replica of some files, with its file, by file."""
        return [
            each
            for part in parts(list(file_ids))
            for each in self._all(
                self._held(_r.c.file_id.in_(part)).order_by(_r.c.file_id, _r.c.id),
                _held_of,
            )
        ]

    def freshness(self, store_id: str, *, before: datetime) -> Freshness:
        """How much of a store was not read back since a date, and how old the oldest proof is."""
        c = _r.c
        here = c.store_id == store_id
        counted = select(c.state, func.count().label("n"), func.min(c.verified_at).label("oldest"))
        late = select(func.count()).where(here, c.state == ReplicaState.VERIFIED.value, c.verified_at < before)
        with self._read() as connection:
            found = {row.state: row for row in connection.execute(counted.where(here).group_by(c.state))}
            overdue = connection.execute(late).scalar_one()
        count = {state: found[state].n if state in found else 0 for state in ReplicaState}
        verified = found.get(ReplicaState.VERIFIED)
        return Freshness(
            replicas=sum(count[state] for state in _LIVE),
            overdue=overdue + count[ReplicaState.PRESENT] + count[ReplicaState.SUSPECT],
            corrupt=count[ReplicaState.CORRUPT],
            oldest_at=verified.oldest if verified is not None else None,
        )

    def _held(self, condition: ColumnElement[bool]) -> Select[Any]:
        columns = [column.label(f"r_{column.name}") for column in _r.c]
        return (
            select(*columns, _f, _d.c.id.label("dataset_id"), _d.c.experiment_id)
            .join_from(_r, _f, _f.c.id == _r.c.file_id)
            .join(_d, _d.c.number == _f.c.dataset_number)
            .join(_e, _e.c.id == _d.c.experiment_id)
            .where(condition, self._see)
        )

    def _units(self) -> Select[Any]:
        joined = select(schema.archive_unit).join_from(schema.archive_unit, _e, _e.c.id == _u.experiment_id)
        return joined.where(self._see)

    def _restores(self) -> Select[Any]:
        joined = select(schema.restore).join_from(schema.restore, _d, _d.c.id == _q.dataset_id)
        return joined.join(_e, _e.c.id == _d.c.experiment_id).where(self._see)


def unit_of(row: RowMapping) -> ArchiveUnit:
    """Return the unit of a row."""
    names = {"key": os.fsdecode(row["key"]), "sha256": bytes(row["sha256"]).hex()}
    return ArchiveUnit(**{**row, **names, "state": ReplicaState(row["state"])})


def restore_of(row: RowMapping) -> Restore:
    """Return the restore of a row."""
    return Restore(**{**row, "paths": tuple(json.loads(row["paths"])), "state": RestoreState(row["state"])})


def _held_of(row: RowMapping) -> Held:
    replica = Replica(
        row["r_id"],
        row["r_file_id"],
        row["r_store_id"],
        os.fsdecode(row["r_key"]),
        ReplicaState(row["r_state"]),
        row["r_verified_at"],
        Proof(row["r_proof"]),
        row["r_created_at"],
    )
    return Held(replica, rows.file_of(row), row["experiment_id"])
