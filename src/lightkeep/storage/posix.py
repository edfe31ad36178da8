"""A folder on a local or mounted filesystem, as a store.

    <location>/
      .lightkeep-store.json   who this store is; read from the medium at each check
      .incoming/              mode 0700; locked by the one writer
        group-0/ group-1/     the parts of a group being written: left behind, it says that work was interrupted
      .versions/<sha256>/     content whose own name was taken by other content
      .trash/<bin>/<key>      mode 0700; objects on their way out (posix_trash)
      .lightkeep/records/     mode 0700; small documents about what the store holds (posix_records)
      <key>                   everything else: published objects, written once

What a published object went through, each line done for the whole group before the next begins:
parts written and hashed; `syncfs`; every part read back past the cache; renamed without replacing;
the folders' names synced. A kill before the rename leaves parts that the next writer clears; after it, whole
objects that the next writer makes durable and adopts. docs/decisions/0003 has the measurements.

A store that is not managed (a station's own disk, registered in place) is never written, not even a marker:
its identity is its filesystem's id and the folder's inode number, or a marker that somebody else put there.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from lightkeep.model.clock import Ids
from lightkeep.model.errors import Conflict, NotFound, StorageError, StoreUnavailable
from lightkeep.model.stores import ObjectStat, Staging, StoreRecord, Tier, Verified, split_member
from lightkeep.storage import posix_records, posix_trash
from lightkeep.storage.calls import machine
from lightkeep.storage.folders import Folders, walk
from lightkeep.storage.keys import (
    INCOMING,
    MARKER,
    RESERVED,
    TRASH,
    split_key,
    split_record,
    split_trashed,
    storage_error,
    trash_name,
)
from lightkeep.storage.members import DirectFile, open_member, verify_member
from lightkeep.storage.plain import read_files
from lightkeep.storage.posix_answer import Asker
from lightkeep.storage.posix_staging import PosixStaging
from lightkeep.storage.readback import BIG, buffer_for, read_back

_POLL_S: Final = 0.02
_RECORD_S: Final = 30.0
"""Longest wait for another process that writes a record: a large one takes a second."""


class PosixStore:
    """A folder as a store; obeys `lightkeep.model.stores.Store`.

    Parameters
    ----------
    record: what the catalogue knows; `location` is the absolute folder.
    threads: how many files are read back at once; 2 gain most of what there is to gain (latency, not compute).
    big: size in bytes from which a part is written past the cache, with a thread to read and hash.
    """

    def __init__(self, record: StoreRecord, *, threads: int = 2, big: int = BIG) -> None:
        self.record = record
        self.threads = threads
        self.big = big
        self._seen: tuple[int, ...] = ()
        """Filesystem and folder whose marker was found right."""
        self._asker = Asker(record.location)
        self._is_silent = False

    @classmethod
    def initialise(
        cls,
        location: Path | str,
        id: str,  # noqa: A002
        *,
        ids: Ids,
        is_managed: bool = True,
        tier: Tier = Tier.HOT,
        failure_domain: str = "",
    ) -> StoreRecord:
        """Make a folder into a store and return its record; a folder that is one already keeps its identity.

        With `is_managed=False` nothing is written: the folder must exist, and is identified as it is. A failure
        domain that is not named is the folder's filesystem: two stores on one disk fail together.
        Raises Conflict when the folder holds other things, StorageError when it cannot be made.
        """
        location = Path(location).absolute()
        try:
            uuid = _mark(location, ids) if is_managed else _identity(location)
        except OSError as error:
            raise storage_error(error, f"cannot make a store of {location}") from error
        return StoreRecord(
            id=id,
            kind="posix",
            location=str(location),
            uuid=uuid,
            tier=tier,
            failure_domain=failure_domain or filesystem_domain(location),
            is_managed=is_managed,
        )

    def answers(self, *, within_s: float) -> bool:
        """Return whether the medium answers within so many seconds; ask before work that nobody watches.

        While it does not, every use raises StoreUnavailable at once, in place of a wait without an end.
        """
        self._is_silent = not self._asker.answers(within_s=within_s)
        return not self._is_silent

    def check_identity(self) -> None:
        """Raise StoreUnavailable unless the medium itself says that it is this store."""
        with self.root():
            pass

    @contextmanager
    def root(self, *, again: bool = True) -> Iterator[int]:
        """The open folder of the store, its identity checked through this very descriptor.

        Parameters
        ----------
        again: False where a folder of the same filesystem, in the same place as when its marker was last read,
            will do: reading the marker from the medium costs more than a small file.
        """
        location = self.record.location
        remedy = f"mount the filesystem of store {self.record.id} at {location}, or correct its location"
        if self._is_silent:
            raise StoreUnavailable(
                f"store {self.record.id} gives no answer: {location} hangs",
                remedy="look whether the server of that mount runs; the next upkeep asks again",
            )
        try:
            root = os.open(location, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise StoreUnavailable(
                f"store {self.record.id} is not there: {location}: {error.strerror}", remedy=remedy
            ) from error
        try:
            try:
                here = (os.fstatvfs(root).f_fsid, *_place(root))
                is_known = not again and here == self._seen
                found = self.record.uuid if is_known else self._identity_of(root)
            except OSError as error:
                raise StoreUnavailable(
                    f"store {self.record.id} does not say who it is: {location}: {error.strerror}", remedy=remedy
                ) from error
            if not found:
                raise StoreUnavailable(f"{location} carries no store marker: an empty mount point?", remedy=remedy)
            if found != self.record.uuid:
                raise StoreUnavailable(
                    f"{location} is another store ({found}), not {self.record.id} ({self.record.uuid})",
                    remedy=remedy,
                )
            self._seen = here
            yield root
        finally:
            os.close(root)

    def _identity_of(self, root: int) -> str:
        return _read_marker(root) or ("" if self.record.is_managed else _filesystem_identity(root))

    def stage(self, *, wait_s: float = 0.0) -> Staging:
        """Open a group of parts, holding the store's lock; see the protocol."""
        with self._writable() as root:
            try:
                incoming = os.open(
                    INCOMING, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root
                )
            except OSError as error:
                raise storage_error(error, f"store {self.record.id} has no {INCOMING}") from error
            own_root = os.dup(root)
            try:
                self._lock(incoming, wait_s)
                return PosixStaging(self.record.id, own_root, incoming, threads=self.threads, big=self.big)
            except BaseException:
                os.close(own_root)
                os.close(incoming)
                raise

    def _lock(self, incoming: int, wait_s: float) -> None:
        until = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(incoming, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    raise Conflict(
                        f"store {self.record.id} is being written by another process",
                        remedy="wait until it is done, then try again",
                    ) from error
            time.sleep(_POLL_S)

    @contextmanager
    def _writable(self) -> Iterator[int]:
        """The open folder of a store that Lightkeep may write to."""
        if not self.record.is_managed:
            raise StorageError(
                f"store {self.record.id} is registered in place: Lightkeep never writes there",
                remedy="name a managed store",
            )
        with self.root() as root:
            yield root

    def open(self, key: str) -> BinaryIO:
        """Open an object for reading; see the protocol."""
        if member := split_member(key):
            with self._object(member[0]) as descriptor:
                return open_member(os.fdopen(os.dup(descriptor), "rb", 0), key)
        with self._object(key) as descriptor:
            return os.fdopen(os.dup(descriptor), "rb")

    def read_many(
        self, keys: Sequence[str], sizes: Sequence[int], *, into: bytearray, at: Sequence[int]
    ) -> list[str]:
        """Read many small objects; see the protocol."""
        loop, found = machine(), [""] * len(keys)
        if loop is None:
            return found
        by_folder: dict[tuple[str, ...], list[int]] = {}
        for number, key in enumerate(keys):
            if split_member(key) is None:
                by_folder.setdefault(split_key(key)[:-1], []).append(number)
        with self.root(again=False) as root, Folders(root) as folders:
            for names, numbers in by_folder.items():
                try:
                    folder = folders.open(names)
                except OSError:  # said by `open`, file by file
                    continue
                last = [split_key(keys[n])[-1] for n in numbers]
                places = [at[n] for n in numbers]
                hashes = read_files(loop, last, [sizes[n] for n in numbers], folder=folder, into=into, at=places)
                for number, sha256 in zip(numbers, hashes, strict=True):
                    found[number] = sha256
        return found

    def stat(self, key: str) -> ObjectStat:
        """Size and time of an object; see the protocol."""
        if member := split_member(key):
            with self.open(key):
                return ObjectStat(key, member[2], self.stat(member[0]).mtime_ns)
        with self._object(key) as descriptor:
            status = os.fstat(descriptor)
            return ObjectStat(key, status.st_size, status.st_mtime_ns)

    def verify(self, key: str) -> Verified:
        """Read a whole object past the cache and hash it; see the protocol."""
        if member := split_member(key):
            with self._object(member[0]) as descriptor, self._errors(key):
                return verify_member(DirectFile(descriptor), key)
        names = split_key(key)
        with self.root(again=False) as root, Folders(root) as folders, self._errors(key):
            folder = folders.open(names[:-1])
            status = os.stat(names[-1], dir_fd=folder, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                raise self._absent(key)
            return read_back(names[-1], folder=folder, buffer=buffer_for(status.st_size))

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        """Every published object below a prefix, in the order of keys; see the protocol."""
        with self.root() as root:
            yield from walk(root, prefix, hidden=RESERVED)

    def free_bytes(self) -> int | None:
        """Bytes that an ordinary user may still write."""
        with self.root() as root:
            status = os.fstatvfs(root)
            return status.f_bavail * status.f_frsize

    def trash(self, key: str, *, bin: str, size: int) -> str:  # noqa: A002
        """Move an object into the trash; see the protocol."""
        names, target = split_key(key), trash_name(bin, key)
        with self._writable() as root, self._writing(f"cannot move {key!r} to the trash"):
            posix_trash.trash(root, names, split_trashed(target), size=size)
        return target

    def recover(self, trashed: str, key: str) -> None:
        """Move an object back to its key; see the protocol."""
        source, names = split_trashed(trashed), split_key(key)
        with self._writable() as root, self._writing(f"cannot move {trashed!r} back"):
            posix_trash.recover(root, source, names)

    def destroy(self, trashed: str) -> None:
        """Remove an object of the trash; see the protocol."""
        names = split_trashed(trashed)
        with self._writable() as root, self._writing(f"cannot destroy {trashed!r}"):
            posix_trash.destroy(root, names)

    def trashed(self, bin: str = "") -> Iterator[ObjectStat]:  # noqa: A002
        """Every object in the trash; see the protocol."""
        with self.root() as root:
            yield from walk(root, f"{TRASH}/{bin}/" if bin else f"{TRASH}/")

    def write_record(self, name: str, content: bytes) -> None:
        """Keep a small document; see the protocol."""
        names = split_record(name)
        with self._writable() as root, self._writing(f"cannot write record {name!r}"):
            own = posix_records.open_own(root)
            try:
                self._lock(own, _RECORD_S)
                posix_records.write_record(own, names, content)
            finally:
                os.close(own)

    def read_record(self, name: str) -> bytes:
        """Return a record; see the protocol."""
        names = split_record(name)
        with self.root() as root, self._writing(f"cannot read record {name!r}"):
            return posix_records.read_record(root, names)

    def records(self, prefix: str = "") -> Iterator[str]:
        """Names of records; see the protocol."""
        with self.root() as root:
            yield from posix_records.records(root, prefix)

    @contextmanager
    def _writing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage_error(error, f"{what} (store {self.record.id})") from error

    @contextmanager
    def _object(self, key: str) -> Iterator[int]:
        names = split_key(key)
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with self.root(again=False) as root, Folders(root) as folders:
            with self._errors(key):
                descriptor = os.open(names[-1], flags, dir_fd=folders.open(names[:-1]))
            try:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    raise self._absent(key)
                yield descriptor
            finally:
                os.close(descriptor)

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR):
                raise self._absent(key) from error
            raise storage_error(error, f"cannot read {key!r} on store {self.record.id}") from error

    def _absent(self, key: str) -> NotFound:
        self.check_identity()
        return NotFound(f"no object {key!r} on store {self.record.id}", remedy="run `lightkeep doctor`")


def filesystem_domain(location: Path | str) -> str:
    """Return what fails together with a folder when nobody says it: its filesystem. Raises StorageError."""
    try:
        return f"fs-{os.statvfs(location).f_fsid:x}"
    except OSError as error:
        raise storage_error(error, f"cannot look at {location}") from error


def _mark(location: Path, ids: Ids) -> str:
    location.mkdir(parents=True, exist_ok=True)
    root = os.open(location, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if uuid := _read_marker(root):
            return uuid
        others = [name for name in os.listdir(root) if name not in (INCOMING, MARKER + ".new", "lost+found")]
        if others:
            raise Conflict(
                f"{location} is not empty: it holds {others[0]!r}",
                remedy="name an empty folder, or register the files where they are with --in-place",
            )
        if INCOMING not in os.listdir(root):
            os.mkdir(INCOMING, 0o700, dir_fd=root)
        uuid = ids.new("store")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(MARKER + ".new", flags, 0o644, dir_fd=root), "w") as file:
            json.dump({"lightkeep_store": 1, "uuid": uuid}, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(MARKER + ".new", MARKER, src_dir_fd=root, dst_dir_fd=root)
        os.fsync(root)
    finally:
        os.close(root)
    return uuid


def _identity(location: Path) -> str:
    root = os.open(location, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _read_marker(root) or _filesystem_identity(root)
    finally:
        os.close(root)


def _filesystem_identity(root: int) -> str:
    return f"fs-{os.fstatvfs(root).f_fsid:x}-{os.fstat(root).st_ino:x}"


def _place(root: int) -> tuple[int, int]:
    status = os.fstat(root)
    return status.st_dev, status.st_ino


def _read_marker(root: int) -> str:
    """Return the uuid in the marker, read from the medium where the filesystem lets us; "" without one."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(MARKER, flags, dir_fd=root)
    except FileNotFoundError:
        return ""
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        content = os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
    try:
        return str(json.loads(content)["uuid"])
    except (ValueError, KeyError, TypeError):
        return "unreadable marker"
