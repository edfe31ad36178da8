"""A tomography scan while an acquisition writes it: frames, angles and image keys that grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from lightkeep.formats import hdf5
from lightkeep.formats.eiger import EigerStack
from lightkeep.formats.metadata import gather
from lightkeep.formats.nxtomo_layout import QUANTITIES, TEXTS, entry_of
from lightkeep.formats.run_source import wait_for
from lightkeep.model.acquisition import SCAN
from lightkeep.model.errors import BadFile
from lightkeep.model.formats import Array, Source

_FRAMES: Final = "entry/data/data"
_NUMBERS: Final = "iuf"  # a scan that is replayed may have been corrected before


class Growing:
    """One value of each frame, read from the file whenever it is asked for."""

    def __init__(self, data: h5py.Dataset) -> None:
        self._data = data

    @property
    def shape(self) -> tuple[int, ...]:
        """(frames,) that are there now."""
        self._data.refresh()
        return tuple(self._data.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """As stored."""
        dtype: np.dtype[Any] = self._data.dtype
        return dtype

    def __getitem__(self, key: Any) -> NDArray[Any]:
        self._data.refresh()
        return np.asarray(self._data[key])


def open_live(path: Path, *, wait_s: float) -> Source:
    """Open a scan that grows; see `NXtomo.open_live`."""
    return wait_for(lambda: _opened(path), wait_s)


def _opened(path: Path) -> Source:
    file = hdf5.open_growing(path)
    try:
        with hdf5.reading(path):
            return _source(path, file, is_live=True)
    except BaseException:
        file.close()
        raise


def frames_of(path: Path, file: h5py.File, *, is_live: bool = False) -> EigerStack | None:
    """Return the frames of all kinds as one stack, where an acquisition recorded the scan."""
    places = [file.get(place) for place in (_FRAMES, *SCAN.values())]
    if not all(isinstance(each, h5py.Dataset) for each in places) or places[0].dtype.kind not in _NUMBERS:
        return None
    return EigerStack(path, file, is_live=is_live, kinds=_NUMBERS)


def _source(path: Path, file: h5py.File, *, is_live: bool) -> Source:
    entry, stack = entry_of(file), frames_of(path, file, is_live=is_live)
    if entry is None or stack is None:
        raise BadFile(
            f"{path}: no scan that grows: it needs {_FRAMES}, {', '.join(SCAN.values())}",
            remedy="record it with an acquisition",
        )
    arrays: dict[str, Array] = {
        "frames": stack,
        "theta_deg": Growing(file[SCAN["rotation_angle"]]),
        "image_key": Growing(file[SCAN["image_key"]]),
    }
    return Source(path, "nxtomo", "tomography", arrays, gather(entry, QUANTITIES, TEXTS).metadata(), stack)
