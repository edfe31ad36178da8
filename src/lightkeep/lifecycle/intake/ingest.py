"""A measured file or folder becomes a dataset: copied or registered where it lies, hashed, read back, catalogued.

The order, which no crash can turn into a loss: a group's bytes are durable and were read back, then its names are
durable, then one transaction makes it known (invariant I1). Killed at any instruction, a second call with the same
arguments continues: what is catalogued is skipped, what lies on the store without a row is adopted, the rest is
copied. The source is only read (I5).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from lightkeep import telemetry
from lightkeep.catalog.changes import Change
from lightkeep.catalog.sources import SourceKey
from lightkeep.facility import Facility
from lightkeep.lifecycle.capacity.usage import check_quota
from lightkeep.lifecycle.intake.examine import Look, find_dataset, look_into, settled, still_written
from lightkeep.lifecycle.replicas import records
from lightkeep.lifecycle.replicas.transfer import Kept, Pace, Transfer, split
from lightkeep.lifecycle.replicas.walk import Found, Key, SourceTree, Walk
from lightkeep.model.datasets import Dataset, DatasetKind, DatasetState, File, SkippedFile
from lightkeep.model.errors import Conflict, InvalidInput
from lightkeep.model.experiments import Experiment, ExperimentState
from lightkeep.model.people import Principal, Verb
from lightkeep.model.stores import Proof, Replica, ReplicaState, Store
from lightkeep.model.techniques import Report

_ANCHOR_AGE: Final = timedelta(minutes=1)  # how far the stores' records may be behind; upkeep writes them as well
_ROUNDS: Final = 10  # times that a source which keeps changing is looked at again

Guard = Callable[[Change], None]


@dataclass(frozen=True, slots=True)
class Ingested:
    """What an ingest did."""

    dataset: Dataset
    added: int
    """Files that this call put into the manifest."""
    skipped: int
    """Names under the source that are recorded but not kept (symlinks, pipes ...)."""
    was_known: bool
    """True when the dataset was complete before, with exactly this content."""


def ingest(
    facility: Facility,
    source: Path,
    *,
    experiment_id: str,
    principal: Principal,
    name: str = "",
    kind: DatasetKind = DatasetKind.RAW,
    store_id: str = "",
    technique: str = "",
    in_place: bool = False,
    parents: Sequence[str] = (),
    run_id: str = "",
    quiet_s: float | None = None,
    report: Report | None = None,
    pace: Pace = Pace(),  # noqa: B008 (frozen)
    only: Collection[str] | None = None,
    guard: Guard | None = None,
) -> Ingested:
    """Make a source file or folder a complete dataset of an experiment. Idempotent.

    The same content under the same name is known already and changes nothing; other content under a name that is
    complete becomes a dataset of its own, `name-2`, `name-3` ...; nothing is ever overwritten. An interrupted
    ingest is continued.

    Parameters
    ----------
    source: a regular file, or a folder with everything below it. Never written, not even its access time where
        the system allows that.
    name: of the dataset; the source's name without suffix when empty.
    store_id: where to; the configured store when empty.
    technique: what it measures; the main file's format says it when empty.
    in_place: register the files where they are, on a store that is not managed and holds the source.
    quiet_s: how long every file must have been unchanged; the configured time when None.
    report: called with the fraction of the bytes done.
    pace: how much is made durable at once; the default is fast.
    only: of a folder, only these paths below it.
    guard: called in each of its transactions, before they write; what it raises ends the call.

    Raises
    ------
    NotFound, Forbidden, SignInRequired: the experiment may not be seen or written by the principal.
    Conflict: the experiment takes no raw data any more, or another writer holds the store too long.
    SourceError: the source is missing, unreadable, empty, or still being written.
    BadFile, UnsafeFile: the file claims a format that it breaks; nothing was registered.
    StoreFull, StoreUnavailable, Corrupt, StorageError: the store failed; nothing of its group was registered.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.WRITE, experiment_id=experiment_id)
    experiment = view.experiment(experiment_id)
    _check_open(experiment, kind)
    with SourceTree(source, only=only) as tree:
        wanted = Dataset(
            id="",
            experiment_id=experiment_id,
            name=_checked_name(name or (tree.path.stem if tree.is_file else tree.path.name)),
            kind=kind,
            technique=technique,
            parents=tuple(parents),
            run_id=run_id,
            created_by=principal.id,
        )
        store = (_store_around if in_place else store_for)(facility, tree, store_id)
        quiet_s = facility.config.ingest.quiet_s if quiet_s is None else quiet_s
        work = Intake(
            facility, principal, experiment, tree, store, quiet_s=quiet_s, pace=pace, report=report, guard=guard
        )
        try:
            done = work.run(wanted)
        except Conflict:  # another ingest of the same source was faster: see what it left to do
            done = work.run(wanted)
    if not done.was_known:
        records.anchor(facility, age=_ANCHOR_AGE)
    return done


