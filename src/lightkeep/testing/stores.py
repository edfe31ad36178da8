"""A store in memory that fails as real ones do, at the operation that a test chooses.

medium = Medium()
store = FaultyStore(medium)
medium.faults = [Fault("sync", EIO)]              # the first sync from here on
medium.faults = [Fault("rename", CRASH, when=3)]  # killed just before the third name
medium.cut_power()                                # what was not synced is lost
FaultyStore(medium)                               # the next process, on the same medium
"""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Final

from lightkeep.model.errors import Conflict, Corrupt, NotFound, SourceError, StorageError, StoreUnavailable
from lightkeep.model.stores import (
    ObjectStat,
    Proof,
    Readable,
    Replicated,
    StoreRecord,
    Verified,
    split_member,
    version_key,
)
from lightkeep.storage.keys import (
    RECORDS,
    RESERVED,
    TRASH,
    split_key,
    split_record,
    split_trashed,
    storage_error,
    trash_name,
)
from lightkeep.storage.members import open_member

ENOSPC: Final = "no space"
EIO: Final = "input/output error"
DROP: Final = "drop"
"""A write says that all went well and keeps nothing of the block."""
FLIP: Final = "flip"
"""One bit of the block is another one afterwards."""
CRASH: Final = "crash"
"""The process dies before the operation."""
POWER: Final = "power"
"""The machine loses power before the operation."""
_BLOCK: Final = 1 << 16


class Crashed(BaseException):
    """The process of the store's user was killed: nothing of it runs any more, also no clean-up."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong at the `when`-th operation of a name."""

    operation: str
    """`write`, `sync`, `read`, `rename`, `sync-names`, `unlink`; empty: any.

    A move to the trash or back is `rename`, `sync-names`; destroying is `unlink`, `sync-names`; a record is
    `write`, `sync`, `rename`, `sync-names`.
    """
    kind: str
    when: int = 1


@dataclass(slots=True)
class _Inode:
    now: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    """What a power cut leaves: nothing, before the first sync."""


class Medium:
    """A disk: names and contents, each as the running machine sees it and as a power cut would leave it."""

    def __init__(self, uuid: str = "store_in_memory", *, free: int = 1 << 30) -> None:
        self.uuid = uuid
        self.free = free
        """Bytes left."""
        self.faults: Sequence[Fault] = ()
        self.counts: Counter[str] = Counter()
        """Operations so far by name; "" counts all. Assign a new Counter to count afresh."""
        self.writers: set[object] = set()
        """The groups of the one writer."""
        self.lock = threading.RLock()
        self.parts: dict[str, _Inode] = {}
        self.names: dict[str, _Inode] = {}
        self.durable_names: dict[str, _Inode] = {}

    def cut_power(self) -> None:
        """Lose every part, name and content that was not made durable."""
        self.writers.clear()
        self.parts.clear()
        self.names = dict(self.durable_names)
        for inode in self.names.values():
            inode.now = bytearray(inode.durable)

    def objects(self) -> Iterator[tuple[str, bytearray]]:
        """Every published object and every trashed one (`.trash/...`), with its present bytes."""
        with self.lock:
            for name in sorted(self.names, key=os.fsencode):
                if not name.startswith(RECORDS):
                    yield name, self.names[name].now

    def sync_names(self, *names: str) -> None:
        """Make what some names stand for, or that they stand for nothing, survive a power cut."""
        self.operate("sync-names")
        for name in names:
            if name in self.names:
                self.durable_names[name] = self.names[name]
            else:
                self.durable_names.pop(name, None)

    def operate(self, operation: str) -> str:
        """Count an operation; raise what its fault wants, or return the kind of a silent one."""
        with self.lock:
            self.counts[operation] += 1
            self.counts[""] += 1
            for fault in self.faults:
                if fault.operation in ("", operation) and fault.when == self.counts[fault.operation]:
                    return self._fail(fault.kind)
        return ""

    def _fail(self, kind: str) -> str:
        if kind == POWER:
            self.cut_power()
        if kind in (CRASH, POWER):
            self.writers.clear()
            raise Crashed
        if kind in (ENOSPC, EIO):
            code = errno.ENOSPC if kind == ENOSPC else errno.EIO
            raise OSError(code, os.strerror(code))
        return kind


