"""How an XPCS result becomes a result file of beamline 8-ID that is an NXxpcs as well.

The values lie below `/xpcs`, where the programs of the beamline look for them. `/entry` has what was measured how
(see `metadata_8id`), how the result was made (NXprocess), and soft links under the names that the NeXus definition
NXxpcs has for the same values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.xpcs import QMap, qmap_of
from lightkeep.formats import aps_8id_layout as layout
from lightkeep.formats import hdf5, metadata_8id
from lightkeep.formats.nexus import label, nx_group, write_output, write_process
from lightkeep.formats.qmap import write_group
from lightkeep.formats.text import one_line
from lightkeep.model.datasets import Metadata
from lightkeep.model.errors import InvalidInput
from lightkeep.model.formats import Output, Result
from lightkeep.model.quantity import Quantity

_CHUNK = 512
"""Rows and columns of a stored piece of a two-time correlation: pieces below the diagonal take no room."""
_MASKS = {"dynamic": ("dynamic_q_list", "dynamic_phi_list"), "static": ("static_q_list", "static_phi_list")}


def file_name(result: Result) -> str:
    """Return `<input>_results.hdf`: the programs of the beamline show files by this name."""
    name = next(iter(result.inputs.values()), result.technique)
    return f"{re.sub(r'[^A-Za-z0-9._+-]+', '_', one_line(name)).strip('_.') or result.technique}_results.hdf"


def write_result(path: Path, result: Result) -> None:
    """Write a result.

    Raises
    ------
    InvalidInput: it is not one of XPCS. StoreFull: no room. StorageError: it cannot be written.
    """
    qmap = _qmap(result)
    with hdf5.writing(path) as file:
        file.attrs.update({"NX_class": "NXroot", "default": "entry", "creator": result.software})
        entry = nx_group(file, "entry", "NXentry")
        metadata_8id.fill(entry, _metadata(result, qmap))
        if frame_time(result) is None:
            _forget_time(entry)
        entry["definition"] = "NXxpcs"
        entry["entry_identifier"] = next(iter(result.inputs.values()), result.title)
        write_process(entry, replace(result, facts={k: v for k, v in result.facts.items() if k != "qmap"}))
        file[layout.RAW] = ", ".join(f"{name} ({id_})" for id_, name in result.inputs.items())
        write_group(file.create_group(layout.QMAP), qmap)
        for name, output in result.outputs.items():
            if name in layout.PLACES:
                _put(file, name, output)
            elif name == "c2":
                _put_maps(file, output)
            elif name not in layout.ROI_MAPS:
                write_output(entry, name, output)
        _put_times(file, result)
        _link(entry, result.outputs, qmap)


def frame_time(result: Result) -> float | None:
    """Return the time from one frame of the detector to the next in s, or None where it is not known."""
    given = result.params.get("frame_time_s")
    if isinstance(given, int | float) and given > 0:
        return float(given)
    found = result.metadata.quantities.get("frame_time")
    if found is not None and found.unit_si == "s" and found.value_si > 0:
        return found.value_si
    between = _spacing(result.outputs.get("intensity"), "frame")
    return None if between is None else between / (_number(result, "stride") * _number(result, "average"))


def _spacing(output: Output | None, axis: str) -> float | None:
    """The time from one frame of the result to the next in s, as an output's axis has it; None: it does not."""
    if output is None or output.scale_units.get(axis) != "s" or axis not in output.scales:
        return None
    times = np.asarray(output.scales[axis], float)
    return float(times[-1] - times[0]) / (times.size - 1) if times.size > 1 else None


def _number(result: Result, name: str) -> int:
    value = result.params.get(name)
    return value if isinstance(value, int) and value > 0 else 1


