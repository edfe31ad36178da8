"""Frames are on disk first: a source's series become HDF5 files, each with a mark once it is complete.

    <series>.h5         /entry/data/data (frame, row, column) grows; readers may follow it (SWMR);
                        what the source says of the series is in /entry/instrument/detector, and of each frame
                        in /entry/instrument/NDAttributes; frames with angles and image keys make it an NXtomo
    <series>.h5.done    made when the file is closed and its bytes are on the disk

A file without its mark belongs to a process that died, or to one that works. What a dead one left is salvaged: its
whole frames are written again as `<series>-salvaged.h5`; the file itself stays. Complete files are removed by
`lifecycle.acquisitions.spooled`; their marks stay.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from lightkeep.acquisition.codecs import FILTERS
from lightkeep.model.acquisition import SCAN, Begin, End, Frame, Packed
from lightkeep.model.errors import StorageError, StoreFull

MARK: Final = "{name}.done"
_FLUSH_S: Final = 0.25
"""What is lost at most when the process is killed."""
_BLOCK: Final = 64
_ATTRIBUTES: Final = "entry/instrument/NDAttributes"
"""Where areaDetector keeps what it knows of each frame."""


_OWN: Final = dict.fromkeys(("flatfield", "photon_energy", "pixel_mask"), "detectorSpecific/")
"""What an Eiger's own files have in a group below the detector."""


@dataclass(slots=True)
class Recorded:
    """What a recorder counted."""

    frames: int = 0
    gaps: int = 0
    last: float = 0.0
    """When the newest frame came, seconds since 1970."""
    problem: str = ""
    """What was wrong with the stream last; nothing of it is lost."""


