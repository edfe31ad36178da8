"""Slices as integers, all with the same scale."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray


def percentile_range(slices: ArrayLike, *, low: float = 0.1, high: float = 99.9) -> tuple[float, float]:
    """The values that `low` and `high` percent of the voxels inside the circle lie below.

    Parameters
    ----------
    slices: (rows, size, size); a few rows spread over the sample are enough for all.
    low, high: percent, 0 <= low < high <= 100.

    Raises
    ------
    ValueError: the shape or the percentages are wrong, or no value is finite.
    """
    data = np.asarray(slices)
    if data.ndim != 3 or data.shape[1] != data.shape[2]:
        raise ValueError(f"slices must be (rows, size, size), not {data.shape}")
    if not 0 <= low < high <= 100:
        raise ValueError(f"low ({low}) and high ({high}) must be percentages, low below high")
    axis = np.arange(data.shape[1]) - (data.shape[1] - 1) / 2
    inside = data[:, np.hypot(axis[:, None], axis) < 0.98 * data.shape[1] / 2]
    inside = inside[np.isfinite(inside)]
    if inside.size == 0:
        raise ValueError("no voxel is finite: there is no range")
    first, last = np.percentile(inside, [low, high])
    return float(first), float(last)


def to_integers(
    slices: ArrayLike, limits: tuple[float, float], *, dtype: Literal["uint8", "uint16"] = "uint8"
) -> NDArray[Any]:
    """Slices whose `limits` become 0 and the greatest integer, rounded; what is beyond is clipped, NaN becomes 0.

    Raises
    ------
    ValueError: the limits are not finite and ascending, or dtype is another one.
    """
    low, high = limits
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise ValueError(f"limits {low} to {high} must be finite, the first below the second")
    if dtype not in ("uint8", "uint16"):
        raise ValueError(f"dtype {dtype!r} cannot be written: choose uint8 or uint16")
    most = np.iinfo(dtype).max
    scaled = (np.asarray(slices, np.float32) - np.float32(low)) * np.float32(most / (high - low))
    clipped = np.rint(np.clip(np.nan_to_num(scaled, nan=0.0, posinf=most, neginf=0), 0, most))
    return np.asarray(clipped.astype(dtype))
