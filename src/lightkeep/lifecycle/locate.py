"""Where a file of a dataset lies on this machine."""

from __future__ import annotations

from pathlib import Path

from lightkeep.facility import Facility
from lightkeep.model.errors import Corrupt, NotFound, StoreUnavailable
from lightkeep.model.people import SERVICE
from lightkeep.model.stores import Replica, ReplicaState

_READABLE = (ReplicaState.VERIFIED, ReplicaState.PRESENT)


def local_path(facility: Facility, dataset_id: str, path: str) -> Path:
    """Return the absolute path of a file's best readable replica on a mounted folder; for reading only.

    Whether the person may read it has been asked before. The store's identity and the file's size are checked,
    its content is not: `verify` does that.

    Raises
    ------
    NotFound: no such file, or no replica of it on this machine.
    StoreUnavailable: every replica is on a store that is not mounted.
    Corrupt: what lies there has another size.
    """
    view = facility.catalog.view(SERVICE)
    file = view.file(dataset_id, path)
    error: StoreUnavailable | None = None
    for replica in sorted(view.replicas([file.id]), key=_preference):
        store = facility.stores[replica.store_id]
        if replica.state not in _READABLE or store.record.kind != "posix":
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
    raise error or NotFound(
        f"{path} of dataset {dataset_id} has no readable copy on this machine", remedy="restore the dataset first"
    )


def _preference(replica: Replica) -> int:
    return _READABLE.index(replica.state) if replica.state in _READABLE else len(_READABLE)
