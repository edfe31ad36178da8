"""Where the rotation axis is seen: several methods, one answer with its uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from lightkeep.analysis.tomography.filters import Window
from lightkeep.analysis.tomography.nufft import Accuracy
from lightkeep.analysis.tomography.reconstruction import reconstruct

Float64 = NDArray[np.float64]

_FLOOR_PX = 0.05
"""No consensus is better than this: the methods share the same rows."""
_ALONE_PX = 1.0
"""One method alone has nothing that contradicts it."""
_APART_PX = 2.0
"""A method further from the median than this disagrees with it."""
_HALF_TURN = 150.0
"""Degrees from which on a scan is as good as half a turn."""
_TOGETHER = 32
"""Centres that are reconstructed at once by each thread, as many as the kernels' rows."""
_WEDGE_CUT = 0.25
"""Cycles per pixel beyond which the wedge holds mostly noise."""


@dataclass(frozen=True)
class CenterResult:
    """The rotation axis' column, as a 0-based pixel index."""

    value: float
    """Median of the methods."""
    sigma: float
    """Uncertainty in pixels: the spread of the methods, at least 0.05; at least 1 where only one applies."""
    per_method: Mapping[str, float]
    """Column by method; a method that cannot work on this scan is absent."""

    @property
    def outliers(self) -> tuple[str, ...]:
        """Methods more than 2 pixels from the value."""
        return tuple(name for name, at in self.per_method.items() if abs(at - self.value) > _APART_PX)

    @property
    def agree(self) -> bool:
        """True when fewer than a third of the methods are outliers; look at a sweep otherwise."""
        return 3 * len(self.outliers) < len(self.per_method)

    @property
    def low(self) -> float:
        """Lower end of the interval: the least column of the methods that agree, or value - sigma."""
        return min([self.value - self.sigma, *self._agreeing()])

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return max([self.value + self.sigma, *self._agreeing()])

    def _agreeing(self) -> list[float]:
        return [at for name, at in self.per_method.items() if name not in self.outliers]


def find_center(sinograms: ArrayLike, theta_deg: ArrayLike) -> CenterResult:
    """Find the rotation axis from sinograms of line integrals.

    Five methods that fail for different reasons, and the median of those that apply:

    - `mirror`: a projection and the one half a turn on are mirror images about the axis. Needs such pairs.
    - `phase`: the same pairs by phase correlation: only where structures are counts, not how bright they are;
      Kuglin & Hines (1975), with the peak refined as in Guizar-Sicairos et al. (2008), Opt. Lett. 33, 156.
    - `mass`: the centre of mass moves on a sinusoid about the axis (Helgason 1965; Ludwig 1966, first moment).
      Needs a sample that stays inside the field of view.
    - `wedge`: with its mirror image appended, a sinogram's Fourier transform is empty inside a double wedge,
      if the axis is right; Vo et al. (2014), Opt. Express 22, 19078. Needs about half a turn.
    - `sharpness`: a wrong axis smears density below zero; the least sum of absolute values wins; Donath et al.
      (2006), J. Opt. Soc. Am. A 23, 1048. Needs about half a turn; without one it is the last resort.

    Parameters
    ----------
    sinograms: (rows, angles, columns) or (angles, columns) line integrals; a handful of rows is enough.
    theta_deg: (angles,) degrees, any order.

    Returns
    -------
    : the axis, valid while it is seen within the middle half of the detector.

    Raises
    ------
    ValueError: shapes disagree, fewer than 8 angles or 16 columns, values that are not finite, or nothing absorbs.
    """
    data, theta = _checked(sinograms, theta_deg)
    found: dict[str, float] = {}
    for name, method in (("mirror", _mirror), ("phase", _phase), ("mass", _mass), ("wedge", _wedge)):
        column = method(data, theta)
        if column is not None:
            found[name] = column
    start = float(np.median(list(found.values()))) if found else (data.shape[2] - 1) / 2
    if not found or theta[-1] - theta[0] >= _HALF_TURN:
        found["sharpness"] = _sharpness(data, theta, start, reach=4.0 if found else data.shape[2] / 8)
    values = np.array(list(found.values()))
    value = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - value)))
    least = _FLOOR_PX if len(found) > 1 else _ALONE_PX
    return CenterResult(value, max(spread, least), {name: round(column, 3) for name, column in found.items()})


