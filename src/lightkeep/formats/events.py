"""Event tables in HDF5: one row per event, for detectors without a format of their own here (Timepix).

The group `/entry/events`, or `/events`, holds columns of one length:

- `frame`, ascending, or `t`, the time of arrival, ascending: seconds, or what its attribute `units` says;
- `pixel` (row * columns + column), or `x` (column) and `y` (row);
- `count`, the photons of the event; 1 where the column is missing;

and the attribute `shape`, (rows, columns) of the detector. Times become frames of `bin_time_s` seconds: said when
the file is opened, or an attribute of the group, or else the frame time that the metadata give; time 0 is the
attribute `t_begin`, if any. The frame of the last event is not complete, and left out. Where nobody says how long
a frame is, there are none until a run does. The attribute `frames` may say how many were measured.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import DTypeLike, NDArray

from lightkeep.formats import hdf5, metadata_8id
from lightkeep.formats.eiger import QUANTITIES, TEXTS, is_written
from lightkeep.formats.frame_stack import Events, EventStack, Progress, events_of
from lightkeep.formats.hdf5_format import Hdf5Format
from lightkeep.formats.metadata import gather, held, units_of
from lightkeep.formats.run_source import TECHNIQUE, not_written, run_source, wait_for
from lightkeep.model.errors import BadFile
from lightkeep.model.formats import Source
from lightkeep.model.quantity import Quantity, si_factor

if TYPE_CHECKING:
    from lightkeep.analysis.xpcs.blocks import EventBlock, FrameBlock

_PLACES = ("entry/events", "events")
_CHUNK = 1 << 16
"""Events of a chunk that we write, and between two that the index knows."""
_LAST_FRAME = np.iinfo(np.uint32).max


class EventTable(Hdf5Format):
    """Reader of tables of events."""

    name: ClassVar[str] = "events"

    def holds(self, file: h5py.File) -> bool:
        """True when there is a group of events with a column that orders them and one that places them."""
        return _group(file) is not None

    def open(self, path: Path, *, bin_time_s: float | None = None) -> Source:
        """Open a run; see `Hdf5Format.open`.

        Parameters
        ----------
        bin_time_s: length of a frame, for tables with times; the file's own where it is None.
        """
        file = hdf5.open_safe(path, [path.parent])
        return self._opened(path, file, bin_time_s, is_live=False)

    def open_live(self, path: Path, *, bin_time_s: float | None = None, wait_s: float = 5.0) -> Source:
        """Open a run that is still being written with SWMR, waiting until it can be; `follow` its frames."""
        return wait_for(lambda: self._opened(path, hdf5.open_growing(path), bin_time_s, is_live=True), wait_s)

    def source(self, path: Path, file: h5py.File) -> Source:
        """Return the run; see `open`."""
        return _source(path, file, None, is_live=False)

    def _opened(self, path: Path, file: h5py.File, bin_time_s: float | None, *, is_live: bool) -> Source:
        try:
            with hdf5.reading(path):
                return _source(path, file, bin_time_s, is_live=is_live)
        except BaseException:
            file.close()
            raise


FORMAT = EventTable()


@dataclass(frozen=True)
class _Clock:
    """How the column that orders the events becomes frames."""

    bin: float | None
    """Length of a frame in the column's unit; None: the column holds frames."""
    begin: float | int = 0
    """Time 0 in the column's unit."""

    def frames(self, values: NDArray[Any]) -> NDArray[np.int64]:
        """Return the frame of each value; whole ticks are divided exactly."""
        if self.bin is None:
            return values.astype(np.int64)
        if values.dtype.kind in "iu" and self.bin == int(self.bin) and self.begin == int(self.begin):
            return (values.astype(np.int64) - int(self.begin)) // int(self.bin)
        return np.floor((values - self.begin) / self.bin).astype(np.int64)


