"""The mean of several runs of one sample, without those that do not belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.xpcs.result import MultiTauResult

Float64 = NDArray[np.float64]
Outliers = Literal["robust", "chi-square"]

_MAD: Final = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
_FEWEST: Final = 3
"""Of two runs that differ nobody can tell which is right."""
_INTENSITY: Final = 0.005
"""Relative changes of the mean intensity below this are never a reason to leave a run out."""


@dataclass(frozen=True)
class Rejection:
    """A run that was left out."""

    run: int
    """Its place in the list, from 0."""
    reason: str
    """One sentence, with the numbers."""


@dataclass(frozen=True, eq=False)
class Average:
    """The mean of the runs that belong together."""

    result: MultiTauResult
    """The mean; `g2_err` is `propagated` times `birge`."""
    used: tuple[int, ...]
    """Places of the runs that were averaged, ascending."""
    rejected: tuple[Rejection, ...]
    """The others, and why."""
    propagated: Float64
    """(n_tau, n_q) standard error of g2 that follows from the runs' own errors."""
    scatter: Float64
    """(n_tau, n_q) standard error of g2 that follows from how the runs differ; NaN for a single run."""
    birge: Float64
    """(n_q,) how much more the runs differ than their errors explain, root mean square over delays; at least 1."""
    chi_square: Float64
    """(n_runs,) of every run against the median curve, reduced; NaN where errors are not known."""


def average_results(
    results: Sequence[MultiTauResult], *, outliers: Outliers | None = "robust", threshold: float = 5.0
) -> Average:
    """The mean of runs with the same delays and bins.

    A run's weight in a bin is the inverse of its squared error, averaged over delays: errors of single points,
    which go with the points, would draw the mean to one side. Where the runs differ by more than their errors
    explain, the errors are enlarged by that ratio (Birge, 1932, Phys. Rev. 40, 207).

    Parameters
    ----------
    results: at least one.
    outliers: `robust` leaves a run out when its mean intensity, or its baseline or contrast averaged over bins, is
      further from the median of all runs than `threshold` times their scatter (median absolute deviation, or what
      the errors explain, if that is more); `chi-square`, when the reduced chi-square of its curves against the
      median curve is so far above the median; None leaves nothing out. Fewer than 3 runs are always averaged.
    threshold: in standard deviations of a normal distribution.

    Returns
    -------
    : `Average`. A point that some runs do not have (NaN) is the mean of the others.

    Raises
    ------
    ValueError: no run, runs of different delays, bins, detectors or reduction, an unknown way of finding outliers.
    """
    if not results:
        raise ValueError("there is no run to average")
    if outliers not in (*get_args(Outliers), None):
        raise ValueError(f"outliers must be one of {', '.join(get_args(Outliers))} or None, not {outliers!r}")
    if threshold <= 0:
        raise ValueError(f"threshold must be positive, not {threshold}")
    _check(results)
    chi_square = _chi_square(results)
    rejected: tuple[Rejection, ...] = ()
    if len(results) >= _FEWEST and outliers == "robust":
        rejected = _robust(results, threshold)
    elif len(results) >= _FEWEST and outliers == "chi-square":
        rejected = _by_chi_square(results, chi_square, threshold)
    gone = {rejection.run for rejection in rejected}
    used = tuple(run for run in range(len(results)) if run not in gone)
    kept = [results[run] for run in used]
    g2, propagated, scatter, birge = _weighted(kept)
    return Average(
        result=_joined(kept, rejected, g2, propagated * birge),
        used=used,
        rejected=rejected,
        propagated=propagated,
        scatter=scatter,
        birge=birge,
        chi_square=chi_square,
    )


def _check(results: Sequence[MultiTauResult]) -> None:
    first = results[0]
    for run, other in enumerate(results[1:], start=1):
        for name in ("scheme", "dpl", "normalisation", "stride", "average", "tau_frames"):
            if not np.array_equal(getattr(first, name), getattr(other, name)):
                raise ValueError(f"run {run} cannot be averaged with run 0: they differ in {name}")
        for name in ("tau", "q", "static_q"):
            one, two = getattr(first, name), getattr(other, name)
            if one.shape != two.shape or not np.allclose(one, two, rtol=1e-6, equal_nan=True):
                raise ValueError(f"run {run} cannot be averaged with run 0: they differ in {name}")
        if first.saxs_2d.shape != other.saxs_2d.shape:
            raise ValueError(
                f"run {run} cannot be averaged with run 0: detectors of {other.saxs_2d.shape} and "
                f"{first.saxs_2d.shape} pixels"
            )


