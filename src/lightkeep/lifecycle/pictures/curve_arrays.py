"""The arrays of a correlation result, made ready to be drawn. Runs in the killable process, as `picture` does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lightkeep import formats
from lightkeep.analysis.xpcs import Geometry, coordinates, correct_diagonal, cut_at_age
from lightkeep.formats import hdf5
from lightkeep.formats.xpcs_csv import csv_of
from lightkeep.model.datasets import Metadata
from lightkeep.model.errors import BadFile, NotFound
from lightkeep.model.formats import Source

Float64 = NDArray[np.float64]

Packed = tuple[str, tuple[int, ...], bytes]
"""An array: dtype, shape, bytes (little-endian)."""

POINTS = 2000
"""Most points of a series in time: more than a screen has columns."""
_MOST_VALUES = 20_000_000
"""Of one array of curves, or of one image: more is no result but a bomb."""
_BAND = 8_000_000
"""Values of a two-time correlation that are read at a time."""
_AVERAGED = ("tau", "tau_frames", "g2", "g2_err", "saxs_1d", "saxs_1d_segments", "intensity")
_AVERAGED_TOO = ("pairs", "q", "static_q", "g2_partial", "intensity_q")
_MAPS = ("dynamic_roi_map", "static_roi_map", "mask")
_NOISE = 1e-5
"""Values of q closer than this part of it are one ring."""


def describe(path: Path, format_name: str) -> dict[str, Any]:
    """Return the fields of `curves.Curves`: all that is not a picture.

    Raises
    ------
    NotFound: there is neither g2 nor a two-time correlation. BadFile, UnsafeFile: as the format says.
    """
    with _opened(path, format_name) as source:
        arrays = source.arrays
        if not {"g2", "c2"} & set(arrays):
            raise NotFound(
                "this dataset holds no correlation", remedy="run xpcs on a measurement, open its result"
            )
        rest = source.metadata.rest
        step_s = rest.get("reduction", {}).get("step_s")
        step = 1.0 if step_s is None else float(step_s)
        found: dict[str, Any] = {
            "frame_time_s": step_s,
            "time_unit": "frames" if step_s is None else "s",
            "bins": [],
            "q": [],
            "phi": [],
            "tau": [],
            "g2": [],
            "g2_err": [],
            "two_time_bins": [],
            "flags": [str(flag) for flag in rest.get("flags", [])],
            "units": {str(name): str(unit) for name, unit in rest.get("units", {}).items()},
        }
        found |= _g2(source) | _saxs(source) | _intensity(source, step)
        if "c2" in arrays:
            found["two_time_bins"] = [int(each) for each in _whole(source, "bin")]
        return found


def _g2(source: Source) -> dict[str, Any]:
    found: dict[str, Any] = {}
    q, phi = (_coordinate(source, name) for name in ("q", "phi"))
    found |= {"q": _listed(q), "phi": _listed(phi), "bins": list(range(1, q.size + 1))}
    if "g2" not in source.arrays:
        return found
    g2 = _whole(source, "g2")
    error = _whole(source, "g2_err") if "g2_err" in source.arrays else np.full_like(g2, np.nan)
    if q.size != g2.shape[1]:
        missing = [None] * g2.shape[1]
        found |= {"q": missing, "phi": missing, "bins": list(range(1, g2.shape[1] + 1))}
    return found | {"tau": _listed(_whole(source, "tau")), "g2": _listed(g2.T), "g2_err": _listed(error.T)}


def _saxs(source: Source) -> dict[str, Any]:
    """The static curve and its parts, one value per ring: the mean over its partitions."""
    if "saxs_1d" not in source.arrays:
        return {"saxs_q": [], "saxs_1d": [], "saxs_1d_segments": []}
    curve = _whole(source, "saxs_1d")
    parts = np.zeros((0, curve.size))
    if "saxs_1d_segments" in source.arrays:
        parts = _whole(source, "saxs_1d_segments")
    q = _coordinate(source, "static_q")
    if q.size != curve.size or not np.isfinite(q).any():
        numbers = [None] * curve.size
        return {"saxs_q": numbers, "saxs_1d": _listed(curve), "saxs_1d_segments": _listed(parts)}
    rings = _rings(q)
    values = np.vstack([q, curve, parts])
    means = np.stack([_mean(values[:, ring]) for ring in rings], axis=1)
    return {"saxs_q": _listed(means[0]), "saxs_1d": _listed(means[1]), "saxs_1d_segments": _listed(means[2:])}


def _rings(q: Float64) -> list[NDArray[np.intp]]:
    """Partitions of the same q, by ascending q."""
    order = np.argsort(q)[: int(np.isfinite(q).sum())]  # not a number sorts to the end
    ends = np.flatnonzero(np.diff(q[order]) > _NOISE * np.abs(q[order][1:])) + 1
    return [np.asarray(each) for each in np.split(order, ends)]


def _mean(values: Float64) -> Float64:
    """Mean over columns of what is finite; NaN where nothing is."""
    is_there = np.isfinite(values)
    number = is_there.sum(axis=1)
    total = np.where(is_there, values, 0.0).sum(axis=1)
    return np.asarray(np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0), np.float64)


def _intensity(source: Source, step: float) -> dict[str, Any]:
    """Intensity against time by means of `together` frames, and its spectrum by the largest of neighbours."""
    nothing = {"frames": 0, "together": 1, "time": [], "intensity": [], "frequency": [], "amplitude": []}
    if "intensity" not in source.arrays:
        return nothing
    values = _whole(source, "intensity")
    if not values.size:
        return nothing
    together = -(-values.size // POINTS)
    groups = -(-values.size // together)
    padded = np.concatenate([values, np.full(groups * together - values.size, np.nan)])
    frequency, amplitude = spectrum(values, step)
    several = max(1, -(-amplitude.size // POINTS))
    kept = amplitude.size // several * several
    highest = amplitude[:kept].reshape(-1, several)
    at = highest.argmax(axis=1) + np.arange(len(highest)) * several if kept else np.zeros(0, int)
    return {
        "frames": values.size,
        "together": together,
        "time": _listed((np.arange(groups) * together + (together - 1) / 2) * step),
        "intensity": _listed(_mean(padded.reshape(groups, together))),
        "frequency": _listed(frequency[at]),
        "amplitude": _listed(amplitude[at]),
    }


def spectrum(values: Float64, step: float) -> tuple[Float64, Float64]:
    """How much of an intensity swings at which frequency.

    Parameters
    ----------
    values: (N,) intensity; what is not finite counts as the mean.
    step: time from one value to the next.

    Returns
    -------
    : frequencies above 0 in 1/step units, and amplitudes in parts of the mean: a sine of 1 % gives 0.01 at its
      frequency when it fits the run a whole number of times.

    >>> t = np.arange(100)
    >>> frequency, amplitude = spectrum(5 * (1 + 0.01 * np.sin(2 * np.pi * 0.2 * t)), 1.0)
    >>> round(frequency[amplitude.argmax()], 6), round(amplitude.max(), 6)
    (np.float64(0.2), np.float64(0.01))
    """
    is_there = np.isfinite(values)
    mean = values[is_there].mean() if is_there.any() else 0.0
    if mean == 0 or values.size < 4:
        return np.zeros(0), np.zeros(0)
    waves = np.fft.rfft(np.where(is_there, values / mean - 1.0, 0.0))[1:]
    frequency = np.asarray(np.fft.rfftfreq(values.size, step)[1:], np.float64)
    return frequency, np.asarray(2.0 * np.abs(waves) / values.size, np.float64)


def image(path: Path, format_name: str, *, longest: int) -> dict[str, Any]:
    """Return the fields of `curves.Picture`: the mean image, and which bin, q and azimuth each pixel has.

    Parameters
    ----------
    longest: pixels of the longer side; a larger image is reduced by means over boxes, its bins by the first pixel.

    Raises
    ------
    NotFound: the file has no mean image.
    """
    with _opened(path, format_name) as source:
        if "saxs_2d" not in source.arrays:
            raise NotFound("this result holds no mean image")
        values = _whole(source, "saxs_2d")
        bins = np.zeros(values.shape, np.int32)
        if "dynamic_roi_map" in source.arrays:
            bins = _whole(source, "dynamic_roi_map", np.int32)
        works = np.ones(values.shape, bool)
        if "mask" in source.arrays:
            works = _whole(source, "mask", np.float32) > 0
        known = _geometry(source)
        factor = max(1, -(-max(values.shape) // longest))
        lit = values[works & np.isfinite(values) & (values > 0)]
        low, high = np.percentile(lit, (1.0, 99.7)) if lit.size else (0.1, 1.0)
        found = {
            "rows": values.shape[0],
            "columns": values.shape[1],
            "factor": factor,
            "low": float(low),
            "high": float(max(high, low * 1.0001)),
            "values": packed(_boxes(np.where(works, values, np.nan), factor), "f4"),
            "bins": packed(np.where(works, bins, 0)[::factor, ::factor], "u2"),
            "q": None,
            "phi": None,
            "beam": None,
        }
        if known is not None:
            q, phi = coordinates(values.shape, known)
            found["q"], found["phi"] = (packed(each[::factor, ::factor], "f4") for each in (q, phi))
            found["beam"] = (known.beam_center_x, known.beam_center_y)
        return found


def _geometry(source: Source) -> Geometry | None:
    """Return where the detector stood, where the file says so."""
    try:
        return Geometry(**source.metadata.rest["qmap"]["geometry"])
    except (KeyError, TypeError, ValueError):
        return None


def two_time(path: Path, format_name: str, *, number: int, longest: int) -> dict[str, Any]:
    """Return the fields of `curves.TwoTimeMap`: one bin's map without its diagonal of shot noise, and its g2.

    Raises
    ------
    NotFound: this bin has none.
    """
    with _opened(path, format_name) as source:
        index, c2, time = _map(source, number)
        size = len(c2)
        factor = max(1, -(-size // longest))
        empty = np.flatnonzero(~c2.any(axis=1))
        corrected = correct_diagonal(c2, empty=empty)
        corrected[empty] = np.nan
        corrected[:, empty] = np.nan
        small = _boxes(corrected, factor)
        low, high = np.nanpercentile(small, (1.0, 99.5)) if np.isfinite(small).any() else (1.0, 2.0)
        g2 = np.full(size, np.nan)
        if "g2_twotime" in source.arrays:
            g2 = np.asarray(source.arrays["g2_twotime"][:, index], float)
        parts = np.zeros((0, 0))
        if "g2_twotime_segments" in source.arrays:
            parts = np.asarray(source.arrays["g2_twotime_segments"][:, :, index], float)
        at = _spread(size)
        at_part = _spread(parts.shape[1]) if parts.size else np.zeros(0, int)
        return {
            "bin": number,
            "frames": size,
            "factor": factor,
            "step": float(time[1] - time[0]) if size > 1 else 1.0,
            "low": float(low),
            "high": float(high if high > low else low + 1.0),
            "values": packed(small, "f4"),
            "tau": _listed((time - time[0])[at]),
            "g2": _listed(g2[at]),
            "segment_tau": _listed((time - time[0])[at_part]),
            "segments": _listed(parts[:, at_part]),
        }


def cuts(
    path: Path, format_name: str, *, number: int, ages: list[float], width: float, kind: str
) -> list[dict[str, Any]]:
    """Return g2 at ages of the sample: for each `age`, `tau` and `g2`; all times in s, or in frames.

    Raises
    ------
    NotFound: this bin has no two-time correlation.
    """
    with _opened(path, format_name) as source:
        _, c2, time = _map(source, number)
        step = float(time[1] - time[0]) if time.size > 1 else 1.0
        empty = np.flatnonzero(~c2.any(axis=1))
        at = _spread(len(c2))
        found = []
        for age in ages:
            inside = max(1.0, width / step)
            g2 = cut_at_age(c2, age / step, width=inside, kind=cast(Any, kind), empty=empty)
            keep = at[np.isfinite(g2[at])]
            found.append({"age": age, "tau": _listed((time - time[0])[keep]), "g2": _listed(g2[keep])})
        return found


def _map(source: Source, number: int) -> tuple[int, NDArray[np.float32], Float64]:
    """Return where a bin stands, its whole map, and the times."""
    if "c2" not in source.arrays:
        raise NotFound(
            "this result holds no two-time correlation", remedy="reduce the run again with mode twotime"
        )
    bins = _whole(source, "bin").astype(int).tolist()
    if number not in bins:
        raise NotFound(f"bin {number} has no two-time correlation: {', '.join(map(str, bins))} have")
    array = source.arrays["c2"]
    size = array.shape[1]
    if size * size > 4 * _MOST_VALUES:
        raise BadFile(f"a two-time correlation of {size} frames is too large to draw")
    index = bins.index(number)
    c2 = np.empty((size, size), np.float32)
    rows = max(1, _BAND // size)
    for begin in range(0, size, rows):
        c2[begin : begin + rows] = np.asarray(array[index, begin : begin + rows], np.float32)
    return index, c2, _whole(source, "time")


def table(path: Path, format_name: str, *, kind: str) -> str:
    """Return one kind of curve as CSV, e.g. `g2`. NotFound where the result does not have it."""
    with _opened(path, format_name) as source:
        found = csv_of(source).get(f"{kind}.csv")
    if found is None:
        raise NotFound(f"this result holds no {kind}")
    return found


def parts(path: Path, format_name: str) -> tuple[dict[str, Packed], dict[str, Any]]:
    """Return what `multitau_result_of` makes a result from: arrays, and words.

    The mean image, which no average of curves shows, is a single pixel.

    Raises
    ------
    NotFound: there is no g2, or something that it comes with.
    """
    with _opened(path, format_name) as source:
        absent = [name for name in _AVERAGED if name not in source.arrays]
        if absent:
            raise NotFound(f"this result holds no {', '.join(absent)}", remedy="choose results of multi-tau runs")
        names = [*_AVERAGED, *(name for name in _AVERAGED_TOO if name in source.arrays)]
        arrays = {name: packed(_whole(source, name), "f8") for name in names}
        arrays["saxs_2d"] = packed(np.zeros((1, 1)), "f8")
        rest = source.metadata.rest
        return arrays, {name: rest[name] for name in ("reduction", "params") if name in rest}


def maps(path: Path, format_name: str) -> tuple[dict[str, Packed], dict[str, Any], Metadata]:
    """Return the arrays of a result's q map, the words that belong to it and to the run, and what was measured."""
    with _opened(path, format_name) as source:
        names = [name for name in source.arrays if name in _MAPS or name.startswith(("dynamic_", "static_"))]
        absent = [name for name in _MAPS if name not in names]
        if absent:
            raise NotFound(f"this result holds no {', '.join(absent)}", remedy="reduce the run again")
        arrays = {name: _whole(source, name, None) for name in names}
        return (
            {name: packed(each, each.dtype.str[1:]) for name, each in arrays.items()},
            {name: source.metadata.rest[name] for name in ("qmap", "params") if name in source.metadata.rest},
            Metadata(source.metadata.quantities, source.metadata.texts),
        )


