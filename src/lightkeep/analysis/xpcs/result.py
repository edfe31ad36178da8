"""What a multi-tau correlation gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.xpcs.schemes import Scheme

Float64 = NDArray[np.float64]
Normalisation = Literal["partition", "pooled", "ratio_of_sums"]

UNITS: Mapping[str, str] = {
    "tau": "s",
    "tau_frames": "frames",
    "g2": "1",
    "g2_err": "1",
    "g2_partial": "1",
    "saxs_2d": "counts/pixel/frame",
    "saxs_1d": "counts/pixel/frame",
    "saxs_1d_segments": "counts/pixel/frame",
    "intensity": "counts/pixel/frame",
    "intensity_q": "counts/pixel/frame",
    "q": "1/angstrom",
    "static_q": "1/angstrom",
}


@dataclass(frozen=True, eq=False)
class MultiTauResult:
    """Correlation and static outputs of a run. What is not defined is NaN, and `flags` say why.

    A *frame* is the mean of `average` detector frames, taken every `stride`.
    """

    tau: Float64
    """(n_tau,) delays in s; in frames where the frame time is not known (see `units`)."""
    tau_frames: NDArray[np.int64]
    """(n_tau,) delays in frames."""
    pairs: NDArray[np.int64]
    """(n_tau,) pairs of samples behind each delay."""
    g2: Float64
    """(n_tau, n_q) intensity autocorrelation of each dynamic bin; 1 means uncorrelated."""
    g2_err: Float64
    """(n_tau, n_q) standard error of the mean over the bin's pixels; NaN for one pixel, or one pair."""
    g2_partial: Float64
    """(n_tau, n_static) autocorrelation of each static partition."""
    saxs_2d: Float64
    """(H, W) mean counts/pixel/frame."""
    saxs_1d: Float64
    """(n_static,) mean counts/pixel/frame."""
    saxs_1d_segments: Float64
    """(n_segments, n_static) same, in equal pieces of time."""
    intensity: Float64
    """(N,) mean counts/pixel/frame over the used pixels; NaN for a bad frame."""
    intensity_q: Float64
    """(N, n_q) same, per dynamic bin; in long runs means over several frames, which a flag says."""
    q: Float64
    """(n_q,) momentum transfer of each dynamic bin, 1/angstrom; NaN where not known."""
    static_q: Float64
    """(n_static,) same of each static partition."""
    frames: int
    """Number of frames N."""
    frame_time_s: float | None
    """Time from one frame to the next, s, stride and average included; None: not known."""
    begin: int
    """First detector frame."""
    stride: int
    """Every stride-th detector frame was taken."""
    average: int
    """So many of them were averaged into a frame."""
    scheme: Scheme
    """Which delays."""
    dpl: int
    """Delays per level."""
    normalisation: Normalisation
    """How sums over pixels became g2."""
    units: Mapping[str, str]
    """Unit of every array, by its name."""
    flags: tuple[str, ...] = ()
    """What the reader of the curves has to know: one sentence each."""
