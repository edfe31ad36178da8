"""Examine: is everything as the catalogue says? Reads only; repairs nothing."""

from __future__ import annotations

import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lightkeep.lifecycle.health import invariants, silence
from lightkeep.lifecycle.health.findings import Finding, Severity
from lightkeep.lifecycle.health.sentinels import FOLDER
from lightkeep.model.datasets import Dataset, DatasetState, File
from lightkeep.model.errors import LightkeepError, NotFound
from lightkeep.model.experiments import Experiment
from lightkeep.model.people import SERVICE
from lightkeep.model.stores import Replica, ReplicaState, Store, split_member
from lightkeep.model.techniques import Report
from lightkeep.storage.units import index_key

if TYPE_CHECKING:
    from lightkeep.facility import Facility

_GOOD: Final = (ReplicaState.VERIFIED, ReplicaState.PRESENT)
_GIVEN_UP: Final = (ReplicaState.DELETE_PENDING, ReplicaState.DELETED)
_PAGE: Final = 1000
_LOW: Final = 1 << 30
"""Bytes of room below which a store is worth a warning."""
_STALE: Final = timedelta(hours=1)
"""After this long without an end, an ingest is taken for interrupted."""


def examine(facility: Facility, *, full: bool = False, report: Report | None = None) -> list[Finding]:
    """Compare the catalogue with the stores, the counters with what they count, and the audit trail with itself.

    Parameters
    ----------
    full: read every byte of every file; sizes only otherwise.
    report: called after each dataset.

    Returns
    -------
    : what was found, the errors first; empty when all is well.
    """
    work = _Examination(facility, full)
    findings = [*_databases(facility), *_events(facility), *work.stores()]
    datasets = list(_datasets(facility))
    for number, dataset in enumerate(datasets):
        findings += work.dataset(dataset)
        if report is not None:
            report((number + 1) / len(datasets), dataset.name)
    findings += [
        *work.orphans(),
        *invariants.examine(facility, work.answering),
        *_counters(facility, datasets),
        *_scratch(facility),
    ]
    return sorted(findings, key=lambda found: found.severity is not Severity.ERROR)


def _databases(facility: Facility) -> Iterator[Finding]:
    """Look at the SQLite files; a server looks after its own."""
    for name, url in (("catalogue", facility.config.catalog_url), ("workflow", facility.config.workflow_url)):
        path = Path(url.removeprefix("sqlite:///"))
        if not url.startswith("sqlite") or not path.exists():
            continue
        try:
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                answer = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.Error as error:
            answer = str(error)
        if answer != "ok":
            yield Finding(
                Severity.ERROR, str(path), f"the {name} database is damaged: {answer}", "restore it from a backup"
            )
        if name == "catalogue" and path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
            yield Finding(
                Severity.WARNING, str(path), f"everybody on this machine may read {path}", f"run: chmod o= {path}"
            )


def _events(facility: Facility) -> Iterator[Finding]:
    for problem in facility.catalog.verify_events():
        yield Finding(
            Severity.ERROR,
            "event",
            f"audit trail: {problem}",
            "compare with a backup: somebody changed the database",
        )


