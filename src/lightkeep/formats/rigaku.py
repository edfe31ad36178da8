"""Rigaku XSPA detectors as they count photons at beamline 8-ID: one 64-bit word per event, sorted by frame.

Little-endian words: counts in bits 0-11, pixel in bits 16-36, frame in bits 40-63; the other bits are zero. The
frame counter starts again at 2^24 and is unrolled here. `<run>.bin` is one module of 512 x 1024 pixels (500k);
`<run>.bin.000` to `.005` are the six modules of a 3M, three rows of two with gaps, which make 1676 x 2100 pixels.
Modules of a 3M may add 1024 * 1024 to every pixel number.

A file does not say how many frames were measured: the last one with an event is taken as the last one.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from lightkeep.formats import metadata_8id
from lightkeep.formats.event_words import EventWords, pack
from lightkeep.formats.frame_stack import Events, EventStack, Progress, events_of
from lightkeep.formats.metadata import Gathered
from lightkeep.formats.reader import Reader
from lightkeep.formats.run_source import not_written, open_to_read, run_source, wait_for
from lightkeep.model.errors import BadFile
from lightkeep.model.formats import Source

if TYPE_CHECKING:
    from lightkeep.analysis.xpcs.blocks import EventBlock, FrameBlock

MODULE = (512, 1024)
"""Rows and columns of a module."""
GAPS = (70, 52)
"""Pixels between modules, along rows and columns."""
SHAPE_3M = (3 * MODULE[0] + 2 * GAPS[0], 2 * MODULE[1] + GAPS[1])
FILES_3M = (5, 0, 4, 1, 3, 2)
"""Number of the file whose module is at each place, row by row from the top left."""
PixelOrder = Literal["row", "column"]
"""How a module numbers its pixels: along rows (`row * 1024 + column`, as boost_corr reads them, the default), or
along columns (`column * 512 + row`, as xpcs-eigen does). The file does not say it; an image of it does."""
_LOOKED_AT = 512
_NAME = re.compile(r"\.bin(\.000)?\Z")


class Rigaku(Reader):
    """Reader of runs of the XSPA-500k and the 3M."""

    name: ClassVar[str] = "rigaku"

    def matches(self, path: Path) -> bool:
        """True when it is called `.bin` or `.bin.000` and its first 512 words are events in order."""
        if not _NAME.search(path.name):
            return False
        try:
            with path.open("rb") as file:
                head = file.read(8 * _LOOKED_AT)
        except OSError:
            return False
        return len(head) >= 8 and _are_events(np.frombuffer(head[: len(head) // 8 * 8], "<u8"))

    def open(self, path: Path, *, pixel_order: PixelOrder = "row") -> Source:
        """Open a run; its metadata file is read where one is beside it.

        Parameters
        ----------
        path: `<run>.bin`, or `<run>.bin.000` of six files.
        pixel_order: see `PixelOrder`.

        Raises
        ------
        SourceError: missing or unreadable.
        BadFile: cut short, no events, not sorted by frame, a file of the six missing.
        """
        return _source(path, pixel_order, is_live=False)

    def open_live(self, path: Path, *, pixel_order: PixelOrder = "row", wait_s: float = 5.0) -> Source:
        """Open a run that is still being written, waiting for its (first) file; `follow` its frames.

        The other files of a 3M may come later still.
        """
        return wait_for(lambda: _source(path, pixel_order, is_live=True), wait_s)


FORMAT = Rigaku()


@dataclass(frozen=True)
class _Module:
    """One file and where its pixels are in the frame."""

    words: EventWords
    top: int
    left: int


class RigakuStack(EventStack):
    """The events of one module, or of six merged by frame."""

    def __init__(
        self,
        path: Path,
        modules: list[_Module],
        shape: tuple[int, int],
        order: PixelOrder,
        *,
        is_live: bool,
    ) -> None:
        super().__init__(path, shape, np.uint16)
        self._modules = modules
        self._order = order
        self._frames = self._complete() if is_live else max(module.words.frames for module in modules)

    def look(self) -> Progress:
        """See what was written since; the writer is done when it renamed the file."""
        for module in self._modules:
            module.words.grow()
        self._frames = self._complete()
        size = sum(each.words.count for each in self._modules)
        begun = min(each.words.frames for each in self._modules)
        return Progress(self._frames, begun, size, not self.path.exists())

    def finish(self) -> int:
        """Return the number of frames: up to the last one with an event."""
        for module in self._modules:
            module.words.finish()
        return max(module.words.frames for module in self._modules)

    def close(self) -> None:
        """Free the files."""
        for module in self._modules:
            module.words.close()

    def _complete(self) -> int:
        """Frames before the latest one that every module has reached: more of that one may come."""
        return min(max(0, module.words.frames - 1) for module in self._modules)

    def _count(self, begin: int, end: int) -> int:
        return sum(each.words.find(end) - each.words.find(begin) for each in self._modules)

    def _events(self, begin: int, end: int) -> Events:
        parts = [self._of(module, begin, end) for module in self._modules]
        return parts[0] if len(parts) == 1 else _merged(parts, begin, end)

    def _of(self, module: _Module, begin: int, end: int) -> Events:
        words = module.words
        frame, pixel, value = words.read(words.find(begin), words.find(end))
        if self._order == "column":
            pixel = pixel % MODULE[0] * MODULE[1] + pixel // MODULE[0]
        if self._frame_shape != MODULE:
            wider = self._frame_shape[1] - MODULE[1]
            pixel += pixel // np.uint32(MODULE[1]) * np.uint32(wider)
            pixel += np.uint32(module.top * self._frame_shape[1] + module.left)
        return frame, pixel, value


def _merged(parts: list[Events], begin: int, end: int) -> Events:
    """Return the events of all parts in the order of frames; each part is in that order already."""
    counts = np.stack([np.bincount(frame - np.uint32(begin), minlength=end - begin) for frame, _, _ in parts])
    total = int(counts.sum())
    pixel, value = np.empty(total, np.uint32), np.empty(total, np.uint16)
    by_frame = counts.T.ravel()
    places = (np.cumsum(by_frame) - by_frame).reshape(counts.T.shape).T  # of the first of each part in each frame
    for (_, pixels, values), count, place in zip(parts, counts, places, strict=True):
        to = np.repeat(place - (np.cumsum(count) - count), count) + np.arange(len(pixels))
        pixel[to], value[to] = pixels, values
    frame = np.repeat(np.arange(begin, end, dtype=np.uint32), counts.sum(axis=0))
    return frame, pixel, value


def _are_events(words: NDArray[np.uint64]) -> bool:
    pixel, steps = (words >> 16 & 0x1FFFFF) % (1024 * 1024), np.diff((words >> 40).astype(np.int64))
    return bool(
        (words & 0xFFF).any()
        and (words.size < 8 or (pixel != pixel[0]).any())
        and not (words & 0xE0_0000_F000).any()
        and (pixel < MODULE[0] * MODULE[1]).all()
        and ((steps >= 0) | (steps < -(1 << 23))).all()  # the counter may start again
    )


def _source(path: Path, order: PixelOrder, *, is_live: bool) -> Source:
    os.close(open_to_read(path))
    is_3m = path.name.endswith(".000")
    with contextlib.ExitStack() as opened:
        modules = []
        for name, top, left in _places(path) if is_3m else [(path, 0, 0)]:
            words = EventWords(name, MODULE[0] * MODULE[1], is_live=is_live)
            opened.callback(words.close)
            modules.append(_Module(words, top, left))
        stack = RigakuStack(path, modules, SHAPE_3M if is_3m else MODULE, order, is_live=is_live)
        if stack.shape[0] == 0 and not is_live:
            raise BadFile(f"{path}: holds no events", remedy="check that the run was measured")
        found = Gathered(texts={"detector": "Rigaku 3M" if is_3m else "Rigaku XSPA-500k"})
        if stack.shape[0] and not FORMAT.matches(path):
            raise BadFile(
                f"{path}: does not hold events of a Rigaku detector, in the order of frames",
                remedy="check that it was written by one, and is called .bin or .bin.000",
            )
        first = min(module.words.first_frame for module in modules)
        if first > 0:
            found.notes.append(f"the first event is in frame {first}: frames before it are taken as empty")
        metadata_8id.complete(path, found)
        source = run_source(path, FORMAT.name, stack, found, is_live=is_live)
        opened.pop_all()
        return source


def _places(path: Path) -> list[tuple[Path, int, int]]:
    """(file, first row, first column) of the six modules."""
    rows, columns = MODULE[0] + GAPS[0], MODULE[1] + GAPS[1]
    return [
        (path.with_suffix(f".{number:03d}"), place // 2 * rows, place % 2 * columns)
        for place, number in enumerate(FILES_3M)
    ]


# ---- writing, for detectors and the simulated beamline


def write_run(path: Path, blocks: Iterable[FrameBlock | EventBlock]) -> Path:
    """Write `<run>.bin` block by block, as a 500k would; each block is in the file when the next one is asked for.

    Parameters
    ----------
    blocks: of 512 x 1024 pixels, in frame order; a generator sets the pace.

    Raises
    ------
    ValueError: another shape, or counts of 4096 and more.
    StoreFull: no room. StorageError: it cannot be written.
    """
    try:
        with path.open("wb", buffering=0) as file:
            for block in blocks:
                file.write(pack(*_events_of(block, MODULE)).tobytes())
    except OSError as error:
        raise not_written(path, error) from error
    return path


def write_run_3m(path: Path, blocks: Iterable[FrameBlock | EventBlock]) -> Path:
    """Write `<run>.bin.000` (the path) to `.005` block by block, as a 3M would; counts in the gaps are lost.

    Parameters and errors: as `write_run`, with blocks of 1676 x 2100 pixels.
    """
    places = _places(path)
    try:
        with contextlib.ExitStack() as opened:
            files = [opened.enter_context(name.open("wb", buffering=0)) for name, _top, _left in places]
            for block in blocks:
                frame, pixel, value = _events_of(block, SHAPE_3M)
                row, column = np.divmod(pixel.astype(np.int64), SHAPE_3M[1])
                for file, (_name, top, left) in zip(files, places, strict=True):
                    y, x = row - top, column - left
                    here = (y >= 0) & (y < MODULE[0]) & (x >= 0) & (x < MODULE[1])
                    file.write(pack(frame[here], (y * MODULE[1] + x)[here], value[here]).tobytes())
    except OSError as error:
        raise not_written(path, error) from error
    return path


def _events_of(block: FrameBlock | EventBlock, shape: tuple[int, int]) -> Events:
    if tuple(block.shape) != shape:
        raise ValueError(f"frames of {block.shape[0]} x {block.shape[1]} pixels, not {shape[0]} x {shape[1]}")
    return events_of(block)