class Recorder:
    """Writes what a source yields into a folder. For one thread.

    Parameters
    ----------
    prefix: of the names of series that have none.
    frames_per_file: a series of more goes on in the next file.
    idle_s: a series without a new frame for so long is over.
    begun: called with each file as soon as it has a frame.
    """

    def __init__(
        self,
        folder: Path,
        *,
        prefix: str,
        frames_per_file: int = 10_000,
        idle_s: float = 5.0,
        begun: Callable[[Path], None] = lambda _: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.counted = Recorded()
        self._folder = folder
        self._prefix = prefix
        self._frames_per_file = frames_per_file
        self._idle_s = idle_s
        self._begun = begun
        self._now = now
        self._series = Begin()
        self._is_open_series = False
        self._part = 0
        self._file: h5py.File | None = None
        self._path = folder
        self._kept: list[Frame] = []
        self._length = 0
        self._kind: tuple[tuple[int, ...], str, str] = ((), "", "")
        self._expected: int | None = None
        self._flushed_at = self._came_at = 0.0

    def take(self, message: Begin | Frame | End | None) -> None:
        """Write one message, or look at the time.

        Raises
        ------
        StoreFull, StorageError: it cannot be written.
        """
        now = time.monotonic()
        if isinstance(message, Begin):
            self.end()
            self._series, self._part, self._is_open_series = message, 0, True
            self._expected = None
        elif isinstance(message, End):
            self.end()
        elif isinstance(message, Frame):
            self._frame(message, now)
        elif self._file is not None and now - self._came_at > self._idle_s:
            self.end()
        if self._kept and (now - self._flushed_at > _FLUSH_S or len(self._kept) >= _BLOCK):
            self._flush(now)

    def end(self) -> None:
        """Close what is open: the series is over."""
        self._close()
        self._is_open_series = False
        self._series = Begin()

    def _frame(self, frame: Frame, now: float) -> None:
        self._came_at = now
        if self._expected is not None and frame.number > self._expected:
            self.counted.gaps += frame.number - self._expected
        self._expected = frame.number + 1
        kind = _kind(frame.data)
        if self._file is not None and kind != self._kind:
            is_now, was = (" ".join(map(str, each)).rstrip() for each in (kind, self._kind))
            self.counted.problem = (
                f"frame {frame.number} of {self._path.name} is {is_now}, not {was}: it begins a new series"
            )
            self._close()
            self._is_open_series = False
        if self._file is None:
            self._open(frame, now)
            self._kind = kind
        self._kept.append(frame)
        self.counted.frames += 1
        self.counted.last = frame.at or time.time()
        self._length += 1
        if self._length >= self._frames_per_file:
            self._close()

    def _open(self, frame: Frame, now: float) -> None:
        if not self._is_open_series:
            self._series, self._part, self._is_open_series = Begin(), 0, True
        if self._part == 0:
            name = _safe(self._series.name) or f"{self._prefix}-{self._now():%Y%m%dT%H%M%S}"
            self._stem = _free(self._folder, name)
        self._part, self._length = self._part + 1, 0
        self._path = self._folder / (f"{self._stem}.h5" if self._part == 1 else f"{self._stem}-{self._part}.h5")
        while self._part > 1 and _is_used(self._path):
            self._part += 1
            self._path = self._folder / f"{self._stem}-{self._part}.h5"
        self._file = self._made(self._path, frame, is_live=True)
        for key, value in self._series.header.items():
            if name := _safe(key):
                self._file[f"entry/instrument/detector/{_OWN.get(name, '')}{name}"] = value
        self._file.swmr_mode = True
        self._flushed_at = now - _FLUSH_S  # so that a reader sees the first frame at once
        self._begun(self._path)

    def _made(self, path: Path, first: Frame, *, is_live: bool) -> h5py.File:
        shape, dtype, codec = _kind(first.data)
        try:
            file = h5py.File(path, "x", libver="latest" if is_live else None)
        except OSError as error:
            raise _not_written(path, error) from error
        entry = file.create_group("entry")
        entry.attrs["NX_class"], entry.attrs["default"] = "NXentry", "data"
        instrument = entry.create_group("instrument")
        instrument.attrs["NX_class"] = "NXinstrument"
        instrument.create_group("detector").attrs["NX_class"] = "NXdetector"
        data = entry.create_group("data")
        data.attrs["NX_class"], data.attrs["signal"] = "NXdata", "data"
        packing = FILTERS[codec][1] if codec else {}
        data.create_dataset("data", (0, *shape), dtype, maxshape=(None, *shape), chunks=(1, *shape), **packing)
        missing: float
        for name, kind, unit in (("frame_number", np.int64, ""), ("frame_time", np.float64, "s")):
            each = data.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(4096,))
            each.attrs["units"] = unit
        for name in first.values:
            if place := _place_of(name):
                type_, missing = ("i1", 3) if name == "image_key" else ("f8", np.nan)
                file.create_dataset(place, (0,), type_, maxshape=(None,), chunks=(4096,), fillvalue=missing)
        if SCAN.keys() <= first.values.keys():
            entry["definition"] = "NXtomo"
            entry["sample"].attrs["NX_class"] = "NXsample"
            entry["sample/rotation_angle"].attrs["units"] = "deg"
            instrument["detector/data"] = data["data"]
        return file

    def _flush(self, now: float) -> None:
        if self._file is None or not self._kept:
            return
        kept, self._kept = self._kept, []
        try:
            _extend(self._file, kept)
            self._file.flush()
        except (OSError, RuntimeError) as error:
            raise _not_written(self._path, error) from error
        self._flushed_at = now

    def _close(self) -> None:
        if self._file is None:
            return
        self._flush(time.monotonic())
        try:
            self._file.close()
            self._file = None
            finish(self._path)
        except (OSError, RuntimeError) as error:
            raise _not_written(self._path, error) from error

    def salvage(self) -> int:
        """Write the whole frames of files that a dead process left anew; return how many files there were."""
        count = 0
        for path in sorted(self._folder.glob("*.h5")):
            whole = path.with_name(f"{path.stem}-salvaged.h5")
            if mark_of(path).exists() or path.stem.endswith("-salvaged") or mark_of(whole).exists():
                continue
            whole.unlink(missing_ok=True)  # of a salvage that was interrupted
            with suppress(OSError, RuntimeError, KeyError), h5py.File(path, "r", swmr=True, locking=False) as file:
                self._salvage(file, whole)
                count += 1
        return count

    def _salvage(self, file: h5py.File, whole: Path) -> None:
        data = file["entry/data/data"]
        length = min(
            data.shape[0], *(file[f"entry/data/{name}"].shape[0] for name in ("frame_number", "frame_time"))
        )
        if not length:
            return
        values = _values_in(file)

        def frame(at: int) -> Frame:
            number, when = (file[f"entry/data/{name}"][at] for name in ("frame_number", "frame_time"))
            given = {name: float(each[at]) for name, each in values.items()}
            return Frame(int(number), _image_at(data, at), float(when), given)

        with self._made(whole, frame(0), is_live=False) as made:
            for at in range(length):
                _extend(made, [frame(at)])
        finish(whole)


