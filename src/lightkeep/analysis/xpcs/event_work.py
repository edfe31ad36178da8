"""One thread's multi-tau work on events: a block as events where they are few, as frames where they are many."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.simd.units import Units, packed
from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.xpcs.cell_work import CellWork, place_of
from lightkeep.analysis.xpcs.kernels.event_job import HISTORY, TILES, EventJob
from lightkeep.analysis.xpcs.kernels.layout import BLOCK, Layout
from lightkeep.analysis.xpcs.kernels.state import CHUNK, Delays, Float64, Int64, State
from lightkeep.analysis.xpcs.kernels.work import Gain, Options, Piece

UNITS: Final = Units(
    "lightkeep.analysis.xpcs.kernels",
    {"correlate_pixel": "event", "finish_events": "event", "advance_events": "event_state"},
)
SPARSE: Final = 0.01
"""Events per pixel and frame of a block up to which they are worked on as events."""


class EventWork:
    """Buffers of one thread, and what it does with them; the same face as `CellWork`."""

    def __init__(
        self,
        piece: Piece,
        layout: Layout,
        options: Options,
        gain: Gain,
        saxs: Float64,
        delays: Delays,
        remark: NDArray[np.uint8],
        levels: int,
        *,
        is_whole: bool,
    ) -> None:
        self._arguments = (piece, layout, options, gain, saxs, delays, remark, levels)
        self._dense: dict[int | None, CellWork] = {}
        per_tile = np.diff(piece.event_ptr).sum(axis=0)
        per_block = np.add.reduceat(per_tile, np.arange(0, len(per_tile), TILES))
        self._is_sparse = per_block <= (SPARSE * BLOCK * piece.n if is_whole else -1)
        pitch = -(-len(delays.level) // 4) * 4
        most = int(per_tile.max(initial=0)) + HISTORY
        self._kept: dict[str, NDArray[Any]] = {  # as long as their addresses are in use
            **_given(piece, layout, gain, delays),
            **_buffers(most, pitch, int(np.diff(layout.static_ptr).max(initial=0))),
            "saxs": saxs,
            "nearest": _nearest(piece.n, options.base + 4),
        }
        self._job = EventJob(
            correlate=UNITS.address("correlate_pixel"),
            chunks=len(piece.event_ptr),
            begin=layout.begin,
            end=layout.end,
            tiles=len(layout.tile_ptr) - 1,
            base=options.base,
            lowest=options.lowest,
            n_static=gain.segment_whole.shape[1],
            n_dynamic=gain.intensity.shape[1],
            levels=levels,
            first=piece.first_chunk * CHUNK,
            frames=piece.n,
            taus=len(delays.level),
            tau_pitch=pitch,
            segments=len(gain.segment_whole),
            segment_level=0,
            **{name: array.ctypes.data for name, array in self._kept.items()},
        )

    def advance(self, begin: int, end: int, state: State, segment_frames: int) -> None:
        """Take the piece, whole chunks, into the state of blocks begin .. end."""
        job = packed(self._job._replace(segment_level=segment_frames.bit_length() - 1))
        place = packed(place_of(state))
        function = UNITS.function("advance_events")

        def as_events(first: int, last: int) -> int:
            return function(job.ctypes.data, place.ctypes.data, first, last)

        def as_frames(first: int, last: int) -> None:
            for chunk in range(self._job.chunks):
                self._as_frames(chunk, segment_frames).advance(first, last, state, segment_frames)

        self._work(begin, end, as_events, as_frames)

    def finish(
        self, begin: int, end: int, state: State, frames: int, segment_frames: int, piece_frames: Int64
    ) -> None:
        """Take the piece, the last frames, and sum over the pixels of blocks begin .. end.

        As events when they are all of the run; what follows a state is less than a chunk.
        """
        if state.total.size:
            self._as_frames().finish(begin, end, state, frames, segment_frames, piece_frames)
            return
        job = packed(self._job._replace(segment_level=segment_frames.bit_length() - 1))
        function = UNITS.function("finish_events")

        def as_events(first: int, last: int) -> int:
            return function(job.ctypes.data, first, last)

        def as_frames(first: int, last: int) -> None:
            self._as_frames().finish(first, last, state, frames, segment_frames, piece_frames)

        self._work(begin, end, as_events, as_frames)

    def _work(
        self, begin: int, end: int, as_events: Callable[[int, int], int], as_frames: Callable[[int, int], None]
    ) -> None:
        """Blocks with few events as events, unless that refuses them, the others as frames."""
        for is_sparse, group in itertools.groupby(
            range(begin, end), key=lambda block: bool(self._is_sparse[block])
        ):
            blocks = list(group)
            first, last = blocks[0], blocks[-1] + 1
            while is_sparse and first < last:
                first = as_events(first, last)
                if first < last:
                    as_frames(first, first + 1)
                    first += 1
            if first < last:
                as_frames(first, last)

    def _as_frames(self, chunk: int | None = None, segment_frames: int = CHUNK) -> CellWork:
        """The same work on frames, on one chunk or on all of them."""
        if chunk not in self._dense:
            piece, layout, options, gain, saxs, delays, remark, levels = self._arguments
            if chunk is not None:
                piece = one_chunk(piece, chunk)
                rows = slice(chunk * CHUNK // segment_frames, (chunk + 1) * CHUNK // segment_frames)
                gain = gain._replace(
                    segment_whole=gain.segment_whole[rows],
                    segment_part=gain.segment_part[rows],
                    intensity=gain.intensity[chunk * CHUNK : (chunk + 1) * CHUNK],
                )
            self._dense[chunk] = CellWork(piece, layout, options, gain, saxs, delays, remark, levels)
        return self._dense[chunk]


def joined(pieces: Sequence[Piece]) -> Piece:
    """Events of consecutive pieces as one."""
    starts = np.cumsum([0, *(each.events.size for each in pieces)]).tolist()
    return pieces[0]._replace(
        n=sum(each.n for each in pieces),
        event_ptr=np.concatenate([each.event_ptr + start for each, start in zip(pieces, starts, strict=False)]),
        events=np.concatenate([each.events for each in pieces]),
    )


def one_chunk(piece: Piece, chunk: int) -> Piece:
    """One of the whole chunks of a piece."""
    return piece._replace(
        frames=piece.frames[chunk * CHUNK * piece.stride :],
        first_chunk=piece.first_chunk + chunk,
        n=CHUNK,
        event_ptr=piece.event_ptr[chunk : chunk + 1],
    )


def _given(piece: Piece, layout: Layout, gain: Gain, delays: Delays) -> dict[str, NDArray[Any]]:
    """Arrays of the run, of the detector and of where sums go."""
    scale = 0.5**delays.level
    early, late, ends = _tables(delays, piece.n)
    return {
        "event_ptr": piece.event_ptr,
        "events": piece.events,
        "group": layout.group,
        "tile_ptr": layout.tile_ptr,
        "unused": layout.unused,
        "unused_ptr": layout.unused_ptr,
        "static": layout.static,
        "static_ptr": layout.static_ptr,
        "block_static": layout.block_static,
        "dynamic": layout.dynamic,
        "factor": np.array([scale * scale, scale]) / np.maximum(delays.pairs, 1),
        "pairs": delays.pairs,
        "early": early,
        "late": late,
        "ends": ends,
        "whole": gain.whole,
        "part": gain.part,
        "segment_whole": gain.segment_whole,
        "intensity": gain.intensity,
    }


def _buffers(most: int, pitch: int, labels: int) -> dict[str, NDArray[Any]]:
    """Of one thread; most: events of a pixel, labels: static partitions of a block."""
    return {
        "counts": np.zeros(BLOCK, np.int64),
        "totals": np.zeros(BLOCK),
        "times": np.zeros(most, np.int64),
        "values": np.zeros(most),
        "walk_times": np.zeros(most, np.int64),
        "walk_values": np.zeros(most),
        "out": np.zeros((3, pitch, LANES)),
        "touched": np.zeros(max(pitch, 2 * HISTORY), np.int64),
        "spans": np.zeros(2 * most, np.uint8),
        "marks": np.zeros(pitch // 4, np.uint8),
        "weights": np.zeros(LANES),
        "sums": np.zeros((labels, 6, pitch)),
    }


def _tables(delays: Delays, frames: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """To how many delays, from the first on, a count in each frame adds: see `EventJob`."""
    t = np.arange(frames)
    whole = frames >> delays.level << delays.level
    lag = delays.lag << delays.level
    taus = len(lag)
    early, ends = (
        (taus - np.searchsorted(each[::-1], t, side="right")).astype(np.uint8) for each in (whole - lag, whole)
    )
    return early, np.searchsorted(lag, t, side="right").astype(np.uint8), ends


def _nearest(frames: int, most: int) -> NDArray[np.uint8]:
    """The least level at which each distance, in frames, is `most` samples or less, rounded down."""
    level = np.zeros(frames, np.uint8)
    at = most + 1
    while at < frames:
        level[at:] += 1
        at *= 2
    return level
