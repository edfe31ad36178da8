"""Scans of a full turn whose rotation axis is near an edge of the detector: twice the field of view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numba import njit, prange
from numpy.typing import ArrayLike, NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_LEAST_OVERLAP = 8
"""Columns; fewer say nothing about where the axis is."""
_PAIRS = 48
"""Projections that are compared with those half a turn on."""
_GAP = 8.0
"""Mean spacings between angles: a wider gap was not measured, and nothing is interpolated across it."""


@dataclass(frozen=True)
class Overlap:
    """Where projections half a turn apart show the same."""

    center: float
    """Column (0-based pixel index, fractional) where the rotation axis is seen."""
    width: float
    """Columns that both show."""
    side: Literal["left", "right"]
    """Edge of the detector that the axis is nearer to."""
    score: float
    """Correlation of both in the overlap, up to 1; below 0.5 nothing fits."""


@dataclass(frozen=True)
class Stitched:
    """A scan of half a turn, as a wider detector would have seen it."""

    sinograms: Float32
    """(rows, angles, columns) line integrals."""
    theta_deg: Float64
    """(angles,) degrees, in [0, 180) after the first."""
    center: float
    """Column where the axis is seen in the wider sinograms."""


def find_overlap(sinograms: ArrayLike, theta_deg: ArrayLike) -> Overlap:
    """Find the rotation axis anywhere on the detector, from a scan of a full turn.

    A projection and the mirrored one half a turn on are slid over each other; the axis is in the middle of the
    overlap where they correlate best, refined by a parabola. What does not move with the angle is taken out first:
    the outline of a round sample looks alike at any shift.
    Vo et al. (2021), Opt. Express 29, 17849.

    Parameters
    ----------
    sinograms: (rows, angles, columns) or (angles, columns) line integrals; a handful of rows is enough.
    theta_deg: (angles,) degrees, any order, over about 360.

    Raises
    ------
    ValueError: shapes disagree, a value is not finite, no projections are half a turn apart, or nothing absorbs.
    """
    data, theta = _checked(sinograms, theta_deg)
    columns = data.shape[2]
    first, second = _opposites(theta)
    moves = data - data.mean(axis=1, keepdims=True)
    chosen = np.unique(np.linspace(0, first.size - 1, _PAIRS).astype(int))
    fixed = moves[:, first[chosen]].reshape(-1, columns).astype(np.float32)
    moving = moves[:, second[chosen], ::-1].reshape(-1, columns).astype(np.float32)
    if np.ptp(data) == 0:
        raise ValueError("nothing absorbs in these rows: no overlap can be found")
    shifts = np.arange(_LEAST_OVERLAP - columns, columns - _LEAST_OVERLAP + 1)
    scores = _correlations(fixed, moving, shifts)
    best = int(np.argmax(scores))
    shift = float(shifts[best])
    if 0 < best < len(scores) - 1:
        left, here, right = scores[best - 1 : best + 2]
        bend = left - 2 * here + right
        shift += 0.5 * (left - right) / bend if bend < 0 else 0.0
    center = (columns - 1 + shift) / 2
    side: Literal["left", "right"] = "right" if shift > 0 else "left"
    return Overlap(float(center), float(columns - abs(shift)), side, float(scores[best]))


def stitch_360(sinograms: ArrayLike, theta_deg: ArrayLike, center: float) -> Stitched:
    """Half a turn of a wider detector, from a full turn about an axis near the edge.

    Beyond the edge nearer to the axis, columns are added from the projections half a turn on, mirrored about the
    axis: cubic between columns (Keys 1981), linear between the two nearest angles. Where both see the sample
    they are blended, each with a weight that falls linearly to zero towards its own edge.

    Parameters
    ----------
    sinograms: (rows, angles, columns) line integrals, finite.
    theta_deg: (angles,) degrees, any order, over about 360.
    center: column where the rotation axis is seen.

    Returns
    -------
    : of the projections in the first half turn; those whose opposite was not measured are left out.

    Raises
    ------
    ValueError: shapes disagree, a value is not finite, the axis is not on the detector, or no projections are half
      a turn apart.
    """
    data, theta = _checked(sinograms, theta_deg)
    rows, _, columns = data.shape
    if not 0 <= center <= columns - 1:
        raise ValueError(f"the rotation centre {center} is not on the detector's {columns} columns")
    order = np.argsort(theta, kind="stable")
    at, before, after, share = _partners(theta, order)
    mirrored = center < (columns - 1) / 2
    axis = columns - 1 - center if mirrored else center  # from here on the axis is near the right edge
    source = np.ascontiguousarray(data[:, :, ::-1] if mirrored else data, np.float32)
    wide = int(np.floor(2 * axis)) + 1
    out = np.empty((rows, at.size, wide), np.float32)
    _stitch(source, at, before, after, share.astype(np.float32), axis, out)
    if mirrored:
        return Stitched(out[:, :, ::-1].copy(), theta[at], wide - 1 - axis)
    return Stitched(out, theta[at], axis)


def _checked(sinograms: ArrayLike, theta_deg: ArrayLike) -> tuple[NDArray[Any], Float64]:
    data = np.asarray(sinograms)
    data = data[None] if data.ndim == 2 else data
    theta = np.asarray(theta_deg, float).ravel()
    if data.ndim != 3 or data.shape[1] != theta.size:
        raise ValueError(f"sinograms {data.shape} and {theta.size} angles disagree: (rows, angles, columns)")
    if theta.size < 8 or data.shape[2] < 2 * _LEAST_OVERLAP:
        raise ValueError(f"{theta.size} angles and {data.shape[2]} columns are too few to stitch")
    if not (np.isfinite(data).all() and np.isfinite(theta).all()):
        raise ValueError("sinograms and angles must be finite")
    return data, theta


def _opposites(theta: Float64) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of projections, and of the ones nearest to half a turn on."""
    order = np.argsort(theta, kind="stable")
    at, before, after, share = _partners(theta, order)
    return at, np.where(share < 0.5, before, after)


