"""What the shards of a two-time correlation hand over: sums that add up to the same bytes in any order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.xpcs import twotime_kernels as kernels
from lightkeep.analysis.xpcs.twotime_result import (
    SEGMENTS,
    UNITS,
    Cut,
    Float32,
    Float64,
    Method,
    Smooth,
    TwoTimeResult,
    cut_diagonals,
)


@dataclass(frozen=True, eq=False)
class BinSums:
    """Sums over the pixels of a dynamic bin, or of some of its static partitions; x: counts I times a weight."""

    products: Float64
    """(N, N) sum of x(t1) x(t2), t1 <= t2; the other triangle is 0."""
    total: Float64
    """(N,) sum of x(t); 0 for empty frames."""
    counts: Float64
    """(N,) sum of I(t); 0 for bad frames."""
    pixels: int
    """Number of pixels."""
    partitions: tuple[int, ...]
    """The static partitions, ascending."""
    dark: int
    """Number of (partition, frame) without any count."""
    method: Method
    """How pairs were summed."""

    def __add__(self, other: BinSums) -> BinSums:
        """Raises ValueError where a partition is in both."""
        if shared := set(self.partitions) & set(other.partitions):
            raise ValueError(f"static partition {min(shared)} is in both shards: it would count twice")
        return BinSums(
            products=self.products + other.products,
            total=self.total + other.total,
            counts=self.counts + other.counts,
            pixels=self.pixels + other.pixels,
            partitions=tuple(sorted((*self.partitions, *other.partitions))),
            dark=self.dark + other.dark,
            method=self.method if self.method == other.method else "auto",
        )

    @property
    def is_lit(self) -> NDArray[np.bool_]:
        """(N,) False for empty frames."""
        lit: NDArray[np.bool_] = self.total > 0
        return lit

    def c2(self) -> Float32:
        """(N, N) <x(t1) x(t2)> / (<x(t1)><x(t2)>), symmetric; 0 in rows and columns of empty frames."""
        scale = np.divide(1, self.total, out=np.zeros_like(self.total), where=self.is_lit)
        c2 = np.empty(self.products.shape, np.float32)
        kernels.normalise(self.products, scale, float(self.pixels), c2)
        return c2


@dataclass(frozen=True, eq=False)
class TwoTimeSums:
    """Sums over a shard: some dynamic bins, or some static partitions, and all frames.

    `sums_a + sums_b` joins two shards, in any order. A bin's message is (N, N) float64: cut a run by bins first.
    """

    bins: Mapping[int, BinSums]
    """For each dynamic bin its sums."""
    bad: NDArray[np.int64]
    """Bad frames."""
    smooth: Smooth | None
    cut: Cut
    begin: int
    stride: int
    average: int
    frame_time_s: float | None
    """Of a detector frame, s."""
    saturated: int = 0
    """Used pixels that were left out because they reached the dtype's highest value."""
    negative: int = 0
    """Values below 0."""
    invalid: int = 0
    """Values that are not finite; they counted as 0."""

    def __add__(self, other: TwoTimeSums) -> TwoTimeSums:
        """Raises ValueError when the shards are of different runs, or overlap."""
        for name in ("bad", "smooth", "cut", "begin", "stride", "average", "frame_time_s"):
            if not np.array_equal(getattr(self, name), getattr(other, name)):
                raise ValueError(f"these are not shards of one run: they differ in {name}")
        if len({sums.total.size for sums in (*self.bins.values(), *other.bins.values())}) > 1:
            raise ValueError("these are not shards of one run: they differ in their number of frames")
        joined = dict(self.bins)
        for number, sums in other.bins.items():
            joined[number] = joined[number] + sums if number in joined else sums
        return replace(
            self,
            bins={number: joined[number] for number in sorted(joined)},
            saturated=self.saturated + other.saturated,
            negative=self.negative + other.negative,
            invalid=self.invalid + other.invalid,
        )

    @property
    def flags(self) -> tuple[str, ...]:
        """What the reader of the result has to know: one sentence each."""
        lit = {number: np.flatnonzero(~sums.is_lit) for number, sums in self.bins.items()}
        return tuple(_flags(self, lit, sum(sums.dark for sums in self.bins.values())))

    def result(self) -> TwoTimeResult:
        """The correlation: what is over the sums' pixels is normalised, and g2 cut from it."""
        return assemble(self, {number: bin_result(sums, self.cut) for number, sums in self.bins.items()})


