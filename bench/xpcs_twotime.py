"""Two-time correlation of 1000 frames of 512 x 512 pixels in memory, dense and sparse, against boost-corr.

boost-corr and torch are looked for where they can be imported; without them our times stand alone. A second figure
of each kind leaves out getting the frames into either program's own order.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench._harness import Figure, interleaved
from lightkeep.analysis import xpcs

PART = "xpcs"
SIZE, FRAMES, BINS, PARTITIONS = 512, 1000, 16, 4
THREADS = min(2, os.cpu_count() or 1)
SPARSE = 0.01
"""Mean counts of the sparse run: 10 events per pixel."""
_BATCH = 64
_HAS_BOOST = all(importlib.util.find_spec(name) for name in ("torch", "boost_corr"))
PEER = "boost-corr 0.1.7, float32" if _HAS_BOOST else "boost-corr is not installed"

Frames = NDArray[np.uint8]


def run() -> list[Figure]:
    """Times of the dense and the sparse run, and of both ways to correlate at several occupancies."""
    qmap = rings()
    dense = speckle(1.0)
    figures = compared("dense, 1 count/pixel", dense, {"": dense}, qmap, "ratio >= 1")
    sparse = speckle(SPARSE)
    sources = {"": [events_of(sparse)], ", from dense frames": sparse}
    figures += compared("sparse, 10 events/pixel", sparse, sources, qmap, "ratio >= 10")
    return [*figures, *ways(qmap)]


def rings() -> xpcs.QMap:
    """16 rings of 4 static partitions each; three quarters of the pixels are used."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    radius = np.hypot(rows, columns)
    is_used = (radius > 5) & (radius < 250)
    static = np.where(is_used, (radius - 5) / 245 * BINS * PARTITIONS, -1).astype(int) + 1
    static[~is_used] = 0
    return xpcs.QMap.from_labels((static + PARTITIONS - 1) // PARTITIONS, static)


def speckle(mean: float) -> Frames:
    """(FRAMES, SIZE, SIZE) counts of uncorrelated speckle: times do not depend on more."""
    rng = np.random.default_rng(0)
    table = np.sort(rng.poisson(mean * rng.exponential(size=2**16))).astype(np.uint8)
    return np.stack([table[rng.integers(0, 2**16, (SIZE, SIZE), np.uint16)] for _ in range(FRAMES)])


def events_of(frames: Frames) -> xpcs.EventBlock:
    """What counted, as an event detector delivers it."""
    where = np.flatnonzero(frames)
    frame, pixel = np.divmod(where, SIZE * SIZE)
    value = frames.ravel()[where].astype(np.uint16)
    return xpcs.EventBlock(0, len(frames), (SIZE, SIZE), frame.astype(np.uint32), pixel.astype(np.uint32), value)


def compared(
    name: str, frames: Frames, sources: dict[str, xpcs.Blocks], qmap: xpcs.QMap, goal: str
) -> list[Figure]:
    """Ours from each source, the first of which has the goal, and the peer's; then the correlation alone."""
    spent: dict[str, list[float]] = {source: [] for source in sources}
    spent["peer"] = []

    def ours(source: str) -> Any:
        correlator = xpcs.TwoTime(qmap, threads=THREADS)
        for block in xpcs.iterate(sources[source]):
            correlator.push(block)
        return timed(spent[source], correlator.finish)

    functions: list[Callable[[], Any]] = [partial(ours, source) for source in sources]
    if _HAS_BOOST:
        functions.append(lambda: boost(frames, qmap, spent["peer"]))
    timings = interleaved(*functions, repetitions=5)
    note = f"peer: {PEER}; {FRAMES} frames, {np.count_nonzero(qmap.dynamic)} pixels, {BINS} bins"
    shared: dict[str, Any] = {"repetitions": 5, "threads": THREADS, "note": note}
    peer = timings[-1].median if _HAS_BOOST else None
    goals = [goal if _HAS_BOOST else "", *("" for _ in sources)]
    found = [
        Figure(f"two-time, {name}{source}", timing.median, peer, aim, **shared)
        for source, timing, aim in zip(sources, timings, goals, strict=False)
    ]
    alone = {who: float(np.median(seconds[1:])) for who, seconds in spent.items() if seconds}
    found.append(Figure(f"two-time, {name}: correlation alone", alone[""], alone.get("peer"), "", **shared))
    if _HAS_BOOST:
        apart = _difference(timings[0].result, timings[-1].result)
        found.append(Figure(f"two-time, {name}: difference", apart, None, "ours <= 1e-4", unit="1", **shared))
    return found


def timed(seconds: list[float], function: Callable[[], Any]) -> Any:
    """The function's result; its time is appended."""
    begin = perf_counter()
    result = function()
    seconds.append(perf_counter() - begin)
    return result


def boost(frames: Frames, qmap: xpcs.QMap, spent: list[float]) -> list[Any]:
    """The peer's c2 of every bin, from the same frames."""
    import torch
    from boost_corr.twotime import TwotimeCorrelator

    torch.set_num_threads(THREADS)
    static = qmap.static.ravel()
    used = np.flatnonzero(static)
    order = torch.from_numpy(used[np.argsort(static[used], kind="stable")])

    def slices(labels: NDArray[Any]) -> list[slice]:
        edges = np.searchsorted(labels.ravel()[order.numpy()], np.arange(1, labels.max() + 2))
        return [slice(int(begin), int(end)) for begin, end in pairwise(edges)]

    bins = np.arange(1, qmap.n_dynamic + 1)
    places = {"dq_idx": bins, "dq_slc": slices(qmap.dynamic), "sq_idx": bins, "sq_slc": slices(qmap.static)}
    correlator = TwotimeCorrelator(places, len(frames), det_size=qmap.shape)
    flat = torch.from_numpy(frames.reshape(len(frames), -1))
    for begin in range(0, len(frames), _BATCH):
        correlator.process(flat[begin : begin + _BATCH].index_select(1, order))

    def correlate() -> list[Any]:
        correlator.compute_smooth_data("sqmap")
        return list(correlator.get_twotime_generator())

    found: list[Any] = timed(spent, correlate)
    return found


def _difference(ours: xpcs.TwoTimeResult, peer: list[Any]) -> float:
    """Largest difference of c2 over all bins, beside the diagonals, relative to the values there.

    Where the peer has 0, no count met another, it is the difference itself; NaN if a value of either is NaN.
    """
    largest = 0.0
    for number, one in zip(ours.bins, peer, strict=False):
        beside = np.triu(np.ones_like(ours.c2[number], bool), 1)
        mine, theirs = ours.c2[number][beside], next(iter(one.values()))[beside]
        apart = np.abs(mine - theirs) / np.where(theirs == 0, 1, np.abs(theirs))
        largest = float(np.maximum(largest, apart.max()))
    return largest


def ways(qmap: xpcs.QMap) -> Iterator[Figure]:
    """Products of frames against pairs of events, one bin, at several occupancies: where `auto` should change."""
    for mean in (0.01, 0.03, 0.1):
        block = events_of(speckle(mean))

        def once(method: Any, block: xpcs.EventBlock = block) -> Any:
            return xpcs.twotime([block], qmap, bins=[10], method=method, threads=1)

        pairs, products = interleaved(lambda: once("events"), lambda: once("gemm"), repetitions=5)
        name = f"pairs of events, {mean * FRAMES:g} counts/pixel"
        note = "peer: our own matrix products; one bin"
        yield Figure(name, pairs.median, products.median, "", repetitions=5, threads=1, note=note)
