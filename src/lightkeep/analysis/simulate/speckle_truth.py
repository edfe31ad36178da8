"""What correlations of simulated speckle must be: expectations of the formulas that programs use, without noise.

All are ratios of expectations, so they hold up to the bias of a ratio, which falls with the number of pixels times
the number of correlation times in the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Decay:
    """How the field forgets: g1(t1, t2) = (1 - static) exp(-rate |clock(t2) - clock(t1)|) + static."""

    rates: Float64
    """(bins,) per unit of the clock."""
    clock: Float64
    """(frames,) not decreasing; the frame number where the sample does not age."""
    contrast: float
    static: float


@dataclass(frozen=True, eq=False)
class Spread:
    """What unequal pixels of a partition do to it; 1 and the mean's inverse where all its pixels are alike."""

    factor: Float64
    """(bins,) mean over the partitions of <mu^2> / <mu>^2, by which all of g2 is multiplied."""
    noise: Float64
    """(bins,) mean over the partitions of 1 / <mu>: the photon noise of g2 at tau = 0."""
    by_pixel: Float64
    """(bins,) as factor, partitions counted by their pixels, as two-time correlations count them."""
    noise_by_pixel: Float64
    """(bins,) as noise, partitions counted by their pixels."""


def spread(light: Float64, partitions: NDArray[np.int64], bins: NDArray[np.int32]) -> Spread:
    """Return the spread in each bin.

    Parameters
    ----------
    light: (H, W) expected photons per frame. partitions: (H, W) static partition from 1, 0: not used.
    bins: (H, W) dynamic bin from 1; every partition lies in one bin.
    """
    labels, bin_of = partitions.ravel(), np.zeros(int(partitions.max()) + 1, int)
    bin_of[labels] = np.where(labels > 0, bins.ravel(), 0)
    number = np.bincount(labels).astype(float)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.bincount(labels, light.ravel()) / number
        factor = np.bincount(labels, light.ravel() ** 2) / number / mean**2
        noise = 1 / mean
    kept = (np.arange(mean.size) > 0) & (mean > 0)
    size = int(bins.max()) + 1

    def averaged(values: Float64, weight: Float64) -> Float64:
        total = np.bincount(bin_of[kept], (values * weight)[kept], size)
        with np.errstate(invalid="ignore"):
            return np.asarray((total / np.bincount(bin_of[kept], weight[kept], size))[1:])

    one = np.ones_like(number)
    return Spread(averaged(factor, one), averaged(noise, one), averaged(factor, number), averaged(noise, number))


def expected_g2(delays: Sequence[tuple[int, int]], beam: Float64, decay: Decay, spread: Spread) -> Float64:
    """g2 as multi-tau programs compute it, normalised by partition.

    On level l the intensities are means over m = 2^l frames, so for a steady beam and sample and lag k
        g2 = 1 + contrast sum_{|d| < m} (m - |d|) / m^2 exp(-2 Gamma (k m + d)),
    the decay averaged with a triangle. Here it is computed for any beam and any ageing.

    Parameters
    ----------
    delays: (level, lag) of each delay; lag 0 on level 0 only.
    beam: (frames,) relative intensity, 0 where a frame was lost.

    Returns
    -------
    : (delay, bin) float64. A bin without light gives NaN.

    Raises
    ------
    ValueError: lag 0 on a level above 0, or a delay that has no pair in the run.
    """
    found = np.empty((len(delays), decay.rates.size))
    steady = bool(np.ptp(beam) == 0 and np.ptp(np.diff(decay.clock)) < 1e-12) if beam.size > 1 else True
    for row, (level, lag) in enumerate(delays):
        m = 1 << level
        if lag >= beam.size // m or (lag == 0 and level > 0):
            raise ValueError(f"lag {lag} on level {level} has no pair in {beam.size} frames")
        frames = m * (lag + 1) if steady else beam.size // m * m  # one pair is like all others
        w, t = beam[:frames].reshape(-1, m), decay.clock[:frames].reshape(-1, m)
        means = w.mean(axis=1)
        scale = means[: means.size - lag].mean() * means[lag:].mean()
        if lag == 0:
            found[row] = (
                spread.factor * (1 + decay.contrast) * np.mean(w**2) / scale + spread.noise * w.mean() / scale
            )
            continue
        for column, rate in enumerate(decay.rates):
            found[row, column] = spread.factor[column] * _pairs(w, rate * t, lag, decay) / scale
    return found


def _pairs(w: Float64, t: Float64, lag: int, decay: Decay) -> float:
    """Mean over the pairs of blocks of <I I'> = mean over their frames of w w' (1 + contrast g1^2).

    exp(-(t' - t)) is cut at the end of the one and the start of the other block, so that sums over frames of both
    factorise and nothing overflows.
    """
    means = w.mean(axis=1)
    first, second = means[: means.size - lag], means[lag:]
    between = t[lag:, 0] - t[: len(t) - lag, -1]
    total = first * second * (1 + decay.contrast * decay.static**2)
    moving = 1 - decay.static
    for power, weight in ((1, 2 * decay.static * moving), (2, moving**2)):
        if weight:
            leave = np.mean(w * np.exp(-power * (t[:, -1:] - t)), axis=1)[: len(t) - lag]
            arrive = np.mean(w * np.exp(-power * (t - t[:, :1])), axis=1)[lag:]
            total += decay.contrast * weight * leave * np.exp(-power * between) * arrive
    return float(total.mean())


def expected_c2(frames: slice, beam: Float64, decay: Decay, spread: Spread) -> Float64:
    """Two-time correlation <I(t1) I(t2)> / <I(t1)> <I(t2)> of the first bin, each partition by its own mean.

    Returns
    -------
    : (t1, t2) float64. The diagonal holds the photon noise, 1 / <I> more; frames that were lost give NaN.
    """
    t = decay.rates[0] * decay.clock[frames]
    g1 = (1 - decay.static) * np.exp(-np.abs(t[:, None] - t[None, :])) + decay.static
    c2: Float64 = spread.by_pixel[0] * (1 + decay.contrast * g1**2)
    lost = beam[frames] == 0
    with np.errstate(divide="ignore"):
        c2[np.diag_indices(t.size)] += spread.noise_by_pixel[0] / beam[frames]
    c2[lost, :] = c2[:, lost] = np.nan
    return c2
