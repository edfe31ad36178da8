"""Rings about the rotation axis, which a slice still has after its sinogram was cleaned."""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import ArrayLike, NDArray

Float32 = NDArray[np.float32]


def remove_rings(
    slices: ArrayLike,
    *,
    width: int = 9,
    sectors: int = 1,
    threshold: float | None = None,
    out: Float32 | None = None,
) -> Float32:
    """Slices without rings about the middle, where the rotation axis is.

    Of each circle the median over the angle is taken of what differs from a median over `width` circles; that is
    subtracted. Only the ring is taken to polar coordinates and back: the slice keeps its resolution.

    Parameters
    ----------
    slices: (rows, size, size), finite.
    width: of the median in pixels, odd, at least twice the width of a ring.
    sectors: pieces of each circle that are looked at apart, for rings that change along their way.
    threshold: differences greater than this are the sample's and are not looked at; None: 5 times the usual one.
    out: (rows, size, size) float32 to write into; it may be the slices.

    Returns
    -------
    : (rows, size, size) float32. Each slice by itself; bytes do not depend on the number of threads.

    Raises
    ------
    ValueError: slices are not square, a value is not finite, or an option is out of range.

    Notes
    -----
    The polar filter of Sijbers & Postnov (2004), Phys. Med. Biol. 49, N247, with a median in place of its mean.
    """
    data = np.asarray(slices)
    if data.ndim != 3 or data.shape[1] != data.shape[2] or data.shape[1] < 16:
        raise ValueError(f"slices must be (rows, size, size), of 16 pixels or more, not {data.shape}")
    if not np.isfinite(data).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(data))} values of the slices are not finite")
    if width < 3 or width % 2 == 0 or width >= data.shape[1] // 2:
        raise ValueError(f"width is {width}; choose an odd one from 3 to half the size, {data.shape[1] // 2}")
    if not 1 <= sectors <= 360 or (threshold is not None and not threshold > 0):
        raise ValueError(f"sectors ({sectors}) must be 1 to 360, threshold ({threshold}) above 0")
    out = np.empty(data.shape, np.float32) if out is None else out
    _remove(np.ascontiguousarray(data, np.float32), width, sectors, np.float32(threshold or 0), out)
    return out


@njit(parallel=True, cache=True)
def _remove(slices, width, sectors, threshold, out):  # type: ignore[no-untyped-def] # pragma: no cover
    size = slices.shape[1]
    radii = size // 2
    turns = (max(360, 3 * size) // sectors + 1) * sectors
    for row in prange(len(slices)):
        rest = _less_neighbours(_polar(slices[row], radii, turns), width)
        limit = threshold
        if limit == 0:
            limit = 5 * np.float32(1.4826) * np.median(np.abs(rest))
        rings = np.zeros((sectors, radii), np.float32)
        each = turns // sectors
        kept = np.empty(each, np.float32)
        for sector in range(sectors):
            for radius in range(radii):
                count = 0
                for turn in range(sector * each, (sector + 1) * each):
                    if abs(rest[turn, radius]) <= limit:
                        kept[count] = rest[turn, radius]
                        count += 1
                if count > each // 2:
                    rings[sector, radius] = np.median(kept[:count])
        _subtract(slices[row], rings, out[row])


@njit(cache=True)
def _polar(image, radii, turns):  # type: ignore[no-untyped-def] # pragma: no cover
    """(turns, radii): the image along circles one pixel apart about its middle, linear between pixels."""
    size = len(image)
    middle = (size - 1) / 2
    out = np.empty((turns, radii), np.float32)
    for turn in range(turns):
        angle = 2 * np.pi * (turn + 0.5) / turns
        for radius in range(radii):
            x, y = middle + radius * np.cos(angle), middle + radius * np.sin(angle)
            i, j = min(max(int(x), 0), size - 2), min(max(int(y), 0), size - 2)
            s, t = x - i, y - j
            top = (1 - s) * image[j, i] + s * image[j, i + 1]
            low = (1 - s) * image[j + 1, i] + s * image[j + 1, i + 1]
            out[turn, radius] = (1 - t) * top + t * low
    return out


@njit(cache=True)
def _less_neighbours(polar, width):  # type: ignore[no-untyped-def] # pragma: no cover
    """Each value less the median over `width` radii, fewer at the ends."""
    turns, radii = polar.shape
    half = width // 2
    out = np.empty((turns, radii), np.float32)
    for turn in range(turns):
        for radius in range(radii):
            reach = min(half, radius, radii - 1 - radius)
            near = polar[turn, radius - reach : radius + reach + 1]
            out[turn, radius] = polar[turn, radius] - np.median(near)
    return out


@njit(cache=True)
def _subtract(image, rings, out):  # type: ignore[no-untyped-def] # pragma: no cover
    size = len(image)
    middle = (size - 1) / 2
    sectors, radii = rings.shape
    for j in range(size):
        for i in range(size):
            x, y = i - middle, j - middle
            radius = np.sqrt(x * x + y * y)
            ring = np.float32(0)
            if radius < radii - 1:
                inner = int(radius)
                t = np.float32(radius - inner)
                turn = np.arctan2(y, x) / (2 * np.pi)
                sector = min(int((turn - np.floor(turn)) * sectors), sectors - 1)
                ring = (1 - t) * rings[sector, inner] + t * rings[sector, inner + 1]
            out[j, i] = image[j, i] - ring
