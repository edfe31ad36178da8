"""Products of every two frames, summed over pixels: what takes the time of a dense two-time correlation.

Whole numbers give exact sums, by bytes (`twotime_dot`) where counts are small and the processor can, else by BLAS
in float32 over blocks of pixels narrow enough that no sum exceeds 2**24, else in float64: always the same result.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.xpcs import twotime_dot as dot
from lightkeep.analysis.xpcs import twotime_kernels as kernels
from lightkeep.analysis.xpcs.twotime_series import ROWS

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Tile = tuple[int, int]

_BLAS_TILE: Final = 512
"""Frames along an edge of a matrix product of BLAS."""
_BLAS_BLOCK: Final = 8192
"""Pixels of a matrix product at most: what bounds the memory of a tile."""
_NARROW: Final = 256
"""Below so many pixels float64 is faster than float32 over many blocks."""
_EXACT: Final = 2**24
"""float32 holds whole numbers up to here."""


@dataclass(frozen=True, eq=False)
class Groups:
    """Counts of a bin's pixels, in groups that are weighted alike."""

    counts: NDArray[Any]
    """(N', P') see `PixelCounts`."""
    columns: Int64
    """(n_groups, 2) where each group's columns begin and end."""
    weights: Float64
    """(n_groups, N) factor of each group's counts in each frame."""
    is_integer: bool
    """Whether counts are whole numbers."""

    def add_products(self, sums: Float64, *, threads: int, bytes_too: bool = True) -> None:
        """Add the weighted products of frames t1 <= t2, summed over pixels, to sums[t1, t2] (N, N)."""
        highest = max(abs(float(self.counts.max(initial=0))), abs(float(self.counts.min(initial=0))))
        if bytes_too and self.counts.dtype == np.uint8 and highest <= dot.HIGHEST and dot.is_available():
            self._by_bytes(int(highest), sums, threads)
        else:
            self._by_blas(highest, sums, threads)

    def _by_bytes(self, highest: int, sums: Float64, threads: int) -> None:
        burst = dot.burst_of(highest)

        def work(tile: Tile) -> None:
            top, left = tile
            view = sums[top : top + ROWS, left : left + ROWS]
            dot.add_tile(self.counts, self.columns, self.weights, burst, top, left, ROWS, view)

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, _tiles(len(sums), ROWS)))

    def _by_blas(self, highest: float, sums: Float64, threads: int) -> None:
        products = list(self._blas_products(highest))

        def work(tile: Tile) -> None:
            top, left = (slice(start, min(start + _BLAS_TILE, len(sums))) for start in tile)
            for group, columns, dtype in products:
                one = self.counts[top, columns].astype(dtype)
                two = one if top == left else self.counts[left, columns].astype(dtype)
                weight = self.weights[group]
                # numpy hands a matrix times its own transpose to BLAS as such: half of the work.
                kernels.add_gram(one @ two.T, weight[top], weight[left], top == left, sums[top, left])

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, _tiles(len(sums), _BLAS_TILE)))

    def _blas_products(self, highest: float) -> Iterator[tuple[int, slice, type[np.floating[Any]]]]:
        """(group, columns, dtype) of each matrix product: as wide as sums are exact, always the same."""
        for group, (begin, end) in enumerate(self.columns.tolist()):
            width = _BLAS_BLOCK
            dtype: type[np.floating[Any]] = np.float32
            # A sum of products of two frames is at most the larger one's sum of squares (Cauchy and Schwarz).
            if not self.is_integer or kernels.largest_square(self.counts, begin, end) >= _EXACT:
                width = int(min(_BLAS_BLOCK, _EXACT // max(1.0, highest**2)))
                if not self.is_integer or width < _NARROW:
                    width, dtype = _BLAS_BLOCK // 2, np.float64
            for first in range(begin, end, width):
                yield group, slice(first, min(first + width, end)), dtype


def _tiles(frames: int, edge: int) -> list[Tile]:
    """Corners of the tiles of the upper triangle, those that take longest first."""
    starts = range(0, frames, edge)
    tiles = [(top, left) for top in starts for left in starts if left >= top]
    return sorted(tiles, key=lambda tile: tile[0] == tile[1])