class _Examination:
    """The stores and what is on them."""

    def __init__(self, facility: Facility, full: bool) -> None:
        self._facility = facility
        self._full = full
        self._view = facility.catalog.view(SERVICE)
        self.answering: dict[str, Store] = {}
        """Those that answer."""
        self._known: dict[str, set[str]] = {}
        """Store id -> the keys that some replica names."""

    def stores(self) -> Iterator[Finding]:
        """Check each store's identity and room; the others are not asked for their files."""
        silence.silent(self._facility)
        for record in self._view.stores():
            try:
                store = self._facility.stores[record.id]
                store.check_identity()
                room = store.free_bytes()
            except LightkeepError as error:
                yield Finding(Severity.ERROR, record.id, error.message, error.remedy)
                continue
            self.answering[record.id] = store
            if room is not None and room < _LOW and record.is_managed:
                message = f"store {record.id} has {room / 1e6:.0f} MB left"
                yield Finding(Severity.WARNING, record.id, message, "make some room on it")

    def dataset(self, dataset: Dataset) -> Iterator[Finding]:
        """Check a dataset's manifest and each of its files."""
        replicas: dict[str, list[Replica]] = {}
        for replica in self._view.replicas(dataset.id):
            replicas.setdefault(replica.file_id, []).append(replica)
            unit = split_member(replica.key)
            keys = (unit[0], index_key(unit[0])) if unit else (replica.key,)
            self._known.setdefault(replica.store_id, set()).update(keys)
        if dataset.state is DatasetState.RECEIVING:
            if dataset.created_at and self._facility.clock.now() - dataset.created_at > _STALE:
                message = f"dataset {dataset.name} was never completed"
                remedy = "run `lightkeep ingest` on its source again: it goes on where it stopped"
                yield Finding(Severity.WARNING, dataset.id, message, remedy)
            return
        files = list(_files(self._facility, dataset))
        counted = (len(files), sum(file.size for file in files))
        if dataset.state is DatasetState.COMPLETE and counted != (dataset.files, dataset.size):
            message = (
                f"dataset {dataset.name} counts {dataset.files} files and {dataset.size} bytes, "
                f"its manifest has {counted[0]} and {counted[1]}"
            )
            yield Finding(Severity.ERROR, dataset.id, message, "compare with a backup of the catalogue")
        for file in files:
            yield from self._file(dataset, file, replicas.get(file.id, []))

    def _file(self, dataset: Dataset, file: File, replicas: list[Replica]) -> Iterator[Finding]:
        where = f"{dataset.name}/{file.path}"
        good = [replica for replica in replicas if replica.state in _GOOD]
        if not good and any(replica.state in _GIVEN_UP for replica in replicas):
            return  # its record, checksum and tombstone stay: that is all it must be
        if not good:
            yield Finding(Severity.ERROR, file.id, f"{where} has no good copy", "ingest its source again")
        elif all(replica.state is not ReplicaState.VERIFIED for replica in good):
            remedy = f"run: lightkeep verify {dataset.id}"
            yield Finding(Severity.WARNING, file.id, f"{where} has no verified copy", remedy)
        for replica in good:
            if problem := self._problem(file, replica):
                message = f"{where} on store {replica.store_id}: {problem}"
                remedy = f"run: lightkeep verify {dataset.id}; do not delete the source"
                yield Finding(Severity.ERROR, replica.id, message, remedy)

    def _problem(self, file: File, replica: Replica) -> str:
        """Return what is wrong with a file on a store, or an empty string."""
        store = self.answering.get(replica.store_id)
        if store is None:  # said once, for the store
            return ""
        try:
            size = store.stat(replica.key).size
            if size != file.size:
                return f"has {size} bytes instead of {file.size}"
            if self._full and store.verify(replica.key).sha256 != file.sha256:
                return "differs from its checksum"
        except NotFound:
            return "is missing"
        except LightkeepError as error:
            return error.message
        return ""

    def orphans(self) -> Iterator[Finding]:
        """Find objects that no replica names: what a crash left, adopted by the next ingest."""
        for store_id, store in self.answering.items():
            if not store.record.is_managed:
                continue
            known = self._known.get(store_id, set())
            strangers = [f.key for f in store.list() if f.key not in known and not f.key.startswith(FOLDER)]
            if strangers:
                message = (
                    f"store {store_id} holds {len(strangers)} objects that no dataset names, e.g. {strangers[0]}"
                )
                remedy = "run the ingest that was interrupted again: it adopts them"
                yield Finding(Severity.WARNING, store_id, message, remedy)


def _datasets(facility: Facility) -> Iterator[Dataset]:
    from lightkeep.catalog import query

    view = facility.catalog.view(SERVICE)
    for state in DatasetState:
        offset = 0
        while page := view.datasets(query.parse(f"state:{state}"), limit=_PAGE, offset=offset, order="name").items:
            yield from page
            offset += len(page)


def _files(facility: Facility, dataset: Dataset) -> Iterator[File]:
    offset = 0
    view = facility.catalog.view(SERVICE)
    while page := view.files(dataset.id, limit=_PAGE, offset=offset).items:
        yield from page
        offset += len(page)


def _counters(facility: Facility, datasets: list[Dataset]) -> Iterator[Finding]:
    counted: Counter[tuple[str, str]] = Counter()
    for each in datasets:
        if each.state is DatasetState.COMPLETE:
            for name, amount in (("datasets", 1), ("files", each.files), ("size", each.size)):
                counted[each.experiment_id, name] += amount
    for experiment in _experiments(facility):
        for name in ("datasets", "files", "size"):
            right, kept = counted[experiment.id, name], getattr(experiment, name)
            if right != kept:
                message = f"experiment {experiment.id} counts {kept} for {name}, there are {right}"
                yield Finding(Severity.ERROR, experiment.id, message, "compare with a backup of the catalogue")


def _experiments(facility: Facility) -> Iterator[Experiment]:
    offset = 0
    view = facility.catalog.view(SERVICE)
    while page := view.experiments(limit=_PAGE, offset=offset).items:
        yield from page
        offset += len(page)


def _scratch(facility: Facility) -> Iterator[Finding]:
    """Find what runs that are over left behind."""
    view = facility.catalog.view(SERVICE)
    folder = facility.config.scratch / "runs"
    for each in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            is_needed = not view.run(each.name).state.is_over
        except NotFound:
            is_needed = False
        if not is_needed:
            yield Finding(
                Severity.WARNING,
                each.name,
                f"scratch folder {each} belongs to no live run",
                "the next worker clears it: run `lightkeep serve`",
            )
