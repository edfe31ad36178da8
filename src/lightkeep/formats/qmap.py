"""qmap: which pixels belong to which bin, as pySimpleMask writes it for beamline 8-ID (`/qmap`).

Labels count from 1, and 0 is a pixel that is not used. `mask` marks the pixels that are used, `blemish` those that
work. The same group is in every result file of the beamline, as `/xpcs/qmap`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.xpcs import QMap, compacted, qmap_of
from lightkeep.analysis.xpcs.qmap_arrays import grids_of, words_of
from lightkeep.formats import hdf5
from lightkeep.formats.hdf5_format import Hdf5Format
from lightkeep.formats.metadata import Field, gather, held, value_of
from lightkeep.formats.text import one_line
from lightkeep.model.errors import BadFile
from lightkeep.model.formats import Array, Source

VERSION = "0.4.5"
"""Version of pySimpleMask whose layout is written."""
QUANTITIES = {
    "energy": Field(("energy",), "keV"),
    "distance": Field(("detector_distance",), "m"),
    "pixel_size": Field(("pixel_size",), "m"),
    "beam_center_x": Field(("beam_center_x",), "pixel"),
    "beam_center_y": Field(("beam_center_y",), "pixel"),
}
_GEOMETRY = {
    "beam_center_x": "beam_center_x",
    "beam_center_y": "beam_center_y",
    "pixel_size_m": "pixel_size",
    "detector_distance_m": "detector_distance",
    "energy_keV": "energy",
    "arm_horizontal_deg": "arm_horizontal",
    "arm_vertical_deg": "arm_vertical",
}
_POSITIVE = ("pixel_size_m", "detector_distance_m", "energy_keV")
_KINDS = ("dynamic", "static")
_UNITS = {"1/angstrom": "Å⁻¹", "degree": "deg"}
_SPELLINGS = {"Å⁻¹": "1/angstrom", "A-1": "1/angstrom", "deg": "degree", "°": "degree", "degrees": "degree"}
_SAVE = "save the partition in pySimpleMask again"
_COMPRESSED = 1024
"""Values of an array from which it is compressed."""


class QMapFile(Hdf5Format):
    """Reader of qmap files; `write_qmap` writes them."""

    name: ClassVar[str] = "qmap"

    def holds(self, file: h5py.File) -> bool:
        """True when it has both maps."""
        return hdf5.has(file, "qmap/dynamic_roi_map") and hdf5.has(file, "qmap/static_roi_map")

    def source(self, path: Path, file: h5py.File) -> Source:
        """Return the qmap, checked; BadFile also for maps that do not fit each other, and for a static partition
        that spans two dynamic bins. Labels with gaps and labels on masked pixels are repaired, with a note.
        """
        group = file.get("qmap")
        if not isinstance(group, h5py.Group):
            raise BadFile(f"{path}: no group /qmap (it holds: {held(file)})", remedy=_SAVE)
        qmap, notes = qmap_in(path, group)
        found = gather(group, QUANTITIES, {})
        found.notes += notes
        found.rest["qmap"] = words_of(qmap)
        arrays: dict[str, Array] = {
            "dynamic_roi_map": qmap.dynamic,
            "static_roi_map": qmap.static,
            "mask": qmap.mask,
            **grids_of(qmap),
        }
        return Source(path, self.name, "xpcs", arrays, found.metadata(), file)


FORMAT = QMapFile()


def read_qmap(source: Path | Source) -> QMap:
    """Return the qmap of a file, or of a source of the formats `qmap` and `aps-8id`.

    Raises
    ------
    SourceError, UnsafeFile, BadFile: as `Hdf5Format.open`.
    """
    if not isinstance(source, Source):
        with FORMAT.open(source) as opened:
            return read_qmap(opened)
    with hdf5.reading(source.path):
        try:
            return qmap_of(source.arrays, source.metadata.rest["qmap"])
        except ValueError as error:
            raise _bad(source.path, error) from error


def write_qmap(path: Path, qmap: QMap) -> Path:
    """Write a file that pySimpleMask and the programs of 8-ID open; return its path.

    Raises
    ------
    StoreFull: no room. StorageError: it cannot be written.
    """
    with hdf5.writing(path) as file:
        write_group(file.create_group("qmap"), qmap)
    return path


def write_group(group: h5py.Group, qmap: QMap) -> None:
    """Write a qmap into a group, each array in the smallest type that holds its values."""
    arrays = {
        "mask": qmap.dynamic > 0,
        "blemish": qmap.mask,
        "dynamic_roi_map": _smallest(qmap.dynamic),
        "static_roi_map": _smallest(qmap.static),
        **{name: _smallest(values) for name, values in grids_of(qmap).items()},
    }
    for kind in _KINDS:
        sizes = [arrays[f"{kind}_v_list_dim{dim}"].size for dim in (0, 1)]
        arrays[f"{kind}_num_pts"] = _smallest(np.array(sizes))
    units = [_UNITS.get(unit, unit) for unit in qmap.map_units]
    for name, values in arrays.items():
        stored = group.create_dataset(name, data=values, compression="lzf" if values.size > _COMPRESSED else None)
        if "_v_list_dim" in name:
            dim = int(name[-1])
            stored.attrs.update({"unit": units[dim], "name": qmap.names[dim], "size": values.size})
    geometry = words_of(qmap)["geometry"] or {}
    for name, place in _GEOMETRY.items():
        if not name.startswith("arm_") or geometry.get(name):
            group[place] = geometry.get(name, np.nan)
    group["map_names"], group["map_units"], group["source_file"] = list(qmap.names), units, ""
    group.attrs["version"] = VERSION
    group.attrs["hash"] = _hash(group)


def qmap_in(path: Path, group: h5py.Group) -> tuple[QMap, list[str]]:
    """Return the qmap in a group, and one sentence for each thing that was repaired.

    Raises
    ------
    BadFile: as `Hdf5Format.open`.
    """
    maps = {name: _map(path, group, f"{name}_roi_map") for name in _KINDS}
    used = _map(path, group, "mask") if "mask" in group else maps["dynamic"]
    works = _map(path, group, "blemish") if "blemish" in group else used
    shapes = {name: values.shape for name, values in {**maps, "mask": used, "blemish": works}.items()}
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise BadFile(
            f"{path}: its maps differ in shape: {sizes}", remedy="save the partition in pySimpleMask again"
        )
    notes = []
    arrays: dict[str, Any] = {"mask": (works > 0) & ((used > 0) | (maps["dynamic"] == 0))}
    for kind, labels in maps.items():
        closed, kept = compacted(labels)
        if kept.size and kept[-1] != kept.size:
            notes.append(f"{kind} labels had gaps ({kept.size} up to {kept[-1]}): numbered again from 1")
        arrays[f"{kind}_roi_map"] = closed
        arrays.update(_grid(path, group, kind, kept))
    lone = int(((maps["dynamic"] > 0) != (maps["static"] > 0)).sum())
    masked = int(((maps["dynamic"] > 0) & ~arrays["mask"]).sum())
    if lone:
        notes.append(f"{lone} pixels had a dynamic bin or a static partition but not both: left out")
    if masked:
        notes.append(f"{masked} masked pixels had a bin: left out")
    try:
        return qmap_of(arrays, words_in(group)), notes
    except ValueError as error:
        raise _bad(path, error) from error


def words_in(group: h5py.Group) -> dict[str, Any]:
    """Return names, units and geometry as `words_of` does, from a group."""
    geometry: dict[str, float] = {}
    for name, place in _GEOMETRY.items():
        value = value_of(group.get(place))
        if isinstance(value, int | float):
            geometry[name] = float(value)
        elif name.startswith("arm_"):
            geometry[name] = 0.0
    is_known = len(geometry) == len(_GEOMETRY) and all(geometry[name] > 0 for name in _POSITIVE)
    units = [_SPELLINGS.get(unit, unit) for unit in _pair(group, "map_units", ("1/angstrom", "degree"))]
    return {
        "names": _pair(group, "map_names", ("q", "phi")),
        "map_units": units,
        "geometry": geometry if is_known else None,
    }


def _bad(path: Path, error: ValueError) -> BadFile:
    remedy = _SAVE
    if "spans" in str(error):
        remedy = "make the numbers of static bins multiples of the dynamic ones in pySimpleMask, and save it again"
    return BadFile(f"{path}: {one_line(error)}", remedy=remedy)


def _map(path: Path, group: h5py.Group, name: str) -> NDArray[Any]:
    node = group.get(name)
    if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "biuf" or len(np.squeeze(node).shape) != 2:
        raise BadFile(
            f"{path}: {group.name}/{name} is not a map of numbers (it holds: {held(group)})",
            remedy=_SAVE,
        )
    values: NDArray[Any] = np.squeeze(node[()])
    if values.dtype.kind == "f":
        whole: NDArray[Any] = np.nan_to_num(values).astype(np.int64)
        if (whole != values).any():
            raise BadFile(f"{path}: {group.name}/{name} has labels that are not whole", remedy="use whole numbers")
        return whole
    return values


def _grid(path: Path, group: h5py.Group, kind: str, kept: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """The grid of a kind of labels, its places brought to the labels that are there; empty when there is none."""
    names = [f"{kind}_v_list_dim0", f"{kind}_v_list_dim1", f"{kind}_index_mapping"]
    nodes = [group.get(name) for name in names]
    if not kept.size or not all(isinstance(node, h5py.Dataset) and node.dtype.kind in "iuf" for node in nodes):
        return {}
    first, second, cell = (np.asarray(node[()]).ravel() for node in nodes)
    places = cell.astype(np.int64)
    if places.size == kept[-1]:
        places = places[kept - 1]
    if places.size != kept.size or (places < 0).any() or (places >= first.size * second.size).any():
        raise BadFile(
            f"{path}: {group.name}/{names[2]} does not fit: {places.size} places for {kept.size} labels in a grid"
            f" of {first.size} x {second.size}",
            remedy=_SAVE,
        )
    return {names[0]: first.astype(float), names[1]: second.astype(float), names[2]: places}


def _pair(group: h5py.Group, name: str, default: tuple[str, str]) -> list[str]:
    value = value_of(group.get(name))
    is_pair = isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)
    return [one_line(text) for text in value] if is_pair else list(default)


def _smallest(values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind not in "iu" or not values.size:
        return values
    return values.astype(np.promote_types(np.min_scalar_type(values.min()), np.min_scalar_type(values.max())))


def _hash(group: h5py.Group) -> str:
    """SHA-256 of everything in the group: programs keep what they made of a map under it."""
    digest = hashlib.sha256()
    for name in sorted(group):
        values = np.asarray(group[name][()])
        digest.update(name.encode())
        digest.update(repr(values.tolist()).encode() if values.dtype.kind == "O" else values.tobytes())
    return digest.hexdigest()