@dataclass(frozen=True, eq=False)
class BinResult:
    """What the result keeps of a bin."""

    c2: Float32
    g2: Float64
    """(N,)"""
    segments: Float64
    """(5, N // 5)"""
    intensity: Float64
    """(N,)"""
    empty: NDArray[np.int64]
    dark: int
    method: Method


def bin_result(sums: BinSums, cut: Cut) -> BinResult:
    """Normalise the sums of a bin and cut g2."""
    c2 = sums.c2()
    weight = sums.total / max(1, sums.pixels) if cut == "ratio" else sums.is_lit.astype(np.float64)
    length = len(c2) // SEGMENTS
    pieces = [slice(begin * length, (begin + 1) * length) for begin in range(SEGMENTS)]
    return BinResult(
        c2=c2,
        g2=cut_diagonals(c2, weight),
        segments=np.stack(
            [cut_diagonals(np.ascontiguousarray(c2[piece, piece]), weight[piece]) for piece in pieces]
        ),
        intensity=sums.counts / max(1, sums.pixels),
        empty=np.flatnonzero(~sums.is_lit),
        dark=sums.dark,
        method=sums.method,
    )


def assemble(sums: TwoTimeSums, found: Mapping[int, BinResult]) -> TwoTimeResult:
    """Put the bins' results together; of `sums` only what is common to all bins is used."""
    bins = tuple(sorted(found))
    parts = [found[number] for number in bins]
    frames = parts[0].g2.size
    step = sums.stride * sums.average
    time_s = None if sums.frame_time_s is None else sums.frame_time_s * step
    units = dict(UNITS)
    if time_s is None:
        units |= {"time": "frames", "tau": "frames"}
    return TwoTimeResult(
        bins=bins,
        c2={number: found[number].c2 for number in bins},
        g2=np.stack([part.g2 for part in parts], axis=1),
        g2_segments=np.stack([part.segments for part in parts], axis=2),
        intensity=np.stack([part.intensity for part in parts], axis=1) / sums.average,
        empty={number: found[number].empty for number in bins},
        time=np.arange(frames, dtype=np.float64) * (time_s or 1.0),
        frame_time_s=time_s,
        cut=sums.cut,
        smooth=sums.smooth,
        method={number: found[number].method for number in bins},
        begin=sums.begin,
        stride=sums.stride,
        average=sums.average,
        units=units,
        flags=tuple(
            _flags(sums, {number: found[number].empty for number in bins}, sum(part.dark for part in parts))
        ),
    )


def _flags(sums: TwoTimeSums, empties: Mapping[int, NDArray[np.int64]], dark: int) -> list[str]:
    flags = []
    bad = set(sums.bad.tolist())
    if bad:
        flags.append(f"{len(bad)} bad frames have no two-time correlation: {_listed(bad)}.")
    for number, frames in empties.items():
        if empty := set(frames.tolist()) - bad:
            flags.append(
                f"Bin {number} has no count in {len(empty)} frames, no two-time correlation there: "
                f"{_listed(empty)}."
            )
    if sums.smooth == "static" and dark:
        flags.append(
            f"{dark} times a static partition has no count in a frame: smooth the average, or over larger "
            "partitions."
        )
    for number, what in (
        (sums.saturated, "pixels reached the highest value of their type and were left out."),
        (sums.negative, "counts are negative."),
        (sums.invalid, "counts are not finite and were taken as 0."),
    ):
        if number:
            flags.append(f"{number} {what}")
    return flags


def _listed(frames: set[int]) -> str:
    first = sorted(frames)[:10]
    return ", ".join(map(str, first)) + (" ..." if len(frames) > len(first) else "")
