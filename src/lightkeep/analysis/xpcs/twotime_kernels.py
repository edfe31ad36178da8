"""The loops of the two-time correlation. They release the interpreter's lock; the threads are the caller's.

No number here depends on how the work is cut: sums over pixels run in the order of ranks, and every addend is a
multiple of 2**-24, so that sums below 2**29 are exact and shards add up to the same bytes in any order.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]

_ROUND: Final = 1.5 * 2.0**28
"""x + _ROUND - _ROUND is x to the nearest multiple of 2**-24 (float64 has 52 bits behind the point)."""


@numba.njit(nogil=True, cache=True)
def gather(frames: Any, row_of: Any, begins: Any, pixel: Any, top: Any, rows: Any, is_top: Any) -> int:
    """Sum the used pixels of whole-numbered frames into rows; return how many values were negative.

    Parameters
    ----------
    frames: (n, H * W); row_of: the frames to take; begins: (m + 1,) where each row's begin in row_of.
    pixel: (P,) uint32; top: what counts as saturated.
    rows: (m, P) is added to; is_top: (P,) becomes True for saturated pixels.
    """
    negative = 0
    for row in range(rows.shape[0]):
        out = rows[row]
        for at in range(begins[row], begins[row + 1]):
            frame = frames[row_of[at]]
            reached = False
            for rank in range(pixel.size):
                value = frame[pixel[rank]]
                out[rank] += value
                reached |= value == top
                negative += value < 0
            if reached:
                for rank in range(pixel.size):
                    is_top[rank] |= frame[pixel[rank]] == top
    return negative


@numba.njit(nogil=True, cache=True)
def gather_fractions(frames: Any, row_of: Any, begins: Any, pixel: Any, rows: Any) -> tuple[int, int, int]:
    """As `gather`, of floating-point frames; return how many values were negative, not finite, not whole."""
    negative, invalid, broken = 0, 0, 0
    for row in range(rows.shape[0]):
        out = rows[row]
        for at in range(begins[row], begins[row + 1]):
            frame = frames[row_of[at]]
            for rank in range(pixel.size):
                value = frame[pixel[rank]]
                if not np.isfinite(value):
                    invalid += 1
                    continue
                negative += value < 0
                broken += np.floor(value) != value
                out[rank] += value
    return negative, invalid, broken


@numba.njit(nogil=True, cache=True)
def counted(rows: Any, edges: Any, numbers: Any) -> None:
    """Set numbers (n, n_bins) to how many of each bin's pixels, between its edges, are not 0 in rows (n, P)."""
    for row in range(rows.shape[0]):
        for place in range(edges.size - 1):
            mine = rows[row, edges[place] : edges[place + 1]]
            found = 0
            for at in range(mine.size):
                found += mine[at] != 0
            numbers[row, place] = found


@numba.njit(nogil=True, cache=True)
def count(rank: Any, begin: int, end: int, counts: Any) -> None:
    """Add to counts (P,) how often each rank begin .. end occurs."""
    for at in range(rank.size):
        if begin <= rank[at] < end:
            counts[rank[at]] += 1


@numba.njit(nogil=True, cache=True)
def place(
    frame: Any, rank: Any, value: Any, begin: int, end: int, first: Any, last: Any, frames: Any, values: Any
) -> None:
    """Append events of the ranks begin .. end to their pixels' lists; the same frame again adds to its value.

    Parameters
    ----------
    first: (P,) where lists begin; last: (P,) where they end so far. frames, values: the lists.
    """
    for at in range(rank.size):
        mine = rank[at]
        if begin <= mine < end:
            to = last[mine]
            if to > first[mine] and frames[to - 1] == frame[at]:
                values[to - 1] += value[at]
            else:
                frames[to] = frame[at]
                values[to] = value[at]
                last[mine] = to + 1


@numba.njit(nogil=True, cache=True)
def spread(first: Any, last: Any, frame: Any, value: Any, edges: Any, columns: Any, counts: Any) -> None:
    """Add the events of the ranks between edges to the columns of each group in counts (N, P)."""
    for group in range(columns.shape[0]):
        for rank in range(edges[group], edges[group + 1]):
            column = columns[group, 0] + rank - edges[group]
            for at in range(first[rank], last[rank]):
                counts[frame[at], column] += value[at]


@numba.njit(nogil=True, cache=True)
def scatter(frame: Any, rank: Any, value: Any, first: int, counts: Any) -> None:
    """Add events to counts (n, P) of frames from the first."""
    for at in range(frame.size):
        counts[frame[at] - first, rank[at]] += value[at]


@numba.njit(nogil=True, cache=True)
def weigh(first: Any, last: Any, frame: Any, value: Any, edges: Any, weights: Any, weighted: Any) -> None:
    """Multiply events with the weight of their partition in their frame.

    Parameters
    ----------
    edges: (n_partitions + 1,) where partitions begin; weights: (n_partitions, N).
    weighted: like value, is written.
    """
    for partition in range(edges.size - 1):
        weight = weights[partition]
        for rank in range(edges[partition], edges[partition + 1]):
            for at in range(first[rank], last[rank]):
                weighted[at] = value[at] * weight[frame[at]]


@numba.njit(nogil=True, cache=True)
def totals(first: Any, last: Any, frame: Any, value: Any, edges: Any, sums: Any) -> None:
    """Add the counts of each partition's pixels to sums (n_partitions, N)."""
    for partition in range(edges.size - 1):
        for rank in range(edges[partition], edges[partition + 1]):
            for at in range(first[rank], last[rank]):
                sums[partition, frame[at]] += value[at]


