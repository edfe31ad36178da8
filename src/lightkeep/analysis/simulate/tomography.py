"""A tomography scan as a detector would record it: photons, flats, darks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightkeep.analysis.simulate.phantoms import Phantom

Float64 = NDArray[np.float64]
Counts = NDArray[np.uint16]


@dataclass(frozen=True)
class Flaws:
    """What goes wrong in a scan; nothing unless it is said."""

    stripes: int = 0
    """Pixels of each row whose gain is 2 to 10 % off since the flats: full stripes of the sinogram."""
    dead: int = 0
    """Pixels of each row that answer the same to any light."""
    zingers: float = 0.0
    """Share of the projections' pixels hit by a stray photon, which adds 1 to 5 i0 counts."""
    beam_drift: float = 0.0
    """Share of the beam that is lost from the first projection to the last; flats taken after see what is left."""
    flicker: float = 0.0
    """Standard deviation of each frame's brightness."""
    flat_drift: float = 0.0
    """Rows by which the beam's pattern moves from the first projection to the last; the pixels' gains stay."""
    tilt_deg: float = 0.0
    """Of the rotation axis against the detector's columns, about the beam."""


@dataclass(frozen=True)
class TomographyScan:
    """What the detector recorded, and the truth."""

    projections: Counts
    """(angles, rows, columns) counts."""
    flats: Counts
    """(flats, rows, columns) counts, beam on and no sample; those taken after the scan come last."""
    darks: Counts
    """(darks, rows, columns) counts, beam off."""
    theta_deg: Float64
    """(angles,) degrees."""
    center: float
    """Column (0-based pixel index) where the rotation axis is seen, in the middle row."""
    phantom: Phantom
    """The sample, with the densities per pixel that were measured."""
    flats_at: Float64
    """(flats,) 0 for those taken before the first projection, the number of projections for those after."""
    gain: Float64
    """(rows, columns): the projections' gain over the flats'; 0 is a dead pixel."""
    tilt_deg: float = 0.0
    """Of the axis: `row` rows below the middle it is seen tan(tilt) * row columns further on."""


def golden_angles(count: int, *, start_deg: float = 0.0, span_deg: float = 180.0) -> Float64:
    """(count,) degrees in [0, span): every next angle falls in the widest gap (Koehler, 2004)."""
    golden = (np.sqrt(5) - 1) / 2
    angles: Float64 = np.mod(start_deg + span_deg * golden * np.arange(count), span_deg)
    return angles


