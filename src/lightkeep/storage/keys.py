"""Names of objects on a store, and what the operating system's errors on the store's side mean."""

from __future__ import annotations

import errno
from typing import Final

from lightkeep.model.errors import InvalidInput, StorageError, StoreFull
from lightkeep.model.stores import split_member

MARKER: Final = ".lightkeep-store.json"
INCOMING: Final = ".incoming"
TRASH: Final = ".trash"
OWN: Final = ".lightkeep"
RECORDS: Final = f"{OWN}/records/"
IDENTITY: Final = f"{OWN}-store-"
"""What begins the name of the marker where reading a small file may have a tape mounted: the identity ends it."""
RESERVED: Final = (INCOMING, MARKER, TRASH, OWN)
"""What is no object of the store, and in no listing."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def split_key(key: str) -> tuple[str, ...]:
    """Return the names of an object's key.

    Raises InvalidInput when it is not a plain path below the store, is reserved, or is a member's.
    """
    names = _plain_names(key)
    if names[0] in RESERVED or names[0].startswith(IDENTITY) or split_member(key) is not None:
        raise _refused(key)
    return names


def trash_name(bin: str, key: str) -> str:  # noqa: A002
    """Return where an object lies in a bin of the trash.

    >>> trash_name("plan_1", "2-BM/lee/scan.h5")
    '.trash/plan_1/2-BM/lee/scan.h5'
    """
    if len(_plain_names(bin)) != 1:
        raise _refused(bin)
    return "/".join((TRASH, bin, *split_key(key)))


def split_trashed(trashed: str) -> tuple[str, ...]:
    """Return the names of an object in the trash; InvalidInput when the name is of anything else."""
    names = _plain_names(trashed)
    if len(names) < 3 or names[0] != TRASH:
        raise _refused(trashed)
    return names


def split_record(name: str) -> tuple[str, ...]:
    """Return the names of a record, below the folder of records."""
    return _plain_names(name)


def _plain_names(path: str) -> tuple[str, ...]:
    names = tuple(path.split("/"))
    if any(name in ("", ".", "..") or "\0" in name for name in names):
        raise _refused(path)
    return names


def _refused(path: str) -> InvalidInput:
    return InvalidInput(f"not a key of a store: {path!r}", remedy="use a relative path without . and ..")


def storage_error(error: OSError, what: str) -> StorageError:
    """Return what an operating system's error on the store's side means."""
    if error.errno in _FULL:
        return StoreFull(
            f"{what}: {error.strerror}", remedy="free space (bytes, inodes or quota) on the store, then repeat"
        )
    return StorageError(
        f"{what}: {error.strerror or error}", remedy="check the store's filesystem and permissions, then repeat"
    )
