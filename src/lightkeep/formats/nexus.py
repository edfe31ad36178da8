"""NeXus HDF5: how results are written, and how generic NXdata is read.

A result is one NXentry: an NXprocess says how it was made and how to repeat it, one NXdata per output carries
signal, axes and units, and `default` attributes lead a viewer to the picture. Values are stored contiguous and
unfiltered: noisy float32 slices hardly shrink, and so every program can read, or memory-map, them at disk speed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np

from lightkeep.formats import hdf5
from lightkeep.formats.hdf5_format import Hdf5Format
from lightkeep.formats.metadata import Field, gather, held, units_of
from lightkeep.formats.text import one_line
from lightkeep.model.errors import BadFile
from lightkeep.model.formats import Array, Output, Result, Source
from lightkeep.model.quantity import Quantity

_SLAB_BYTES = 32 << 20
QUANTITIES = {
    "energy": Field(("instrument/beam/incident_energy", "instrument/monochromator/energy"), "keV"),
    "exposure_time": Field(("instrument/detector/count_time", "instrument/detector/exposure_time"), "s"),
    "pixel_size": Field(("instrument/detector/x_pixel_size",), "m"),
    "distance": Field(("instrument/detector/distance",), "m"),
    "temperature": Field(("sample/temperature",), "K"),
}
TEXTS = {
    "title": Field(("title",)),
    "sample": Field(("sample/name",)),
    "instrument": Field(("instrument/name",)),
    "user": Field(("user/name",)),
    "start_time": Field(("start_time",)),
    "end_time": Field(("end_time",)),
    "command": Field(("process/command",)),
    "software": Field(("process/software",)),
}


class Nexus(Hdf5Format):
    """Writer of results; reader of any file with an NXdata group."""

    name: ClassVar[str] = "nexus"
    can_write: ClassVar[bool] = True

    def holds(self, file: h5py.File) -> bool:
        """True when it has an NXentry with an NXdata that names its signal."""
        return next(_plots(file), None) is not None

    def source(self, path: Path, file: h5py.File) -> Source:
        """Return every NXdata's signal by its group's name, and `frames` for the first with three axes."""
        return _source(path, file)

    def write(self, folder: Path, result: Result) -> list[Path]:
        """Write `<technique>.nxs`, slab by slab.

        Raises
        ------
        StoreFull: no room. StorageError: it cannot be written.
        """
        path = folder / f"{result.technique}.nxs"
        with hdf5.writing(path) as file:
            file.attrs.update({"NX_class": "NXroot", "default": "entry", "creator": result.software})
            entry = nx_group(file, "entry", "NXentry")
            entry.attrs["default"] = result.default
            entry["title"] = result.title
            write_process(entry, result)
            for name, output in result.outputs.items():
                write_output(entry, name, output)
        return [path]


FORMAT = Nexus()


def nx_group(parent: h5py.Group, name: str, kind: str) -> h5py.Group:
    """Make a group of a NeXus class."""
    group = parent.create_group(name)
    group.attrs["NX_class"] = kind
    return group


def write_process(entry: h5py.Group, result: Result) -> None:
    """Write how a result was made and how to repeat it, as the NXprocess of an entry."""
    process = nx_group(entry, "process", "NXprocess")
    program, _, version = result.software.rpartition(" ")
    process["program"], process["version"] = program or result.software, version
    process["software"] = result.software
    process["technique"] = result.technique
    process["command"] = result.command
    parameters = nx_group(process, "parameters", "NXparameters")
    _write_values(parameters, result.params)
    if result.facts:
        _write_values(nx_group(process, "facts", "NXcollection"), result.facts)
    inputs = nx_group(process, "inputs", "NXcollection")
    inputs["id"], inputs["name"] = list(result.inputs), list(result.inputs.values())


def _write_values(group: h5py.Group, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        group[name] = value if isinstance(value, str | int | float | bool) else json.dumps(value, default=str)


def write_output(entry: h5py.Group, name: str, output: Output) -> None:
    """Write an output as an NXdata, slab by slab."""
    group = nx_group(entry, name, "NXdata")
    signal = group.create_dataset("data", output.data.shape, output.data.dtype)
    for begin, end in slabs(output.data):
        signal[begin:end] = output.data[begin:end]
    label(signal, output.label or name, output.unit)
    if output.axes[-2:] == ("y", "x") or len(output.axes) == 2:
        signal.attrs["interpretation"] = "image"
    group.attrs["signal"] = "data"
    group.attrs["axes"] = [axis if axis in output.scales else "." for axis in output.axes]
    for axis, values in output.scales.items():
        group[axis] = np.asarray(values)
        label(group[axis], axis, output.scale_units.get(axis, ""))
        if axis in output.axes:
            group.attrs[f"{axis}_indices"] = output.axes.index(axis)


def label(dataset: h5py.Dataset, name: str, unit: str) -> None:
    """Say what a dataset's values are, and in which unit."""
    dataset.attrs["long_name"] = f"{name} ({unit})" if unit else name
    if unit:
        dataset.attrs["units"] = unit


