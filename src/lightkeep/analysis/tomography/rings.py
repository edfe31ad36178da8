"""Rings about the rotation axis, which a slice still has after its sinogram was cleaned."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from lightkeep.analysis.tomography.stripes import sorted_in_place

Float32 = NDArray[np.float32]


def remove_rings(slices: ArrayLike, *, width: int = 9, threads: int = 1, out: Float32 | None = None) -> Float32:
    """Slices without rings about the middle, where the rotation axis is.

    Of each circle the median over the angle is taken of what differs from the median over `width` circles; that is
    subtracted. Only the ring is taken to polar coordinates and back: the slice keeps its resolution. What the
    sample has along more than half of a circle looks like a ring, too.

    Parameters
    ----------
    slices: (rows, size, size), finite.
    width: of the median in pixels, odd, more than twice the width of a ring.
    threads: slices that are worked on at once; their number does not change the bytes.
    out: (rows, size, size) float32 to write into; it may be the slices.

    Returns
    -------
    : (rows, size, size) float32. Each slice by itself.

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
    out = np.empty(data.shape, np.float32) if out is None else out
    turns = max(360, 3 * data.shape[1])

    def one(row: int) -> None:
        image = np.array(data[row], np.float32)
        rest = _less_neighbours(_polar(image, data.shape[1] // 2, turns), width)
        _subtract(image, np.median(rest, axis=0).astype(np.float32), out[row])

    with ThreadPoolExecutor(max(1, threads)) as pool:
        list(pool.map(one, range(len(data))))
    return out


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def _less_neighbours(polar, width):  # type: ignore[no-untyped-def] # pragma: no cover
    """Each value less the median over `width` radii, fewer at the ends."""
    turns, radii = polar.shape
    out = np.empty((turns, radii), np.float32)
    window = np.empty(width, np.float32)
    for turn in range(turns):
        for radius in range(radii):
            reach = min(width // 2, radius, radii - 1 - radius)
            near = window[: 2 * reach + 1]
            for i in range(len(near)):
                near[i] = polar[turn, radius - reach + i]
            sorted_in_place(near)
            out[turn, radius] = polar[turn, radius] - near[reach]
    return out


@njit(cache=True, nogil=True)
def _subtract(image, rings, out):  # type: ignore[no-untyped-def] # pragma: no cover
    size = len(image)
    middle = (size - 1) / 2
    for j in range(size):
        for i in range(size):
            radius = np.sqrt((i - middle) ** 2 + (j - middle) ** 2)
            ring = np.float32(0)
            if radius < len(rings) - 1:
                inner = int(radius)
                t = np.float32(radius - inner)
                ring = (1 - t) * rings[inner] + t * rings[inner + 1]
            out[j, i] = image[j, i] - ring
