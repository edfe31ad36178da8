"""One thread's SIMD multi-tau work, with the same face as that of plain numba (`plain_work`)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.simd.lanes import LANES
from lightkeep.analysis.xpcs.kernels.cell import HISTORY, ROW
from lightkeep.analysis.xpcs.kernels.cell_sweep import advance_cells, finish_cells
from lightkeep.analysis.xpcs.kernels.job import CELL_PAD, CELLS, KINDS, MOST_PIECES, Cells, Job, Place
from lightkeep.analysis.xpcs.kernels.layout import Layout
from lightkeep.analysis.xpcs.kernels.state import CHUNK, Delays, Float64, Int64, State, empty_state
from lightkeep.analysis.xpcs.kernels.sweep import GROUPS, Gain, Options, Piece


class CellWork:
    """Buffers of one thread, and what it does with them."""

    def __init__(
        self,
        cells: Cells,
        piece: Piece,
        layout: Layout,
        options: Options,
        gain: Gain,
        saxs: Float64,
        delays: Delays,
        remark: NDArray[np.uint8],
        levels: int,
    ) -> None:
        kind = np.dtype(np.float32) if piece.event_ptr.size else piece.frames.dtype
        if piece.event_ptr.size and not options.is_float and piece.events.view(np.float32)[1::2].max(initial=0) < 4096:
            kind = np.dtype(np.uint16)
        pitch = -(-len(delays.level) // 4) * 4
        labels = int(np.diff(layout.static_ptr).max(initial=0))
        n_static, n_dynamic = gain.segment_whole.shape[1], gain.intensity.shape[1]
        self._tile = np.zeros(CELLS * (CHUNK * LANES * kind.itemsize + CELL_PAD), np.uint8)
        self._rows = np.zeros((2, HISTORY + CHUNK + 8, LANES), np.float32)
        self._scratch = np.zeros((8, LANES))
        self._bins = np.zeros(n_dynamic * (CHUNK + 1))
        self._out = np.zeros((6, pitch, LANES))
        self._segments = np.zeros(MOST_PIECES * labels)
        self._sums = np.zeros((labels, 6, pitch))
        self._state = empty_state(GROUPS, dpl=4, levels=levels, has_bad=False)
        self._kept = (piece, layout, cells, options, gain, saxs, delays, remark)
        x = self._rows.ctypes.data + HISTORY * ROW
        self._job = Job(
            kind=KINDS[kind.name],
            frames=_at(piece.frames),
            stride=piece.stride * piece.frames.itemsize,
            origin=piece.origin,
            first_chunk=piece.first_chunk,
            n=piece.n,
            has_events=int(piece.event_ptr.size > 0),
            event_ptr=_at(piece.event_ptr),
            events=_at(piece.events),
            begin=layout.begin,
            end=layout.end,
            tiles=len(layout.tile_ptr) - 1,
            group=_at(layout.group),
            tile_ptr=_at(layout.tile_ptr),
            unused=_at(layout.unused),
            unused_ptr=_at(layout.unused_ptr),
            static=_at(layout.static),
            static_ptr=_at(layout.static_ptr),
            block_static=_at(layout.block_static),
            cell_dynamic_ptr=_at(cells.dynamic_ptr),
            cell_dynamic=_at(cells.dynamic),
            cell_dynamic_byte=_at(cells.dynamic_byte),
            cell_dynamic_float=_at(cells.dynamic_float),
            cell_static_ptr=_at(cells.static_ptr),
            cell_static=_at(cells.static),
            cell_static_weight=_at(cells.static_weight),
            base=options.base,
            lowest=options.lowest,
            is_float=int(options.is_float),
            limit=float(options.limit),
            n_dynamic=n_dynamic,
            n_static=n_static,
            tile=_at(self._tile),
            x=x,
            y=x + self._rows.strides[0],
            scratch=_at(self._scratch),
            bins=_at(self._bins),
            taus=len(delays.level),
            tau_pitch=pitch,
            level=_at(delays.level),
            lag=_at(delays.lag),
            pairs=_at(delays.pairs),
            row=_at(delays.row),
            slot=_at(delays.slot),
            out=_at(self._out),
            whole=_at(gain.whole),
            part=_at(gain.part),
            segment_whole=_at(gain.segment_whole),
            segment_part=_at(gain.segment_part),
            segments=len(gain.segment_whole),
            intensity=_at(gain.intensity),
            saxs=_at(saxs),
            remark=_at(remark),
        )

    def advance(self, begin: int, end: int, state: State, segment_frames: int) -> None:
        """Take the piece, one chunk, into the state of blocks begin .. end."""
        level = segment_frames.bit_length() - 1
        advance_cells(self._job, place_of(state), begin, end, level, _at(self._segments))

    def finish(
        self, begin: int, end: int, state: State, frames: int, segment_frames: int, piece_frames: Int64
    ) -> None:
        """Take the piece, the last frames, and sum over the pixels of blocks begin .. end."""
        levels = np.array([int(each).bit_length() - 1 for each in piece_frames], np.int64)
        finish_cells(
            self._job,
            place_of(state),
            place_of(self._state),
            begin,
            end,
            frames,
            segment_frames.bit_length() - 1,
            _at(levels),
            _at(self._segments),
            _at(self._sums),
        )


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


def _at(array: NDArray[Any]) -> int:
    return array.ctypes.data
