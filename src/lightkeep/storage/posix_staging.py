"""The group of parts of a POSIX store, from the first byte written to the last name made durable."""

from __future__ import annotations

import itertools
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from lightkeep.model.errors import Conflict, Corrupt, SourceError, StorageError
from lightkeep.model.stores import Proof, Readable, Replicated, Seen, Verified, version_key
from lightkeep.storage.calls import machine
from lightkeep.storage.folders import Folders
from lightkeep.storage.keys import split_key, storage_error
from lightkeep.storage.plain import MANY, MANY_BYTES, MOST, WAITING, Memory, Plain
from lightkeep.storage.readback import BLOCK, aligned_buffer, copy_big, copy_small, read_back
from lightkeep.storage.syscalls import rename_new, sync_filesystem
from lightkeep.storage.threads import batches, share

_GROUP: Final = "group-"
_PART: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FEW: Final = 2  # folders synced one by one; more are cheaper, and bounded, by one syncfs


@dataclass(slots=True)
class _Part:
    name: str
    key: str
    sha256: str
    size: int
    proof: Proof = Proof.UNPROVEN


class PosixStaging:
    """Obeys `lightkeep.model.stores.Staging`; made by `PosixStore.stage` only.

    open -> synced -> verified -> published; any error of the store's side -> failed.
    """

    def __init__(
        self, store_id: str, root: int, incoming: int, *, threads: int, big: int, number: int = 0
    ) -> None:
        self._store_id = store_id
        self._root = root
        self._incoming = incoming
        self._number = number
        self._threads = threads
        self._big_size = big
        self._state = "open"
        self._parts: dict[str, _Part] = {}
        self._big: dict[str, int] = {}
        """Parts written with O_DIRECT, by key, still open: they are synced one by one."""
        self._numbers = itertools.count()
        self._local = threading.local()
        self._name = f"{_GROUP}{number}"
        self._group = self._begin()
        self._plain: Plain | None = None
        """Set when the group takes many files at once."""

    def _begin(self) -> int:
        """Clear what an interrupted writer left, and make what it published durable: it may be adopted."""
        with self._store_errors("cannot begin to write"):
            if self._number == 0 and _clear_left(self._incoming):
                sync_filesystem(self._incoming)
            os.mkdir(self._name, 0o700, dir_fd=self._incoming)
            # Opened before anything is written: an error of writing back is reported to this descriptor.
            return os.open(self._name, _FOLDER, dir_fd=self._incoming)

    def beside(self) -> PosixStaging:
        """Open the writer's next group; see the protocol."""
        root, incoming = os.dup(self._root), os.dup(self._incoming)  # a copy holds the lock too
        try:
            return PosixStaging(
                self._store_id, root, incoming, threads=self._threads, big=self._big_size, number=self._number + 1
            )
        except BaseException:
            os.close(root)
            os.close(incoming)
            raise

    def __enter__(self) -> PosixStaging:
        return self

    def __exit__(self, *exc: object) -> None:
        """Discard what has no final name, and give the store free.

        After a failed publish the group's folder stays: it tells the next writer that names may not be durable.
        """
        try:
            for descriptor in self._big.values():
                os.close(descriptor)
            os.close(self._group)
            if self._state not in ("publishing", "published", "closed"):
                with self._store_errors("cannot clear the parts"):
                    _clear(self._incoming, self._name)
        finally:
            self._state = "closed"
            os.close(self._root)
            os.close(self._incoming)  # the lock goes with the last group's

    def write(self, key: str, source: Readable, *, size: int | None) -> Verified:
        """Write one part; see the protocol."""
        self._expect("open")
        split_key(key)
        part = _Part(str(next(self._numbers)), key, "", 0)
        if self._parts.setdefault(key, part) is not part:
            raise Conflict(f"the group has a part {key!r} already")
        try:
            part.sha256, part.size = self._copy(part, source, size)
            if size is not None and part.size != size:
                raise SourceError(
                    f"the source of {key!r} gave {part.size} bytes, not the {size} announced",
                    remedy="wait until the file is written, then ingest it again",
                )
        except OSError as error:
            self.discard(key)
            raise storage_error(error, f"cannot write {key!r} (store {self._store_id})") from error
        except BaseException:
            self.discard(key)
            raise
        return Verified(part.sha256, part.size, Proof.UNPROVEN)

    def write_files(
        self, keys: Sequence[str], names: Sequence[str], seen: Sequence[Seen], *, folder: int, flags: int
    ) -> list[bool]:
        """Write parts from plain files of one folder; see the protocol."""
        self._expect("open")
        if self._plain is None:
            loop = machine()
            if loop is None:
                return [False] * len(keys)
            self._plain = Plain(loop, self._group)
        for key in keys:
            split_key(key)
            if key in self._parts:
                raise Conflict(f"the group has a part {key!r} already")
        parts = [str(next(self._numbers)) for _ in keys]
        with self._store_errors("cannot write plain files"):
            hashes = self._plain.copy(names, seen, parts, folder=folder, flags=flags, memory=self._memory())
        for key, part, sha256, was in zip(keys, parts, hashes, seen, strict=True):
            if sha256:
                self._parts[key] = _Part(part, key, sha256, was.size)
        return [bool(sha256) for sha256 in hashes]

    def _copy(self, part: _Part, source: Readable, size: int | None) -> tuple[str, int]:
        descriptor = os.open(part.name, _PART, 0o644, dir_fd=self._group)
        if size is None or size > self._big_size:
            self._big[part.key] = descriptor
            return copy_big(source, descriptor)
        try:
            return copy_small(source, descriptor, buffer=self._buffer(), most=size)
        finally:
            os.close(descriptor)

    def discard(self, key: str) -> None:
        """Drop one part; see the protocol."""
        self._expect("open")
        part = self._parts.pop(key)
        if key in self._big:
            os.close(self._big.pop(key))
        with self._store_errors(f"cannot discard {key!r}"):
            _unlink(part.name, self._group)

    def sync(self) -> None:
        """Make every part durable; see the protocol."""
        self._expect("open")
        with self._store_errors("the store could not make the group durable"):
            for descriptor in self._big.values():
                os.fsync(descriptor)
            if len(self._big) < len(self._parts):
                sync_filesystem(self._group)
        self._state = "synced"

    def verify(self) -> None:
        """Read every part back; see the protocol."""
        self._expect("synced")
        with self._store_errors("the store could not read the group back"):
            parts = self._parts.values()
            most, threads = 1, self._threads
            if self._plain is not None:
                most, threads = MANY, threads if threads == 1 else threads * WAITING
            jobs = list(batches(parts, lambda part: part.size, most=most, total=MANY_BYTES))
            share(jobs, self._verify_parts, threads=threads)
        self._state = "verified"

    def _verify_parts(self, jobs: Iterator[Sequence[_Part]]) -> None:
        for parts in jobs:
            for part in self._verify_plain(parts):
                found = read_back(part.name, folder=self._group, buffer=self._buffer())
                self._compare(part, found)

    def _verify_plain(self, parts: Sequence[_Part]) -> Sequence[_Part]:
        """Read the plain ones back; return those that could not be read in this way."""
        if self._plain is None:
            return parts
        plain = [part for part in parts if part.size <= MOST]
        hashes = self._plain.read_back([p.name for p in plain], [p.size for p in plain], memory=self._memory())
        for part, sha256 in zip(plain, hashes, strict=True):
            if sha256:
                self._compare(part, Verified(sha256, part.size, Proof.DIRECT))
        return [part for part in parts if part.proof is Proof.UNPROVEN]

    def _compare(self, part: _Part, found: Verified) -> None:
        if (found.sha256, found.size) != (part.sha256, part.size):
            raise Corrupt(
                f"{part.key!r} came back from store {self._store_id} as other bytes than were written "
                f"({found.size} of {part.size} bytes)",
                remedy="check the store's disk; nothing of this group was kept, the source is untouched",
            )
        part.proof = found.proof

    def publish(self) -> Sequence[Replicated]:
        """Give every part its final name; see the protocol."""
        self._expect("verified")
        self._state = "publishing"
        with (
            Folders(self._root) as folders,
            self._store_errors("the store could not publish the group", poison=False),
        ):
            results = [each for parts in self._by_folder() for each in self._publish_parts(parts, folders)]
            if len(folders.changed) <= _FEW:
                for folder in folders.changed.values():
                    os.fsync(folder)
            else:
                sync_filesystem(self._root)
            os.rmdir(self._name, dir_fd=self._incoming)
        self._state = "published"
        return results

    def _by_folder(self) -> Iterator[list[_Part]]:
        """Parts in the order they were written, those that follow each other into one folder together."""
        for _, parts in itertools.groupby(self._parts.values(), key=lambda part: part.key.rpartition("/")[0]):
            yield list(parts)

    def _publish_parts(self, parts: Sequence[_Part], folders: Folders) -> Iterator[Replicated]:
        """Publish parts that go into one folder: the plain ones at once, then those whose names were taken."""
        rest = parts
        if self._plain is not None:
            names = [split_key(part.key) for part in parts]
            with suppress(NotADirectoryError):  # the path leads through a file or a symlink
                folder = folders.open(names[0][:-1], make=True)
                named = self._plain.rename([p.name for p in parts], [each[-1] for each in names], folder=folder)
                if any(named):
                    folders.note_change(names[0][:-1])
                for part in itertools.compress(parts, named):
                    yield Replicated(part.key, part.sha256, part.size, part.proof, asked=part.key)
                rest = [part for part, is_named in zip(parts, named, strict=True) if not is_named]
        for part in rest:
            yield self._publish_part(part, folders)

    def _publish_part(self, part: _Part, folders: Folders) -> Replicated:
        for kind in ("own", "version"):
            key = part.key if kind == "own" else version_key(part.key, part.sha256)
            names = tuple(key.split("/"))
            try:
                folder = folders.open(names[:-1], make=True)
                rename_new(part.name, names[-1], source_folder=self._group, target_folder=folder)
            except FileExistsError:
                proof = self._standing(part, names, folders)
                if proof is not None:
                    os.unlink(part.name, dir_fd=self._group)
                    return Replicated(key, part.sha256, part.size, proof, was_adopted=True, asked=part.key)
            except NotADirectoryError:
                continue  # the path leads through a file or a symlink
            else:
                folders.note_change(names[:-1])
                return Replicated(key, part.sha256, part.size, part.proof, asked=part.key)
        raise Conflict(
            f"{part.key!r} and its version's name are taken by other content on store {self._store_id}",
            remedy="run `lightkeep doctor`; nothing was replaced",
        )

    def _standing(self, part: _Part, names: tuple[str, ...], folders: Folders) -> Proof | None:
        """Return how it was proved that the same content stands under a name already; None when it does not."""
        folder = folders.open(names[:-1])
        if not stat.S_ISREG(os.stat(names[-1], dir_fd=folder, follow_symlinks=False).st_mode):
            return None
        found = read_back(names[-1], folder=folder, buffer=self._buffer())
        return found.proof if (found.sha256, found.size) == (part.sha256, part.size) else None

    def _memory(self) -> Memory:
        """This thread's own memory for plain files."""
        if not hasattr(self._local, "memory"):
            self._local.memory = Memory()
        memory: Memory = self._local.memory
        return memory

    def _buffer(self) -> memoryview:
        """This thread's own buffer."""
        if not hasattr(self._local, "buffer"):
            self._local.buffer = aligned_buffer(BLOCK)
        buffer: memoryview = self._local.buffer
        return buffer

    def _expect(self, state: str) -> None:
        if self._state != state:
            raise StorageError(
                f"the group on store {self._store_id} is {self._state}, not {state}",
                remedy="nothing of it counts: copy the whole group again from its source",
            )

    @contextmanager
    def _store_errors(self, what: str, *, poison: bool = True) -> Iterator[None]:
        """Say what an error of the operating system means; afterwards the group can only be left."""
        try:
            yield
        except (OSError, Corrupt) as error:
            if poison:
                self._state = "failed"
            if isinstance(error, Corrupt):
                raise
            raise storage_error(error, f"{what} (store {self._store_id})") from error


def _clear_left(incoming: int) -> bool:
    """Remove the groups that an interrupted writer left; return whether there were any."""
    left = [name for name in os.listdir(incoming) if name.startswith(_GROUP)]
    for name in left:
        _clear(incoming, name)
    return bool(left)


def _clear(incoming: int, name: str) -> None:
    group = os.open(name, _FOLDER, dir_fd=incoming)
    try:
        for part in os.listdir(group):
            os.unlink(part, dir_fd=group)
    finally:
        os.close(group)
    os.rmdir(name, dir_fd=incoming)


def _unlink(name: str, folder: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)
