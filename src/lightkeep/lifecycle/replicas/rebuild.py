"""Rebuild: a lost catalogue made again from what the stores hold.

Nothing is written to a store, and nothing is believed: what comes back is `present` until it was verified again,
and no purge runs before a person confirmed the catalogue (P10). People come back without their passwords.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightkeep.catalog.rebuild import Rebuilding, Rebuilt, rebuilding
from lightkeep.catalog.rows import store_of
from lightkeep.catalog.snapshot import Document, read
from lightkeep.lifecycle.replicas import records
from lightkeep.model.errors import BadFile, Corrupt, InvalidInput, LightkeepError, NotFound
from lightkeep.model.people import SERVICE
from lightkeep.model.retention import ArchiveUnit, ItemState
from lightkeep.model.stores import ReplicaState, Store
from lightkeep.model.techniques import Report
from lightkeep.storage import open_store
from lightkeep.storage.keys import MARKER
from lightkeep.storage.posix import PosixStore
from lightkeep.storage.unit_index import UnitIndex

if TYPE_CHECKING:
    from lightkeep.facility import Facility


@dataclass(frozen=True, slots=True)
class Found:
    """What a rebuild found on the stores."""

    rebuilt: Rebuilt
    stores: tuple[str, ...]
    """Ids of those that were read."""
    unread: Mapping[str, str]
    """Store id -> why it could not be read: its replicas come back as they were recorded elsewhere."""
    missing: int
    """Objects that should be on a store that was read, and are not."""
    damaged: tuple[str, ...]
    """Documents that could not be read on any store."""


def rebuild(facility: Facility, folders: Sequence[Path], *, report: Report | None = None) -> Found:
    """Fill the empty catalogue of a facility from its stores.

    Parameters
    ----------
    facility: as `empty_facility` opens it.
    folders: of at least one managed store; the others are found by what it knows.
    report: called after each dataset.

    Raises
    ------
    InvalidInput: a folder is no store. NotFound: no store holds a document.
    Conflict: the catalogue is not empty.
    """
    found = [_store_in(folder, facility) for folder in folders]
    return rebuild_from(facility, {store.record.id: store for store in found}, report=report)


def rebuild_from(facility: Facility, stores: Mapping[str, Store], *, report: Report | None = None) -> Found:
    """Fill the empty catalogue of a facility from stores that are open; as `rebuild`."""
    work = _Rebuild(list(stores.values()))
    with rebuilding(facility.catalog, SERVICE) as filling:
        work.fill(filling, report)
        detail = {"stores": sorted(work.stores), "missing": work.missing, "state": work.head[0]}
        filling.begin_epoch(facility.ids.new("epoch"))
        rebuilt = filling.finish(detail)
    return Found(rebuilt, tuple(sorted(work.stores)), work.unread, work.missing, tuple(work.damaged))


class _Rebuild:
    """One call of `rebuild`."""

    def __init__(self, stores: Sequence[Store]) -> None:
        self.unread: dict[str, str] = {}
        self.damaged: list[str] = []
        self.missing = 0
        self.head = (0, "")
        state = self._newest(stores)
        rows = state.dicts("store") if state is not None else []
        self._state = state
        known = {row["uuid"]: row["id"] for row in rows}
        self.stores = {known.get(each.record.uuid, each.record.id): each for each in stores}
        for row in rows:
            if row["id"] not in self.stores:
                self._open_other(row)

    def _newest(self, stores: Iterable[Store]) -> Document | None:
        found = [document for store in stores if (document := self._document(store, records.STATE)) is not None]
        newest = max(found, key=lambda each: each.head[0], default=None)
        if newest is not None:
            self.head = newest.head
        return newest

    def _open_other(self, row: dict[str, Any]) -> None:
        row["created_at"] = None
        try:
            store = open_store(store_of(row))
            store.check_identity()
        except LightkeepError as error:
            self.unread[str(row["id"])] = error.message
        else:
            self.stores[store.record.id] = store

    def fill(self, filling: Rebuilding, report: Report | None) -> None:
        """Put back everything that any store knows."""
        state = self._newest(self.stores.values()) or self._state
        names = sorted({name for store in self.stores.values() for name in store.records(records.DATASETS)})
        if state is None and not names:
            raise NotFound(
                "none of these stores holds a record of what is on it",
                remedy="name the folder of another store; what lies there can be ingested again",
            )
        if state is not None:
            filling.places(state)
        for store in self.stores.values():
            for name in store.records(records.EVENTS):
                if (document := self._document(store, name)) is not None:
                    filling.events(document)
        gone = _given_up(state)
        for number, name in enumerate(names):
            documents = [d for store in self.stores.values() if (d := self._document(store, name)) is not None]
            if documents:
                filling.dataset(documents, {**self._states(documents), **gone})
            else:
                self.damaged.append(name)
            if report is not None:
                report((number + 1) / len(names), name)
        for store in self.stores.values():
            for unit in _units(store):
                filling.unit(unit)

    def _document(self, store: Store, name: str) -> Document | None:
        """Return a document of a store; None when it has none, or a damaged one."""
        try:
            return read(records.unpacked(store.read_record(name)))
        except NotFound:
            return None
        except (BadFile, OSError, EOFError):
            return None

    def _states(self, documents: Sequence[Document]) -> dict[str, ReplicaState]:
        """Look for every object on the stores that are here; what is not there is corrupt."""
        states: dict[str, ReplicaState] = {}
        for document in documents:
            sizes = {file["id"]: file["size"] for file in document.dicts("file")}
            for replica in document.dicts("replica"):
                store = self.stores.get(replica["store_id"])
                if store is None or replica["id"] in states or replica["file_id"] not in sizes:
                    continue
                if not _stands(store, replica["key"], sizes[replica["file_id"]]):
                    states[replica["id"]] = ReplicaState.CORRUPT
                    self.missing += 1
        return states


def _stands(store: Store, key: bytes, size: int) -> bool:
    try:
        return store.stat(os.fsdecode(key)).size == size
    except NotFound:
        return False


def _units(store: Store) -> Iterator[ArchiveUnit]:
    """Yield the archive units that a store has: their records come before them, so each is looked for."""
    for name in store.records("units/"):
        try:
            index = UnitIndex.from_json(store.read_record(name))
        except Corrupt:
            continue
        if _stands(store, os.fsencode(index.key), index.size):
            made = datetime.fromisoformat(index.created_at)
            sizes = (index.size, index.sha256, len(index.members), index.content_size)
            yield ArchiveUnit(index.id, store.record.id, index.key, index.experiment_id, *sizes, made)


def _given_up(state: Document | None) -> dict[str, ReplicaState]:
    """Return what purges did: tombstones stay tombstones, and what is in the trash stays there."""
    states = {ItemState.DESTROYED: ReplicaState.DELETED, ItemState.TRASHED: ReplicaState.DELETE_PENDING}
    items = [] if state is None else state.dicts("purge_item")
    return {item["replica_id"]: states[item["state"]] for item in items if item["state"] in states}


def _store_in(folder: Path, facility: Facility) -> Store:
    """Return the store in a folder, as its own marker names it."""
    if not (folder / MARKER).is_file():
        raise InvalidInput(
            f"{folder} is no store: it carries no marker", remedy="name the folder that was given to `store add`"
        )
    return PosixStore(PosixStore.initialise(folder, folder.name, ids=facility.ids))
