"""Stacks of frames in HDF5 as Eiger and other area detectors write them.

`/entry/data/data` (frame, row, column), or `/entry/data/data_000001`, `_000002` ... one after another, which are
most often external links to data files beside the master. Chunks compressed by bitshuffle/LZ4 (what Eigers do) are
decoded by several threads outside HDF5. Values stay what the detector wrote: 65535 and 2^32 - 1 mark dead and
saturated pixels.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import h5py
import numpy as np
from numpy.typing import NDArray

from lightkeep.formats import hdf5, metadata_8id
from lightkeep.formats.chunks import Decode, decode_chunk, decoder, read_chunk
from lightkeep.formats.frame_stack import DenseStack, Progress, Task
from lightkeep.formats.hdf5_format import Hdf5Format
from lightkeep.formats.metadata import Field, Gathered, gather, held, value_of
from lightkeep.formats.nxtomo_layout import entry_of as nxtomo_entry
from lightkeep.formats.run_source import run_source, wait_for
from lightkeep.formats.text import one_line
from lightkeep.model.errors import BadFile, SourceError, UnsafeFile
from lightkeep.model.formats import Source
from lightkeep.model.quantity import Quantity

_COUNTS = "iu"
_PLACE = "entry/data"
_PART = re.compile(r"data_\d+\Z")
_DETECTOR = "entry/instrument/detector"
_TASK_BYTES = 1 << 18
"""Decoded bytes that make a task worth a thread's while."""
_HC = 1.23984198e-6
"""Planck's constant times the speed of light in eV m (CODATA 2018)."""
QUANTITIES = {
    "frame_time": Field((f"{_DETECTOR}/frame_time",), "s"),
    "exposure_time": Field((f"{_DETECTOR}/count_time",), "s"),
    "energy": Field(
        ("entry/instrument/beam/incident_energy", f"{_DETECTOR}/detectorSpecific/photon_energy"), "eV"
    ),
    "wavelength": Field(("entry/instrument/beam/incident_wavelength",), "angstrom"),
    "distance": Field((f"{_DETECTOR}/detector_distance", f"{_DETECTOR}/distance"), "m"),
    "pixel_size": Field((f"{_DETECTOR}/x_pixel_size",), "m"),
    "beam_center_x": Field((f"{_DETECTOR}/beam_center_x",), "pixel"),
    "beam_center_y": Field((f"{_DETECTOR}/beam_center_y",), "pixel"),
    "temperature": Field(("entry/sample/temperature",), "K"),
}
TEXTS = {
    "title": Field(("entry/title",)),
    "sample": Field(("entry/sample/name",)),
    "detector": Field((f"{_DETECTOR}/description", f"{_DETECTOR}/detector_number")),
    "instrument": Field(("entry/instrument/name",)),
    "user": Field(("entry/user/name",)),
    "start_time": Field(("entry/start_time", f"{_DETECTOR}/detectorSpecific/data_collection_date")),
    "end_time": Field(("entry/end_time",)),
}


class Eiger(Hdf5Format):
    """Reader of stacks, of one file or of a master with its data files."""

    name: ClassVar[str] = "eiger"

    def holds(self, file: h5py.File) -> bool:
        """True when `/entry/data` holds `data`, three axes of integers, or parts called `data_000001` ..."""
        group = file.get(_PLACE) if hdf5.has(file, _PLACE) else None
        if not isinstance(group, h5py.Group) or nxtomo_entry(file) is not None:
            return False
        data = hdf5.own(group, "data")
        return bool(_parts(group)) or (isinstance(data, h5py.Dataset) and _is_stack(data))

    def source(self, path: Path, file: h5py.File) -> Source:
        """Return the run; see `open`."""
        return _source(path, file, is_live=False)

    def open_live(self, path: Path, *, wait_s: float = 5.0) -> Source:
        """Open a run that is still being written, waiting until it can be; `follow` its frames.

        It is written with SWMR, or as a master whose data files come one after another.
        """
        return wait_for(lambda: self._opened_live(path), wait_s)

    def _opened_live(self, path: Path) -> Source:
        file = hdf5.open_growing(path)
        try:
            with hdf5.reading(path):
                return _source(path, file, is_live=True)
        except BaseException:
            file.close()
            raise


FORMAT = Eiger()


@dataclass(frozen=True)
class _Part:
    """Frames of one dataset."""

    data: h5py.Dataset
    decode: Decode | None


