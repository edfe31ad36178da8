"""A correlation in small: what a page shows of it while the run is still being measured."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.xpcs.result import MultiTauResult


def glance(found: MultiTauResult, *, pixels: int = 128, frames: int = 1000) -> dict[str, Any]:
    """The curves as they are, image and intensity in means of neighbours: lists of numbers with six digits.

    Parameters
    ----------
    found: the result so far.
    pixels: rows and columns of the image at most.
    frames: values of the intensity over time at most.

    Returns
    -------
    : JSON-safe; what is not a number is None. `intensity_frames` is the first frame of each mean. Rows, columns
        and frames that do not fill a whole mean are left out.
    """
    step = max(1, -(-found.intensity.size // frames))
    parts = found.intensity.size // step
    coarse = -(-max(found.saxs_2d.shape) // pixels)
    rows, columns = (max(1, length // coarse) for length in found.saxs_2d.shape)
    image = found.saxs_2d[: rows * coarse, : columns * coarse].reshape(rows, -1, columns, coarse)
    known = np.isfinite(image)
    means = np.where(known, image, 0).sum(axis=(1, 3)) / np.where(
        known.any(axis=(1, 3)), known.sum(axis=(1, 3)), np.nan
    )
    return {
        "tau": _plain(found.tau),
        "tau_unit": found.units["tau"],
        "q": _plain(found.q),
        "g2": _plain(found.g2),
        "g2_err": _plain(found.g2_err),
        "intensity": _plain(found.intensity[: parts * step].reshape(-1, step).mean(axis=1)),
        "intensity_frames": list(range(0, parts * step, step)),
        "saxs_2d": _plain(means),
        "saxs_1d": _plain(found.saxs_1d),
        "static_q": _plain(found.static_q),
        "flags": list(found.flags),
    }


def _plain(values: NDArray[Any]) -> Any:
    if values.ndim > 1:
        return [_plain(row) for row in values]
    return [float(f"{value:.6g}") if np.isfinite(value) else None for value in values.tolist()]
