"""Multi-tau two-time correlation: ageing over long runs, in time and memory that grow linearly with the frames.

Of C(t1, t2) only the diagonals t2 - t1 of a multi-tau scheme are computed. At level l the series is averaged over
2**l frames, and C of the averaged series is kept for every age: short delays at the run's own time resolution,
long delays at a coarser one. What is kept on level l is `twotime(average=2**l)` on its diagonals.

Source of the idea: Brugnara et al. (2026), J. Synchrotron Rad. 33, 698.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.xpcs import twotime_kernels as kernels
from lightkeep.analysis.xpcs.blocks import Block, Blocks, iterate
from lightkeep.analysis.xpcs.qmap import QMap
from lightkeep.analysis.xpcs.schemes import levels
from lightkeep.analysis.xpcs.twotime_result import Age, Smooth
from lightkeep.analysis.xpcs.twotime_series import PixelOrder, PixelSeries, Selection

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]
Bools = NDArray[np.bool_]
T = TypeVar("T", bound=np.generic)

_CHUNK: Final = 64
"""Frames that are worked on at once: a partition's rows stay in the cache."""


@dataclass(frozen=True, eq=False)
class AgeLevel:
    """The diagonals of one level."""

    width: int
    """Frames in a sample."""
    lag: Int64
    """(n_lags,) delays, in samples."""
    c2: Float32
    """(n_bins, n_lags, n_samples): C of sample T and sample T + lag at T; 0 where it is not defined."""
    is_defined: Bools
    """Same shape: False where a sample is empty or bad, or there is none."""


@dataclass(frozen=True, eq=False)
class MultiTauTwoTime:
    """Two-time correlation along the diagonals of a multi-tau scheme."""

    bins: tuple[int, ...]
    """Dynamic bins, ascending, from 1."""
    levels: tuple[AgeLevel, ...]
    """From the finest."""
    frames: int
    """Number of frames N; a frame is the mean of `average` detector frames."""
    frame_time_s: float | None
    """Time from one frame to the next, s, stride and average included; None: not known."""
    smooth: Smooth | None
    """What each pixel was divided by, see `twotime`."""
    flags: tuple[str, ...]
    """What the reader has to know: one sentence each."""

    @property
    def tau_frames(self) -> Int64:
        """(n_tau,) delays in frames, ascending."""
        return np.concatenate([np.empty(0, np.int64), *(level.lag * level.width for level in self.levels)])

    @property
    def tau(self) -> Float64:
        """(n_tau,) delays in s; in frames where the frame time is not known."""
        return self.tau_frames.astype(np.float64) * (self.frame_time_s or 1.0)

    @property
    def g2(self) -> Float64:
        """(n_tau, n_bins) mean over all ages; NaN where no pair has the delay."""
        curves = [_mean(level.c2, level.is_defined) for level in self.levels]
        return np.concatenate([np.empty((0, len(self.bins))), *curves])

    def at_age(self, age: float, *, width: float, kind: Age = "mean") -> Float64:
        """g2 at one age: the mean over pairs from age - width / 2 up to, but without, age + width / 2.

        Parameters
        ----------
        age, width: in s; in frames where the frame time is not known. A level's sample counts as a whole, at its
          middle: widths below its own reach no further down.
        kind: `mean`: the age of a pair is the mean of its two times; `waiting`: it is the first.

        Returns
        -------
        : (n_tau, n_bins) NaN where no pair has the age.
        """
        step = self.frame_time_s or 1.0
        found = [np.empty((0, len(self.bins)))]
        for level in self.levels:
            middle = (np.arange(level.c2.shape[2]) + 0.5) * level.width - 0.5
            later = level.lag[:, None] * level.width / 2 if kind == "mean" else 0
            apart = np.broadcast_to(middle + later - age / step, level.c2.shape[1:])
            reach = max(width / step, level.width) / 2
            found.append(_mean(level.c2, level.is_defined & (apart >= -reach) & (apart < reach)))
        return np.concatenate(found)


def _mean(c2: Float32, use: Bools) -> Float64:
    """(n_lags, n_bins) mean over samples."""
    number = use.sum(axis=2)
    total = np.where(use, c2, 0).sum(axis=2, dtype=np.float64)
    mean: Float64 = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0)
    return mean.T


