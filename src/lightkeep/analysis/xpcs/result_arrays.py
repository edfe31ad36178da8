"""Results of named arrays, as a file or a dataset gives them back: to average them, fit them, or draw them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.xpcs.result import UNITS, MultiTauResult
from lightkeep.analysis.xpcs.twotime_result import UNITS as TWOTIME_UNITS
from lightkeep.analysis.xpcs.twotime_result import TwoTimeResult

Float64 = NDArray[np.float64]


def multitau_result_of(arrays: Mapping[str, Any], words: Mapping[str, Any]) -> MultiTauResult:
    """The multi-tau result of named arrays. What a file of another program does not hold is NaN, or 0 pairs.

    Parameters
    ----------
    arrays: `g2`, `g2_err`, `tau_frames`, `saxs_2d`, `saxs_1d`, `saxs_1d_segments`, `intensity`; as far as there:
        `tau`, `pairs`, `g2_partial`, `intensity_q`, `q`, `static_q`; anything that slices to an array.
    words: `reduction` (begin, stride, average, and step_s: the time between frames of the result), `params`
        (scheme, delays_per_level, normalise) and `flags`; all optional.

    Raises
    ------
    KeyError: an array is absent.
    """
    g2 = _read(arrays, "g2")
    static = _read(arrays, "saxs_1d").ravel()
    intensity = _read(arrays, "intensity")
    reduction, params = words.get("reduction", {}), words.get("params", {})
    step = reduction.get("step_s")
    frames = np.asarray(arrays["tau_frames"][...], np.int64)
    n_tau, n_q = g2.shape
    return MultiTauResult(
        tau=_read(arrays, "tau", frames * (step or 1.0)),
        tau_frames=frames,
        pairs=_read(arrays, "pairs", np.zeros(n_tau)).astype(np.int64),
        g2=g2,
        g2_err=_read(arrays, "g2_err"),
        g2_partial=_read(arrays, "g2_partial", np.full((n_tau, static.size), np.nan)),
        saxs_2d=_read(arrays, "saxs_2d"),
        saxs_1d=static,
        saxs_1d_segments=_read(arrays, "saxs_1d_segments"),
        intensity=intensity,
        intensity_q=_read(arrays, "intensity_q", np.full((intensity.size, n_q), np.nan)),
        q=_read(arrays, "q", np.full(n_q, np.nan)),
        static_q=_read(arrays, "static_q", np.full(static.size, np.nan)),
        frames=intensity.size,
        frame_time_s=step,
        begin=reduction.get("begin") or 0,
        stride=reduction.get("stride") or 1,
        average=reduction.get("average") or 1,
        scheme=params.get("scheme") or "aps",
        dpl=params.get("delays_per_level") or 4,
        normalisation=params.get("normalise") or "partition",
        units={**UNITS, "tau": "frames" if step is None else "s"},
        flags=tuple(words.get("flags", ())),
    )


def twotime_result_of(arrays: Mapping[str, Any], words: Mapping[str, Any]) -> TwoTimeResult:
    """The two-time result of named arrays: `c2`, `bin`, `g2_twotime`, `g2_twotime_segments`, and `time` if there.

    Frames that are empty in a bin are those whose value on the diagonal is 0; how pairs were summed is not kept.

    Raises
    ------
    KeyError: an array is absent.
    """
    numbers = tuple(int(number) for number in arrays["bin"][...])
    maps = {number: np.asarray(arrays["c2"][index], np.float32) for index, number in enumerate(numbers)}
    size = arrays["c2"].shape[1]
    reduction, params = words.get("reduction", {}), words.get("params", {})
    step = reduction.get("twotime_step_s")
    time = _read(arrays, "time", np.arange(size) * (step or 1.0))
    means = np.full((size, len(numbers)), np.nan)
    if "intensity_q" in arrays and arrays["intensity_q"].shape[0] == size:
        means = _read(arrays, "intensity_q")[:, np.array(numbers) - 1]
    smooth = params.get("smooth", "static")
    return TwoTimeResult(
        bins=numbers,
        c2=maps,
        g2=_read(arrays, "g2_twotime"),
        g2_segments=_read(arrays, "g2_twotime_segments"),
        intensity=means,
        empty={number: np.flatnonzero(np.diagonal(c2) == 0) for number, c2 in maps.items()},
        time=time,
        frame_time_s=step,
        cut=params.get("cut") or "diagonal",
        smooth=None if smooth == "none" else smooth,
        method={},
        begin=reduction.get("begin") or 0,
        stride=reduction.get("stride") or 1,
        average=reduction.get("twotime_average") or reduction.get("average") or 1,
        units={**TWOTIME_UNITS, **({} if step is not None else {"time": "frames", "tau": "frames"})},
        flags=tuple(words.get("flags", ())),
    )


def _read(arrays: Mapping[str, Any], name: str, otherwise: NDArray[Any] | None = None) -> Float64:
    if otherwise is not None and name not in arrays:
        return otherwise.astype(np.float64)
    return np.asarray(arrays[name][...], np.float64)
