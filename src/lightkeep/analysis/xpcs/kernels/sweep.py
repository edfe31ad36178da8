"""Loops of the multi-tau kernels over blocks, tiles, chunks and groups, without Python in between."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.simd import compiled
from lightkeep.analysis.simd.memory import clear_bytes, copy_bytes, get_f32, get_u16
from lightkeep.analysis.xpcs.kernels.kernel import (
    LANES,
    STEPS,
    add_counts,
    add_intensity,
    advance_group,
    clear,
    exact_add,
    finish_group,
    is_bad,
    load_group,
    sum_rows,
)
from lightkeep.analysis.xpcs.kernels.layout import BLOCK, GROUP, TILE, Layout, runs
from lightkeep.analysis.xpcs.kernels.state import CHUNK, Delays, Float32, Float64, Int64, State, empty_state
from lightkeep.analysis.xpcs.kernels.work import FLOAT_NOISE, INVALID, NEGATIVE, SATURATED, Gain, Options, Piece

TILES: int = BLOCK // TILE
GROUPS: int = TILE // GROUP
MOST: float = 2.0**24
"""float32 holds whole numbers up to here."""


class Bins(NamedTuple):
    """The dynamic bins of each group, as a CSR list."""

    ptr: Int64
    """(n_groups + 1,)."""
    label: Int64
    """Dynamic bin, from 0."""
    weight: Float32
    """(n, GROUP) 1 where the group's pixel is in that bin, else 0."""


class Work(NamedTuple):
    """One thread's buffers."""

    tile: NDArray[Any]
    """(CHUNK, TILE) of the counts' dtype: uint8 or float32."""
    whole: NDArray[Any]
    """(CHUNK * TILE,) the same memory as whole numbers: bits of floats that are not negative sort as they do."""
    limit: int
    """Of `whole`: where pixels are saturated."""
    x: Float32
    y: Float32
    """Buffers of the kernel, one half as long as the other would do; they are swapped."""
    state: State
    """Of one tile."""


def work_of(dtype: np.dtype[Any], options: Options, levels: int) -> Work:
    """Buffers for one thread."""
    rows = 2 * options.dpl + CHUNK + 2 * STEPS
    tile = np.zeros((CHUNK, TILE), dtype)
    is_byte = dtype == np.uint8
    return Work(
        tile,
        tile.reshape(-1).view(np.uint8 if is_byte else np.int32),
        int(options.limit) if is_byte else int(np.float32(options.limit).view(np.int32)),
        np.zeros((rows, LANES), np.float32),
        np.zeros((rows, LANES), np.float32),
        empty_state(GROUPS, dpl=options.dpl, levels=levels, has_bad=options.bad.size > 0),
    )


def bins_of(layout: Layout) -> Bins:
    """The dynamic bins of each group."""
    ptr, label, mask = runs(layout.dynamic)
    return Bins(ptr, label, mask.astype(np.float32))


@compiled
def load_tile(piece: Piece, layout: Layout, tile: int, chunk: int, n: int, into: NDArray[Any]) -> None:
    """Fill a tile with n frames of a chunk."""
    pixel = layout.begin + tile * TILE
    if piece.event_ptr.size:
        for t in range(np.uint64(n)):
            for i in range(np.uint64(TILE)):
                into[t, i] = 0
        c = chunk - piece.first_chunk
        for e in range(piece.event_ptr[c, tile], piece.event_ptr[c, tile + 1]):
            frame, at = get_u16(piece.events.ctypes.data, 4 * e), get_u16(piece.events.ctypes.data, 4 * e + 1)
            into[frame, at] += get_f32(piece.events.ctypes.data, 2 * e + 1)
        return
    first = pixel - piece.origin + (chunk - piece.first_chunk) * CHUNK * piece.stride
    width = min(TILE, layout.end - pixel)
    size = into.itemsize
    for t in range(n):
        at = into.ctypes.data + t * TILE * size
        copy_bytes(piece.frames.ctypes.data + (first + t * piece.stride) * size, at, width * size)
        clear_bytes(at + width * size, (TILE - width) * size)


@compiled
def largest(numbers: NDArray[Any]) -> int:
    """The largest of a line of whole numbers."""
    most = numbers.dtype.type(0)
    for i in range(np.uint64(numbers.size)):
        most = max(most, numbers[i])
    return int(most)