def _qmap(result: Result) -> QMap:
    missing = [name for name in (*layout.ROI_MAPS, "saxs_1d") if name not in result.outputs]
    if missing:
        raise InvalidInput(
            f"aps-8id writes results of xpcs; this one of {result.technique} has no {missing[0]}",
            remedy="use nexus",
        )
    maps = {name: result.outputs[name].data for name in layout.ROI_MAPS}
    return qmap_of(maps, result.facts.get("qmap") or {})


def _metadata(result: Result, qmap: QMap) -> Metadata:
    """What was measured how; where the measurement did not say it, what the qmap was made for."""
    known: dict[str, Quantity] = {}
    if qmap.geometry is not None:
        known = {
            "energy": Quantity.of(qmap.geometry.energy_keV, "keV"),
            "distance": Quantity.of(qmap.geometry.detector_distance_m, "m"),
            "pixel_size": Quantity.of(qmap.geometry.pixel_size_m, "m"),
            "beam_center_x": Quantity.of(qmap.geometry.beam_center_x, "pixel"),
            "beam_center_y": Quantity.of(qmap.geometry.beam_center_y, "pixel"),
        }
    known.update(result.metadata.quantities)
    time = frame_time(result)
    if time is not None:
        known["frame_time"] = Quantity.of(time, "s")
    return Metadata(known, {**result.metadata.texts, "title": result.title})


def _forget_time(entry: h5py.Group) -> None:
    """Programs of the beamline multiply delays in frames by the frame time: not known, it is one frame."""
    node = entry[metadata_8id.QUANTITIES["frame_time"].paths[0]]
    node[()] = 1.0
    node.attrs["units"] = layout.UNKNOWN_TIME


def _put(file: h5py.File, name: str, output: Output) -> None:
    values = np.asarray(output.data[...])
    if name == "intensity":
        values = np.stack([np.arange(values.size, dtype=values.dtype), values])
    if name in layout.LED:
        values = values[None]
    if name in layout.SWAPPED:
        values = np.ascontiguousarray(np.swapaxes(values, 0, 1))
    label(file.create_dataset(layout.PLACES[name], data=values), output.label or name, output.unit)


def _put_maps(file: h5py.File, output: Output) -> None:
    """Write the upper half of each two-time correlation."""
    group = file.create_group(layout.MAPS)
    data, size = output.data, output.data.shape[-1]
    chunk = min(size, _CHUNK)
    for index, number in enumerate(_bins(output, data.shape[0])):
        stored = group.create_dataset(
            f"c2_{number:05d}", (size, size), data.dtype, chunks=(chunk, chunk), compression="lzf"
        )
        for first in range(0, size, chunk):
            rows = np.asarray(data[index, first : first + chunk])
            stored[first : first + chunk, first:] = np.triu(rows[:, first:])
        label(stored, output.label or "c2", output.unit)


def _bins(output: Output, count: int) -> list[int]:
    scale = output.scales.get("bin")
    return [int(number) for number in (range(1, count + 1) if scale is None else np.asarray(scale))]


def _put_times(file: h5py.File, result: Result) -> None:
    """Write delays in frames, bin numbers, and how frames were put together."""
    outputs, time = result.outputs, frame_time(result)
    if "g2" in outputs:
        tau, unit = _scale(outputs["g2"], "tau")
        between = _spacing(outputs.get("intensity"), "frame")
        if between is None and time is not None:
            between = time * _number(result, "stride") * _number(result, "average")
        delays = tau / between if unit == "s" and between else tau
        file[layout.DELAYS] = np.rint(delays).astype(np.int64)
        label(file[layout.DELAYS], "delay", "frames")
        _put_config(file, "multitau", result, between)
    two_time = outputs.get("c2", outputs.get("g2_twotime"))
    if two_time is not None:
        count = two_time.data.shape[two_time.axes.index("bin")]
        file[layout.BINS] = np.array(_bins(two_time, count))
        axis = "t1" if "t1" in two_time.axes else "delay"
        times, unit = _scale(two_time, axis)
        file[layout.TIME] = times - times[:1]
        label(file[layout.TIME], "time from the first frame", unit)
        _put_config(file, "twotime", result, _spacing(two_time, axis))


