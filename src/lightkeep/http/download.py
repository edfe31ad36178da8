"""A file's bytes to a client, never other than the manifest says (invariant R1).

A whole file is hashed while it is sent, and its last piece is held back until the hash is right: where it is not,
the connection is broken off, so that no client takes what it has for complete. A range cannot be checked alone:
the whole file is hashed first, once, and its inode's identity remembered until the inode changes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote

from lightkeep.lifecycle.replicas.copies import LIVE, archived, is_near
from lightkeep.lifecycle.replicas.leases import leased
from lightkeep.lifecycle.retention.purge_destroy import gone
from lightkeep.model.datasets import File
from lightkeep.model.errors import Corrupt, StorageError, StoreUnavailable
from lightkeep.model.people import SERVICE
from lightkeep.model.retention import LeaseKind
from lightkeep.model.stores import Replica, ReplicaState

if TYPE_CHECKING:
    from lightkeep.facility import Facility

_PIECE = 1 << 20
_LARGE = 64 << 20
_REMEMBERED = 10_000
_READABLE = (ReplicaState.VERIFIED, ReplicaState.PRESENT)
_REMEDY = "ask the station's staff to check the store; `lightkeep doctor` lists what is wrong"

Identity = tuple[int, int, int, int, int]


@dataclass
class Integrity:
    """Which inodes were read whole and found right, in this process."""

    _known: dict[str, Identity] = field(default_factory=dict)

    def knows(self, file: File, opened: BinaryIO) -> bool:
        """Return whether these very bytes were hashed before."""
        found = _identity(opened)
        return found is not None and self._known.get(file.id) == found

    def learn(self, file: File, opened: BinaryIO, *, before: Identity | None) -> None:
        """Remember an inode that was hashed right and did not change meanwhile."""
        if len(self._known) >= _REMEMBERED:
            self._known.clear()
        if before is not None and _identity(opened) == before:
            self._known[file.id] = before


@dataclass(frozen=True)
class Opened:
    """A replica that is open for reading."""

    file: File
    replica: Replica
    stream: BinaryIO


def open_replica(facility: Facility, file: File, replicas: Sequence[Replica]) -> Opened:
    """Open the best readable replica of a file.

    Raises
    ------
    Conflict: all copies were deleted, with `gone` in its data: when, under which policy; the record stays.
    StoreUnavailable: no copy can be read now.
    """
    for replica in sorted(replicas, key=lambda each: each.state is not ReplicaState.VERIFIED):
        if replica.state in _READABLE and is_near(replica, facility.stores):
            try:
                return Opened(file, replica, facility.stores[replica.store_id].open(replica.key))
            except StorageError:
                continue  # the next copy may be there
    left = [each for each in replicas if each.state not in (ReplicaState.DELETED, ReplicaState.DELETE_PENDING)]
    purged = None if left else gone(facility, file.dataset_id, file.path)
    if purged is not None:
        raise purged
    live = [each for each in replicas if each.state in LIVE]
    if live and not any(is_near(each, facility.stores) for each in live):
        raise archived(file)
    raise StoreUnavailable(f"no copy of {file.path} can be read now", remedy=_REMEDY)


def parse_range(header: str, size: int) -> tuple[int, int] | None:
    """Return (first, last + 1) of a `Range` header with one range; None where the whole file is to be sent.

    Raises
    ------
    ValueError: the range lies outside the file: 416.

    >>> parse_range("bytes=0-9", 100), parse_range("bytes=-5", 100), parse_range("bytes=90-", 100)
    ((0, 10), (95, 100), (90, 100))
    >>> parse_range("bytes=0-1,5-6", 100) is None
    True
    """
    found = re.fullmatch(r"bytes=(\d{0,19})-(\d{0,19})", header.strip())
    if not found or not (found[1] or found[2]):
        return None
    first = int(found[1]) if found[1] else max(0, size - int(found[2]))
    last = min(int(found[2]) if found[1] and found[2] else size - 1, size - 1)
    if first >= size or (not found[1] and int(found[2]) == 0):
        raise ValueError(header)
    return (first, last + 1) if first <= last else None


def whole(facility: Facility, opened: Opened, integrity: Integrity) -> Iterator[bytes]:
    """Yield all bytes; the last piece only when all of them hash to the manifest.

    Raises
    ------
    Corrupt: they do not; the replica is marked suspect.
    """
    with _lease(facility, opened) as renew, opened.stream as stream:
        before = _identity(stream)
        digest = hashlib.sha256()
        held = b""
        while piece := stream.read(_PIECE):
            yield held
            renew()
            digest.update(piece)
            held = piece
        _expect(facility, opened, digest.hexdigest())
        integrity.learn(opened.file, stream, before=before)
        yield held


def part(facility: Facility, opened: Opened, integrity: Integrity, *, first: int, end: int) -> Iterator[bytes]:
    """Return the bytes from first to before end, of a file that was found right as a whole.

    Raises
    ------
    Corrupt: it was not; nothing is sent.
    """
    if not integrity.knows(opened.file, opened.stream):
        before = _identity(opened.stream)
        digest = hashlib.sha256()
        while piece := opened.stream.read(_PIECE):
            digest.update(piece)
        _expect(facility, opened, digest.hexdigest())
        integrity.learn(opened.file, opened.stream, before=before)
    opened.stream.seek(first)
    return _pieces(facility, opened, end - first)


def _pieces(facility: Facility, opened: Opened, left: int) -> Iterator[bytes]:
    with _lease(facility, opened) as renew, opened.stream as stream:
        while left and (piece := stream.read(min(_PIECE, left))):
            left -= len(piece)
            yield piece
            renew()


@contextmanager
def _lease(facility: Facility, opened: Opened) -> Iterator[Callable[[], None]]:
    """Keep a large file's dataset while it is sent (R2); yield what to call now and then.

    A small file is sent before a lease would be worth its two commits, from a descriptor that is open already.
    """
    if opened.file.size < _LARGE:
        yield lambda: None
        return
    with leased(facility, opened.file.dataset_id, LeaseKind.DOWNLOAD, holder="http") as lease:
        yield lease.renew


def _expect(facility: Facility, opened: Opened, sha256: str) -> None:
    if sha256 == opened.file.sha256:
        return
    if opened.replica.state is ReplicaState.VERIFIED:
        with facility.catalog.change(SERVICE) as tx:
            tx.set_replicas([opened.replica], state=ReplicaState.SUSPECT)
    raise Corrupt(f"{opened.file.path} differs from its checksum on {opened.replica.store_id}", remedy=_REMEDY)


def _identity(stream: BinaryIO) -> Identity | None:
    """Return what tells an inode from every other and from its past; None for bytes inside an archive unit."""
    try:
        found = os.fstat(stream.fileno())
    except io.UnsupportedOperation:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def headers(file: File) -> dict[str, str]:
    """Return what goes with a file's bytes: a browser stores them, and never runs them."""
    name = file.path.rpartition("/")[2]
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name) or "file"
    encoded = quote(os.fsencode(name), safe="")
    digest = base64.b64encode(bytes.fromhex(file.sha256)).decode()
    return {
        "Accept-Ranges": "bytes",
        "ETag": f'"{file.sha256}"',
        "Repr-Digest": f"sha-256=:{digest}:",
        "Content-Disposition": f"attachment; filename=\"{plain}\"; filename*=UTF-8''{encoded}",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
    }
