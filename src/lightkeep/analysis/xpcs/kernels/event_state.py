"""Events into the state of pixels, for runs that are followed: `event` is for those that are taken in whole.

Only what a pixel remembers of the past is touched, once per call, whatever the number of frames: the last samples
of each level move on, and the new events find their partners among themselves and in them.
"""

from __future__ import annotations

from lightkeep.analysis.simd.compile import part
from lightkeep.analysis.simd.memory import get_f32, get_f64, get_i32, get_i64, get_u8, set_f32, set_f64, set_i64
from lightkeep.analysis.simd.record import record
from lightkeep.analysis.xpcs.kernels.event import (
    add_products,
    coarsen,
    count_block,
    event_job_at,
    sort_tile,
    take_light,
)
from lightkeep.analysis.xpcs.kernels.event_job import HISTORY, MOST, TILES, EventJob
from lightkeep.analysis.xpcs.kernels.job import SLOTS, Place
from lightkeep.analysis.xpcs.kernels.layout import BLOCK, GROUP, TILE

ROW = 4 * GROUP
"""Bytes of a row of samples in a state."""
SLOT = 8 * GROUP
"""Bytes of an accumulator in a state."""
place_at = record(Place)


@part
def recall(job: EventJob, history: int, start: int) -> int:
    """Put the last samples of a pixel before number `start` in front of its new ones; how many that are."""
    h = 0
    for k in range(HISTORY - 1, -1, -1):
        v = get_f32(history + k * ROW, 0)
        if v != 0:
            h += 1
            set_i64(job.walk_times, HISTORY - h, start - HISTORY + k)
            set_f64(job.walk_values, HISTORY - h, float(v))
    return h


@part
def remember(job: EventJob, first: int, last: int, start: int, end: int, history: int, head: int) -> None:
    """Keep the last of the samples first .. last in the walk, up to number `end`; and the run's first ones.

    start: number of the first new one.
    """
    for k in range(HISTORY):
        set_f32(history + k * ROW, 0, 0.0)
    for back in range(last - first):
        i = last - 1 - back
        k = get_i64(job.walk_times, i) - (end - HISTORY)
        if k < 0:
            break
        set_f32(history + k * ROW, 0, get_f64(job.walk_values, i))
    if start < HISTORY:
        for i in range(HISTORY, last):
            k = get_i64(job.walk_times, i)
            if k >= HISTORY:
                break
            set_f32(head + k * ROW, 0, get_f64(job.walk_values, i))


@part
def advance_pixel(job: EventJob, state: Place, begin: int, end: int, g: int, lane: int) -> None:
    """Take a pixel's events, begin .. end of the tile's, into its state."""
    n = 0
    for e in range(begin, end):
        t = job.first + get_i64(job.times, e)
        v = get_f64(job.values, e)
        at = HISTORY + n
        if n > 0 and get_i64(job.walk_times, at - 1) == t:
            set_f64(job.walk_values, at - 1, get_f64(job.walk_values, at - 1) + v)
        else:
            set_i64(job.walk_times, at, t)
            set_f64(job.walk_values, at, v)
            n += 1
    low = state.acc + g * SLOTS * SLOT + lane * 8
    if job.lowest == 0:
        for i in range(HISTORY, HISTORY + n):
            v = get_f64(job.walk_values, i)
            set_f64(low, 0, get_f64(low, 0) + v * v)
    start, new = job.first, job.frames
    for level in range(state.levels):
        place = (level * state.groups + g) * HISTORY * ROW + lane * 4
        h = recall(job, state.history + place, start)
        before = HISTORY - h
        times, values = job.walk_times + before * 8, job.walk_values + before * 8
        high = state.acc + ((level + 1) * state.groups + g) * SLOTS * SLOT + lane * 8
        add_products(times, values, h, h + n, job.base, 0 if level else low, high, SLOT, job.touched, 0)
        remember(job, before, HISTORY + n, start, start + new, state.history + place, state.head + place)
        # A new sample of the next level may begin with the last one before these.
        odd = int(start & 1 and h > 0 and get_i64(job.walk_times, HISTORY - 1) == start - 1)
        at = (HISTORY - odd) * 8
        k = coarsen(job.walk_times + at, job.walk_values + at, n + odd, (start + new) >> 1)
        if odd:
            for i in range(HISTORY + k - 1, HISTORY - 1, -1):
                set_i64(job.walk_times, i, get_i64(job.walk_times, i - 1))
                set_f64(job.walk_values, i, get_f64(job.walk_values, i - 1))
        n = k
        new = (new + (start & 1)) >> 1
        if new == 0:
            return
        start >>= 1


@part
def is_too_high(job: EventJob, state: Place, first_tile: int, last_tile: int) -> int:
    """Whether a pixel of these tiles has too many counts with those before, or must not be counted."""
    for tile in range(first_tile, last_tile):
        for g in range(get_i64(job.tile_ptr, tile), get_i64(job.tile_ptr, tile + 1)):
            p = get_i64(job.group, g) - job.begin - first_tile * TILE
            for i in range(GROUP):
                total = get_f64(state.total, g * GROUP + i) + get_f64(job.totals, p + i)
                if total >= MOST or get_u8(state.remark, g * GROUP + i):
                    return 1
    return 0


@part
def advance_tile(job: EventJob, state: Place, tile: int, counts: int, names: int) -> None:
    """Take a tile's events into the state; counts, names: as of `finish_tile`."""
    sort_tile(job, tile, counts)
    pixel = job.begin + tile * TILE
    for g in range(get_i64(job.tile_ptr, tile), get_i64(job.tile_ptr, tile + 1)):
        for i in range(GROUP):
            label = get_i32(job.static, g * GROUP + i)
            if label >= 0:
                p = get_i64(job.group, g) - pixel + i
                end = get_i64(counts, p)
                begin = get_i64(counts, p - 1) if p else 0
                static = get_i64(job.block_static, names + label)
                take_light(job, begin, end, static, get_i32(job.dynamic, g * GROUP + i))
                advance_pixel(job, state, begin, end, g, i)


@part
def advance_events(address: int, state_address: int, block_begin: int, block_end: int) -> int:
    """Take whole chunks of events into the state of all groups of some blocks.

    Returns the first block that is left to the dense kernel, as its counts are too high; `block_end`: none.
    """
    job, state = event_job_at(address), place_at(state_address)
    for block in range(block_begin, block_end):
        first, last = block * TILES, min((block + 1) * TILES, job.tiles)
        if count_block(job, first, last) or is_too_high(job, state, first, last):
            return block
        names = get_i64(job.static_ptr, block)
        pixel = job.begin + block * BLOCK
        for tile in range(first, last):
            for g in range(get_i64(job.tile_ptr, tile), get_i64(job.tile_ptr, tile + 1)):
                p = get_i64(job.group, g) - pixel
                for i in range(GROUP):
                    at = g * GROUP + i
                    set_f64(state.total, at, get_f64(state.total, at) + get_f64(job.totals, p + i))
            for u in range(get_i64(job.unused_ptr, tile), get_i64(job.unused_ptr, tile + 1)):
                start = get_i64(job.unused, u)
                for i in range(min(GROUP, job.end - start)):
                    at = start + i
                    set_f64(job.saxs, at, get_f64(job.saxs, at) + get_f64(job.totals, start - pixel + i))
            advance_tile(job, state, tile, job.counts + (tile - first) * TILE * 8, names)
    return block_end
