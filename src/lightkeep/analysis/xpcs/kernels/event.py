"""Multi-tau correlation of events as events: what has no event costs nothing.

Products of samples are sums of products of counts, so a pixel with n events needs their pairs and never its frames.
Level by level the events' times are halved, events of one sample add up, and each looks back as far as the longest
lag. IP and IF are sums over the events before one frame and from another on, both monotonous in the delay: an event
belongs to the first few delays, and how many these are depends on its frame only (`EventJob.early`, `late`, `ends`).

All of these are sums of whole numbers below 2**24, exact in whatever order and precision: the bytes are those of the
dense kernel as long as a pixel has fewer than `MOST` counts, and a block with one that has more is left to it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from lightkeep.analysis.simd import compiled
from lightkeep.analysis.simd.lanes import LANES, add_row_sums_f64
from lightkeep.analysis.simd.memory import (
    clear_bytes,
    get_f32,
    get_f64,
    get_i32,
    get_i64,
    get_u8,
    get_u16,
    set_f64,
    set_i64,
    set_u8,
)
from lightkeep.analysis.xpcs.kernels.kernel import FRACTION_BITS, INTENSITY_SCALE
from lightkeep.analysis.xpcs.kernels.layout import BLOCK, GROUP, TILE
from lightkeep.analysis.xpcs.kernels.state import CHUNK

TILES: Final = BLOCK // TILE
MOST: Final = 4096
"""Counts of a pixel in a run: their square is below 2**24, and so is every sum of products that a float32 of the dense
kernel holds."""


class EventJob(NamedTuple):
    """Addresses and numbers of one thread's work; all integers."""

    chunks: int
    event_ptr: int
    events: int
    begin: int
    end: int
    """Pixels."""
    tiles: int
    group: int
    tile_ptr: int
    unused: int
    unused_ptr: int
    static: int
    static_ptr: int
    block_static: int
    dynamic: int
    base: int
    lowest: int
    n_static: int
    n_dynamic: int
    levels: int
    first: int
    """First frame of these; 0 for `finish_events`."""
    frames: int
    taus: int
    tau_pitch: int
    """taus, rounded up to a multiple of 4."""
    level: int
    pairs: int
    early: int
    """(frames,) uint8: to so many delays, from the first on, an event of this frame adds to IP."""
    late: int
    """Same: so many delays have begun to count it for IF."""
    ends: int
    """Same: in so many delays its frame is in a whole sample."""
    segments: int
    segment_level: int
    whole: int
    part: int
    segment_whole: int
    intensity: int
    saxs: int
    counts: int
    """This thread's: (BLOCK,) int64, number of events of each pixel, then where they are."""
    totals: int
    """This thread's: (BLOCK,) float64."""
    times: int
    """This thread's: int64 frames of a tile's events, pixel by pixel."""
    values: int
    """This thread's: their float64 counts."""
    walk_times: int
    walk_values: int
    """This thread's: a pixel's samples of one level."""
    out: int
    """This thread's: (3, tau_pitch, LANES) float64 G2, g and g^2 of a cell; zeros in between."""
    marks: int
    """This thread's: (tau_pitch / 4) bytes, where `out` is not zero."""
    weights: int
    """This thread's: (LANES,) float64."""
    sums: int
    """This thread's: (partitions of a block, 6, tau_pitch) float64; zeros in between."""


@compiled
def add_products(times: int, values: int, begin: int, n: int, base: int, low: int, high: int, step: int) -> int:
    """Add the products of samples begin .. n with those up to base + 4 earlier; how many that were.

    low: where lag 0 goes, one `step` per lag; 0: lags up to `base` are not wanted. high: where lag base + 1 goes.
    """
    found = 0
    for j in range(max(begin, 1), n):
        t = get_i64(times, j)
        v = get_f64(values, j)
        i = j - 1
        while i >= 0:
            lag = t - get_i64(times, i)
            if lag > base + 4:
                break
            at = 0
            if lag > base:
                at = high + (lag - base - 1) * step
            elif low:
                at = low + lag * step
            if at:
                set_f64(at, 0, get_f64(at, 0) + v * get_f64(values, i))
                found += 1
            i -= 1
    return found