def interlaced_angles(count: int, passes: int, *, span_deg: float = 180.0) -> Float64:
    """(count,) degrees in [0, span): several turns, each between the angles of those before.

    The passes begin in van der Corput's order, as in TIMBIR:
    Mohan et al. (2015), IEEE Trans. Comput. Imaging 1, 96.

    Raises
    ------
    ValueError: passes is below 1 or above count.
    """
    if not 1 <= passes <= count:
        raise ValueError(f"{count} angles cannot be taken in {passes} passes")
    digits = max(1, (passes - 1).bit_length())
    order = sorted(range(passes), key=lambda number: int(f"{number:0{digits}b}"[::-1], 2))
    angles: Float64 = np.concatenate([np.arange(first, count, passes) for first in order]) * (span_deg / count)
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
    flats_after: int = 0,
    darks: int = 10,
    i0: float = 1e4,
    absorption: float = 2.0,
    flaws: Flaws | None = None,
) -> TomographyScan:
    """A scan with photon noise, an uneven beam, uneven pixels and a dark level of about 100 counts.

    Parameters
    ----------
    phantom: the sample; its densities are scaled.
    theta_deg: (angles,) degrees, any order.
    rows, columns: shape of the detector in pixels.
    center: column where the rotation axis is seen; None: the middle, (columns - 1) / 2.
    flats, flats_after, darks: how many flats before and after the scan, and darks.
    i0: photons per pixel and frame where the beam is brightest, 1 count each, at most 60,000.
    absorption: greatest line integral of the scan.
    flaws: what goes wrong; None: nothing.

    Raises
    ------
    ValueError: i0 is outside (0, 60000], the phantom absorbs nothing, or the detector has fewer pixels than flaws.
    """
    if not 0 < i0 <= 60_000:
        raise ValueError(f"i0 is {i0:g} photons per pixel; a 16-bit detector takes 1 to 60000")
    bad = flaws or Flaws()
    theta = np.atleast_1d(np.asarray(theta_deg, float))
    axis = (columns - 1) / 2 if center is None else float(center)
    integrals = phantom.projections(theta, columns=columns, rows=rows, center=axis, tilt_deg=bad.tilt_deg)
    greatest = float(integrals.max(initial=0))
    if greatest <= 0:
        raise ValueError("the phantom absorbs nothing inside the field of view")
    factor = absorption / greatest
    beam = _Beam(rows, columns, i0, bad, rng)
    dark = 100 + rng.normal(0, 2, (rows, columns))
    gain = _gain(rows, columns, bad, rng)

    def record(expected: Float64) -> Counts:
        counts = rng.poisson(expected) + rng.normal(dark, 1.5)
        return np.clip(np.rint(counts), 0, 65535).astype(np.uint16)

    frames = np.empty(integrals.shape, np.uint16)
    for index, integral in enumerate(integrals):
        expected = beam.at(index / max(1, theta.size - 1)) * np.exp(-factor * integral.astype(float))
        expected = np.where(gain > 0, gain * expected, 0.4 * i0)
        if bad.zingers:
            hits = rng.random(expected.shape) < bad.zingers
            expected = expected + hits * i0 * rng.uniform(1, 5, expected.shape)
        frames[index] = record(expected)
    opened = [record(beam.at(0.0)) for _ in range(flats)] + [record(beam.at(1.0)) for _ in range(flats_after)]
    return TomographyScan(
        projections=frames,
        flats=np.stack(opened) if opened else frames[:0],
        darks=np.stack([record(np.zeros((rows, columns))) for _ in range(darks)]) if darks else frames[:0],
        theta_deg=theta,
        center=axis,
        phantom=phantom.scaled(factor),
        flats_at=np.repeat([0.0, theta.size], [flats, flats_after]),
        gain=gain,
        tilt_deg=bad.tilt_deg,
    )


def _gain(rows: int, columns: int, flaws: Flaws, rng: np.random.Generator) -> Float64:
    """(rows, columns): 1, but for as many other and dead pixels in each row as the flaws say."""
    gain = np.ones((rows, columns))
    if flaws.stripes + flaws.dead > columns - 8:
        raise ValueError(
            f"{flaws.stripes} stripes and {flaws.dead} dead pixels are too many for {columns} columns"
        )
    if flaws.stripes or flaws.dead:
        for row in gain:
            places = 4 + rng.permutation(columns - 8)[: flaws.stripes + flaws.dead]
            row[places] = 1 + rng.uniform(0.02, 0.1, places.size) * rng.choice([-1, 1], places.size)
            row[places[flaws.stripes :]] = 0
    return gain


class _Beam:
    """A wide Gaussian, faint streaks of the optics and 1 % uneven pixels, in photons; it may drift."""

    def __init__(self, rows: int, columns: int, i0: float, flaws: Flaws, rng: np.random.Generator) -> None:
        self._flaws, self._rng = flaws, rng
        self._y, self._x = np.linspace(-1, 1, rows)[:, None], np.linspace(-1, 1, columns)[None, :]
        self._phase, self._pixels = rng.uniform(0, 6), 1 + rng.normal(0, 0.01, (rows, columns))
        self._scale = i0 / self._profile(0.0).max()
        self._row = 2 / max(1, rows - 1)

    def at(self, when: float) -> Float64:
        """(rows, columns) photons from 0, the first projection, to 1, the last."""
        bright = self._scale * (1 - self._flaws.beam_drift * when)
        if self._flaws.flicker:
            bright *= 1 + self._flaws.flicker * self._rng.normal()
        photons: Float64 = max(0.0, bright) * self._profile(self._flaws.flat_drift * self._row * when)
        return photons

    def _profile(self, shift: float) -> Float64:
        y, x = self._y - shift, self._x
        streaks = 1 + 0.03 * np.cos(17 * y + 2 * x) + 0.02 * np.cos(41 * y + self._phase)
        profile: Float64 = np.exp(-0.3 * x**2 - 0.2 * y**2) * streaks * self._pixels
        return profile
