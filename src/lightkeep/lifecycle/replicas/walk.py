"""What lies under a source: regular files with the key that tells whether they changed, and what is not kept.

Nothing is followed, opened or changed. Names are bytes, kept as `os.fsdecode` gives them.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from lightkeep.model.errors import SourceError
from lightkeep.storage.folders import Folders

_OPEN: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_BLOCK: Final = 1 << 20
_KINDS: Final = (
    (stat.S_ISFIFO, "fifo", "a named pipe has no content to keep"),
    (stat.S_ISSOCK, "socket", "a socket has no content to keep"),
    (stat.S_ISBLK, "device", "a device is not a file's content"),
    (stat.S_ISCHR, "device", "a device is not a file's content"),
)


class Key(NamedTuple):
    """What must be equal for a file to count as unchanged (invariant I2)."""

    path: str
    """Below the source's root, with `/`; as `os.fsdecode` gives it."""
    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    """Changes with the content even where somebody sets the modification time back."""


@dataclass(frozen=True, slots=True)
class Found:
    """One regular file."""

    key: Key
    mode: int
    """Permission bits."""


@dataclass(frozen=True, slots=True)
class Other:
    """A name that is recorded, not kept (invariant I4)."""

    path: str
    kind: str
    reason: str
    target: str = ""


@dataclass(frozen=True)
class Walk:
    """Everything under a source, folder by folder, in the order of names."""

    files: tuple[Found, ...]
    others: tuple[Other, ...]


class SourceTree:
    """A source file or folder, opened once: what replaces a folder on the way is not followed.

    Use as a context manager. Raises SourceError when the source is missing or unreadable, naming it.

    Parameters
    ----------
    source: a regular file, or a folder. A symlink named by the user is followed, those below are not.
    only: of a folder, only these paths below it; everything when None.
    """

    def __init__(self, source: Path, *, only: Collection[str] | None = None) -> None:
        self.source = source
        self._only = only
        self.path = Path(os.path.realpath(source))
        self.flags = _OPEN | os.O_NOATIME
        """To open what is in it with."""
        with self._errors(str(source)):
            self.is_file = not stat.S_ISDIR(os.stat(self.path).st_mode)
            self.root = self.path.parent if self.is_file else self.path
            self.descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> SourceTree:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self.descriptor)

    def walk(self, known: Mapping[str, Key] = MappingProxyType({})) -> Walk:
        """Look at every name under the source; an unreadable folder raises SourceError.

        Parameters
        ----------
        known: path -> key; an equal key is not kept a second time.
        """
        if self._only is not None:
            return self._walk_only(sorted(self._only))
        files: list[Found] = []
        others: list[Other] = []
        with Folders(self.descriptor) as folders:
            waiting = [""]
            while waiting:
                path = waiting.pop()
                below: list[str] = []
                with self._errors(path):
                    folder = folders.open(parts(path.rstrip("/")))
                    for name in self._names(folder):
                        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                        if stat.S_ISREG(status.st_mode):
                            key = key_of(path + name, status)
                            old = known.get(key.path, key)
                            files.append(Found(old if old == key else key, stat.S_IMODE(status.st_mode)))
                        elif stat.S_ISDIR(status.st_mode):
                            below.append(f"{path}{name}/")
                        else:
                            others.append(_other(path + name, status, folder))
                waiting.extend(reversed(below))
        return Walk(tuple(files), tuple(others))

    def _walk_only(self, paths: Sequence[str]) -> Walk:
        """Look at the files named; what is not a regular file any more is left out."""
        files: list[Found] = []
        with Folders(self.descriptor) as folders:
            for path in paths:
                *above, name = parts(path)
                try:
                    status = os.stat(name, dir_fd=folders.open(tuple(above)), follow_symlinks=False)
                except (FileNotFoundError, NotADirectoryError):
                    continue
                if stat.S_ISREG(status.st_mode):
                    files.append(Found(key_of(path, status), stat.S_IMODE(status.st_mode)))
        return Walk(tuple(files), ())

    def _names(self, folder: int) -> list[str]:
        return [self.path.name] if self.is_file else sorted(os.listdir(folder))

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise SourceError(
                f"cannot read {self._shown(path)}: permission denied",
                remedy="make it readable for the account that ingests, or leave it out, then ingest again",
            ) from error
        except OSError as error:
            raise SourceError(
                f"cannot read {self._shown(path)}: {error.strerror or error}", remedy="check the path and its disk"
            ) from error

    def _shown(self, path: str) -> str:
        return os.fsencode(os.path.join(self.source, path.rstrip("/"))).decode(errors="backslashreplace")


