"""Multi-tau correlation of a chunk for a *cell*: as many pixels as a SIMD vector has lanes.

Buffers are addresses of rows of LANES float32, the samples of one level: 8 rows before the chunk, then the
chunk's,
then zeros up to a multiple of 4. Four delays per level only (`dpl` = 4), no bad frames; `kernel` does the rest.

`first_level` keeps 8 accumulators, 4 samples and one earlier sample in registers: 13 of the 16 that AVX2 has. Each
earlier sample is loaded once for up to 4 multiply-adds. No load feeds fewer, none is spilled.
"""

from __future__ import annotations

from lightkeep.analysis.simd.compile import part
from lightkeep.analysis.simd.lanes import add_to_f64, fmuladd, load, store, transpose, zero
from lightkeep.analysis.simd.memory import get_i32
from lightkeep.analysis.simd.record import record
from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.xpcs.kernels.job import HISTORY, PIECES, ROW, SLOT, SLOTS, STATE_ROW, Job, Place
from lightkeep.analysis.xpcs.kernels.layout import GROUP

job_at = record(Job)
place_at = record(Place)


@part
def first_level(x: int, n: int, y: int, first: int, fourth: int, fifth: int) -> None:
    """Add the products of n samples (a multiple of 4) with those 1 .. 8 earlier; sums of pairs of samples go to y.

    first, fourth, fifth: where a state has the accumulators of lags 1 .. 3, of 4, and of 5 .. 8.
    """
    a1 = a2 = a3 = a4 = zero()
    a5 = a6 = a7 = a8 = zero()
    for step in range(n >> 2):
        p = x + step * (4 * ROW)
        q = y + step * (2 * ROW)
        x0, x1 = load(p), load(p + ROW)
        x2, x3 = load(p + 2 * ROW), load(p + 3 * ROW)
        store(q, x0 + x1)
        store(q + ROW, x2 + x3)
        h = load(p - 8 * ROW)
        a8 = fmuladd(x0, h, a8)
        h = load(p - 7 * ROW)
        a7 = fmuladd(x0, h, a7)
        a8 = fmuladd(x1, h, a8)
        h = load(p - 6 * ROW)
        a6 = fmuladd(x0, h, a6)
        a7 = fmuladd(x1, h, a7)
        a8 = fmuladd(x2, h, a8)
        h = load(p - 5 * ROW)
        a5 = fmuladd(x0, h, a5)
        a6 = fmuladd(x1, h, a6)
        a7 = fmuladd(x2, h, a7)
        a8 = fmuladd(x3, h, a8)
        h = load(p - 4 * ROW)
        a4 = fmuladd(x0, h, a4)
        a5 = fmuladd(x1, h, a5)
        a6 = fmuladd(x2, h, a6)
        a7 = fmuladd(x3, h, a7)
        h = load(p - 3 * ROW)
        a3 = fmuladd(x0, h, a3)
        a4 = fmuladd(x1, h, a4)
        a5 = fmuladd(x2, h, a5)
        a6 = fmuladd(x3, h, a6)
        h = load(p - 2 * ROW)
        a2 = fmuladd(x0, h, a2)
        a3 = fmuladd(x1, h, a3)
        a4 = fmuladd(x2, h, a4)
        a5 = fmuladd(x3, h, a5)
        h = load(p - ROW)
        a1 = fmuladd(x0, h, a1)
        a2 = fmuladd(x1, h, a2)
        a3 = fmuladd(x2, h, a3)
        a4 = fmuladd(x3, h, a4)
        a1 = fmuladd(x3, x2, fmuladd(x2, x1, fmuladd(x1, x0, a1)))
        a2 = fmuladd(x3, x1, fmuladd(x2, x0, a2))
        a3 = fmuladd(x3, x0, a3)
    add_to_f64(first, a1)
    add_to_f64(first + SLOT, a2)
    add_to_f64(first + 2 * SLOT, a3)
    add_to_f64(fourth, a4)
    add_to_f64(fifth, a5)
    add_to_f64(fifth + SLOT, a6)
    add_to_f64(fifth + 2 * SLOT, a7)
    add_to_f64(fifth + 3 * SLOT, a8)


@part
def upper_level(x: int, n: int, y: int, base: int, acc: int) -> None:
    """The same for the lags base + 1 .. base + 4, in two chains, as one would wait for itself."""
    a1 = a2 = a3 = a4 = zero()
    b1 = b2 = b3 = b4 = zero()
    for step in range(n >> 2):
        p = x + step * (4 * ROW)
        q = y + step * (2 * ROW)
        e = p - base * ROW
        x0, x1 = load(p), load(p + ROW)
        x2, x3 = load(p + 2 * ROW), load(p + 3 * ROW)
        store(q, x0 + x1)
        store(q + ROW, x2 + x3)
        h = load(e - 4 * ROW)
        a4 = fmuladd(x0, h, a4)
        h = load(e - 3 * ROW)
        a3 = fmuladd(x0, h, a3)
        b4 = fmuladd(x1, h, b4)
        h = load(e - 2 * ROW)
        a2 = fmuladd(x0, h, a2)
        b3 = fmuladd(x1, h, b3)
        a4 = fmuladd(x2, h, a4)
        h = load(e - ROW)
        a1 = fmuladd(x0, h, a1)
        b2 = fmuladd(x1, h, b2)
        a3 = fmuladd(x2, h, a3)
        b4 = fmuladd(x3, h, b4)
        h = load(e)
        b1 = fmuladd(x1, h, b1)
        a2 = fmuladd(x2, h, a2)
        b3 = fmuladd(x3, h, b3)
        h = load(e + ROW)
        a1 = fmuladd(x2, h, a1)
        b2 = fmuladd(x3, h, b2)
        h = load(e + 2 * ROW)
        b1 = fmuladd(x3, h, b1)
    add_to_f64(acc, a1 + b1)
    add_to_f64(acc + SLOT, a2 + b2)
    add_to_f64(acc + 2 * SLOT, a3 + b3)
    add_to_f64(acc + 3 * SLOT, a4 + b4)


