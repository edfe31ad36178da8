"""Data Exchange: HDF5 as the imaging beamlines of the Advanced Photon Source write it.

De Carlo et al. (2014), J. Synchrotron Rad. 21, 1224. Frames in `exchange/data` (angle, row, column), flats in
`data_white`, darks in `data_dark`, angles in `theta`, in degrees. Some files keep the flats from before and after
the scan apart (`data_white_start`, `data_white_end`), or have no angles but the first one and the step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from lightkeep.formats import hdf5
from lightkeep.formats.hdf5_format import Hdf5Format
from lightkeep.formats.metadata import Field, Gathered, degrees, gather, held, value_of
from lightkeep.formats.scan import check_angles, check_scan, darks_or_zero
from lightkeep.model.errors import BadFile
from lightkeep.model.formats import Array, Source

_NAMES = {
    "projections": "exchange/data",
    "flats": "exchange/data_white",
    "darks": "exchange/data_dark",
    "theta_deg": "exchange/theta",
}
_APART = ("exchange/data_white_start", "exchange/data_white_end")
_DIMENSIONS = 3
_ROTATION = "process/acquisition/rotation"
_DETECTOR = "measurement/instrument/detector"
QUANTITIES = {
    "energy": Field(
        ("measurement/instrument/monochromator/energy", "measurement/instrument/source/energy"), "keV"
    ),
    "exposure_time": Field((f"{_DETECTOR}/exposure_time", "process/acquisition/exposure_time"), "s"),
    "pixel_size": Field(
        (
            "measurement/instrument/detection_system/objective/resolution",
            f"{_DETECTOR}/pixel_size",
            f"{_DETECTOR}/actual_pixel_size_x",
            f"{_DETECTOR}/pixel_size_x",
        ),
        "um",
    ),
    "distance": Field(
        (
            "measurement/instrument/camera_motor_stack/setup/camera_distance",
            f"{_DETECTOR}/distance",
            "measurement/instrument/distance",
        ),
        "mm",
    ),
    "magnification": Field(("measurement/instrument/detection_system/objective/magnification",)),
    "current": Field(("measurement/instrument/source/current",), "mA"),
    "temperature": Field(("measurement/sample/temperature", "measurement/sample/environment/temperature"), "K"),
}
TEXTS = {
    "title": Field(("exchange/title", "measurement/title")),
    "sample": Field(("measurement/sample/name", "measurement/sample/sample_name")),
    "description": Field(("measurement/sample/description", "measurement/sample/description_1")),
    "instrument": Field(("measurement/instrument/name", "measurement/instrument/instrument_name")),
    "source": Field(("measurement/instrument/source/name",)),
    "beamline": Field(("measurement/instrument/source/beamline",)),
    "detector": Field((f"{_DETECTOR}/model", f"{_DETECTOR}/manufacturer")),
    "user": Field(("measurement/sample/experimenter/name", "measurement/experimenter/name")),
    "proposal": Field(("measurement/sample/experiment/proposal", "measurement/experiment/proposal")),
    "start_time": Field(("process/acquisition/start_date", "file_creation_datetime")),
    "end_time": Field(("process/acquisition/end_date",)),
}


class DataExchange(Hdf5Format):
    """Reader of tomography scans."""

    name: ClassVar[str] = "data-exchange"

    def holds(self, file: h5py.File) -> bool:
        """True when it has `exchange/data`."""
        return hdf5.has(file, "exchange/data")

    def source(self, path: Path, file: h5py.File) -> Source:
        """Return the scan; BadFile also for no flats, and angles that cannot be a scan's."""
        return _source(path, file)


FORMAT = DataExchange()


def _source(path: Path, file: h5py.File) -> Source:
    found = gather(file, QUANTITIES, TEXTS)
    projections = _dataset(path, file, _NAMES["projections"])
    count = projections.shape[0] if projections.shape else 0
    arrays: dict[str, Array] = {"projections": projections, **_flats(path, file, count=count)}
    darks = _dataset(path, file, _NAMES["darks"]) if hdf5.has(file, _NAMES["darks"]) else None
    arrays["darks"] = darks_or_zero(darks, projections, name=_NAMES["darks"], notes=found.notes)
    arrays["theta_deg"] = theta = _angles(path, file, found, count=count)
    check_scan(path, arrays, _NAMES)
    check_angles(path, theta, name=_NAMES["theta_deg"])
    return Source(path, FORMAT.name, "tomography", arrays, found.metadata(), file)