class SourceReader:
    """Opens the files of a source one after the other; one per thread. Use as a context manager."""

    def __init__(self, tree: SourceTree) -> None:
        self._tree = tree
        self._folders = Folders(tree.descriptor)

    def __enter__(self) -> SourceReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self._folders.close()

    def open(self, key: Key) -> OpenSource:
        """Open one file, to be closed before the next. Raises OSError."""
        name, folder = parts(key.path)[-1], self.folder(key)
        return OpenSource(self._descriptor(name, folder), name, folder, key)

    def folder(self, key: Key) -> int:
        """Return a descriptor of the folder of a file, valid until the next call. Raises OSError."""
        return self._folders.open(parts(key.path)[:-1])

    def sha256(self, key: Key) -> str:
        """Return the hash of a file's content; "" when it is not what the key says. Raises OSError."""
        with self.open(key) as source:
            digest = hashlib.sha256()
            buffer = memoryview(bytearray(_BLOCK))
            while count := source.readinto(buffer):
                digest.update(buffer[:count])
            return digest.hexdigest() if source.is_unchanged() else ""

    def _descriptor(self, name: str, folder: int) -> int:
        try:
            return os.open(name, self._tree.flags, dir_fd=folder)
        except PermissionError:  # leaving the access time alone is for the owner only
            if not self._tree.flags & os.O_NOATIME:
                raise
            self._tree.flags = _OPEN
            return os.open(name, _OPEN, dir_fd=folder)


class OpenSource:
    """One source file while it is read; a `lightkeep.model.stores.Readable`. Use as a context manager."""

    __slots__ = ("descriptor", "folder", "key", "name")

    def __init__(self, descriptor: int, name: str, folder: int, key: Key) -> None:
        self.descriptor = descriptor
        self.name = name
        self.folder = folder
        self.key = key

    def __enter__(self) -> OpenSource:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self.descriptor)

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer; 0 at the end."""
        return os.readv(self.descriptor, [buffer])

    def is_unchanged(self) -> bool:
        """True while both the open file and its name still are what the key says (invariant I2)."""
        try:
            named = os.stat(self.name, dir_fd=self.folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return is_same(self.key, os.fstat(self.descriptor)) and is_same(self.key, named)


def parts(path: str) -> tuple[str, ...]:
    """Return the names of a relative path; () for the empty one."""
    return tuple(path.split("/")) if path else ()


def key_of(path: str, status: os.stat_result) -> Key:
    """Return the key of a file from its status."""
    return Key(path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def is_same(key: Key, status: os.stat_result) -> bool:
    """True when a status is the one of the key."""
    return (
        status.st_ctime_ns == key.ctime_ns
        and status.st_mtime_ns == key.mtime_ns
        and status.st_size == key.size
        and status.st_ino == key.ino
        and status.st_dev == key.dev
    )


def _other(path: str, status: os.stat_result, folder: int) -> Other:
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(parts(path)[-1], dir_fd=folder)
        return Other(path, "symlink", "a symlink is recorded, never followed", target)
    for is_kind, kind, reason in _KINDS:
        if is_kind(status.st_mode):
            return Other(path, kind, reason)
    return Other(path, "device", "not a regular file")