def _scale(output: Output, axis: str) -> tuple[NDArray[np.float64], str]:
    values = output.scales.get(axis)
    if values is None:
        return np.arange(output.data.shape[output.axes.index(axis)], dtype=float), "frames"
    return np.asarray(values, float), output.scale_units.get(axis, "frames")


def _put_config(file: h5py.File, part: str, result: Result, between: float | None) -> None:
    """Stride and average, so that frame time * stride * average is the time between frames of the result."""
    stride, average, time = _number(result, "stride"), _number(result, "average"), frame_time(result)
    if between is not None and time is not None:
        average = max(1, round(between / (time * stride)))
    config = {"stride_frame": stride, "avg_frame": average}
    for name, key in {"begin_frame": "begin", "end_frame": "end"}.items():
        if isinstance(result.params.get(key), int):
            config[name] = result.params[key]
    for name, value in config.items():
        file[f"{layout.CONFIGS[part]}/{name}"] = value


def _link(entry: h5py.Group, outputs: Mapping[str, Output], qmap: QMap) -> None:
    """Give the values the names that NXxpcs has for them."""
    data = nx_group(entry, "data", "NXdata")
    _links(data, {"frame_average": layout.PLACES["saxs_2d"]} if "saxs_2d" in outputs else {})
    if "g2" in outputs:
        g2 = layout.PLACES["g2"]
        _links(data, {"g2": g2, "delay_difference": layout.DELAYS}, storage_mode="one_array")
        if "g2_err" in outputs:
            errors = layout.PLACES["g2_err"]
            _links(data, {"g2_derr": errors, "g2_errors": errors}, storage_mode="one_array")
        tau, unit = _scale(outputs["g2"], "tau")
        data["tau"], data["q"] = tau, qmap.dynamic_q
        label(data["tau"], "delay", unit)
        label(data["q"], "q", "1/angstrom")
        data.attrs.update({"signal": "g2", "axes": ["tau", "q"]})
    if "g2_twotime" in outputs:
        _link_two_time(entry, outputs)
    masks = nx_group(entry["instrument"], "masks", "NXnote")
    for kind, (q, phi) in _MASKS.items():
        _links(masks, {f"{kind}_roi_map": f"{layout.QMAP}/{kind}_roi_map"}, units="au")
        masks[q], masks[phi] = getattr(qmap, f"{kind}_q"), getattr(qmap, f"{kind}_phi")
        label(masks[q], "q", "1/angstrom")
        label(masks[phi], "azimuth", "deg")
    entry.attrs["default"] = "data" if "g2" in outputs else "twotime"


def _link_two_time(entry: h5py.Group, outputs: Mapping[str, Output]) -> None:
    group = nx_group(entry, "twotime", "NXdata")
    curves = {"g2_from_two_time_corr_func": layout.PLACES["g2_twotime"]}
    _links(group, curves, storage_mode="one_array_q_last", baseline_reference=1, first_point_for_fit=0)
    group.attrs["signal"] = "g2_from_two_time_corr_func"
    if "g2_twotime_segments" in outputs:
        parts = {"g2_from_two_time_corr_func_partials": layout.PLACES["g2_twotime_segments"]}
        _links(group, parts, storage_mode="other", baseline_reference=1)
    if "c2" in outputs:
        _links(
            group,
            {"two_time_corr_func": layout.MAPS},
            storage_mode="data_exchange_keys",
            baseline_reference=1,
            time_origin_location="upper_left",
            populated_elements="upper_half",
        )


def _links(group: h5py.Group, names: Mapping[str, str], **attributes: Any) -> None:
    for name, target in names.items():
        group[name] = h5py.SoftLink(f"/{target}")
        group.file[target].attrs.update(attributes)
