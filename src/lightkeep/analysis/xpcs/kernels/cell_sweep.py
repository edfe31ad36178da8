"""Loops of the SIMD multi-tau kernels over blocks, tiles, chunks and cells; `sweep` is the same in plain numba.

Everything is passed by address: see `lightkeep.analysis.simd.memory` for why. The arrays behind are `sweep`'s, and
live as long as the `Job`.
"""

from __future__ import annotations

import numpy as np

from lightkeep.analysis.simd import compiled
from lightkeep.analysis.simd.lanes import (
    LANES,
    add_byte_sums,
    add_row_sums,
    add_row_sums_f64,
    add_to_f64,
    finish_pixels,
    load,
    load_u8,
    load_u16,
    load_u32,
    select_less,
    splat,
    store,
    zero,
)
from lightkeep.analysis.simd.memory import (
    clear_bytes,
    copy_bytes,
    get_f32,
    get_f64,
    get_i64,
    get_u8,
    get_u16,
    set_f32,
    set_f64,
    set_i64,
    set_u8,
    set_u16,
)
from lightkeep.analysis.xpcs.kernels.cell import (
    HISTORY,
    ROW,
    SLOT,
    STATE_ROW,
    first_level,
    pad,
    piece_sums,
    recall,
    remember,
    squares,
    take_sums,
    upper_level,
)
from lightkeep.analysis.xpcs.kernels.job import (
    CELL_PAD,
    CELLS,
    F32,
    MOST_PIECES,
    SLOTS,
    TILES,
    U8,
    U16,
    U32,
    Job,
    Place,
)
from lightkeep.analysis.xpcs.kernels.kernel import (
    FLOAT_NOISE,
    FRACTION_BITS,
    INTENSITY_SCALE,
    INVALID,
    NEGATIVE,
    SATURATED,
)
from lightkeep.analysis.xpcs.kernels.layout import GROUP, TILE
from lightkeep.analysis.xpcs.kernels.state import CHUNK


@compiled
def clear_tile(job: Job, rows: int) -> None:
    """Zeros in the first rows of a tile."""
    size = LANES * min(job.kind, 4)
    step = CHUNK * size + CELL_PAD
    for cell in range(CELLS):
        clear_bytes(job.tile + cell * step, rows * size)


