"""The records of a POSIX store: small documents in `.lightkeep/records/`, beside the objects."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from lightkeep.model.errors import NotFound
from lightkeep.storage.folders import Folders, walk
from lightkeep.storage.keys import OWN, RECORDS
from lightkeep.storage.readback import write_all

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW: Final = "record.new"
_RECORDS: Final = RECORDS.split("/")[1]
Names = tuple[str, ...]


def open_own(root: int) -> int:
    """Return a descriptor of `.lightkeep`, made when absent. Raises OSError."""
    with suppress(FileExistsError):
        os.mkdir(OWN, 0o700, dir_fd=root)
        os.fsync(root)
    return os.open(OWN, _FOLDER, dir_fd=root)


def write_record(own: int, names: Names, content: bytes) -> None:
    """Write a record or replace it, under the lock of its folder, which the caller holds. Raises OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(_NEW, flags, 0o600, dir_fd=own)
    try:
        write_all(descriptor, memoryview(content))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    with Folders(own) as folders:
        path = (_RECORDS, *names)
        folder = folders.open(path[:-1], make=True)
        os.rename(_NEW, path[-1], src_dir_fd=own, dst_dir_fd=folder)
        folders.note_change(path[:-1])
        for changed in folders.changed.values():
            os.fsync(changed)


def read_record(root: int, names: Names) -> bytes:
    """Return a record's content. Raises NotFound or OSError."""
    with Folders(root) as folders:
        path = (OWN, _RECORDS, *names)
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(path[-1], flags, dir_fd=folders.open(path[:-1]))
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                raise NotFound(f"no record {'/'.join(names)!r}") from error
            raise
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise NotFound(f"no record {'/'.join(names)!r}")
            return file.read()


def records(root: int, prefix: str) -> Iterator[str]:
    """Names of the records that begin with prefix, in order."""
    for each in walk(root, RECORDS + prefix):
        yield each.key.removeprefix(RECORDS)