def mean_image(path: Path, format_name: str) -> tuple[Packed, int]:
    """Return the mean image, and of how many frames it is the mean."""
    with _opened(path, format_name) as source:
        return packed(_whole(source, "saxs_2d"), "f4"), int(source.arrays["intensity"].shape[0])


def packed(values: NDArray[Any], dtype: str) -> Packed:
    """Return an array as (dtype, shape, bytes), little-endian."""
    return dtype, values.shape, np.ascontiguousarray(values, f"<{dtype}").tobytes()


@contextmanager
def _opened(path: Path, format_name: str) -> Iterator[Source]:
    with formats.get(format_name).open(path) as source, hdf5.reading(path):
        yield source


def _whole(source: Source, name: str, dtype: Any = np.float64) -> NDArray[Any]:
    array = source.arrays[name]
    if int(np.prod(array.shape, dtype=np.float64)) > _MOST_VALUES:
        raise BadFile(f"{name} of shape {tuple(array.shape)} is too large to draw")
    return np.asarray(array[...], dtype)


def _coordinate(source: Source, name: str) -> Float64:
    return _whole(source, name) if name in source.arrays else np.zeros(0)


def _boxes(values: NDArray[Any], factor: int) -> NDArray[np.float32]:
    """Means over boxes of factor x factor pixels, of what is finite; NaN where nothing is."""
    if factor == 1:
        return np.asarray(values, np.float32)
    rows, columns = (-(-length // factor) * factor for length in values.shape)
    padded = np.full((rows, columns), np.nan, np.float32)
    padded[: values.shape[0], : values.shape[1]] = values
    boxes = padded.reshape(rows // factor, factor, columns // factor, factor)
    is_there = np.isfinite(boxes)
    number = is_there.sum(axis=(1, 3))
    total = np.where(is_there, boxes, 0).sum(axis=(1, 3), dtype=np.float64)
    return np.asarray(np.divide(total, number, out=np.full(total.shape, np.nan), where=number > 0), np.float32)


def _spread(size: int) -> NDArray[np.intp]:
    """At most POINTS indices from 1 on: all of the first, then ever fewer, as a logarithmic axis shows them."""
    if size <= POINTS:
        return np.arange(min(1, size), size)
    return np.unique(np.geomspace(1, size - 1, POINTS).round().astype(np.intp))


def _listed(values: NDArray[Any]) -> list[Any]:
    """Nested lists of numbers with seven digits, which is what a float32 has."""
    if values.ndim > 1:
        return [_listed(each) for each in values]
    return [float(f"{value:.7g}") for value in values.tolist()]
