"""Loops of the SIMD multi-tau kernels over blocks, tiles, chunks and cells; `sweep` is the same in plain numba.

Everything is passed by address: see `lightkeep.analysis.simd.memory` for why. The arrays behind live as long as
the `Job`. `advance_cells`, `finish_cells` and `finish_cell` are units.
"""

from __future__ import annotations

import numpy as np

from lightkeep.analysis.simd.compile import part
from lightkeep.analysis.simd.lanes import (
    add_row_sums_f64,
    add_wide,
    finish_pixels,
    load,
    load_f64,
    no_doubles,
    sub_wide,
)
from lightkeep.analysis.simd.memory import (
    call,
    clear_bytes,
    copy_bytes,
    get_f64,
    get_i32,
    get_i64,
    get_u8,
    set_f64,
    set_i64,
    set_u8,
)
from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.xpcs.kernels.cell import is_first, is_used, job_at, place_at
from lightkeep.analysis.xpcs.kernels.job import (
    HISTORY,
    PIECES,
    ROW,
    SLOT,
    SLOTS,
    STATE_ROW,
    TILES,
    Job,
    Place,
)
from lightkeep.analysis.xpcs.kernels.layout import GROUP
from lightkeep.analysis.xpcs.kernels.state import CHUNK
from lightkeep.analysis.xpcs.kernels.work import FLOAT_NOISE, FRACTION_BITS, SATURATED


@part
def exact_add(value: float, whole: int, part: int, at: int) -> None:
    """Add a number to an ExactSum's element."""
    down = np.floor(value)
    fraction = get_i64(part, at) + np.int64(np.rint((value - down) * 2.0**FRACTION_BITS))
    set_i64(whole, at, get_i64(whole, at) + np.int64(down) + (fraction >> FRACTION_BITS))
    set_i64(part, at, fraction & ((1 << FRACTION_BITS) - 1))


@part
def give_segments(job: Job, block: int, segments: int, rows: int, per_segment: int, first: int) -> None:
    """Add a tile's segments, `per_segment` of which make one of the run's, to those; then make them zero."""
    begin = get_i64(job.static_ptr, block)
    labels = get_i64(job.static_ptr, block + 1) - begin
    for j in range(labels):
        for s in range(rows):
            to, value = (first + s) // per_segment, get_f64(segments, j * PIECES + s)
            if value != 0 and to < job.segments:
                at = to * job.n_static + get_i64(job.block_static, begin + j)
                exact_add(value, job.segment_whole, job.segment_part, at)
    clear_bytes(segments, labels * PIECES * 8)


