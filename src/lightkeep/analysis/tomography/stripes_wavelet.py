"""Stripes of a sinogram by wavelets: what is sharp across the columns and does not change with the angle goes.

The method is linear, and acts on the angles alone but for the wavelets along the columns. Hence no image is
decomposed: the few slow Fourier terms along the angle are taken from the sinogram, filtered along the columns, and
subtracted.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from math import comb

import numpy as np
import scipy.fft
from numba import njit
from numpy.typing import ArrayLike, NDArray

from lightkeep.analysis.tomography.stripes import checked

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_FAINT = 1e-7
"""Fourier terms that are damped by less than this are left as they are."""
_PAD = 150
"""Most columns and angles that are added at each end."""


def remove_stripes_wavelet(
    sinograms: ArrayLike,
    theta_deg: ArrayLike | None = None,
    *,
    levels: int = 3,
    sigma: float = 1.0,
    order: int = 9,
    threads: int = 1,
    out: Float32 | None = None,
) -> Float32:
    """Sinograms without the stripes that are as bright at every angle.

    Parameters
    ----------
    sinograms: (rows, angles, columns) line integrals, finite.
    theta_deg: (angles,) degrees; None: the angles grow or fall steadily.
    levels: of the wavelet decomposition; stripes up to about 2 ** levels columns wide go. Fewer where the sinogram
      is small.
    sigma: width of the damping, in Fourier terms along the angle; more removes stripes that change along the
      angle, and more of the sample.
    order: vanishing moments of the Daubechies wavelet, 2 to 12.
    threads: rows that are worked on at once; their number does not change the bytes.
    out: (rows, angles, columns) float32 to write into; it may be the sinograms.

    Returns
    -------
    : (rows, angles, columns) float32.

    Raises
    ------
    ValueError: shapes disagree, a value is not finite, or an option is out of range.

    Notes
    -----
    Muench, Trtik, Marone & Stampanoni (2009), Opt. Express 17, 8567. Angles are padded with each column's mean,
    columns with their edges, by a tenth or 150. Good for many faint stripes; `remove_stripes_vo` is better for
    dead and bright ones.
    """
    data, order_of_angles = checked(sinograms, theta_deg)
    if levels < 1 or not sigma > 0 or not 2 <= order <= 12:
        raise ValueError(f"levels ({levels}) must be 1 or more, sigma ({sigma}) above 0, order ({order}) 2 to 12")
    _, angles, columns = data.shape
    levels = min(levels, most_levels(angles, columns))
    pad = min(_PAD, min(angles, columns) // 10)
    bases = _bases(angles, levels, float(sigma), order, pad)
    low, high = daubechies(order)
    out = np.empty(data.shape, np.float32) if out is None else out

    def row(number: int) -> None:
        sinogram = np.array(data[number, order_of_angles], np.float32)
        stripes = np.zeros_like(sinogram)
        for level, (take, give) in enumerate(bases, 1):
            terms = np.pad(_project(take, sinogram), ((0, 0), (pad, pad)), mode="edge")
            detail = _detail(terms.astype(np.float64), level, low, high)[:, pad : pad + columns]
            _expand(give, detail.astype(np.float32), stripes)
        out[number, order_of_angles] = sinogram - stripes

    with ThreadPoolExecutor(max(1, threads)) as pool:
        list(pool.map(row, range(len(data))))
    return out


def most_levels(angles: int, columns: int) -> int:
    """How often a padded sinogram can be halved and still have 16 of each."""
    pad = min(_PAD, min(angles, columns) // 10)
    return max(1, int(np.log2(min(angles, columns) / 16 + 2 * pad / 16)))


@lru_cache
def daubechies(order: int) -> tuple[Float64, Float64]:
    """Low- and high-pass decomposition filters with `order` vanishing moments; Daubechies (1988), section 4.

    Returns
    -------
    : two arrays of 2 * order float64: extremal phase, as PyWavelets' `db` filters.
    """
    # |m0|^2 = cos^2N P(sin^2); the roots of P inside the unit circle make the filter of least phase.
    series = [comb(order - 1 + k, k) for k in range(order)]
    zeros = []
    for y in np.roots(series[::-1]):
        half = 1 - 2 * y  # (z + 1/z) / 2
        inside = half + np.sqrt(half * half - 1 + 0j)
        zeros.append(inside if abs(inside) < 1 else 1 / inside)
    taps = np.real(np.poly([-1.0] * order + zeros))
    reconstruction = taps * (np.sqrt(2) / taps.sum())
    low = reconstruction[::-1].copy()
    high = reconstruction * (-1.0) ** np.arange(1, 2 * order + 1)
    return low, high


@lru_cache(maxsize=8)
def _bases(angles: int, levels: int, sigma: float, order: int, pad: int) -> tuple[tuple[Float32, Float32], ...]:
    """For each level (terms, angles) that takes a sinogram's slow terms, and (angles, terms) that gives them."""
    low, _ = daubechies(order)
    identity = np.eye(angles)
    mean = np.full((pad, angles), 1 / angles)
    down = np.concatenate([mean, identity, mean]).T  # (angles, padded): each a row to decompose
    lengths, bases = [down.shape[1]], []
    for _ in range(levels):
        down = _halved(down, low)
        lengths.append(down.shape[1])
        length = down.shape[1]
        damped = np.exp(-(np.arange(length // 2 + 1) ** 2) / (2 * sigma**2))
        kept = np.flatnonzero(damped > _FAINT)
        spectrum = scipy.fft.rfft(down, axis=1)[:, kept] * damped[kept]
        units = np.zeros((2 * kept.size, length // 2 + 1), complex)
        units[np.arange(kept.size), kept] = 1
        units[kept.size + np.arange(kept.size), kept] = 1j
        up = scipy.fft.irfft(units, length, axis=1)
        for longer in lengths[-2::-1]:
            up = _doubled(up, low[::-1].copy(), longer)
        take = np.concatenate([spectrum.real, spectrum.imag], axis=1).T
        bases.append((take.astype(np.float32), up[:, pad : pad + angles].T.astype(np.float32)))
    return tuple((np.ascontiguousarray(take), np.ascontiguousarray(give)) for take, give in bases)


def _detail(rows: Float64, level: int, low: Float64, high: Float64) -> Float64:
    """The part of each row that its wavelets of one level make up."""
    lengths = [rows.shape[1]]
    for _ in range(level - 1):
        rows = _halved(rows, low)
        lengths.append(rows.shape[1])
    rows = _doubled(_halved(rows, high), high[::-1].copy(), lengths[-1])
    for longer in lengths[-2::-1]:
        rows = _doubled(rows, low[::-1].copy(), longer)
    return rows


@njit(cache=True, nogil=True)
def _halved(rows, taps):  # type: ignore[no-untyped-def] # pragma: no cover
    """Filter and keep every second, mirrored at the ends: (n + taps - 1) // 2 values."""
    count, length = rows.shape
    out = np.zeros((count, (length + len(taps) - 1) // 2))
    for row in range(count):
        for k in range(out.shape[1]):
            for j in range(len(taps)):
                at = 2 * k + 1 - j
                while at < 0 or at >= length:
                    at = -1 - at if at < 0 else 2 * length - 1 - at
                out[row, k] += taps[j] * rows[row, at]
    return out


@njit(cache=True, nogil=True)
def _doubled(rows, taps, length):  # type: ignore[no-untyped-def] # pragma: no cover
    """The inverse of `_halved`: (rows, length)."""
    count, half = rows.shape
    out = np.zeros((count, length))
    for row in range(count):
        for at in range(length):
            total = 0.0
            for k in range(at // 2, min(half, (at + len(taps) - 2) // 2 + 1)):
                j = at - 2 * k + len(taps) - 2
                if 0 <= j < len(taps):
                    total += taps[j] * rows[row, k]
            out[row, at] = total
    return out


@njit(cache=True, nogil=True)
def _project(take, sinogram):  # type: ignore[no-untyped-def] # pragma: no cover
    """take @ sinogram, in a fixed order of sums."""
    out = np.zeros((take.shape[0], sinogram.shape[1]), np.float32)
    for angle in range(sinogram.shape[0]):
        for term in range(take.shape[0]):
            weight = take[term, angle]
            for column in range(sinogram.shape[1]):
                out[term, column] += weight * sinogram[angle, column]
    return out


@njit(cache=True, nogil=True)
def _expand(give, terms, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Add give @ terms to out."""
    for angle in range(give.shape[0]):
        for term in range(give.shape[1]):
            weight = give[angle, term]
            for column in range(terms.shape[1]):
                out[angle, column] += weight * terms[term, column]
