"""Multi-tau correlation of a chunk of frames, in plain numba: the oracle of the SIMD kernels, and their stand-in.

A buffer holds the samples of one level for a group of 64 pixels, (2 dpl + samples + padding, 64): first the 2 dpl
samples before the chunk, then the chunk's, then zeros. So no code is needed for edges: products with zeros are
zero.
The sum of pairs of rows is the next level.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.simd import compiled
from lightkeep.analysis.simd.memory import copy_bytes, get_f32, get_f64, set_f32, set_f64
from lightkeep.analysis.xpcs.kernels.state import CHUNK, Delays, Float32, Float64, Int64, State
from lightkeep.analysis.xpcs.kernels.work import FRACTION_BITS, INTENSITY_BITS, INTENSITY_SCALE, SATURATED

STEPS: Final = 8
"""Frames per pass over the accumulators: they are loaded and stored once for so many multiply-adds."""
LANES: Final = 64

FRACTION_SCALE: Final = 2.0**FRACTION_BITS
FRACTION_MASK: Final = (1 << FRACTION_BITS) - 1


@compiled
def clear(row: NDArray[Any]) -> None:
    """Zeros."""
    for i in range(row.size):
        row[i] = 0


@compiled
def load_group(tile: NDArray[Any], n: int, at: int, into: Float32) -> None:
    """Put n frames of a tile's 64 pixels from `at` into rows `at` of a buffer, as float32, zeros behind."""
    steps = np.uint64(n)
    offset = np.uint64(at)
    for t in range(steps):
        for i in range(np.uint64(LANES)):
            into[offset + t, i] = tile[t, i]
    for t in range(steps, np.uint64(-(-n // STEPS) * STEPS + STEPS)):
        for i in range(np.uint64(LANES)):
            into[offset + t, i] = 0


@compiled
def add_lag(x: int, t: int, e: int, to: int) -> None:
    """Add the products of four rows from element t on with those from e on."""
    for i in range(LANES):
        s = get_f32(to, i)
        for k in range(4):
            s += get_f32(x, t + k * LANES + i) * get_f32(x, e + k * LANES + i)
        set_f32(to, i, s)


@compiled
def add_four_lags(x: int, t: int, e: int, to: int) -> None:
    """The same for the lag of e and the three after it; their sums are side by side."""
    for i in range(LANES):
        x0, x1 = get_f32(x, t + i), get_f32(x, t + LANES + i)
        x2, x3 = get_f32(x, t + 2 * LANES + i), get_f32(x, t + 3 * LANES + i)
        a, b, c = get_f32(x, e - 3 * LANES + i), get_f32(x, e - 2 * LANES + i), get_f32(x, e - LANES + i)
        d, f = get_f32(x, e + i), get_f32(x, e + LANES + i)
        g, h = get_f32(x, e + 2 * LANES + i), get_f32(x, e + 3 * LANES + i)
        set_f32(to, i, get_f32(to, i) + x0 * d + x1 * f + x2 * g + x3 * h)
        set_f32(to, LANES + i, get_f32(to, LANES + i) + x0 * c + x1 * d + x2 * f + x3 * g)
        set_f32(to, 2 * LANES + i, get_f32(to, 2 * LANES + i) + x0 * b + x1 * c + x2 * d + x3 * f)
        set_f32(to, 3 * LANES + i, get_f32(to, 3 * LANES + i) + x0 * a + x1 * b + x2 * c + x3 * d)


@compiled
def correlate(x: Float32, n: int, history: int, first: int, sums: Float32) -> None:
    """Add to sums[j] the products of the n samples of a buffer with those first + j earlier.

    Four samples and four lags at a time: 11 rows are read for 16 products, and a sum is in memory once for four.
    Rows are at addresses, a fixed step from each other, or LLVM would have to compare each with each for overlap
    and give up.
    """
    lags = sums.shape[0]
    at, to = x.ctypes.data, sums.ctypes.data
    whole = lags // 4 * 4
    for step in range(-(-n // 4)):
        t = (history + 4 * step) * LANES
        for j in range(0, whole, 4):
            add_four_lags(at, t, t - (first + j) * LANES, to + j * LANES * 4)
        for j in range(whole, lags):
            add_lag(at, t, t - (first + j) * LANES, to + j * LANES * 4)


@compiled
def add_rows(sums: Float32, acc: Float64) -> None:
    """Add a chunk's sums to those of the run."""
    for j in range(sums.shape[0]):
        for i in range(LANES):
            acc[j, i] += sums[j, i]


@compiled
def fold(x: Float32, n: int, at: int, into: Float32, history: int) -> None:
    """Sum n pairs of rows from row `at` into rows `history` of another buffer, zeros behind."""
    a = np.uint64(at)
    h = np.uint64(history)
    one = np.uint64(1)
    for t in range(np.uint64(n)):
        for i in range(np.uint64(LANES)):
            into[h + t, i] = x[a + t + t, i] + x[a + t + t + one, i]
    for t in range(np.uint64(n), np.uint64(-(-n // STEPS) * STEPS + STEPS)):
        for i in range(np.uint64(LANES)):
            into[h + t, i] = 0


@compiled
def recall(history: Float32, x: Float32) -> None:
    """Put the samples before the chunk into a buffer."""
    copy_bytes(history.ctypes.data, x.ctypes.data, history.size * 4)


@compiled
def remember(x: Float32, n: int, start: int, history: Float32, head: Float32) -> None:
    """Keep the last samples of a level, and its first where this chunk has them; `start`: number of its first."""
    length = history.shape[0]
    copy_bytes(x.ctypes.data + n * LANES * 4, history.ctypes.data, history.size * 4)
    for t in range(start, min(start + n, length)):
        for i in range(LANES):
            head[t, i] = x[length + t - start, i]


@compiled
def is_bad(bad: Int64, level: int, sample: int) -> bool:
    """Whether a level's sample has a bad frame in it; bad: ascending frames."""
    low, high = 0, bad.size
    while low < high:
        middle = (low + high) // 2
        if bad[middle] < sample << level:
            low = middle + 1
        else:
            high = middle
    return bool(low < bad.size and bad[low] < (sample + 1) << level)


@compiled
def drop_bad(x: Float32, n: int, start: int, level: int, history: int, bad: Int64, lost: Float64) -> None:
    """Make the bad ones of n samples zero; `lost` gains what good frames lose by that."""
    for t in range(n):
        if is_bad(bad, level, start + t):
            for i in range(LANES):
                lost[i] += x[history + t, i]
                x[history + t, i] = 0


@compiled
def miss(
    x: Float32, n: int, start: int, level: int, bad: Int64, first: int, lags: int, early: Float64, late: Float64
) -> None:
    """Sum the samples of pairs that have a bad partner: early[j] those before a bad one, late[j] those after."""
    length = 2 * (early.shape[0] - 1)
    for t in range(-length, n):
        if start + t < 0 or not is_bad(bad, level, start + t):
            continue
        for j in range(lags):
            lag = first + j
            if t >= 0 and start + t >= lag:
                for i in range(LANES):
                    early[j, i] += x[length + t - lag, i]
            if 0 <= t + lag < n:
                for i in range(LANES):
                    late[j, i] += x[length + t + lag, i]


@compiled
def advance_group(
    x: Float32, y: Float32, n: int, chunk: int, dpl: int, base: int, lowest: int, bad: Int64, state: State, g: int
) -> None:
    """Take n frames of a chunk into a group's state.

    Parameters
    ----------
    x: buffer with the frames from row 2 dpl; y: buffer for the next level. Both are overwritten.
    n: number of frames; below CHUNK only in the last chunk of a run.
    chunk: number of the chunk in the run.
    lowest: lowest lag of level 0, 0 or 1.
    bad: ascending bad frames of the run.
    """
    length = 2 * dpl
    start = chunk * CHUNK
    level = 0
    while n > 0:
        recall(state.history[level, g], x)
        if bad.size:
            drop_bad(x, n, start, level, length, bad, state.lost[level, g, 0])
            miss(x, n, start, level, bad, base + 1, dpl, state.early[level + 1, g], state.late[level + 1, g])
            if level == 0:
                miss(x, n, start, 0, bad, 0, base + 1, state.early[0, g], state.late[0, g])
        low = base + 1 - lowest if level == 0 else 0
        sums = np.zeros((low + dpl, LANES), np.float32)
        correlate(x, n, length, base + 1 - low, sums)
        add_rows(sums[:low], state.acc[0, g, lowest:])
        add_rows(sums[low:], state.acc[level + 1, g])
        remember(x, n, start, state.history[level, g], state.head[level, g])
        odd = start % 2
        n = (n + odd) // 2
        if level + 1 == state.history.shape[0]:
            break
        fold(x, n, length - odd, y, length)
        x, y = y, x
        start //= 2
        level += 1


@compiled
def add_intensity(x: Float32, n: int, history: int, mask: Float32, bins: Int64, into: Int64, frame: int) -> None:
    """Add the counts of each dynamic bin in each of n frames, times 2**INTENSITY_BITS, to into[frame + t, bin]."""
    s = np.zeros(LANES // 2, np.float32)
    for q in range(bins.size):
        for t in range(n):
            for i in range(32):
                s[i] = x[history + t, i] * mask[q, i] + x[history + t, i + 32] * mask[q, i + 32]
            for i in range(16):
                s[i] += s[i + 16]
            for i in range(8):
                s[i] += s[i + 8]
            for i in range(4):
                s[i] += s[i + 4]
            total = np.float64((s[0] + s[2]) + (s[1] + s[3]))
            into[frame + t, bins[q]] += np.int64(np.rint(total * INTENSITY_SCALE))


@compiled
def add_counts(
    x: Float32, n: int, history: int, mask: Float32, bins: Int64, into: Int64, frame: int, most: int
) -> None:
    """The same for whole counts up to `most`, which is below 2**24.

    Whole numbers may be added in any order, so in vectors; and the sums of several bins stand side by side in one.
    """
    width = 0
    while LANES * most >> width:
        width += 1
    together = 30 // max(width, 1)
    first = x.ctypes.data + history * LANES * 4
    weights = np.empty(LANES, np.float32)
    for q in range(0, bins.size, together):
        end = min(q + together, bins.size)
        clear(weights)
        for k in range(q, end):
            scale = np.float32(1 << width * (k - q))
            for i in range(LANES):
                weights[i] += mask[k, i] * scale
        for t in range(n):
            row = first + t * LANES * 4
            s = np.int32(0)
            for i in range(LANES):
                s = np.int32(s + np.int32(get_f32(row, i) * get_f32(weights.ctypes.data, i)))
            for k in range(q, end):
                into[frame + t, bins[k]] += np.int64(s & ((1 << width) - 1)) << INTENSITY_BITS
                s >>= width


@compiled
def sum_rows(x: Float32, begin: int, end: int, into: Float64) -> None:
    """Add rows begin .. end of a buffer to a row of 64."""
    s = np.empty(LANES, np.float32)
    for first in range(begin, end, 32):
        for i in range(LANES):
            s[i] = 0
        for t in range(np.uint64(first), np.uint64(min(first + 32, end))):
            for i in range(np.uint64(LANES)):
                s[i] += x[t, i]
        for i in range(LANES):
            into[i] += s[i]


@compiled
def exact_add(value: float, whole: Int64, part: Int64, at: int) -> None:
    """Add a number to an ExactSum's element."""
    down = np.floor(value)
    fraction = part[at] + np.int64(np.rint((value - down) * FRACTION_SCALE))
    whole[at] += np.int64(down) + (fraction >> FRACTION_BITS)
    part[at] = fraction & FRACTION_MASK


@compiled
def finish_group(
    state: State, g: int, frames: int, delays: Delays, noise: float, static: Any, sums: Float64
) -> None:
    """Add a group's per-pixel results to the rows of their static partitions.

    noise: IP and IF that are not above this times the total are 0.
    sums: (n_static of the block, 6, n_tau): G2, IP, IF (sums over the pairs), g, g^2, number of pixels.
    """
    length = state.history.shape[2]
    taus = delays.level.size
    out = np.empty((LANES, 3, taus))
    pairs = delays.pairs.astype(np.float64)
    work = np.zeros((5, LANES))
    total, tail, head, early, late = work[0], work[1], work[2], work[3], work[4]
    for i in range(LANES):
        total[i] = state.total[0, g, 0, i]
    level, lag = 0, 0
    for d in range(taus):
        while level < delays.level[d]:
            odd = (frames >> level) % 2
            for i in range(LANES):
                total[i] -= odd * np.float64(state.history[level, g, length - 1, i])
                tail[i] = 0
                head[i] = 0
            level += 1
            lag = 0
            if state.lost.shape[1]:
                for i in range(LANES):
                    total[i] -= state.lost[level, g, 0, i]
        while lag < delays.lag[d]:
            for i in range(LANES):
                tail[i] += state.history[level, g, length - 1 - lag, i]
                head[i] += state.head[level, g, lag, i]
            lag += 1
        row, slot = delays.row[d], delays.slot[d]
        for i in range(LANES):
            early[i] = total[i] - tail[i]
            late[i] = total[i] - head[i]
        if state.lost.shape[1]:
            for i in range(LANES):
                early[i] -= state.early[row, g, slot, i]
                late[i] -= state.late[row, g, slot, i]
        for i in range(LANES):
            least = noise * total[i]
            out[i, 0, d] = state.acc[row, g, slot, i]
            out[i, 1, d] = early[i] if early[i] > least else 0.0
            out[i, 2, d] = late[i] if late[i] > least else 0.0
    for i in range(LANES):
        if static[i] >= 0 and not state.remark[0, g, 0, i] & SATURATED:
            _finish_pixel(out[i].ctypes.data, pairs.ctypes.data, taus, sums[static[i]].ctypes.data)


@compiled
def _finish_pixel(pixel: int, pairs: int, taus: int, sums: int) -> None:
    """Add a pixel's G2, IP, IF, g, g^2 and whether it counts; pixel: (3, taus), sums: (6, taus)."""
    for d in range(taus):
        G2, IP, IF = get_f64(pixel, d), get_f64(pixel, d + taus), get_f64(pixel, d + 2 * taus)
        product = IP * IF
        counts = 1.0 if product > 0 else 0.0
        ratio = G2 * get_f64(pairs, d) / product if product > 0 else 0.0
        set_f64(sums, d, get_f64(sums, d) + G2)
        set_f64(sums, d + taus, get_f64(sums, d + taus) + IP)
        set_f64(sums, d + 2 * taus, get_f64(sums, d + 2 * taus) + IF)
        set_f64(sums, d + 3 * taus, get_f64(sums, d + 3 * taus) + ratio)
        set_f64(sums, d + 4 * taus, get_f64(sums, d + 4 * taus) + ratio * ratio)
        set_f64(sums, d + 5 * taus, get_f64(sums, d + 5 * taus) + counts)
