"""A tomography scan as a detector would record it: photons, flats, darks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightkeep.analysis.simulate.phantoms import Phantom

Float64 = NDArray[np.float64]
Counts = NDArray[np.uint16]


@dataclass(frozen=True)
class TomographyScan:
    """What the detector recorded, and the truth."""

    projections: Counts
    """(angles, rows, columns) counts."""
    flats: Counts
    """(flats, rows, columns) counts, beam on and no sample."""
    darks: Counts
    """(darks, rows, columns) counts, beam off."""
    theta_deg: Float64
    """(angles,) degrees."""
    center: float
    """Column (0-based pixel index) where the rotation axis is seen."""
    phantom: Phantom
    """The sample, with the densities per pixel that were measured."""


def golden_angles(count: int, *, start_deg: float = 0.0) -> Float64:
    """(count,) degrees in [0, 180): every next angle falls in the widest gap (Koehler, 2004)."""
    golden = (np.sqrt(5) - 1) / 2
    angles: Float64 = np.mod(start_deg + 180 * golden * np.arange(count), 180)
    return angles


def tomography_scan(
    phantom: Phantom,
    theta_deg: ArrayLike,
    *,
    rows: int,
    columns: int,
    rng: np.random.Generator,
    center: float | None = None,
    flats: int = 20,
    darks: int = 10,
    i0: float = 1e4,
    absorption: float = 2.0,
    zingers: float = 0.0,
) -> TomographyScan:
    """A scan with photon noise, an uneven beam, uneven pixels and a dark level of about 100 counts.

    Parameters
    ----------
    phantom: the sample; its densities are scaled.
    theta_deg: (angles,) degrees, any order.
    rows, columns: shape of the detector in pixels.
    center: column where the rotation axis is seen; None: the middle, (columns - 1) / 2.
    flats, darks: how many frames of each.
    i0: photons per pixel and frame where the beam is brightest, 1 count each, at most 60,000.
    absorption: greatest line integral of the scan.
    zingers: fraction of the projections' pixels hit by a stray photon, which adds up to 5 i0 counts.

    Raises
    ------
    ValueError: i0 is outside (0, 60000] or the phantom absorbs nothing.
    """
    if not 0 < i0 <= 60_000:
        raise ValueError(f"i0 is {i0:g} photons per pixel; a 16-bit detector takes 1 to 60000")
    theta = np.atleast_1d(np.asarray(theta_deg, float))
    axis = (columns - 1) / 2 if center is None else float(center)
    integrals = phantom.projections(theta, columns=columns, rows=rows, center=axis)
    greatest = float(integrals.max(initial=0))
    if greatest <= 0:
        raise ValueError("the phantom absorbs nothing inside the field of view")
    factor = absorption / greatest
    beam = i0 * _beam(rows, columns, rng)
    dark = 100 + rng.normal(0, 2, (rows, columns))

    def record(expected: Float64) -> Counts:
        counts = rng.poisson(expected) + rng.normal(dark, 1.5)
        return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)

    frames = np.empty(integrals.shape, np.uint16)
    for index, integral in enumerate(integrals):
        expected = beam * np.exp(-factor * integral.astype(float))
        if zingers:
            hits = rng.random(expected.shape) < zingers
            expected = expected + hits * i0 * rng.uniform(1, 5, expected.shape)
        frames[index] = record(expected)
    return TomographyScan(
        projections=frames,
        flats=np.stack([record(beam) for _ in range(flats)]) if flats else frames[:0],
        darks=np.stack([record(0 * beam) for _ in range(darks)]) if darks else frames[:0],
        theta_deg=theta,
        center=axis,
        phantom=phantom.scaled(factor),
    )


def _beam(rows: int, columns: int, rng: np.random.Generator) -> Float64:
    """(rows, columns) brightness, at most 1: a wide Gaussian, faint streaks of the optics, 1 % uneven pixels."""
    y, x = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)[None, :]
    streaks = 1 + 0.03 * np.cos(17 * y + 2 * x) + 0.02 * np.cos(41 * y + rng.uniform(0, 6))
    profile = np.exp(-0.3 * x**2 - 0.2 * y**2) * streaks * (1 + rng.normal(0, 0.01, (rows, columns)))
    brightest: Float64 = profile / profile.max()
    return brightest
