"""What the multi-tau kernels are given and give, as far as Python has to know; without numba."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.xpcs.kernels.state import Int64

FRACTION_BITS: Final = 48
"""That of `sums.FRACTION_BITS`."""
INTENSITY_BITS: Final = 20
"""That of `sums.INTENSITY_BITS`."""
INTENSITY_SCALE: Final = 2.0**INTENSITY_BITS
FLOAT_NOISE: Final = 1e-6
"""A mean of fractions that is smaller than this beside the pixel's total is what rounding left of 0: IP and IF are
differences of the total. Whole counts are exact."""

SATURATED: Final = 1
NEGATIVE: Final = 2
INVALID: Final = 4


class Options(NamedTuple):
    """What holds for a whole run."""

    dpl: int
    base: int
    """Lags of a level begin behind it."""
    lowest: int
    """Lowest lag of level 0: 0 or 1."""
    limit: float
    """Count at which a pixel is saturated."""
    is_float: bool
    """Counts may be negative or not finite."""
    bad: Int64
    """Ascending bad frames."""


class Piece(NamedTuple):
    """Consecutive frames of a run, from the beginning of a chunk."""

    frames: NDArray[Any]
    """(n * stride,) counts, those of a frame side by side; empty when they are events."""
    stride: int
    """From a pixel in one frame to the same in the next."""
    origin: int
    """Pixel of the first count."""
    first_chunk: int
    n: int
    """Number of frames."""
    event_ptr: Int64
    """(chunks, n_tiles + 1) events of each tile in each chunk; (0, 0) when they are frames."""
    events: NDArray[np.uint64]
    """Words of `event_sort`."""


class Gain(NamedTuple):
    """What a thread adds up: integers, so that it does not matter which thread had what."""

    whole: Int64
    part: Int64
    """(n_static, 6, n_tau) G2, IP, IF, g, g^2, number of pixels."""
    segment_whole: Int64
    segment_part: Int64
    """(n_segments, n_static)."""
    intensity: Int64
    """(frames, n_dynamic)."""


def gain_of(taus: int, *, segments: int, frames: int, n_static: int, n_dynamic: int) -> Gain:
    """Zeros to add to."""
    return Gain(
        np.zeros((n_static, 6, taus), np.int64),
        np.zeros((n_static, 6, taus), np.int64),
        np.zeros((segments, n_static), np.int64),
        np.zeros((segments, n_static), np.int64),
        np.zeros((frames, n_dynamic), np.int64),
    )
