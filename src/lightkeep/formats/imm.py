"""IMM: the frames of 8-ID's older detectors, dense or sparse, one record after another.

A record is a header of 1024 bytes, little-endian, and its payload: dense, `dlen` uint16 values; sparse (any
compression but 0, in practice 6), `dlen` int32 pixels (`row * columns + column`), then as many int16 counts. There
is no file header: records are found by walking from one to the next, and record k is frame k.
"""

from __future__ import annotations

import functools
import os
import struct
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lightkeep.formats import metadata_8id
from lightkeep.formats.frame_stack import DenseStack, Events, EventStack, Progress, Task, events_of, frames_of
from lightkeep.formats.metadata import Gathered
from lightkeep.formats.reader import Reader
from lightkeep.formats.run_source import not_written, open_to_read, run_source, wait_for
from lightkeep.formats.text import one_line
from lightkeep.model.errors import BadFile, SourceError
from lightkeep.model.formats import Source
from lightkeep.model.quantity import Quantity

if TYPE_CHECKING:
    from lightkeep.analysis.xpcs.blocks import EventBlock, FrameBlock

HEADER_BYTES = 1024
SPARSE = 6
"""What detectors write as compression of sparse records; any other than 0 is read as sparse too."""
_FIELDS = struct.Struct("<4xi100xiii8xd16xI4xi")
"""compression 4, rows 108, columns 112, bytes per value 116, elapsed 128, dlen 152, buffer number 160."""
_NUMBERS = {
    "mode": (0, "<i"),
    "row_begin": (84, "<i"),
    "row_end": (88, "<i"),
    "column_begin": (92, "<i"),
    "column_end": (96, "<i"),
    "row_binning": (100, "<i"),
    "column_binning": (104, "<i"),
    "preset": (136, "<d"),
    "imm_version": (616, "<i"),
    "core_co_tick": (620, "<i"),
    "threshold": (628, "<f"),
}
"""Header fact -> (offset, type): kept of the first record."""
_WINDOW = 1 << 20
_READ_BYTES = 16 << 20
_TASK_BYTES = 1 << 18
_LARGEST = 1 << 28
"""Pixels of a frame at most: what announces more is no header."""


class Imm(Reader):
    """Reader of dense and sparse runs."""

    name: ClassVar[str] = "imm"

    def matches(self, path: Path) -> bool:
        """True when it is called `.imm` and begins with a header."""
        if path.suffix.lower() != ".imm":
            return False
        try:
            with path.open("rb") as file:
                head = file.read(HEADER_BYTES)
        except OSError:
            return False
        return len(head) == HEADER_BYTES and _Header.of(head) is not None

    def open(self, path: Path) -> Source:
        """Open a run; its metadata file is read where one is beside it.

        Raises
        ------
        SourceError: missing or unreadable.
        BadFile: a record is cut short, is not a record, or differs in shape or kind from the first.
        """
        return _source(path, is_live=False)

    def open_live(self, path: Path, *, wait_s: float = 5.0) -> Source:
        """Open a run that is still being written, waiting for its first record; `follow` its frames."""
        return wait_for(lambda: _source(path, is_live=True), wait_s)


FORMAT = Imm()


@dataclass(frozen=True, slots=True)
class _Header:
    """What a record says about itself, as far as it decides how it is read."""

    is_sparse: bool
    shape: tuple[int, int]
    count: int
    elapsed: float
    buffer: int

    @classmethod
    def of(cls, head: bytes) -> _Header | None:
        """Return what the header says; None when it cannot be one."""
        compression, rows, columns, size, elapsed, count, buffer = _FIELDS.unpack_from(head)
        if rows <= 0 or columns <= 0 or rows * columns > _LARGEST or count > rows * columns:
            return None
        if compression == 0 and (count != rows * columns or size not in (0, 2)):
            return None
        return cls(compression != 0, (rows, columns), count, elapsed, buffer)

    @property
    def payload(self) -> int:
        """Bytes after the header."""
        return self.count * (6 if self.is_sparse else 2)


