"""A rotation axis that is not upright on the detector: how far it leans, and projections as if it did not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.ndimage
import scipy.optimize
from numba import njit, prange
from numpy.typing import ArrayLike, NDArray

Float32 = NDArray[np.float32]
_WIDEST = 512
"""Columns that the estimate is made from; wider images are binned."""
_LEAST_ROWS = 16
_CUBIC = 2
"""Rows beyond that the interpolation looks at."""


@dataclass(frozen=True)
class Tilt:
    """How an axis leans, by two opposite projections."""

    tilt_deg: float
    """About the beam; positive: it is seen further to the right in lower rows."""
    center: float
    """Column (0-based pixel index) where the axis is seen in the middle row."""
    sigma_deg: float
    """Standard error, from what of the two images does not agree."""


def find_tilt(first: ArrayLike, opposite: ArrayLike, *, center: float) -> Tilt:
    """Lean of the rotation axis: turned by it, two opposite projections are mirror images.

    Parameters
    ----------
    first, opposite: (rows, columns) line integrals, 180 degrees apart.
    center: column near which the axis is seen in the middle row.

    Raises
    ------
    ValueError: shapes disagree, there are fewer than 16 rows, or a value is not finite.
    """
    pair = np.stack([np.asarray(each, float) for each in (first, opposite)])
    _, rows, columns = pair.shape
    if rows < _LEAST_ROWS:
        raise ValueError(f"{rows} rows are too few to see a tilt: {_LEAST_ROWS} are needed")
    if not np.isfinite(pair).all():
        raise ValueError("a value of the projections is not finite")
    by = max(1, columns // _WIDEST)
    height, width = rows // by, columns // by
    binned = pair[:, : height * by, : width * by].reshape(2, height, by, width, by).mean(axis=(2, 4))
    smooth = np.stack([scipy.ndimage.gaussian_filter(each, 1.0) for each in binned])
    middle, guess = ((rows - 1) / 2 + 0.5) / by - 0.5, (center + 0.5) / by - 0.5
    reach = min(guess, width - 1 - guess) - 2
    u = np.arange(-int(reach), int(reach) + 1)
    v = np.arange(2, height - 2) - middle

    def differences(found: NDArray[Any]) -> NDArray[Any]:
        tilt, axis = np.deg2rad(found[0]), guess + found[1]
        seen = [
            scipy.ndimage.map_coordinates(
                image,
                (
                    middle + v[:, None] * math.cos(tilt) - side * u * math.sin(tilt),
                    axis + v[:, None] * math.sin(tilt) + side * u * math.cos(tilt),
                ),
                order=3,
                mode="nearest",
                prefilter=False,
            )
            for image, side in zip(smooth, (1, -1), strict=True)
        ]
        return np.asarray((seen[0] - seen[1]).ravel())

    fit = scipy.optimize.least_squares(differences, np.zeros(2), diff_step=1e-3, x_scale=(0.1, 1.0))
    variance = 2 * fit.cost / max(1, fit.fun.size - 2)
    sigma = math.sqrt(variance * np.linalg.pinv(fit.jac.T @ fit.jac)[0, 0])
    return Tilt(float(fit.x[0]), (guess + float(fit.x[1]) + 0.5) * by - 0.5, sigma)


def tilt_halo(tilt_deg: float, rows: int, columns: int, center: float) -> int:
    """Rows beyond each end of a piece that `upright` needs to know."""
    tilt = math.radians(abs(tilt_deg))
    if tilt == 0:
        return 0
    reach = max(center, columns - 1 - center)
    return math.ceil(reach * math.sin(tilt) + rows / 2 * (1 - math.cos(tilt))) + _CUBIC


def upright(
    sinograms: ArrayLike,
    tilt_deg: float,
    *,
    first_row: int,
    begin: int,
    end: int,
    middle: float,
    center: float,
) -> Float32:
    """Sinograms as a detector would have seen them whose columns are parallel to the axis, by cubic interpolation.

    Each row is made by itself: a piece of the rows gives the same bytes. Beyond the rows that are given, the
    outermost one goes on.

    Parameters
    ----------
    sinograms: (rows, angles, columns) line integrals of the detector's rows from `first_row` on.
    tilt_deg: see `Tilt`.
    begin, end: rows of the detector that are wanted; `tilt_halo` says how many more must be given.
    middle, center: row and column about which they are turned; the axis passes through it, and then stays there.

    Returns
    -------
    : (end - begin, angles, columns) float32.
    """
    data = np.ascontiguousarray(sinograms, np.float32)
    out = np.empty((end - begin, *data.shape[1:]), np.float32)
    tilt = math.radians(tilt_deg)
    _turn(data, math.sin(tilt), math.cos(tilt), middle - first_row, center, begin - first_row, out)
    return out


@njit(cache=True)
def _weights(at, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Keys' cubic kernel (1981) around a place; return the index of the first of four samples."""
    low = int(np.floor(at))
    t = at - low
    out[0] = t * (-0.5 + t * (1 - 0.5 * t))
    out[1] = 1 + t * t * (-2.5 + 1.5 * t)
    out[2] = t * (0.5 + t * (2 - 1.5 * t))
    out[3] = t * t * (-0.5 + 0.5 * t)
    return low - 1


@njit(parallel=True, cache=True)
def _turn(data, sine, cosine, middle, center, begin, out):  # type: ignore[no-untyped-def] # pragma: no cover
    rows, angles, columns = data.shape
    for index in prange(out.shape[0]):
        v = begin + index - middle
        down, right = np.empty((columns, 4)), np.empty((columns, 4))
        at = np.empty((columns, 2), np.int64)
        for column in range(columns):
            u = column - center
            at[column, 0] = _weights(middle + v * cosine - u * sine, down[column])
            at[column, 1] = _weights(center + v * sine + u * cosine, right[column])
        for angle in range(angles):
            for column in range(columns):
                total = 0.0
                for i in range(4):
                    row = min(max(at[column, 0] + i, 0), rows - 1)
                    line = 0.0
                    for j in range(4):
                        line += right[column, j] * data[row, angle, min(max(at[column, 1] + j, 0), columns - 1)]
                    total += down[column, i] * line
                out[index, angle, column] = total
