"""From sums over pixels to correlation curves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

import numpy as np

from lightkeep.analysis.xpcs.qmap import QMap
from lightkeep.analysis.xpcs.result import UNITS, MultiTauResult, Normalisation
from lightkeep.analysis.xpcs.schemes import Scheme
from lightkeep.analysis.xpcs.sums import INTENSITY_BITS, Float64, Int64, MultiTauSums

ENOUGH = 5.0
"""Counts per pixel in a run below which few pixels decide the scatter: on simulated speckle g2_err is right at 6,
and 0.4 of what it should be at 2."""
SURELY_LIT = 20.0
"""Counts in a run that a pixel's neighbours have on average for its silence to be strange: exp(-20) is 2e-9."""


def result_of(
    sums: MultiTauSums,
    qmap: QMap,
    *,
    normalise: Normalisation = "partition",
    scheme: Scheme = "aps",
    dpl: int = 4,
    frame_time_s: float | None = None,
    flags: Sequence[str] = (),
) -> MultiTauResult:
    """Correlation curves with errors, static outputs and flags.

    With <> the mean over all pixels of a partition or bin, those that never counted included:

    - `partition`: <G2> / (<IP> <IF>) in each static partition, then the plain mean over the partitions of the bin
      that have counts (xpcs-hadoop, xpcs-eigen, boost-corr).
    - `pooled`: <G2> / (<IP> <IF>) over the whole dynamic bin (scikit-beam).
    - `ratio_of_sums`: sum over t of <I(t) I(t + tau)>, over the sum of <I(t)> <I(t + tau)> (ESRF), on the samples
      of each level; it follows the beam's drift, because every pair of frames is normalised by itself.

    The error is the sample standard deviation of G2 / (IP IF) over the bin's n pixels with counts, over sqrt(n). A
    delay of one pair has none: there G2 / (IP IF) is 1 in every pixel.

    Parameters
    ----------
    sums: of the whole detector.
    qmap: the map that they were made with.
    normalise: see above.
    scheme, dpl: which delays they have; written into the result.
    frame_time_s: from one detector frame to the next, s.
    flags: what else the reader of the curves has to know.

    Raises
    ------
    ValueError: unknown normalisation, a qmap that does not fit, pixels that no shard covered, or only bad frames.
    """
    _require_complete(sums, qmap)
    partition_sizes = qmap.static_pixels - sums.excluded
    sizes = _per_bin(partition_sizes, qmap)
    partial = _g2(sums.G2.value, sums.IP.value, sums.IF.value, partition_sizes)
    error = _standard_error(sums)
    light = _light(sums, qmap, partition_sizes, sizes)
    return MultiTauResult(
        **_delays(sums, frame_time_s),
        g2=_curves(sums, qmap, normalise, partial, sizes),
        g2_err=error,
        g2_partial=partial,
        **light,
        q=qmap.dynamic_q,
        static_q=qmap.static_q,
        frames=sums.good.size,
        begin=sums.begin,
        stride=sums.stride,
        average=sums.average,
        scheme=scheme,
        dpl=dpl,
        normalisation=normalise,
        flags=(*flags, *_flags(sums, partial, error, sizes), *_silent_pixels(sums, qmap, light["saxs_1d"])),
    )


def _delays(sums: MultiTauSums, frame_time_s: float | None) -> dict[str, Any]:
    """The delays and their unit, by their names in the result."""
    frames = sums.lag << sums.level
    time_s = None if frame_time_s is None else frame_time_s * sums.stride * sums.average
    return {
        "tau": frames.astype(np.float64) * (1.0 if time_s is None else time_s),
        "tau_frames": frames,
        "pairs": sums.pairs,
        "frame_time_s": time_s,
        "units": {**UNITS, "tau": "frames" if time_s is None else "s"},
    }


def _curves(sums: MultiTauSums, qmap: QMap, normalise: Normalisation, partial: Float64, sizes: Int64) -> Float64:
    """(n_tau, n_dynamic) g2, from that of the partitions where it is their mean."""
    if normalise not in get_args(Normalisation):
        raise ValueError(f"normalise must be one of {', '.join(get_args(Normalisation))}, not {normalise!r}")
    if normalise == "partition":
        return _mean_of_partitions(partial, qmap)
    return (_pooled if normalise == "pooled" else _ratio_of_sums)(sums, qmap, sizes)


