"""Two-time correlation: how alike the speckles of any two frames of a run are.

    C(t1, t2) = <x(t1) x(t2)> / (<x(t1)> <x(t2)>)       means over the pixels of a dynamic bin

x is a pixel's counts I, divided by what its static partition scatters (`smooth`). Products are summed in one of
two ways:

- `gemm`: products of every two frames, partition by partition; exact for the whole numbers that a detector counts,
  so that results do not depend on the processor, the number of threads, or how the work was cut. Fractions are as
  exact as BLAS in float64.
- `events`: every pair of events of a pixel, where few pixels count: work falls with the square of the occupancy.

Partitions are weighted and added in float64, rounded to multiples of 2**-24: shards add to the same bytes.

Source: Sutton, Laaziri, Livet and Bley (2003), Opt. Express 11, 2268.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from lightkeep.analysis.xpcs import twotime_kernels as kernels
from lightkeep.analysis.xpcs.blocks import Block, Blocks, iterate
from lightkeep.analysis.xpcs.qmap import QMap
from lightkeep.analysis.xpcs.twotime_gram import Groups
from lightkeep.analysis.xpcs.twotime_result import Cut, Float64, Method, Smooth, TwoTimeResult
from lightkeep.analysis.xpcs.twotime_series import (
    Int64,
    PixelCounts,
    PixelEvents,
    PixelOrder,
    PixelSeries,
    Selection,
)
from lightkeep.analysis.xpcs.twotime_sums import BinSums, TwoTimeSums, assemble, bin_result

T = TypeVar("T")

_CACHE: Final = 2**19
"""Bytes of rows that pairs of events are added to at once."""
_PAIR: Final = 100.0
"""What a pair of events costs, in products of dense frames: 1.6 ns to 0.0155 ns, see bench/xpcs_twotime.py."""


def twotime(
    blocks: Blocks,
    qmap: QMap,
    *,
    bins: Sequence[int] | None = None,
    smooth: Smooth | None = "static",
    method: Method = "auto",
    cut: Cut = "diagonal",
    begin: int = 0,
    end: int | None = None,
    stride: int = 1,
    average: int = 1,
    bad_frames: Sequence[int] = (),
    frame_time_s: float | None = None,
    threads: int | None = None,
    max_frames: int = 20_000,
) -> TwoTimeResult:
    """Two-time correlation of a run.

    Parameters
    ----------
    blocks: (N, H, W) array, blocks of frames or events, or a frame stack; see `blocks.iterate`.
    qmap: which pixels belong together. bins: those of its dynamic bins to correlate, from 1; None: all.
    smooth: what a pixel's counts are divided by: `static`, the mean of its static partition in that frame (as
      boost-corr does by default); `average`, the mean of its static partition over the run (xpcs-eigen; for low
      counts); `dynamic`, the mean of its bin in that frame, or None, nothing: these two give the same C, which is
      normalised by the bin's means anyway.
    method: `gemm`, `events`, or `auto`: whichever takes less time for a bin's occupancy.
    cut: how g2 is cut, see `TwoTimeResult.cut`.
    begin, end, stride, average: every stride-th detector frame of begin .. end, `average` of them to a frame.
    bad_frames: detector frames to leave out; they stay on the time axis, without correlation.
    frame_time_s: from one detector frame to the next, s.
    threads: None: one per core. max_frames: refuse longer series: time and memory grow with their square.

    Returns
    -------
    : `TwoTimeResult`. Pixels that reach the dtype's highest value are left out.

    Raises
    ------
    ValueError: frames and qmap of different detectors, no complete frame, more than `max_frames`, unknown option.
    """
    correlator = TwoTime(
        qmap,
        bins=bins,
        smooth=smooth,
        method=method,
        cut=cut,
        begin=begin,
        end=end,
        stride=stride,
        average=average,
        bad_frames=bad_frames,
        frame_time_s=frame_time_s,
        threads=threads,
        max_frames=max_frames,
    )
    for block in iterate(blocks, begin=begin, end=end):
        correlator.push(block)
    return correlator.finish()


class TwoTime:
    """Two-time correlation of a run that streams by; `twotime` has the options.

    push(block) ... push(block) -> finish(), or sums() of a shard. Pushing only stores the counts of the used
    pixels; `sums` and `finish` may be called at any time, and again after more blocks.
    """

    def __init__(
        self,
        qmap: QMap,
        *,
        bins: Sequence[int] | None = None,
        partitions: Sequence[int] | None = None,
        smooth: Smooth | None = "static",
        method: Method = "auto",
        cut: Cut = "diagonal",
        begin: int = 0,
        end: int | None = None,
        stride: int = 1,
        average: int = 1,
        bad_frames: Sequence[int] = (),
        frame_time_s: float | None = None,
        threads: int | None = None,
        max_frames: int = 20_000,
    ) -> None:
        """Prepare; `partitions` are the static partitions of a shard that is finer than bins.

        Shards of partitions add to the same bytes as the whole when `method` is given: `auto` may choose another
        for a part of a bin.

        Raises
        ------
        ValueError: an option that does not exist, a bin that the qmap does not have.
        """
        for value, choices, what in (
            (smooth, (*get_args(Smooth), None), "smooth"),
            (method, get_args(Method), "method"),
            (cut, get_args(Cut), "cut"),
        ):
            if value not in choices:
                raise ValueError(f"{what} must be one of {', '.join(map(str, choices))}, not {value!r}")
        self._smooth: Smooth | None = smooth
        self._method: Method = method
        self._cut: Cut = cut
        self._frame_time_s = frame_time_s
        self._max_frames = max_frames
        self._threads = max(1, threads or os.cpu_count() or 1)
        bad = tuple(sorted({int(frame) for frame in bad_frames}))
        self._sums: TwoTimeSums | None = None
        self._series = PixelSeries(
            PixelOrder.of(qmap, bins=bins, partitions=partitions),
            Selection(begin=begin, end=end, stride=stride, average=average, bad=bad),
            threads=self._threads,
        )

    def push(self, block: Block) -> None:
        """Take the next block of the run.

        Raises
        ------
        ValueError: it is of another detector, does not follow the block before, or makes the series too long.
        """
        self._sums = None
        self._series.push(block)
        if self._series.frames > self._max_frames:
            raise ValueError(
                f"more than {self._max_frames} frames: a two-time correlation takes the square of that per bin; "
                "average more frames, raise max_frames, or use the multi-tau two-time correlation"
            )

    def sums(self) -> TwoTimeSums:
        """What a shard hands over; made once for the frames that came."""
        if self._sums is None:
            self._sums = self._common(dict(self._each(lambda sums: sums)))
        return self._sums

    def finish(self) -> TwoTimeResult:
        """The correlation of all frames that came."""
        return assemble(self._common({}), dict(self._each(lambda sums: bin_result(sums, self._cut))))

    def _common(self, bins: dict[int, BinSums]) -> TwoTimeSums:
        series = self._series
        selection = series.selection
        return TwoTimeSums(
            bins=bins,
            bad=selection.bad_frames(series.frames),
            smooth=self._smooth,
            cut=self._cut,
            begin=selection.begin,
            stride=selection.stride,
            average=selection.average,
            frame_time_s=self._frame_time_s,
            saturated=int(np.count_nonzero(series.is_saturated)),
            negative=series.negative,
            invalid=series.invalid,
        )

    def _each(self, then: Callable[[BinSums], T]) -> Iterator[tuple[int, T]]:
        """`then` of every bin's sums: bins side by side, largest first; threads that are left share a bin."""
        series, order = self._series, self._series.order
        if series.frames < 1:
            raise ValueError("not one complete frame came: there is nothing to correlate")
        counted, pixels = series.counted(), np.diff(order.bin_ranks)
        side_by_side = min(self._threads, len(order.bins))
        inner = self._threads // side_by_side

        def work(place: int) -> tuple[int, T]:
            method = self._method
            if method == "auto":
                pairs = counted[place] * (counted[place] / pixels[place] + 1) / 2
                products = pixels[place] * series.frames * (series.frames + 1) / 2
                method = "events" if _PAIR * pairs < products else "gemm"
            return order.bins[place], then(self._bin(place, method, inner))

        with threadpool_limits(1, "blas"), ThreadPoolExecutor(side_by_side) as pool:
            yield from pool.map(work, np.argsort(-pixels, kind="stable").tolist())

    def _bin(self, place: int, method: Method, threads: int) -> BinSums:
        series, order = self._series, self._series.order
        edges = order.partition_ranks[place] - order.bin_ranks[place]
        counts = series.events(place) if method == "events" else series.dense(place)
        begin, end = order.bin_ranks[place : place + 2]
        is_used = ~series.is_saturated[begin:end]
        pixels = np.add.reduceat(is_used, edges[:-1], dtype=np.int64)
        sums = _totals(counts, edges, series.frames)
        is_good = np.ones(series.frames, np.bool_)
        is_good[series.selection.bad_frames(series.frames)] = False
        sums *= is_good
        weights = _weights(sums, pixels, is_good, self._smooth)
        products = np.zeros((series.frames, series.frames))
        if isinstance(counts, PixelEvents):
            _add_pairs(counts, edges, weights, products, threads)
        else:
            groups = counts.columns, weights
            if self._smooth in (None, "dynamic"):  # one weight for all partitions: one group
                groups = np.array([[0, counts.columns[-1, 1]]]), weights[:1]
            Groups(counts.counts, *groups, series.is_integer).add_products(products, threads=threads)
        return BinSums(
            products=products,
            total=_rounded(sums * weights).sum(axis=0),
            counts=sums.sum(axis=0),
            pixels=int(pixels.sum()),
            partitions=order.partitions[place],
            dark=int(np.count_nonzero(sums[:, is_good] <= 0)),
            method=method,
        )


