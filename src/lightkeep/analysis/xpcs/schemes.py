"""Which delays a multi-tau correlation has."""

from __future__ import annotations

from typing import Literal, get_args

Scheme = Literal["aps", "hadoop", "sutton"]


def levels(n_frames: int, *, dpl: int = 4, scheme: Scheme = "aps") -> list[tuple[int, int]]:
    """(level, lag) of every delay that a run of `n_frames` has at least one pair for, by increasing delay.

    On level l a sample is the mean of m = 2**l frames, and there are N_l = n_frames // m samples; the delay is
    lag * m frames.

    - `aps`: lags 1 .. 2 dpl on level 0, then dpl + 1 .. 2 dpl on every level (xpcs-eigen, boost-corr).
    - `hadoop`: lags 1 .. 2 dpl - 1 on level 0, then dpl .. 2 dpl - 1 (xpcs-hadoop).
    - `sutton`: as `hadoop`, and the delay 0 (scikit-beam with num_bufs = 2 dpl; Lumma et al., 2000).

    Parameters
    ----------
    n_frames: frames that are correlated, after stride and averaging.
    dpl: delays per level; at least 1.
    scheme: see above.

    Raises
    ------
    ValueError: unknown scheme, dpl below 1, n_frames below 0.

    >>> [lag << level for level, lag in levels(40)]
    [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32]
    >>> [lag << level for level, lag in levels(40, scheme="hadoop")]
    [1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32]
    """
    if scheme not in get_args(Scheme):
        raise ValueError(f"scheme must be one of {', '.join(get_args(Scheme))}, not {scheme!r}")
    if dpl < 1 or n_frames < 0:
        raise ValueError(f"dpl must be at least 1 and n_frames at least 0, not {dpl} and {n_frames}")
    last = 2 * dpl if scheme == "aps" else 2 * dpl - 1
    first = 0 if scheme == "sutton" else 1
    found: list[tuple[int, int]] = []
    level = 0
    while first < n_frames >> level:
        found += [(level, lag) for lag in range(first, min(last, (n_frames >> level) - 1) + 1)]
        level += 1
        first = last - dpl + 1
    return found
