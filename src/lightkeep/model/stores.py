"""Stores (places that keep bytes), replicas (a file on a store), and the protocol that every store obeys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import BinaryIO, NamedTuple, Protocol, runtime_checkable


class Tier(StrEnum):
    """How near a store is."""

    HOT = "hot"
    WARM = "warm"
    TAPE = "tape"
    REMOTE = "remote"


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """What the catalogue knows of a store."""

    id: str
    """Short name, e.g. `central` or `2-bm-disk`."""
    kind: str
    """Entry point name of its medium, e.g. `posix`."""
    location: str
    """Where it is, as its medium understands it; for `posix` an absolute folder."""
    uuid: str
    """Identity written into the store's own marker when it was initialised."""
    tier: Tier = Tier.HOT
    failure_domain: str = ""
    """What fails together: two replicas in one domain count as one."""
    is_managed: bool = True
    """False: a station's own disk where files are registered in place; Lightkeep never writes there."""
    is_durable: bool = False
    """True: its medium is kept for years, such as tape; a policy may ask for a copy on one."""
    capacity: int = 0
    """Bytes that Lightkeep may use; 0: as many as the medium has."""
    high: float = 0.9
    """Fraction of the capacity above which a purge under pressure begins."""
    low: float = 0.8
    """Fraction of the capacity at which it stops."""
    created_at: datetime | None = None


class ReplicaState(StrEnum):
    """planned -> copying -> present -> verified -> (suspect -> verified | corrupt).

    verified -> delete_pending -> deleted (tombstone), with undo from delete_pending.
    """

    PLANNED = "planned"
    COPYING = "copying"
    PRESENT = "present"
    VERIFIED = "verified"
    SUSPECT = "suspect"
    CORRUPT = "corrupt"
    DELETE_PENDING = "delete_pending"
    DELETED = "deleted"


class Proof(StrEnum):
    """What a read-back proved. All but `unproven` went past the page cache of this machine."""

    DIRECT = "direct"
    """Read with O_DIRECT on a fresh descriptor."""
    EVICTED = "evicted"
    """Pages dropped, zero of them resident before the read."""
    UNPROVEN = "unproven"
    """The bytes may have come from this machine's memory."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One file's bytes on one store."""

    id: str
    file_id: str
    store_id: str
    key: str
    """Name on the store, as `os.fsdecode` gives it."""
    state: ReplicaState
    verified_at: datetime | None = None
    """When all bytes were last read from the store and hashed equal (V1)."""
    proof: Proof = Proof.UNPROVEN
    created_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ObjectStat:
    """What a store says of one object without reading it."""

    key: str
    size: int
    """Bytes."""
    mtime_ns: int = 0


@dataclass(frozen=True, slots=True)
class Verified:
    """What a full read of an object found."""

    sha256: str
    size: int
    proof: Proof


class Readable(Protocol):
    """Where the bytes of a part come from: an open file, a descriptor, an object of another store."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill the buffer from its start; return how many bytes, 0 at the end. May raise OSError."""
        ...


class Staging(Protocol):
    """A group of parts that no reader can see, until `publish` gives each its final name.

    Use as a context manager: leaving it discards every part that has no final name by then.
    The order is fixed: write* (and discard*), sync, verify, publish. Calling one out of order raises StorageError.
    """

    def __enter__(self) -> Staging: ...

    def __exit__(self, *exc: object) -> None: ...

    def write(self, key: str, source: Readable, *, size: int | None) -> Verified:
        """Write one part, hashing it on the way; return what was written (proof: unproven).

        MUST be safe to call from several threads. MUST read the source to its end, and raise SourceError when
        it does not hold exactly `size` bytes (None: however many it has, as of a stream that is compressed on the
        way) or cannot be read; StoreFull when there is no room. MUST keep nothing
        of a part whose write fails. MUST raise Conflict when the group has a part of that key.
        """
        ...

    def discard(self, key: str) -> None:
        """Drop one part that was written, as if it never had been; before `sync` only."""
        ...

    def beside(self) -> Staging:
        """Open the same writer's next group, to be written while this one is made durable and published.

        Each is left on its own; the writer holds the store until the last one is left. A group that was left
        without being published MUST NOT touch the others. Called once per group.
        """
        ...

    def sync(self) -> None:
        """Make every part durable: content and inode. An error poisons the whole group: it is never retried."""
        ...

    def verify(self) -> None:
        """Read every part back through a fresh open, past the cache where possible; MUST raise Corrupt on any
        difference of length or hash."""
        ...

    def publish(self) -> Sequence[Replicated]:
        """Give every part its final name without replacing anything, and make the names durable.

        Where the key holds equal content already it MUST be adopted (a crash's orphan), and read past the cache
        as in `verify`. Where it holds anything else, that MUST stay as it is, and the part MUST be published under
        `version_key(key, sha256)`; the result names the key used.
        """
        ...


class Seen(NamedTuple):
    """What a source file was when it was found (invariant I2)."""

    dev: int
    ino: int
    size: int
    """Bytes."""
    mtime_ns: int
    ctime_ns: int


@runtime_checkable
class TakesFiles(Staging, Protocol):
    """A group that can take many files of this machine at once: faster, and otherwise the same as one by one."""

    def write_files(
        self, keys: Sequence[str], names: Sequence[str], seen: Sequence[Seen], *, folder: int, flags: int
    ) -> list[bool]:
        """Write parts from files of one folder; return which were written. The others are left for `write`.

        A part is written only from a regular file that, after it was read, still is what was seen: by its open
        descriptor and by its name. MUST be safe to call from several threads, and raise Conflict when the group
        has a part of one of the keys.

        Parameters
        ----------
        keys, names, seen: (n,); what each part will be called, its source's name in the folder, and what it was.
        folder: descriptor of the sources' folder.
        flags: to open the sources with.
        """
        ...


