"""Where the spectrum of a projection is sampled, and what each sample weighs.

Samples 1 / length apart give a row that repeats after `length` columns, so `length` has to hold what the row
reaches and what is looked at. The ramp's kernel reaches much further, -1 / (2 pi^2 n^2), for one reason only: the
ramp has a kink at frequency zero. Therefore it is split. A kernel that is cut softly, by a window, has all of the
ramp but the surroundings of its kink, and needs no more than that length. What is left of the kernel is long but
smooth: its spectrum is a few samples wide, and these are taken twice as densely. Padding every row to twice its
width, the usual way, takes nearly twice the samples everywhere.

The samples between are interpolated from their neighbours, as the row is shorter than `length`. The windows of
both are Kaiser and Bessel's (Kaiser 1966, in Kuo and Kaiser, System analysis by digital computer, chapter 7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import scipy.fft
import scipy.special
from numpy.typing import NDArray

from lightkeep.analysis.tomography.filters import Window, ramp, window_of
from lightkeep.analysis.tomography.kernels.rays import TAPS
from lightkeep.analysis.tomography.plan import fast_length

_BETA: Final = 4.0
"""Of the window that cuts it: its spectrum's side lobes are exp(-beta) high."""


@dataclass(frozen=True, eq=False)
class Sampling:
    """Samples of a spectrum: `length` of whole number, in the FFT's order, then `halves` between those at zero."""

    length: int
    halves: int
    numbers: NDArray[np.float64]
    """(length + halves,): frequency times `length`."""
    weights: NDArray[np.float64]
    """(length + halves,): filter over `length`; 0 for the sample without a partner."""
    taps: NDArray[np.complex64]
    """(TAPS,): what the samples about one between them are multiplied by, the lowest first."""

    @property
    def near(self) -> int:
        """Whole numbers from -near to near are needed to interpolate; -1 where nothing is interpolated."""
        return self.halves // 2 + TAPS // 2 if self.halves else -1


@lru_cache(maxsize=8)
def sampling(
    columns: int, center: float, size: int, *, window: Window | None, whole: bool, free: float
) -> Sampling:
    """Samples of projections for an image of `columns`.

    center: column of the axis.
    size: of the plane, in cells; samples are not further apart than its cells.
    window: None for the plain back-projection.
    whole: the image's corners are seen as well, from everywhere in it.
    free: columns at least, for each of the row's, between what is seen and where the row comes again. The kernel
      is cut in them, and the more they are, the less of the rows gridding folds back onto the image.
    """
    seen = columns * math.sqrt(0.5 if whole else 0.25)
    reach = max(center, columns - 1 - center, seen if whole else 0) + 2
    length = fast_length(
        math.ceil(max(size, seen + reach + max(free * columns, TAPS))), of=4
    )  # pairs on both sides
    if window is None:
        numbers = scipy.fft.fftfreq(length, 1 / length)
        weights = np.where(2 * np.abs(numbers) < length, 1 / length, 0)
        return Sampling(length, 0, numbers, weights, np.zeros(TAPS, np.complex64))
    cut = length - seen - reach
    fine = np.rint(scipy.fft.fftfreq(2 * length, 0.5 / length))
    tail = np.zeros(2 * length)
    tail[1:] = -0.5 / (np.pi * fine[1:]) ** 2
    left = scipy.fft.fft(tail * (1 - _kaiser(fine / cut, _BETA))).real
    halves = 2 * math.ceil(length / cut * math.hypot(1, _BETA / np.pi) / 2)
    left[np.abs(fine) >= halves + 1] = 0
    left *= window_of(fine / (2 * length), window) / (2 * length)
    odd = np.arange(1 - halves, halves, 2)
    return Sampling(
        length,
        halves,
        np.concatenate([fine[:length] - length * (2 * fine[:length] >= length), odd / 2]),
        np.concatenate([ramp(2 * length, window)[::2] / length - left[::2], left[odd]]),
        _taps(columns, center, length),
    )


def _taps(columns: int, center: float, length: int) -> NDArray[np.complex64]:
    free = TAPS / 2 * (1 - columns / length)
    at = np.arange(TAPS) - (TAPS - 1) / 2
    real = np.sinc(at) * _kaiser(2 * at / TAPS, np.pi * math.sqrt(max(free**2 - 1, 0.25)))
    aside = (columns - 1) / 2 - center
    return np.asarray(real * np.exp(2j * np.pi * at * aside / length), np.complex64)


def _kaiser(place: NDArray[np.float64], beta: float) -> NDArray[np.float64]:
    """Window by place, -1 to 1; 0 beyond."""
    inside = np.maximum(1 - place**2, 0)
    return np.where(inside > 0, scipy.special.i0(beta * np.sqrt(inside)) / scipy.special.i0(beta), 0)
