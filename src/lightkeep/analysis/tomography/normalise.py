"""From photon counts to line integrals."""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import ArrayLike, NDArray

Float32 = NDArray[np.float32]

TRANSMISSION_FLOOR = 1e-4
"""Least transmission that is believed; below it is noise, and its logarithm would make a streak."""


def beam_and_dark(flats: ArrayLike, darks: ArrayLike) -> tuple[Float32, Float32, int]:
    """Open beam above the dark level, the dark level, and how many flats were left out as empty.

    A flat is empty when its mean is not above the dark's by a tenth of the best flat's: the shutter was closed.

    Parameters
    ----------
    flats: (n, rows, columns) counts with beam and without sample; n >= 1.
    darks: (m, rows, columns) counts without beam; m = 0 means a dark level of zero.

    Returns
    -------
    : (rows, columns) float32 counts, (rows, columns) float32 counts, number of flats left out.

    Raises
    ------
    ValueError: no flat, or every flat is empty.
    """
    flat, dark = np.asarray(flats), np.asarray(darks)
    if flat.ndim != 3 or flat.shape[0] == 0:
        raise ValueError("there is no flat: the open beam is not known")
    level = dark.mean(axis=0, dtype=float) if dark.size else np.zeros(flat.shape[1:])
    above = flat.mean(axis=(1, 2), dtype=float) - level.mean()
    is_lit = above > 0.1 * above.max()
    if above.max() <= 0 or not is_lit.any():
        raise ValueError(f"all {flat.shape[0]} flats are empty: no more counts than the darks")
    beam = flat[is_lit].mean(axis=0, dtype=float) - level
    return beam.astype(np.float32), level.astype(np.float32), int((~is_lit).sum())


def normalise(projections: ArrayLike, flats: ArrayLike, darks: ArrayLike, *, out: Float32 | None = None) -> Float32:
    """Line integrals -log((projection - dark) / (flat - dark)), as sinograms.

    Parameters
    ----------
    projections: (angles, rows, columns) counts, any real dtype.
    flats: (n, rows, columns) counts, beam on and no sample.
    darks: (m, rows, columns) counts, beam off; m may be 0.
    out: (rows, angles, columns) float32 to write into.

    Returns
    -------
    : (rows, angles, columns) float32, dimensionless. A pixel that no flat lit gives 0; a transmission below
      `TRANSMISSION_FLOOR`, or one that is not a number, is taken as that floor, or as 1.

    Raises
    ------
    ValueError: shapes disagree, no flat, or every flat is empty.
    """
    counts = np.asarray(projections)
    if counts.ndim != 3:
        raise ValueError(f"projections must be (angles, rows, columns), not {counts.shape}")
    beam, dark, _ = beam_and_dark(flats, darks)
    if beam.shape != counts.shape[1:]:
        raise ValueError(f"flats are {beam.shape} pixels, projections {counts.shape[1:]}")
    if out is None:
        out = np.empty((counts.shape[1], counts.shape[0], counts.shape[2]), np.float32)
    _line_integrals(counts, beam, dark, np.float32(TRANSMISSION_FLOOR), out)
    return out


@njit(parallel=True, cache=True, fastmath={"contract", "reassoc"})
def _line_integrals(counts, beam, dark, floor, out):  # type: ignore[no-untyped-def] # pragma: no cover
    angles, rows, columns = counts.shape
    for row in prange(rows):
        for angle in range(angles):
            for column in range(columns):
                open_beam = beam[row, column]
                if open_beam > 0:
                    through = (np.float32(counts[angle, row, column]) - dark[row, column]) / open_beam
                    if not through == through:  # not a number
                        through = np.float32(1)
                    out[row, angle, column] = -np.log(max(through, floor))
                else:
                    out[row, angle, column] = 0