class FaultyStore:
    """Obeys `lightkeep.model.stores.Store` on a `Medium`."""

    def __init__(self, medium: Medium | None = None, *, id: str = "memory") -> None:  # noqa: A002
        self.medium = medium or Medium()
        self.record = StoreRecord(
            id=id, kind="memory", location="memory", uuid=self.medium.uuid, failure_domain=self.medium.uuid
        )

    def check_identity(self) -> None:
        """See the protocol."""
        if self.medium.uuid != self.record.uuid:
            raise StoreUnavailable(f"store {self.record.id} is not there", remedy="mount it")

    def stage(self, *, wait_s: float = 0.0) -> FaultyStaging:
        """See the protocol; never waits, because nobody else's time passes here."""
        del wait_s
        self.check_identity()
        with self.medium.lock:
            if self.medium.writers:
                raise Conflict(f"store {self.record.id} is being written", remedy="wait until it is done")
            staging = FaultyStaging(self.medium, self.record.id)
            self.medium.parts.clear()
            self.medium.durable_names = dict(
                self.medium.names
            )  # what an interrupted writer published may be adopted
        return staging

    def open(self, key: str) -> BinaryIO:
        """See the protocol."""
        member = split_member(key)
        if member is None:
            return _Stream(self.medium, self._inode(key).now)
        with self._faults(f"cannot open {key!r}"):
            return open_member(_Stream(self.medium, self._inode(member[0]).now), key)

    def stat(self, key: str) -> ObjectStat:
        """See the protocol."""
        if member := split_member(key):
            with self.open(key):
                return ObjectStat(key, member[2])
        return ObjectStat(key, len(self._inode(key).now))

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        """See the protocol."""
        self.check_identity()
        for key in sorted(self.medium.names, key=os.fsencode):
            if key.startswith(prefix) and key.split("/")[0] not in RESERVED:
                yield self.stat(key)

    def verify(self, key: str) -> Verified:
        """See the protocol."""
        member = split_member(key)
        whole = io.BytesIO(self._inode(member[0] if member else key).now)
        with open_member(whole, key) if member else whole as file:
            content = file.read()
        try:
            return _read_back(self.medium, content)
        except OSError as error:
            raise storage_error(error, f"cannot read {key!r}") from error

    def free_bytes(self) -> int | None:
        """See the protocol."""
        self.check_identity()
        return self.medium.free

    def trash(self, key: str, *, bin: str, size: int) -> str:  # noqa: A002
        """See the protocol."""
        split_key(key)
        target = trash_name(bin, key)
        self.check_identity()
        standing, moved = self.medium.names.get(key), self.medium.names.get(target)
        if standing is None and moved is None:
            raise NotFound(f"no object {key!r} on store {self.record.id}")
        if any(each is not None and len(each.now) != size for each in (standing, moved)):
            raise Conflict(f"{key!r} has not {size} bytes", remedy="verify it")
        self._move(key, target)
        return target

    def recover(self, trashed: str, key: str) -> None:
        """See the protocol."""
        split_trashed(trashed)
        split_key(key)
        self.check_identity()
        moved, standing = self.medium.names.get(trashed), self.medium.names.get(key)
        if standing is None and moved is None:
            raise NotFound(f"no object {trashed!r} on store {self.record.id}")
        if moved is not None and standing is not None and moved.now == standing.now:
            return
        self._move(trashed, key)

    def _move(self, source: str, target: str) -> None:
        with self.medium.lock, self._faults(f"cannot move {source!r}"):
            if source in self.medium.names:
                if target in self.medium.names or not _has_room(self.medium, target):
                    raise Conflict(f"{target!r} is taken", remedy="run `lightkeep doctor`")
                self.medium.operate("rename")
                self.medium.names[target] = self.medium.names.pop(source)
            self.medium.sync_names(source, target)

    def destroy(self, trashed: str) -> None:
        """See the protocol."""
        split_trashed(trashed)
        self.check_identity()
        with self.medium.lock, self._faults(f"cannot destroy {trashed!r}"):
            if trashed in self.medium.names:
                self.medium.operate("unlink")
                self.medium.free += len(self.medium.names.pop(trashed).now)
            self.medium.sync_names(trashed)

    def trashed(self, bin: str = "") -> Iterator[ObjectStat]:  # noqa: A002
        """See the protocol."""
        self.check_identity()
        prefix = f"{TRASH}/{bin}/" if bin else f"{TRASH}/"
        for name in sorted(self.medium.names, key=os.fsencode):
            if name.startswith(prefix):
                yield ObjectStat(name, len(self.medium.names[name].now))

    def write_record(self, name: str, content: bytes) -> None:
        """See the protocol."""
        record = RECORDS + "/".join(split_record(name))
        self.check_identity()
        with self.medium.lock, self._faults(f"cannot write record {name!r}"):
            kind = self.medium.operate("write")
            inode = _Inode(bytearray(b"" if kind == DROP else content))
            if kind == FLIP and content:
                inode.now[len(content) // 2] ^= 1
            self.medium.operate("sync")
            inode.durable = bytes(inode.now)
            self.medium.operate("rename")
            self.medium.names[record] = inode
            self.medium.sync_names(record)

    def read_record(self, name: str) -> bytes:
        """See the protocol."""
        record = RECORDS + "/".join(split_record(name))
        self.check_identity()
        if record not in self.medium.names:
            raise NotFound(f"no record {name!r} on store {self.record.id}")
        with self._faults(f"cannot read record {name!r}"):
            self.medium.operate("read")
        return bytes(self.medium.names[record].now)

    def records(self, prefix: str = "") -> Iterator[str]:
        """See the protocol."""
        self.check_identity()
        for name in sorted(self.medium.names, key=os.fsencode):
            if name.startswith(RECORDS + prefix):
                yield name.removeprefix(RECORDS)

    @contextmanager
    def _faults(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise storage_error(error, f"{what} (store {self.record.id})") from error

    def _inode(self, key: str) -> _Inode:
        split_key(key)
        self.check_identity()
        if key not in self.medium.names:
            raise NotFound(f"no object {key!r} on store {self.record.id}")
        return self.medium.names[key]


class _Stream(io.BytesIO):
    """An object that is open: each read is an operation of the medium."""

    def __init__(self, medium: Medium, content: bytes | bytearray) -> None:
        super().__init__(content)
        self._medium = medium

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer. Raises OSError, as a file on a bad disk does."""
        kind = self._medium.operate("read")
        view = memoryview(buffer).cast("B")
        count = super().readinto(view)
        if kind == FLIP and count:
            view[count // 2] ^= 1
        return count

    def read(self, size: int | None = -1) -> bytes:
        """Return a part, or the rest."""
        left = len(self.getbuffer()) - self.tell()
        content = bytearray(left if size is None or size < 0 else min(size, left))
        return bytes(content[: self.readinto(content)])


class FaultyStaging:
    """Obeys `lightkeep.model.stores.Staging`."""

    def __init__(self, medium: Medium, store_id: str, *, number: int = 0) -> None:
        self._medium = medium
        self._store_id = store_id
        self._state = "open"
        self._parts: dict[str, tuple[str, Verified]] = {}
        self._number = number
        self._numbers = itertools.count()
        medium.writers.add(self)

    def beside(self) -> FaultyStaging:
        """See the protocol."""
        with self._medium.lock:
            self._must_live()
            return FaultyStaging(self._medium, self._store_id, number=self._number + 1)

    def __enter__(self) -> FaultyStaging:
        return self

    def __exit__(self, *exc: object) -> None:
        """Discard what has no final name; a crashed process cleans nothing."""
        with self._medium.lock:
            if self in self._medium.writers and not any(isinstance(each, Crashed) for each in exc):
                for name, _ in self._parts.values():
                    self._medium.parts.pop(name, None)
                self._medium.writers.discard(self)
        self._state = "closed"

    def write(self, key: str, source: Readable, *, size: int | None) -> Verified:
        """See the protocol."""
        self._expect("open")
        self._must_live()
        split_key(key)
        if key in self._parts:
            raise Conflict(f"the group has a part {key!r} already")
        name = f"{self._number}/{next(self._numbers)}"
        self._parts[key] = name, Verified("", 0, Proof.UNPROVEN)
        self._medium.parts[name] = inode = _Inode()
        try:
            written = self._copy(source, inode)
            if size is not None and written.size != size:
                raise SourceError(f"the source of {key!r} gave {written.size} bytes, not {size}")
        except (SourceError, StorageError):
            self.discard(key)
            raise
        self._parts[key] = name, written
        return written

    def _copy(self, source: Readable, inode: _Inode) -> Verified:
        digest = hashlib.sha256()
        size = 0
        buffer = memoryview(bytearray(_BLOCK))
        while count := _read(source, buffer):
            digest.update(buffer[:count])
            size += count
            block = bytearray(buffer[:count])
            with self._medium.lock:
                try:
                    kind = self._medium.operate("write")
                    if count > self._medium.free:
                        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                except OSError as error:
                    raise storage_error(error, f"cannot write on store {self._store_id}") from error
                self._medium.free -= count
                if kind == FLIP:
                    block[len(block) // 2] ^= 1
                if kind != DROP:
                    inode.now += block
        return Verified(digest.hexdigest(), size, Proof.UNPROVEN)

    def discard(self, key: str) -> None:
        """See the protocol."""
        self._expect("open")
        with self._medium.lock:
            name, _ = self._parts.pop(key)
            self._medium.free += len(self._medium.parts.pop(name).now)

    def sync(self) -> None:
        """See the protocol."""
        self._expect("open")
        self._try("sync")
        with self._medium.lock:
            for name, _ in self._parts.values():
                inode = self._medium.parts[name]
                inode.durable = bytes(inode.now)
        self._state = "synced"

    def verify(self) -> None:
        """See the protocol."""
        self._expect("synced")
        for key, (name, written) in self._parts.items():
            try:
                found = _read_back(self._medium, self._medium.parts[name].now)
            except OSError as error:
                self._state = "failed"
                raise storage_error(error, f"cannot read back {key!r}") from error
            if (found.sha256, found.size) != (written.sha256, written.size):
                self._state = "failed"
                raise Corrupt(
                    f"{key!r} came back from store {self._store_id} as other bytes", remedy="check its disk"
                )
        self._state = "verified"

    def publish(self) -> Sequence[Replicated]:
        """See the protocol."""
        self._expect("verified")
        self._state = "publishing"
        results = [self._publish_part(key, *part) for key, part in self._parts.items()]
        self._try("sync-names")
        self._medium.durable_names = dict(self._medium.names)
        self._state = "published"
        return results

    def _publish_part(self, asked: str, name: str, written: Verified) -> Replicated:
        self._try("rename")
        part = self._medium.parts[name]
        for key in (asked, version_key(asked, written.sha256)):
            if not _has_room(self._medium, key):
                continue
            standing = self._medium.names.setdefault(key, part)
            if standing is part or standing.now == part.now:
                del self._medium.parts[name]
                was_adopted = standing is not part
                return Replicated(key, written.sha256, written.size, Proof.DIRECT, was_adopted, asked=asked)
        raise Conflict(f"{asked!r} and its version's name are taken by other content")

    def _must_live(self) -> None:
        """Stop the threads that a killed process would not have any more."""
        if self not in self._medium.writers:
            raise Crashed

    def _try(self, operation: str) -> None:
        try:
            self._medium.operate(operation)
        except OSError as error:
            self._state = "failed"
            raise storage_error(error, f"{operation} on store {self._store_id}") from error

    def _expect(self, state: str) -> None:
        if self._state != state:
            raise StorageError(f"the group on store {self._store_id} is {self._state}, not {state}")


def _read(source: Readable, buffer: memoryview) -> int:
    try:
        return source.readinto(buffer) or 0
    except OSError as error:
        raise SourceError(f"the source cannot be read: {error.strerror or error}") from error


def _has_room(medium: Medium, name: str) -> bool:
    """Return whether a name is no folder's, and its path leads through no file."""
    names = name.split("/")
    parents = {"/".join(names[:depth]) for depth in range(1, len(names))}
    return parents.isdisjoint(medium.names) and not any(other.startswith(f"{name}/") for other in medium.names)


def _read_back(medium: Medium, found: bytes | bytearray) -> Verified:
    content = bytearray(found)
    if medium.operate("read") == FLIP and content:
        content[len(content) // 2] ^= 1
    return Verified(hashlib.sha256(content).hexdigest(), len(content), Proof.DIRECT)