def twotime_multitau(
    blocks: Blocks,
    qmap: QMap,
    *,
    bins: Sequence[int] | None = None,
    smooth: Smooth | None = "static",
    dpl: int = 8,
    begin: int = 0,
    end: int | None = None,
    stride: int = 1,
    average: int = 1,
    bad_frames: Sequence[int] = (),
    frame_time_s: float | None = None,
    threads: int | None = None,
) -> MultiTauTwoTime:
    """Two-time correlation of a long run along the diagonals of a multi-tau scheme.

    Parameters
    ----------
    dpl: delays per level: 1 .. 2 dpl frames, then dpl + 1 .. 2 dpl samples of 2, 4, 8 ... frames.
    smooth: `static`, `dynamic` or None as in `twotime`; an average over the run is not known while it streams by.
    The others are those of `twotime`. The run streams by once; 2 dpl samples per level and pixel are kept.

    Returns
    -------
    : `MultiTauTwoTime`.

    Raises
    ------
    ValueError: frames and qmap are of different detectors, no complete frame, an option that does not exist.
    """
    if smooth not in ("static", "dynamic", None):
        raise ValueError(f"smooth must be static, dynamic or None, not {smooth!r}")
    threads = max(1, threads or os.cpu_count() or 1)
    bad = tuple(sorted({int(frame) for frame in bad_frames}))
    selection = Selection(begin=begin, end=end, stride=stride, average=average, bad=bad)
    ladder = _Ladder(PixelOrder.of(qmap, bins=bins, partitions=None), selection, smooth, dpl, threads)
    for block in iterate(blocks, begin=begin, end=end):
        ladder.push(block)
    return ladder.finish(None if frame_time_s is None else frame_time_s * stride * average)


@dataclass(eq=False)
class _Rung:
    """One level: the last samples, and what came out so far."""

    lag: Int64
    rows: Float32
    """(n, P) last samples: twice dpl of them, or fewer at the begin."""
    sums: Float64
    """(n_partitions, n) their counts."""
    is_good: Bools
    """(n,) False where a bad frame is in them."""
    left: tuple[Float32, bool] | None = None
    """A sample that waits for the next one, to become half of the next level's."""
    c2: list[Float32] = field(default_factory=list)
    """(n_bins, n_lags, n) pieces, at the later sample."""
    is_defined: list[Bools] = field(default_factory=list)


