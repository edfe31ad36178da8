"""How good images are: against each other, by Fourier ring correlation, and against the truth, by SSIM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
import scipy.ndimage
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

_EDGE = 0.1
"""Share of the radius over which the mask of a ring correlation falls off: a sharp one would correlate."""


@dataclass(frozen=True)
class RingCorrelation:
    """Fourier ring correlation of two images of the same thing."""

    frequency: Float64
    """(rings,) cycles per pixel, from the first ring after the mean to below 0.5."""
    correlation: Float64
    """(rings,) -1 to 1, of the halves: what all the data together have is 2 c / (1 + c)."""

    def mean(self, resolution_px: float) -> float:
        """Mean over the rings down to a resolution (period in pixels), of all the data together."""
        used = np.clip(self.correlation[self.frequency <= 1 / resolution_px], 0, 1)
        return float(np.mean(2 * used / (1 + used))) if used.size else 0.0

    def resolution_px(self, threshold: float = 0.5) -> float:
        """Period in pixels where the correlation of all the data first falls below the threshold; at least 2."""
        below = np.flatnonzero(2 * self.correlation < threshold * (1 + self.correlation))
        if not below.size:
            return 2.0
        first = int(below[0])
        return float(1 / self.frequency[first]) if first else float("inf")


def ring_correlation(a: ArrayLike, b: ArrayLike) -> RingCorrelation:
    """Fourier ring correlation of two images, inside their circle.

    Parameters
    ----------
    a, b: (n, n) images, or (rows, n, n) stacks whose rings are summed over the rows; finite.

    Raises
    ------
    ValueError: they are not square, of one shape, at least 8 pixels wide.

    Notes: Saxton and Baumeister (1982), J. Microsc. 127, 127. The halves must share no noise.
    """
    one, two = np.asarray(a, np.float32), np.asarray(b, np.float32)
    size = one.shape[-1]
    if one.shape != two.shape or one.ndim not in (2, 3) or one.shape[-2] != size or size < 8:
        raise ValueError(f"images of {one.shape} and {two.shape}: give two square ones of the same shape")
    axis = (np.arange(size) - (size - 1) / 2) / (size / 2)
    radius = np.hypot(axis[:, None], axis)
    mask = (0.5 - 0.5 * np.cos(np.pi * np.clip((1 - radius) / _EDGE, 0, 1))).astype(np.float32)
    inside = mask > 0
    spectra = []
    for image in (one, two):
        flat = image - image[..., inside].mean(axis=-1)[..., None, None]
        spectra.append(scipy.fft.rfft2(flat * mask))
    across, along = np.arange(size // 2 + 1), np.fft.fftfreq(size, 1 / size)
    ring = np.rint(np.hypot(along[:, None], across)).astype(np.intp).ravel()
    # The half plane of a real image: columns within it stand for their mirrored ones too.
    twice = np.broadcast_to(np.where((across == 0) | (2 * across == size), 1.0, 2.0), (size, across.size)).ravel()

    def over_rings(values: NDArray[np.float32]) -> Float64:
        summed = values.sum(axis=0) if values.ndim == 3 else values
        return np.asarray(np.bincount(ring, twice * summed.ravel())[1 : (size + 1) // 2], float)

    cross = over_rings((spectra[0] * spectra[1].conj()).real)
    power = over_rings(np.abs(spectra[0]) ** 2) * over_rings(np.abs(spectra[1]) ** 2)
    correlation = np.divide(cross, np.sqrt(power), out=np.zeros_like(cross), where=power > 0)
    return RingCorrelation(np.arange(1, cross.size + 1) / size, correlation)


def halves(theta_deg: ArrayLike) -> NDArray[np.bool_]:
    """(angles,) True for every other projection in the order of the angles, whatever order they were taken in.

    Every other one in the order of acquisition would leave each half of a bit-reversed scan with a wedge missing.
    """
    folded = np.mod(np.asarray(theta_deg, float).ravel(), 180.0)
    chosen = np.zeros(folded.size, bool)
    chosen[np.argsort(folded, kind="stable")[::2]] = True
    return chosen


def ssim(image: ArrayLike, truth: ArrayLike, *, data_range: float | None = None) -> float:
    """Structural similarity of an image with the truth, mean over the circle; 1 means equal.

    Parameters
    ----------
    image, truth: (n, n), any real dtype.
    data_range: of the values; that of the truth when None.

    Raises
    ------
    ValueError: shapes differ, or the truth is flat.

    Notes: Wang, Bovik, Sheikh and Simoncelli (2004), IEEE Trans. Image Process. 13, 600; Gaussian window, sigma
    1.5 pixels, population statistics.
    """
    x, y = np.asarray(image, float), np.asarray(truth, float)
    if x.shape != y.shape or x.ndim != 2:
        raise ValueError(f"images of {x.shape} and {y.shape}: give two of the same shape")
    span = float(np.ptp(y)) if data_range is None else data_range
    if not span > 0:
        raise ValueError("the truth is flat: give data_range")

    def local(values: Float64) -> Float64:
        return np.asarray(scipy.ndimage.gaussian_filter(values, 1.5, truncate=3.5))

    mx, my = local(x), local(y)
    vx, vy, cov = local(x * x) - mx * mx, local(y * y) - my * my, local(x * y) - mx * my
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    found = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    rows, columns = (np.arange(n) - (n - 1) / 2 for n in x.shape)
    inside = np.hypot(rows[:, None], columns) < 0.95 * min(x.shape) / 2
    return float(found[inside].mean())


def predicted(counts: Sequence[int], quality: Sequence[float], planned: int) -> float:
    """Quality at `planned` projections, from 1 - quality = a / n + b with a, b >= 0 by least squares.

    Parameters
    ----------
    counts, quality: mean ring correlation at so many projections; the later half is used.

    Raises
    ------
    ValueError: there is no count, or as many qualities.
    """
    if len(counts) != len(quality) or not counts:
        raise ValueError(f"{len(counts)} counts for {len(quality)} qualities: give one for each, at least one")
    later = slice(len(counts) // 2, None)
    inverse, missing = 1 / np.asarray(counts[later], float), 1 - np.asarray(quality[later], float)
    slope = 0.0
    if inverse.size > 1 and np.ptp(inverse) > 0:
        slope = float(np.polyfit(inverse, missing, 1)[0])
    slope = min(max(slope, 0.0), float(np.mean(missing) / np.mean(inverse)))
    floor = max(0.0, float(np.mean(missing) - slope * np.mean(inverse)))
    return float(np.clip(1 - floor - slope / planned, 0, 1))
