"""Pieces of a run as they come from a file or a detector: dense frames, or events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

DENSE_BYTES = 32 * 2**20
"""Size of the blocks that a plain array is cut into: large enough to stream, small beside a detector's memory."""


@dataclass(frozen=True, eq=False, slots=True)
class FrameBlock:
    """Frames begin .. begin + count of a run, every pixel of them."""

    begin: int
    """Index of the first frame in the run."""
    frames: NDArray[Any]
    """(count, H, W) counts, any real dtype."""

    def __post_init__(self) -> None:
        if self.frames.ndim != 3:
            raise ValueError(f"frames must be (count, H, W), not {self.frames.shape}")

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.frames)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) pixels."""
        return self.frames.shape[1], self.frames.shape[2]


@dataclass(frozen=True, eq=False, slots=True)
class EventBlock:
    """Frames begin .. begin + count of a run, only the pixels that counted.

    Raises
    ------
    ValueError: columns of unequal length, frames that are not ascending or outside the block, a pixel beyond the
      detector.
    """

    begin: int
    """Index of the first frame in the run."""
    count: int
    """Number of frames, those without any event included."""
    shape: tuple[int, int]
    """(H, W) pixels."""
    frame: NDArray[np.uint32]
    """(n,) index of the frame in the run, ascending."""
    pixel: NDArray[np.uint32]
    """(n,) row * W + column."""
    value: NDArray[Any]
    """(n,) counts (uint16, uint32 or float32); those of a (frame, pixel) that occurs again add up."""

    def __post_init__(self) -> None:
        frame, pixel = self.frame, self.pixel
        if not frame.shape == pixel.shape == self.value.shape or frame.ndim != 1:
            raise ValueError(
                f"events need columns of one length, not {frame.shape}, {pixel.shape}, {self.value.shape}"
            )
        if frame.size == 0:
            return
        if (frame[1:] < frame[:-1]).any():
            raise ValueError("events must be in the order of their frames")
        if frame[0] < self.begin or frame[-1] >= self.begin + self.count:
            raise ValueError(
                f"events of frames {frame[0]} to {frame[-1]} in a block of frames "
                f"{self.begin} to {self.begin + self.count - 1}"
            )
        if pixel.max() >= self.shape[0] * self.shape[1]:
            raise ValueError(
                f"event at pixel {pixel.max()}: the detector has {self.shape[0]} x {self.shape[1]} pixels"
            )

    def dense(self, dtype: DTypeLike | None = None) -> NDArray[Any]:
        """(count, H, W) counts in `dtype` (default: uint32, float32 for float counts).

        Raises ValueError where a count does not fit into an integer `dtype`.
        """
        wide = np.dtype(np.float32 if self.value.dtype.kind == "f" else np.uint32)
        frames = np.zeros(self.count * self.shape[0] * self.shape[1], wide)
        where = (self.frame.astype(np.int64) - self.begin) * (self.shape[0] * self.shape[1]) + self.pixel
        np.add.at(frames, where, self.value.astype(wide, copy=False))
        wanted = wide if dtype is None else np.dtype(dtype)
        if wanted.kind in "iu" and frames.max(initial=0) > np.iinfo(wanted).max:
            raise ValueError(f"a count of {frames.max()} does not fit into {wanted}")
        return frames.astype(wanted, copy=False).reshape(self.count, *self.shape)


Block: TypeAlias = FrameBlock | EventBlock
Blocks: TypeAlias = Any
"""A (N, H, W) array (numpy, h5py ...), an iterable of blocks in the order of frames, or an object with `.shape`
and `.blocks(begin, end)`."""


def iterate(source: Blocks, *, begin: int = 0, end: int | None = None) -> Iterator[Block]:
    """The blocks of any source of frames that touch frames begin .. end, in the order of frames.

    Blocks may reach beyond begin and end where the source is an iterable of blocks. They follow one another
    without a gap.

    Raises
    ------
    ValueError: begin and end are not inside the run, or a block is missing, repeated or of another shape.
    """
    whole = getattr(source, "shape", None)
    if whole is not None:
        if len(whole) != 3:
            raise ValueError(f"a run must be (frames, H, W), not {tuple(whole)}")
        end = whole[0] if end is None else end
        if not 0 <= begin <= end <= whole[0]:
            raise ValueError(f"frames {begin} to {end} are not inside a run of {whole[0]} frames")
    if hasattr(source, "blocks"):
        source = source.blocks(begin, end)
    elif whole is not None:
        source = _slices(source, begin, whole[0] if end is None else end)
    return _in_order(source, begin, end)


def _slices(array: Any, begin: int, end: int) -> Iterator[FrameBlock]:
    frame_bytes = max(1, int(np.prod(array.shape[1:])) * array.dtype.itemsize)
    step = max(1, DENSE_BYTES // frame_bytes)
    for first in range(begin, end, step):
        yield FrameBlock(first, np.asarray(array[first : min(first + step, end)]))


def _in_order(blocks: Iterable[Block], begin: int, end: int | None) -> Iterator[Block]:
    expected: int | None = None
    shape: tuple[int, int] | None = None
    for block in blocks:
        if end is not None and block.begin >= end:
            break
        if expected is not None and block.begin != expected:
            raise ValueError(f"frame {expected} should come next, the block begins at frame {block.begin}")
        if expected is None and block.begin > begin:
            raise ValueError(
                f"the run should begin at frame {begin}, the first block begins at frame {block.begin}"
            )
        if shape is not None and block.shape != shape:
            raise ValueError(f"a block of {block.shape} pixels after blocks of {shape}")
        expected, shape = block.begin + block.count, block.shape
        if expected > begin:
            yield block
