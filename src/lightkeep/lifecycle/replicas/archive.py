"""Archive: the files of an experiment go into write-once units on a store, each read once.

Complete datasets of one experiment are packed by retention class (what one rule of the policy keeps equally long):
a unit can only go as a whole. While a unit is written each file is hashed and compared with the manifest; then the
unit is read back past the cache, gets its name, and one transaction makes its members replicas. Killed anywhere,
there is nothing of a unit, or a whole one with a record of what is in it, which the next call adopts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from lightkeep.lifecycle.replicas.copies import (
    LIVE,
    by_file,
    keep_document,
    mark_suspect,
    new_replica,
    open_source,
    sources_of,
)
from lightkeep.lifecycle.replicas.leases import leased
from lightkeep.lifecycle.replicas.manifest import all_files, complete_datasets
from lightkeep.lifecycle.replicas.transfer import Pace
from lightkeep.model.datasets import Dataset, DatasetState, File
from lightkeep.model.errors import Conflict, Corrupt, InvalidInput, NotFound, SourceError, StoreUnavailable
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.retention import ArchiveUnit, LeaseKind
from lightkeep.model.stores import GivesFiles, Proof, Replica, Store
from lightkeep.model.techniques import Report
from lightkeep.policy.retention import Facts, applicable
from lightkeep.storage.units import UnitIndex, UnitSource, cut, index_key, write_unit

if TYPE_CHECKING:
    from lightkeep.facility import Facility
    from lightkeep.lifecycle.replicas.leases import Holding

_WAIT_S: Final = 600.0


@dataclass(slots=True)
class Archived:
    """What an archiving did."""

    units: list[ArchiveUnit] = field(default_factory=list)
    """Units that were made, or found whole and taken over from a run that was interrupted."""
    files: int = 0
    """Files that are in these."""
    size: int = 0
    """Bytes of these files."""
    known: int = 0
    """Files that the store had already."""
    suspect: list[str] = field(default_factory=list)
    """Paths with a copy that turned out to be bad while it was read: it was marked, another one was taken."""
    failed: dict[str, str] = field(default_factory=dict)
    """Path -> why no copy of it could be read whole: it is in no unit."""


def archive(
    facility: Facility,
    *,
    principal: Principal,
    store_id: str,
    experiment_id: str = "",
    dataset_id: str = "",
    target: int = 0,
    cap: int = 0,
    report: Report | None = None,
    pace: Pace = Pace(),  # noqa: B008 (frozen)
) -> Archived:
    """Pack the complete datasets of an experiment, or one of them, into units on a store. Idempotent.

    Only what the store lacks is packed, so that datasets which are completed later get units of their own.

    Parameters
    ----------
    experiment_id, dataset_id: one of the two.
    target, cap: bytes of a unit, see `storage.units.cut`; the configured ones when 0.
    report: called with the fraction of the bytes done.
    pace: `threads` is how many files are read at once.

    Raises
    ------
    NotFound, Forbidden: the principal may not see or not manage it; there is no such store.
    Conflict: the dataset is not complete.
    InvalidInput: the store is not managed.
    StoreFull, StoreUnavailable, Corrupt, StorageError: the store failed; units that were made before count.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.MANAGE, experiment_id=experiment_id, dataset_id=dataset_id)
    if dataset_id:
        datasets = [view.dataset(dataset_id)]
        if datasets[0].state is not DatasetState.COMPLETE:
            raise Conflict(f"dataset {datasets[0].name} is {datasets[0].state}", remedy="complete it first")
    else:
        datasets = list(complete_datasets(facility, view.experiment(experiment_id).id))
    store = checked_store(facility, store_id)
    files = [file for dataset in datasets for file in all_files(facility.catalog.view(SERVICE), dataset.id)]
    work = _Archiving(facility, principal, store, datasets, pace, report)
    work.adopt()
    work.pack(files, target=target or facility.config.archive.target, cap=cap or facility.config.archive.cap)
    for dataset in datasets:
        if not any(file.dataset_id == dataset.id and file.path in work.done.failed for file in files):
            is_news = dataset.id in work.touched
            keep_document(facility, dataset, store, principal=principal, is_news=is_news)
    return work.done


def archive_files(
    facility: Facility, files: Sequence[File], *, store_id: str, principal: Principal, pace: Pace
) -> Archived:
    """Pack some files of one dataset into units of their own: what `repair` does for damaged members."""
    dataset = facility.catalog.view(SERVICE).dataset(files[0].dataset_id)
    work = _Archiving(facility, principal, checked_store(facility, store_id), [dataset], pace, None)
    work.adopt()
    work.pack(files, target=facility.config.archive.target, cap=facility.config.archive.cap)
    return work.done


