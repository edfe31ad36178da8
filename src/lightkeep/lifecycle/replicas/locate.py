"""Where a file of a dataset lies on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from lightkeep.facility import Facility
from lightkeep.lifecycle.replicas.copies import LIVE, archived, is_near
from lightkeep.lifecycle.replicas.manifest import all_files
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import Corrupt, NotFound, StoreUnavailable
from lightkeep.model.people import SERVICE
from lightkeep.model.stores import Replica, ReplicaState, split_member

_READABLE = (ReplicaState.VERIFIED, ReplicaState.PRESENT)


def local_path(facility: Facility, dataset_id: str, path: str) -> Path:
    """Return the absolute path of a file's best readable replica on a mounted folder; for reading only.

    Whether the person may read it has been asked before. The store's identity and the file's size are checked,
    its content is not: `verify` does that.

    Raises
    ------
    NotFound: no such file, or no replica of it on this machine.
    Archived: it is in an archive unit or on tape only, where no program can open it by a path.
    StoreUnavailable: every replica is on a store that is not mounted.
    Corrupt: what lies there has another size.
    """
    view = facility.catalog.view(SERVICE)
    file = view.file(dataset_id, path)
    error: StoreUnavailable | None = None
    replicas = view.replicas([file.id])
    for replica in sorted(replicas, key=_preference):
        store = facility.stores[replica.store_id]
        if replica.state not in _READABLE or store.record.kind != "posix" or split_member(replica.key):
            continue
        try:
            found = store.stat(replica.key)
        except StoreUnavailable as unavailable:
            error = unavailable
            continue
        if found.size != file.size:
            raise Corrupt(
                f"{path} of dataset {dataset_id} has {found.size}, not {file.size} bytes on {store.record.id}",
                remedy=f"run `lightkeep verify {dataset_id}`; restore it from another copy",
            )
        return Path(store.record.location, replica.key)
    if error is None and any(_is_far(facility, each) for each in replicas):
        raise archived(file)
    raise error or NotFound(
        f"{path} of dataset {dataset_id} has no readable copy on this machine", remedy="restore the dataset first"
    )


def others(facility: Facility, datasets: Iterable[Dataset]) -> tuple[str, ...]:
    """Return where the files of datasets lie that their main files may refer to, for whom only named files reach.

    Raises
    ------
    As `local_path` does.
    """
    view = facility.catalog.view(SERVICE)
    return tuple(
        str(local_path(facility, dataset.id, file.path))
        for dataset in datasets
        for file in all_files(view, dataset.id)
        if file.path != dataset.main_file
    )


def _preference(replica: Replica) -> int:
    return _READABLE.index(replica.state) if replica.state in _READABLE else len(_READABLE)


def _is_far(facility: Facility, replica: Replica) -> bool:
    is_packed = split_member(replica.key) is not None
    return replica.state in LIVE and (is_packed or not is_near(replica, facility.stores))
