"""The frames of a run, streamed: what every XPCS format gives as `arrays["frames"]`.

A stack answers slices with dense arrays, as a numpy array does, and gives the run block by block in frame order,
also while its file still grows. It never holds more than a few blocks.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lightkeep.model.errors import BadFile, InvalidInput

if TYPE_CHECKING:
    from lightkeep.analysis.xpcs.blocks import EventBlock, FrameBlock

BLOCK_BYTES = 16 << 20
"""Bytes of a block of dense frames, unless told otherwise: so little memory the allocator gives again at once; of
blocks of 64 MiB the page faults cost as much as the decoding."""
_SLICE_BYTES = 64 << 20
"""Bytes of dense frames that are held while a slice is cut out of them."""
_BLOCK_EVENTS = 1 << 20
"""Events of a block, unless told otherwise."""
_MOST_EVENTS = 1 << 23
"""Events of a block at most, whatever it was told: a burst makes shorter blocks."""
_MOST_AHEAD = 4
"""Blocks of events that are read while one is worked on, at most."""
_MOST_FRAMES = 1 << 16
"""Frames of a block of events at most."""
_PER_PIXEL = 4
"""Events that a pixel may have in one frame, on average over the detector; a file with more is not believed."""

Events = tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[Any]]
"""Frame (ascending), pixel (row * columns + column) and counts of some events."""
Task = Callable[[], object]


def threads() -> int:
    """Return how many threads decode: one per core that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a file has grown."""

    frames: int
    """Frames that are complete."""
    begun: int
    """Frames of which something is there."""
    size: int
    """Changes whenever something was written."""
    is_finished: bool = False
    """True when the writer said that it is done (it closed the file, or gave it its last name)."""


class FrameStack(ABC):
    """Frames of one run, in the order in which they were measured. Readers give subclasses."""

    def __init__(self, path: Path, frame_shape: tuple[int, int], dtype: DTypeLike) -> None:
        self.path = path
        self._frame_shape = frame_shape
        self._dtype = np.dtype(dtype)
        self._frames = 0

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frame, row, column)."""
        return (self._frames, *self._frame_shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the values, as the detector wrote them: saturated pixels keep their largest value."""
        return self._dtype

    def blocks(
        self, begin: int = 0, end: int | None = None, *, size: int | None = None
    ) -> Iterator[FrameBlock | EventBlock]:
        """Yield the frames begin..end in order, as blocks.

        Parameters
        ----------
        begin, end: frame indices; `end` is left out, None is after the last one.
        size: frames of a block at most; None lets the format choose. A block never crosses a multiple of it,
            counted from `begin`.

        Raises
        ------
        InvalidInput: a range outside the stack, or a size below 1.
        BadFile: what is read is not what the format promises; the message names the record.
        """
        end = self._frames if end is None else end
        if not 0 <= begin <= end <= self._frames:
            raise InvalidInput(
                f"{self.path}: frames {begin}..{end} are not within its {self._frames} frames",
                remedy="choose a begin and an end inside the run",
            )
        if size is not None and size < 1:
            raise InvalidInput(f"{self.path}: a block of {size} frames", remedy="choose 1 or more")
        return self._blocks(begin, end, size)

    def follow(
        self,
        *,
        poll_s: float = 0.05,
        idle_s: float = 2.0,
        settle_s: float = 0.2,
        frames: int | None = None,
        size: int | None = None,
        until: Callable[[], bool] | None = None,
    ) -> Iterator[FrameBlock | EventBlock]:
        """Yield blocks from the first frame on while the file still grows.

        It ends after `frames` frames, or when the writer is done, or when nothing was written for `idle_s`. A
        record that is not complete is waited for.

        Parameters
        ----------
        poll_s: time between two looks at the file. idle_s: when to give up waiting.
        frames: how many there will be, where that is known.
        settle_s: when the last one of these `frames` is taken as complete, nothing more being written: of a frame
            of events nothing else tells it.
        size: frames of a block at most.
        until: asked at every look; True ends it, with what was given so far.

        Raises
        ------
        BadFile: it ended in the middle of a record, or its content is wrong.
        """
        done, last, written_at = 0, -1, time.monotonic()
        while until is None or not until():
            found = self.look()
            now = time.monotonic()
            if found.size != last:
                last, written_at, is_over = found.size, now, False
            else:
                is_last = frames is not None and found.begun >= frames
                is_over = found.is_finished or now - written_at >= (min(settle_s, idle_s) if is_last else idle_s)
            ready = self.finish() if is_over else found.frames
            ready = ready if frames is None else min(ready, frames)
            if ready > done:
                self._frames = max(self._frames, ready)
                yield from self._blocks(done, ready, size)
            elif not is_over:
                time.sleep(poll_s)
            done = max(done, ready)
            if is_over or done == frames:
                return

    def __getitem__(self, key: Any) -> Any:
        first, rest = _split_key(key)
        if isinstance(first, slice):
            return self._gather(range(self._frames)[first], rest)
        indices = np.asarray(first)
        if indices.dtype == bool:
            indices = np.flatnonzero(indices)
        if indices.ndim == 0:
            frame = range(self._frames)[int(indices)]
            return self._dense(frame, frame + 1)[0][rest]
        return self._gather([range(self._frames)[index] for index in indices.tolist()], rest)

    def _gather(self, chosen: Sequence[int], rest: tuple[Any, ...]) -> NDArray[Any]:
        """Cut the rest of a key out of the chosen frames, a bounded number of them at a time."""
        empty = np.empty((0, *self._frame_shape), self._dtype)[(slice(None), *rest)]
        out = np.empty((len(chosen), *empty.shape[1:]), self._dtype)
        room = max(1, _SLICE_BYTES // max(1, empty.itemsize * int(np.prod(self._frame_shape))))
        at = 0
        while at < len(chosen):
            run = 1
            while run < room and at + run < len(chosen) and chosen[at + run] == chosen[at] + run:
                run += 1
            frames = self._dense(chosen[at], chosen[at] + run)
            out[at : at + run] = frames[(slice(None), *rest)]
            at += run
        return out

    @abstractmethod
    def look(self) -> Progress:
        """Look at the file again; the shape grows with what is complete. Only for files opened live."""

    @abstractmethod
    def finish(self) -> int:
        """Return the number of frames, now that nothing more will come; BadFile where a record is cut short."""

    @abstractmethod
    def close(self) -> None:
        """Free the files; reading afterwards raises."""

    @abstractmethod
    def _blocks(self, begin: int, end: int, size: int | None) -> Iterator[FrameBlock | EventBlock]: ...

    @abstractmethod
    def _dense(self, begin: int, end: int) -> NDArray[Any]:
        """Return the frames begin..end as one array."""


class DenseStack(FrameStack):
    """Frames with every pixel; blocks are filled by several threads while the one before them is worked on."""

    def _blocks(self, begin: int, end: int, size: int | None) -> Iterator[FrameBlock]:
        from lightkeep.analysis.xpcs.blocks import FrameBlock

        step = size or max(1, BLOCK_BYTES // max(1, self._dtype.itemsize * int(np.prod(self._frame_shape))))
        waiting: deque[tuple[int, NDArray[Any], list[Future[object]]]] = deque()
        pool = ThreadPoolExecutor(threads())
        try:
            for first in range(begin, end, step):
                frames = np.empty((min(step, end - first), *self._frame_shape), self._dtype)
                waiting.append((first, frames, [pool.submit(task) for task in self._tasks(first, frames)]))
                begun = sum(len(tasks) for _first, _frames, tasks in waiting) - len(waiting[0][2])
                if begun >= threads():  # every core has work while the oldest block is given away
                    yield FrameBlock(*_filled(*waiting.popleft()))
            while waiting:
                yield FrameBlock(*_filled(*waiting.popleft()))
        finally:
            pool.shutdown(cancel_futures=True)

    def _dense(self, begin: int, end: int) -> NDArray[Any]:
        frames = np.empty((end - begin, *self._frame_shape), self._dtype)
        if end - begin == 1:
            for task in self._tasks(begin, frames):
                task()
            return frames
        with ThreadPoolExecutor(threads()) as pool:
            return _filled(begin, frames, [pool.submit(task) for task in self._tasks(begin, frames)])[1]

    @abstractmethod
    def _tasks(self, begin: int, frames: NDArray[Any]) -> Iterator[Task]:
        """Yield what fills the array with the frames from `begin` on; the tasks run in any order and thread."""


def _filled(begin: int, frames: NDArray[Any], tasks: list[Future[object]]) -> tuple[int, NDArray[Any]]:
    for task in tasks:
        task.result()
    return begin, frames


class EventStack(FrameStack):
    """Frames of which only the pixels that counted are stored; blocks are read while one is worked on."""

    def _blocks(self, begin: int, end: int, size: int | None) -> Iterator[EventBlock]:
        ahead = min(threads(), _MOST_AHEAD)
        waiting: deque[Future[EventBlock]] = deque()
        pool = ThreadPoolExecutor(ahead)
        try:
            for first, last in self._cuts(begin, end, size):
                waiting.append(pool.submit(self._block, first, last))
                if len(waiting) > ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _cuts(self, begin: int, end: int, size: int | None) -> Iterator[tuple[int, int]]:
        """(begin, end) of blocks that hold a bounded number of events."""
        step = min(size or self._usual_size(), _MOST_FRAMES)
        most_in_one = _PER_PIXEL * int(np.prod(self._frame_shape))
        first = begin
        while first < end:
            last = min(end, first + step - (first - begin) % step)
            while last - first > 1 and self._count(first, last) > _MOST_EVENTS:
                last = first + (last - first) // 2
            if last - first == 1 and self._count(first, last) > most_in_one:
                raise BadFile(
                    f"{self.path}: frame {first} holds more than {most_in_one} events",
                    remedy="check that it was written by the detector that it is read for",
                )
            yield first, last
            first = last

    def _usual_size(self) -> int:
        per_frame = self._count(0, self._frames) / max(1, self._frames)
        return max(1, int(_BLOCK_EVENTS / max(per_frame, _BLOCK_EVENTS / _MOST_FRAMES)))

    def _block(self, begin: int, end: int) -> EventBlock:
        from lightkeep.analysis.xpcs.blocks import EventBlock

        try:
            return EventBlock(begin, end - begin, self._frame_shape, *self._events(begin, end))
        except ValueError as error:
            raise BadFile(f"{self.path}: {error}", remedy="copy it again from where it was measured") from error

    def _dense(self, begin: int, end: int) -> NDArray[Any]:
        out = np.empty((end - begin, *self._frame_shape), self._dtype)
        for first, last in self._cuts(begin, end, None):
            try:
                out[first - begin : last - begin] = self._block(first, last).dense(self._dtype)
            except ValueError as error:
                raise BadFile(f"{self.path}: {error}", remedy="read it as events") from error
        return out

    @abstractmethod
    def _count(self, begin: int, end: int) -> int:
        """Return how many events are in the frames begin..end."""

    @abstractmethod
    def _events(self, begin: int, end: int) -> Events:
        """Return the events of the frames begin..end; BadFile where they are not what the format promises."""


def events_of(block: FrameBlock | EventBlock) -> Events:
    """Return the events of a block of either kind, for writers."""
    from lightkeep.analysis.xpcs.blocks import EventBlock

    if isinstance(block, EventBlock):
        return block.frame, block.pixel, block.value
    frame, row, column = np.nonzero(block.frames)
    pixel = row * block.frames.shape[2] + column
    return (
        (frame + block.begin).astype(np.uint32),
        pixel.astype(np.uint32),
        block.frames[frame, row, column],
    )


def frames_of(block: FrameBlock | EventBlock, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the frames of a block of either kind as a type, for writers; ValueError where they do not fit it."""
    from lightkeep.analysis.xpcs.blocks import EventBlock

    if tuple(block.shape) != tuple(shape):
        raise ValueError(f"frames of {block.shape[0]} x {block.shape[1]} pixels, not {shape[0]} x {shape[1]}")
    if isinstance(block, EventBlock):
        return block.dense(dtype)
    frames = block.frames
    if not np.can_cast(frames.dtype, dtype) and frames.size:
        limits = np.iinfo(dtype)
        if frames.min() < limits.min or frames.max() > limits.max:
            raise ValueError(f"counts from {frames.min()} to {frames.max()} do not fit into {dtype}")
    return frames.astype(dtype, copy=False)


def _split_key(key: Any) -> tuple[Any, tuple[Any, ...]]:
    """Split a numpy key into what selects frames and what selects pixels of a frame."""
    parts = key if isinstance(key, tuple) else (key,)
    if parts and parts[0] is Ellipsis:
        parts = (*[slice(None)] * (4 - len(parts)), *parts[1:])
    parts = parts or (slice(None),)
    return parts[0], tuple(parts[1:])