def finish(path: Path) -> None:
    """Make a closed file durable, and mark it."""
    for each in (path, path.parent):
        descriptor = os.open(each, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    mark_of(path).touch()


def mark_of(path: Path) -> Path:
    """Return the mark of a file."""
    return path.with_name(MARK.format(name=path.name))


def _extend(file: h5py.File, frames: Iterable[Frame]) -> None:
    """Append frames, the data last: a reader that sees a frame finds its number and time."""
    stack = list(frames)
    values = {
        "entry/data/frame_number": np.array([each.number for each in stack], np.int64),
        "entry/data/frame_time": np.array([each.at for each in stack], np.float64),
    }
    for name in _values_in(file):
        missing = 3.0 if name == "image_key" else np.nan
        values[_place_of(name)] = np.array([each.values.get(name, missing) for each in stack])
    for name, added in values.items():
        into = file[name]
        begin = into.shape[0]
        into.resize(begin + len(stack), axis=0)
        into[begin:] = added
    data = file["entry/data/data"]
    begin = data.shape[0]
    data.resize(begin + len(stack), axis=0)
    if isinstance(stack[0].data, Packed):
        for at, each in enumerate(stack, begin):
            data.id.write_direct_chunk((at, 0, 0), each.data.chunk)
    else:
        data[begin:] = np.stack([each.data for each in stack])


def _kind(data: Any) -> tuple[tuple[int, ...], str, str]:
    """Return the shape, the type and the codec that all frames of a file share."""
    if isinstance(data, Packed):
        return data.shape, str(data.dtype), data.codec
    return np.shape(data), str(np.asarray(data).dtype), ""


def _image_at(data: h5py.Dataset, at: int) -> Any:
    """Return a frame that was written; a compressed one as it is."""
    plan = data.id.get_create_plist()
    for codec, (number, _) in FILTERS.items():
        if plan.get_nfilters() and plan.get_filter(0)[0] == number:
            return Packed(data.shape[1:], data.dtype, codec, data.id.read_direct_chunk((at, 0, 0))[1])
    return data[at]


def _place_of(name: str) -> str:
    """Return where a frame's value is kept; empty for a name that no file can have."""
    return SCAN.get(name) or (f"{_ATTRIBUTES}/{_safe(name)}" if _safe(name) == name else "")


def _values_in(file: h5py.File) -> dict[str, Any]:
    """Return where the values of frames are in a file, by their names."""
    found = {name: file.get(place) for name, place in SCAN.items()}
    group = file.get(_ATTRIBUTES)
    found |= dict(group.items()) if isinstance(group, h5py.Group) else {}
    return {name: each for name, each in found.items() if isinstance(each, h5py.Dataset)}


def _free(folder: Path, name: str) -> str:
    number, stem = 1, name
    while _is_used(folder / f"{stem}.h5"):
        number += 1
        stem = f"{name}_{number}"
    return stem


def _is_used(path: Path) -> bool:
    """True for a name that a file has or had: the mark of one that was removed would call a new one complete."""
    return path.exists() or mark_of(path).exists()


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._")[:100]


def _not_written(path: Path, error: Exception) -> StorageError:
    if "No space left" in str(error) or "Disk quota" in str(error):
        return StoreFull(f"{path}: no room for frames", remedy="free space in the spool folder")
    return StorageError(f"{path}: cannot be written: {str(error)[:200]}", remedy="check the spool folder")
