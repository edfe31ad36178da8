"""Examine: is everything as the catalogue says? Reads only; repairs nothing."""

from __future__ import annotations

import sqlite3
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from lightkeep.model.datasets import Dataset, DatasetState, File
from lightkeep.model.errors import LightkeepError, NotFound
from lightkeep.model.people import SERVICE
from lightkeep.model.stores import Replica, ReplicaState
from lightkeep.model.techniques import Report

if TYPE_CHECKING:
    from lightkeep.facility import Facility

_PAGE: Final = 1000
_LOW: Final = 1 << 30
"""Bytes of room below which a store is worth a warning."""
_STALE: Final = timedelta(hours=1)
"""After this long without an end, an ingest is taken for interrupted."""


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """Data or records are not what they should be."""
    WARNING = "warning"
    """Nothing is lost; somebody should look."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    severity: Severity
    subject: str
    """Id of the thing."""
    message: str
    """One line: what is wrong with which thing."""
    remedy: str = ""
    """What to do next."""


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
    reachable: dict[str, Finding | None] = {}
    findings = [*_databases(facility), *_events(facility), *_stores(facility, reachable)]
    known: dict[str, set[str]] = {}
    datasets = list(_datasets(facility))
    for number, dataset in enumerate(datasets):
        findings += _dataset(facility, dataset, known, reachable, full=full)
        if report is not None:
            report((number + 1) / len(datasets), dataset.name)
    findings += [*_orphans(facility, known, reachable), *_counters(facility, datasets), *_scratch(facility)]
    return sorted(findings, key=lambda each: each.severity is not Severity.ERROR)


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


def _stores(facility: Facility, reachable: dict[str, Finding | None]) -> Iterator[Finding]:
    for record in facility.catalog.view(SERVICE).stores():
        reachable[record.id] = None
        try:
            store = facility.stores[record.id]
            store.check_identity()
            room = store.free_bytes()
        except LightkeepError as error:
            finding = Finding(Severity.ERROR, record.id, error.message, error.remedy)
            reachable[record.id] = finding
            yield finding
            continue
        if room is not None and room < _LOW and record.is_managed:
            yield Finding(
                Severity.WARNING,
                record.id,
                f"store {record.id} has {room / 1e6:.0f} MB left",
                "make some room on it",
            )


def _datasets(facility: Facility) -> Iterator[Dataset]:
    from lightkeep.catalog import query

    view = facility.catalog.view(SERVICE)
    for state in DatasetState:
        offset = 0
        while page := view.datasets(query.parse(f"state:{state}"), limit=_PAGE, offset=offset, order="name").items:
            yield from page
            offset += len(page)


def _dataset(
    facility: Facility,
    dataset: Dataset,
    known: dict[str, set[str]],
    reachable: dict[str, Finding | None],
    *,
    full: bool,
) -> Iterator[Finding]:
    view = facility.catalog.view(SERVICE)
    replicas: dict[str, list[Replica]] = {}
    for each in view.replicas(dataset.id):
        replicas.setdefault(each.file_id, []).append(each)
        known.setdefault(each.store_id, set()).add(each.key)
    if dataset.state is DatasetState.RECEIVING:
        if dataset.created_at and facility.clock.now() - dataset.created_at > _STALE:
            yield Finding(
                Severity.WARNING,
                dataset.id,
                f"dataset {dataset.name} was never completed",
                "run `lightkeep ingest` on its source again: it goes on where it stopped",
            )
        return
    files = list(_files(facility, dataset))
    counted = (len(files), sum(each.size for each in files))
    if dataset.state is DatasetState.COMPLETE and counted != (dataset.files, dataset.size):
        yield Finding(
            Severity.ERROR,
            dataset.id,
            f"dataset {dataset.name} counts {dataset.files} files and {dataset.size} bytes, "
            f"its manifest has {counted[0]} and {counted[1]}",
            "compare with a backup of the catalogue",
        )
    for each in files:
        yield from _file(facility, dataset, each, replicas.get(each.id, []), reachable, full=full)


def _files(facility: Facility, dataset: Dataset) -> Iterator[File]:
    offset = 0
    view = facility.catalog.view(SERVICE)
    while page := view.files(dataset.id, limit=_PAGE, offset=offset).items:
        yield from page
        offset += len(page)


def _file(
    facility: Facility,
    dataset: Dataset,
    file: File,
    replicas: list[Replica],
    reachable: dict[str, Finding | None],
    *,
    full: bool,
) -> Iterator[Finding]:
    where = f"{dataset.name}/{file.path}"
    good = [each for each in replicas if each.state in (ReplicaState.VERIFIED, ReplicaState.PRESENT)]
    if not good:
        yield Finding(Severity.ERROR, file.id, f"{where} has no good copy", "ingest its source again")
    elif all(each.state is not ReplicaState.VERIFIED for each in good):
        yield Finding(
            Severity.WARNING,
            file.id,
            f"{where} has no verified copy",
            f"run: lightkeep verify {dataset.id}",
        )
    for replica in good:
        if reachable.get(replica.store_id) is not None:
            continue  # said once, for the store
        problem = _problem(facility, file, replica, full=full)
        if problem:
            yield Finding(
                Severity.ERROR,
                replica.id,
                f"{where} on store {replica.store_id}: {problem}",
                f"run: lightkeep verify {dataset.id}; do not delete the source",
            )


def _problem(facility: Facility, file: File, replica: Replica, *, full: bool) -> str:
    """Return what is wrong with a file on a store, or an empty string."""
    store = facility.stores[replica.store_id]
    try:
        size = store.stat(replica.key).size
        if size != file.size:
            return f"has {size} bytes instead of {file.size}"
        if full and store.verify(replica.key).sha256 != file.sha256:
            return "differs from its checksum"
    except NotFound:
        return "is missing"
    except LightkeepError as error:
        return error.message
    return ""


def _orphans(
    facility: Facility, known: dict[str, set[str]], reachable: dict[str, Finding | None]
) -> Iterator[Finding]:
    """Find objects on managed stores that no replica names: what a crash left, adopted by the next ingest."""
    for record in facility.catalog.view(SERVICE).stores():
        if not record.is_managed or reachable.get(record.id) is not None:
            continue
        strangers = [
            each for each in facility.stores[record.id].list() if each.key not in known.get(record.id, ())
        ]
        if strangers:
            yield Finding(
                Severity.WARNING,
                record.id,
                f"store {record.id} holds {len(strangers)} objects that no dataset names, e.g. {strangers[0].key}",
                "run the ingest that was interrupted again: it adopts them",
            )


def _counters(facility: Facility, datasets: list[Dataset]) -> Iterator[Finding]:
    counted: Counter[tuple[str, str]] = Counter()
    for each in datasets:
        if each.state is DatasetState.COMPLETE:
            for name, amount in (("datasets", 1), ("files", each.files), ("size", each.size)):
                counted[each.experiment_id, name] += amount
    offset = 0
    view = facility.catalog.view(SERVICE)
    while page := view.experiments(limit=_PAGE, offset=offset).items:
        offset += len(page)
        for experiment in page:
            for name in ("datasets", "files", "size"):
                right, kept = counted[experiment.id, name], getattr(experiment, name)
                if right != kept:
                    yield Finding(
                        Severity.ERROR,
                        experiment.id,
                        f"experiment {experiment.id} counts {kept} for {name}, there are {right}",
                        "compare with a backup of the catalogue",
                    )


def _scratch(facility: Facility) -> Iterator[Finding]:
    """Find what runs that are over left behind."""
    view = facility.catalog.view(SERVICE)
    folder = facility.config.scratch
    for each in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            is_needed = not view.run(each.name).state.is_over
        except NotFound:
            is_needed = False
        if not is_needed:
            yield Finding(
                Severity.WARNING, each.name, f"scratch folder {each} belongs to no live run", "it may be deleted"
            )