@compiled
def coarsen(times: int, values: int, n: int, shift: int, last: int) -> int:
    """From the samples of a level to those `shift` levels higher, before number `last`; how many they are."""
    w = -1
    for i in range(n):
        t = get_i64(times, i) >> shift
        if t >= last:
            break
        v = get_f64(values, i)
        if w >= 0 and get_i64(times, w) == t:
            v += get_f64(values, w)
        else:
            w += 1
        set_i64(times, w, t)
        set_f64(values, w, v)
    return w + 1


@compiled
def correlate_pixel(job: EventJob, begin: int, end: int, lane: int) -> int:
    """Put a pixel's sums of products into a lane of `out`, and mark where; whether there are any.

    begin, end: of the pixel's events in the tile's.
    """
    times, values, step = job.walk_times, job.walk_values, LANES * 8
    before = job.base + 1 - job.lowest  # delays before the first of four that every level has
    low = job.out + lane * 8 - job.lowest * step
    high = job.out + lane * 8 + before * step
    n = 0
    nearest = job.frames
    for e in range(begin, end):
        t = get_i64(job.times, e)
        v = get_f64(job.values, e)
        if n > 0 and get_i64(times, n - 1) == t:
            set_f64(values, n - 1, get_f64(values, n - 1) + v)
        else:
            if n > 0:
                nearest = min(nearest, t - get_i64(times, n - 1))
            set_i64(times, n, t)
            set_f64(values, n, v)
            n += 1
    found = 0
    if job.lowest == 0:
        for i in range(n):
            set_f64(low, 0, get_f64(low, 0) + get_f64(values, i) * get_f64(values, i))
        set_u8(job.marks, 0, 1)
        found = 1
    level = 0
    while nearest >> level > job.base + 4:
        level += 1  # too far from each other for the levels below
    if level:
        n = coarsen(times, values, n, level, job.frames >> level)
    while n > 1 and level < job.levels:
        if level and get_i64(times, n - 1) - get_i64(times, 0) <= job.base:
            break  # at higher levels they are nearer still
        at = before + 4 * level
        if add_products(times, values, 1, n, job.base, 0 if level else low, high + 4 * level * step, step):
            set_u8(job.marks, at >> 2, 1)
            set_u8(job.marks, (at + 3) >> 2, 1)
            if level == 0:
                set_u8(job.marks, 0, 1)
            found = 1
        level += 1
        n = coarsen(times, values, n, 1, job.frames >> level)
    return found


@compiled
def normalise_pixel(job: EventJob, begin: int, end: int, lane: int) -> None:
    """Put G2 / (IP IF) and its square beside a pixel's G2, where that is not zero."""
    row = job.tau_pitch * LANES * 8
    first, last, stop = begin, end, end
    early = 0.0
    for e in range(begin, end):
        early += get_f64(job.values, e)
    late = early
    for d in range(job.taus):
        product = get_f64(job.out, d * LANES + lane) if get_u8(job.marks, d >> 2) else 0.0
        if product != 0:
            while last > begin and get_u8(job.early, get_i64(job.times, last - 1)) <= d:
                last -= 1
                early -= get_f64(job.values, last)
            while stop > first and get_u8(job.ends, get_i64(job.times, stop - 1)) <= d:
                stop -= 1
                late -= get_f64(job.values, stop)
            while first < stop and get_u8(job.late, get_i64(job.times, first)) <= d:
                late -= get_f64(job.values, first)
                first += 1
            ratio = product * float(get_i64(job.pairs, d)) / (early * late)
            set_f64(job.out + row, d * LANES + lane, ratio)
            set_f64(job.out + 2 * row, d * LANES + lane, ratio * ratio)


@compiled
def take_light(job: EventJob, begin: int, end: int, static: int, q: int) -> None:
    """Add a pixel's events to the intensity of its bin and to the segments of its partition."""
    for e in range(begin, end):
        t = get_i64(job.times, e)
        v = get_f64(job.values, e)
        at = t * job.n_dynamic + q
        set_i64(job.intensity, at, get_i64(job.intensity, at) + int(v * INTENSITY_SCALE))
        segment = t >> job.segment_level
        if segment < job.segments:
            at = segment * job.n_static + static
            set_i64(job.segment_whole, at, get_i64(job.segment_whole, at) + int(v))


