"""Filtered back-projection in real space: slow, plain, and independent of the Fourier methods' gridding."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from lightkeep.analysis.tomography.angles import angular_weights
from lightkeep.analysis.tomography.filters import Window, ramp
from lightkeep.analysis.tomography.kernels.backproject import back_project
from lightkeep.analysis.tomography.nufft import spans


class BackProjector:
    """What depends on the scan but not on the slice."""

    def __init__(
        self, theta_deg: NDArray[np.float64], columns: int, center: float, *, window: Window, pad: int, mask: bool
    ) -> None:
        length = scipy.fft.next_fast_len(pad * columns)
        theta = np.deg2rad(theta_deg)
        self._columns, self._length, self._center = columns, length, center
        self._filter = ramp(length, window)[: length // 2 + 1]
        self._weights = angular_weights(theta_deg)[:, None]
        self._cosines, self._sines = np.cos(theta), np.sin(theta)
        self._spans = spans(columns, mask)

    def run(self, rows: NDArray[Any], out: NDArray[np.float32]) -> None:
        """Reconstruct some rows."""
        for sinogram, image in zip(rows, out, strict=True):
            spectrum = scipy.fft.rfft(sinogram.astype(np.float64), self._length, axis=1)
            with np.errstate(invalid="ignore"):  # what is not finite is refused when it comes out
                spectrum *= self._filter
            filtered = scipy.fft.irfft(spectrum, self._length, axis=1)[:, : self._columns] * self._weights
            total = np.zeros(image.shape)
            taken = np.ascontiguousarray(filtered, np.float32)
            back_project(taken, self._cosines, self._sines, self._center, self._spans, total)
            image[:] = total
