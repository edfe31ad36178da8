"""What the multi-tau kernels remember of each pixel, and of a run."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.xpcs.kernels.layout import GROUP
from lightkeep.analysis.xpcs.schemes import Scheme
from lightkeep.analysis.xpcs.schemes import levels as scheme_levels

CHUNK: Final = 512
"""Frames that are worked on at once, at multiples of it from the run's first frame: sums within a chunk are
float32, exact for whole counts while they stay below 2**24, across chunks float64."""
CHUNK_LEVEL: Final = 9
"""2**CHUNK_LEVEL == CHUNK: the level that has one sample per chunk."""
MAX_LEVELS: Final = 24
STATE_BYTES: Final = GROUP * MAX_LEVELS * (5 * 8 + 2 * 8 * 4)
"""Of a group with 4 delays per level, when all levels are reached."""

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]


class State(NamedTuple):
    """Of n groups of 64 pixels. Samples of level l are sums of 2**l frames.

    The lags of every level are base + 1 .. base + dpl; level 0 has lags 0 .. base besides, which are its *low*
    lags.
    """

    acc: Float64
    """(1 + levels, n, dpl + 1, GROUP) sums of products of samples: [0, :, lag] of the low lags of level 0,
    [1 + level, :, lag - base - 1] of the others."""
    history: Float32
    """(levels, n, 2 dpl, GROUP) the last samples, the newest last; 0 before the run."""
    head: Float32
    """(levels, n, 2 dpl, GROUP) the first samples."""
    total: Float64
    """(1, n, 1, GROUP) sum over the frames."""
    remark: NDArray[np.uint8]
    """(1, n, 1, GROUP) bit 0: the dtype's highest value was reached, 1: a negative count, 2: one not finite."""
    early: Float64
    """Like acc: sum of the earlier samples of pairs whose later sample is bad. Empty without bad frames."""
    late: Float64
    """The other way round."""
    lost: Float64
    """(levels, n, 1, GROUP) sum of the good samples of the level below that a bad partner made part of a bad
    sample.
    Empty without bad frames."""


def empty_state(groups: int, *, dpl: int, levels: int, has_bad: bool) -> State:
    """The state before the first frame. Memory is taken by levels as they are reached."""
    worse = groups if has_bad else 0
    return State(
        acc=np.zeros((1 + levels, groups, dpl + 1, GROUP)),
        history=np.zeros((levels, groups, 2 * dpl, GROUP), np.float32),
        head=np.zeros((levels, groups, 2 * dpl, GROUP), np.float32),
        total=np.zeros((1, groups, 1, GROUP)),
        remark=np.zeros((1, groups, 1, GROUP), np.uint8),
        early=np.zeros((1 + levels, worse, dpl + 1, GROUP)),
        late=np.zeros((1 + levels, worse, dpl + 1, GROUP)),
        lost=np.zeros((levels, worse, 1, GROUP)),
    )


class Delays(NamedTuple):
    """The delays of a run of N frames, as the kernels take them; all (n_tau,) int64."""

    level: Int64
    lag: Int64
    pairs: Int64
    row: Int64
    """Place in `State.acc`."""
    slot: Int64


def delays_of(frames: int, bad: Int64, *, dpl: int, scheme: Scheme) -> Delays:
    """Delays with at least one pair of good samples in a run of `frames` frames, `bad` of which are bad."""
    base = dpl if scheme == "aps" else dpl - 1
    rows = []
    good: NDArray[np.bool_] = np.ones(frames, np.bool_)
    good[bad[bad < frames]] = False
    at = 0
    for level, lag in scheme_levels(frames, dpl=dpl, scheme=scheme):
        while at < level:
            even = len(good) // 2 * 2
            good = good[0:even:2] & good[1:even:2]
            at += 1
        pairs = int(np.count_nonzero(good[: len(good) - lag] & good[lag:]))
        is_low = level == 0 and lag <= base
        rows.append((level, lag, pairs, 0 if is_low else level + 1, lag if is_low else lag - base - 1))
    return Delays(*np.array(rows, np.int64).reshape(-1, 5).T.copy())
