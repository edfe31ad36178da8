"""What ingest must know of a source before it copies: is it quiet, is it in already, what is it?"""

from __future__ import annotations

import itertools
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from lightkeep.facility import Facility
from lightkeep.lifecycle.replicas.manifest import all_files
from lightkeep.lifecycle.replicas.walk import Key, SourceReader, SourceTree, Walk
from lightkeep.model.datasets import Dataset, DatasetState, Metadata
from lightkeep.model.errors import BadFile, SourceError
from lightkeep.model.people import Principal

_ROUNDS: Final = 10
_HDF5: Final = (".h5", ".hdf5", ".hdf", ".he5", ".nx", ".nxs", ".nexus")
_SIGNATURE: Final = b"\x89HDF\r\n\x1a\n"
_DETECTORS: Final = (".imm", ".bin", ".bin.000")
_TRIED: Final = 8  # files of a folder that are looked into for its main file, the likeliest first


@dataclass(frozen=True, slots=True)
class Look:
    """What a format found in the main file."""

    key: Key | None = None
    """Of the main file; None when no file has a known format."""
    format: str = ""
    technique: str = ""
    metadata: Metadata = field(default_factory=Metadata)


def settled(tree: SourceTree, quiet_s: float) -> Walk:
    """Walk a source until nothing under it changed for `quiet_s` (invariant I2).

    Raises SourceError when it never rests, or holds no regular file.
    """
    walk = tree.walk()
    for _ in range(_ROUNDS):
        if not walk.files:
            raise SourceError(f"nothing to ingest in {tree.source}: no regular file", remedy="check the path")
        newest = max(walk.files, key=lambda found: max(found.key.mtime_ns, found.key.ctime_ns)).key
        # The filesystem's times are compared with the machine's clock, not the facility's.
        age_s = (time.time_ns() - max(newest.mtime_ns, newest.ctime_ns)) / 1e9
        if age_s >= quiet_s:
            return walk
        time.sleep(quiet_s - max(age_s, 0.0))  # a time in the future: another machine's clock; wait in full
        before, walk = walk, tree.walk()
        if walk == before:
            return walk
    raise still_written(tree, newest.path)


def still_written(tree: SourceTree, path: str) -> SourceError:
    """Return the error for a source that keeps changing."""
    shown = os.fsencode(path).decode(errors="backslashreplace")
    return SourceError(
        f"{tree.source} is still being written: {shown} keeps changing",
        remedy="wait until its writer is done, then ingest it again; what is in already stays",
    )


def look_into(tree: SourceTree, walk: Walk) -> Look:
    """Find the main file and extract its metadata, in a killable process: the file is not trusted.

    A source that is one file is its own main file: BadFile and UnsafeFile are raised. In a folder it is the
    largest file of a known format, but a master (`<run>_master.h5`) comes before its data files, and a run before
    its metadata (`<run>_metadata.hdf`); files that are broken are kept as files like any other.
    """
    from lightkeep import formats

    if tree.is_file:
        found = formats.inspect(tree.path, within=None)
        if not found.format and tree.path.suffix.lower() in _HDF5 and not _is_hdf5(tree.path):
            raise BadFile(
                f"{tree.source} is not an HDF5 file, though its name says so: cut short or never written?",
                remedy="copy it again from its origin, or give it the name of what it is",
            )
        return Look(walk.files[0].key if found.format else None, found.format, found.technique, found.metadata)
    candidates = [found.key for found in walk.files if found.key.path.lower().endswith(_HDF5 + _DETECTORS)]
    for key in sorted(candidates, key=_likelihood)[:_TRIED]:
        with suppress(BadFile):
            found = formats.inspect(tree.root / key.path, within=tree.root)
            if found.format:
                return Look(key, found.format, found.technique, found.metadata)
    return Look()


def _likelihood(key: Key) -> tuple[int, int, str]:
    """Sorts the files of a folder, the likeliest main file first."""
    stem = key.path.lower().rpartition(".")[0]
    rank = 0 if stem.endswith("_master") else 2 if stem.endswith("_metadata") else 1
    return rank, -key.size, key.path


def _is_hdf5(path: Path) -> bool:
    """True when the signature stands where it may: at 0, 512, 1024, 2048 ... SourceError: it cannot be read."""
    try:
        opened = path.open("rb")
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}", remedy="correct its permissions") from error
    with opened as file:
        size = file.seek(0, os.SEEK_END)
        for at in [0, *(512 << n for n in range(40))]:
            if at + len(_SIGNATURE) > size:
                return False
            file.seek(at)
            if file.read(len(_SIGNATURE)) == _SIGNATURE:
                return True
    return False


def find_dataset(
    facility: Facility, principal: Principal, tree: SourceTree, walk: Walk, wanted: Dataset
) -> tuple[Dataset, dict[str, Key]]:
    """Return the dataset that a source belongs to, and the keys of what is in it already.

    complete: it holds exactly the source. receiving: an interrupted ingest of this source. Without an id: it does
    not exist yet, and its name is `wanted.name`, or with `-2`, `-3` ... where that name belongs to other content.
    """
    view = facility.catalog.view(principal)
    for number in itertools.count(1):
        name = wanted.name if number == 1 else f"{wanted.name}-{number}"
        dataset = view.dataset_named(wanted.experiment_id, name)
        if dataset is None:
            return replace(wanted, name=name), {}
        if wanted.run_id and dataset.run_id and dataset.run_id != wanted.run_id:
            continue  # each run keeps a result of its own: that of another one may be withdrawn
        known = _known(facility, dataset, tree)
        is_again = bool(wanted.run_id) and dataset.run_id == wanted.run_id  # computed once more, by another worker
        if dataset.state is DatasetState.RECEIVING and (known or dataset.files == 0 or is_again):
            return dataset, known
        if dataset.state is DatasetState.COMPLETE and _holds(facility, principal, dataset, tree, walk, known):
            return dataset, known
    raise AssertionError  # the numbers do not end


def _known(facility: Facility, dataset: Dataset, tree: SourceTree) -> dict[str, Key]:
    """Path -> key of what is in a dataset from this source."""
    sources = facility.catalog.known_sources(str(tree.root), dataset_id=dataset.id)
    return {s.path: Key(s.path, s.dev, s.ino, s.size, s.mtime_ns, s.ctime_ns) for s in sources.values()}


def _holds(
    facility: Facility, principal: Principal, dataset: Dataset, tree: SourceTree, walk: Walk, known: dict[str, Key]
) -> bool:
    """True when a complete dataset holds exactly the files of a source: by their keys, else by their content."""
    if len(walk.files) == len(known) and all(known.get(found.key.path) == found.key for found in walk.files):
        return True
    if len(walk.files) != dataset.files:
        return False
    files = all_files(facility.catalog.view(principal), dataset.id)
    content = {file.path: (file.size, file.sha256) for file in files}
    with SourceReader(tree) as reader:
        for found in sorted(walk.files, key=lambda found: found.key.size):
            size, sha256 = content.get(found.key.path, (-1, ""))
            if size != found.key.size or reader.sha256(found.key) != sha256:
                return False
    return True
