"""What a kernel is told: lengths, tables and where they are in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_LINE = 64
_RADICES = (4, 2, 3, 5)


def fast_length(least: int, *, even: bool = False) -> int:
    """Smallest length from `least` on with no prime factor above 5, for the FFT in lanes."""
    length = least + (least % 2 if even else 0)
    while _rest(length) > 1:
        length += 2 if even else 1
    return length


def _rest(length: int) -> int:
    for factor in (2, 3, 5):
        while length % factor == 0:
            length //= factor
    return length


def aligned(*shape: int, dtype: Any = np.float32) -> NDArray[Any]:
    """Zeros that begin at a line of the cache: a vector across two lines costs twice."""
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(count + _LINE, np.uint8)
    begin = -memory.ctypes.data % _LINE
    found: NDArray[Any] = memory[begin : begin + count].view(dtype).reshape(shape)
    return found


class FftPlan:
    """Radices and twiddle factors of one length, as `kernels.fft.transform` reads them."""

    def __init__(self, length: int) -> None:
        radices, left = [], length
        for radix in _RADICES:
            while left % radix == 0:
                radices.append(radix)
                left //= radix
        if left != 1:
            raise ValueError(f"the length {length} has a prime factor above 5")
        tables, size = [np.zeros(0, np.complex64)], length
        for radix in radices:
            turns = np.arange(size // radix)[:, None] * np.arange(1, radix) / size
            tables.append(np.exp(-2j * np.pi * turns).astype(np.complex64).ravel())
            size //= radix
        self._twiddles = np.concatenate(tables)
        self._numbers = np.array([length, len(radices), self._twiddles.ctypes.data, *radices], np.int64)

    @property
    def address(self) -> int:
        """Where it is; valid as long as this object."""
        return int(self._numbers.ctypes.data)