class _Records:
    """The records of a file, found by walking; memory is 12 bytes for each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.begins = array("Q")
        """Where each payload begins."""
        self.counts = array("I")
        """Values or events of each."""
        self.first: _Header | None = None
        self.last: _Header | None = None
        self.size = 0
        self._next = 0
        self._window, self._window_at = b"", 0
        self.fd = open_to_read(path)

    def grow(self) -> None:
        """Walk over the records that are complete by now."""
        self.size = os.fstat(self.fd).st_size
        while self._next + HEADER_BYTES <= self.size:
            header = self._header(self._next)
            end = self._next + HEADER_BYTES + header.payload
            if end > self.size:
                return
            self.first = self.first or header
            self.last = header
            self.begins.append(self._next + HEADER_BYTES)
            self.counts.append(header.count)
            self._next = end

    def finish(self) -> None:
        """Raise BadFile when the last record is not complete, now that nothing more will come."""
        missing = self.size - self._next
        if missing:
            raise BadFile(
                f"{self.path}: record {len(self.begins)} is cut short: {missing} bytes at {self._next}",
                remedy="copy the file again from where it was measured, or cut that record off",
            )

    def read(self, begin: int, size: int) -> bytes:
        """Return bytes of the file."""
        content = os.pread(self.fd, size, begin)
        if len(content) != size:
            raise self.shorter()
        return content

    def shorter(self) -> SourceError:
        """Return the error for a file that lost bytes."""
        return SourceError(f"{self.path}: became shorter while it was read", remedy="read it again")

    def close(self) -> None:
        """Free the file."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _header(self, at: int) -> _Header:
        """Return the header there; small records are walked inside a window, without a system call for each."""
        offset = at - self._window_at
        if not 0 <= offset <= len(self._window) - HEADER_BYTES:
            is_near = 0 <= offset <= 2 * _WINDOW
            self._window = self.read(at, min(_WINDOW if is_near else HEADER_BYTES, self.size - at))
            self._window_at, offset = at, 0
        header = _Header.of(self._window[offset : offset + HEADER_BYTES])
        if header is None:
            raise BadFile(
                f"{self.path}: record {len(self.begins)} at byte {at} has no IMM header",
                remedy="copy the file again from where it was measured",
            )
        if self.first and (header.is_sparse, header.shape) != (self.first.is_sparse, self.first.shape):
            raise BadFile(
                f"{self.path}: record {len(self.begins)} has {_kind(header)}, the first one {_kind(self.first)}",
                remedy="keep runs of different shape or kind in files of their own",
            )
        return header


