"""A chunk of uint8 frames into the state of a tile: samples of a pixel side by side, products of whole numbers.

A tile is turned while it is filled: pixel after pixel has a *line*, its history and then its counts in time. The
product of a line with itself k samples earlier is then 32 products of lag k at once, exact, and with AVX2 four
times as many per instruction as with float32. Levels 1 to 3 are lines of int16, the sums of neighbours. From level
4 on a pixel has too few samples for that: they are turned back into rows of pixels, for `advance_rows`.
"""

from __future__ import annotations

from lightkeep.analysis.simd.compile import part
from lightkeep.analysis.simd.integers import (
    add_byte_products,
    add_bytes,
    add_bytes_to_u16,
    add_short_products,
    add_shorts_to_i64,
    add_sum_of_bytes,
    add_sums_of_rows,
    bytes_to_rows,
    fold_bytes,
    fold_shorts,
    load_bytes,
    most_byte,
    most_bytes,
    no_bytes,
    no_shorts,
    no_words,
    rows_to_bytes,
    rows_to_shorts,
    shorts_to_rows,
    store_bytes,
    store_shorts,
    store_words,
    sum_of_words,
    turn_bytes,
    widen_bytes,
)
from lightkeep.analysis.simd.lanes import add_to_f64, load, store, zero
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
    prefetch,
    set_f32,
    set_f64,
    set_u8,
    set_u16,
)
from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.xpcs.kernels.cell import is_used, job_at, piece_sums, place_at, take_sums
from lightkeep.analysis.xpcs.kernels.job import (
    HISTORY,
    LINE,
    LINE_BEFORE,
    PIECES,
    ROW,
    SLOT,
    SLOTS,
    STATE_ROW,
    Job,
)
from lightkeep.analysis.xpcs.kernels.layout import GROUP, TILE
from lightkeep.analysis.xpcs.kernels.state import CHUNK
from lightkeep.analysis.xpcs.kernels.work import SATURATED

SMALL = 64
"""Counts below this multiply as bytes: four of their squares, twice, stay below 2**15."""
OCTET = 8
AHEAD = 6
"""Frames that are fetched from memory before they are needed."""


@part
def take_rows(source: int, step: int, count: int, to: int, peaks: int) -> int:
    """Copy half a tile's counts of some frames, `step` bytes apart, side by side, and keep the highest of each
    pixel."""
    a, b = load_bytes(peaks), load_bytes(peaks + 32)
    c, d = load_bytes(peaks + 64), load_bytes(peaks + 96)
    for i in range(count):
        at, here = source + i * step, to + i * TILE
        prefetch(at + AHEAD * step)
        prefetch(at + AHEAD * step + 64)
        p, q, r, s = load_bytes(at), load_bytes(at + 32), load_bytes(at + 64), load_bytes(at + 96)
        store_bytes(here, p)
        store_bytes(here + 32, q)
        store_bytes(here + 64, r)
        store_bytes(here + 96, s)
        a, b, c, d = most_bytes(a, p), most_bytes(b, q), most_bytes(c, r), most_bytes(d, s)
    store_bytes(peaks, a)
    store_bytes(peaks + 32, b)
    store_bytes(peaks + 64, c)
    store_bytes(peaks + 96, d)
    return 0


