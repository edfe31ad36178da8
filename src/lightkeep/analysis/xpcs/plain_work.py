"""One thread's multi-tau work in plain numba: any number of delays per level, and bad frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.xpcs.kernels.layout import Layout
from lightkeep.analysis.xpcs.kernels.state import Delays, Float64, Int64, State
from lightkeep.analysis.xpcs.kernels.sweep import (
    Bins,
    advance_blocks,
    finish_blocks,
    work_of,
)
from lightkeep.analysis.xpcs.kernels.work import Gain, Options, Piece


class PlainWork:
    """Buffers of one thread, and what it does with them."""

    def __init__(
        self,
        bins: Bins,
        piece: Piece,
        layout: Layout,
        options: Options,
        gain: Gain,
        saxs: Float64,
        delays: Delays,
        remark: NDArray[np.uint8],
        levels: int,
    ) -> None:
        dtype = np.dtype(np.float32) if piece.event_ptr.size else piece.frames.dtype
        self._buffers = work_of(dtype, options, levels)
        self._bins, self._piece, self._layout, self._options, self._gain = bins, piece, layout, options, gain
        self._saxs, self._delays, self._remark = saxs, delays, remark

    def advance(self, begin: int, end: int, state: State, segment_frames: int) -> None:
        """Take the piece, one chunk, into the state of blocks begin .. end."""
        advance_blocks(
            self._piece,
            self._layout,
            self._bins,
            begin,
            end,
            self._options,
            self._buffers,
            state,
            self._gain,
            segment_frames,
            self._saxs,
        )

    def finish(
        self, begin: int, end: int, state: State, frames: int, segment_frames: int, piece_frames: Int64
    ) -> None:
        """Take the piece, the last frames, and sum over the pixels of blocks begin .. end."""
        finish_blocks(
            self._piece,
            self._layout,
            self._bins,
            begin,
            end,
            frames,
            self._delays,
            self._options,
            self._buffers,
            state,
            self._gain,
            segment_frames,
            piece_frames,
            self._saxs,
            self._remark,
        )