def _partners(theta: Float64, order: NDArray[np.intp]) -> tuple[NDArray[np.intp], ...]:
    """Projections of the first half turn, the two around half a turn on, and the share of the later one."""
    ordered = theta[order]
    first = order[ordered < ordered[0] + 180 - 1e-6]
    spacing = (ordered[-1] - ordered[0]) / max(1, theta.size - 1)
    wanted = theta[first] + 180
    after = np.clip(np.searchsorted(ordered, wanted), 1, theta.size - 1)
    gap = ordered[after] - ordered[after - 1]
    share = np.clip((wanted - ordered[after - 1]) / np.where(gap > 0, gap, 1), 0, 1)
    near = np.abs(ordered[after - 1] + share * gap - wanted) <= spacing
    whole = (share == 0) | (share == 1)
    kept = near & (whole | (gap <= _GAP * spacing))
    if not kept.any():
        raise ValueError(
            f"the angles span {ordered[-1] - ordered[0]:.1f} degrees and none is half a turn from another: "
            "stitching needs a full turn"
        )
    return first[kept], order[after - 1][kept], order[after][kept], share[kept]


@njit(parallel=True, cache=True)
def _correlations(fixed, moving, shifts):  # type: ignore[no-untyped-def] # pragma: no cover
    """Correlation of the overlap for each shift of `moving` to the right."""
    count, columns = fixed.shape
    scores = np.zeros(len(shifts))
    for i in prange(len(shifts)):
        shift = shifts[i]
        width = columns - abs(shift)
        begin, other = max(shift, 0), max(-shift, 0)
        both, one, two = 0.0, 0.0, 0.0
        for row in range(count):
            for column in range(width):
                a, b = fixed[row, begin + column], moving[row, other + column]
                both += a * b
                one += a * a
                two += b * b
        scores[i] = both / np.sqrt(one * two + 1e-30)
    return scores


@njit(parallel=True, cache=True)
def _stitch(source, at, before, after, share, axis, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """The axis is nearer to the right edge: columns are added there."""
    rows, angles, wide = out.shape
    columns = source.shape[2]
    first_both = 2 * axis - (columns - 1)  # leftmost column that the other half sees
    for job in prange(rows * angles):
        row, angle = job // angles, job % angles
        near, far = source[row, before[angle]], source[row, after[angle]]
        for column in range(wide):
            place = 2 * axis - column  # where the other half saw it
            weight = np.float32(1)
            if column > first_both:
                weight = np.float32(max(0.0, (columns - 1 - column) / (columns - 1 - first_both)))
            value = np.float32(0)
            if weight > 0:
                value += weight * source[row, at[angle], column]
            if weight < 1:
                other = (1 - share[angle]) * _cubic(near, place) + share[angle] * _cubic(far, place)
                value += (1 - weight) * other
            out[row, angle, column] = value


@njit(cache=True)
def _cubic(values, place):  # type: ignore[no-untyped-def] # pragma: no cover
    """Catmull-Rom interpolation, the edges continued."""
    last = len(values) - 1
    whole = int(np.floor(place))
    t = np.float32(place - whole)
    a, b = values[min(max(whole - 1, 0), last)], values[min(max(whole, 0), last)]
    c, d = values[min(max(whole + 1, 0), last)], values[min(max(whole + 2, 0), last)]
    half = np.float32(0.5)
    return b + half * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
