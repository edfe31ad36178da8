"""What a two-time correlation gives, and the one-time curves that are cut from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Smooth = Literal["static", "dynamic", "average"]
Method = Literal["auto", "gemm", "events"]
Cut = Literal["diagonal", "ratio"]
Age = Literal["mean", "waiting"]

SEGMENTS = 5
"""Equal pieces of the run that have a g2 of their own, as in boost-corr."""

UNITS: Mapping[str, str] = {
    "c2": "1",
    "g2": "1",
    "g2_segments": "1",
    "intensity": "counts/pixel/frame",
    "time": "s",
    "tau": "s",
}


@dataclass(frozen=True, eq=False)
class TwoTimeResult:
    """Two-time correlation of each bin, and g2 cut from it.

    A *frame* is the mean of `average` detector frames, taken every `stride`. A frame is *empty* in a bin when none
    of the bin's pixels counted in it, or when it is bad: it has no correlation, its row and column of `c2` are 0,
    and no cut uses it.
    """

    bins: tuple[int, ...]
    """Dynamic bins, ascending, from 1."""
    c2: Mapping[int, Float32]
    """For each bin (N, N), symmetric; 1 means uncorrelated. The diagonal is raw: it holds shot noise, for speckles
    of full contrast 2 + 1/mean counts. See `corrected`."""
    g2: Float64
    """(N, n_bins) g2 at delay 0 (shot noise) to N - 1 frames, see `cut`; NaN where no pair of frames has it."""
    g2_segments: Float64
    """(5, N // 5, n_bins) same inside each of five equal pieces of the run: (segment, delay, bin)."""
    intensity: Float64
    """(N, n_bins) mean counts/pixel/frame; 0 for bad frames."""
    empty: Mapping[int, NDArray[np.int64]]
    """For each bin its empty frames."""
    time: Float64
    """(N,) when each frame began, in s from the first; in frames where the frame time is not known."""
    frame_time_s: float | None
    """Time from one frame to the next, s, stride and average included; None: not known."""
    cut: Cut
    """How g2 was cut: `diagonal`, the mean of c2 along diagonals (boost-corr, xpcs-eigen), or `ratio`, the ratio
    of the sums over t of <x(t) x(t + delay)> and <x(t)><x(t + delay)> (ESRF)."""
    smooth: Smooth | None
    """What each pixel was divided by; see `twotime`."""
    method: Mapping[int, Method]
    """For each bin how pairs were summed."""
    begin: int
    """First detector frame."""
    stride: int
    """Every stride-th detector frame was taken."""
    average: int
    """So many of them were averaged into a frame."""
    units: Mapping[str, str]
    """Unit of every array, by its name."""
    flags: tuple[str, ...] = ()
    """What the reader has to know: one sentence each."""

    @property
    def tau(self) -> Float64:
        """(N,) delays, in the unit of `time`."""
        return self.time - self.time[:1]

    def corrected(self, number: int) -> Float32:
        """(N, N) c2 of a bin for viewing and fitting, its diagonal without shot noise: see `correct_diagonal`."""
        return correct_diagonal(self.c2[number], empty=self.empty[number])

    def at_age(self, number: int, age: float, *, width: float, kind: Age = "mean") -> Float64:
        """g2 of a bin at one age of the sample; see `cut_at_age`. Age and width in the unit of `time`.

        Returns
        -------
        : (N,) for the delays `tau`; NaN where no pair of frames has the age.
        """
        step = 1.0 if self.frame_time_s is None else self.frame_time_s
        return cut_at_age(self.c2[number], age / step, width=width / step, kind=kind, empty=self.empty[number])


def correct_diagonal(c2: Float32, *, empty: ArrayLike = ()) -> Float32:
    """c2 with each value on its diagonal replaced by the mean of its two neighbours beside the diagonal.

    Parameters
    ----------
    c2: (N, N), symmetric.
    empty: frames without correlation: they keep their 0 and are nobody's neighbour.

    Returns
    -------
    : (N, N) a copy. Where a frame has no neighbour, 0.
    """
    corrected = c2.copy()
    is_lit = np.ones(len(c2), np.bool_)
    is_lit[np.asarray(empty, np.int64)] = False
    beside, is_pair = np.diagonal(c2, 1), is_lit[1:] & is_lit[:-1]
    sums, numbers = np.zeros(len(c2)), np.zeros(len(c2))
    for side in (slice(None, -1), slice(1, None)):
        sums[side] += np.where(is_pair, beside, 0)
        numbers[side] += is_pair
    np.fill_diagonal(corrected, sums / np.maximum(numbers, 1))
    return corrected


def cut_diagonals(c2: Float32, weight: Float64) -> Float64:
    """Mean of c2[t, t + k] over t, weighted with weight[t] * weight[t + k], for every delay k.

    Parameters
    ----------
    c2: (N, N).
    weight: (N,) 1 for a plain mean, <I(t)> for the ratio of sums; 0 leaves a frame out.

    Returns
    -------
    : (N,) NaN where there is no pair.
    """
    from lightkeep.analysis.xpcs import twotime_kernels as kernels  # compiles: not where only maps are read

    sums, norm = kernels.along_diagonals(c2, weight)
    mean: Float64 = np.divide(sums, norm, out=np.full(len(c2), np.nan), where=norm > 0)
    return mean


def cut_at_age(c2: Float32, age: float, *, width: float, kind: Age = "mean", empty: ArrayLike = ()) -> Float64:
    """g2 at one age: the mean over all pairs of frames t1 <= t2 of that age, for every delay t2 - t1.

    Parameters
    ----------
    c2: (N, N), symmetric.
    age: in frames from the first.
    width: pairs from age - width/2 up to, but without, age + width/2 count; 1 is a single line.
    kind: `mean`: the age of a pair is (t1 + t2)/2, a cut runs across the diagonal; `waiting`: it is t1, a cut runs
      along a row. Bikondoa (2017), J. Appl. Cryst. 50, 357: they differ where ageing is as fast as the dynamics.
    empty: frames that are left out.

    Returns
    -------
    : (N,) NaN where no pair of frames has the age.

    Raises
    ------
    ValueError: width is not positive, kind is unknown.
    """
    if width <= 0:
        raise ValueError(f"the width of a cut must be positive, not {width}")
    if kind not in ("mean", "waiting"):
        raise ValueError(f"kind must be mean or waiting, not {kind!r}")
    frames = len(c2)
    is_lit = np.ones(frames, np.bool_)
    is_lit[np.asarray(empty, np.int64)] = False
    g2 = np.full(frames, np.nan)
    for delay in range(frames):
        first = age - width / 2 - (delay / 2 if kind == "mean" else 0)
        begin, end = max(0, int(np.ceil(first))), min(frames - delay, int(np.ceil(first + width)))
        t = np.arange(begin, max(begin, end))
        t = t[is_lit[t] & is_lit[t + delay]]
        if t.size:
            g2[delay] = c2[t, t + delay].mean(dtype=np.float64)
    return g2