def _checked(sinograms: ArrayLike, theta_deg: ArrayLike) -> tuple[Float64, Float64]:
    data = np.asarray(sinograms, float)
    data = data[None] if data.ndim == 2 else data
    theta = np.asarray(theta_deg, float).ravel()
    if data.ndim != 3 or data.shape[1] != theta.size:
        raise ValueError(f"sinograms {data.shape} and {theta.size} angles disagree: (rows, angles, columns)")
    if theta.size < 8 or data.shape[2] < 16:
        raise ValueError(
            f"{theta.size} angles and {data.shape[2]} columns are too few to find the rotation centre"
        )
    if not np.isfinite(data).all() or not np.isfinite(theta).all():
        raise ValueError("sinograms and angles must be finite")
    if np.ptp(data) == 0:
        raise ValueError("nothing absorbs in these rows: the rotation centre cannot be found")
    order = np.argsort(theta, kind="stable")
    return data[:, order], theta[order]


def _bounds(columns: int) -> tuple[float, float]:
    middle = (columns - 1) / 2
    return middle - columns / 4, middle + columns / 4


def _mirror(data: Float64, theta: Float64) -> float | None:
    """Align projections with the mirrored ones half a turn on."""
    pairs = _pairs(theta)
    if not pairs:
        return None
    return float(np.median([_pair(data[:, a], data[:, b]) for a, b in pairs]))


def _pairs(theta: Float64) -> list[tuple[int, int]]:
    """At most 12 pairs of projections half a turn apart, spread over the scan."""
    turn = np.interp(theta + 180, theta, np.arange(theta.size), right=np.nan)
    tolerance = 1.5 * np.median(np.diff(theta))
    pairs = []
    for first, partner in enumerate(np.nan_to_num(turn, nan=theta.size - 1)):
        second = round(float(partner))
        if abs(theta[second] - theta[first] - 180) <= tolerance:
            pairs.append((first, second))
    return [pairs[i] for i in np.unique(np.linspace(0, len(pairs) - 1, 12).astype(int))] if pairs else []


def _phase(data: Float64, theta: Float64) -> float | None:
    """Phase correlation of rows with the mirrored ones half a turn on, all pairs' spectra summed."""
    pairs = _pairs(theta)
    if not pairs:
        return None
    columns = data.shape[2]
    length = 2 * columns
    cross = np.zeros(columns + 1, complex)
    for first, second in pairs:
        # Slopes: what leaves the field of view would else be an edge of its own, at rest.
        slopes = (np.diff(rows, axis=1) for rows in (data[:, first], data[:, second, ::-1]))
        one, two = (scipy.fft.rfft(rows, length) for rows in slopes)
        product = (one * two.conj()).sum(axis=0)
        cross += product / (np.abs(product) + 1e-3 * np.abs(product).max() + 1e-30)
    frequency = scipy.fft.rfftfreq(length)
    cross *= np.exp(-0.5 * (frequency / 0.15) ** 2)  # what is finer is noise, and the peak is smooth
    low, high = (round(2 * bound - (columns - 1)) for bound in _bounds(columns))
    shifts, best = np.arange(low, high + 1, dtype=float), 0.0
    for spacing in (0.1, 0.01, None):
        peaks = (np.exp(2j * np.pi * np.outer(shifts, frequency)) @ cross).real
        best = float(shifts[np.argmax(peaks)])
        if spacing is not None:
            shifts = best + spacing * np.arange(-10, 11)
    return float(columns - 1 + best) / 2


def _pair(projection: Float64, opposite: Float64) -> float:
    """Column of the axis from one pair of (rows, columns): the least mean squared difference of the overlap."""
    columns = projection.shape[1]
    mirrored = opposite[:, ::-1]
    low, high = _bounds(columns)
    shifts = np.arange(round(2 * low - (columns - 1)), round(2 * high - (columns - 1)) + 1)
    costs = np.array([_difference(projection, mirrored, shift) for shift in shifts])
    return float(columns - 1 + _vertex(shifts.astype(float), costs)) / 2


def _difference(fixed: Float64, moving: Float64, shift: int) -> float:
    columns = fixed.shape[1]
    a = fixed[:, max(shift, 0) : columns + min(shift, 0)]
    b = moving[:, max(-shift, 0) : columns + min(-shift, 0)]
    return float(np.mean((a - b) ** 2) / (np.mean(a**2) + np.mean(b**2) + 1e-30))


