"""What has settled in a watched folder is taken in: each file a dataset, or a dataset that grows.

All that is remembered is in the catalogue: the keys of the files that are in. A taker that was killed and begun
again takes what is not there yet, and nothing twice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lightkeep.acquisition import documents
from lightkeep.acquisition.folder import FolderWatch, Rules, Stamp
from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import Guard, Intake, ingest, store_for
from lightkeep.lifecycle.replicas.transfer import Pace
from lightkeep.lifecycle.replicas.walk import Key, SourceTree
from lightkeep.model.datasets import Dataset, DatasetState
from lightkeep.model.errors import BadFile, LightkeepError, SourceError
from lightkeep.model.people import SERVICE, Principal

_PACE: Final = Pace(many=1)
"""Few files at once, but for hours: what copies without Python's lock is soon worth its start."""
_AGAIN_S: Final = 1.0
"""Pause before a file is tried again that could not be taken."""


@dataclass(slots=True)
class Taken:
    """What came into the catalogue."""

    files: int = 0
    bytes: int = 0
    lag_s: float = 0.0
    """Of the oldest file of the newest group: from its last write to its being in the catalogue."""
    last_error: str = ""


@dataclass(frozen=True)
class Target:
    """Where to, and for whom."""

    facility: Facility
    experiment_id: str
    principal: Principal
    guard: Guard
    """Refuses what is written when another process has taken over."""
    technique: str = ""


class Growing:
    """A dataset that gets the files of a folder as they settle.

    Parameters
    ----------
    name: of the dataset; with `-2`, `-3` ... where the name belongs to other content.
    """

    def __init__(self, target: Target, root: Path, name: str, *, dataset: Dataset | None = None) -> None:
        self.dataset = dataset
        self._target = target
        self._root = root
        self._name = name
        self._is_sure = dataset is None
        """False: the catalogue may know more than we do, an answer of its was lost."""

    def take(self, paths: Collection[str]) -> dict[str, Key]:
        """Take files in, by their paths below the folder; return the keys of those that are in now.

        A file that changes meanwhile is not among them. Raises as `ingest` does; then some may be in.
        """
        target, facility = self._target, self._target.facility
        with SourceTree(self._root, only=paths) as tree, ThreadPoolExecutor(1) as catalogue:
            if self.dataset is None:
                self.dataset = self._found(str(tree.root))
            known = self._known(tree, paths)
            experiment = facility.catalog.view(target.principal).experiment(target.experiment_id)
            store = store_for(facility, tree, "")
            intake = Intake(
                facility, target.principal, experiment, tree, store, quiet_s=0.0, pace=_PACE, guard=target.guard
            )
            intake.dataset = self.dataset
            todo = [found for found in tree.walk().files if known.get(found.key.path) != found.key]
            intake.check_room(todo)
            self._is_sure = False
            intake.commit(intake.move_all(todo, known, catalogue))
            self.dataset, self._is_sure = intake.dataset, True
        return {path: key for path, key in known.items() if path in paths}

    def complete(self) -> Dataset:
        """Complete the dataset with what is in it. Raises as `ingest` does."""
        if self.dataset is None:
            raise SourceError(f"nothing of {self._root} is in yet")
        target = self._target
        sources = target.facility.catalog.known_sources(os.path.realpath(self._root), dataset_id=self.dataset.id)
        done = ingest(
            target.facility,
            self._root,
            experiment_id=target.experiment_id,
            principal=target.principal,
            name=self.dataset.name,
            technique=target.technique,
            quiet_s=0.0,
            only=set(sources),
            guard=target.guard,
        )
        return done.dataset

    def _known(self, tree: SourceTree, paths: Collection[str]) -> dict[str, Key]:
        """Return what the catalogue has of these files; nothing where it is as sure as we are."""
        if self.dataset is None or not self.dataset.id or self._is_sure:
            return {}
        found = self._target.facility.catalog.known_sources(str(tree.root), dataset_id=self.dataset.id)
        return {
            s.path: Key(s.path, s.dev, s.ino, s.size, s.mtime_ns, s.ctime_ns)
            for s in found.values()
            if s.path in paths
        }

    def _found(self, root: str) -> Dataset:
        """Return the dataset that was begun for this folder, or a new one under the first free name."""
        target = self._target
        view = target.facility.catalog.view(SERVICE)
        number = 1
        while True:
            name = self._name if number == 1 else f"{self._name}-{number}"
            dataset = view.dataset_named(target.experiment_id, name)
            if dataset is None:
                return Dataset(
                    "", target.experiment_id, name, technique=target.technique, created_by=target.principal.id
                )
            is_ours = dataset.files == 0 or target.facility.catalog.known_sources(root, dataset_id=dataset.id)
            if dataset.state is DatasetState.RECEIVING and is_ours:
                self._is_sure = dataset.files == 0
                return dataset
            number += 1


