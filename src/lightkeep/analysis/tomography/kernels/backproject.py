"""Back-projection as the textbook has it, a pixel at a time: the oracle of all others."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.simd import compiled


@compiled
def back_project(
    rows: NDArray[np.float32],
    cosines: NDArray[np.float64],
    sines: NDArray[np.float64],
    center: float,
    spans: NDArray[np.int64],
    image: NDArray[np.float64],
) -> None:
    """Add (angles, columns) filtered rows to (columns, columns), between samples by a straight line."""
    columns = image.shape[0]
    middle = (columns - 1) / 2
    for angle in range(cosines.size):
        for y in range(columns):
            start = center + (y - middle) * sines[angle] - middle * cosines[angle]
            for x in range(spans[y, 0], spans[y, 1]):
                at = start + x * cosines[angle]
                left = math.floor(at)
                if 0 <= left < columns - 1:
                    share = at - left
                    image[y, x] += rows[angle, left] * (1 - share) + rows[angle, left + 1] * share
                elif left == columns - 1 and at == left:
                    image[y, x] += rows[angle, left]