@compiled
def take_sums(job: EventJob, begin: int, end: int, label: int) -> None:
    """Add a pixel's events to IP and IF of its partition, and to its number of pixels, each at the last delay that
    it belongs to: see `sum_delays`."""
    row = job.sums + label * 6 * job.tau_pitch * 8
    beginning = 0
    reached = 0
    for e in range(begin, end):
        t = get_i64(job.times, e)
        v = get_f64(job.values, e)
        early = get_u8(job.early, t)
        late = min(get_u8(job.late, t), get_u8(job.ends, t))
        if early:
            at = job.tau_pitch + early - 1
            set_f64(row, at, get_f64(row, at) + v)
        if late:
            at = 2 * job.tau_pitch + late - 1
            set_f64(row, at, get_f64(row, at) + v)
        beginning = max(beginning, early)
        reached = max(reached, late)
    both = min(beginning, reached)
    if both:
        at = 5 * job.tau_pitch + both - 1
        set_f64(row, at, get_f64(row, at) + 1.0)


@compiled
def sum_delays(job: EventJob, labels: int) -> None:
    """What belongs to a delay belongs to all before it."""
    for label in range(labels):
        for k in (1, 2, 5):
            row = job.sums + (label * 6 + k) * job.tau_pitch * 8
            s = 0.0
            for back in range(job.taus):
                d = job.taus - 1 - back
                s += get_f64(row, d)
                set_f64(row, d, s)


@compiled
def add_cell(job: EventJob, static: int) -> None:
    """Add what is marked of `out` to the sums of the cell's partitions, as the dense kernel does; clear it.

    static: address of the partitions of the cell's pixels.
    """
    row = job.tau_pitch * LANES * 8
    for first in range(LANES):
        label = get_i32(static, first)
        is_new = label >= 0
        for i in range(LANES):
            is_same = get_i32(static, i) == label
            set_f64(job.weights, i, 1.0 if is_same else 0.0)
            is_new = is_new and not (is_same and i < first)
        if is_new:
            for four in range(job.tau_pitch >> 2):
                if get_u8(job.marks, four):
                    to = job.sums + (label * 6 * job.tau_pitch + 4 * four) * 8
                    rows = job.out + four * 32 * LANES
                    add_row_sums_f64(rows, job.weights, to)
                    add_row_sums_f64(rows + row, job.weights, to + 3 * job.tau_pitch * 8)
                    add_row_sums_f64(rows + 2 * row, job.weights, to + 4 * job.tau_pitch * 8)
    for four in range(job.tau_pitch >> 2):
        if get_u8(job.marks, four):
            set_u8(job.marks, four, 0)
            for k in range(3):
                clear_bytes(job.out + k * row + four * 32 * LANES, 32 * LANES)


@compiled
def exact_add(value: float, whole: int, part: int, at: int) -> None:
    """Add a number to an ExactSum's element."""
    down = np.floor(value)
    fraction = get_i64(part, at) + np.int64(np.rint((value - down) * 2.0**FRACTION_BITS))
    set_i64(whole, at, get_i64(whole, at) + np.int64(down) + (fraction >> FRACTION_BITS))
    set_i64(part, at, fraction & ((1 << FRACTION_BITS) - 1))


@compiled
def give_sums(job: EventJob, names: int, labels: int) -> None:
    """Add a block's sums to the run's, as means over pairs of mean samples, and make them zero."""
    for j in range(labels):
        to = get_i64(job.block_static, names + j) * 6 * job.taus
        for k in range(6):
            for d in range(job.taus):
                at = (j * 6 + k) * job.tau_pitch + d
                value = get_f64(job.sums, at)
                if value != 0:
                    set_f64(job.sums, at, 0.0)
                    if k < 3:
                        scale = 1.0 / (1 << get_i64(job.level, d))
                        value *= scale * (scale if k == 0 else 1.0) / max(get_i64(job.pairs, d), 1)
                    exact_add(value, job.whole, job.part, to + k * job.taus + d)


