"""Blocks hold what they say, and follow one another."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from lightkeep.analysis.xpcs import Block, EventBlock, FrameBlock, iterate
from lightkeep.analysis.xpcs import blocks as blocks_module


def events(frame: list[int], pixel: list[int], value: list[int], *, begin: int = 0, count: int = 4) -> EventBlock:
    columns = np.array(frame, np.uint32), np.array(pixel, np.uint32), np.array(value, np.uint16)
    return EventBlock(begin, count, (2, 3), *columns)


def test_events_become_frames_and_counts_of_a_pixel_add_up() -> None:
    dense = events([10, 10, 12, 12], [0, 5, 4, 4], [1, 2, 3, 60_000], begin=10).dense()
    assert dense.shape == (4, 2, 3)
    assert (dense[0, 0, 0], dense[0, 1, 2], dense[2, 1, 1], dense.sum()) == (1, 2, 60_003, 60_006)
    assert events([], [], []).dense(np.uint8).sum() == 0


def test_a_count_that_does_not_fit_is_refused_and_not_wrapped() -> None:
    with pytest.raises(ValueError, match="a count of 300 does not fit into uint8"):
        events([0, 0], [1, 1], [200, 100]).dense(np.uint8)
    columns = np.zeros(1, np.uint32), np.zeros(1, np.uint32), np.array([0.25], np.float32)
    assert EventBlock(0, 1, (1, 1), *columns).dense().tolist() == [[[0.25]]]


@pytest.mark.parametrize(
    ("frame", "pixel", "reason"),
    [
        ([0, 1], [0, 6], r"event at pixel 6: the detector has 2 x 3 pixels"),
        ([2, 1], [0, 0], "in the order of their frames"),
        ([0, 4], [0, 0], "events of frames 0 to 4 in a block of frames 0 to 3"),
        ([0], [0, 1], "columns of one length"),
    ],
)
def test_wrong_events_are_refused(frame: list[int], pixel: list[int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        events(frame, pixel, [1, 1])


def test_frames_must_be_a_stack() -> None:
    with pytest.raises(ValueError, match=r"must be \(count, H, W\)"):
        FrameBlock(0, np.zeros((3, 4)))


STACK = np.arange(20 * 6, dtype=np.uint16).reshape(20, 2, 3)


class Run:
    """A source of blocks, as the formats give them."""

    shape = STACK.shape

    def blocks(self, begin: int, end: int) -> Iterator[Block]:
        for first in range(begin, end, 7):
            yield FrameBlock(first, STACK[first : min(first + 7, end)])


def pieces(*edges: int) -> list[FrameBlock]:
    return [FrameBlock(begin, STACK[begin:end]) for begin, end in pairwise(edges)]


@pytest.mark.parametrize("source", [STACK, Run(), pieces(0, 3, 4, 20), iter(pieces(0, 20))], ids=type)
def test_any_source_of_frames_gives_its_blocks_in_order(source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks_module, "DENSE_BYTES", 5 * STACK[0].nbytes)
    found = list(iterate(source, begin=4, end=18))
    frames = np.concatenate([block.frames for block in found])  # type: ignore[union-attr]
    first = found[0].begin
    np.testing.assert_array_equal(frames[4 - first : 18 - first], STACK[4:18])
    assert found[-1].begin < 18


def test_missing_repeated_and_foreign_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="frame 5 should come next, the block begins at frame 6"):
        list(iterate([*pieces(0, 5), *pieces(6, 8)]))
    with pytest.raises(ValueError, match="frame 5 should come next, the block begins at frame 0"):
        list(iterate([*pieces(0, 5), *pieces(0, 5)]))
    with pytest.raises(ValueError, match="should begin at frame 0, the first block begins at frame 2"):
        list(iterate(pieces(2, 8)))
    with pytest.raises(ValueError, match=r"a block of \(3, 2\) pixels after blocks of \(2, 3\)"):
        list(iterate([*pieces(0, 5), FrameBlock(5, np.zeros((1, 3, 2)))]))
    with pytest.raises(ValueError, match="frames 3 to 30 are not inside a run of 20 frames"):
        iterate(STACK, begin=3, end=30)
    with pytest.raises(ValueError, match=r"a run must be \(frames, H, W\)"):
        iterate(STACK[0])
