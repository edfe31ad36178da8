"""Raw data that are complete: their files and folders on a POSIX store lose the permission to write.

It keeps a script that runs as the store's own user from changing, adding or removing something by mistake. Who
wants to can give the permission back; that a byte changed all the same is what verification finds.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import Final

from lightkeep.storage.folders import Folders, read_names
from lightkeep.storage.keys import split_key, storage_error
from lightkeep.storage.posix import PosixStore

_WRITE: Final = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def protect(store: PosixStore, folder: str) -> int:
    """Take the write permission from every file and folder below a folder; return how many files are there.

    A folder that is not there holds none. Nothing is followed, and a store that is not managed is never touched.

    Raises
    ------
    StoreUnavailable: the store is not there. StorageError: it refuses.
    """
    return _change(store, folder, is_writable=False)


def unprotect(store: PosixStore, folder: str) -> int:
    """Let folders take new names again; their files stay without write permission: raw data are written once."""
    return _change(store, folder, is_writable=True)


def _change(store: PosixStore, folder: str, *, is_writable: bool) -> int:
    if not store.record.is_managed:
        return 0
    names = split_key(folder)
    with store.root() as root, Folders(root) as folders:
        try:
            folders.open(names)
            return _below(folders, names, is_writable=is_writable)
        except OSError as error:
            if error.errno in _ABSENT:
                return 0
            what = f"cannot change the permissions below {folder!r} on store {store.record.id}"
            raise storage_error(error, what) from error


def _below(folders: Folders, top: tuple[str, ...], *, is_writable: bool) -> int:
    files, waiting = 0, [top]
    while waiting:
        names = waiting.pop()
        entries = read_names(folders.open(names))
        waiting += [(*names, each.name) for each in entries if each.is_dir(follow_symlinks=False)]
        folder = folders.open(names)
        for each in entries:
            if each.is_file(follow_symlinks=False):
                files += 1
                if not is_writable:
                    _close_file(folder, each.name)
        mode = stat.S_IMODE(os.fstat(folder).st_mode)
        wanted = mode | stat.S_IWUSR if is_writable else mode & ~_WRITE
        if mode != wanted:
            os.fchmod(folder, wanted)
    return files


def _close_file(folder: int, name: str) -> None:
    descriptor = os.open(name, _FILE, dir_fd=folder)
    try:
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & _WRITE:
            os.fchmod(descriptor, mode & ~_WRITE)
    finally:
        os.close(descriptor)