class ImmDense(DenseStack):
    """Frames that are stored whole."""

    def __init__(self, records: _Records, shape: tuple[int, int]) -> None:
        super().__init__(records.path, shape, np.uint16)
        self._records = records
        self._frames = len(records.begins)

    def look(self) -> Progress:
        """Frames are complete when their record is."""
        self._records.grow()
        self._frames = len(self._records.begins)
        return Progress(self._frames, self._frames, self._records.size, not self.path.exists())

    def finish(self) -> int:
        """Return the number of frames."""
        self._records.finish()
        return self._frames

    def close(self) -> None:
        """Free the file."""
        self._records.close()

    def _tasks(self, begin: int, frames: NDArray[Any]) -> Iterator[Task]:
        step = max(1, _TASK_BYTES // frames[0].nbytes)
        for at in range(0, len(frames), step):
            yield functools.partial(self._read, begin + at, frames[at : at + step])

    def _read(self, begin: int, frames: NDArray[Any]) -> None:
        for number, frame in enumerate(frames, begin):
            if os.preadv(self._records.fd, [frame.data], self._records.begins[number]) != frame.nbytes:
                raise self._records.shorter()


class ImmSparse(EventStack):
    """Frames of which the pixels that counted are stored."""

    def __init__(self, records: _Records, shape: tuple[int, int]) -> None:
        super().__init__(records.path, shape, np.uint16)
        self._records = records
        self._totals = array("Q", [0])
        self._add_up()

    def look(self) -> Progress:
        """Frames are complete when their record is."""
        self._records.grow()
        self._add_up()
        return Progress(self._frames, self._frames, self._records.size, not self.path.exists())

    def finish(self) -> int:
        """Return the number of frames."""
        self._records.finish()
        return self._frames

    def close(self) -> None:
        """Free the file."""
        self._records.close()

    def _add_up(self) -> None:
        for count in self._records.counts[len(self._totals) - 1 :]:
            self._totals.append(self._totals[-1] + count)
        self._frames = len(self._records.begins)

    def _count(self, begin: int, end: int) -> int:
        return self._totals[end] - self._totals[begin]

    def _events(self, begin: int, end: int) -> Events:
        counts = np.array(self._records.counts[begin:end], np.int64)
        pixel, value = np.empty(counts.sum(), np.uint32), np.empty(counts.sum(), np.uint16)
        for number, content in self._payloads(begin, end):
            count = self._records.counts[number]
            here = slice(
                self._totals[number] - self._totals[begin], self._totals[number + 1] - self._totals[begin]
            )
            pixel[here] = np.frombuffer(content, "<u4", count)
            value[here] = np.frombuffer(content, "<u2", count, 4 * count)
        frame = np.repeat(np.arange(begin, end, dtype=np.uint32), counts)
        self._check(frame, pixel, value)
        return frame, pixel, value

    def _payloads(self, begin: int, end: int) -> Iterator[tuple[int, memoryview]]:
        """(record, payload), read many records at a time."""
        begins, counts = self._records.begins, self._records.counts
        first = begin
        while first < end:
            last = first + 1
            while last < end and begins[last] + 6 * counts[last] - begins[first] <= _READ_BYTES:
                last += 1
            size = begins[last - 1] + 6 * counts[last - 1] - begins[first]
            content = memoryview(self._records.read(begins[first], size))
            for number in range(first, last):
                at = begins[number] - begins[first]
                yield number, content[at : at + 6 * counts[number]]
            first = last

    def _check(self, frame: NDArray[np.uint32], pixel: NDArray[np.uint32], value: NDArray[np.uint16]) -> None:
        pixels = self._frame_shape[0] * self._frame_shape[1]
        bad = pixel >= pixels
        if bad.any():
            at = int(np.argmax(bad))
            raise BadFile(
                f"{self.path}: record {frame[at]} has an event at pixel {pixel.view(np.int32)[at]}, beyond the"
                f" detector's {pixels} pixels",
                remedy="check that the file was written by its detector",
            )
        if value.size and value.max() > np.iinfo(np.int16).max:
            at = int(np.argmax(value > np.iinfo(np.int16).max))
            raise BadFile(
                f"{self.path}: record {frame[at]} has a count of {value.view(np.int16)[at]}",
                remedy="write the counts as they were measured, without the dark",
            )


def _source(path: Path, *, is_live: bool) -> Source:
    records = _Records(path)
    try:
        records.grow()
        if not is_live:
            records.finish()
        if records.first is None or records.last is None:
            raise BadFile(f"{path}: holds no whole record", remedy="check that the run was measured")
        kind = ImmSparse if records.first.is_sparse else ImmDense
        stack = kind(records, records.first.shape)
        found, guesses = _gathered(records, records.first, records.last)
        metadata_8id.complete(path, found)
        return run_source(path, FORMAT.name, stack, found, guesses=guesses, is_live=is_live)
    except BaseException:
        records.close()
        raise


def _gathered(records: _Records, first: _Header, last: _Header) -> tuple[Gathered, Mapping[str, Quantity]]:
    """What the headers say; times count only where nobody else gives them, as their units are not certain."""
    head = records.read(records.begins[0] - HEADER_BYTES, HEADER_BYTES)
    facts: dict[str, Any] = {}
    for name, (offset, kind) in _NUMBERS.items():
        (value,) = struct.unpack_from(kind, head, offset)
        facts[f"header/{name}"] = value if np.isfinite(value) else str(value)
    facts["header/date"] = one_line(head[8:40].split(b"\0")[0])
    found = Gathered(rest=facts)
    count = len(records.begins)
    skipped = last.buffer - first.buffer + 1 - count
    if first.buffer < last.buffer and skipped > 0:
        found.notes.append(f"the records' numbers skip {skipped} frames: they may have been dropped")
    guesses = {}
    step = (last.elapsed - first.elapsed) / max(1, count - 1)
    for name, value in {"frame_time": step, "exposure_time": facts["header/preset"]}.items():
        if isinstance(value, float) and np.isfinite(value) and value > 0:
            guesses[name] = Quantity.of(value, "s")
    return found, guesses


def _kind(header: _Header) -> str:
    return f"{'sparse' if header.is_sparse else 'dense'} frames of {header.shape[0]} x {header.shape[1]} pixels"


# ---- writing, for detectors and the simulated beamline


def write_run(
    path: Path,
    blocks: Iterable[FrameBlock | EventBlock],
    *,
    shape: tuple[int, int],
    is_sparse: bool = True,
    frame_time_s: float = 0.0,
    exposure_time_s: float = 0.0,
) -> Path:
    """Write a run record by record; each block is in the file when the next one is asked for.

    Parameters
    ----------
    blocks: in frame order; a generator sets the pace.
    shape: rows and columns. is_sparse: only the pixels that counted, or all.
    frame_time_s, exposure_time_s: go into the headers as `elapsed` and `preset`.

    Raises
    ------
    ValueError: frames of another shape, or counts that 16 bits (sparse: 15) do not hold.
    StoreFull: no room. StorageError: it cannot be written.
    """
    records = _sparse_records if is_sparse else _dense_records
    try:
        with path.open("wb", buffering=_WINDOW) as file:
            for block in blocks:
                for number, count, payload in records(block, shape):
                    head = bytearray(HEADER_BYTES)
                    kind = SPARSE if is_sparse else 0
                    _FIELDS.pack_into(head, 0, kind, *shape, 2, number * frame_time_s, count, number)
                    struct.pack_into("<d", head, 136, exposure_time_s)
                    struct.pack_into("<i", head, 616, 12)
                    file.write(head)
                    file.write(payload)
                file.flush()
    except OSError as error:
        raise not_written(path, error) from error
    return path


def _dense_records(block: FrameBlock | EventBlock, shape: tuple[int, int]) -> Iterator[tuple[int, int, bytes]]:
    for number, frame in enumerate(frames_of(block, shape, np.dtype("<u2")), block.begin):
        yield number, frame.size, frame.tobytes()


def _sparse_records(block: FrameBlock | EventBlock, shape: tuple[int, int]) -> Iterator[tuple[int, int, bytes]]:
    if tuple(block.shape) != tuple(shape):
        raise ValueError(f"frames of {block.shape[0]} x {block.shape[1]} pixels, not {shape[0]} x {shape[1]}")
    frame, pixel, value = events_of(block)
    if value.size and (value.max() > np.iinfo(np.int16).max or value.min() < 0):
        raise ValueError(f"counts from {value.min()} to {value.max()} do not fit into 15 bits")
    ends = np.searchsorted(frame, np.arange(block.begin, block.begin + block.count + 1))
    for number in range(block.count):
        here = slice(ends[number], ends[number + 1])
        payload = pixel[here].astype("<i4").tobytes() + value[here].astype("<i2").tobytes()
        yield block.begin + number, int(ends[number + 1] - ends[number]), payload