def _weights(sums: Float64, pixels: Int64, is_good: NDArray[np.bool_], smooth: Smooth | None) -> Float64:
    """(n_partitions, N) factor for the counts of each partition; 0 in bad frames, and where nothing counted."""
    if smooth in (None, "dynamic"):
        return np.broadcast_to(is_good.astype(np.float64), sums.shape).copy()
    mean = sums / np.maximum(pixels, 1)[:, None]
    if smooth == "average":
        mean = np.where(is_good, mean.sum(axis=1, keepdims=True) / max(1, np.count_nonzero(is_good)), 0)
    return np.divide(1, mean, out=np.zeros_like(mean), where=mean > 0)


def _rounded(values: Float64) -> Float64:
    """To multiples of 2**-24: they add exactly."""
    rounded: Float64 = np.rint(values * 2.0**24) * 2.0**-24
    return rounded


def _totals(counts: PixelCounts | PixelEvents, edges: Int64, frames: int) -> Float64:
    """(n_partitions, N) sums of the counts over each partition's pixels."""
    sums = np.zeros((edges.size - 1, frames))
    if isinstance(counts, PixelEvents):
        kernels.totals(counts.first, counts.end, counts.frame, counts.value, edges, sums)
    else:
        wide = np.float64 if counts.counts.dtype.kind == "f" else np.int64
        kernels.sum_columns(counts.counts, counts.columns, wide(0), sums)
    return sums


def _add_pairs(events: PixelEvents, edges: Int64, weights: Float64, products: Float64, threads: int) -> None:
    """Add all pairs of events to products (N, N); each thread has rows of its own."""
    frames = len(products)
    weighted = np.empty(events.frame.size)
    kernels.weigh(events.first, events.end, events.frame, events.value, edges, weights, weighted)
    height = max(8, _CACHE // (8 * frames))
    # Row t has N - t columns: equal areas of the triangle.
    cuts = (
        np.rint(frames * (1 - np.sqrt(1 - np.linspace(0, 1, 2 * threads)))).astype(int)
        if threads > 1
        else [0, frames]
    )

    def work(begin: int, end: int) -> None:
        kernels.add_pairs(events.first, events.end, events.frame, weighted, begin, end, height, products)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, cuts[:-1], cuts[1:]))
