"""A file of 64-bit event words sorted by frame, as Rigaku's detectors write it."""

from __future__ import annotations

import os
from bisect import bisect_left
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightkeep.formats.frame_stack import Events
from lightkeep.formats.run_source import open_to_read
from lightkeep.model.errors import BadFile, SourceError

_BYTES = 8
_WRAP = 1 << 24
"""Frames after which the counter starts again."""
_MOST_FRAMES = 1 << 32
_STEP = 8192
"""Words between two that the index knows: 64 KiB."""
_AT_ONCE = 1 << 16
"""Words that are taken apart at a time: they stay in the cache."""
_OFFSET = 1 << 20
"""What some modules add to every pixel number."""


class EventWords:
    """One file, indexed by every 8192nd word, so that any frame is found by reading 64 KiB.

    The index unrolls the frame counter: a step back by more than half of its range is a new turn, a smaller one is
    an error. It is right as long as 8192 events take less than half a turn, 8 million frames.
    """

    def __init__(self, path: Path, pixels: int, *, is_live: bool = False) -> None:
        """Open and index; a file opened live may not exist yet, and may end inside a word.

        Raises
        ------
        SourceError: missing or unreadable. BadFile: it ends inside a word, or is not sorted by frame.
        """
        self.path = path
        self.count = 0
        """Whole words so far."""
        self.frames = 0
        """The last event's frame, and one."""
        self._pixels = pixels
        self._fd = -1
        self._is_live = is_live
        self._marks: list[int] = []  # frame of every _STEP-th word
        try:
            self.grow()
            if not is_live:
                self.finish()
        except BaseException:
            self.close()
            raise

    def grow(self) -> None:
        """See what was written since the last look."""
        if self._fd < 0 and (not self._is_live or self.path.exists()):
            self._fd = open_to_read(self.path)
        if self._fd < 0:
            return
        count = os.fstat(self._fd).st_size // _BYTES
        if count < self.count:
            raise self._shorter()
        if count == self.count:
            return
        self._mark(range(len(self._marks) * _STEP, count, _STEP))
        at = (len(self._marks) - 1) * _STEP
        self.frames = int(self._unroll(self._words(at, count), at, self._marks[-1])[-1]) + 1
        self._check_count(self.frames)
        self.count = count

    def finish(self) -> None:
        """Raise BadFile when the file is missing or ends inside a word, now that nothing more will come."""
        if self._fd < 0:
            raise BadFile(f"{self.path}: was never written", remedy="copy it from where it was measured")
        size = os.fstat(self._fd).st_size
        if size % _BYTES:
            raise BadFile(
                f"{self.path}: ends inside event {size // _BYTES}, after {size} bytes",
                remedy="copy it again from where it was measured, or cut the last event off",
            )

    def close(self) -> None:
        """Free the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def first_frame(self) -> int:
        """Of the first event; 0 without one."""
        return self._marks[0] if self._marks else 0

    def find(self, frame: int) -> int:
        """Return the number of the first event in this frame or a later one."""
        mark = bisect_left(self._marks, frame)
        if mark == 0:
            return 0
        begin = (mark - 1) * _STEP
        frames = self._unroll(self._words(begin, min(begin + _STEP, self.count)), begin, self._marks[mark - 1])
        return begin + int(np.searchsorted(frames, frame))

    def read(self, begin: int, end: int) -> Events:
        """Return the frames, pixels (row * columns + column) and counts of the events begin..end.

        Raises
        ------
        BadFile: not sorted by frame, or an event beyond the detector.
        """
        frame, pixel = np.empty(end - begin, np.uint32), np.empty(end - begin, np.uint32)
        value = np.empty(end - begin, np.uint16)
        offset = self._offset() if end > begin else 0
        reached = self._reached(begin) if end > begin else 0
        for first in range(begin, end, _AT_ONCE):
            last = min(first + _AT_ONCE, end)
            part = slice(first - begin, last - begin)
            words = self._words(first, last)
            frame[part] = self._unroll(words, first, reached)
            reached = int(frame[last - 1 - begin])
            places = (words >> np.uint64(16)).astype(np.uint32)
            places &= np.uint32(0x1FFFFF)
            places -= np.uint32(offset)
            if places.max() >= self._pixels:
                raise self._beyond(first, places, frame[part])
            pixel[part] = places
            np.bitwise_and(words.view("<u2")[::4], np.uint16(0xFFF), out=value[part])
        return frame, pixel, value

    def _offset(self) -> int:
        """What the file adds to every pixel number, as its first event says."""
        return _OFFSET if int(self._words(0, 1)[0]) >> 16 & _OFFSET else 0

    def _unroll(self, words: NDArray[np.uint64], begin: int, reached: int, *, step: int = 1) -> NDArray[Any]:
        """Return the frames of every `step`-th event; `reached` is one at most half a turn before the first."""
        counted = words.view("<u4")[1::2] >> np.uint32(8)
        if counted[0] >= reached % _WRAP and not (counted[1:] < counted[:-1]).any():
            return counted + np.uint32(reached - reached % _WRAP) if reached >= _WRAP else counted
        frames = counted.astype(np.int64)
        steps = np.diff(frames, prepend=reached % _WRAP)
        steps[steps < -_WRAP // 2] += _WRAP
        back = int(np.argmax(steps < 0))
        if steps[back] < 0:
            raise BadFile(
                f"{self.path}: event {begin + back * step} is of frame {frames[back]}, after one of frame"
                f" {frames[back] - steps[back]}",
                remedy="sort its events by frame",
            )
        return reached + np.cumsum(steps)

    def _mark(self, places: range) -> None:
        """Add to the index."""
        if not places:
            return
        content = b"".join(os.pread(self._fd, _BYTES, at * _BYTES) for at in places)
        if len(content) != len(places) * _BYTES:
            raise self._shorter()
        words = np.frombuffer(content, "<u8")
        reached = self._marks[-1] if self._marks else int(words[0]) >> 40
        self._marks += self._unroll(words, places.start, reached, step=_STEP).tolist()
        self._check_count(self._marks[-1])

    def _check_count(self, frames: int) -> None:
        if frames >= _MOST_FRAMES:
            raise BadFile(f"{self.path}: counts {frames} frames", remedy="check that it is a file of events")

    def _reached(self, at: int) -> int:
        """Return the frame of an event."""
        begin = at - at % _STEP
        return int(self._unroll(self._words(begin, at + 1), begin, self._marks[at // _STEP])[-1])

    def _words(self, begin: int, end: int) -> NDArray[np.uint64]:
        content = os.pread(self._fd, (end - begin) * _BYTES, begin * _BYTES)
        if len(content) != (end - begin) * _BYTES:
            raise self._shorter()
        return np.frombuffer(content, "<u8")

    def _shorter(self) -> SourceError:
        return SourceError(f"{self.path}: became shorter while it was read", remedy="read it again")

    def _beyond(self, begin: int, pixel: NDArray[np.uint32], frame: NDArray[np.uint32]) -> BadFile:
        at = int(np.argmax(pixel >= self._pixels))
        return BadFile(
            f"{self.path}: event {begin + at} of frame {frame[at]} is at pixel {pixel[at]}, beyond the detector's"
            f" {self._pixels} pixels",
            remedy="check that the file is of the detector that it is read for",
        )


def pack(frame: NDArray[Any], pixel: NDArray[Any], value: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the words of events; ValueError for counts of 4096 and more, which 12 bits do not hold."""
    if value.size and (value.max() > 0xFFF or value.min() < 0):
        raise ValueError(f"counts from {value.min()} to {value.max()} do not fit into 12 bits")
    words = frame.astype(np.uint64) % np.uint64(_WRAP) << np.uint64(40)
    return np.asarray(words | pixel.astype(np.uint64) << np.uint64(16) | value.astype(np.uint64), "<u8")
