"""What a kernel is told: lengths, tables and where they are in memory."""

from __future__ import annotations

import math
import mmap
from itertools import combinations
from threading import RLock
from typing import Any, Final
from weakref import finalize

import numpy as np
from numpy.typing import NDArray

_LINE: Final = 64
_HUGE: Final = 1 << 21
"""Bytes of a large page of memory."""
_KEPT: Final = 1 << 29
"""Bytes that are kept to be lent again, at most."""


def fast_length(least: int, *, of: int = 1) -> int:
    """Smallest multiple of `of` from `least` on with no prime factor above 5, for the FFT in lanes."""
    length = -(-least // of) * of
    while _rest(length) > 1:
        length += of
    return length


def _rest(length: int) -> int:
    for factor in (2, 3, 5):
        while length % factor == 0:
            length //= factor
    return length


def aligned(*shape: int, dtype: Any = np.float32, is_clear: bool = True) -> NDArray[Any]:
    """Zeros, or anything, that begin at a line of the cache: a vector across two lines costs twice.

    Much memory is asked for in large pages, where the system has them: its addresses are found at once. Memory
    that nobody uses any more is lent again: to touch new memory for the first time can take longer than all of a
    reconstruction, where a host has to find it for a virtual machine.
    """
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if count >= 2 * _HUGE:
        (memory, is_new), line = POOL.take(count + _HUGE), _HUGE
        begin = -memory.ctypes.data % line
        if is_clear and not is_new:
            memory[begin : begin + count] = 0
    else:
        memory, line = np.zeros(count + _LINE, np.uint8), _LINE
        begin = -memory.ctypes.data % line
    found: NDArray[Any] = memory[begin : begin + count].view(dtype).reshape(shape)
    return found


class _Pool:
    """Blocks of memory that are in no use, the last one first."""

    def __init__(self) -> None:
        self._lock = RLock()  # a block may come back while one is taken: whenever Python collects garbage
        self._blocks: list[mmap.mmap] = []

    def take(self, size: int) -> tuple[NDArray[np.uint8], bool]:
        """Bytes that come back by themselves, and whether they are new, and so zero."""
        with self._lock:
            found = [block for block in self._blocks if len(block) == size][-1:]
            if found:
                self._blocks.remove(found[0])
        block = found[0] if found else _new(size)
        memory = np.frombuffer(block, np.uint8)
        finalize(memory, self._give, block).atexit = False
        return memory, not found

    @property
    def kept(self) -> int:
        """Bytes in no use."""
        with self._lock:
            return sum(map(len, self._blocks))

    def clear(self) -> None:
        """Give all back to the system."""
        with self._lock:
            self._blocks.clear()

    def _give(self, block: mmap.mmap) -> None:
        with self._lock:
            self._blocks.append(block)
            while self.kept > _KEPT:
                del self._blocks[0]


def _new(size: int) -> mmap.mmap:
    block = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE)
    return block


POOL: Final = _Pool()


class FftPlan:
    """Radices and twiddle factors of one length, as `kernels.fft.transform` reads them."""

    def __init__(self, length: int) -> None:
        if _rest(length) != 1:
            raise ValueError(f"the length {length} has a prime factor above 5")
        first, second = _split(length)
        a, b = math.prod(first), math.prod(second)
        turns = np.arange(b)[:, None] * np.arange(a) / length
        self._tables = [np.exp(-2j * np.pi * turns).astype(np.complex64), _twiddles(first), _twiddles(second)]
        grid, inner, outer = (table.ctypes.data for table in self._tables)
        stage = [len(first), a, inner, *_passes(first)]
        numbers = [a, b, grid, 8 * len(stage), *stage, len(second), b, outer, *_passes(second)]
        self._numbers = np.array(numbers, np.int64)
        self.work_elements = 2 * max(a, b) + a * (b + 1)
        """What a transform works in."""

    @property
    def address(self) -> int:
        """Where it is; valid as long as this object."""
        return int(self._numbers.ctypes.data)


def _split(length: int) -> tuple[list[int], list[int]]:
    """Radices of two factors of about the same size; the second are none where there is one radix only.

    >>> _split(1024)
    ([8, 4], [8, 4])
    """
    twos = 0
    while length % 2 == 0:
        length, twos = length // 2, twos + 1
    eights = twos // 3 - (twos % 3 == 1 and twos > 1)  # 4 x 4 rather than 8 x 2
    radices = [8] * eights + [4] * ((twos - 3 * eights) // 2) + [2] * ((twos - 3 * eights) % 2)
    for factor in (5, 3):
        while length % factor == 0:
            length //= factor
            radices.append(factor)
    radices.sort(reverse=True)
    best, whole = radices, math.prod(radices)
    for count in range(1, len(radices)):
        for chosen in combinations(radices, count):
            if abs(math.log(math.prod(chosen) ** 2 / whole)) < abs(math.log(math.prod(best) ** 2 / whole)):
                best = list(chosen)
    rest = list(radices)
    for radix in best:
        rest.remove(radix)
    return best, rest


def _passes(radices: list[int]) -> list[int]:
    """Each radix, and how many elements lie between those that its pass combines."""
    left = [math.prod(radices[at + 1 :]) for at in range(len(radices))]
    return [number for pair in zip(radices, left, strict=True) for number in pair]


def _twiddles(radices: list[int]) -> NDArray[np.complex64]:
    """Of all steps but the last."""
    tables, size = [np.zeros(0, np.complex64)], math.prod(radices)
    for radix in radices[:-1]:
        turns = np.arange(size // radix)[:, None] * np.arange(radix) / size
        tables.append(np.exp(-2j * np.pi * turns).astype(np.complex64).ravel())
        size //= radix
    return np.concatenate(tables)
