"""Runs of frames for the tests of the readers: known events, and their frames."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from lightkeep.analysis.xpcs.blocks import Block, EventBlock, FrameBlock
from lightkeep.model.formats import Source


def events(frames: int, shape: tuple[int, int], *, count: int = 500, most: int = 6, seed: int = 3) -> EventBlock:
    """Random events; the first and the last frame have one each, no (frame, pixel) occurs twice."""
    rng = np.random.default_rng(seed)
    size = shape[0] * shape[1]
    places = np.unique(np.concatenate([rng.integers(0, frames * size, count), [0, frames * size - 1]]))
    frame, pixel = np.divmod(places, size)
    value = rng.integers(1, most, places.size)
    return EventBlock(0, frames, shape, frame.astype(np.uint32), pixel.astype(np.uint32), value.astype(np.uint16))


def cut(block: EventBlock, step: int) -> Iterator[EventBlock]:
    """The block in blocks of some frames."""
    for begin in range(block.begin, block.begin + block.count, step):
        end = min(begin + step, block.begin + block.count)
        here = slice(*np.searchsorted(block.frame, [begin, end]))
        yield EventBlock(begin, end - begin, block.shape, block.frame[here], block.pixel[here], block.value[here])


def dense(block: EventBlock, dtype: Any, step: int) -> Iterator[FrameBlock]:
    """The block as frames."""
    for each in cut(block, step):
        yield FrameBlock(each.begin, each.dense(dtype))


def joined(blocks: Iterable[Block], dtype: Any) -> np.ndarray:
    """All frames of consecutive blocks."""
    whole, at = [], None
    for block in blocks:
        assert at in (None, block.begin)
        at = block.begin + block.count
        whole.append(block.dense(dtype) if isinstance(block, EventBlock) else block.frames)
    return np.concatenate(whole)


def followed(
    path: Path,
    blocks: Iterable[EventBlock],
    write: Callable[[Iterator[EventBlock]], object],
    opened: Callable[[], Source],
    *,
    lag: int = 0,
    **options: Any,
) -> list[Block]:
    """What a follower sees while a writer writes in another thread.

    The writer gives a block only when the follower has seen all frames of those before it, but the last `lag`: so
    a follower that does not see them in time makes the test fail.
    """
    seen, turn = [0], threading.Condition()

    def paced() -> Iterator[EventBlock]:
        for block in blocks:
            with turn:
                assert turn.wait_for(lambda begin=block.begin: seen[0] >= begin - lag, timeout=20)
            yield block

    writer = threading.Thread(target=lambda: write(paced()))
    writer.start()
    try:
        found: list[Block] = []
        with opened() as source:
            for block in source.arrays["frames"].follow(poll_s=0.001, **options):
                found.append(block)
                with turn:
                    seen[0] = block.begin + block.count
                    turn.notify_all()
        return found
    finally:
        writer.join()


WRITER = """
import sys
from pathlib import Path
import numpy as np
from lightkeep.analysis.xpcs.blocks import EventBlock
from lightkeep.formats import eiger_writer, events
def paced():
    for piece in sys.argv[3:]:
        sys.stdin.readline()
        block = np.load(piece)
        yield EventBlock(*(int(v) for v in block["span"]), tuple(int(v) for v in block["shape"]),
                         block["frame"], block["pixel"], block["value"])
write = eval(sys.argv[2])
write(Path(sys.argv[1]), paced())
"""


def followed_across(path: Path, blocks: list[EventBlock], write: str, opened: Callable[[], Source]) -> list[Block]:
    """What a follower sees of a file that another process writes, as with HDF5 it must be.

    The writer gives a block only when the follower has seen something of the one before it, and then ends.
    """
    pieces = []
    for number, block in enumerate(blocks):
        pieces.append(path.with_name(f"piece{number}.npz"))
        columns = {"frame": block.frame, "pixel": block.pixel, "value": block.value}
        np.savez(pieces[-1], span=(block.begin, block.count), shape=block.shape, **columns)
    command = [sys.executable, "-c", WRITER, str(path), write, *map(str, pieces)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
        found: list[Block] = []
        with opened() as source:
            for block in source.arrays["frames"].follow(poll_s=0.001, idle_s=20):
                found.append(block)
                if child.poll() is None and len(found) < len(blocks):
                    child.stdin.write("\n")
                    child.stdin.flush()
    assert child.returncode == 0
    return found
