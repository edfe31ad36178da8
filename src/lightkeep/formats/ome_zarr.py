"""OME-Zarr 0.5: a stack of slices at several sizes, as napari, neuroglancer and Fiji open it.

    slices.ome.zarr/
      zarr.json       axes, pixel size, contrast; how it was made and the command that repeats it
      0/              the slices as they are;  1/: means of 2 x 2 x 2 of them;  2/: of those, and so on

The layout: https://ngff.openmicroscopy.org/0.5. A voxel of level n is 2^n wide; its middle lies (2^n - 1) / 2
voxels of level 0 further on, which the `translation` says. An axis of one index keeps it.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from lightkeep.formats.zarr_array import ArrayWriter, Float32, Shape
from lightkeep.model.errors import InvalidInput, StorageError, StoreFull
from lightkeep.model.formats import Array, Output, Result, Source

_SMALLEST: Final = 128
"""Voxels of the longest side from which on no smaller level is made."""
_UNITS: Final = {"nm": "nanometer", "um": "micrometer", "mm": "millimeter", "m": "meter"}
_CLIPPED: Final = 0.3
"""Per cent of the values that are black, and white, when a viewer opens it; as in thumbnails."""
_STRIP: Final = 64
"""Rows of a slab that are halved as one task."""


class OmeZarr:
    """Writer of stacks and images."""

    name: ClassVar[str] = "ome-zarr"
    can_read: ClassVar[bool] = False
    can_write: ClassVar[bool] = True

    def matches(self, path: Path) -> bool:  # noqa: ARG002 -- the protocol's
        """False: results are read back from NeXus."""
        return False

    def open(self, path: Path) -> Source:
        """Not offered."""
        raise InvalidInput(f"{path}: ome-zarr is only written", remedy="open the NeXus file beside it")

    def write(self, folder: Path, result: Result) -> list[Path]:
        """Write the default output as `<output>.ome.zarr`, slab by slab; an image as a stack of one, a curve not.

        Raises
        ------
        StoreFull: no room. StorageError: it cannot be written.
        """
        output = result.outputs[result.default]
        if len(output.data.shape) not in (2, 3) or 0 in output.data.shape:
            return []
        root = folder / f"{result.default}.ome.zarr"
        try:
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                return _write(root, result, output, pool)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StoreFull(
                    f"{root}: no room to write it", remedy="free space, or use another store"
                ) from error
            raise StorageError(
                f"{root}: cannot be written: {error.strerror}", remedy="check the folder"
            ) from error


FORMAT = OmeZarr()


def _write(root: Path, result: Result, output: Output, pool: Executor) -> list[Path]:
    data = output.data
    length, height, width = (1, *data.shape)[-3:]
    shapes = levels((length, height, width))
    level: _Level | None = None
    chain: list[_Level] = []
    for number in reversed(range(len(shapes))):
        level = _Level(ArrayWriter(root / str(number), shapes[number], pool=pool), level, pool)
        chain.insert(0, level)
    step = chain[0].array.depth
    for begin in range(0, length, step):
        chain[0].push(_stack(data, begin, min(begin + step, length)))
    group = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": {"ome": _ome(result, output, shapes, chain[-1].seen), "lightkeep": _provenance(result)},
    }
    main = root / "zarr.json"
    main.write_text(json.dumps(group, indent=1, default=str), "utf-8")
    return [main, *(file for each in chain for file in each.array.files)]


def _stack(data: Array, begin: int, end: int) -> Float32:
    values = data[begin:end] if len(data.shape) == 3 else np.asarray(data[...])[None]
    return np.asarray(values, np.float32)


def levels(shape: Shape) -> list[Shape]:
    """Return the shapes of a stack's levels, itself first.

    >>> levels((2, 600, 600))
    [(2, 600, 600), (1, 300, 300), (1, 150, 150), (1, 75, 75)]
    """
    found = [shape]
    while max(found[-1]) > _SMALLEST:
        z, y, x = found[-1]
        found.append((-(-z // 2), -(-y // 2), -(-x // 2)))
    return found


class _Level:
    """One size: gathers slices until they fill a shard's depth, and hands their means on to the next."""

    def __init__(self, array: ArrayWriter, smaller: _Level | None, pool: Executor) -> None:
        self.array, self._smaller, self._pool = array, smaller, pool
        self.seen: list[Float32] = []
        """All that came, at the smallest level: a few MiB."""
        self._waiting: list[Float32] = []
        self._written = 0

    def push(self, slices: Float32) -> None:
        """Take the next slices, at most as many as fill up a shard."""
        self._waiting.append(slices)
        held = sum(map(len, self._waiting))
        if held < self.array.depth and self._written + held < self.array.shape[0]:
            return
        slab = slices if len(self._waiting) == 1 else np.concatenate(self._waiting)
        self._waiting = []
        self.array.put(self._written, slab)
        self._written += len(slab)
        if self._smaller is None:
            self.seen.append(slab)
        else:
            self._smaller.push(halved(slab, self._pool))