@part
def squares(x: int, n: int, acc: int) -> None:
    """Add the squares of n samples."""
    a = zero()
    for t in range(n):
        sample = load(x + t * ROW)
        a = fmuladd(sample, sample, a)
    add_to_f64(acc, a)


@part
def recall(x: int, history: int) -> None:
    """Put the last samples before this chunk in front of a buffer."""
    for t in range(HISTORY):
        store(x + (t - HISTORY) * ROW, load(history + t * STATE_ROW))


@part
def remember(x: int, n: int, start: int, history: int, head: int) -> None:
    """Keep the last samples of a level, and its first where this chunk has them; `start`: number of its first."""
    for t in range(HISTORY):
        store(history + t * STATE_ROW, load(x + (n - HISTORY + t) * ROW))
    for t in range(start, min(start + n, HISTORY)):
        store(head + t * STATE_ROW, load(x + (t - start) * ROW))


@part
def pad(x: int, n: int) -> None:
    """Zeros behind n samples, up to a multiple of 4."""
    for t in range(n, (n + 3) & ~3):
        store(x + t * ROW, zero())


@part
def take_sums(x: int, rows: int, static: int, total: int, segments: int, turned: int) -> None:
    """Add rows of sums over frames to the pixels' total and, row by row, to the segments of their partitions.

    static: partitions of the cell's pixels, int32, -1: none. segments: (partitions, PIECES) float64; what is added
    behind the rows does not count. turned: memory of LANES rows.
    """
    for r in range(rows):
        add_to_f64(total, load(x + r * ROW))
    for r in range(0, rows, LANES):
        transpose(x + r * ROW, ROW, turned, ROW)
        for i in range(LANES):
            label = get_i32(static, i)
            if label >= 0:
                add_to_f64(segments + (label * PIECES + r) * 8, load(turned + i * ROW))


@part
def is_used(labels: int) -> bool:
    """Whether any of a cell's pixels has a label."""
    most = -1
    for i in range(LANES):
        most = max(most, get_i32(labels, i))
    return most >= 0


@part
def is_first(labels: int, i: int) -> bool:
    """Whether pixel i of a cell has a label, and is the first with this one."""
    label = get_i32(labels, i)
    for j in range(i):
        if get_i32(labels, j) == label:
            return False
    return bool(label >= 0)


@part
def piece_sums(x: int, n: int, frames: int, out: int) -> int:
    """Rows of sums over every `frames` of n samples, the last of fewer; how many."""
    rows = (n + frames - 1) // frames
    for r in range(rows):
        s = zero()
        for t in range(r * frames, min((r + 1) * frames, n)):
            s = s + load(x + t * ROW)
        store(out + r * ROW, s)
    return rows


@part
def advance_rows(
    job_address: int, place_address: int, g: int, sub: int, n: int, start: int, level: int, piece_level: int,
    segments: int, static: int,
) -> int:  # fmt: skip
    """Take n samples of a level and the next ones, in the job's buffer x, into the state of a cell.

    start: number of the first sample. Sums over pieces are taken on the level `piece_level`; -1: they are already.
    """
    job, state = job_at(job_address), place_at(place_address)
    x, y = job.x, job.y
    while level < state.levels and n > 0:
        pad(x, n)
        if level == piece_level:
            take_sums(x, n, static, state.total + (g * GROUP + sub * LANES) * 8, segments, job.scratch)
        place = (level * state.groups + g) * HISTORY * STATE_ROW + sub * ROW
        recall(x, state.history + place)
        acc = state.acc + ((level + 1) * state.groups + g) * SLOTS * SLOT + sub * LANES * 8
        m = (n + 3) & ~3
        if level == 0:
            low = state.acc + g * SLOTS * SLOT + sub * LANES * 8
            if job.base == 4:
                first_level(x, m, y, low + SLOT, low + 4 * SLOT, acc)
            else:
                first_level(x, m, y, low + SLOT, acc, acc + SLOT)
            if job.lowest == 0:
                squares(x, n, low)
        else:
            upper_level(x, m, y, job.base, acc)
        remember(x, n, start, state.history + place, state.head + place)
        if start & 1:
            for t in range((n + 1) >> 1):
                store(y + t * ROW, load(x + (2 * t - 1) * ROW) + load(x + 2 * t * ROW))
        n = (n + (start & 1)) >> 1
        start >>= 1
        level += 1
        x, y = y, x
    return 0