@compiled
def fill_events(job: Job, tile: int, chunk: int) -> None:
    """Put a chunk's events into a tile that is clear, uint16 or float32."""
    size = min(job.kind, 4)
    step = CHUNK * LANES * size + CELL_PAD
    pointer = (chunk - job.first_chunk) * (job.tiles + 1) + tile
    for e in range(get_i64(job.event_ptr, pointer), get_i64(job.event_ptr, pointer + 1)):
        p = get_u16(job.events, 4 * e + 1)
        at = job.tile + (p // LANES) * step
        i = get_u16(job.events, 4 * e) * LANES + p % LANES
        value = get_f32(job.events, 2 * e + 1)
        if job.kind == F32:
            set_f32(at, i, get_f32(at, i) + value)
        else:
            set_u16(at, i, min(get_u16(at, i) + int(value), 65535))


@compiled
def fill_frames(job: Job, tile: int, chunk: int, n: int) -> None:
    """Put n frames of a chunk into a tile, cell by cell."""
    size = min(job.kind, 4)
    pixel = job.begin + tile * TILE
    width = min(TILE, job.end - pixel)
    row = LANES * size
    step = CHUNK * row + CELL_PAD
    source = job.frames + (pixel - job.origin) * size + (chunk - job.first_chunk) * CHUNK * job.stride
    full = width // LANES
    for t in range(n):
        to = job.tile + t * row
        if row == 8:
            for cell in range(full):
                set_i64(to + cell * step, 0, get_i64(source, cell))
        else:
            for cell in range(full):
                for i in range(row >> 3):
                    set_i64(to + cell * step, i, get_i64(source + cell * row, i))
        if full < CELLS:
            clear_bytes(to + full * step, row)
            copy_bytes(source + full * row, to + full * step, width * size - full * row)
        source += job.stride


@compiled
def load_cell(job: Job, cell: int, n: int, x: int) -> int:
    """Put a cell's n frames into a buffer as float32; return in how many of its lanes there is something to
    note."""
    size = min(job.kind, 4)
    at = job.tile + cell * (CHUNK * LANES * size + CELL_PAD)
    peak = zero()
    step = LANES * size
    if job.kind == U8:
        for t in range(n):
            v = load_u8(at + t * step)
            store(x + t * ROW, v)
            peak = select_less(peak, v, v, peak)
    elif job.kind == U16:
        for t in range(n):
            v = load_u16(at + t * step)
            store(x + t * ROW, v)
            peak = select_less(peak, v, v, peak)
    elif job.kind == U32:
        for t in range(n):
            v = load_u32(at + t * step)
            store(x + t * ROW, v)
            peak = select_less(peak, v, v, peak)
    else:
        low = zero()
        odd = zero()
        for t in range(n):
            v = load(at + t * step)
            store(x + t * ROW, v)
            peak = select_less(peak, v, v, peak)
            low = select_less(v, low, v, low)
            odd = odd + (v - v)  # NaN where v is not finite
        if job.is_float:
            peak = select_less(low, odd, splat(np.inf), odd)
    store(job.scratch, peak)
    reached = 0
    for i in range(LANES):
        reached += not get_f32(job.scratch, i) < job.limit
    return reached


@compiled
def inspect(job: Job, cell: int, n: int, x: int, reached: int, remark: int) -> None:
    """Blank the counts of a cell that must not be counted, and say so in the pixels' remarks."""
    if job.is_float:
        for t in range(n if reached else 0):
            for i in range(LANES):
                v = get_f32(x, t * LANES + i)
                if not abs(v) < np.inf:
                    set_f32(x, t * LANES + i, np.float32(0))
                    set_u8(remark, i, get_u8(remark, i) | INVALID)
                elif v < 0:
                    set_u8(remark, i, get_u8(remark, i) | NEGATIVE)
        return
    for i in range(LANES):
        if reached and get_f32(job.scratch, i) >= job.limit:
            set_u8(remark, i, get_u8(remark, i) | SATURATED)
        if get_u8(remark, i) & SATURATED:
            bytes_ = job.tile + cell * (CHUNK * LANES * job.kind + CELL_PAD)
            for t in range(n):
                set_f32(x, t * LANES + i, np.float32(0))
                if job.kind == U8:
                    set_u8(bytes_, t * LANES + i, 0)


@compiled
def add_intensity(job: Job, place: int, cell: int, n: int, x: int) -> None:
    """Add n frames of a cell to the tile's counts of each dynamic bin; place: the cell's in the CSR."""
    rows = job.tile + cell * (CHUNK * LANES + CELL_PAD)
    for e in range(get_i64(job.cell_dynamic_ptr, place), get_i64(job.cell_dynamic_ptr, place + 1)):
        q = get_i64(job.cell_dynamic, e)
        to = job.bins + q * CHUNK * 8
        set_f64(job.bins, job.n_dynamic * CHUNK + q, 1.0)
        if job.kind == U8:
            mask = job.cell_dynamic_byte + e * LANES
            for t in range(0, n, 4):
                add_byte_sums(rows + t * LANES, mask, to + t * 8)
        else:
            weights = job.cell_dynamic_float + e * ROW
            for t in range(0, n, 4):
                add_row_sums(x + t * ROW, weights, to + t * 8)


@compiled
def give_intensity(job: Job, n: int, frame: int) -> None:
    """Add a tile's counts of each dynamic bin to the run's, and make them zero."""
    for q in range(job.n_dynamic):
        mark = job.n_dynamic * CHUNK + q
        if get_f64(job.bins, mark) != 0:
            set_f64(job.bins, mark, 0.0)
            for t in range((n + 3) & ~3):
                v = get_f64(job.bins, q * CHUNK + t)
                set_f64(job.bins, q * CHUNK + t, 0.0)
                if t < n:
                    at = (frame + t) * job.n_dynamic + q
                    set_i64(job.intensity, at, get_i64(job.intensity, at) + np.int64(np.rint(v * INTENSITY_SCALE)))


@compiled
def advance_cell(
    job: Job, state: Place, g: int, sub: int, n: int, chunk: int, piece_level: int, static: int, segments: int,
    pitch: int,
) -> None:  # fmt: skip
    """Take n frames of a chunk, in buffer x, into the state of a cell (`sub` of group g)."""
    x, y = job.x, job.y
    whole = n == CHUNK
    total = state.total + (g * GROUP + sub * LANES) * 8
    if not whole:
        rows = piece_sums(x, n, 1 << piece_level, y)
        take_sums(y, rows, static, total, segments, pitch)
    start = chunk * CHUNK
    for level in range(state.levels):
        pad(x, n)
        if whole and level == piece_level:
            take_sums(x, n, static, total, segments, pitch)
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
        if n == 0:
            return
        start >>= 1
        x, y = y, x


@compiled
def take_chunk(
    job: Job, state: Place, offset: int, tile: int, chunk: int, n: int, piece_level: int, segments: int, pitch: int
) -> None:
    """Take n frames of a chunk into the state of a tile's groups; segments: (n, pitch) float64, added to."""
    if job.has_events:
        clear_tile(job, n)
        fill_events(job, tile, chunk)
    else:
        fill_frames(job, tile, chunk, n)
    pixel = job.begin + tile * TILE
    for u in range(get_i64(job.unused_ptr, tile), get_i64(job.unused_ptr, tile + 1)):
        start = get_i64(job.unused, u)
        for cell in range(
            (start - pixel) // LANES, min(start - pixel + GROUP, job.end - pixel + LANES - 1) // LANES
        ):
            load_cell(job, cell, n, job.x)
            piece_sums(job.x, n, CHUNK, job.y)
            for i in range(min(LANES, job.end - pixel - cell * LANES)):
                at = pixel + cell * LANES + i
                set_f64(job.saxs, at, get_f64(job.saxs, at) + get_f32(job.y, i))
    begin = get_i64(job.tile_ptr, tile)
    for g in range(begin, get_i64(job.tile_ptr, tile + 1)):
        first = (get_i64(job.group, g) - pixel) // LANES
        for sub in range(GROUP // LANES):
            place = g * (GROUP // LANES) + sub
            at = offset + g - begin
            cell = first + sub
            reached = load_cell(job, cell, n, job.x)
            remark = state.remark + at * GROUP + sub * LANES
            inspect(job, cell, n, job.x, reached, remark)
            if get_i64(job.cell_static_ptr, place) == get_i64(job.cell_static_ptr, place + 1):
                piece_sums(job.x, n, CHUNK, job.y)
                add_to_f64(state.total + (at * GROUP + sub * LANES) * 8, load(job.y))
                continue
            pad(job.x, n)
            add_intensity(job, place, cell, n, job.x)
            static = job.static + (g * GROUP + sub * LANES) * 4
            advance_cell(job, state, at, sub, n, chunk, piece_level, static, segments, pitch)
    give_intensity(job, n, (chunk - job.first_chunk) * CHUNK)


@compiled
def exact_add(value: float, whole: int, part: int, at: int) -> None:
    """Add a number to an ExactSum's element."""
    down = np.floor(value)
    fraction = get_i64(part, at) + np.int64(np.rint((value - down) * 2.0**FRACTION_BITS))
    set_i64(whole, at, get_i64(whole, at) + np.int64(down) + (fraction >> FRACTION_BITS))
    set_i64(part, at, fraction & ((1 << FRACTION_BITS) - 1))


@compiled
def give_segments(job: Job, block: int, segments: int, rows: int, per_segment: int, first: int) -> None:
    """Add a tile's segments, `per_segment` of which make one of the run's, to those; then make them zero."""
    begin = get_i64(job.static_ptr, block)
    labels = get_i64(job.static_ptr, block + 1) - begin
    for s in range(MOST_PIECES):
        to = (first + s) // per_segment
        for j in range(labels):
            value = get_f64(segments, s * labels + j)
            if value != 0:
                set_f64(segments, s * labels + j, 0.0)
                if s < rows and to < job.segments:
                    at = to * job.n_static + get_i64(job.block_static, begin + j)
                    exact_add(value, job.segment_whole, job.segment_part, at)


@compiled
def finish_cell(job: Job, state: Place, g: int, sub: int, frames: int, place: int, sums: int) -> None:
    """Add the results of a cell's pixels to the rows of their partitions; place: the cell's in the CSR.

    sums: (n_static of the block, 6, tau_pitch) float64: G2, IP, IF (sums over the pairs), g, g^2, number of
    pixels.
    """
    total = job.scratch
    lane = sub * LANES
    for i in range(LANES):
        set_f64(total, i, get_f64(state.total, g * GROUP + lane + i))
        set_f64(total, LANES + i, 0.0)
        set_f64(total, 2 * LANES + i, 0.0)
    tail, head = total + 8 * LANES, total + 16 * LANES
    noise = FLOAT_NOISE if job.is_float else 0.0
    level, lag = 0, 0
    for d in range(job.taus):
        while level < get_i64(job.level, d):
            last = ((level * state.groups + g) * HISTORY + HISTORY - 1) * STATE_ROW + sub * ROW
            if (frames >> level) & 1:
                add_to_f64(total, zero() - load(state.history + last))
            for i in range(2 * LANES):
                set_f64(tail, i, 0.0)
            level += 1
            lag = 0
        at = (level * state.groups + g) * HISTORY * STATE_ROW + sub * ROW
        while lag < get_i64(job.lag, d):
            add_to_f64(tail, load(state.history + at + (HISTORY - 1 - lag) * STATE_ROW))
            add_to_f64(head, load(state.head + at + lag * STATE_ROW))
            lag += 1
        slot = (get_i64(job.row, d) * state.groups + g) * SLOTS + get_i64(job.slot, d)
        pairs = float(get_i64(job.pairs, d))
        finish_pixels(
            state.acc + slot * SLOT + lane * 8,
            total,
            pairs,
            noise,
            job.out + d * 8 * LANES,
            job.tau_pitch * 8 * LANES,
        )
    weights = job.scratch + 24 * LANES
    for e in range(get_i64(job.cell_static_ptr, place), get_i64(job.cell_static_ptr, place + 1)):
        for i in range(LANES):
            is_left_out = get_u8(state.remark, g * GROUP + lane + i) & SATURATED
            set_f64(weights, i, 0.0 if is_left_out else get_f64(job.cell_static_weight, e * LANES + i))
        to = sums + get_i64(job.cell_static, e) * 6 * job.tau_pitch * 8
        for four in range(6 * job.tau_pitch // 4):
            add_row_sums_f64(job.out + four * 32 * LANES, weights, to + four * 32)


@compiled
def give_sums(job: Job, block: int, sums: int) -> None:
    """Add a block's sums to the run's, as means over pairs of mean samples, and make them zero."""
    begin = get_i64(job.static_ptr, block)
    for j in range(get_i64(job.static_ptr, block + 1) - begin):
        to = get_i64(job.block_static, begin + j) * 6 * job.taus
        for k in range(6):
            for d in range(job.taus):
                at = (j * 6 + k) * job.tau_pitch + d
                value = get_f64(sums, at)
                set_f64(sums, at, 0.0)
                if k < 3:
                    scale = 1.0 / (1 << get_i64(job.level, d))
                    value *= scale * (scale if k == 0 else 1.0) / max(get_i64(job.pairs, d), 1)
                exact_add(value, job.whole, job.part, to + k * job.taus + d)


@compiled
def copy_groups(
    into: int, into_groups: int, from_: int, from_groups: int, begin: int, count: int, rows: int, size: int
) -> None:
    """Copy `count` groups of one of a state's arrays, `size` bytes each, or zeros when it has none."""
    for r in range(rows):
        to = into + r * into_groups * size
        if from_groups:
            copy_bytes(from_ + (r * from_groups + begin) * size, to, count * size)
        else:
            clear_bytes(to, count * size)


@compiled
def set_state(into: Place, from_: Place, begin: int, count: int) -> None:
    """Copy the state of some groups, or zeros when there is none."""
    rows, groups, others = into.levels, into.groups, from_.groups
    copy_groups(into.acc, groups, from_.acc, others, begin, count, rows + 1, SLOTS * SLOT)
    copy_groups(into.history, groups, from_.history, others, begin, count, rows, HISTORY * STATE_ROW)
    copy_groups(into.head, groups, from_.head, others, begin, count, rows, HISTORY * STATE_ROW)
    copy_groups(into.total, groups, from_.total, others, begin, count, 1, 8 * GROUP)
    copy_groups(into.remark, groups, from_.remark, others, begin, count, 1, GROUP)


@compiled
def advance_cells(
    job: Job, state: Place, block_begin: int, block_end: int, piece_level: int, segments: int
) -> None:
    """`sweep.advance_blocks`: take one chunk into the state of all groups of some blocks.

    segments: zeros, enough for the segments of a chunk in each of a block's partitions.
    """
    for block in range(block_begin, block_end):
        pitch = get_i64(job.static_ptr, block + 1) - get_i64(job.static_ptr, block)
        for tile in range(block * TILES, min((block + 1) * TILES, job.tiles)):
            offset = get_i64(job.tile_ptr, tile)
            take_chunk(job, state, offset, tile, job.first_chunk, job.n, piece_level, segments, pitch)
            give_segments(job, block, segments, job.n >> piece_level, 1, 0)


@compiled
def finish_cells(
    job: Job, state: Place, own: Place, block_begin: int, block_end: int, frames: int, segment_level: int,
    piece_levels: int, segments: int, sums: int,
) -> None:  # fmt: skip
    """`sweep.finish_blocks`: take the last frames of a run and sum over the pixels of some blocks.

    own: a state of one tile. piece_levels: log2 of the frames over which each chunk's are summed first.
    sums: zeros, for each of a block's partitions.
    """
    for block in range(block_begin, block_end):
        pitch = get_i64(job.static_ptr, block + 1) - get_i64(job.static_ptr, block)
        for tile in range(block * TILES, min((block + 1) * TILES, job.tiles)):
            groups = get_i64(job.tile_ptr, tile)
            count = get_i64(job.tile_ptr, tile + 1) - groups
            set_state(own, state, groups, count)
            for c in range((job.n + CHUNK - 1) // CHUNK):
                chunk = job.first_chunk + c
                n = min(CHUNK, job.n - c * CHUNK)
                piece = get_i64(piece_levels, c)
                take_chunk(job, own, 0, tile, chunk, n, piece, segments, pitch)
                first = (chunk * CHUNK) >> piece
                give_segments(job, block, segments, n >> piece, 1 << (segment_level - piece), first)
            for g in range(count):
                start = get_i64(job.group, groups + g)
                for i in range(min(GROUP, job.end - start)):
                    set_f64(job.saxs, start + i, get_f64(own.total, g * GROUP + i))
                    set_u8(job.remark, (groups + g) * GROUP + i, get_u8(own.remark, g * GROUP + i))
                for sub in range(GROUP // LANES):
                    place = (groups + g) * (GROUP // LANES) + sub
                    if get_i64(job.cell_static_ptr, place) < get_i64(job.cell_static_ptr, place + 1):
                        finish_cell(job, own, g, sub, frames, place, sums)
        give_sums(job, block, sums)
