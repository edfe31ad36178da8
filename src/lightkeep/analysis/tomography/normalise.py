"""From photon counts to line integrals."""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import ArrayLike, NDArray

Float32 = NDArray[np.float32]

TRANSMISSION_FLOOR = 1e-4
"""Least transmission that is believed; below it is noise, and its logarithm would make a streak."""


def lit_flats(flats: ArrayLike, darks: ArrayLike) -> NDArray[np.bool_]:
    """Which flats saw the beam: above the darks' noise, and by at least a tenth of what the best one is.

    Parameters
    ----------
    flats: (n, rows, columns) counts; some rows are enough.
    darks: (m, rows, columns) counts; m may be 0.

    Returns
    -------
    : (n,) bool; all False when none is above the dark level.
    """
    flat, dark = np.asarray(flats), np.asarray(darks)
    level = dark.mean(dtype=float) if dark.size else 0.0
    noise = float(np.subtract(*np.percentile(dark, [84, 50]))) if dark.size else 0.0  # hot pixels do not count
    above = flat.mean(axis=(1, 2), dtype=float) - level
    lit: NDArray[np.bool_] = above > max(0.1 * above.max(initial=0), noise)
    return lit


def normalise(
    projections: ArrayLike, flats: ArrayLike, darks: ArrayLike, *, out: Float32 | None = None
) -> Float32:
    """Line integrals -log((projection - dark) / (flat - dark)), as sinograms.

    Parameters
    ----------
    projections: (angles, rows, columns) counts, any real dtype.
    flats: (n, rows, columns) counts with beam and without sample; their mean is the open beam.
    darks: (m, rows, columns) counts without beam; m = 0 means a dark level of zero.
    out: (rows, angles, columns) float32 to write into.

    Returns
    -------
    : (rows, angles, columns) float32, dimensionless. A pixel that no flat lit gives 0; so does a count that is not
      finite. A transmission below `TRANSMISSION_FLOOR` is taken as that floor.

    Raises
    ------
    ValueError: shapes disagree, there is no flat, or the flats are nowhere above the darks.
    """
    counts, flat, dark = np.asarray(projections), np.asarray(flats), np.asarray(darks)
    if counts.ndim != 3:
        raise ValueError(f"projections must be (angles, rows, columns), not {counts.shape}")
    if flat.ndim != 3 or flat.shape[0] == 0:
        raise ValueError("there is no flat: the open beam is not known")
    if flat.shape[1:] != counts.shape[1:]:
        raise ValueError(f"flats are {flat.shape[1:]} pixels, projections {counts.shape[1:]}")
    level = dark.mean(axis=0, dtype=np.float64) if dark.shape[0] else np.zeros(flat.shape[1:])
    beam = flat.mean(axis=0, dtype=np.float64) - level
    if not (beam > 0).any():
        raise ValueError("the flats are nowhere above the darks: there was no beam")
    if out is None:
        out = np.empty((counts.shape[1], counts.shape[0], counts.shape[2]), np.float32)
    floor = np.float32(TRANSMISSION_FLOOR)
    counts = counts.astype(counts.dtype.newbyteorder("="), copy=False)
    _line_integrals(counts, beam.astype(np.float32), level.astype(np.float32), floor, out)
    return out


@njit(parallel=True, cache=True, fastmath={"contract", "reassoc"})
def _line_integrals(counts, beam, dark, floor, out):  # type: ignore[no-untyped-def] # pragma: no cover
    angles, rows, columns = counts.shape
    for row in prange(rows):
        for angle in range(angles):
            for column in range(columns):
                integral = np.float32(0)
                if beam[row, column] > 0:
                    through = (np.float32(counts[angle, row, column]) - dark[row, column]) / beam[row, column]
                    if np.isfinite(through):
                        integral = -np.log(max(through, floor))
                out[row, angle, column] = integral
