"""One thread's SIMD multi-tau work, with the same face as that of plain numba (`plain_work`)."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.simd.units import Units, packed
from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.xpcs.kernels.job import (
    CELL_PAD,
    CELLS,
    HISTORY,
    KINDS,
    LINE,
    PIECES,
    ROW,
    Job,
    Place,
)
from lightkeep.analysis.xpcs.kernels.layout import GROUPS, TILE, Layout
from lightkeep.analysis.xpcs.kernels.state import CHUNK, Delays, Float64, Int64, State, empty_state
from lightkeep.analysis.xpcs.kernels.work import Gain, Options, Piece

UNITS: Final = Units(
    "lightkeep.analysis.xpcs.kernels",
    {
        "advance_rows": "cell",
        "take_lines": "byte_chunk",
        "fill_lines": "byte_chunk",
        "multiply_first": "byte_chunk",
        "advance_lines": "byte_chunk",
        "take_cells": "cell_chunk",
        "finish_cell": "cell_sweep",
        "advance_cells": "cell_sweep",
        "finish_cells": "cell_sweep",
    },
)
_BYTE_UNITS: Final = (
    "advance_lines",
    "take_lines",
    "finish_cells",
    "advance_rows",
    "multiply_first",
    "finish_cell",
    "fill_lines",
)
"""For counts of one byte. The longest to compile come first: processes that take turns then end together."""
_CELL_UNITS: Final = ("take_cells", "finish_cells", "finish_cell", "advance_rows")
"""For all others, in such an order too."""
_SHORTS: Final = LANES * (64 * 5 + 2048)
"""Bytes of the lines of int16 of a cell, on 5 levels."""


class CellWork:
    """Buffers of one thread, and what it does with them."""

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
    ) -> None:
        kind = _kind(piece, options)
        is_byte = kind == np.uint8
        pitch = -(-len(delays.level) // 4) * 4
        labels = int(np.diff(layout.static_ptr).max(initial=0))
        n_dynamic = gain.intensity.shape[1]
        self._n, self._gain = piece.n, gain
        self._tile = _aligned(TILE * LINE if is_byte else CELLS * (CHUNK * LANES * kind.itemsize + CELL_PAD))
        self._rows = np.zeros((2, HISTORY + CHUNK + 8, LANES), np.float32)
        self._scratch = np.zeros((LANES, LANES))
        self._bins = np.zeros((n_dynamic, CHUNK), np.uint16 if is_byte else np.float64)
        self._marks = np.zeros(n_dynamic, np.uint8)
        self._lines = _aligned(_SHORTS + 8 * LANES * 32 + 33 * TILE if is_byte else 0)
        self._out = np.zeros((6, pitch, LANES))
        self._segments = np.zeros(PIECES * labels)
        self._sums = np.zeros((labels, 6, pitch))
        self._intensity = np.zeros((n_dynamic, -(-piece.n // CHUNK) * CHUNK), np.int64)
        self._state = empty_state(GROUPS, dpl=4, levels=levels, has_bad=False)
        self._kept = (piece, layout, options, gain, saxs, delays, remark)
        x, lines = _at(self._rows) + HISTORY * ROW, _at(self._lines)
        job = Job(
            kind=KINDS[kind.name],
            tile=_at(self._tile),
            x=x,
            y=x + self._rows.strides[0],
            scratch=_at(self._scratch),
            bins=_at(self._bins),
            marks=_at(self._marks),
            shorts=lines,
            products=lines + _SHORTS,
            spare=lines + _SHORTS + 8 * LANES * 32,
            peaks=lines + _SHORTS + 8 * LANES * 32 + 32 * TILE,
            tau_pitch=pitch,
            out=_at(self._out),
            intensity=_at(self._intensity),
            intensity_pitch=self._intensity.shape[1],
            saxs=_at(saxs),
            remark=_at(remark),
            **_given(piece, layout, gain, delays),
            **_chosen(options),
            **_units(is_byte=is_byte),
        )
        self._job = packed(job)

    def advance(self, begin: int, end: int, state: State, segment_frames: int) -> None:
        """Take the piece, one chunk, into the state of blocks begin .. end."""
        level, place = segment_frames.bit_length() - 1, packed(place_of(state))
        UNITS.function("advance_cells")(_at(self._job), _at(place), begin, end, level, _at(self._segments))
        self._give_intensity()

    def finish(
        self, begin: int, end: int, state: State, frames: int, segment_frames: int, piece_frames: Int64
    ) -> None:
        """Take the piece, the last frames, and sum over the pixels of blocks begin .. end."""
        levels = np.array([int(each).bit_length() - 1 for each in piece_frames], np.int64)
        place, own = packed(place_of(state)), packed(place_of(self._state))
        UNITS.function("finish_cells")(
            _at(self._job),
            _at(place),
            _at(own),
            begin,
            end,
            frames,
            segment_frames.bit_length() - 1,
            _at(levels),
            _at(self._segments),
            _at(self._sums),
        )
        self._give_intensity()

    def _give_intensity(self) -> None:
        self._gain.intensity[:] += self._intensity[:, : self._n].T
        self._intensity.fill(0)


def _kind(piece: Piece, options: Options) -> np.dtype[Any]:
    """What counts are in a tile: as they come, or for events as little as holds them."""
    if piece.event_ptr.size == 0:
        return piece.frames.dtype
    if options.is_float:
        return np.dtype(np.float32)
    most = piece.events.view(np.float32)[1::2].max(initial=0)
    return np.dtype(np.uint16 if most < 4096 else np.float32)


def _given(piece: Piece, layout: Layout, gain: Gain, delays: Delays) -> dict[str, Any]:
    """What a job says of the run, of the detector and of where sums go."""
    return {
        "frames": _at(piece.frames),
        "stride": piece.stride * piece.frames.itemsize,
        "origin": piece.origin,
        "first_chunk": piece.first_chunk,
        "n": piece.n,
        "has_events": int(piece.event_ptr.size > 0),
        "event_ptr": _at(piece.event_ptr),
        "events": _at(piece.events),
        "begin": layout.begin,
        "end": layout.end,
        "tiles": len(layout.tile_ptr) - 1,
        "group": _at(layout.group),
        "tile_ptr": _at(layout.tile_ptr),
        "unused": _at(layout.unused),
        "unused_ptr": _at(layout.unused_ptr),
        "static": _at(layout.static),
        "dynamic": _at(layout.dynamic),
        "static_ptr": _at(layout.static_ptr),
        "block_static": _at(layout.block_static),
        "n_dynamic": gain.intensity.shape[1],
        "n_static": gain.segment_whole.shape[1],
        "taus": len(delays.level),
        "level": _at(delays.level),
        "lag": _at(delays.lag),
        "pairs": _at(delays.pairs),
        "row": _at(delays.row),
        "slot": _at(delays.slot),
        "whole": _at(gain.whole),
        "part": _at(gain.part),
        "segment_whole": _at(gain.segment_whole),
        "segment_part": _at(gain.segment_part),
        "segments": len(gain.segment_whole),
    }


def _chosen(options: Options) -> dict[str, Any]:
    return {
        "base": options.base,
        "lowest": options.lowest,
        "is_float": int(options.is_float),
        "limit": float(options.limit),
    }


def _units(*, is_byte: bool) -> dict[str, int]:
    """Addresses of the units that others call."""
    of_lines = ("fill_lines", "multiply_first", "advance_lines")
    UNITS.prepare(_BYTE_UNITS if is_byte else _CELL_UNITS)
    found = {name: UNITS.address(name) if is_byte else 0 for name in of_lines}
    found |= {name: UNITS.address(name) for name in ("advance_rows", "finish_cell")}
    return found | {"take_chunk": UNITS.address("take_lines" if is_byte else "take_cells")}


def place_of(state: State) -> Place:
    """Where a state's arrays are."""
    return Place(
        groups=state.total.shape[1],
        levels=state.history.shape[0],
        acc=_at(state.acc),
        history=_at(state.history),
        head=_at(state.head),
        total=_at(state.total),
        remark=_at(state.remark),
    )


def _aligned(size: int) -> NDArray[np.uint8]:
    """Zeros from the beginning of a line of the cache."""
    memory = np.zeros(size + 64, np.uint8)
    return memory[-memory.ctypes.data % 64 :][:size]


def _at(array: NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])  # `ctypes.data` takes ten times as long
