"""Bytes inside another object: a file in an archive unit, read without reading the unit."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from typing import BinaryIO, Final, cast

from lightkeep.model.errors import Corrupt, NotFound
from lightkeep.model.stores import Proof, Verified, split_member
from lightkeep.storage.readback import BLOCK, aligned_buffer, set_direct
from lightkeep.storage.seekable_zstd import COMPRESSED, SeekableReader
from lightkeep.storage.syscalls import PAGE, resident_pages

_ALIGNED: Final = 4096


class Window(io.RawIOBase):
    """A range of bytes of an open file, as a file of its own; closing it closes the other."""

    def __init__(self, whole: BinaryIO | io.RawIOBase, start: int, size: int) -> None:
        self._whole = whole
        self._start = start
        self._size = size
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; the end is the window's."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: object) -> int:
        """Fill the buffer from the window; 0 at its end."""
        view = memoryview(cast(bytearray, buffer)).cast("B")[: max(0, self._size - self._at)]
        if not view:
            return 0
        self._whole.seek(self._start + self._at)
        count: int = self._whole.readinto(view) or 0  # type: ignore[union-attr]
        self._at += count
        return count

    def close(self) -> None:
        """Close the other file too."""
        if not self.closed:
            self._whole.close()
        super().close()


class DirectFile(io.RawIOBase):
    """A regular file read past the page cache, at any offset.

    Where the filesystem does not know O_DIRECT, the pages of each range are dropped before it is read, and the
    proof says whether that succeeded.
    """

    def __init__(self, descriptor: int) -> None:
        """Take a copy of an open descriptor; the caller keeps its own."""
        path = f"/proc/self/fd/{descriptor}"
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
            self._is_direct = True
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._is_direct = False
        self._buffer = memoryview(b"")
        self._at = 0
        self.proof = Proof.DIRECT
        """Of all that was read so far."""

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at}.get(whence)
        if base is None:
            base = os.fstat(self._descriptor).st_size
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: object) -> int:
        """Fill the buffer; 0 at the end."""
        view = memoryview(cast(bytearray, buffer)).cast("B")
        begin = self._at // _ALIGNED * _ALIGNED
        skipped = self._at - begin
        wanted = min(BLOCK, -(-(skipped + len(view)) // _ALIGNED) * _ALIGNED)
        if len(self._buffer) < wanted:
            self._buffer = aligned_buffer(wanted)
        found = self._read(self._buffer[:wanted], begin)
        count = max(0, min(found - skipped, len(view)))
        view[:count] = self._buffer[skipped : skipped + count]
        self._at += count
        return count

    def _read(self, block: memoryview, begin: int) -> int:
        if self._is_direct:
            try:
                return os.preadv(self._descriptor, [block], begin)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
            set_direct(self._descriptor, False)
            self._is_direct = False
        self._evict(begin, len(block))
        return os.preadv(self._descriptor, [block], begin)

    def _evict(self, begin: int, size: int) -> None:
        size = min(size, os.fstat(self._descriptor).st_size - begin)
        if size <= 0:
            return
        os.fdatasync(self._descriptor)  # dirty pages cannot be dropped
        first = begin // PAGE * PAGE
        # All of the file: of a folio that is only in part in the range, nothing would be dropped.
        os.posix_fadvise(self._descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        dropped = resident_pages(self._descriptor, size + begin - first, start=first) == 0
        self.proof = Proof.EVICTED if dropped and self.proof is not Proof.UNPROVEN else Proof.UNPROVEN

    def close(self) -> None:
        """Close it."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def open_member(unit: BinaryIO | io.RawIOBase, key: str) -> BinaryIO:
    """Return the bytes of a member of an open unit, as a file; closing it closes the unit.

    Raises NotFound when the unit ends before the member does, Corrupt when a compressed unit is damaged.
    """
    name, offset, size = _split(key)
    try:
        whole = SeekableReader(unit) if name.endswith(COMPRESSED) else unit
    except Corrupt:
        unit.close()
        raise
    if offset + size > whole.seek(0, os.SEEK_END):
        unit.close()
        raise NotFound(f"unit {name!r} ends before its member {key!r}", remedy="run `lightkeep doctor`")
    return cast(BinaryIO, io.BufferedReader(Window(whole, offset, size)))


def verify_member(unit: DirectFile, key: str) -> Verified:
    """Read a member of an open unit past the cache and hash it; closes the unit. Raises NotFound, Corrupt or
    OSError."""
    size = _split(key)[2]
    digest = hashlib.sha256()
    found = 0
    buffer = memoryview(bytearray(min(BLOCK, max(size, 1))))
    with open_member(unit, key) as member:
        while count := member.readinto(buffer):  # type: ignore[attr-defined]
            digest.update(buffer[:count])
            found += count
    return Verified(digest.hexdigest(), found, unit.proof)


def _split(key: str) -> tuple[str, int, int]:
    member = split_member(key)
    if member is None:
        raise ValueError(f"not a member's key: {key!r}")
    return member