@compiled
def inspect(x: Float32, n: int, history: int, options: Options, remark: NDArray[np.uint8]) -> None:
    """Blank what must not be counted, and say so in the pixels' remarks."""
    if options.is_float:
        for t in range(history, history + n):
            for i in range(LANES):
                if not abs(x[t, i]) < np.inf:
                    x[t, i] = 0
                    remark[i] |= np.uint8(INVALID)
                elif x[t, i] < 0:
                    remark[i] |= np.uint8(NEGATIVE)
        return
    peak = np.zeros(LANES, np.float32)
    for t in range(np.uint64(history), np.uint64(history + n)):
        for i in range(np.uint64(LANES)):
            peak[i] = max(peak[i], x[t, i])
    for i in range(LANES):
        if peak[i] >= options.limit:
            remark[i] |= np.uint8(SATURATED)
        if remark[i] & np.uint8(SATURATED):
            for t in range(history, history + n):
                x[t, i] = 0


@compiled
def take_chunk(
    piece: Piece,
    layout: Layout,
    bins: Bins,
    tile: int,
    chunk: int,
    n: int,
    options: Options,
    work: Work,
    state: State,
    offset: int,
    gain: Gain,
    segments: Float64,
    segment_frames: int,
    saxs: Float64,
) -> None:
    """Take n frames of a chunk into the state of a tile's groups (from `offset` in it), intensity and segments.

    segments: (n, local static) of this tile and chunk, added to; `segment_frames`: frames of each.
    """
    load_tile(piece, layout, tile, chunk, n, work.tile)
    pixel = layout.begin + tile * TILE
    history = 2 * options.dpl
    x = work.x
    row = np.zeros(LANES)
    peak = largest(work.whole[: n * TILE])
    most = peak if work.tile.itemsize == 1 else int(options.limit)
    for u in range(layout.unused_ptr[tile], layout.unused_ptr[tile + 1]):
        start = layout.unused[u]
        load_group(work.tile[:, start - pixel : start - pixel + GROUP], n, history, x)
        blank(x, n, history, chunk * CHUNK, options.bad)
        clear(row)
        sum_rows(x, history, history + n, row)
        for i in range(min(GROUP, layout.end - start)):
            saxs[start + i] += row[i]
    for g in range(layout.tile_ptr[tile], layout.tile_ptr[tile + 1]):
        start = layout.group[g]
        at = offset + g - layout.tile_ptr[tile]
        load_group(work.tile[:, start - pixel : start - pixel + GROUP], n, history, x)
        blank(x, n, history, chunk * CHUNK, options.bad)
        if options.is_float or peak >= work.limit or state.remark[0, at, 0].max():
            inspect(x, n, history, options, state.remark[0, at, 0])
        first, last = bins.ptr[g], bins.ptr[g + 1]
        frame = (chunk - piece.first_chunk) * CHUNK
        weight, label = bins.weight[first:last], bins.label[first:last]
        if options.is_float or options.limit > MOST:
            add_intensity(x, n, history, weight, label, gain.intensity, frame)
        else:
            add_counts(x, n, history, weight, label, gain.intensity, frame, most)
        for s in range(-(-n // segment_frames)):
            clear(row)
            sum_rows(x, history + s * segment_frames, history + min(n, (s + 1) * segment_frames), row)
            for i in range(LANES):
                state.total[0, at, 0, i] += row[i]
                if layout.static[g, i] >= 0:
                    segments[s, layout.static[g, i]] += row[i]
        advance_group(x, work.y, n, chunk, options.dpl, options.base, options.lowest, options.bad, state, at)


@compiled
def blank(x: Float32, n: int, history: int, start: int, bad: Int64) -> None:
    """Make bad frames zero."""
    if bad.size:
        for t in range(n):
            if is_bad(bad, 0, start + t):
                clear(x[history + t])


@compiled
def add_segments(
    segments: Float64, rows: int, per_segment: int, first: int, layout: Layout, block: int, gain: Gain
) -> None:
    """Add a chunk's segments, `per_segment` of which make one of gain's, the first of which is number `first`."""
    begin = layout.static_ptr[block]
    for s in range(rows):
        to = (first + s) // per_segment
        if to < gain.segment_whole.shape[0]:
            for j in range(layout.static_ptr[block + 1] - begin):
                exact_add(
                    segments[s, j], gain.segment_whole[to], gain.segment_part[to], layout.block_static[begin + j]
                )


@compiled
def advance_blocks(
    piece: Piece,
    layout: Layout,
    bins: Bins,
    block_begin: int,
    block_end: int,
    options: Options,
    work: Work,
    state: State,
    gain: Gain,
    segment_frames: int,
    saxs: Float64,
) -> None:
    """Take one chunk into the state of all groups of some blocks; gain has segments of `segment_frames`."""
    n = piece.n
    rows = -(-n // segment_frames)
    for block in range(block_begin, block_end):
        labels = layout.static_ptr[block + 1] - layout.static_ptr[block]
        segments = np.zeros((rows, labels))
        for tile in range(block * TILES, min((block + 1) * TILES, layout.tile_ptr.size - 1)):
            clear(segments.ravel())
            offset = layout.tile_ptr[tile]
            take_chunk(
                piece, layout, bins, tile, piece.first_chunk, n, options, work, state, offset, gain, segments,
                segment_frames, saxs,
            )  # fmt: skip
            add_segments(segments, rows, 1, 0, layout, block, gain)


@compiled
def copy_groups(into: NDArray[Any], from_: NDArray[Any], begin: int, count: int) -> None:
    """Copy `count` groups of one of a state's arrays, or zeros when it has none."""
    count = min(count, into.shape[1])
    is_empty = from_.shape[1] == 0
    for a in range(into.shape[0]):
        for g in range(count):
            for b in range(into.shape[2]):
                for i in range(GROUP):
                    into[a, g, b, i] = 0 if is_empty else from_[a, begin + g, b, i]


@compiled
def set_state(into: State, from_: State, begin: int, count: int) -> None:
    """Copy the state of some groups, or zeros when there is none."""
    copy_groups(into.acc, from_.acc, begin, count)
    copy_groups(into.history, from_.history, begin, count)
    copy_groups(into.head, from_.head, begin, count)
    copy_groups(into.total, from_.total, begin, count)
    copy_groups(into.remark, from_.remark, begin, count)
    copy_groups(into.early, from_.early, begin, count)
    copy_groups(into.late, from_.late, begin, count)
    copy_groups(into.lost, from_.lost, begin, count)


@compiled
def finish_blocks(
    piece: Piece,
    layout: Layout,
    bins: Bins,
    block_begin: int,
    block_end: int,
    frames: int,
    delays: Delays,
    options: Options,
    work: Work,
    state: State,
    gain: Gain,
    segment_frames: int,
    piece_frames: Int64,
    saxs: Float64,
    remark: NDArray[np.uint8],
) -> None:
    """Take the last frames of a run (all of them when `state` has no groups) and sum over the pixels of some
    blocks.

    state: before piece.first_chunk; it is not changed.
    frames: of the run.
    segment_frames: of gain's segments. piece_frames: (chunks,) frames over which each chunk's are summed first.
    saxs: (pixels of the detector,) sum over the frames, added to where groups are not used, else set.
    remark: (n_groups, GROUP) the pixels' remarks, set.
    """
    noise = FLOAT_NOISE if options.is_float else 0.0
    for block in range(block_begin, block_end):
        labels = layout.static_ptr[block + 1] - layout.static_ptr[block]
        sums = np.zeros((labels, 6, delays.level.size))
        for tile in range(block * TILES, min((block + 1) * TILES, layout.tile_ptr.size - 1)):
            groups = layout.tile_ptr[tile]
            count = layout.tile_ptr[tile + 1] - groups
            set_state(work.state, state, groups, count)
            for c in range(-(-piece.n // CHUNK)):
                chunk = piece.first_chunk + c
                n = min(CHUNK, piece.n - c * CHUNK)
                rows = -(-n // piece_frames[c])
                segments = np.zeros((rows, labels))
                take_chunk(
                    piece, layout, bins, tile, chunk, n, options, work, work.state, 0, gain, segments,
                    piece_frames[c], saxs,
                )  # fmt: skip
                whole = n // piece_frames[c]
                first = chunk * CHUNK // piece_frames[c]
                add_segments(segments, whole, segment_frames // piece_frames[c], first, layout, block, gain)
            for g in range(count):
                start = layout.group[groups + g]
                for i in range(min(GROUP, layout.end - start)):
                    saxs[start + i] = work.state.total[0, g, 0, i]
                    remark[groups + g, i] = work.state.remark[0, g, 0, i]
                finish_group(work.state, g, frames, delays, noise, layout.static[groups + g], sums)
        add_sums(sums, delays, layout, block, gain)


@compiled
def add_sums(sums: Float64, delays: Delays, layout: Layout, block: int, gain: Gain) -> None:
    """Add a block's sums as means over pairs of mean samples."""
    begin = layout.static_ptr[block]
    for j in range(sums.shape[0]):
        to = layout.block_static[begin + j]
        for d in range(delays.level.size):
            pairs = max(delays.pairs[d], 1)
            scale = 1.0 / (1 << delays.level[d])
            exact_add(sums[j, 0, d] * scale * scale / pairs, gain.whole[to, 0], gain.part[to, 0], d)
            exact_add(sums[j, 1, d] * scale / pairs, gain.whole[to, 1], gain.part[to, 1], d)
            exact_add(sums[j, 2, d] * scale / pairs, gain.whole[to, 2], gain.part[to, 2], d)
            for k in range(3, 6):
                exact_add(sums[j, k, d], gain.whole[to, k], gain.part[to, k], d)