def _light(sums: MultiTauSums, qmap: QMap, partition_sizes: Int64, sizes: Int64) -> dict[str, Any]:
    """The static outputs, by their names in the result."""
    image = sums.saxs_2d / (int(sums.good.sum()) * sums.average)
    image[sums.dead] = 0
    saxs_1d = _over(_partition_sums(image, qmap), partition_sizes)
    image[sums.dead] = np.nan
    light = _per_frame(sums, sums.light[:, None], sums.light_frames)[:, 0]
    counts = _per_frame(sums, sums.intensity, sums.intensity_frames)
    return {
        "saxs_2d": image,
        "saxs_1d": saxs_1d,
        "saxs_1d_segments": _over(_segments(sums), partition_sizes),
        "intensity": _over(light, sizes.sum()),
        "intensity_q": _over(counts, sizes),
    }


def _per_frame(sums: MultiTauSums, intervals: Int64, length: int) -> Float64:
    """(N, n) counts in a frame: in all of an interval of `length` frames the mean over it; NaN in bad frames."""
    good = np.add.reduceat(sums.good.astype(np.int64), np.arange(0, sums.good.size, length))[:, None]
    counts = intervals * 2.0**-INTENSITY_BITS / sums.average
    mean = np.divide(counts, good, out=np.zeros(counts.shape), where=good > 0)
    return np.where(sums.good[:, None], np.repeat(mean, length, axis=0)[: sums.good.size], np.nan)


def _require_complete(sums: MultiTauSums, qmap: QMap) -> None:
    qmap.require((sums.saxs_2d.shape[0], sums.saxs_2d.shape[1]))
    if sums.G2.shape[1] != qmap.n_static or sums.g.shape[1] != qmap.n_dynamic:
        raise ValueError("the sums were made with another qmap: they have other numbers of bins")
    covered = np.zeros(qmap.dynamic.size, bool)
    for begin, end in sums.pixels:
        covered[begin:end] = True
    missing = np.flatnonzero((qmap.dynamic.ravel() > 0) & ~covered)
    if missing.size:
        raise ValueError(
            f"{missing.size} used pixels from {missing[0]} on are in no shard: merge the others first"
        )
    if not sums.good.any():
        raise ValueError("every frame is bad: there is nothing to correlate")


def _per_bin(of_partitions: Int64, qmap: QMap) -> Int64:
    found = np.zeros(qmap.n_dynamic, np.int64)
    np.add.at(found, qmap.static_to_dynamic - 1, of_partitions)
    return found


def _partition_sums(image: Float64, qmap: QMap) -> Float64:
    return np.asarray(np.bincount(qmap.static.ravel(), image.ravel(), qmap.n_static + 1)[1:], np.float64)


def _over(values: Float64, pixels: Int64) -> Float64:
    """Mean over so many pixels; NaN without any."""
    mean: Float64 = np.divide(values, pixels, out=np.full(values.shape, np.nan), where=pixels > 0)
    return mean


def _g2(G2: Float64, IP: Float64, IF: Float64, pixels: Int64) -> Float64:
    """From sums over pixels; NaN without counts."""
    product = IP * IF
    found: Float64 = np.divide(G2 * pixels, product, out=np.full(G2.shape, np.nan), where=product > 0)
    return found


def _mean_of_partitions(partial: Float64, qmap: QMap) -> Float64:
    total = np.zeros((qmap.n_dynamic, partial.shape[0]))
    number = np.zeros((qmap.n_dynamic, partial.shape[0]))
    owner = qmap.static_to_dynamic - 1
    np.add.at(total, owner, np.nan_to_num(partial.T))
    np.add.at(number, owner, ~np.isnan(partial.T))
    mean: Float64 = np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0).T.copy()
    return mean


def _pooled(sums: MultiTauSums, qmap: QMap, sizes: Int64) -> Float64:
    G2, IP, IF = (part.grouped(qmap.static_to_dynamic, qmap.n_dynamic) for part in (sums.G2, sums.IP, sums.IF))
    return _g2(G2.value, IP.value, IF.value, sizes)


def _ratio_of_sums(sums: MultiTauSums, qmap: QMap, sizes: Int64) -> Float64:
    if sums.intensity_frames > 1:
        raise ValueError(
            f"ratio_of_sums needs the intensity of every frame, these sums have it over {sums.intensity_frames}: "
            "make them with normalise='ratio_of_sums'"
        )
    above = _over(sums.G2.grouped(qmap.static_to_dynamic, qmap.n_dynamic).value * sums.pairs[:, None], sizes)
    series = _over(np.where(sums.good[:, None], sums.intensity * 2.0**-INTENSITY_BITS, np.nan), sizes)
    below = np.empty_like(above)
    level = 0
    for i, (wanted, lag) in enumerate(zip(sums.level.tolist(), sums.lag.tolist(), strict=True)):
        while level < wanted:
            half = series.shape[0] // 2
            series = (series[0 : 2 * half : 2] + series[1 : 2 * half : 2]) / 2
            level += 1
        below[i] = np.nansum(series[: series.shape[0] - lag] * series[lag:], axis=0)
    found: Float64 = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
    return found


