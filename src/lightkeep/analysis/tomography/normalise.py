"""From photon counts to line integrals, in one pass over the projections."""

from __future__ import annotations

from typing import Any

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
    projections: ArrayLike,
    flats: ArrayLike,
    darks: ArrayLike,
    *,
    flats_at: ArrayLike | None = None,
    zingers: float | None = None,
    air: int = 0,
    log: bool = True,
    out: Float32 | None = None,
) -> Float32:
    """Line integrals -log((projection - dark) / (flat - dark)), as sinograms.

    Each row and projection is worked on by itself: a piece of the rows, or another number of threads, gives the
    same bytes.

    Parameters
    ----------
    projections: (angles, rows, columns) counts, any real dtype.
    flats: (n, rows, columns) counts with beam and without sample; their mean is the open beam.
    darks: (m, rows, columns) counts without beam; m = 0 means a dark level of zero.
    flats_at: (n,) number of the projection beside which each flat was taken: 0 before the first, `angles` after
      the last. Flats at the same number are averaged, and the open beam is interpolated between them, for a beam
      or optics that drift. None: all flats are one mean.
    zingers: a transmission this much (relative) above the median of its four neighbours in the row is a stray
      photon's and becomes that median; 1 is twice the median. None: none is removed.
    air: columns at either edge of the detector that see no sample from any angle: each row of each projection is
      divided by the line through the mean transmission of both, for a beam that flickers. 0: it is not.
    log: False leaves the transmission as it is, for phase retrieval.
    out: (rows, angles, columns) float32 to write into.

    Returns
    -------
    : (rows, angles, columns) float32, dimensionless. A pixel that no flat lit gives 0 (transmission 1); so does a
      count that is not finite. A transmission below `TRANSMISSION_FLOOR` is taken as that floor.

    Raises
    ------
    ValueError: shapes disagree, there is no flat, the flats are nowhere above the darks, or an option is out of
      range.
    """
    counts, flat, dark = np.asarray(projections), np.asarray(flats), np.asarray(darks)
    if counts.ndim != 3:
        raise ValueError(f"projections must be (angles, rows, columns), not {counts.shape}")
    if flat.ndim != 3 or flat.shape[0] == 0:
        raise ValueError("there is no flat: the open beam is not known")
    if flat.shape[1:] != counts.shape[1:]:
        raise ValueError(f"flats are {flat.shape[1:]} pixels, projections {counts.shape[1:]}")
    if zingers is not None and not zingers > 0:
        raise ValueError(f"zingers is {zingers}; a stray photon is brighter than its neighbours: choose above 0")
    if not 0 <= 2 * air < counts.shape[2]:
        raise ValueError(f"{air} columns of air at each edge leave nothing of {counts.shape[2]} columns")
    level = dark.mean(axis=0, dtype=np.float64) if dark.shape[0] else np.zeros(flat.shape[1:])
    at, group = _groups(flats_at, len(flat))
    beams = np.stack([flat[group == number].mean(axis=0, dtype=np.float64) - level for number in range(at.size)])
    if not (beams > 0).any():
        raise ValueError("the flats are nowhere above the darks: there was no beam")
    place = np.interp(np.arange(len(counts)), at, np.arange(at.size))
    if out is None:
        out = np.empty((counts.shape[1], counts.shape[0], counts.shape[2]), np.float32)
    counts = counts.astype(counts.dtype.newbyteorder("="), copy=False)
    floor, excess = np.float32(TRANSMISSION_FLOOR), np.float32(np.inf if zingers is None else 1 + zingers)
    scan = counts, beams.astype(np.float32), level.astype(np.float32), place.astype(np.float32)
    _line_integrals(*scan, floor, excess, air, log, out)
    return out


def _groups(flats_at: ArrayLike | None, count: int) -> tuple[NDArray[np.float64], NDArray[Any]]:
    """Where flats were taken, ascending, and which of these places each of `count` flats belongs to."""
    at = np.zeros(count) if flats_at is None else np.asarray(flats_at, float).ravel()
    if at.size != count or not np.isfinite(at).all():
        raise ValueError(f"flats_at has {np.isfinite(at).sum()} numbers for {count} flats")
    places, group = np.unique(at, return_inverse=True)
    return places, group


@njit(parallel=True, cache=True, fastmath={"contract", "reassoc"})
def _line_integrals(  # type: ignore[no-untyped-def] # pragma: no cover
    counts, beams, dark, place, floor, excess, air, log, out
):
    angles, rows, columns = counts.shape
    for row in prange(rows):
        through = np.empty(columns, np.float32)
        for angle in range(angles):
            before = int(place[angle])
            after = min(before + 1, len(beams) - 1)
            share = place[angle] - np.float32(before)
            for column in range(columns):
                beam = beams[before, row, column]
                beam += share * (beams[after, row, column] - beam)
                value = np.float32(1)
                if beam > 0:
                    value = (np.float32(counts[angle, row, column]) - dark[row, column]) / beam
                    if not np.isfinite(value):
                        value = np.float32(1)
                through[column] = value
            line = out[row, angle]
            if excess < np.inf:
                _without_zingers(through, excess, floor, line)
                through[:] = line
            if air > 0:
                _level(through, air, floor)
            for column in range(columns):
                value = through[column]
                line[column] = -np.log(max(value, floor)) if log else value


@njit(cache=True)
def _without_zingers(through, excess, floor, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Copy a row; what exceeds the median of its four neighbours too much becomes that median."""
    last = len(through) - 1
    for column in range(len(through)):
        value = through[column]
        a, b = through[abs(column - 2)], through[abs(column - 1)]
        c, d = through[last - abs(last - column - 1)], through[last - abs(last - column - 2)]
        low, high = max(min(a, b), min(c, d)), min(max(a, b), max(c, d))
        median = (low + high) / 2
        out[column] = median if value > excess * max(median, floor) else value


@njit(cache=True)
def _level(through, air, floor):  # type: ignore[no-untyped-def] # pragma: no cover
    """Divide a row by the line through the means of its first and last `air` columns."""
    last = len(through) - 1
    left, right = np.float32(0), np.float32(0)
    for column in range(air):
        left += through[column] / air
        right += through[last - column] / air
    middle = np.float32(air - 1) / 2
    slope = (right - left) / (last - 2 * middle)
    for column in range(last + 1):
        through[column] /= max(left + slope * (column - middle), floor)