@compiled
def sort_tile(job: EventJob, tile: int, counts: int) -> None:
    """Put a tile's events in the order of its pixels, of each in the order of frames.

    counts: (TILE,) number of events of each pixel; afterwards where they end.
    """
    place = 0
    for p in range(TILE):
        number = get_i64(counts, p)
        set_i64(counts, p, place)
        place += number
    for c in range(job.chunks):
        pointer = c * (job.tiles + 1) + tile
        for e in range(get_i64(job.event_ptr, pointer), get_i64(job.event_ptr, pointer + 1)):
            p = get_u16(job.events, 4 * e + 1)
            at = get_i64(counts, p)
            set_i64(counts, p, at + 1)
            set_i64(job.times, at, c * CHUNK + get_u16(job.events, 4 * e))
            set_f64(job.values, at, float(get_f32(job.events, 2 * e + 1)))


@compiled
def count_block(job: EventJob, first_tile: int, last_tile: int) -> int:
    """Count events of a block's pixels, and their counts; whether any has too many."""
    clear_bytes(job.counts, BLOCK * 8)
    clear_bytes(job.totals, BLOCK * 8)
    for c in range(job.chunks):
        for tile in range(first_tile, last_tile):
            pixel = (tile - first_tile) * TILE
            pointer = c * (job.tiles + 1) + tile
            for e in range(get_i64(job.event_ptr, pointer), get_i64(job.event_ptr, pointer + 1)):
                p = pixel + get_u16(job.events, 4 * e + 1)
                set_i64(job.counts, p, get_i64(job.counts, p) + 1)
                set_f64(job.totals, p, get_f64(job.totals, p) + get_f32(job.events, 2 * e + 1))
    most = 0.0
    for p in range((last_tile - first_tile) * TILE):
        most = max(most, get_f64(job.totals, p))
    return most >= MOST


@compiled
def finish_tile(job: EventJob, tile: int, counts: int, names: int) -> None:
    """Sum over the pixels of a tile.

    counts: of its pixels, see `sort_tile`. names: place of the block's first partition in `block_static`.
    """
    sort_tile(job, tile, counts)
    pixel = job.begin + tile * TILE
    for g in range(get_i64(job.tile_ptr, tile), get_i64(job.tile_ptr, tile + 1)):
        for sub in range(GROUP // LANES):
            found = 0
            for i in range(LANES):
                at = g * GROUP + sub * LANES + i
                label = get_i32(job.static, at)
                p = get_i64(job.group, g) - pixel + sub * LANES + i
                end = get_i64(counts, p)
                begin = get_i64(counts, p - 1) if p else 0
                if label < 0 or begin == end:
                    continue
                static = get_i64(job.block_static, names + label)
                take_light(job, begin, end, static, get_i32(job.dynamic, at))
                take_sums(job, begin, end, label)
                if (end - begin > 1 or job.lowest == 0) and correlate_pixel(job, begin, end, i):
                    normalise_pixel(job, begin, end, i)
                    found = 1
            if found:
                add_cell(job, job.static + (g * GROUP + sub * LANES) * 4)


@compiled
def finish_events(job: EventJob, block_begin: int, block_end: int) -> int:
    """`finish_cells` of a run that is all in these events: sum over the pixels of blocks.

    Returns the first block that is left to the dense kernel, as its counts are too high; `block_end`: none.
    """
    for block in range(block_begin, block_end):
        first, last = block * TILES, min((block + 1) * TILES, job.tiles)
        if count_block(job, first, last):
            return block
        pixel = job.begin + block * BLOCK
        for p in range(min(BLOCK, job.end - pixel)):
            set_f64(job.saxs, pixel + p, get_f64(job.saxs, pixel + p) + get_f64(job.totals, p))
        names = get_i64(job.static_ptr, block)
        for tile in range(first, last):
            finish_tile(job, tile, job.counts + (tile - first) * TILE * 8, names)
        labels = get_i64(job.static_ptr, block + 1) - names
        sum_delays(job, labels)
        give_sums(job, names, labels)
    return block_end