def slabs(data: Array) -> Iterator[tuple[int, int]]:
    """(begin, end) along the first axis, about 32 MiB each, so that a file larger than memory streams through."""
    row = max(1, int(np.prod(data.shape[1:])) * np.dtype(data.dtype).itemsize)
    step = max(1, _SLAB_BYTES // row)
    for begin in range(0, data.shape[0], step):
        yield begin, min(begin + step, data.shape[0])


def steps(signal: Any) -> tuple[Quantity, Quantity]:
    """Return the distance between neighbouring rows, and columns, of an NXdata's images.

    One pixel each where the axes do not both begin at 0 with even steps in the same unit.
    """
    pixel = (Quantity.of(1.0, "pixel"),) * 2
    if not isinstance(signal, h5py.Dataset) or "axes" not in signal.parent.attrs:
        return pixel
    names = [one_line(name) for name in np.atleast_1d(signal.parent.attrs["axes"])]
    if len(names) != len(signal.shape) or len(names) < 2:
        return pixel
    row, column = (_step(signal.parent.get(names[at] or "."), signal.shape[at]) for at in (-2, -1))
    return (row, column) if row and column and row.unit == column.unit else pixel


def _step(axis: Any, size: int) -> Quantity | None:
    if not isinstance(axis, h5py.Dataset) or axis.shape != (size,) or size < 2 or axis.dtype.kind not in "iuf":
        return None
    values = np.asarray(axis[()], np.float64)
    step = values[-1] / (size - 1)
    is_even = step > 0 and np.allclose(values, step * np.arange(size), rtol=0, atol=step / 100)
    return Quantity.of(float(step), units_of(axis)) if is_even and units_of(axis) else None


def _plots(file: h5py.File) -> Iterator[tuple[h5py.Group, str, str]]:
    """(entry, NXdata's name, signal's name) of all that can be plotted, those named as default first."""
    for entry in _children(file, file, "NXentry"):
        for plot in _children(entry, entry, "NXdata"):
            signal = one_line(plot.attrs.get("signal", b"data"))
            if hdf5.has(plot, signal):
                yield entry, plot.name.rsplit("/", 1)[-1], signal


def _children(group: h5py.Group, marked: h5py.Group, kind: str) -> list[h5py.Group]:
    """Groups of a NeXus class, without following links; the one that `marked` names as default first."""
    default = one_line(marked.attrs.get("default", ""))
    found = [node for node in hdf5.groups_in(group) if one_line(node.attrs.get("NX_class", "")) == kind]
    return sorted(found, key=lambda node: node.name.rsplit("/", 1)[-1] != default)


def _source(path: Path, file: h5py.File) -> Source:
    arrays: dict[str, Array] = {}
    plots = list(_plots(file))
    for entry, name, signal in plots:
        data = entry[name].get(signal)
        if isinstance(data, h5py.Dataset):
            arrays.setdefault(one_line(name), data)
            if len(data.shape) == 3:
                arrays.setdefault("frames", data)
    if not arrays:
        raise BadFile(
            f"{path}: no NXdata with a signal (it holds: {held(file)})",
            remedy="check that it is a NeXus file with something to plot",
        )
    return Source(path, FORMAT.name, "", arrays, gather(plots[0][0], QUANTITIES, TEXTS).metadata(), file)
