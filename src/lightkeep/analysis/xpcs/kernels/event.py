"""Multi-tau correlation of events as events: what has no event costs nothing.

Products of samples are sums of products of counts: a pixel with n events needs their pairs and never its frames.
A few events are paired one by one, each pair on the levels that have its distance; more are halved in time level
by level, and each looks back as far as the longest lag. IP and IF are sums over the events before one frame and
from another on, both monotonous in the delay: an event belongs to the first few delays, and how many these are
depends on its frame only (`EventJob.early`, `late`, `ends`).

All of these are sums of whole numbers below 2**24, exact in whatever order and precision: the bytes are those of
the dense kernel as long as a pixel has fewer than `MOST` counts. A block with a pixel that has more is left to it.
"""

from __future__ import annotations

import numpy as np

from lightkeep.analysis.simd.compile import part
from lightkeep.analysis.simd.lanes import add_row_sums_f64
from lightkeep.analysis.simd.memory import (
    call,
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
from lightkeep.analysis.simd.record import record
from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.xpcs.kernels.event_job import FEW, MOST, TILES, EventJob
from lightkeep.analysis.xpcs.kernels.layout import BLOCK, GROUP, TILE
from lightkeep.analysis.xpcs.kernels.state import CHUNK
from lightkeep.analysis.xpcs.kernels.work import FRACTION_BITS, INTENSITY_SCALE

event_job_at = record(EventJob)


@part
def add_product(at: int, product: float, touched: int, k: int) -> int:
    """Add to a sum; when it was 0, put its address into entry k of a list. How many entries that makes."""
    before = get_f64(at, 0)
    set_f64(at, 0, before + product)
    if before == 0:
        set_i64(touched, k, at)
        return k + 1
    return k


@part
def add_products(
    times: int, values: int, begin: int, n: int, base: int, low: int, high: int, step: int, touched: int, k: int
) -> int:
    """Add the products of samples begin .. n with those up to base + 4 earlier; see `add_product` for k.

    low: where lag 0 goes, one `step` per lag; 0: lags up to `base` are not wanted. high: where lag base + 1 goes.
    """
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
                k = add_product(at, v * get_f64(values, i), touched, k)
            i -= 1
    return k


@part
def add_pairs(job: EventJob, n: int, low: int, high: int, k: int) -> int:
    """The same on all levels, pair by pair of n events: the fastest for few of them."""
    step = LANES * 8
    for j in range(1, n):
        t = get_i64(job.walk_times, j)
        v = get_f64(job.walk_values, j)
        for i in range(j):
            s = get_i64(job.walk_times, i)
            product = v * get_f64(job.walk_values, i)
            if t - s <= job.base:
                k = add_product(low + (t - s) * step, product, job.touched, k)
                continue
            level = get_u8(job.nearest, t - s)
            lag = (t >> level) - (s >> level)
            while lag > job.base:
                if lag <= job.base + 4 and t >> level < job.frames >> level:
                    at = high + (4 * level + lag - job.base - 1) * step
                    k = add_product(at, product, job.touched, k)
                level += 1
                lag = (t >> level) - (s >> level)
    return k


@part
def coarsen(times: int, values: int, n: int, last: int) -> int:
    """From the samples of a level to those of the next before number `last`; how many they are."""
    w = -1
    for i in range(n):
        t = get_i64(times, i) >> 1
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


@part
def correlate_pixel(address: int, begin: int, end: int, lane: int) -> int:
    """Put a pixel's sums of products into a lane of `out`, and list where; the length of that list.

    begin, end: of the pixel's events in the tile's.
    """
    job = event_job_at(address)
    times, values, step = job.walk_times, job.walk_values, LANES * 8
    low = job.out + lane * 8 - job.lowest * step
    high = job.out + lane * 8 + (job.base + 1 - job.lowest) * step
    n = 0
    for e in range(begin, end):
        t = get_i64(job.times, e)
        v = get_f64(job.values, e)
        if n > 0 and get_i64(times, n - 1) == t:
            set_f64(values, n - 1, get_f64(values, n - 1) + v)
        else:
            set_i64(times, n, t)
            set_f64(values, n, v)
            n += 1
    k = 0
    if job.lowest == 0:
        for i in range(n):
            k = add_product(low, get_f64(values, i) * get_f64(values, i), job.touched, k)
    if n <= FEW:
        return add_pairs(job, n, low, high, k)
    level = 0
    while n > 1 and level < job.levels:
        if level and get_i64(times, n - 1) - get_i64(times, 0) <= job.base:
            break  # at higher levels they are nearer still
        at = high + 4 * level * step
        k = add_products(times, values, 1, n, job.base, 0 if level else low, at, step, job.touched, k)
        level += 1
        n = coarsen(times, values, n, job.frames >> level)
    return k


@part
def normalise_pixel(job: EventJob, begin: int, end: int, listed: int) -> None:
    """Put G2 / (IP IF) and its square beside a pixel's sums of products, and mark where."""
    row = job.tau_pitch * LANES * 8
    for k in range(listed):
        at = get_i64(job.touched, k)
        d = (at - job.out) // (LANES * 8)
        early = 0.0
        late = 0.0
        for e in range(begin, end):
            v = get_f64(job.values, e)
            early += v if get_u8(job.spans, 2 * e) > d else 0.0
            late += v if get_u8(job.spans, 2 * e + 1) > d else 0.0
        ratio = get_f64(at, 0) * float(get_i64(job.pairs, d)) / (early * late)
        set_f64(at + row, 0, ratio)
        set_f64(at + 2 * row, 0, ratio * ratio)
        set_u8(job.marks, d >> 2, 1)


@part
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


@part
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
        set_u8(job.spans, 2 * e, early)
        set_u8(job.spans, 2 * e + 1, late)
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


@part
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


@part
def add_cell(job: EventJob, static: int) -> None:
    """Add what is marked of `out` to the sums of the cell's partitions, as the dense kernel does; clear it.

    static: address of the partitions of the cell's pixels.
    """
    row = job.tau_pitch * LANES * 8
    for first in range(LANES):
        label = get_i32(static, first)
        is_new = label >= 0
        for i in range(first):
            is_new = is_new and get_i32(static, i) != label
        if is_new:
            for i in range(LANES):
                set_f64(job.weights, i, 1.0 if get_i32(static, i) == label else 0.0)
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


@part
def give_sums(job: EventJob, names: int, labels: int) -> None:
    """Add a block's sums to the run's `ExactSum`s, as means over pairs of mean samples, and make them zero."""
    for j in range(labels):
        to = get_i64(job.block_static, names + j) * 6 * job.taus
        for k in range(6):
            for d in range(job.taus):
                at = (j * 6 + k) * job.tau_pitch + d
                value = get_f64(job.sums, at)
                if value != 0:
                    set_f64(job.sums, at, 0.0)
                    if k < 3:
                        value *= get_f64(job.factor, min(k, 1) * job.taus + d)
                    at = to + k * job.taus + d
                    down = np.floor(value)
                    fraction = get_i64(job.part, at) + np.int64(np.rint((value - down) * 2.0**FRACTION_BITS))
                    set_i64(job.whole, at, get_i64(job.whole, at) + np.int64(down) + (fraction >> FRACTION_BITS))
                    set_i64(job.part, at, fraction & ((1 << FRACTION_BITS) - 1))


@part
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


@part
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


@part
def finish_tile(address: int, tile: int, counts: int, names: int) -> None:
    """Sum over the pixels of a tile.

    counts: of its pixels, see `sort_tile`. names: place of the block's first partition in `block_static`.
    """
    job = event_job_at(address)
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
                if end - begin > 1 or job.lowest == 0:
                    listed = call(job.correlate, (address, begin, end, i))
                    normalise_pixel(job, begin, end, listed)
                    found += listed
            if found:
                add_cell(job, job.static + (g * GROUP + sub * LANES) * 4)


@part
def finish_events(address: int, block_begin: int, block_end: int) -> int:
    """`finish_cells` of a run that is all in these events: sum over the pixels of blocks.

    Returns the first block that is left to the dense kernel, as its counts are too high; `block_end`: none.
    """
    job = event_job_at(address)
    for block in range(block_begin, block_end):
        first, last = block * TILES, min((block + 1) * TILES, job.tiles)
        if count_block(job, first, last):
            return block
        pixel = job.begin + block * BLOCK
        for p in range(min(BLOCK, job.end - pixel)):
            set_f64(job.saxs, pixel + p, get_f64(job.saxs, pixel + p) + get_f64(job.totals, p))
        names = get_i64(job.static_ptr, block)
        for tile in range(first, last):
            finish_tile(address, tile, job.counts + (tile - first) * TILE * 8, names)
        labels = get_i64(job.static_ptr, block + 1) - names
        sum_delays(job, labels)
        give_sums(job, names, labels)
    return block_end