class FolderTaker:
    """Takes in what settles in a folder. For one thread; use as a context manager.

    Parameters
    ----------
    name: of the dataset, where the folder is one.
    complete_s: without news for so long, a folder is a complete dataset.
    """

    def __init__(
        self,
        target: Target,
        root: Path,
        rules: Rules,
        *,
        name: str,
        complete_s: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.taken = Taken()
        self.root = root
        self._target = target
        self._rules = rules
        self._name = name
        self._complete_s = complete_s
        self._clock = clock
        self._growing: dict[str, Growing] = {}
        self.watch = FolderWatch(root, rules, known=self._known, clock=clock)
        self._is_read = False

    def __enter__(self) -> FolderTaker:
        self.watch.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.watch.__exit__(*exc)

    def step(self) -> None:
        """Look once, take in what has settled, complete what is over.

        Raises
        ------
        LightkeepError: the folder, the store or the catalogue is away; what had settled is named again.
        """
        self._read()
        settled = self.watch.look()
        failed: list[LightkeepError] = []
        for entry, paths in self._by_entry(settled).items():
            try:
                if entry in paths:
                    self._take_file(entry, settled[entry])
                else:
                    self._take_into(entry, paths, settled)
            except LightkeepError as error:  # the other entries are not kept waiting for this one
                failed.append(error)
        self.watch.again([path for path in settled if self.watch.is_handed(path)], after_s=_AGAIN_S)
        if failed:
            raise failed[0]
        self._complete_old()

    def finish(self, *, is_written: bool = False) -> bool:
        """Take what is left and complete everything; False while some files have not settled.

        Parameters
        ----------
        is_written: no writer is left: a file without its mark never gets one.
        """
        self.watch.hurry()
        self.step()
        if self.watch.settling if is_written else self.watch.waiting:
            return False
        for entry in list(self._growing):
            self._complete(entry)
        return True

    def _by_entry(self, settled: Iterable[str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for path in settled:
            found.setdefault(self._rules.entry_of(path), []).append(path)
        return found

    def _take_file(self, path: str, stamp: Stamp) -> None:
        target = self._target
        try:
            ingest(
                target.facility,
                self.root / path,
                experiment_id=target.experiment_id,
                principal=target.principal,
                technique=target.technique,
                quiet_s=0.0,
                guard=target.guard,
            )
        except BadFile as error:  # it will not get better: left alone until it changes
            self.taken.last_error = error.message
        except SourceError as error:
            self.taken.last_error = error.message
            return
        else:
            self._count([stamp])
        self.watch.took(path, stamp)

    def _take_into(self, entry: str, paths: Collection[str], settled: Mapping[str, Stamp]) -> None:
        prefix = f"{entry}/" if entry else ""
        growing = self._growing.get(entry)
        if growing is None:
            growing = self._growing[entry] = Growing(self._target, self.root / entry, entry or self._name)
        for path, key in growing.take({path.removeprefix(prefix) for path in paths}).items():
            self.watch.took(prefix + path, Stamp(*key[1:]))
        self._count([settled[path] for path in paths if not self.watch.is_handed(path)])

    def _count(self, stamps: Collection[Stamp]) -> None:
        if stamps:
            self.taken.files += len(stamps)
            self.taken.bytes += sum(stamp.size for stamp in stamps)
            self.taken.lag_s = max(0.0, time.time() - min(stamp.mtime_ns for stamp in stamps) / 1e9)
            self.taken.last_error = ""

    def _complete_old(self) -> None:
        now = self._clock()
        for entry in list(self._growing):
            rested_s = now - self.watch.changed_at.get(entry, 0.0)
            is_over = rested_s >= self._complete_s if not self._rules.done else entry in self.watch.marked
            if is_over and not self.watch.pending_of(entry):
                self._complete(entry)

    def _complete(self, entry: str) -> None:
        self._growing[entry].complete()
        del self._growing[entry]
        self.watch.forget(entry)

    def _read(self) -> None:
        """Read once what the catalogue has of the folder itself."""
        if not self._is_read:
            self.watch.taken.update(self._in_catalog("", self._name if self._rules.is_whole else ""))
            self._is_read = True

    def _known(self, entry: str) -> Mapping[str, Stamp]:
        """Return what the catalogue has of an entry that appears; go on with its dataset where one was begun."""
        return self._in_catalog(entry, entry) if entry and (self.root / entry).is_dir() else {}

    def _in_catalog(self, entry: str, name: str) -> dict[str, Stamp]:
        catalog, target = self._target.facility.catalog, self._target
        root = self.root / entry
        sources = catalog.known_sources(os.path.realpath(root))
        view = catalog.view(SERVICE)
        datasets = {each: view.dataset(each) for each in {source.dataset_id for source in sources.values()}}
        ours = {key: each for key, each in datasets.items() if each.experiment_id == target.experiment_id}
        for each in ours.values():
            if name and each.state is DatasetState.RECEIVING and entry not in self._growing:
                self._growing[entry] = Growing(target, root, name, dataset=each)
        prefix = f"{entry}/" if entry else ""
        return {
            prefix + source.path: Stamp(source.dev, source.ino, source.size, source.mtime_ns, source.ctime_ns)
            for source in sources.values()
            if source.dataset_id in ours
        }


class RunTaker(FolderTaker):
    """Takes in the files that bluesky's documents name, with the documents: each run a dataset.

    Parameters
    ----------
    below: files elsewhere are refused: the documents are not written by us.
    """

    def __init__(self, target: Target, root: Path, *, below: Path) -> None:
        super().__init__(target, root, Rules(("*.jsonl",), done="{name}.done", quiet_s=0.5), name="")
        self._below = Path(os.path.realpath(below))

    def _read(self) -> None:
        if not self._is_read:
            self.watch.taken.update(self._documents_in())
            self._is_read = True

    def _documents_in(self) -> dict[str, Stamp]:
        """Return the documents that are in, whatever folder they were taken in with."""
        found: dict[str, Stamp] = {}
        folder = Path(os.path.realpath(self.root))
        for above in (folder, *folder.parents):
            for path, source in self._target.facility.catalog.known_sources(str(above)).items():
                if (above / path).parent == folder:
                    stamp = Stamp(source.dev, source.ino, source.size, source.mtime_ns, source.ctime_ns)
                    found[(above / path).name] = stamp
        return found

    def _take_file(self, path: str, stamp: Stamp) -> None:
        target = self._target
        try:
            run = documents.read(self.root / path)
            files = [Path(os.path.realpath(each)) for each in (*run.files, self.root / path)]
            for each in files[:-1]:
                if not each.is_relative_to(self._below):
                    raise BadFile(
                        f"run {run.name}: {each} is not below {self._below}", remedy="set the option `below`"
                    )
            above = Path(os.path.commonpath([each.parent for each in files]))
            ingest(
                target.facility,
                above,
                experiment_id=target.experiment_id,
                principal=target.principal,
                name=run.name,
                technique=target.technique,
                quiet_s=self._rules.quiet_s,
                only={str(each.relative_to(above)) for each in files},
                guard=target.guard,
            )
        except BadFile as error:
            self.taken.last_error = error.message
        except SourceError as error:
            self.taken.last_error = error.message
            return
        else:
            self._count([stamp])
            self.taken.files += len(files) - 1
        self.watch.took(path, stamp)
