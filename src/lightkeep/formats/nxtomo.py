"""NXtomo: the NeXus application definition of a tomography scan.

`instrument/detector/data` holds all frames; `image_key` says which are projections (0), flats (1), darks (2) and
invalid (3); `sample/rotation_angle` has one angle per frame. https://manual.nexusformat.org/classes/applications/NXtomo.html
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from lightkeep.formats.hdf5_format import Hdf5Format
from lightkeep.formats.metadata import degrees, gather, held
from lightkeep.formats.nxtomo_layout import QUANTITIES, TEXTS, entry_of
from lightkeep.formats.recorded_scan import frames_of, open_live
from lightkeep.formats.scan import check_angles, check_scan, darks_or_zero
from lightkeep.model.acquisition import SCAN
from lightkeep.model.errors import BadFile
from lightkeep.model.formats import Array, Source

_DETECTOR = ("instrument/detector", "control/detector", "data")
_NAMES = {
    "projections": "frames with image_key 0",
    "flats": "frames with image_key 1",
    "darks": "frames with image_key 2",
    "theta_deg": "rotation_angle of the projections",
}


class Frames:
    """Some frames of a stack, as an array of its own: nothing is read until it is sliced."""

    def __init__(self, stack: h5py.Dataset, indices: NDArray[np.intp]) -> None:
        self._stack = stack
        self._indices = indices

    @property
    def shape(self) -> tuple[int, ...]:
        """(frame, row, column)."""
        return (self._indices.size, *self._stack.shape[1:])

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        dtype: np.dtype[Any] = self._stack.dtype
        return dtype

    def __getitem__(self, key: Any) -> Any:
        first, *others = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis:
            first, others = slice(None), [Ellipsis, *others]
        chosen = self._indices[first]
        if np.ndim(chosen) == 0:
            return self._stack[(int(chosen), *others)]
        if chosen.size == 0:
            return self._stack[(slice(0, 0), *others)]
        step = np.diff(chosen)
        if chosen.size == 1 or ((step == step[0]).all() and step[0] > 0):
            every = int(step[0]) if step.size else 1
            return self._stack[(slice(int(chosen[0]), int(chosen[-1]) + 1, every), *others)]
        order, back = np.unique(chosen, return_inverse=True)  # HDF5 reads increasing indices only
        return np.asarray(self._stack[(order, *others)])[back]


class NXtomo(Hdf5Format):
    """Reader of tomography scans."""

    name: ClassVar[str] = "nxtomo"

    def holds(self, file: h5py.File) -> bool:
        """True when an entry has the definition NXtomo, or an image_key."""
        return entry_of(file) is not None

    def source(self, path: Path, file: h5py.File) -> Source:
        """Return the scan; BadFile also for no flats, and angles that cannot be a scan's."""
        return _source(path, file)

    def open_live(self, path: Path, *, wait_s: float = 5.0) -> Source:
        """Open a scan that is still being written with SWMR, waiting until it can be; `follow` its frames.

        Angles and image keys grow as well: a frame that is there has both.
        """
        return open_live(path, wait_s=wait_s)


FORMAT = NXtomo()


def _source(path: Path, file: h5py.File) -> Source:
    entry = entry_of(file)
    if entry is None:
        raise BadFile(
            f"{path}: no entry with definition NXtomo (it holds: {held(file)})",
            remedy="check that it is a NeXus tomography scan",
        )
    found = gather(entry, QUANTITIES, TEXTS)
    stack = _node(path, entry, [f"{place}/data" for place in _DETECTOR])
    kinds = _node(path, entry, [f"{place}/image_key" for place in _DETECTOR])
    angles = _node(path, entry, ["sample/rotation_angle", "data/rotation_angle"])
    if len(stack.shape) != 3 or kinds.size != stack.shape[0] or angles.size > stack.shape[0]:
        raise BadFile(
            f"{path}: {stack.name} has shape {stack.shape}, image_key {kinds.size} values and rotation_angle"
            f" {angles.size}",
            remedy="write one image_key and one rotation_angle per frame",
        )
    keys, theta = np.asarray(kinds[()]).ravel(), degrees(angles, found)
    arrays: dict[str, Array] = {
        role: Frames(stack, np.flatnonzero(keys == key))
        for role, key in {"projections": 0, "flats": 1, "darks": 2}.items()
    }
    arrays["darks"] = darks_or_zero(
        arrays["darks"], arrays["projections"], name=_NAMES["darks"], notes=found.notes
    )
    arrays["theta_deg"] = theta = theta[keys == 0] if theta.size == keys.size else theta
    check_scan(path, arrays, _NAMES)
    arrays["flats_at"] = np.cumsum(keys == 0)[keys == 1]
    arrays |= _recorded(path, file)
    check_angles(path, theta, name="rotation_angle")
    if (keys == 3).any():
        found.notes.append(f"{np.sum(keys == 3)} frames are marked invalid and are left out")
    return Source(path, FORMAT.name, "tomography", arrays, found.metadata(), file)


def _recorded(path: Path, file: h5py.File) -> dict[str, Array]:
    """Return all frames as one stack, and their kinds, where an acquisition recorded them."""
    stack = frames_of(path, file)
    return {} if stack is None else {"frames": stack, "image_key": file[SCAN["image_key"]]}


def _node(path: Path, entry: h5py.Group, places: list[str]) -> h5py.Dataset:
    for place in places:
        node = entry.get(place)
        if isinstance(node, h5py.Dataset) and node.dtype.kind in "iuf":
            return node
    raise BadFile(
        f"{path}: no {places[0]} in {entry.name} (it holds: {held(entry)})",
        remedy="write the file as the NXtomo definition says",
    )
