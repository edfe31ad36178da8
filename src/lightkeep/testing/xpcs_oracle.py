"""Multi-tau correlation as its definition reads, in float64, without any haste: the judge of the others."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightkeep.analysis.xpcs import QMap, levels

Float64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Oracle:
    """What `multitau` has to give, under the names of its result."""

    tau_frames: NDArray[np.int64]
    pairs: NDArray[np.int64]
    g2: Float64
    g2_err: Float64
    g2_partial: Float64
    saxs_2d: Float64
    saxs_1d: Float64
    intensity: Float64


def brute_force(
    frames: ArrayLike,
    qmap: QMap,
    *,
    dpl: int = 4,
    scheme: str = "aps",
    normalise: str = "partition",
    begin: int = 0,
    end: int | None = None,
    stride: int = 1,
    average: int = 1,
    bad_frames: Sequence[int] = (),
) -> Oracle:
    """The correlation of (N, H, W) frames; see `lightkeep.analysis.xpcs.multitau` for the arguments."""
    counts = np.asarray(frames)
    dead = np.zeros(qmap.shape, bool)
    if counts.dtype.kind == "u":
        dead = (counts == np.iinfo(counts.dtype).max).any(axis=0) & (qmap.dynamic > 0)
        qmap = _without(qmap, dead)
    whole = counts.astype(np.float64)
    whole[list(bad_frames)] = np.nan
    taken = whole[begin:end:stride]
    n = len(taken) // average
    series = taken[: n * average].reshape(n, average, *qmap.shape).mean(axis=1)
    rows = []
    samples, level = series, 0
    is_bad = np.isnan(samples).any(axis=(1, 2))
    for wanted, lag in levels(n, dpl=dpl, scheme=scheme):  # type: ignore[arg-type]
        while level < wanted:
            half = len(samples) // 2
            samples, level = (samples[0 : 2 * half : 2] + samples[1 : 2 * half : 2]) / 2, level + 1
            is_bad = is_bad[0 : 2 * half : 2] | is_bad[1 : 2 * half : 2]
        before, after = samples[: len(samples) - lag], samples[lag:]
        good = ~(is_bad[: len(before)] | is_bad[lag:])
        if not good.all():
            before, after = before[good], after[good]
        rows.append((lag << wanted, int(good.sum()), *_curves(before, after, qmap, normalise)))
    tau, pairs, g2, error, partial = zip(*rows, strict=True) if rows else ((), (), (), (), ())
    image = np.where(dead, np.nan, np.nanmean(series, axis=0))
    return Oracle(
        tau_frames=np.array(tau, np.int64),
        pairs=np.array(pairs, np.int64),
        g2=np.array(g2).reshape(-1, qmap.n_dynamic),
        g2_err=np.array(error).reshape(-1, qmap.n_dynamic),
        g2_partial=np.array(partial).reshape(-1, qmap.n_static),
        saxs_2d=image,
        saxs_1d=np.array([image[qmap.static == label].mean() for label in range(1, qmap.n_static + 1)]),
        intensity=series[:, qmap.dynamic > 0].mean(axis=1),
    )


def _without(qmap: QMap, dead: NDArray[np.bool_]) -> QMap:
    """The map without some pixels; the numbers of its bins stay."""
    smaller = copy(qmap)
    for name in ("dynamic", "static"):
        object.__setattr__(smaller, name, np.where(dead, 0, getattr(qmap, name)))
    return smaller


def _curves(before: Float64, after: Float64, qmap: QMap, normalise: str) -> tuple[Float64, Float64, Float64]:
    """g2 and its error per dynamic bin, g2 per static partition; NaN where nothing counted."""
    if len(before) == 0:
        empty = np.full(qmap.n_dynamic, np.nan)
        return empty, empty, np.full(qmap.n_static, np.nan)
    G2 = np.einsum("tyx,tyx->yx", before, after) / len(before)
    IP, IF = before.mean(axis=0), after.mean(axis=0)
    g2, error = np.full((2, qmap.n_dynamic), np.nan)
    partial = np.array([_ratio(G2, IP, IF, qmap.static == label) for label in range(1, qmap.n_static + 1)])
    for label in range(1, qmap.n_dynamic + 1):
        inside = qmap.dynamic == label
        counted = inside & (IP * IF > 0)
        if counted.sum() > 1 and len(before) > 1:
            error[label - 1] = (G2[counted] / (IP * IF)[counted]).std(ddof=1) / np.sqrt(counted.sum())
        if normalise == "partition":
            parts = partial[qmap.static_to_dynamic == label]
            g2[label - 1] = np.mean(parts[~np.isnan(parts)]) if not np.isnan(parts).all() else np.nan
        elif normalise == "pooled":
            g2[label - 1] = _ratio(G2, IP, IF, inside)
        else:
            one, other = before[:, inside], after[:, inside]
            below = (one.mean(axis=1) * other.mean(axis=1)).sum()
            above = (one * other).mean(axis=1).sum()
            g2[label - 1] = above / below if below > 0 else np.nan
    return g2, error, partial


def _ratio(G2: Float64, IP: Float64, IF: Float64, inside: NDArray[np.bool_]) -> float:
    below = float(IP[inside].mean() * IF[inside].mean()) if inside.any() else 0.0
    return float(G2[inside].mean()) / below if below > 0 else np.nan