def halved(slab: Float32, pool: Executor) -> Float32:
    """Return the means of 2 x 2 x 2 neighbours; at an odd end, of those that are there."""
    shape = tuple(-(-length // 2) for length in slab.shape)
    out = np.empty(shape, np.float32)

    def strip(begin: int) -> None:
        part = slab[:, begin : begin + _STRIP]
        for axis in range(3):
            part = _pairs(part, axis)
        out[:, begin // 2 : begin // 2 + part.shape[1]] = part

    list(pool.map(strip, range(0, slab.shape[1], _STRIP)))
    return out


def _pairs(values: Float32, axis: int) -> Float32:
    """Means of neighbours along an axis."""
    turned = np.moveaxis(values, axis, 0)
    means = turned[0::2].copy()
    others = turned[1::2]
    means[: len(others)] += others
    means[: len(others)] *= np.float32(0.5)
    return np.moveaxis(means, 0, axis)


def _ome(result: Result, output: Output, shapes: Sequence[Shape], seen: Sequence[Float32]) -> dict[str, Any]:
    names = ("", *output.axes)[-3:] if len(output.axes) == 2 else output.axes
    found = [_step(output, name) for name in names]
    found[0] = found[0] if found[0][1] else found[2]  # one slice: as thick as its pixels are wide
    pixels = [step for step, _ in found]
    axes = [
        {"name": name, "type": "space", **({"unit": unit} if unit else {})}
        for name, (_, unit) in zip("zyx", found, strict=True)
    ]
    datasets = []
    for number in range(len(shapes)):
        wide = [min(1 << number, 1 << (length - 1).bit_length()) for length in shapes[0]]
        scale = [pixel * times for pixel, times in zip(pixels, wide, strict=True)]
        middle = [pixel * (times - 1) / 2 for pixel, times in zip(pixels, wide, strict=True)]
        moves = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": middle}]
        datasets.append({"path": str(number), "coordinateTransformations": moves})
    multiscale = {
        "name": result.title or result.default,
        "axes": axes,
        "datasets": datasets,
        "type": "mean",
        "metadata": {"method": "mean of 2 x 2 x 2 neighbours", "version": result.software},
    }
    label = f"{output.label or result.default} ({output.unit})" if output.unit else output.label or result.default
    channel = {"label": label, "color": "FFFFFF", "active": True, "window": _contrast(seen)}
    return {"version": "0.5", "multiscales": [multiscale], "omero": {"channels": [channel]}}


def _step(output: Output, axis: str) -> tuple[float, str]:
    """Distance between neighbours along an axis and the name of its unit; 1 and nothing where it is not known."""
    values, unit = output.scales.get(axis), _UNITS.get(output.scale_units.get(axis, ""), "")
    if values is None or not unit or values.shape[0] < 2:
        return 1.0, ""
    return float(values[1] - values[0]), unit


def _contrast(seen: Sequence[Float32]) -> dict[str, float]:
    """What is black and what is white at first, by the smallest level; corners of exactly zero do not count."""
    values: NDArray[np.float32] = np.concatenate(seen)
    inside = values[np.isfinite(values) & (values != 0)]
    if not inside.size:
        return {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    low, high = np.percentile(inside, [_CLIPPED, 100 - _CLIPPED])
    return {
        "min": float(inside.min()),
        "max": float(inside.max()),
        "start": float(low),
        "end": float(high if high > low else low + 1),
    }


def _provenance(result: Result) -> dict[str, Any]:
    return {
        "technique": result.technique,
        "software": result.software,
        "command": result.command,
        "parameters": dict(result.params),
        "facts": dict(result.facts),
        "inputs": dict(result.inputs),
    }