def _mass(data: Float64, theta: Float64) -> float | None:
    """Fit a + b cos + c sin to the centre of mass; None for a sample that leaves the field of view."""
    mass = data.sum(axis=(0, 2))
    edges = np.abs(data[:, :, [0, 1, -2, -1]].mean(axis=(0, 2)))
    leaves = mass.min() <= 0 or mass.std() > 0.02 * mass.mean() or edges.max() > 0.03 * data.max()
    if leaves or theta[-1] - theta[0] < 90:
        return None
    middles = (data.sum(axis=0) @ np.arange(data.shape[2])) / mass
    angle = np.deg2rad(theta)
    design = np.column_stack([np.ones_like(angle), np.cos(angle), np.sin(angle)])
    column = float(np.linalg.lstsq(design, middles, rcond=None)[0][0])
    low, high = _bounds(data.shape[2])
    return column if low <= column <= high else None


def _wedge(data: Float64, theta: Float64) -> float | None:
    """Search the column that leaves least energy in the double wedge, coarse on binned columns, then fine."""
    if theta[-1] - theta[0] < _HALF_TURN:
        return None
    half = data[data.shape[0] // 2, theta <= theta[0] + 180 + 1e-6]
    half = half[:: max(1, len(half) // 180)]
    low, high = _bounds(half.shape[1])
    factor = max(1, half.shape[1] // 256)
    coarse = np.arange(low, high, factor)
    binned = _binned(half, factor)
    middle = (factor - 1) / 2
    best = float(coarse[np.argmin([_wedge_energy(binned, (column - middle) / factor) for column in coarse])])
    for spacing in (factor / 3, 0.1):
        fine = best + spacing * np.arange(-5, 6)
        best = _vertex(fine, np.array([_wedge_energy(half, column) for column in fine]))
    return best


def _binned(data: Float64, factor: int) -> Float64:
    """Mean of every `factor` neighbours along the last axis; what is left over is dropped."""
    whole = data.shape[-1] // factor * factor
    return np.asarray(data[..., :whole].reshape(*data.shape[:-1], -1, factor).mean(axis=-1))


def _wedge_energy(half: Float64, column: float) -> float:
    """Energy of (angles, columns) and its mirror image about a column, inside the double wedge."""
    angles, columns = half.shape
    shift = 2 * column - (columns - 1)
    whole = int(np.rint(shift))
    mirrored = np.roll(half[:, ::-1], whole, axis=1)
    if whole > 0:  # what the roll wrapped around was not measured: fill it with what was, half a turn on
        mirrored[:, :whole] = half[::-1, :whole]
    elif whole < 0:
        mirrored[:, whole:] = half[::-1, whole:]
    frequency = scipy.fft.rfftfreq(columns)
    kept = (frequency > 2 / columns) & (frequency < _WEDGE_CUT)
    rest = np.exp(-2j * np.pi * frequency * (shift - whole))
    spectrum = np.concatenate([scipy.fft.rfft(half, axis=1), scipy.fft.rfft(mirrored, axis=1) * rest])
    plane = np.abs(scipy.fft.fft(spectrum[:, kept], axis=0))
    turns = np.abs(scipy.fft.fftfreq(2 * angles, 1 / (2 * angles)))[:, None]
    # A sample inside a radius fills |turns| <= 2 pi frequency radius only; the wedge beyond should be empty.
    is_empty = turns > np.pi * frequency[kept] * columns
    return float(plane[is_empty].mean()) if is_empty.any() else 0.0


def _sharpness(data: Float64, theta: Float64, start: float, *, reach: float) -> float:
    """Minimise the mean absolute value of the reconstructed middle row, coarse on binned columns, then fine."""
    every = max(1, len(theta) // 360)
    sinogram, angles = data[data.shape[0] // 2, ::every], theta[::every]
    low, high = _bounds(data.shape[2])
    best, spacing = start, reach / 4
    while spacing > 0.1:
        far = 4 if spacing > 0.2 else 2  # the vertex before is good to a tenth of a pixel
        columns = np.clip(best + spacing * np.arange(-far, far + 1), low, high)
        factor = max(1, min(round(6 * spacing), data.shape[2] // 256))
        costs = _blur(_binned(sinogram, factor), angles, (columns - (factor - 1) / 2) / factor)
        best = _vertex(columns, costs) if spacing <= 0.5 else float(columns[np.argmin(costs)])
        spacing /= 3
    return float(best)


def _blur(sinogram: Float64, theta: Float64, columns: Float64) -> Float64:
    """Mean absolute value of the slice from (angles, columns), for each column of the axis."""
    count = sinogram.shape[1]
    middle = (count - 1) / 2
    # Shifted copies about one axis: a single plan and, in pairs, half the transforms.
    spectrum, frequency = scipy.fft.rfft(sinogram, 2 * count, axis=1), scipy.fft.rfftfreq(2 * count)
    phases = np.exp(2j * np.pi * frequency * (columns - middle)[:, None, None])
    shifted = scipy.fft.irfft(spectrum * phases, 2 * count, axis=2)[:, :, :count]
    images = reconstruct(shifted, theta, middle, window="hann")
    axis = np.arange(count) - middle
    return np.asarray(np.abs(images[:, np.hypot(axis[:, None], axis) < 0.45 * count]).mean(axis=1, dtype=float))


def center_sweep(
    sinogram: ArrayLike,
    theta_deg: ArrayLike,
    centers: ArrayLike,
    *,
    window: Window = "ramp",
    accuracy: Accuracy = "preview",
    threads: int = 1,
) -> NDArray[np.float32]:
    """The same slice for each of several rotation centres, to choose the sharpest by eye.

    Another centre is another phase of each projection's Fourier transform: one geometry serves all, and they are
    reconstructed as the rows of one scan, 32 together.

    Parameters
    ----------
    sinogram: (angles, columns) line integrals, finite.
    theta_deg: (angles,) degrees, any order.
    centers: (n,) columns, 0-based pixel index.
    window, accuracy, threads: see `reconstruct`.

    Returns
    -------
    : (n, y, x) float32, in the order of the centres.

    Raises
    ------
    ValueError: shapes disagree, a value is not finite, or a centre is not on the detector.
    """
    data, columns = np.asarray(sinogram, float), np.asarray(centers, float).ravel()
    theta = np.asarray(theta_deg, float).ravel()
    if data.ndim != 2 or data.shape[0] != theta.size:
        raise ValueError(f"the sinogram is {data.shape}, with {theta.size} angles; it must be (angles, columns)")
    if not np.isfinite(data).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(data))} values of the sinogram are not finite")
    if columns.size == 0 or not ((columns >= 0) & (columns <= data.shape[1] - 1)).all():
        raise ValueError(f"centres must be columns of the detector, 0 to {data.shape[1] - 1}")
    out = np.empty((columns.size, data.shape[1], data.shape[1]), np.float32)
    for begin in range(0, columns.size, _TOGETHER * threads):
        chosen = slice(begin, begin + _TOGETHER * threads)
        rows, axis = _moved(data, columns[chosen])
        images = reconstruct(rows, theta, axis, window=window, accuracy=accuracy, threads=threads)
        first = (images.shape[1] - data.shape[1]) // 2
        inside = slice(first, first + data.shape[1])
        out[chosen] = images[:, inside, inside]
    return out


def _moved(sinogram: Float64, columns: Float64) -> tuple[NDArray[np.float32], float]:
    """Copies of (angles, columns), each moved so that its axis lies in the middle, and that column.

    They are wider than the sinogram where else the far edge would be lost.
    """
    width = sinogram.shape[1]
    middle = (width - 1) / 2
    margin = 8 * math.ceil(np.abs(columns - middle).max() / 8)
    axis = middle + margin
    length = scipy.fft.next_fast_len(2 * (width + 2 * margin), real=True)
    spectrum = scipy.fft.rfft(sinogram.astype(np.float32), length, axis=1)
    turn = 2j * np.pi * scipy.fft.rfftfreq(length)
    phases = np.exp(turn * (columns - axis)[:, None]).astype(np.complex64)
    moved = scipy.fft.irfft(spectrum * phases[:, None, :], length, axis=2)
    return np.ascontiguousarray(moved[:, :, : width + 2 * margin]), axis


def _vertex(positions: NDArray[Any], costs: Float64) -> float:
    """Position of the least cost, refined by the parabola through it and its neighbours."""
    i = int(np.argmin(costs))
    if i in (0, len(costs) - 1):
        return float(positions[i])
    left, here, right = costs[i - 1 : i + 2]
    bend = left - 2 * here + right
    shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
    return float(positions[i] + shift * (positions[1] - positions[0]))
