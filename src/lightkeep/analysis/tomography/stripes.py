"""Stripes of a sinogram, which would be rings in the slice: a pixel whose answer differs from its neighbours'."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import scipy.ndimage
from numba import njit
from numpy.typing import ArrayLike, NDArray

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_ABSORBS = 0.3
"""Of the greatest mean absorption: below it lie air and the sample's rim, where ratios mislead.
Measured: at 0.02 a clean scan of a round sample lost twice as much."""
_NEAR = 9
"""Columns that a dead one is compared with. Measured: 51 take the rim of a round sample for dead columns."""
_NOISE = 1e-5
"""Least noise that stripes stand out from, for sinograms without any."""


def remove_stripes_vo(
    sinograms: ArrayLike,
    theta_deg: ArrayLike | None = None,
    *,
    snr: float = 3.0,
    large: int = 51,
    small: int = 21,
    drop: float = 0.1,
    threads: int = 1,
    out: Float32 | None = None,
) -> Float32:
    """Sinograms without stripes of any kind, by three methods in turn.

    Dead or fluctuating columns are interpolated (algorithm 6 of the paper), wide stripes that stand out are
    replaced (algorithm 5), and the others are smoothed away after each column has been sorted (algorithm 3): what
    is of the sample moves along the columns as the angle grows, what is of a pixel does not.

    Parameters
    ----------
    sinograms: (rows, angles, columns) line integrals, finite.
    theta_deg: (angles,) degrees; None: the angles grow or fall steadily.
    snr: how far a stripe must stand out from the noise to be dead or large; 3 is usual, less finds more.
    large, small: widths in pixels, odd, wider than the widest stripe of each kind.
    drop: share of each column's extremes that is not looked at when large stripes are sought.
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
    Vo, Atwood & Drakopoulos (2018), Opt. Express 26, 28396. Each row is worked on by itself. Differs from the
    authors' program near the rim of the sample, which it takes for stripes. A clean scan loses detail, too: leave
    it out where there are no rings.
    """
    data, order = checked(sinograms, theta_deg)
    for name, width in (("large", large), ("small", small)):
        if not (0 < width < data.shape[2] and width % 2):
            raise ValueError(
                f"{name} is {width}; choose an odd width below the detector's {data.shape[2]} columns"
            )
    if not (snr > 0 and 0 <= drop < 0.9):
        raise ValueError(f"snr ({snr}) must be above 0, drop ({drop}) from 0 to 0.9")
    out = np.empty(data.shape, np.float32) if out is None else out
    work = partial(_without_stripes, snr=snr, large=large, small=small, drop=drop)

    def row(number: int) -> None:
        out[number, order] = work(np.array(data[number, order], np.float32))

    with ThreadPoolExecutor(max(1, threads)) as pool:
        list(pool.map(row, range(len(data))))
    return out


def checked(sinograms: ArrayLike, theta_deg: ArrayLike | None) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the sinograms, and their angles' order."""
    data = np.asarray(sinograms)
    if data.ndim != 3 or data.shape[1] < 16 or data.shape[2] < 16:
        raise ValueError(
            f"sinograms must be (rows, angles, columns), with 16 of both or more, not {data.shape}: "
            "fewer do not tell stripes from the sample"
        )
    if not np.isfinite(data).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(data))} values of the sinograms are not finite")
    theta = np.arange(data.shape[1]) if theta_deg is None else np.asarray(theta_deg, float).ravel()
    if theta.size != data.shape[1] or not np.isfinite(theta).all():
        raise ValueError(f"theta_deg has {np.isfinite(theta).sum()} angles, sinograms have {data.shape[1]}")
    return data, np.argsort(theta, kind="stable")


def _without_stripes(sinogram: Float32, *, snr: float, large: int, small: int, drop: float) -> Float32:
    """(angles, columns), worked on in place."""
    _repair_dead(sinogram, snr)
    ranked, keys = _ranked(sinogram)
    smooth = _smoothed(ranked, large)
    ends = int(0.5 * drop * len(sinogram))
    kept = slice(ends, len(sinogram) - ends)
    level, usual = ranked[kept].mean(axis=0, dtype=float), smooth[kept].mean(axis=0, dtype=float)
    absorbs = np.abs(usual) > _ABSORBS * np.abs(usual).max(initial=0)
    factor = np.divide(level, usual, out=np.ones_like(level), where=absorbs)
    sinogram /= np.where(factor > 0, factor, 1).astype(np.float32)
    stripes = np.flatnonzero(scipy.ndimage.binary_dilation(_outliers(factor, snr)))
    _unrank(smooth, keys, stripes, sinogram)
    ranked, keys = _ranked(sinogram)
    _unrank(_smoothed(ranked, small), keys, np.arange(sinogram.shape[1]), sinogram)
    return sinogram


def _repair_dead(sinogram: Float32, snr: float) -> None:
    """Interpolate columns that vary along the angle much more, or much less, than their neighbours do."""
    unrest = _unrest(sinogram)
    usual = scipy.ndimage.median_filter(unrest, _NEAR)
    usual[usual == 0] = usual.mean() or 1.0
    dead = scipy.ndimage.binary_dilation(_outliers(unrest / usual, snr))
    dead[:2] = dead[-2:] = False
    bad, good = np.flatnonzero(dead), np.flatnonzero(~dead)
    if not 0 < bad.size < dead.size // 3:
        return
    right = np.searchsorted(good, bad)
    before, after = good[right - 1], good[right]
    share = ((bad - before) / (after - before)).astype(np.float32)
    sinogram[:, bad] = sinogram[:, before] * (1 - share) + sinogram[:, after] * share


