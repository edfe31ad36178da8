"""Filtered back-projection as the textbook writes it: slow, plain, independent. The oracle of the fast one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]


def fbp(sinogram: Float64, theta_deg: Float64, center: float) -> Float64:
    """(angles, columns) over evenly spaced angles -> (columns, columns); Kak and Slaney (1988), eq. 61 and 64."""
    angles, columns = sinogram.shape
    lag = np.arange(-columns + 1, columns)
    kernel = np.where(lag % 2 == 1, -1 / (np.pi * np.where(lag == 0, 1, lag)) ** 2, 0.0)
    kernel[lag == 0] = 0.25
    axis = np.arange(columns) - (columns - 1) / 2
    image = np.zeros((columns, columns))
    for row, theta in zip(sinogram, np.deg2rad(theta_deg), strict=True):
        filtered = np.convolve(row, kernel)[columns - 1 : 2 * columns - 1]
        seen_at = center + axis[None, :] * np.cos(theta) + axis[:, None] * np.sin(theta)
        image += np.interp(seen_at, np.arange(columns), filtered, left=0, right=0)
    return image * np.pi / angles
