"""From blocks as they come to chunks as the multi-tau kernels want them: selected, averaged, cut at fixed
frames."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.simd.units import Units, packed
from lightkeep.analysis.xpcs.blocks import Block, EventBlock, FrameBlock
from lightkeep.analysis.xpcs.kernels.event_job import Sorting
from lightkeep.analysis.xpcs.kernels.layout import Layout
from lightkeep.analysis.xpcs.kernels.state import CHUNK
from lightkeep.analysis.xpcs.kernels.work import Piece

KINDS: Final = ("uint8", "uint16", "uint32", "float32")
"""Counts that the kernels take as they are; all others become float32."""
UNITS: Final = Units(
    "lightkeep.analysis.xpcs.kernels", {"count_events": "event_sort", "place_events": "event_sort"}
)
SATURATED_EVENT: Final = np.float32(2**32)
_NO_EVENTS: Final = (np.zeros((0, 0), np.int64), np.zeros(0, np.uint64))

Columns = tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.float32]]
"""Frame, pixel and counts of events, in the order of frames."""


class Chunks:
    """Takes blocks in the order of frames and gives pieces of whole chunks; the rest of a run is `rest()`."""

    def __init__(self, layout: Layout, *, begin: int, end: int | None, stride: int, average: int) -> None:
        self._layout = layout
        self._begin, self._end, self._stride, self._average = begin, end, stride, average
        self.expected: int | None = None
        """Detector frame that should come next; None before the first block."""
        self.frames = 0
        """Frames taken, of which the last ones may be in no piece yet; an average not yet complete is not
        counted."""
        self.limit = np.inf
        """Count at which a pixel is saturated."""
        self.dtype: np.dtype[Any] | None = None
        """Of the counts in pieces; None before the first block."""
        self.is_float = False
        self._kind: type[Block] | None = None
        self._raw = np.dtype(np.uint8)
        self._shape: tuple[int, int] | None = None
        self._done = 0  # chunks that were given away
        self._selected = 0  # detector frames that were taken
        self._buffer = np.zeros((0, 0))
        self._left: NDArray[Any] = np.zeros((0, 0))  # frames of an average that is not complete
        self.is_whole = True
        """Events so far are whole counts."""
        self._events: list[Columns] = []

    def push(self, block: Block) -> Iterator[Piece]:
        """Take a block; give the chunks that it completes.

        Raises
        ------
        ValueError: the block does not follow the last one, or is of another kind, shape or dtype.
        """
        self._check(block)
        self.expected = block.begin + block.count
        first = max(0, -(-(block.begin - self._begin) // self._stride)) * self._stride + self._begin
        stop = self.expected if self._end is None else min(self.expected, self._end)
        if first >= stop:
            return
        if isinstance(block, EventBlock):
            yield from self._push_events(block, first, stop)
        else:
            yield from self._push_frames(block.frames[first - block.begin : stop - block.begin : self._stride])

    def whole(self, block: FrameBlock) -> Piece:
        """All of a run in one piece, without averaging and in one of the kernels' dtypes."""
        self._check(block)
        self.expected = block.count
        frames = block.frames[self._begin : self._end : self._stride]
        self.frames = len(frames)
        flat = frames.reshape(len(frames), int(np.prod(frames.shape[1:])))
        return self._piece(flat[:, self._layout.begin : self._layout.end])

    def rest(self) -> Piece:
        """The frames after the last whole chunk."""
        count = self.frames - self._done * CHUNK
        if self._kind is EventBlock:
            return self._event_piece(1 if count else 0, count)
        return self._piece(self._buffer[:count] if count else np.zeros((0, 1), self.dtype))

    def _check(self, block: Block) -> None:
        if self.expected is None and block.begin > self._begin:
            raise ValueError(f"the run should begin at frame {self._begin}, the block begins at {block.begin}")
        if self.expected is not None and block.begin != self.expected:
            raise ValueError(
                f"frame {self.expected} should come next, the block begins at frame {block.begin}: "
                "blocks must follow one another"
            )
        kind: type[Block] = EventBlock if isinstance(block, EventBlock) else FrameBlock
        counts = block.value if isinstance(block, EventBlock) else block.frames
        if self._kind is None:
            self._kind, self._shape, self._raw = kind, block.shape, counts.dtype
            self._set_dtype(counts.dtype)
        if (kind, block.shape, counts.dtype) != (self._kind, self._shape, self._raw):
            raise ValueError(
                f"a block of {block.shape} {counts.dtype} {kind.__name__} after ones of {self._shape} "
                f"{self._raw} {self._kind.__name__}: a run has one kind"
            )

    def _set_dtype(self, raw: np.dtype[Any]) -> None:
        if raw.kind not in "uifb":
            raise ValueError(f"counts must be real numbers, not {raw}")
        events = self._kind is EventBlock
        self.is_float = raw.kind in "if"
        if events or raw.name not in KINDS:
            self.dtype = np.dtype(np.float32)
        elif self._average > 1:
            self.dtype = np.dtype({"uint8": np.uint32, "uint16": np.uint32}.get(raw.name, np.float32))
        else:
            self.dtype = raw
        if raw.name in KINDS[:3]:
            self.limit = float(SATURATED_EVENT if events or self._average > 1 else np.iinfo(raw).max)
            if self.dtype == np.uint32:
                self.limit = float(np.iinfo(np.uint32).max)

    # frames

    def _push_frames(self, frames: NDArray[Any]) -> Iterator[Piece]:
        layout = self._layout
        flat = frames.reshape(len(frames), int(np.prod(frames.shape[1:])))[:, layout.begin : layout.end]
        if self._average > 1:
            flat = self._averaged(flat)
        elif flat.dtype != self.dtype:
            flat = flat.astype(self.dtype)
        at = 0
        while at < len(flat):
            filled = self.frames - self._done * CHUNK
            if filled == 0 and len(flat) - at >= CHUNK:
                chunks = (len(flat) - at) // CHUNK
                piece = self._piece(flat[at : at + chunks * CHUNK])
                at += piece.n
            else:
                if len(self._buffer) < CHUNK:
                    self._buffer = np.empty((CHUNK, flat.shape[1]), flat.dtype)
                take = min(CHUNK - filled, len(flat) - at)
                self._buffer[filled : filled + take] = flat[at : at + take]
                at += take
                self.frames += take
                if filled + take < CHUNK:
                    return
                piece = self._piece(self._buffer)
                self.frames -= CHUNK
            yield piece
            self._done += piece.n // CHUNK
            self.frames += piece.n

    def _averaged(self, flat: NDArray[Any]) -> NDArray[Any]:
        """Sums of `average` frames, among them those that were left over from the last block."""
        flat = np.concatenate([self._left, flat]) if self._left.size else flat
        count = len(flat) // self._average
        self._left = flat[count * self._average :].copy()
        groups = flat[: count * self._average].reshape(count, self._average, flat.shape[1])
        wide = np.dtype(np.float64) if self._raw.kind == "f" else self.dtype
        sums: NDArray[Any] = groups.sum(axis=1, dtype=wide).astype(self.dtype)
        if self._raw.name in KINDS[:3]:
            sums[(groups == np.iinfo(self._raw).max).any(axis=1)] = self.limit
        return sums

    def _piece(self, frames: NDArray[Any]) -> Piece:
        if (frames.shape[1] > 1 and frames.strides[1] != frames.itemsize) or frames.strides[0] % frames.itemsize:
            frames = np.ascontiguousarray(frames)
        stride = frames.strides[0] // frames.itemsize if len(frames) > 1 else frames.shape[1]
        return Piece(line_of(frames), stride, self._layout.begin, self._done, len(frames), *_NO_EVENTS)

    # events

    def _push_events(self, block: EventBlock, first: int, stop: int) -> Iterator[Piece]:
        a, b = np.searchsorted(block.frame, [first, stop])
        value = block.value[a:b]
        counts = value.astype(np.float32)
        if value.dtype.kind == "u":
            counts[value == np.iinfo(value.dtype).max] = SATURATED_EVENT
        elif not ((counts >= 0) & (counts == np.floor(counts))).all():
            self.is_whole = False
        self._events.append((_uint32(block.frame[a:b]), _uint32(block.pixel[a:b]), counts))
        self._selected += -(-(stop - first) // self._stride)
        self.frames = self._selected // self._average
        chunks = self.frames // CHUNK - self._done
        if chunks:
            piece = self._event_piece(chunks, chunks * CHUNK)
            self._done += chunks
            later = self._begin + self._done * CHUNK * self._average * self._stride
            self._events = [_from_frame(each, later) for each in self._events[-1:] if stop > later]
            yield piece
        else:
            self._events[-1] = _from_frame(self._events[-1], 0)

    def _event_piece(self, chunks: int, count: int) -> Piece:
        """The events of the next `count` frames, sorted by chunk and tile."""
        layout = self._layout
        tiles = len(layout.tile_ptr) - 1
        cursor = np.zeros((chunks, tiles + 1), np.int64)
        job = Sorting(
            first=self._begin,
            stride=self._stride,
            average=self._average,
            done=self._done * CHUNK,
            wanted=count,
            begin=layout.begin,
            end=layout.end,
            tiles=tiles,
            cursor=cursor.ctypes.data,
            words=0,
        )
        columns = [(*(each.ctypes.data for each in some), some[0].size) for some in self._events]
        asked = packed(job)
        for some in columns:
            UNITS.function("count_events")(asked.ctypes.data, *some)
        pointer = np.cumsum(cursor).reshape(cursor.shape) - cursor
        words = np.empty(int(cursor.sum()), np.uint64)
        cursor[:] = pointer
        asked = packed(job._replace(words=words.ctypes.data))
        for some in columns:
            UNITS.function("place_events")(asked.ctypes.data, *some)
        return Piece(np.zeros(0, np.float32), 0, layout.begin, self._done, count, pointer, words)


def _uint32(column: NDArray[Any]) -> NDArray[np.uint32]:
    return np.ascontiguousarray(column, np.uint32)


def _from_frame(columns: Columns, frame: int) -> Columns:
    """A copy of the events from a frame on: what waits must not be the memory of a block, which is its maker's."""
    at = int(np.searchsorted(columns[0], frame))
    return columns[0][at:].copy(), columns[1][at:].copy(), columns[2][at:].copy()


def line_of(array: NDArray[Any]) -> NDArray[Any]:
    """The memory that an array with ascending addresses spans, as one line that is not to be written to.

    Compiled code is made for each combination of types, and to numba a read-only or a strided array is another
    type:
    this way there is one per dtype.
    """
    if array.size == 0:
        return np.zeros(0, array.dtype)
    span = sum((n - 1) * step for n, step in zip(array.shape, array.strides, strict=True)) + array.itemsize
    memory = (ctypes.c_char * span).from_address(array.__array_interface__["data"][0])
    memory._keep = array
    return np.frombuffer(memory, array.dtype)
