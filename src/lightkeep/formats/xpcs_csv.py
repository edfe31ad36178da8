"""The curves of an XPCS result as text that every spreadsheet and plotting program reads."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightkeep.model.formats import Source


def csv_of(source: Source) -> dict[str, str]:
    """Return file name -> text for each kind of curve that a result has.

    `g2.csv`: delay, then g2 and its error for each q; `g2_twotime.csv`: the same from the two-time correlation;
    `saxs_1d.csv`: q, azimuth and intensity of each static partition, then each part of the run; `intensity.csv`:
    time and intensity of each frame. The first line names every column with its unit; what is not known is empty.
    """
    arrays, units = source.arrays, source.metadata.rest.get("units", {})
    found: dict[str, str] = {}
    if "g2" in arrays:
        found["g2.csv"] = _text(_g2(arrays, units))
    if "g2_twotime" in arrays:
        found["g2_twotime.csv"] = _text(_two_time(arrays, units))
    if "saxs_1d" in arrays:
        found["saxs_1d.csv"] = _text(_saxs(arrays, units))
    if "intensity" in arrays:
        found["intensity.csv"] = _text(_intensity(source, units))
    return found


Column = tuple[str, Iterable[Any]]


def _g2(arrays: Mapping[str, Any], units: Mapping[str, str]) -> Iterable[Column]:
    g2, errors = _values(arrays, "g2"), _values(arrays, "g2_err")
    yield _headed("tau", units.get("tau", "s")), _values(arrays, "tau")
    for index, name in enumerate(_bins(arrays, range(1, g2.shape[1] + 1))):
        yield f"g2 {name}", g2[:, index]
        if errors.shape == g2.shape:
            yield f"error {name}", errors[:, index]


def _two_time(arrays: Mapping[str, Any], units: Mapping[str, str]) -> Iterable[Column]:
    g2 = _values(arrays, "g2_twotime")
    time = _values(arrays, "time") if "time" in arrays else np.arange(len(g2))
    numbers = [int(number) for number in arrays["bin"][...]] if "bin" in arrays else range(1, g2.shape[1] + 1)
    yield _headed("tau", units.get("time", "frames")), time
    for index, name in enumerate(_bins(arrays, numbers)):
        yield f"g2 {name}", g2[:, index]


def _saxs(arrays: Mapping[str, Any], units: Mapping[str, str]) -> Iterable[Column]:
    values = _values(arrays, "saxs_1d").ravel()
    unit = units.get("saxs_1d", "")
    for name, label in {"static_q": "q (1/angstrom)", "static_phi": "phi (deg)"}.items():
        if name in arrays and np.isfinite(_values(arrays, name)).any():
            yield label, _values(arrays, name)
    yield _headed("intensity", unit), values
    parts = _values(arrays, "saxs_1d_segments") if "saxs_1d_segments" in arrays else np.empty((0, values.size))
    for number, part in enumerate(parts, 1):
        yield _headed(f"intensity of part {number} of {len(parts)}", unit), part


def _intensity(source: Source, units: Mapping[str, str]) -> Iterable[Column]:
    values = _values(source.arrays, "intensity")
    step = source.metadata.rest.get("reduction", {}).get("step_s")
    yield "frame", range(values.size)
    if step is not None:
        yield "time (s)", np.arange(values.size) * step
    yield _headed("intensity", units.get("intensity", "")), values


def _bins(arrays: Mapping[str, Any], numbers: Sequence[int]) -> list[str]:
    """`q=0.0123 1/angstrom phi=-90 deg`, or `bin 3` where q is not known."""
    q, phi = (_values(arrays, name) if name in arrays else np.empty(0) for name in ("q", "phi"))
    has_wedges = np.unique(phi[np.isfinite(phi)]).size > 1
    names = []
    for number in numbers:
        if number > q.size or not np.isfinite(q[number - 1]):
            names.append(f"bin {number}")
            continue
        wedge = f" phi={phi[number - 1]:.6g} deg" if has_wedges else ""
        names.append(f"q={q[number - 1]:.6g} 1/angstrom{wedge}")
    return names


def _headed(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name


def _values(arrays: Mapping[str, Any], name: str) -> NDArray[np.float64]:
    return np.asarray(arrays[name][...], np.float64)


def _text(columns: Iterable[Column]) -> str:
    names, values = zip(*columns, strict=True)
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(
        ["" if np.isnan(value) else value if isinstance(value, int) else repr(float(value)) for value in row]
        for row in zip(*values, strict=True)
    )
    return file.getvalue()