@runtime_checkable
class GivesFiles(Protocol):
    """A store that can read many small objects at once: faster, and otherwise the same as one by one."""

    def read_many(
        self, keys: Sequence[str], sizes: Sequence[int], *, into: bytearray, at: Sequence[int]
    ) -> list[str]:
        """Read whole objects into memory; return the SHA-256 of each. The others, "", are left for `open`.

        MUST NOT follow a symlink or leave the store, and MUST be safe to call from several threads.

        Parameters
        ----------
        keys, sizes, at: (n,); of each its name, its bytes, and where in `into` these go.
        """
        ...


@runtime_checkable
class RecallsUnits(Protocol):
    """A store far away, from which a whole unit comes as cheaply as one of its members."""

    def expect(self, keys: Iterable[str]) -> None:
        """Say which objects will be opened soon: a unit of which there are several comes once, for all of them."""
        ...


def version_key(key: str, sha256: str) -> str:
    """Return where content goes whose own key is taken by other content.

    >>> version_key("2-BM/lee/ds_1/scan.h5", "ab" * 32)
    '.versions/abababababababab/2-BM/lee/ds_1/scan.h5'
    """
    return f".versions/{sha256[:16]}/{key}"


UNITS = "units/"
"""What the keys of archive units begin with; `!` means nothing in any other key."""


def member_key(unit: str, offset: int, size: int) -> str:
    """Return the key of bytes inside another object: a file in an archive unit.

    >>> member_key("units/u_1.tar", 512, 10)
    'units/u_1.tar!512+10'
    """
    return f"{unit}!{offset}+{size}"


def split_member(key: str) -> tuple[str, int, int] | None:
    """Return (unit, offset, size) of a member's key, or None for an object's own key.

    >>> split_member("units/u_1.tar!512+10")
    ('units/u_1.tar', 512, 10)
    """
    unit, mark, window = key.rpartition("!")
    offset, plus, size = window.partition("+")
    if not (mark and plus and unit.startswith(UNITS) and offset.isdecimal() and size.isdecimal()):
        return None
    return unit, int(offset), int(size)


@dataclass(frozen=True, slots=True)
class Replicated:
    """A part that now has its final name."""

    key: str
    sha256: str
    size: int
    proof: Proof
    was_adopted: bool = False
    """True when the same content stood there already."""
    asked: str = ""
    """The key that was asked for: differs from `key` when other content stood there."""


class Store(Protocol):
    """A place that keeps bytes under names. Written once: a key's content never changes.

    A store MUST survive a kill at any instruction: what was published stays, what was not is invisible and is
    cleared by the next `stage()`.
    """

    record: StoreRecord

    def check_identity(self) -> None:
        """MUST read the marker from the medium itself, each time, and raise StoreUnavailable when it is absent
        or carries another uuid: an empty mount point is not an empty store."""
        ...

    def stage(self, *, wait_s: float = 0.0) -> Staging:
        """Open a group of parts. One writer at a time holds the store; MUST raise Conflict when another still
        does after `wait_s`. MUST clear what an interrupted writer left. MUST raise StorageError on a store that
        is not managed, and touch nothing there."""
        ...

    def open(self, key: str) -> BinaryIO:
        """Open an object for reading, seekable. MUST raise NotFound when the key is not there (after
        check_identity), and MUST NOT follow a symlink or leave the store. A member's key (`member_key`) means
        those bytes of its unit, here as in `stat` and `verify`."""
        ...

    def stat(self, key: str) -> ObjectStat:
        """MUST raise NotFound for a key that was never published."""
        ...

    def list(self, prefix: str = "") -> Iterator[ObjectStat]:
        """Every published object whose key starts with prefix, in the order of keys; no part, no marker."""
        ...

    def verify(self, key: str) -> Verified:
        """Read the whole object through a fresh open, past the cache where possible, and hash it."""
        ...

    def free_bytes(self) -> int | None:
        """Room left, or None when the medium does not say."""
        ...

    def trash(self, key: str, *, bin: str, size: int) -> str:  # noqa: A002
        """Move an object out of sight into a bin of the same store and return its name there.

        MUST NOT copy, follow a symlink or leave the store; MUST raise Conflict, and touch nothing, when the object
        has another size than `size`; MUST be durable when it returns. Again: the same answer. A member of a unit
        cannot be moved on its own: InvalidInput.
        """
        ...

    def recover(self, trashed: str, key: str) -> None:
        """Give a trashed object its key back; again: no change. MUST raise Conflict when other content stands
        there."""
        ...

    def destroy(self, trashed: str) -> None:
        """Remove a trashed object for good: the one call that does. Again: nothing. MUST raise InvalidInput for
        anything that is not in a bin."""
        ...

    def trashed(self, bin: str = "") -> Iterator[ObjectStat]:  # noqa: A002
        """Every object in a bin, or in all of them, by its name there."""
        ...

    def write_record(self, name: str, content: bytes) -> None:
        """Keep a small document about what the store holds, beside the objects and in no listing of them: what a
        lost catalogue is rebuilt from. MUST be atomic and durable; replaces a record of that name."""
        ...

    def read_record(self, name: str) -> bytes:
        """MUST raise NotFound for a record that was never written."""
        ...

    def records(self, prefix: str = "") -> Iterator[str]:
        """Names of the records that begin with prefix, in order."""
        ...
