"""Thickness from one distance: the edges that propagation adds are taken away again, and most noise with them."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from lightkeep.analysis.tomography.normalise import TRANSMISSION_FLOOR

Float32 = NDArray[np.float32]

_HC_KEV_M = 1.239841984e-9
"""Planck's constant times the speed of light, CODATA 2018, exact to its digits."""
_FADES = 12.0
"""Lengths after which the filter's tail is below single precision: exp(-12) = 6e-6."""


def paganin_length(*, energy_kev: float, distance_mm: float, pixel_size_um: float, delta_beta: float) -> float:
    """How far Paganin's filter reaches, in pixels: sqrt(delta/beta * wavelength * distance / (4 pi)).

    Parameters
    ----------
    energy_kev: of the photons. distance_mm: sample to detector, for a parallel beam; in a cone beam divided by the
      magnification. pixel_size_um: at the sample. delta_beta: ratio of the refraction's to the absorption's index.

    Raises
    ------
    ValueError: a number is not positive, or so far off that its unit must be another.
    """
    limits = {
        "energy_kev": (energy_kev, 0.1, 500.0, "keV"),
        "distance_mm": (distance_mm, 0.0, 2e5, "mm"),
        "pixel_size_um": (pixel_size_um, 1e-3, 1e3, "um"),
        "delta_beta": (delta_beta, 1e-2, 1e6, "1"),
    }
    for name, (value, least, most, unit) in limits.items():
        if not (least <= value <= most and value > 0):
            raise ValueError(f"{name} is {value:g} {unit}; {least:g} to {most:g} can be: is it in another unit?")
    wavelength = _HC_KEV_M / energy_kev
    return math.sqrt(delta_beta * wavelength * distance_mm * 1e-3 / (4 * math.pi)) / (pixel_size_um * 1e-6)


def paganin_halo(length: float) -> int:
    """Rows that a piece of the work needs beyond each end, for a filter of this `paganin_length`."""
    return math.ceil(_FADES * length)


def paganin(transmission: ArrayLike, length: float, *, threads: int = 1, out: Float32 | None = None) -> Float32:
    """Line integrals of the attenuation, from the transmission of a sample of one material behind a free distance.

    -log of the inverse transform of T / (1 + (2 pi f length)^2), f in cycles per pixel.

    Parameters
    ----------
    transmission: (rows, angles, columns), as `normalise(..., log=False)` gives it, finite.
    length: of the filter in pixels, see `paganin_length`.
    threads: projections that are worked on at once; their number does not change the bytes.
    out: (rows, angles, columns) float32 to write into; it may be the transmission.

    Returns
    -------
    : (rows, angles, columns) float32; divided by the attenuation coefficient they are thicknesses. For length 0
      it is -log(transmission).

    Raises
    ------
    ValueError: the shape is not of sinograms, a value is not finite, or the length is negative.

    Notes
    -----
    Paganin, Mayo, Gureyev, Miller & Wilkins (2002), J. Microsc. 206, 33, eq. 10, with mu = 4 pi beta / wavelength.
    Holds for one material, or one delta/beta, and a Fresnel number well above 1. Padded by mirroring.
    """
    data = np.asarray(transmission)
    if data.ndim != 3 or 0 in data.shape:
        raise ValueError(f"transmission must be (rows, angles, columns), not {data.shape}")
    if not np.isfinite(data).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(data))} values of the transmission are not finite")
    if not (math.isfinite(length) and length >= 0):
        raise ValueError(f"the filter's length is {length} pixels; it cannot be negative")
    rows, angles, columns = data.shape
    margin = paganin_halo(length)
    shape = tuple(scipy.fft.next_fast_len(min(2 * n, n + 2 * margin), real=True) for n in (rows, columns))
    y, x = _mirrored(rows, shape[0])[:, None], _mirrored(columns, shape[1])
    top, left = (shape[0] - rows) // 2, (shape[1] - columns) // 2
    down, across = scipy.fft.fftfreq(shape[0])[:, None], scipy.fft.rfftfreq(shape[1])
    response = (1 / (1 + (2 * np.pi * length) ** 2 * (down**2 + across**2))).astype(np.float32)
    out = np.empty(data.shape, np.float32) if out is None else out

    def one(angle: int) -> None:
        padded = data[:, angle][y, x].astype(np.float32)
        smooth = scipy.fft.irfft2(scipy.fft.rfft2(padded) * response, shape)
        inside = smooth[top : top + rows, left : left + columns]
        out[:, angle] = -np.log(np.maximum(inside, TRANSMISSION_FLOOR))

    with ThreadPoolExecutor(max(1, threads)) as pool:
        list(pool.map(one, range(angles)))
    return out


def _mirrored(count: int, padded: int) -> NDArray[np.intp]:
    """Which of `count` pixels each padded one shows: the pixels in the middle, mirrored at both ends."""
    at = np.mod(np.arange(padded) - (padded - count) // 2, 2 * count)
    return np.asarray(np.minimum(at, 2 * count - 1 - at))