def _robust(results: Sequence[MultiTauResult], threshold: float) -> tuple[Rejection, ...]:
    g2 = np.stack([result.g2 for result in results])
    error = np.stack([result.g2_err for result in results])
    edge = max(1, g2.shape[1] // 4)
    late, early = slice(-edge, None), slice(0, edge)
    baseline, baseline_error = _over(g2[:, late], error[:, late])
    start, start_error = _over(g2[:, early], error[:, early])
    intensity = np.array([_mean(result.intensity) for result in results])
    judged = (
        ("mean intensity", intensity, _INTENSITY * abs(float(np.nanmedian(intensity)))),
        ("baseline", baseline, baseline_error),
        ("contrast", start - baseline, float(np.hypot(start_error, baseline_error))),
    )
    reasons: dict[int, list[str]] = {}
    for name, values, floor in judged:
        middle = float(np.nanmedian(values))
        scale = max(_MAD * float(np.nanmedian(np.abs(values - middle))), floor, np.finfo(np.float64).tiny)
        for run in np.flatnonzero(~(np.abs(values - middle) <= threshold * scale)):
            reasons.setdefault(int(run), []).append(
                f"{name} {values[run]:.5g}, {abs(values[run] - middle) / scale:.3g} standard deviations from the "
                f"runs' median {middle:.5g}"
            )
    return tuple(Rejection(run, "; ".join(reasons[run])) for run in sorted(reasons))


def _over(g2: Float64, error: Float64) -> tuple[Float64, float]:
    """(n_runs,) mean over delays and bins, and the median run's standard error of that.

    Delays of one run share their speckles: their errors are taken as fully correlated.
    """
    values = np.array([_mean(run) for run in g2])
    one = np.array([np.sqrt(_mean(run**2)) for run in error])
    return values, float(np.nanmedian(one)) / np.sqrt(g2.shape[2]) if np.isfinite(one).any() else 0.0


def _mean(values: Float64) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else float("nan")


def _chi_square(results: Sequence[MultiTauResult]) -> Float64:
    g2 = np.stack([result.g2 for result in results])
    is_known = np.isfinite(g2)
    middle = np.nanmedian(np.where(is_known.any(axis=0), g2, 0), axis=0)
    found = np.full(len(results), np.nan)
    for run, result in enumerate(results):
        use = is_known[run] & (result.g2_err > 0)
        if use.any():
            found[run] = np.mean(((result.g2 - middle)[use] / result.g2_err[use]) ** 2)
    return found


def _by_chi_square(
    results: Sequence[MultiTauResult], chi_square: Float64, threshold: float
) -> tuple[Rejection, ...]:
    if not np.isfinite(chi_square).any():
        return ()
    middle = float(np.nanmedian(chi_square))
    # Of independent points: what the median absolute deviation of few runs may fall below by chance.
    least = middle * np.sqrt(2 / results[0].g2.size)
    scale = max(_MAD * float(np.nanmedian(np.abs(chi_square - middle))), least, np.finfo(np.float64).tiny)
    return tuple(
        Rejection(
            int(run),
            f"reduced chi-square {chi_square[run]:.4g} against the median curve, "
            f"{(chi_square[run] - middle) / scale:.3g} standard deviations above the runs' median {middle:.4g}",
        )
        for run in np.flatnonzero(~(chi_square - middle <= threshold * scale))
    )


def _weighted(results: Sequence[MultiTauResult]) -> tuple[Float64, Float64, Float64, Float64]:
    """(n_tau, n_q) mean, propagated error, error from the scatter; (n_q,) ratio by which to enlarge errors."""
    g2 = np.stack([result.g2 for result in results])
    error = np.stack([result.g2_err for result in results])
    is_known = np.isfinite(g2)
    weight = np.where(is_known, _weights(error)[:, None, :], 0)
    total = weight.sum(axis=0)
    number = is_known.sum(axis=0)
    mean = _divided((weight * np.where(is_known, g2, 0)).sum(axis=0), total)
    propagated = _divided(np.sqrt((weight**2 * np.where(is_known, error, 0) ** 2).sum(axis=0)), total)
    apart = np.where(is_known, g2 - mean, 0)
    # Cochran (1977), Sampling Techniques: standard error of a weighted mean from the scatter about it.
    enlarged = number / np.maximum(number - 1, 1) * (weight**2 * apart**2).sum(axis=0)
    scatter = np.where(number > 1, _divided(np.sqrt(enlarged), total), np.nan)
    birge = np.ones(g2.shape[2])
    for place in range(g2.shape[2]):
        use = (propagated[:, place] > 0) & np.isfinite(scatter[:, place])
        if use.any():
            ratio = np.sqrt(np.mean((scatter[use, place] / propagated[use, place]) ** 2))
            birge[place] = max(1.0, float(ratio))
    return mean, propagated, scatter, birge


def _weights(error: Float64) -> Float64:
    """(n_runs, n_q) inverse squared errors, averaged over delays; the same for all where one is not known."""
    square = np.array([[_mean(column**2) for column in run.T] for run in error])
    is_known = (np.isfinite(square) & (square > 0)).all(axis=0)
    return np.where(is_known, 1 / np.where(is_known, square, 1), 1)


def _divided(one: Float64, two: Float64) -> Float64:
    ratio: Float64 = np.divide(one, two, out=np.full(one.shape, np.nan), where=two > 0)
    return ratio


def _joined(
    results: Sequence[MultiTauResult], rejected: Sequence[Rejection], g2: Float64, error: Float64
) -> MultiTauResult:
    """The other outputs: means over all frames, or frame by frame as far as the shortest run goes."""
    frames = min(result.frames for result in results)
    weights = np.array([result.frames for result in results], np.float64)
    segments = min(len(result.saxs_1d_segments) for result in results)

    def mean(name: str, *, upto: int | None = None) -> Float64:
        values = np.stack([getattr(result, name)[:upto] for result in results])
        is_known = np.isfinite(values)
        weight = weights.reshape(-1, *(1 for _ in values.shape[1:])) * is_known
        return _divided((weight * np.where(is_known, values, 0)).sum(axis=0), weight.sum(axis=0))

    flags = [f"This is the mean of {len(results)} runs."]
    flags += [f"Run {rejection.run} was left out: {rejection.reason}." for rejection in rejected]
    flags += dict.fromkeys(flag for result in results for flag in result.flags)
    return replace(
        results[0],
        pairs=np.sum([result.pairs for result in results], axis=0),
        g2=g2,
        g2_err=error,
        g2_partial=mean("g2_partial"),
        saxs_2d=mean("saxs_2d"),
        saxs_1d=mean("saxs_1d"),
        saxs_1d_segments=mean("saxs_1d_segments", upto=segments),
        intensity=mean("intensity", upto=frames),
        intensity_q=mean("intensity_q", upto=frames),
        frames=frames,
        flags=tuple(flags),
    )