class EigerStack(DenseStack):
    """Frames of one dataset, or of several one after another; of integers, or of the `kinds` of numbers named."""

    def __init__(self, path: Path, file: h5py.File, *, is_live: bool, kinds: str = _COUNTS) -> None:
        self._file = file
        self._kinds = kinds
        self._files: list[h5py.File] = []
        self._parts: list[_Part] = []
        self._ends = [0]
        self._is_live = is_live
        super().__init__(path, (0, 0), np.uint16)
        try:
            self._find()
        except BaseException:
            self.close()
            raise

    def look(self) -> Progress:
        """See what was written since; the writer is done when it closed the file."""
        self._find()
        size = sum(part.data.shape[0] for part in self._parts)
        is_here = len(self._parts) == len(self._names())
        files = [self.path, *(Path(file.filename) for file in self._files)]
        return Progress(self._frames, self._frames, size, is_here and not any(map(is_written, files)))

    def finish(self) -> int:
        """Return the number of frames; a data file that is there and cannot be opened is an error by now."""
        missing = self._names()[len(self._parts) :]
        if missing and self._target(missing[0]).is_file():
            self._dataset(missing[0])
        return self.look().frames

    def close(self) -> None:
        """Free all files."""
        for file in [*self._files, self._file]:
            file.close()

    def _find(self) -> None:
        """Take up the parts that are there, and the frames that were added to them."""
        for name in self._names()[len(self._parts) :]:
            data = self._dataset_so_far(name) if self._is_live else self._dataset(name)
            if data is None:
                break
            if not self._fits(data):
                raise BadFile(
                    f"{self.path}: {_PLACE}/{name} is not (frame, row, column) of integers as before",
                    remedy="check that it is a detector's file",
                )
            self._frame_shape, self._dtype = data.shape[1:], data.dtype
            self._parts.append(_Part(data, decoder(data)))
        sizes = [part.data.shape[0] for part in self._parts]
        if self._is_live and sizes:
            for number, part in enumerate(self._parts):
                part.data.refresh()
                sizes[number] = part.data.shape[0]
            known = max(0, self._frames - sum(sizes[:-1]))
            sizes[-1] = _written(self._parts[-1].data, known, sizes[-1])
        self._ends = [0, *np.cumsum(sizes, dtype=int).tolist()]
        self._frames = self._ends[-1]

    def _names(self) -> list[str]:
        return _parts(self._file[_PLACE]) or ["data"]

    def _fits(self, data: Any) -> bool:
        like = (self._frame_shape, self._dtype)
        return _is_stack(data, self._kinds) and (not self._parts or (data.shape[1:], data.dtype) == like)

    def _target(self, name: str) -> Path:
        """Return the file that a part is in; UnsafeFile where it is not below the master's folder."""
        link = self._file[_PLACE].get(name, getlink=True)
        if not isinstance(link, h5py.ExternalLink):
            return self.path
        folder = Path(os.path.realpath(self.path.parent))
        target = Path(os.path.realpath(folder / link.filename))
        if folder not in target.parents:
            raise UnsafeFile(
                f"{self.path}: {name} leads to {one_line(link.filename)}, outside its dataset",
                remedy="put the data file beside the master",
            )
        return target

    def _dataset(self, name: str) -> Any:
        """Return a part, its file opened."""
        target = self._target(name)
        if target == self.path:
            return self._file[_PLACE][name]
        self._files.append((hdf5.open_growing if self._is_live else hdf5.open_plain)(target))
        with hdf5.reading(target):
            return self._files[-1][self._file[_PLACE].get(name, getlink=True).path]

    def _dataset_so_far(self, name: str) -> Any:
        """Return a part; None while its file is not there or cannot be opened yet."""
        count = len(self._files)
        try:
            return self._dataset(name)
        except UnsafeFile:
            raise
        except (BadFile, SourceError):
            for file in self._files[count:]:
                file.close()
            del self._files[count:]
            return None

    def _tasks(self, begin: int, frames: NDArray[Any]) -> Iterator[Task]:
        end = begin + len(frames)
        for part, first, last in zip(self._parts, self._ends[:-1], self._ends[1:], strict=True):
            low, high = max(begin, first), min(end, last)
            if low < high:
                out = frames[low - begin : high - begin]
                read = self._through_hdf5 if part.decode is None else self._directly
                yield from read(part, low - first, out)

    def _through_hdf5(self, part: _Part, begin: int, out: NDArray[Any]) -> Iterator[Task]:
        step = max((part.data.chunks or (1,))[0], _TASK_BYTES // max(1, out[:1].nbytes))
        for at in range(0, len(out), step):
            yield functools.partial(self._read, part.data, begin + at, out[at : at + step])

    def _read(self, data: h5py.Dataset, begin: int, out: NDArray[Any]) -> None:
        with hdf5.reading(self.path):
            data.read_direct(out, np.s_[begin : begin + len(out)])

    def _directly(self, part: _Part, begin: int, out: NDArray[Any]) -> Iterator[Task]:
        """Read the chunks here, decode them in tasks of a useful size."""
        rows, columns = part.data.shape[1:]
        depth, height, width = part.data.chunks
        bundle: list[tuple[tuple[int, int, int], tuple[int, bytes]]] = []
        room = max(1, _TASK_BYTES // (depth * height * width * out.itemsize))
        for frame in range(begin - begin % depth, begin + len(out), depth):
            for row in range(0, rows, height):
                for column in range(0, columns, width):
                    at = (frame, row, column)
                    bundle.append((at, read_chunk(self.path, part.data, at)))
                    if len(bundle) == room:
                        yield functools.partial(self._place, part, begin, out, bundle)
                        bundle = []
        if bundle:
            yield functools.partial(self._place, part, begin, out, bundle)

    def _place(
        self,
        part: _Part,
        begin: int,
        out: NDArray[Any],
        bundle: list[tuple[tuple[int, int, int], tuple[int, bytes]]],
    ) -> None:
        assert part.decode is not None  # noqa: S101 -- chosen in _tasks
        size = part.data.chunks
        for (frame, row, column), chunk in bundle:
            first = frame - begin
            target = out[max(0, first) : first + size[0], row : row + size[1], column : column + size[2]]
            if target.shape == size and target.flags.c_contiguous:
                decode_chunk(self.path, frame, part.decode, chunk, target)
                continue
            whole = np.empty(size, out.dtype)
            decode_chunk(self.path, frame, part.decode, chunk, whole)
            skipped = max(0, -first)
            target[...] = whole[skipped : skipped + len(target), : target.shape[1], : target.shape[2]]


def _source(path: Path, file: h5py.File, *, is_live: bool) -> Source:
    if not FORMAT.holds(file):
        raise BadFile(
            f"{path}: no frames in /{_PLACE} (the file holds: {held(file)})",
            remedy="check that it is a detector's file: /entry/data/data (frame, row, column) of integers",
        )
    stack = EigerStack(path, file, is_live=is_live)
    if 0 in stack.shape[is_live:]:
        stack.close()
        raise BadFile(f"{path}: holds no frames: {stack.shape}", remedy="check that the run was measured")
    found = gather(file, QUANTITIES, TEXTS)
    _derive(file, found)
    metadata_8id.complete(path, found)
    return run_source(path, FORMAT.name, stack, found, is_live=is_live)


def _derive(file: h5py.File, found: Gathered) -> None:
    """Energy from the wavelength; the number of frames that the detector was armed for."""
    wavelength = found.quantities.get("wavelength")
    if wavelength is not None and wavelength.value_si > 0 and wavelength.unit_si == "m":
        found.quantities.setdefault("energy", Quantity.of(_HC / wavelength.value_si, "eV"))
    counts = [value_of(file.get(f"{_DETECTOR}/detectorSpecific/{name}")) for name in ("nimages", "ntrigger")]
    if isinstance(counts[0], int):
        triggers = counts[1] if isinstance(counts[1], int) else 1
        found.quantities["frames"] = Quantity.of(float(counts[0] * triggers))


def _written(data: h5py.Dataset, low: int, high: int) -> int:
    """Return how many frames are in the file: a dataset may be made longer before its chunks are written."""
    if data.chunks is None or high == low or hdf5.has_chunk(data, high - 1):
        return high
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if hdf5.has_chunk(data, middle) else (low, middle)
    return low


def _parts(group: h5py.Group) -> list[str]:
    return sorted(name for name in group if _PART.match(name))


def _is_stack(data: Any, kinds: str = _COUNTS) -> bool:
    return isinstance(data, h5py.Dataset) and len(data.shape or ()) == 3 and data.dtype.kind in kinds


def is_written(path: Path) -> bool:
    """Return True while a writer holds the file open: the superblock (version 2 and later) says it."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
    except OSError:
        return False
    return len(head) == 12 and head[8] >= 2 and bool(head[11] & 1)