@part
def finish_cell(job_address: int, place_address: int, g: int, sub: int, frames: int, place: int, sums: int) -> int:
    """Add the results of a cell's pixels to the rows of their partitions; place: the cell's in the layout.

    sums: (n_static of the block, 6, tau_pitch) float64: G2, IP, IF (sums over the pairs), g, g^2, number of
    pixels.
    """
    job, state = job_at(job_address), place_at(place_address)
    lane = sub * LANES
    total = load_f64(state.total + (g * GROUP + lane) * 8)
    tail = no_doubles()
    head = no_doubles()
    noise = FLOAT_NOISE if job.is_float else 0.0
    level, lag = 0, 0
    for d in range(job.taus):
        while level < get_i64(job.level, d):
            last = ((level * state.groups + g) * HISTORY + HISTORY - 1) * STATE_ROW + sub * ROW
            if (frames >> level) & 1:
                total = sub_wide(total, load(state.history + last))
            tail = no_doubles()
            head = no_doubles()
            level += 1
            lag = 0
        at = (level * state.groups + g) * HISTORY * STATE_ROW + sub * ROW
        while lag < get_i64(job.lag, d):
            tail = add_wide(tail, load(state.history + at + (HISTORY - 1 - lag) * STATE_ROW))
            head = add_wide(head, load(state.head + at + lag * STATE_ROW))
            lag += 1
        slot = (get_i64(job.row, d) * state.groups + g) * SLOTS + get_i64(job.slot, d)
        finish_pixels(
            state.acc + slot * SLOT + lane * 8,
            total,
            tail,
            head,
            float(get_i64(job.pairs, d)),
            noise,
            job.out + d * 8 * LANES,
            job.tau_pitch * 8 * LANES,
        )
    weights, labels = job.scratch, job.static + place * LANES * 4
    for first in range(LANES):
        if not is_first(labels, first):
            continue
        label = get_i32(labels, first)
        for i in range(LANES):
            is_left_out = get_u8(state.remark, g * GROUP + lane + i) & SATURATED
            set_f64(weights, i, 1.0 if get_i32(labels, i) == label and not is_left_out else 0.0)
        to = sums + label * 6 * job.tau_pitch * 8
        for four in range(6 * job.tau_pitch // 4):
            add_row_sums_f64(job.out + four * 32 * LANES, weights, to + four * 32)
    return 0


@part
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


@part
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


@part
def set_state(into: Place, from_: Place, begin: int, count: int) -> None:
    """Copy the state of some groups, or zeros when there is none."""
    rows, groups, others = into.levels, into.groups, from_.groups
    copy_groups(into.acc, groups, from_.acc, others, begin, count, rows + 1, SLOTS * SLOT)
    copy_groups(into.history, groups, from_.history, others, begin, count, rows, HISTORY * STATE_ROW)
    copy_groups(into.head, groups, from_.head, others, begin, count, rows, HISTORY * STATE_ROW)
    copy_groups(into.total, groups, from_.total, others, begin, count, 1, 8 * GROUP)
    copy_groups(into.remark, groups, from_.remark, others, begin, count, 1, GROUP)


@part
def advance_cells(
    job_address: int, place_address: int, block_begin: int, block_end: int, piece_level: int, segments: int
) -> int:
    """`sweep.advance_blocks`: take one chunk into the state of all groups of some blocks.

    segments: zeros, enough for the segments of a chunk in each of a block's partitions.
    """
    job = job_at(job_address)
    for block in range(block_begin, block_end):
        for tile in range(block * TILES, min((block + 1) * TILES, job.tiles)):
            offset = get_i64(job.tile_ptr, tile)
            rest = (offset, tile, job.first_chunk, job.n, piece_level, segments)
            call(job.take_chunk, (job_address, place_address, *rest))
            give_segments(job, block, segments, job.n >> piece_level, 1, 0)
    return 0


@part
def finish_cells(
    job_address: int, from_address: int, own_address: int, block_begin: int, block_end: int, frames: int,
    segment_level: int, piece_levels: int, segments: int, sums: int,
) -> int:  # fmt: skip
    """`sweep.finish_blocks`: take the last frames of a run and sum over the pixels of some blocks.

    own: a state of one tile. piece_levels: log2 of the frames over which each chunk's are summed first.
    sums: zeros, for each of a block's partitions.
    """
    job, state, own = job_at(job_address), place_at(from_address), place_at(own_address)
    for block in range(block_begin, block_end):
        for tile in range(block * TILES, min((block + 1) * TILES, job.tiles)):
            groups = get_i64(job.tile_ptr, tile)
            count = get_i64(job.tile_ptr, tile + 1) - groups
            set_state(own, state, groups, count)
            for c in range((job.n + CHUNK - 1) // CHUNK):
                chunk = job.first_chunk + c
                n = min(CHUNK, job.n - c * CHUNK)
                piece = get_i64(piece_levels, c)
                call(job.take_chunk, (job_address, own_address, 0, tile, chunk, n, piece, segments))
                first = (chunk * CHUNK) >> piece
                give_segments(job, block, segments, n >> piece, 1 << (segment_level - piece), first)
            for g in range(count):
                start = get_i64(job.group, groups + g)
                for i in range(min(GROUP, job.end - start)):
                    set_f64(job.saxs, start + i, get_f64(own.total, g * GROUP + i))
                    set_u8(job.remark, (groups + g) * GROUP + i, get_u8(own.remark, g * GROUP + i))
                for sub in range(GROUP // LANES):
                    place = (groups + g) * (GROUP // LANES) + sub
                    if is_used(job.static + place * LANES * 4):
                        call(job.finish_cell, (job_address, own_address, g, sub, frames, place, sums))
        give_sums(job, block, sums)
    return 0
