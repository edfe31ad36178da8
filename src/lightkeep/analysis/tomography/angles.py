"""How much of the half circle each projection stands for."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_WEDGE = 8.0
"""A gap this many times the mean one is a missing wedge: nobody measured it, so nobody stands for it."""


def angular_weights(theta_deg: ArrayLike) -> NDArray[np.float64]:
    """Weight of each projection: the arc nearest to it on the half circle.

    Uniform, golden-angle, interlaced, missing and repeated angles are all ordinary; 360 degrees fold onto 180.

    Parameters
    ----------
    theta_deg: (angles,) degrees, any order.

    Returns
    -------
    : (angles,) float64 radians; their sum is pi unless a wedge is missing. Projections at the same angle share
      its arc.

    Raises
    ------
    ValueError: no angle, or one that is not finite.
    """
    theta = np.asarray(theta_deg, float).ravel()
    if theta.size == 0 or not np.isfinite(theta).all():
        raise ValueError("theta must hold at least one angle, all of them finite")
    folded = np.mod(theta, 180.0)
    order = np.argsort(folded, kind="stable")
    ordered = folded[order]
    gaps = np.diff(ordered, append=ordered[0] + 180.0)
    mean = 180.0 / theta.size
    if theta.size > 2:
        gaps[gaps > _WEDGE * mean] = mean
    weights = np.empty_like(theta)
    weights[order] = (gaps + np.roll(gaps, 1)) / 2
    first, inverse, counts = np.unique(ordered, return_inverse=True, return_counts=True)
    if first.size < theta.size:  # the same angle again: equal shares, whatever the order
        shares = np.bincount(inverse, weights[order]) / counts
        weights[order] = shares[inverse]
    return np.deg2rad(weights)