class Intake:
    """One call of `ingest`."""

    def __init__(
        self,
        facility: Facility,
        principal: Principal,
        experiment: Experiment,
        tree: SourceTree,
        store: Store,
        *,
        quiet_s: float,
        pace: Pace,
        report: Report | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.guard = guard
        self.facility = facility
        self.principal = principal
        self.experiment = experiment
        self.tree = tree
        self.store = store
        self.quiet_s = quiet_s
        self.pace = pace
        self.root = str(tree.root)
        self.progress = _Progress(report)
        self.added = 0

    def run(self, wanted: Dataset) -> Ingested:
        """Copy what the dataset lacks until the source and the manifest agree, then complete it."""
        walk = settled(self.tree, self.quiet_s)
        self.dataset, known = find_dataset(self.facility, self.principal, self.tree, walk, wanted)
        if self.dataset.state is DatasetState.COMPLETE:
            return Ingested(self.dataset, 0, len(walk.others), was_known=True)
        look = look_into(self.tree, walk)
        self.check_room([found for found in walk.files if known.get(found.key.path) != found.key])
        self.progress.total = sum(found.key.size for found in walk.files)
        with ThreadPoolExecutor(1) as catalogue:
            for _ in range(_ROUNDS):
                todo = [found for found in walk.files if known.get(found.key.path) != found.key]
                kept = self.move_all(todo, known, catalogue)
                walk = self.tree.walk(known)
                if all(known.get(found.key.path) == found.key for found in walk.files):
                    if look.key not in (None, *(found.key for found in walk.files)):
                        look = look_into(self.tree, walk)  # the main file was replaced after it was looked into
                    catalogue.submit(telemetry.joined(self.commit), kept, seal=(walk, look)).result()
                    dataset = self.facility.catalog.view(self.principal).dataset(self.dataset.id)
                    return Ingested(dataset, self.added, len(walk.others), was_known=False)
                catalogue.submit(telemetry.joined(self.commit), kept).result()
                walk = settled(self.tree, self.quiet_s)
        raise still_written(self.tree, next(f.key.path for f in walk.files if known.get(f.key.path) != f.key))

    def check_room(self, todo: Sequence[Found]) -> None:
        if self.store.record.is_managed:
            check_quota(self.facility, self.experiment, more=sum(found.key.size for found in todo))

    def move_all(self, todo: Sequence[Found], known: dict[str, Key], catalogue: ThreadPoolExecutor) -> list[Kept]:
        """Move group by group, and make each known while the next ones move; return the last, still unknown."""
        kept: list[Kept] = []
        writing: Future[None] | None = None
        with closing(self._move(list(split(todo, self.pace)))) as moved:
            for group in moved:
                if writing is not None:
                    writing.result()
                if kept:
                    writing = catalogue.submit(telemetry.joined(self.commit), kept)
                kept = group
                known.update({each.found.key.path: each.found.key for each in kept})
        if writing is not None:
            writing.result()
        return kept

    def _move(self, groups: Sequence[Sequence[Found]]) -> Generator[list[Kept]]:
        is_managed = self.store.record.is_managed
        if is_managed:
            prefix = f"{self.experiment.station_id}/{self.experiment.id}/{self.dataset.name}/"
        else:
            below = os.path.relpath(self.tree.root, os.path.realpath(self.store.record.location))
            prefix = "" if below == "." else f"{below}/"
        transfer = Transfer(self.store, self.tree, prefix, self.pace, self.progress.add)
        return transfer.copy(groups) if is_managed else transfer.register(groups)

    def commit(self, kept: Sequence[Kept], *, seal: tuple[Walk, Look] | None = None) -> None:
        """Make a group known, and with `seal` the dataset complete, in one transaction."""
        if not kept and seal is None:
            return
        dataset = self.dataset
        group = telemetry.span("ingest group", dataset=dataset.name, files=len(kept))
        with group, self.facility.catalog.change(self.principal) as tx:
            if self.guard is not None:
                self.guard(tx)
            if not dataset.id:
                dataset = tx.add_dataset(replace(dataset, id=self.facility.ids.new("ds")))
            if kept:
                now = self.facility.clock.now()
                files = tx.add_files(dataset.id, [self._row(dataset, each, now) for each in kept])
                pairs = zip(kept, files, strict=True)
                tx.remember_sources([SourceKey(dataset.id, self.root, *k.found.key, file.id) for k, file in pairs])
            if seal is not None:
                walk, look = seal
                tx.add_skipped([SkippedFile(dataset.id, o.path, o.kind, o.reason, o.target) for o in walk.others])
                tx.describe_dataset(
                    dataset.id,
                    metadata=look.metadata,
                    format=look.format,
                    main_file=look.key.path if look.key else "",
                    technique=dataset.technique or look.technique,
                )
                records.write_dataset(self.facility, tx, tx.complete_dataset(dataset.id), store=self.store)
        self.dataset = dataset
        self.added += len(kept)

    def _row(self, dataset: Dataset, kept: Kept, now: datetime) -> tuple[File, Replica]:
        key = kept.found.key
        file = File(
            id=self.facility.ids.new("file"),
            dataset_id=dataset.id,
            path=key.path,
            size=key.size,
            sha256=kept.sha256,
            mtime_ns=key.mtime_ns,
            mode=kept.found.mode,
        )
        is_proven = kept.proof is not Proof.UNPROVEN
        replica = Replica(
            id=self.facility.ids.new("replica"),
            file_id=file.id,
            store_id=self.store.record.id,
            key=kept.key,
            state=ReplicaState.VERIFIED if is_proven else ReplicaState.PRESENT,
            verified_at=now if is_proven else None,
            proof=kept.proof,
            created_at=now,
        )
        return file, replica


class _Progress:
    """Adds up bytes from all threads; reports in steps of half a percent."""

    def __init__(self, report: Report | None) -> None:
        self.total = 0
        self._report = report
        self._lock = threading.Lock()
        self._done = 0
        self._told = -1

    def add(self, count: int) -> None:
        """Count bytes that were read."""
        if self._report is None:
            return
        with self._lock:
            self._done += count
            fraction = min(1.0, self._done / max(self.total, 1))
            if int(fraction * 200) == self._told:
                return
            self._told = int(fraction * 200)
            self._report(fraction, f"{self._done / 1e6:,.0f} of {self.total / 1e6:,.0f} MB copied and hashed")


def _check_open(experiment: Experiment, kind: DatasetKind) -> None:
    if kind is DatasetKind.RAW and experiment.state is not ExperimentState.OPEN:
        raise Conflict(
            f"experiment {experiment.id} is {experiment.state}: it takes no raw data",
            remedy="ingest into an open experiment, or have a station manager open this one",
        )


def _checked_name(name: str) -> str:
    if not name.isprintable() or "/" in name or name in ("", ".", "..") or len(os.fsencode(name)) > 200:
        raise InvalidInput(
            f"not a name for a dataset: {name!r}",
            remedy="give one of 1 to 200 printable characters without a slash: --name",
        )
    return name


def store_for(facility: Facility, tree: SourceTree, store_id: str) -> Store:
    store = facility.stores[store_id or facility.config.ingest.store]
    store.check_identity()
    if store.record.is_managed and tree.path.is_relative_to(os.path.realpath(store.record.location)):
        raise InvalidInput(f"{tree.source} is inside store {store.record.id} already", remedy="name the original")
    return store


def _store_around(facility: Facility, tree: SourceTree, store_id: str) -> Store:
    """Return the store that is not managed and holds the source."""
    for each in [store_id] if store_id else list(facility.stores):
        record = facility.stores[each].record
        if not record.is_managed and tree.path.is_relative_to(os.path.realpath(record.location)):
            return store_for(facility, tree, each)
    raise InvalidInput(
        f"no store for files registered in place holds {tree.source}",
        remedy="register its disk as a store that is not managed, or ingest without --in-place to copy",
    )