class EventTableStack(EventStack):
    """The events of a table, by frame; every 65536th event's frame is remembered once it was looked up."""

    def __init__(self, path: Path, file: h5py.File, group: h5py.Group, clock: _Clock, *, is_live: bool) -> None:
        super().__init__(path, _shape(path, group), np.uint32)
        self._file = file
        self._clock = clock
        self._order: h5py.Dataset = group["frame"] if clock.bin is None else group["t"]
        self._place = [group[name] for name in (("pixel",) if "pixel" in group else ("x", "y"))]
        self._value: h5py.Dataset | None = group.get("count")
        self._columns = [self._order, *self._place, *([self._value] if self._value else [])]
        self._is_live = is_live
        self._marks: dict[int, int] = {}
        self._grow()
        if not is_live:
            self._frames = self._complete()

    def look(self) -> Progress:
        """Frames are complete up to the latest event's: more of it may come."""
        self._grow()
        last = self._frame(self._rows - 1) if self._rows else 0
        self._frames = max(self._frames, last)
        return Progress(self._frames, last + (self._rows > 0), self._rows, not is_written(self.path))

    def finish(self) -> int:
        """Return the number of frames."""
        self._grow()
        return self._complete()

    def close(self) -> None:
        """Free the file."""
        self._file.close()

    def _grow(self) -> None:
        if self._is_live:
            for column in self._columns:
                column.refresh()
        lengths = [int(column.shape[0]) for column in self._columns]
        if len(set(lengths)) > 1 and not self._is_live:
            names = ", ".join(f"{column.name} {size}" for column, size in zip(self._columns, lengths, strict=True))
            raise BadFile(f"{self.path}: columns of different length: {names}", remedy="write all of each event")
        self._rows = min(lengths)

    def _complete(self) -> int:
        """Frames, the last event's included; a frame of time that the last event is in has not ended."""
        if not self._rows:
            return 0
        first, last = self._frame(0), self._frame(self._rows - 1)
        if first < 0:
            raise self._disordered(0, first)
        if not first <= last < _LAST_FRAME:
            raise self._disordered(self._rows - 1, last)
        return last if self._clock.bin is not None else last + 1

    def _frame(self, row: int) -> int:
        with hdf5.reading(self.path):
            return int(self._clock.frames(self._order[row : row + 1])[0])

    def _mark(self, number: int) -> int:
        if number not in self._marks:
            self._marks[number] = self._frame(number * _CHUNK)
        return self._marks[number]

    def _find(self, frame: int) -> int:
        """Number of the first event in this frame or a later one."""
        low, high = 0, -(-self._rows // _CHUNK)
        while low < high:  # the first mark that is not before the frame
            middle = (low + high) // 2
            low, high = (low, middle) if self._mark(middle) >= frame else (middle + 1, high)
        if low == 0:
            return 0
        begin = (low - 1) * _CHUNK
        with hdf5.reading(self.path):
            frames = self._clock.frames(self._order[begin : min(begin + _CHUNK, self._rows)])
        return begin + int(np.searchsorted(frames, frame))

    def _count(self, begin: int, end: int) -> int:
        return self._find(end) - self._find(begin)

    def _events(self, begin: int, end: int) -> Events:
        first, last = self._find(begin), self._find(end)
        here = slice(first, last)
        with hdf5.reading(self.path):
            frames = self._clock.frames(self._order[here])
            place = [column[here].astype(np.int64) for column in self._place]
            value = self._value[here] if self._value else np.ones(last - first, np.uint16)
        self._check(first, frames, place, value, begin=begin, end=end)
        pixel = place[0] if len(place) == 1 else place[1] * self._frame_shape[1] + place[0]
        kept = value.astype(np.uint16 if value.max(initial=0) <= np.iinfo(np.uint16).max else np.uint32)
        return frames.astype(np.uint32), pixel.astype(np.uint32), kept

    def _check(
        self,
        first: int,
        frames: NDArray[np.int64],
        place: list[NDArray[np.int64]],
        value: NDArray[Any],
        *,
        begin: int,
        end: int,
    ) -> None:
        back = np.flatnonzero((np.diff(frames, prepend=begin) < 0) | (frames >= end))
        if back.size:
            raise self._disordered(first + int(back[0]), int(frames[back[0]]))
        rows, columns = self._frame_shape
        limits = (rows * columns,) if len(place) == 1 else (columns, rows)
        for values, limit in zip(place, limits, strict=True):
            bad = np.flatnonzero((values < 0) | (values >= limit))
            if bad.size:
                raise BadFile(
                    f"{self.path}: event {first + int(bad[0])} of frame {frames[bad[0]]} is at {values[bad[0]]},"
                    f" beyond the detector of {rows} x {columns} pixels",
                    remedy="correct the attribute shape, or the event",
                )
        if value.size and value.min() < 0:
            at = int(np.argmin(value))
            raise BadFile(f"{self.path}: event {first + at} has a count of {value[at]}", remedy="write counts")

    def _disordered(self, row: int, frame: int) -> BadFile:
        return BadFile(
            f"{self.path}: event {row} is of frame {frame}, out of order",
            remedy="sort the events by frame, or by time, from 0 on",
        )


def _group(file: h5py.File) -> h5py.Group | None:
    for place in _PLACES:
        group = file.get(place) if hdf5.has(file, place) else None
        if isinstance(group, h5py.Group) and _is_table(group):
            return group
    return None


def _is_table(group: h5py.Group) -> bool:
    columns = {name for name in ("frame", "t", "pixel", "x", "y", "count") if name in group}
    if not columns & {"frame", "t"} or not ("pixel" in columns or {"x", "y"} <= columns):
        return False
    nodes = [hdf5.own(group, name) for name in columns]
    return all(isinstance(node, h5py.Dataset) and node.ndim == 1 and node.dtype.kind in "iuf" for node in nodes)


def _shape(path: Path, group: h5py.Group) -> tuple[int, int]:
    shape = np.ravel(group.attrs.get("shape", ()))
    if shape.size != 2 or shape.dtype.kind not in "iu" or min(shape) < 1 or max(shape) > 1 << 16:
        raise BadFile(
            f"{path}: {group.name} does not say the detector's shape",
            remedy="give the group an attribute shape: (rows, columns)",
        )
    return int(shape[0]), int(shape[1])


def _source(path: Path, file: h5py.File, bin_time_s: float | None, *, is_live: bool) -> Source:
    group = _group(file)
    if group is None:
        raise BadFile(
            f"{path}: no table of events (the file holds: {held(file)})",
            remedy="write /entry/events with frame or t, and pixel or x and y",
        )
    found = gather(file, QUANTITIES, TEXTS)
    metadata_8id.complete(path, found)
    clock = _Clock(None)
    if "frame" not in group or bin_time_s is not None:
        measured = found.quantities.get("frame_time", Quantity.of(np.nan, "s")).value_si
        given = group.attrs.get("bin_time_s", measured) if bin_time_s is None else bin_time_s
        if given is measured and np.isnan(measured) and not is_live:
            _shape(path, group)
            found.notes.append(
                "it has times of events and does not say how long a frame is: a run needs bin_time_s"
            )
            return Source(path, FORMAT.name, TECHNIQUE, {}, found.metadata(), file)
        clock, seconds = _clock(path, group, given)
        found.quantities["frame_time"] = Quantity.of(seconds, "s")
    stack = EventTableStack(path, file, group, clock, is_live=is_live)
    if stack.shape[0] == 0 and not is_live:
        raise BadFile(f"{path}: holds no events of a whole frame", remedy="check that the run was measured")
    promised = group.attrs.get("frames")
    if isinstance(promised, int | np.integer):
        found.quantities["frames"] = Quantity.of(float(promised))
    return run_source(path, FORMAT.name, stack, found, is_live=is_live)


def _clock(path: Path, group: h5py.Group, bin_time_s: Any) -> tuple[_Clock, float]:
    """How times become frames, and the length of a frame in seconds."""
    if "t" not in group:
        raise BadFile(f"{path}: {group.name} has frames and no times", remedy="open it without a bin time")
    seconds = float(np.ravel(bin_time_s)[0])
    if not (np.isfinite(seconds) and seconds > 0):
        raise BadFile(
            f"{path}: {group.name} has times and does not say how long a frame is",
            remedy="give the run bin_time_s, or the group an attribute of this name",
        )
    unit = units_of(group["t"]) or "s"
    factor, unit_si = si_factor(unit) or (1.0, "")
    if unit_si != "s":
        raise BadFile(f"{path}: times in {unit}", remedy="write s, ms, us, ns or ps as the units of t")
    length = float(f"{seconds / factor:.12g}")
    begin = np.ravel(group.attrs.get("t_begin", 0))[0]
    return _Clock(length, int(begin) if begin.dtype.kind in "iu" else float(begin)), seconds


# ---- writing, for detectors and the simulated beamline


def write_run(
    path: Path,
    blocks: Iterable[FrameBlock | EventBlock],
    *,
    shape: tuple[int, int],
    frame_time_s: float | None = None,
) -> Path:
    """Write `/entry/events` with frame, pixel and count, block by block; a reader may follow it (SWMR).

    Parameters
    ----------
    blocks: in frame order; a generator sets the pace.
    shape: rows and columns.

    Raises
    ------
    ValueError: frames of another shape.
    StoreFull: no room. StorageError: it cannot be written.
    """
    kinds = {"frame": np.uint32, "pixel": np.uint32, "count": np.uint16}
    facts = {} if frame_time_s is None else {"entry/instrument/detector/frame_time": (frame_time_s, "s")}
    with _table(path, kinds, {"shape": shape}, facts) as append:
        for block in blocks:
            if tuple(block.shape) != tuple(shape):
                raise ValueError(
                    f"frames of {block.shape[0]} x {block.shape[1]} pixels, not {shape[0]} x {shape[1]}"
                )
            append(*events_of(block))
    return path


def write_times(
    path: Path,
    pieces: Iterable[tuple[NDArray[Any], NDArray[Any]]],
    *,
    shape: tuple[int, int],
    unit: str = "ns",
    bin_time_s: float | None = None,
) -> Path:
    """Write `/entry/events` with t (uint64, in `unit`) and pixel, piece by piece; a reader may follow it (SWMR).

    Parameters
    ----------
    pieces: (times, pixels) of some events, ascending in time; a generator sets the pace.
    shape: rows and columns.

    Raises
    ------
    StoreFull: no room. StorageError: it cannot be written.
    """
    marked = {"shape": shape} | ({} if bin_time_s is None else {"bin_time_s": bin_time_s})
    with _table(path, {"t": np.uint64, "pixel": np.uint32}, marked, {}, unit) as append:
        for times, pixels in pieces:
            append(times, pixels)
    return path


@contextlib.contextmanager
def _table(
    path: Path,
    kinds: Mapping[str, DTypeLike],
    marked: Mapping[str, Any],
    facts: Mapping[str, tuple[float, str]],
    unit: str = "",
) -> Iterator[Callable[..., None]]:
    """Open a table to write; gives what appends some events, one array per column."""
    try:
        with h5py.File(path, "w", libver="latest") as file:
            for place, (value, units) in facts.items():
                file[place] = value
                file[place].attrs["units"] = units
            group = file.create_group(_PLACES[0])
            group.attrs.update(marked)
            columns = [
                group.create_dataset(
                    name, (0,), kind, maxshape=(None,), chunks=(_CHUNK,), **hdf5plugin.Bitshuffle(cname="lz4")
                )
                for name, kind in kinds.items()
            ]
            if unit:
                columns[0].attrs["units"] = unit
            file.swmr_mode = True
            yield functools.partial(_append, file, columns)
    except OSError as error:
        raise not_written(path, error) from error


def _append(file: h5py.File, columns: Sequence[h5py.Dataset], *values: NDArray[Any]) -> None:
    """Append to the last column first: a follower counts the events that every column has."""
    begin = columns[0].shape[0]
    for column, content in zip(reversed(columns), reversed(values), strict=True):
        column.resize(begin + len(content), axis=0)
        column[begin:] = content
    file.flush()
