"""Files of a spool go once a verified copy of them was read back; the catalogue's word alone is not enough.

    <series>.h5       1. The catalogue knows this very file (device, inode, size, times) in a complete dataset,
                         with a verified copy on a managed store.
                      2. Now the copy is read back, and the file is read: both have the manifest's checksum.
    <series>.h5.done  stays: the recorder never uses a name again that has a mark, and salvages nothing twice.

Nothing goes while something is strange about the clock or the catalogue (the guards of purging), while a live run
of the experiment goes on, and in the first hour.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

from lightkeep.acquisition.options import Frames, checked
from lightkeep.acquisition.spool import mark_of
from lightkeep.facility import Facility
from lightkeep.lifecycle.health import guards
from lightkeep.lifecycle.replicas.walk import Key, SourceReader, SourceTree, is_same
from lightkeep.model.acquisition import Acquisition
from lightkeep.model.datasets import DatasetState, File
from lightkeep.model.errors import LightkeepError, NotFound
from lightkeep.model.people import SERVICE
from lightkeep.model.runs import LIVE, RunState
from lightkeep.model.stores import ReplicaState

_LOG = logging.getLogger(__name__)

AGE: Final = timedelta(hours=1)
"""How long a complete file stays at least."""


def folder_of(facility: Facility, found: Acquisition, options: Frames) -> Path:
    """Return where an acquisition's frames go."""
    base = Path(options.spool) if options.spool else facility.config.root / "spool"
    return base / found.id


def clear(facility: Facility) -> int:
    """Remove what may go from the spools of this host; return how many files went.

    Raises
    ------
    LightkeepError: why the first file stays whose copy could not be read back; the others are done.
    """
    if guards.status(facility).reasons:
        return 0
    count, failed = 0, []
    for found, path in _complete(facility):
        try:
            count += _remove(facility, found, path)
        except LightkeepError as error:
            failed.append(error)
    if failed:
        raise failed[0]
    return count


def _complete(facility: Facility) -> Iterator[tuple[Acquisition, Path]]:
    """Yield the marked files that are old enough."""
    view = facility.catalog.view(SERVICE)
    offset = 0
    while page := view.acquisitions(limit=500, offset=offset).items:
        offset += len(page)
        for found in page:
            options = checked(found.kind, found.options)
            if not isinstance(options, Frames) or _is_followed(facility, found.experiment_id):
                continue
            for path in sorted(folder_of(facility, found, options).glob("*.h5")):
                mark = mark_of(path)
                if mark.exists() and facility.clock.now().timestamp() - mark.stat().st_mtime > AGE.total_seconds():
                    yield found, path


def _is_followed(facility: Facility, experiment_id: str) -> bool:
    view = facility.catalog.view(SERVICE)
    going = [view.runs(experiment_id=experiment_id, state=state, limit=1000) for state in _GOING]
    return any(run.engine == LIVE for page in going for run in page.items)


_GOING: Final = (RunState.QUEUED, RunState.RUNNING)


def _remove(facility: Facility, found: Acquisition, path: Path) -> bool:
    """Remove one file, if both checks allow it."""
    with SourceTree(path) as tree, SourceReader(tree) as reader:
        (source,) = tree.walk().files
        file = _in_catalog(facility, found, str(tree.root), source.key)
        if file is None or not _is_kept(facility, file) or reader.sha256(source.key) != file.sha256:
            return False
        with facility.catalog.change(SERVICE) as tx:
            tx.note_spool_removed(found.id, file)
        folder = reader.folder(source.key)
        if not is_same(source.key, os.stat(path.name, dir_fd=folder, follow_symlinks=False)):
            return False
        os.unlink(path.name, dir_fd=folder)
    _LOG.info("spool file removed", extra={"about": {"acquisition": found.id, "file": path.name}})
    return True


def _in_catalog(facility: Facility, found: Acquisition, root: str, key: Key) -> File | None:
    """Return the entry of the manifest that was made from this very file."""
    known = facility.catalog.known_sources(root).get(key.path)
    if known is None or Key(key.path, *known[3:8]) != key:
        return None
    view = facility.catalog.view(SERVICE)
    try:
        dataset = view.dataset(known.dataset_id)
        file = view.file(dataset.id, key.path)
    except NotFound:
        return None
    is_ours = dataset.state is DatasetState.COMPLETE and dataset.experiment_id == found.experiment_id
    return file if is_ours and file.id == known.file_id else None


def _is_kept(facility: Facility, file: File) -> bool:
    """Read a verified copy back; True when it is what the manifest says."""
    for replica in facility.catalog.view(SERVICE).replicas([file.id]):
        store = facility.stores[replica.store_id]
        if replica.state is ReplicaState.VERIFIED and store.record.is_managed:
            store.check_identity()
            seen = store.verify(replica.key)
            if (seen.sha256, seen.size) == (file.sha256, file.size):
                return True
    return False
