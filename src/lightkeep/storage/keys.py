"""Names of objects on a store, and what the operating system's errors on the store's side mean."""

from __future__ import annotations

import errno
from typing import Final

from lightkeep.model.errors import InvalidInput, StorageError, StoreFull

MARKER: Final = ".lightkeep-store.json"
INCOMING: Final = ".incoming"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def split_key(key: str) -> tuple[str, ...]:
    """Return the names of a key; InvalidInput when it is not a plain path below the store, or is reserved."""
    names = tuple(key.split("/"))
    if any(name in ("", ".", "..") or "\0" in name for name in names) or names[0] in (INCOMING, MARKER):
        raise InvalidInput(f"not a key of a store: {key!r}", remedy="use a relative path without . and ..")
    return names


def storage_error(error: OSError, what: str) -> StorageError:
    """Return what an operating system's error on the store's side means."""
    if error.errno in _FULL:
        return StoreFull(
            f"{what}: {error.strerror}", remedy="free space (bytes, inodes or quota) on the store, then repeat"
        )
    return StorageError(
        f"{what}: {error.strerror or error}", remedy="check the store's filesystem and permissions, then repeat"
    )
