"""Open a folder below a root one name at a time, so that no symlink can lead outside."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from lightkeep.model.stores import ObjectStat

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KEPT: Final = 64  # folders kept open; a group's files share few


class Folders:
    """Descriptors of the folders below a root, opened with O_NOFOLLOW name by name and kept for the next use.

    For one thread. Paths may be longer than PATH_MAX: no call sees more than one name.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._open: dict[tuple[str, ...], int] = {}
        self.changed: dict[tuple[str, ...], int] = {}
        """Folders that got a new name since the last `forget_changes`: these wait for their fsync."""

    def open(self, names: tuple[str, ...], *, make: bool = False) -> int:
        """Return a descriptor of a folder, valid until the next call; with `make`, it is made when absent.

        Raises OSError: FileNotFoundError, NotADirectoryError (also for a symlink), PermissionError ...
        """
        known = len(names)
        while known and names[:known] not in self._open:
            known -= 1
        folder = self._open[names[:known]] if known else self._root
        for depth in range(known + 1, len(names) + 1):
            folder = self._child(names[:depth], folder, make)
        return folder

    def _child(self, names: tuple[str, ...], parent: int, make: bool) -> int:
        try:
            folder = os.open(names[-1], _FOLDER, dir_fd=parent)
        except FileNotFoundError:
            if not make:
                raise
            os.mkdir(names[-1], dir_fd=parent)
            self.changed[names[:-1]] = parent
            folder = os.open(names[-1], _FOLDER, dir_fd=parent)
        if len(self._open) >= _KEPT:
            self._drop_oldest()
        self._open[names] = folder
        return folder

    def _drop_oldest(self) -> None:
        for names in self._open:
            if names not in self.changed:
                os.close(self._open.pop(names))
                return

    def note_change(self, names: tuple[str, ...]) -> None:
        """Remember that a folder got a new name; it stays open until `forget_changes`."""
        self.changed[names] = self._open[names] if names else self._root

    def forget_changes(self) -> None:
        """Call it when the changes are durable."""
        self.changed.clear()

    def close(self) -> None:
        """Close all but the root."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __enter__(self) -> Folders:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def read_names(folder: int) -> list[os.DirEntry[str]]:
    """Return the entries of an open folder in the order of keys: bytes, a folder's name ending in a slash."""
    with os.scandir(folder) as entries:
        return sorted(
            entries, key=lambda entry: os.fsencode(entry.name + "/" * entry.is_dir(follow_symlinks=False))
        )


def walk(root: int, prefix: str, *, hidden: tuple[str, ...] = ()) -> Iterator[ObjectStat]:
    """Every regular file below a root whose path begins with prefix, in the order of keys.

    Parameters
    ----------
    hidden: names in the root itself that are passed over.
    """
    with Folders(root) as folders:
        waiting = [(entry, "") for entry in reversed(read_names(root)) if entry.name not in hidden]
        while waiting:
            entry, path = waiting.pop()
            key = path + entry.name
            if entry.is_file(follow_symlinks=False) and key.startswith(prefix):
                folder = folders.open(tuple(path.split("/")[:-1]))
                status = os.stat(entry.name, dir_fd=folder, follow_symlinks=False)
                yield ObjectStat(key, status.st_size, status.st_mtime_ns)
            elif entry.is_dir(follow_symlinks=False) and (
                f"{key}/".startswith(prefix) or prefix.startswith(f"{key}/")
            ):
                names = read_names(folders.open(tuple(key.split("/"))))
                waiting.extend((child, f"{key}/") for child in reversed(names))


@contextmanager
def writable(folder: int) -> Iterator[None]:
    """Give the owner of an open folder the permission to write for the time of the block."""
    mode = stat.S_IMODE(os.fstat(folder).st_mode)
    if mode & stat.S_IWUSR:
        yield
        return
    os.fchmod(folder, mode | stat.S_IWUSR)
    try:
        yield
    finally:
        os.fchmod(folder, mode)