def _outliers(values: Float64, snr: float) -> NDArray[np.bool_]:
    """Which values lie far off the line through the middle half of the sorted ones; algorithm 4 of the paper."""
    ordered, at = np.sort(values), np.arange(values.size)
    quarter = values.size // 4
    slope, first = np.polyfit(at[quarter : -quarter - 1], ordered[quarter : -quarter - 1], 1)
    last = first + slope * at[-1]
    noise = max(abs(last - first), _NOISE)
    found = np.zeros(values.size, bool)
    if ordered[-1] - last >= snr * noise:
        found |= values > last + 0.5 * snr * noise
    if first - ordered[0] >= snr * noise:
        found |= values <= first - 0.5 * snr * noise
    return found


def _ranked(sinogram: Float32) -> tuple[Float32, NDArray[np.uint64]]:
    """Return (angles, columns) with every column sorted, and (columns, angles) keys that hold where from."""
    keys = _packed(sinogram)
    keys.sort(axis=1)  # numpy's sort of 64-bit integers is vectorised, its argsort of floats is not everywhere
    return _unpacked(keys), keys


@njit(cache=True, nogil=True)
def _packed(sinogram):  # type: ignore[no-untyped-def] # pragma: no cover
    """Keys that sort as the values do, equal values by angle: the value's bits above, its angle below."""
    angles, columns = sinogram.shape
    bits = sinogram.view(np.uint32)
    keys = np.empty((columns, angles), np.uint64)
    for first in range(0, columns, 16):
        for angle in range(angles):
            for column in range(first, min(first + 16, columns)):
                key = bits[angle, column]
                flip = np.uint32(0xFFFFFFFF) if key >> np.uint32(31) else np.uint32(0x80000000)
                keys[column, angle] = (np.uint64(key ^ flip) << np.uint64(32)) | np.uint64(angle)
    return keys


@njit(cache=True, nogil=True)
def _unpacked(keys):  # type: ignore[no-untyped-def] # pragma: no cover
    columns, angles = keys.shape
    bits = np.empty((angles, columns), np.uint32)
    for first in range(0, columns, 16):
        for rank in range(angles):
            for column in range(first, min(first + 16, columns)):
                key = np.uint32(keys[column, rank] >> np.uint64(32))
                flip = np.uint32(0x80000000) if key >> np.uint32(31) else np.uint32(0xFFFFFFFF)
                bits[rank, column] = key ^ flip
    return bits.view(np.float32)


@njit(cache=True, nogil=True)
def _unrank(ranked, keys, chosen, out):  # type: ignore[no-untyped-def] # pragma: no cover
    """Put the chosen columns of ranked values back to the angles they came from."""
    for column in chosen:
        for rank in range(len(ranked)):
            out[np.int64(keys[column, rank] & np.uint64(0xFFFFFFFF)), column] = ranked[rank, column]


@njit(cache=True, nogil=True)
def _smoothed(ranked, width):  # type: ignore[no-untyped-def] # pragma: no cover
    """Median over `width` columns of each row, mirrored at the edges: a sorted window that slides."""
    rows, columns = ranked.shape
    out = np.empty((rows, columns), np.float32)
    half = width // 2
    line = np.empty(columns + 2 * half, np.float32)
    window = np.empty(width, np.float32)
    for row in range(rows):
        for i in range(len(line)):
            at = i - half
            at = -1 - at if at < 0 else at
            line[i] = ranked[row, 2 * columns - 1 - at if at >= columns else at]
        for i in range(width):
            window[i] = line[i]
        sorted_in_place(window)
        out[row, 0] = window[half]
        for column in range(1, columns):
            _slide(window, line[column - 1], line[column - 1 + width])
            out[row, column] = window[half]
    return out


@njit(cache=True, nogil=True)
def sorted_in_place(values):  # type: ignore[no-untyped-def] # pragma: no cover
    """Sort few values by insertion."""
    for i in range(1, len(values)):
        value, at = values[i], i
        while at > 0 and values[at - 1] > value:
            values[at] = values[at - 1]
            at -= 1
        values[at] = value


@njit(cache=True, nogil=True)
def _slide(window, gone, new):  # type: ignore[no-untyped-def] # pragma: no cover
    """Replace one value of a sorted window by another."""
    at, above = 0, len(window)
    while at < above:
        middle = (at + above) // 2
        if window[middle] < gone:
            at = middle + 1
        else:
            above = middle
    if new > gone:
        while at + 1 < len(window) and window[at + 1] < new:
            window[at] = window[at + 1]
            at += 1
    else:
        while at > 0 and window[at - 1] > new:
            window[at] = window[at - 1]
            at -= 1
    window[at] = new


@njit(cache=True, nogil=True)
def _unrest(sinogram):  # type: ignore[no-untyped-def] # pragma: no cover
    """(columns,) sum of how far each value is from the mean of ten along the angle, mirrored at the ends."""
    angles, columns = sinogram.shape
    total = np.zeros(columns)
    mean = np.empty(columns)
    for angle in range(angles):
        mean[:] = 0
        for step in range(-5, 5):
            at = angle + step
            at = -1 - at if at < 0 else at
            at = 2 * angles - 1 - at if at >= angles else at
            for column in range(columns):
                mean[column] += sinogram[at, column]
        for column in range(columns):
            total[column] += abs(sinogram[angle, column] - mean[column] / 10)
    return total