class Joined:
    """Stacks of frames one after the other; each read takes some rows and columns of all of them."""

    def __init__(self, *stacks: h5py.Dataset) -> None:
        self._stacks = stacks

    @property
    def shape(self) -> tuple[int, ...]:
        """(frame, row, column)."""
        return (sum(stack.shape[0] for stack in self._stacks), *self._stacks[0].shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """That holds the values of all."""
        return np.result_type(*(stack.dtype for stack in self._stacks))

    def __getitem__(self, key: Any) -> Any:
        first, *others = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis:
            first, others = slice(None), [Ellipsis, *others]
        return np.concatenate([stack[(slice(None), *others)] for stack in self._stacks])[first]


def _flats(path: Path, file: h5py.File, *, count: int) -> dict[str, Array]:
    """Return `flats`, and `flats_at` where those from before and after the scan are kept apart."""
    apart = [name for name in _APART if hdf5.has(file, name)]
    if hdf5.has(file, _NAMES["flats"]) or not apart:
        return {"flats": _dataset(path, file, _NAMES["flats"])}
    stacks = [_dataset(path, file, name) for name in apart]
    if len({stack.shape[1:] for stack in stacks}) > 1 or len(stacks[0].shape) != _DIMENSIONS:
        shapes = " and ".join(f"{name} has shape {stack.shape}" for name, stack in zip(apart, stacks, strict=True))
        raise BadFile(f"{path}: {shapes}", remedy="use flats (frame, row, column) of one region", role="flats")
    before = [0 if name == _APART[0] else count for name in apart]
    return {"flats": Joined(*stacks), "flats_at": np.repeat(before, [stack.shape[0] for stack in stacks])}


def _angles(path: Path, file: h5py.File, found: Gathered, *, count: int) -> NDArray[np.float64]:
    """Return the angles in degrees: those of the file, or the first one and as many steps as projections."""
    first, step = (value_of(hdf5.own(file, f"{_ROTATION}/{name}")) for name in ("rotation_start", "rotation_step"))
    is_told = isinstance(first, int | float) and isinstance(step, int | float)
    if hdf5.has(file, _NAMES["theta_deg"]) or not is_told:
        return degrees(_dataset(path, file, _NAMES["theta_deg"]), found)
    found.notes.append(
        f"no {_NAMES['theta_deg']}: from {first:g} deg in steps of {step:g} deg, as {_ROTATION} says"
    )
    return float(first) + float(step) * np.arange(count, dtype=np.float64)


def _dataset(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    node = file.get(name)
    if not isinstance(node, h5py.Dataset) or node.dtype.kind not in "iuf":
        what = "no numbers in" if node is not None else "no"
        raise BadFile(
            f"{path}: {what} {name} (exchange holds: {held(file.get('exchange'))})",
            remedy=f"add {name}: {_MEANING[name]}",
        )
    return node


_MEANING = {
    "exchange/data": "the projections (angle, row, column)",
    "exchange/data_white": "flats (frame, row, column), beam on and sample out",
    "exchange/data_dark": "darks (frame, row, column), shutter closed",
    "exchange/theta": f"one angle in degrees per projection, or {_ROTATION}/rotation_start and rotation_step",
}


# ---- writing, for detectors and the simulated beamline


@dataclass(frozen=True)
class ScanHeader:
    """What is known before the first frame."""

    theta_deg: NDArray[np.float64]
    """(angles,) degrees."""
    rows: int
    columns: int
    title: str = ""
    dtype: str = "uint16"
    numbers: Mapping[str, tuple[float, str]] = field(default_factory=dict)
    """Path -> (value, unit), e.g. `measurement/instrument/monochromator/energy`: (27.4, "keV")."""
    texts: Mapping[str, str] = field(default_factory=dict)
    """Path -> text."""


def write_scan(
    path: Path,
    header: ScanHeader,
    *,
    projections: Iterable[NDArray[Any]],
    flats: Iterable[NDArray[Any]],
    darks: Iterable[NDArray[Any]],
) -> Path:
    """Write a scan frame by frame, as a detector would: darks, flats, then the projections.

    Parameters
    ----------
    projections, flats, darks: frames (row, column); each is taken when its turn comes, so a generator sets
        the pace.

    Returns
    -------
    : the path. Projections that never came leave a shorter `data` and `theta`.
    """
    with h5py.File(path, "w") as file:
        file["implements"] = "exchange:measurement:process"
        exchange = file.create_group("exchange")
        exchange["title"] = header.title
        for place, text in header.texts.items():
            file[place] = text
        for place, (value, unit) in header.numbers.items():
            file[place] = value
            file[place].attrs["units"] = unit
        _write_frames(exchange, "data_dark", darks, header)
        _write_frames(exchange, "data_white", flats, header)
        count = _write_frames(exchange, "data", projections, header)
        exchange["theta"] = header.theta_deg[:count]
        exchange["theta"].attrs["units"] = "degrees"
    return path


def _write_frames(group: h5py.Group, name: str, frames: Iterable[NDArray[Any]], header: ScanHeader) -> int:
    size = (header.rows, header.columns)
    data = group.create_dataset(name, (0, *size), header.dtype, maxshape=(None, *size), chunks=(1, *size))
    data.attrs["units"] = "counts"
    data.attrs["axes"] = f"theta{name.removeprefix('data')}:y:x"
    count = 0
    for count, frame in enumerate(frames, 1):
        data.resize(count, axis=0)
        data[count - 1] = frame
    return count