class _Archiving:
    """One call of `archive`."""

    def __init__(
        self,
        facility: Facility,
        principal: Principal,
        store: Store,
        datasets: Sequence[Dataset],
        pace: Pace,
        report: Report | None,
    ) -> None:
        self.facility = facility
        self.principal = principal
        self.store = store
        self.datasets = {dataset.id: dataset for dataset in datasets}
        self.pace = pace
        self.report = report
        self.done = Archived()
        self.touched: set[str] = set()
        """Datasets with a new member."""
        self._total = 1
        self._read = 0
        self._giving: dict[str, GivesFiles | None] = {}
        """Store id -> the store, where it reads many files at once."""

    # ---- what a run that was killed has left

    def adopt(self) -> None:
        """Register the units of the experiment that are whole on the store and that no row names."""
        experiments = {dataset.experiment_id for dataset in self.datasets.values()}
        view = self.facility.catalog.view(SERVICE)
        for name in list(self.store.records("units/")):
            try:
                view.unit(name.removeprefix("units/").removesuffix(".json"))
            except NotFound:
                index = _index_of(self.store.read_record(name))
                if index is not None and index.experiment_id in experiments:
                    files = {each.file.id: each.file for each in view.held([m.file_id for m in index.members])}
                    if self._is_whole(index, files):
                        self._register(index, files)

    def _is_whole(self, index: UnitIndex, files: Mapping[str, File]) -> bool:
        """Read a unit back, and compare its members with the catalogue."""
        try:
            self.store.stat(index_key(index.key))
            found = self.store.verify(index.key)
        except NotFound:
            return False
        if (found.sha256, found.size) != (index.sha256, index.size) or found.proof is Proof.UNPROVEN:
            return False
        return all(
            member.file_id in files
            and (files[member.file_id].sha256, files[member.file_id].size) == (member.sha256, member.size)
            for member in index.members
        )

    # ---- new units

    def pack(self, files: Sequence[File], *, target: int, cap: int) -> None:
        """Put the files that the store lacks into units."""
        replicas = self._replicas(files)
        todo = [file for file in files if not self._has(replicas.get(file.id, ()))]
        self.done.known = len(files) - len(todo) - self.done.files
        self._total = sum(file.size for file in todo) or 1
        named = {dataset_id: self._class_of(dataset_id) for dataset_id in {file.dataset_id for file in todo}}
        classes: dict[str, list[File]] = {}
        for file in todo:
            classes.setdefault(named[file.dataset_id], []).append(file)
        for name in sorted(classes):
            for group in cut(classes[name], target=target, cap=cap):
                self._pack_one(group, replicas)

    def _pack_one(self, group: Sequence[File], replicas: Mapping[str, Sequence[Replica]]) -> None:
        """Write one unit; a file whose copies all turn out to be bad is left out."""
        sources = {
            file.id: list(sources_of(replicas.get(file.id, ()), stores=self.facility.stores)) for file in group
        }
        files = list(group)
        attempt = 0
        while files := [file for file in files if self._has_source(file, sources)]:
            unit_id = self._unit_id(files, attempt)
            try:
                with ExitStack() as held:
                    leases = [
                        held.enter_context(
                            leased(self.facility, dataset_id, LeaseKind.TRANSFER, holder=self.principal.id)
                        )
                        for dataset_id in sorted({file.dataset_id for file in files})
                    ]
                    index = self._write(unit_id, files, sources, leases)
            except SourceError as error:
                self._drop_source(error, sources)
                continue
            if index is not None:
                self._register(index, {file.id: file for file in files})
                return
            attempt += 1  # other bytes stand under that name: they stay

    def _write(
        self,
        unit_id: str,
        files: Sequence[File],
        sources: Mapping[str, Sequence[Replica]],
        leases: Sequence[Holding],
    ) -> UnitIndex | None:
        """Write, sync, read back and publish a unit; None when something else has its name."""

        def read(count: int) -> None:
            self._advance(count)
            for lease in leases:
                lease.renew()

        with self.store.stage(wait_s=_WAIT_S) as staging:
            index = write_unit(
                staging,
                unit_id,
                [self._source(file, sources[file.id][0], read) for file in files],
                experiment_id=self.datasets[files[0].dataset_id].experiment_id,
                created_at=self._as_of(files),
                threads=self.pace.threads,
                read=read,
            )
            if self._stands_otherwise(index):
                return None
            staging.sync()
            staging.verify()
            # Before the name: whoever finds the unit without its row knows from this what is in it.
            self.store.write_record(record_name(unit_id), index.to_json())
            published = staging.publish()
        return (
            index
            if all(each.key == each.asked and each.proof is not Proof.UNPROVEN for each in published)
            else None
        )

    def _stands_otherwise(self, index: UnitIndex) -> bool:
        try:
            found = self.store.verify(index.key)
        except NotFound:
            return False
        return (found.sha256, found.size) != (index.sha256, index.size)

    def _source(self, file: File, replica: Replica, read: Callable[[int], None]) -> UnitSource:
        if replica.store_id not in self._giving:
            store = self.facility.stores[replica.store_id]
            self._giving[replica.store_id] = store if isinstance(store, GivesFiles) else None
        return UnitSource(file, partial(self._open, replica, read), self._giving[replica.store_id], replica.key)

    def _open(self, replica: Replica, read: Callable[[int], None]) -> BinaryIO:
        return cast(BinaryIO, _Counted(open_source(self.facility, replica), read))

    def _advance(self, count: int) -> None:
        self._read += count
        if self.report is not None:
            self.report(min(1.0, self._read / self._total), "")

    def _has_source(self, file: File, sources: Mapping[str, Sequence[Replica]]) -> bool:
        if not sources[file.id]:
            self.done.failed.setdefault(file.path, "it has no copy that can be read")
        return bool(sources[file.id])

    def _drop_source(self, error: SourceError, sources: dict[str, list[Replica]]) -> None:
        """Take the next copy of the file that could not be read whole, and say so of this one."""
        file_id = error.data["file_id"]
        replica = sources[file_id].pop(0)
        file = next(each.file for each in self.facility.catalog.view(SERVICE).held([file_id]))
        self.done.suspect.append(file.path)
        if not sources[file_id]:
            self.done.failed[file.path] = error.message
        if not isinstance(error.__cause__, StoreUnavailable):
            mark_suspect(self.facility, [(replica, file)], principal=self.principal)

    def _register(self, index: UnitIndex, files: Mapping[str, File]) -> None:
        """Make a unit and its members known, in one transaction."""
        unit = ArchiveUnit(
            index.id,
            self.store.record.id,
            index.key,
            index.experiment_id,
            index.size,
            index.sha256,
            len(index.members),
            index.content_size,
        )
        rows: dict[str, list[Replica]] = {}
        for member in index.members:
            row = new_replica(
                self.facility, files[member.file_id], self.store, key=index.key_of(member), proof=Proof.DIRECT
            )
            rows.setdefault(member.dataset_id, []).append(row)
        with self.facility.catalog.change(self.principal) as tx:
            if tx.add_unit(unit):
                for dataset_id, replicas in rows.items():
                    tx.add_replicas(dataset_id, replicas)
        self.touched |= rows.keys()
        self.done.units.append(unit)
        self.done.files += unit.members
        self.done.size += unit.content_size

    # ---- what goes where

    def _replicas(self, files: Sequence[File]) -> dict[str, list[Replica]]:
        return by_file(self.facility.catalog.view(SERVICE).replicas([file.id for file in files]))

    def _has(self, replicas: Iterable[Replica]) -> bool:
        return any(each.store_id == self.store.record.id and each.state in LIVE for each in replicas)

    def _class_of(self, dataset_id: str) -> str:
        """Return what a dataset shares with all that is kept as long: the rule of its policy."""
        dataset = self.datasets[dataset_id]
        view = self.facility.catalog.view(SERVICE)
        experiment = view.experiment(dataset.experiment_id)
        policy = applicable(view.policies(), policy_id=experiment.policy_id, station_id=experiment.station_id)
        rule = (
            policy.rule_for(Facts(experiment.station_id, dataset.technique, dataset.kind, dataset.size))
            if policy
            else None
        )
        return f"{policy.id}/{rule.name}" if policy and rule else ""

    def _unit_id(self, files: Sequence[File], attempt: int) -> str:
        """Return the first name, made of what is in the unit, that no unit of the store has had."""
        view = self.facility.catalog.view(SERVICE)
        while True:
            text = "\n".join([self.store.record.uuid, str(attempt), *sorted(file.id for file in files)])
            unit_id = f"u_{hashlib.sha256(text.encode()).hexdigest()[:24]}"
            try:
                view.unit(unit_id)
            except NotFound:
                return unit_id
            attempt += 1

    def _as_of(self, files: Sequence[File]) -> datetime:
        """Return when the newest dataset of a unit was completed: the same at every attempt."""
        moments = [self.datasets[file.dataset_id].completed_at for file in files]
        return max((each for each in moments if each is not None), default=datetime.fromtimestamp(0, UTC))


class _Counted:
    """A file that tells how much of it was read."""

    def __init__(self, file: BinaryIO, read: Callable[[int], None]) -> None:
        self._file = file
        self._read = read

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer; 0 at the end."""
        count = int(cast(Any, self._file).readinto(buffer) or 0)
        self._read(count)
        return count

    def read(self, size: int = -1) -> bytes:
        """Read a part, or the rest."""
        return self._file.read(size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> _Counted:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def record_name(unit_id: str) -> str:
    """Return the name of a unit's document on its store.

    >>> record_name("u_1")
    'units/u_1.json'
    """
    return f"units/{unit_id}.json"


def _index_of(document: bytes) -> UnitIndex | None:
    try:
        return UnitIndex.from_json(document)
    except Corrupt:
        return None


def checked_store(facility: Facility, store_id: str) -> Store:
    """Return a store that units may be written to, and that is there; raises as `archive` does."""
    store = facility.stores[store_id]
    store.check_identity()
    if not store.record.is_managed:
        raise InvalidInput(
            f"store {store_id} is registered in place: Lightkeep never writes there", remedy="name a managed store"
        )
    return store
