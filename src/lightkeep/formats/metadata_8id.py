"""What was measured how, as beamline 8-ID of the Advanced Photon Source writes it into `<run>_metadata.hdf`.

The same NeXus tree below `/entry` is in the metadata file beside a run, and in the result file of its reduction;
one table serves both directions. Programs of the beamline read the values and not their `units`, so they are
written in the units of the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import h5py
import numpy as np

from lightkeep.formats import hdf5
from lightkeep.formats.metadata import Field, Gathered, gather, held, value_of
from lightkeep.formats.text import one_line
from lightkeep.model.datasets import Metadata
from lightkeep.model.errors import BadFile, SourceError
from lightkeep.model.quantity import Quantity, si_factor

SUFFIX = "_metadata.hdf"
_DETECTOR = "instrument/detector_1"
QUANTITIES = {
    "frame_time": Field((f"{_DETECTOR}/frame_time",), "s"),
    "exposure_time": Field((f"{_DETECTOR}/count_time",), "s"),
    "energy": Field(("instrument/incident_beam/incident_energy",), "keV"),
    "distance": Field((f"{_DETECTOR}/distance",), "m"),
    "pixel_size": Field((f"{_DETECTOR}/x_pixel_size",), "m"),
    "beam_center_x": Field((f"{_DETECTOR}/beam_center_x",), "pixel"),
    "beam_center_y": Field((f"{_DETECTOR}/beam_center_y",), "pixel"),
    "frames": Field((f"{_DETECTOR}/number_of_frames",)),
    "temperature": Field(("sample/temperature",), "K"),
}
TEXTS = {
    "title": Field(("title",)),
    "sample": Field(("sample/name",)),
    "detector": Field((f"{_DETECTOR}/detector_name",)),
    "user": Field(("user/name",)),
    "proposal": Field(("user/proposal",)),
    "qmap_file": Field((f"{_DETECTOR}/qmap_file",)),
    "start_time": Field(("start_time",)),
    "end_time": Field(("end_time",)),
}
_CLASSES = {
    "instrument": "NXinstrument",
    _DETECTOR: "NXdetector",
    "instrument/incident_beam": "NXbeam",
    "sample": "NXsample",
    "user": "NXuser",
}
_DIFFERS = 0.01
"""Share by which two files may differ in a value without a note."""


def beside(path: Path) -> Path | None:
    """Return the metadata file of a run, or None.

    It is `<run>_metadata.hdf` in the folder of the run's file, whatever suffixes that one has (`run.bin.000`), or
    the only `*_metadata.hdf` there. Links to elsewhere are not followed.
    """
    stem = path.name
    while stem:
        found = path.with_name(stem + SUFFIX)
        if found.is_file() and not found.is_symlink() and found != path:
            return found
        stem = stem.rpartition(".")[0]
    others = [each for each in path.parent.glob(f"*{SUFFIX}") if each.is_file() and not each.is_symlink()]
    return others[0] if len(others) == 1 and others[0] != path else None


def complete(path: Path, found: Gathered) -> None:
    """Add to what a run's own file says what the metadata file beside it says.

    The run's own file has the last word; a note tells where they differ, and when there is no metadata file or it
    cannot be read.
    """
    name = beside(path)
    if name is None:
        found.notes.append(f"no *{SUFFIX} is beside it")
        return
    try:
        said = read_metadata(name)
    except (BadFile, SourceError) as error:
        found.notes.append(f"{name.name} is left out: {error.message.removeprefix(f'{name}: ')}")
        return
    for key, quantity in said.quantities.items():
        own = found.quantities.setdefault(key, quantity)
        if not np.isclose(own.value_si, quantity.value_si, rtol=_DIFFERS, atol=0.0):
            found.notes.append(f"{key} is {own} here and {quantity} in {name.name}")
    for key, text in said.texts.items():
        found.texts.setdefault(key, text)
    found.notes += said.rest.get("notes", [])
    found.rest = {**{key: value for key, value in said.rest.items() if key != "notes"}, **found.rest}
    found.rest["metadata_file"] = name.name


def read_metadata(path: Path) -> Metadata:
    """Return what a metadata file says.

    Raises
    ------
    SourceError: missing or unreadable. UnsafeFile: see `hdf5.check_safe`.
    BadFile: not HDF5, cut short, or without `/entry`.
    """
    with hdf5.open_safe(path) as file, hdf5.reading(path):
        entry = hdf5.own(file, "entry")
        if not isinstance(entry, h5py.Group):
            raise BadFile(
                f"{path}: no group /entry (it holds: {held(file)})", remedy="write it as beamline 8-ID does"
            )
        return gather_8id(entry).metadata()


def gather_8id(entry: h5py.Group, *, more: Mapping[str, Field] | None = None) -> Gathered:
    """Return what an entry says, with `more` texts.

    The beam centre is the one at the detector's present position: the file gives it for the position at which it
    was calibrated, and both positions.
    """
    found = gather(entry, QUANTITIES, {**TEXTS, **(more or {})})
    for axis in ("x", "y"):
        moved = [_number(entry, f"{_DETECTOR}/{name}_{axis}") for name in ("position", "beam_center_position")]
        pixel = _number(entry, f"{_DETECTOR}/{axis}_pixel_size")
        center = found.quantities.get(f"beam_center_{axis}")
        if center is not None and pixel and moved[0] is not None and moved[1] is not None:
            value = center.value + (moved[0] - moved[1]) / pixel
            found.quantities[f"beam_center_{axis}"] = Quantity.of(value, center.unit)
    return found


def write_metadata(path: Path, metadata: Metadata) -> Path:
    """Write a metadata file with the quantities and texts that `QUANTITIES` and `TEXTS` name; return its path.

    Raises
    ------
    StoreFull: no room. StorageError: it cannot be written.
    """
    with hdf5.writing(path) as file:
        file.attrs.update({"NX_class": "NXroot", "default": "entry"})
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        fill(entry, metadata)
    return path


def fill(entry: h5py.Group, metadata: Metadata) -> None:
    """Write the tree below an entry. What the beamline's programs need and nobody gave is not a number."""
    entry["schema_version"] = "0.1"
    for path, kind in _CLASSES.items():
        entry.require_group(path).attrs["NX_class"] = kind
    entry.create_group("instrument/bluesky/metadata")
    needed = {name: np.nan for name in QUANTITIES if name not in ("frames", "temperature")}
    for name, value in {**needed, **_values(metadata.quantities)}.items():
        place = QUANTITIES[name]
        _put(entry, place.paths[0], value, place.unit)
    _put(entry, f"{_DETECTOR}/y_pixel_size", entry[f"{_DETECTOR}/x_pixel_size"][()], "m")
    for name in ("position_x", "position_y", "beam_center_position_x", "beam_center_position_y"):
        _put(entry, f"{_DETECTOR}/{name}", 0.0, "m")
    for name, text in {"start_time": "", **metadata.texts}.items():
        if name in TEXTS:
            entry[TEXTS[name].paths[0]] = one_line(text)


def _values(quantities: Mapping[str, Quantity]) -> dict[str, float]:
    """Values in the units of the table; what cannot be converted is left out."""
    found: dict[str, float] = {}
    for name, place in QUANTITIES.items():
        factor, unit_si = si_factor(place.unit) or (1.0, place.unit)
        quantity = quantities.get(name)
        if quantity is not None and quantity.unit_si == unit_si:
            found[name] = quantity.value if quantity.unit == place.unit else quantity.value_si / factor
    return found


def _put(entry: h5py.Group, path: str, value: float, unit: str) -> None:
    entry[path] = value
    if unit:
        entry[path].attrs["units"] = unit


def _number(entry: h5py.Group, path: str) -> float | None:
    value = value_of(entry.get(path))
    return float(value) if isinstance(value, int | float) else None
