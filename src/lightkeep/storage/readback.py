"""Reads and writes that go past the page cache: a check that reads memory proves nothing about the disk."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final

from lightkeep.model.errors import SourceError
from lightkeep.model.stores import Proof, Readable, Verified
from lightkeep.storage.syscalls import resident_pages

BLOCK: Final = 1 << 20
BIG_BLOCK: Final = 4 << 20
BIG: Final = 64 << 20  # from here on, two threads and O_DIRECT writes gain more than they cost
_ALIGNED: Final = 4096
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def aligned_buffer(size: int) -> memoryview:
    """Return memory that starts on a page, as O_DIRECT needs it."""
    return memoryview(mmap.mmap(-1, size))


def buffer_for(size: int) -> memoryview:
    """Return an aligned buffer that takes a small file at once; pinning more memory than is read costs time."""
    return aligned_buffer(min(BLOCK, (size // _ALIGNED + 1) * _ALIGNED))


def read_back(name: str, *, folder: int, buffer: memoryview) -> Verified:
    """Read a whole file through a fresh descriptor, past the cache where the filesystem lets us, and hash it.

    `Proof.DIRECT`: O_DIRECT. `Proof.EVICTED`: its pages were dropped and none was left in memory.
    `Proof.UNPROVEN`: neither was possible, for example because somebody has the file mapped.
    Raises OSError.
    """
    try:
        descriptor = _open(name, folder, os.O_DIRECT)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return _read_evicted(name, folder, buffer)
    try:
        digest, size = _hash(descriptor, buffer)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return _read_evicted(name, folder, buffer)
    finally:
        os.close(descriptor)
    return Verified(digest, size, Proof.DIRECT)


def _open(name: str, folder: int, flags: int) -> int:
    try:
        return os.open(name, _READ | os.O_NOATIME | flags, dir_fd=folder)
    except PermissionError:  # leaving the access time alone is for the owner only
        return os.open(name, _READ | flags, dir_fd=folder)


def _read_evicted(name: str, folder: int, buffer: memoryview) -> Verified:
    descriptor = _open(name, folder, 0)
    try:
        os.fdatasync(descriptor)  # dirty pages cannot be dropped
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        left = resident_pages(descriptor, os.fstat(descriptor).st_size)
        digest, size = _hash(descriptor, buffer)
    finally:
        os.close(descriptor)
    return Verified(digest, size, Proof.EVICTED if left == 0 else Proof.UNPROVEN)


def _hash(descriptor: int, buffer: memoryview) -> tuple[str, int]:
    first = os.readv(descriptor, [buffer])
    if first < len(buffer):  # the end: a regular file gives less only there
        return hashlib.sha256(buffer[:first]).hexdigest(), first
    digest = hashlib.sha256(buffer)
    size = first
    for block in overlapped(lambda b: os.readv(descriptor, [b])):
        digest.update(block)
        size += len(block)
    return digest.hexdigest(), size


def copy_small(source: Readable, target: int, *, buffer: memoryview, most: int) -> tuple[str, int]:
    """Copy to an open descriptor in the caller's thread, until `most` is exceeded; return (sha256, bytes)."""
    digest = hashlib.sha256()
    size = 0
    while size <= most and (count := _read(source, buffer)):
        block = buffer[:count]
        digest.update(block)
        write_all(target, block)
        size += count
    return digest.hexdigest(), size


def copy_big(source: Readable, target: int) -> tuple[str, int]:
    """Copy with a thread that reads and hashes while this one writes with O_DIRECT.

    A block of zeros becomes a hole. Returns (sha256, bytes).
    """
    digest = hashlib.sha256()
    zeros = bytes(BIG_BLOCK)

    def fill(buffer: memoryview) -> int:
        filled = 0
        while filled < len(buffer) and (count := _read(source, buffer[filled:])):
            filled += count
        digest.update(buffer[:filled])
        return filled

    size = 0
    set_direct(target, True)
    for block in overlapped(fill):
        if len(block) % _ALIGNED:
            set_direct(target, False)
        if block == zeros:
            os.lseek(target, len(block), os.SEEK_CUR)
        else:
            _write_direct(target, block)
        size += len(block)
    os.ftruncate(target, size)
    return digest.hexdigest(), size


def _write_direct(descriptor: int, block: memoryview) -> None:
    at = os.lseek(descriptor, 0, os.SEEK_CUR)
    try:
        write_all(descriptor, block)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        set_direct(descriptor, False)  # this filesystem, or this disk's sectors, do not want it
        os.lseek(descriptor, at, os.SEEK_SET)
        write_all(descriptor, block)


def write_all(descriptor: int, block: memoryview) -> None:
    """Write a block to its last byte; raises OSError."""
    while block:
        block = block[os.write(descriptor, block) :]


def set_direct(descriptor: int, on: bool) -> None:
    """Switch O_DIRECT of an open file, where the filesystem knows it."""
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT if on else flags & ~os.O_DIRECT)


def overlapped(fill: Callable[[memoryview], int]) -> Iterator[memoryview]:
    """Blocks that a second thread fills while the caller works on the one before; its errors are raised here."""
    ahead, block = aligned_buffer(BIG_BLOCK), aligned_buffer(BIG_BLOCK)
    with ThreadPoolExecutor(1) as filler:
        pending = filler.submit(fill, ahead)
        while count := pending.result():
            ahead, block = block, ahead
            pending = filler.submit(fill, ahead)
            yield block[:count]


def _read(source: Readable, buffer: memoryview) -> int:
    try:
        return source.readinto(buffer) or 0
    except OSError as error:
        raise SourceError(f"the source cannot be read: {error.strerror or error}") from error