@part
def fill_lines(job_address: int, tile: int, chunk: int, n: int) -> int:
    """Turn n frames of a chunk into lines, with zeros up to a multiple of 256 samples; note each one's highest."""
    job = job_at(job_address)
    pixel = job.begin + tile * TILE
    width = min(TILE, job.end - pixel)
    source = job.frames + (pixel - job.origin) + (chunk - job.first_chunk) * CHUNK * job.stride
    clear_bytes(job.peaks, TILE)
    for t in range(0, (n + 255) & ~255, 32):
        # By way of a small copy: with 2**k pixels a frame, a pixel's counts fall on the same lines of the cache.
        count = max(0, min(32, n - t))
        if count < 32 or width < TILE:
            clear_bytes(job.spare, 32 * TILE)
        rows, step = source + t * job.stride, job.stride
        if width < TILE:
            for i in range(count):
                copy_bytes(rows + i * step, job.spare + i * TILE, width)
            rows, step = job.spare, TILE
        for half in range(0, TILE, TILE // 2):
            take_rows(rows + half, step, count, job.spare + half, job.peaks + half)
        to = job.tile + LINE_BEFORE + t
        for column in range(TILE // 16):
            turn_bytes(job.spare + 16 * column, TILE, to + 16 * column * LINE, LINE)
    return 0


@part
def multiply_bytes(x: int, n: int, out: int) -> None:
    """Products of a line's n samples (a multiple of 128) with those 1 .. 8 earlier; rows of `out` are LANES words
    apart."""
    a1 = no_words()
    a2 = no_words()
    a3 = no_words()
    a4 = no_words()
    a5 = no_words()
    a6 = no_words()
    a7 = no_words()
    a8 = no_words()
    for step in range(n >> 7):
        p = x + (step << 7)
        a1 = add_byte_products(a1, p, 1)
        a2 = add_byte_products(a2, p, 2)
        a3 = add_byte_products(a3, p, 3)
        a4 = add_byte_products(a4, p, 4)
        a5 = add_byte_products(a5, p, 5)
        a6 = add_byte_products(a6, p, 6)
        a7 = add_byte_products(a7, p, 7)
        a8 = add_byte_products(a8, p, 8)
    store_words(out, a1)
    store_words(out + 32 * LANES, a2)
    store_words(out + 64 * LANES, a3)
    store_words(out + 96 * LANES, a4)
    store_words(out + 128 * LANES, a5)
    store_words(out + 160 * LANES, a6)
    store_words(out + 192 * LANES, a7)
    store_words(out + 224 * LANES, a8)


@part
def multiply_shorts(x: int, n: int, lag: int, out: int) -> None:
    """The same of int16 (n a multiple of 32) with those lag .. lag + 3 earlier."""
    a1 = no_words()
    a2 = no_words()
    a3 = no_words()
    a4 = no_words()
    for step in range(n >> 5):
        p = x + (step << 6)
        a1 = add_short_products(a1, p, lag)
        a2 = add_short_products(a2, p, lag + 1)
        a3 = add_short_products(a3, p, lag + 2)
        a4 = add_short_products(a4, p, lag + 3)
    store_words(out, a1)
    store_words(out + 32 * LANES, a2)
    store_words(out + 64 * LANES, a3)
    store_words(out + 96 * LANES, a4)


@part
def take_products(products: int, target: int) -> None:
    """Add the sums of the rows of one lag to the accumulators of a cell."""
    for octet in range(LANES // OCTET):
        add_sums_of_rows(products + octet * 256, target + octet * 64)


@part
def short_line(job: Job, level: int) -> int:
    """Where the first pixel's int16 samples of a level are; lines are `short_step` apart."""
    return job.shorts + LINE_BEFORE + LANES * (64 * level + 2048 - (2048 >> level))


@part
def short_step(level: int) -> int:
    """Bytes of a line of a level."""
    return 64 + (1024 >> level)


@part
def multiply_first(job_address: int, line: int, n: int, peak: int, low: int, acc: int, history: int) -> int:
    """Level 0 of a cell: n samples of each of its lines, a multiple of 256, into the accumulators."""
    job = job_at(job_address)
    is_small = max(peak, cell_peak(line - 32, 32)) < SMALL
    wide = short_line(job, 0)
    step = short_step(0)
    if not is_small or job.lowest == 0:
        for octet in range(LANES // OCTET):
            rows_to_shorts(history + octet * 32, STATE_ROW, wide + octet * OCTET * step - 16, step)
        for i in range(LANES):
            for t in range(0, n, 16):
                store_shorts(wide + i * step + 2 * t, widen_bytes(line + i * LINE + t))
    if job.lowest == 0:
        for i in range(LANES):
            multiply_shorts(wide + i * step, n, 0, job.products + 32 * i)
        take_products(job.products, low)
    for i in range(LANES):
        if is_small:
            multiply_bytes(line + i * LINE, n, job.products + 32 * i)
        else:
            multiply_shorts(wide + i * step, n, 1, job.products + 32 * i)
            multiply_shorts(wide + i * step, n, 5, job.products + 32 * i + 128 * LANES)
    for lag in range(1, 9):
        target = low + lag * SLOT if lag <= job.base else acc + (lag - job.base - 1) * SLOT
        take_products(job.products + (lag - 1) * 32 * LANES, target)
    return 0


@part
def fold_lines(job: Job, line: int, n: int, m: int) -> None:
    """Lines of the levels 1 to 4 of a cell, of n samples, m with the zeros behind.

    What a level has left over for the next is added to the floats in the job's scratch.
    """
    store(job.scratch, zero())
    source, step = line, LINE
    for level in range(1, 5):
        to, to_step = short_line(job, level), short_step(level)
        m >>= 1
        for i in range(LANES):
            if level == 1:
                for t in range(0, m, 16):
                    fold_bytes(source + i * step + 2 * t, to + i * to_step + 2 * t)
            else:
                for t in range(0, m, 16):
                    fold_shorts(source + i * step + 4 * t, to + i * to_step + 2 * t)
            if m & 31:
                store_shorts(to + i * to_step + 2 * m, no_shorts())
        if n & 1:
            for i in range(LANES):
                left = get_u16(to + i * to_step, n >> 1)
                set_f32(job.scratch, i, get_f32(job.scratch, i) + left)
                set_u16(to + i * to_step, n >> 1, 0)
        n >>= 1
        source, step = to, to_step


@part
def short_pieces(line: int, n: int, level: int, static: int, segments: int) -> None:
    """Add the sums over pieces of 2**level frames, in a run too short for more, to the segments of partitions."""
    for i in range(LANES):
        label = get_i32(static, i)
        if label >= 0:
            for t in range(n):
                at = label * PIECES + (t >> level)
                set_f64(segments, at, get_f64(segments, at) + get_u8(line + i * LINE, t))


@part
def take_totals(job: Job, n: int, piece_level: int, total: int, static: int, segments: int) -> None:
    """Sums over the frames of a cell and their pieces, from its n samples of level 4 in the job's buffer x."""
    if piece_level < 4:
        piece_sums(job.x, n, CHUNK, job.y)
        add_to_f64(total, load(job.y))
    else:
        rows = piece_sums(job.x, n, 1 << (piece_level - 4), job.y)
        take_sums(job.y, rows, static, total, segments, job.scratch + ROW)
    add_to_f64(total, load(job.scratch))


@part
def advance_lines(
    job_address: int, place_address: int, g: int, sub: int, line: int, n: int, peak: int, chunk: int,
    piece_level: int, static: int, segments: int,
) -> int:  # fmt: skip
    """Take n frames of a chunk, in a cell's lines, into its state (`sub` of group g)."""
    job, state = job_at(job_address), place_at(place_address)
    m = (n + 255) & ~255
    place = g * HISTORY * STATE_ROW + sub * ROW
    for octet in range(LANES // OCTET):
        rows_to_bytes(state.history + place + octet * 32, STATE_ROW, line + octet * OCTET * LINE - 8, LINE)
    low = state.acc + g * SLOTS * SLOT + sub * LANES * 8
    per_level = state.groups * SLOTS * SLOT
    call(job.multiply_first, (job_address, line, m, peak, low, low + per_level, state.history + place))
    for octet in range(LANES // OCTET):
        at = line + octet * OCTET * LINE
        bytes_to_rows(at + n - 8, LINE, state.history + place + octet * 32, STATE_ROW)
        if chunk == 0:
            bytes_to_rows(at, LINE, state.head + place + octet * 32, STATE_ROW)
    fold_lines(job, line, n, m)
    for level in range(1, min(4, state.levels)):
        here, step, number = short_line(job, level), short_step(level), n >> level
        place += state.groups * HISTORY * STATE_ROW
        for octet in range(LANES // OCTET):
            at = here + octet * OCTET * step
            rows_to_shorts(state.history + place + octet * 32, STATE_ROW, at - 16, step)
            if chunk == 0:
                shorts_to_rows(at, step, state.head + place + octet * 32, STATE_ROW)
            shorts_to_rows(at + 2 * number - 16, step, state.history + place + octet * 32, STATE_ROW)
        for i in range(LANES):
            multiply_shorts(here + i * step, (number + 31) & ~31, job.base + 1, job.products + 32 * i)
        for slot in range(4):
            target = low + (level + 1) * per_level + slot * SLOT
            take_products(job.products + slot * 32 * LANES, target)
    here, step, number = short_line(job, 4), short_step(4), n >> 4
    for t in range(0, number, 8):
        for octet in range(LANES // OCTET):
            shorts_to_rows(here + octet * OCTET * step + 2 * t, step, job.x + t * ROW + octet * 32, ROW)
    if piece_level < 4:
        short_pieces(line, n, piece_level, static, segments)
    total = state.total + (g * GROUP + sub * LANES) * 8
    take_totals(job, number, piece_level, total, static, segments)
    if number:
        rest = (g, sub, number, (chunk * CHUNK) >> 4, 4, -1, segments, static)
        call(job.advance_rows, (job_address, place_address, *rest))
    return 0


@part
def cell_peak(line: int, n: int) -> int:
    """The highest count of a cell's lines."""
    most = no_bytes()
    for i in range(LANES):
        for t in range(0, n, 32):
            most = most_bytes(most, load_bytes(line + i * LINE + t))
    return int(most_byte(most))


@part
def highest_of(counts: int) -> int:
    """Of LANES uint8."""
    most = 0
    for i in range(LANES):
        most = max(most, get_u8(counts, i))
    return most


@part
def blank_saturated(line: int, n: int, peak: int, remark: int) -> None:
    """Note which lines of a cell have the highest count, and blank those and the ones that had it before."""
    for i in range(LANES):
        at = line + i * LINE
        if peak == 255:
            for t in range(n):
                if get_u8(at, t) == 255:
                    set_u8(remark, i, get_u8(remark, i) | SATURATED)
        if get_u8(remark, i) & SATURATED:
            clear_bytes(at, n)


@part
def line_total(line: int, n: int) -> float:
    """Sum of a line."""
    words = no_words()
    for t in range(0, n, 32):
        words = add_sum_of_bytes(words, load_bytes(line + t))
    return float(sum_of_words(words))


@part
def add_lines(line: int, count: int, n: int, to: int) -> None:
    """Add up to 8 lines, whose counts are below 32, to the counts of their bin."""
    for t in range(0, n, 128):
        at = line + t
        a = load_bytes(at)
        b = load_bytes(at + 32)
        c = load_bytes(at + 64)
        d = load_bytes(at + 96)
        for p in range(1, count):
            at = line + p * LINE + t
            a = add_bytes(a, load_bytes(at))
            b = add_bytes(b, load_bytes(at + 32))
            c = add_bytes(c, load_bytes(at + 64))
            d = add_bytes(d, load_bytes(at + 96))
        add_bytes_to_u16(a, to + 2 * t)
        add_bytes_to_u16(b, to + 2 * t + 64)
        add_bytes_to_u16(c, to + 2 * t + 128)
        add_bytes_to_u16(d, to + 2 * t + 192)


@part
def add_intensity(job: Job, labels: int, line: int, n: int, peak: int) -> None:
    """Add the lines of a group to the counts of their dynamic bins; labels: of its pixels."""
    most = 8 if peak < 32 else 1
    i = 0
    while i < GROUP:
        q = get_i32(labels, i)
        end = i + 1
        while end < min(i + most, GROUP) and get_i32(labels, end) == q:
            end += 1
        if q >= 0:
            set_u8(job.marks, q, 1)
            add_lines(line + i * LINE, end - i, n, job.bins + q * CHUNK * 2)
        i = end


@part
def give_intensity(job: Job, n: int, frame: int) -> None:
    """Add a tile's counts of each dynamic bin to the run's, and make them zero."""
    for q in range(job.n_dynamic):
        if get_u8(job.marks, q):
            set_u8(job.marks, q, 0)
            for t in range(0, n, 16):
                add_shorts_to_i64(
                    job.bins + (q * CHUNK + t) * 2, job.intensity + (q * job.intensity_pitch + frame + t) * 8
                )
            clear_bytes(job.bins + q * CHUNK * 2, 2 * CHUNK)


@part
def take_lines(
    job_address: int, place_address: int, offset: int, tile: int, chunk: int, n: int, piece_level: int,
    segments: int,
) -> int:  # fmt: skip
    """Take n uint8 frames of a chunk into the state of a tile's groups; segments: (partitions, PIECES) float64."""
    job, state = job_at(job_address), place_at(place_address)
    call(job.fill_lines, (job_address, tile, chunk, n))
    pixel = job.begin + tile * TILE
    first = job.tile + LINE_BEFORE
    for u in range(get_i64(job.unused_ptr, tile), get_i64(job.unused_ptr, tile + 1)):
        start = get_i64(job.unused, u)
        for p in range(start, min(start + GROUP, job.end)):
            set_f64(job.saxs, p, get_f64(job.saxs, p) + line_total(first + (p - pixel) * LINE, n))
    begin = get_i64(job.tile_ptr, tile)
    for g in range(begin, get_i64(job.tile_ptr, tile + 1)):
        at = g - begin + offset
        line = first + (get_i64(job.group, g) - pixel) * LINE
        highest = 0
        for sub in range(GROUP // LANES):
            static = job.static + (g * GROUP + sub * LANES) * 4
            here = line + sub * LANES * LINE
            peak = highest_of(job.peaks + get_i64(job.group, g) - pixel + sub * LANES)
            highest = max(highest, peak)
            remark = state.remark + at * GROUP + sub * LANES
            if peak == 255 or get_i64(remark, 0) != 0 or get_i64(remark, LANES // 8 - 1) != 0:
                blank_saturated(here, n, peak, remark)
            if not is_used(static):
                for i in range(LANES):
                    p = at * GROUP + sub * LANES + i
                    set_f64(state.total, p, get_f64(state.total, p) + line_total(here + i * LINE, n))
                continue
            rest = (at, sub, here, n, peak, chunk, piece_level, static, segments)
            call(job.advance_lines, (job_address, place_address, *rest))
        add_intensity(job, job.dynamic + g * GROUP * 4, line, n, highest)
    give_intensity(job, n, (chunk - job.first_chunk) * CHUNK)
    return 0