class _Ladder:
    """The levels of a run that streams by."""

    def __init__(
        self, order: PixelOrder, selection: Selection, smooth: Smooth | None, dpl: int, threads: int
    ) -> None:
        levels(1, dpl=dpl)  # refuses a wrong dpl
        self._order, self._selection, self._smooth = order, selection, smooth
        self._dpl, self._threads = dpl, threads
        self._series = PixelSeries(order, selection, threads=threads)
        self._edges = np.unique(np.concatenate(order.partition_ranks))
        self._of_bin = np.append(0, np.cumsum([len(members) for members in order.partitions]))
        self._rungs: list[_Rung] = []

    def push(self, block: Block) -> None:
        self._series.push(block)
        for first, counts in self._series.drain(_CHUNK):
            is_good = np.ones(len(counts), np.bool_)
            bad = self._selection.bad_frames(first + len(counts)) - first
            is_good[bad[bad >= 0]] = False
            self._climb(0, counts, is_good)

    def _climb(self, level: int, rows: Float32, is_good: Bools) -> None:
        """Correlate new samples with those before, and hand pairs of them to the next level."""
        if level == len(self._rungs):
            self._rungs.append(self._rung(level))
        rung = self._rungs[level]
        self._correlate(rung, rows, is_good)
        if rung.left is not None:
            rows = np.concatenate([rung.left[0][None], rows])
            is_good = np.append(rung.left[1], is_good)
        even = len(rows) // 2 * 2
        rung.left = (rows[-1], bool(is_good[-1])) if even < len(rows) else None
        if even:
            self._climb(level + 1, rows[0:even:2] + rows[1:even:2], is_good[0:even:2] & is_good[1:even:2])

    def _rung(self, level: int) -> _Rung:
        lag = np.arange(self._dpl + 1 if level else 1, 2 * self._dpl + 1)
        partitions, pixels = self._edges.size - 1, self._edges[-1]
        return _Rung(lag, np.empty((0, pixels), np.float32), np.empty((partitions, 0)), np.empty(0, np.bool_))

    def _correlate(self, rung: _Rung, rows: Float32, is_good: Bools) -> None:
        sums = np.add.reduceat(rows, self._edges[:-1], axis=1, dtype=np.float64).T
        before = len(rung.rows)
        rung.rows = np.concatenate([rung.rows, rows])
        rung.sums = np.concatenate([rung.sums, sums], axis=1)
        rung.is_good = np.append(rung.is_good, is_good)
        weights, pixels = self._weights(rung)
        total = np.add.reduceat(rung.sums * weights, self._of_bin[:-1], axis=0)
        products = self._products(rung, weights, before)
        scale = np.divide(1, total, out=np.zeros_like(total), where=total > 0)
        later = np.arange(before, len(rung.rows))
        c2 = np.zeros((len(total), rung.lag.size, later.size), np.float32)
        is_defined = np.zeros(c2.shape, np.bool_)
        for place, lag in enumerate(rung.lag):
            use = later[later >= lag]
            both = scale[:, use] * scale[:, use - lag]
            c2[:, place, use - before] = products[:, place, use] * both * pixels[:, None]
            is_defined[:, place, use - before] = both > 0
        rung.c2.append(c2)
        rung.is_defined.append(is_defined)
        keep = slice(max(0, len(rung.rows) - int(rung.lag[-1])), None)
        rung.rows, rung.sums, rung.is_good = rung.rows[keep].copy(), rung.sums[:, keep], rung.is_good[keep]

    def _weights(self, rung: _Rung) -> tuple[Float64, Float64]:
        """(n_partitions, n) factors of the samples; (n_bins,) pixels."""
        pixels = np.add.reduceat(~self._series.is_saturated, self._edges[:-1], dtype=np.int64)
        if self._smooth == "static":
            is_lit = (rung.sums > 0) & rung.is_good
            weights = np.divide(pixels[:, None], rung.sums, out=np.zeros_like(rung.sums), where=is_lit)
        else:
            weights = np.broadcast_to(rung.is_good.astype(np.float64), rung.sums.shape)
        return weights, np.add.reduceat(pixels, self._of_bin[:-1]).astype(np.float64)

    def _products(self, rung: _Rung, weights: Float64, begin: int) -> Float64:
        """(n_bins, n_lags, n) weighted products of all new samples, at the later sample; a thread has its own."""
        count = len(rung.rows)
        products = np.zeros((len(self._of_bin) - 1, rung.lag.size, count))
        cuts = np.linspace(begin, count, min(self._threads, count - begin) + 1).astype(int)

        def work(first: int, last: int) -> None:
            for place, sums in enumerate(products):
                mine = slice(self._of_bin[place], self._of_bin[place + 1] + 1)
                weight = weights[mine.start : mine.stop - 1]
                kernels.add_band(rung.rows, weight, self._edges[mine], rung.lag, first, last, sums)

        with ThreadPoolExecutor(len(cuts) - 1) as pool:
            list(pool.map(work, cuts[:-1], cuts[1:]))
        return products

    def finish(self, frame_time_s: float | None) -> MultiTauTwoTime:
        frames = self._series.frames
        if frames < 1:
            raise ValueError("not one complete frame came: there is nothing to correlate")
        found = levels(frames, dpl=self._dpl)
        done = []
        for number in range(1 + max((level for level, _ in found), default=-1)):
            rung = self._rungs[number]
            lag = np.array([lag for level, lag in found if level == number])
            c2, is_defined = np.concatenate(rung.c2, axis=2), np.concatenate(rung.is_defined, axis=2)
            done.append(AgeLevel(2**number, lag, _earlier(c2, lag), _earlier(is_defined, lag)))
        flags = []
        if bad := self._selection.bad_frames(frames).size:
            flags.append(f"{bad} bad frames have no two-time correlation.")
        if dead := int(np.count_nonzero(self._series.is_saturated)):
            flags.append(f"{dead} pixels reached the highest value of their type and were left out from then on.")
        return MultiTauTwoTime(self._order.bins, tuple(done), frames, frame_time_s, self._smooth, tuple(flags))


def _earlier(values: NDArray[T], lag: Int64) -> NDArray[T]:
    """Values at the later sample, moved to the earlier one."""
    moved = np.zeros_like(values[:, : lag.size])
    for place, samples in enumerate(lag):
        moved[:, place, : moved.shape[2] - samples] = values[:, place, samples:]
    return moved
