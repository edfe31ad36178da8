"""A chunk of frames or events into the state of a tile, as float32: counts of any kind but uint8.

Pixels lie side by side in a tile, LANES to a cell, and a cell's frames one after the other.
"""

from __future__ import annotations

import numpy as np

from lightkeep.analysis.simd.compile import part
from lightkeep.analysis.simd.lanes import (
    add_row_sums,
    add_to_f64,
    load,
    load_u16,
    load_u32,
    select_less,
    splat,
    store,
    zero,
)
from lightkeep.analysis.simd.memory import (
    call,
    clear_bytes,
    copy_bytes,
    get_f32,
    get_f64,
    get_i32,
    get_i64,
    get_u8,
    get_u16,
    set_f32,
    set_f64,
    set_i64,
    set_u8,
    set_u16,
)
from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.xpcs.kernels.cell import is_first, is_used, job_at, pad, piece_sums, place_at, take_sums
from lightkeep.analysis.xpcs.kernels.job import CELL_PAD, CELLS, F32, ROW, U16, U32, Job
from lightkeep.analysis.xpcs.kernels.layout import GROUP, TILE
from lightkeep.analysis.xpcs.kernels.state import CHUNK
from lightkeep.analysis.xpcs.kernels.work import INTENSITY_SCALE, INVALID, NEGATIVE, SATURATED


@part
def clear_tile(job: Job, rows: int) -> None:
    """Zeros in the first rows of a tile."""
    size = LANES * min(job.kind, 4)
    step = CHUNK * size + CELL_PAD
    for cell in range(CELLS):
        clear_bytes(job.tile + cell * step, rows * size)


@part
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


@part
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
        for cell in range(full):
            for i in range(row >> 3):
                set_i64(to + cell * step, i, get_i64(source + cell * row, i))
        if full < CELLS:
            clear_bytes(to + full * step, row)
            copy_bytes(source + full * row, to + full * step, width * size - full * row)
        source += job.stride


@part
def load_cell(job: Job, cell: int, n: int, x: int) -> int:
    """Put a cell's n frames into a buffer as float32; return in how many of its lanes there is something to
    note."""
    size = min(job.kind, 4)
    at = job.tile + cell * (CHUNK * LANES * size + CELL_PAD)
    peak = zero()
    step = LANES * size
    if job.kind == U16:
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


@part
def inspect(job: Job, n: int, x: int, reached: int, remark: int) -> None:
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
            for t in range(n):
                set_f32(x, t * LANES + i, np.float32(0))


@part
def add_intensity(job: Job, labels: int, n: int, x: int) -> None:
    """Add n frames of a cell to the tile's counts of each dynamic bin; labels: of the cell's pixels."""
    for first in range(LANES):
        if not is_first(labels, first):
            continue
        q = get_i32(labels, first)
        set_u8(job.marks, q, 1)
        weights = job.scratch
        for i in range(LANES):
            set_f32(weights, i, np.float32(get_i32(labels, i) == q))
        for t in range(0, n, 4):
            add_row_sums(x + t * ROW, weights, job.bins + (q * CHUNK + t) * 8)


@part
def give_intensity(job: Job, n: int, frame: int) -> None:
    """Add a tile's counts of each dynamic bin to the run's, and make them zero."""
    for q in range(job.n_dynamic):
        if get_u8(job.marks, q):
            set_u8(job.marks, q, 0)
            for t in range(n):
                at = q * job.intensity_pitch + frame + t
                v = get_f64(job.bins, q * CHUNK + t) * INTENSITY_SCALE
                set_i64(job.intensity, at, get_i64(job.intensity, at) + np.int64(np.rint(v)))
            clear_bytes(job.bins + q * CHUNK * 8, CHUNK * 8)


@part
def take_cells(
    job_address: int, place_address: int, offset: int, tile: int, chunk: int, n: int, piece_level: int,
    segments: int,
) -> int:  # fmt: skip
    """Take n frames of a chunk into the state of a tile's groups; segments: (partitions, PIECES) float64."""
    job, state = job_at(job_address), place_at(place_address)
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
            static = job.static + (g * GROUP + sub * LANES) * 4
            dynamic = job.dynamic + (g * GROUP + sub * LANES) * 4
            at = offset + g - begin
            cell = first + sub
            reached = load_cell(job, cell, n, job.x)
            inspect(job, n, job.x, reached, state.remark + at * GROUP + sub * LANES)
            total = state.total + (at * GROUP + sub * LANES) * 8
            if not is_used(static):
                piece_sums(job.x, n, CHUNK, job.y)
                add_to_f64(total, load(job.y))
                continue
            pad(job.x, n)
            add_intensity(job, dynamic, n, job.x)
            if n < CHUNK:
                rows = piece_sums(job.x, n, 1 << piece_level, job.y)
                take_sums(job.y, rows, static, total, segments, job.scratch)
            sums_level = piece_level if n == CHUNK else -1
            rest = (at, sub, n, chunk * CHUNK, 0, sums_level, segments, static)
            call(job.advance_rows, (job_address, place_address, *rest))
    give_intensity(job, n, (chunk - job.first_chunk) * CHUNK)
    return 0