@numba.njit(nogil=True, cache=True)
def add_pairs(
    first: Any, last: Any, frame: Any, weighted: Any, begin: int, end: int, height: int, sums: Any
) -> None:
    """Add the products of all pairs of events of a pixel to sums[t1, t2], begin <= t1 < end and t1 <= t2.

    `height` rows of sums are worked on at once, so that they stay in the cache.
    """
    at_of = np.empty(first.size, np.int64)
    for rank in range(first.size):
        at_of[rank] = first[rank] + np.searchsorted(frame[first[rank] : last[rank]], begin)
    for top in range(begin, end, height):
        bottom = min(top + height, end)
        for rank in range(first.size):
            at, stop = at_of[rank], last[rank]
            while at < stop and frame[at] < bottom:
                row, x = sums[frame[at]], weighted[at]
                for other in range(at, stop):
                    row[frame[other]] += (x * weighted[other] + _ROUND) - _ROUND
                at += 1
            at_of[rank] = at


@numba.njit(nogil=True, cache=True)
def add_gram(gram: Any, one: Any, two: Any, is_diagonal: bool, sums: Any) -> None:
    """Add gram[i, j] * one[i] * two[j] to sums[i, j]; only j >= i when on the diagonal."""
    for i in range(gram.shape[0]):
        weight = one[i]
        for j in range(i if is_diagonal else 0, gram.shape[1]):
            sums[i, j] += (gram[i, j] * (weight * two[j]) + _ROUND) - _ROUND


@numba.njit(nogil=True, cache=True)
def normalise(sums: Any, scale: Any, pixels: float, c2: Any) -> None:
    """Make c2 (N, N) float32: sums[i, j] * scale[i] * scale[j] * pixels; only the sums' upper triangle is read."""
    frames, tile = c2.shape[0], 64
    for top in range(0, frames, tile):
        for left in range(top, frames, tile):
            for i in range(top, min(top + tile, frames)):
                for j in range(max(i, left), min(left + tile, frames)):
                    value = np.float32(sums[i, j] * scale[i] * scale[j] * pixels)
                    c2[i, j] = value
                    c2[j, i] = value


@numba.njit(nogil=True, cache=True)
def along_diagonals(c2: Any, weight: Any) -> tuple[Float64, Float64]:
    """Sums over t of c2[t, t + k] * weight[t] * weight[t + k], and of the weights' products; (n,), (n,)."""
    frames = c2.shape[0]
    sums, norm = np.zeros(frames), np.zeros(frames)
    for t in range(frames):
        for k in range(frames - t):
            product = weight[t] * weight[t + k]
            sums[k] += c2[t, t + k] * product
            norm[k] += product
    return sums, norm


@numba.njit(nogil=True, cache=True)
def sum_columns(counts: Any, columns: Any, zero: Any, sums: Any) -> None:
    """Add counts (N, P) of each group's columns to sums (n_groups, N).

    columns: (n_groups, 2) begin and end. The type of `zero` is the one to sum in: whole numbers are much faster.
    """
    for frame in range(sums.shape[1]):
        row = counts[frame]
        for group in range(columns.shape[0]):
            mine, total = row[columns[group, 0] : columns[group, 1]], zero
            for at in range(mine.size):
                total += mine[at]
            sums[group, frame] += total


@numba.njit(nogil=True, cache=True)
def largest_square(counts: Any, begin: int, end: int) -> float:
    """Largest sum of squares of a frame's counts in the columns begin .. end."""
    largest = 0.0
    for frame in range(counts.shape[0]):
        row, total = counts[frame], 0.0
        for rank in range(begin, end):
            total += float(row[rank]) * float(row[rank])
        largest = max(largest, total)
    return largest


@numba.njit(nogil=True, cache=True)
def lay(rows: Any, edges: Any, columns: Any, counts: Any) -> None:
    """Add the ranks between edges of rows (n, P) to the columns of each group in counts (n, P')."""
    for row in range(rows.shape[0]):
        for group in range(columns.shape[0]):
            one = rows[row, edges[group] : edges[group + 1]]
            to = counts[row, columns[group, 0] : columns[group, 0] + one.size]
            for at in range(one.size):
                to[at] += one[at]


@numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})
def _dot(one: Any, two: Any) -> float:
    """Sum of products, in float32: exact for whole numbers while below 2**24."""
    total = np.float32(0)
    for at in range(one.size):
        total += one[at] * two[at]
    return float(total)


@numba.njit(nogil=True, cache=True)
def add_band(rows: Any, weights: Any, edges: Any, lags: Any, begin: int, end: int, sums: Any) -> None:
    """Add weighted products of samples and those `lags` before them, partition by partition.

    Parameters
    ----------
    rows: (n, P) float32 samples; weights: (n_partitions, n); edges: (n_partitions + 1,) columns of the partitions.
    begin, end: the later samples. sums: (n_lags, n) is added to, at the later sample.
    """
    for partition in range(edges.size - 1):
        left, right = edges[partition], edges[partition + 1]
        weight = weights[partition]
        for later in range(begin, end):
            for place in range(lags.size):
                earlier = later - lags[place]
                if earlier >= 0:
                    product = _dot(rows[earlier, left:right], rows[later, left:right])
                    sums[place, later] += product * weight[earlier] * weight[later]