def _standard_error(sums: MultiTauSums) -> Float64:
    n, g, gg = sums.n, sums.g.value, sums.gg.value
    several = (n > 1) & (sums.pairs > 1)[:, None]
    scatter = np.divide(gg - g * g / np.maximum(n, 1), n - 1, out=np.full(g.shape, np.nan), where=several)
    error: Float64 = np.sqrt(np.maximum(scatter, 0) / np.maximum(n, 1))
    return error


def _segments(sums: MultiTauSums) -> Float64:
    """(n_segments, n_static) counts of the partition in a frame; NaN where all frames of a segment are bad."""
    n = sums.segments.shape[0]
    good = sums.good[: n * sums.segment_frames].reshape(n, -1).sum(axis=1)[:, None] * sums.average
    found: Float64 = np.divide(sums.segments.value, good, out=np.full(sums.segments.shape, np.nan), where=good > 0)
    return found


def _flags(sums: MultiTauSums, partial: Float64, error: Float64, sizes: Int64) -> list[str]:
    flags = []
    bad = int((~sums.good).sum())
    if bad:
        flags.append(f"{bad} of {sums.good.size} frames are bad and left out")
    lost = int((sums.pairs == 0).sum())
    if lost:
        flags.append(f"{lost} delays have no pair of good samples: they are NaN")
    if not (sums.intensity > 0).any():
        return [*flags, "no used pixel counted in any frame: every curve is NaN"]
    defined = sums.pairs > 0
    empty = np.flatnonzero(np.isnan(partial[defined]).any(axis=0)) + 1
    if empty.size:
        flags.append(f"static partitions without counts are left out of the mean: {_numbers(empty)}")
    unsure = np.flatnonzero(np.isnan(error[sums.pairs > 1]).any(axis=0)) + 1
    if unsure.size:
        flags.append(f"dynamic bins with fewer than 2 pixels that counted have no error: {_numbers(unsure)}")
    few = np.flatnonzero(_over(sums.intensity.sum(axis=0) * 2.0**-INTENSITY_BITS, sizes) < ENOUGH) + 1
    if few.size:
        flags.append(
            f"dynamic bins with fewer than {ENOUGH:g} counts per pixel in the run have errors that are too small: "
            f"{_numbers(few)}"
        )
    if sums.intensity_frames > 1:
        flags.append(f"the intensity of single bins is the mean over {sums.intensity_frames} frames")
    if sums.light_frames > 1:
        flags.append(f"the intensity is the mean over {sums.light_frames} frames")
    if sums.excluded.any():
        flags.append(f"{int(sums.excluded.sum())} used pixels reached the highest possible count and are left out")
    remarks = {
        "negative": "have negative counts",
        "invalid": "have counts that are not finite, taken as 0",
    }
    flags += [
        f"{sums.counters[name]} used pixels {text}" for name, text in remarks.items() if sums.counters.get(name)
    ]
    return flags


def _silent_pixels(sums: MultiTauSums, qmap: QMap, saxs_1d: Float64) -> list[str]:
    """All pixels of a bin belong to the mean, also those without counts: in a sparse run they are honest zeros.
    Where their neighbours have many counts they are more likely dead, and then g2 is too high by their share."""
    counts, static = sums.saxs_2d.ravel(), qmap.static.ravel()
    silent = (counts == 0) & (static > 0) & ~sums.dead.ravel()
    used = int(qmap.static_pixels.sum())
    if not 0 < silent.sum() < used:
        return []
    dead = silent.copy()
    dead[silent] = (saxs_1d * int(sums.good.sum()) * sums.average)[static[silent] - 1] >= SURELY_LIT
    flags = []
    honest = int(silent.sum()) - int(dead.sum())
    if honest:
        flags.append(f"{honest} of {used} used pixels never counted: the error is of the others")
    if dead.any():
        share = np.bincount(static[dead], minlength=qmap.n_static + 1)[1:] / qmap.static_pixels
        flags.append(
            f"{int(dead.sum())} used pixels never counted among neighbours with {SURELY_LIT:g} counts and more: "
            f"mask them if they are dead; they raise g2 by up to {100 * float(np.max(share / (1 - share))):.2g} % "
            f"in static partitions {_numbers(np.flatnonzero(share) + 1)}"
        )
    return flags


def _numbers(labels: Int64) -> str:
    few = ", ".join(str(label) for label in labels[:8])
    return few if labels.size <= 8 else f"{few} and {labels.size - 8} more"
