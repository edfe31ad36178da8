"""`reconstruct`: one way in for every method."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightkeep.analysis.tomography.filters import Window
from lightkeep.analysis.tomography.nufft import Accuracy, geometry, reconstruct_nufft

Float32 = NDArray[np.float32]


def reconstruct(
    sinograms: ArrayLike,
    theta_deg: ArrayLike,
    center: float,
    *,
    window: Window = "ramp",
    pad: int = 2,
    mask: bool = True,
    accuracy: Accuracy = "standard",
    threads: int = 1,
    out: Float32 | None = None,
) -> Float32:
    """Slices from sinograms of a parallel beam."""
    data = np.asarray(sinograms)
    if data.ndim != 3:
        raise ValueError(f"sinograms must be (rows, angles, columns), not {data.shape}")
    if not 0 <= center <= data.shape[2] - 1:
        raise ValueError(f"the rotation centre {center} is not on the detector's {data.shape[2]} columns")
    theta = np.asarray(theta_deg, float).ravel()
    if data.shape[1] != theta.size:
        raise ValueError(f"sinograms have {data.shape[1]} angles, theta_deg has {theta.size}")
    if out is None:
        out = np.empty((data.shape[0], data.shape[2], data.shape[2]), np.float32)
    scan = geometry(theta.tobytes(), data.shape[2], float(center), window, pad, mask, accuracy)
    reconstruct_nufft(data, scan, out, threads=threads)
    return out
