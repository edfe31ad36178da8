"""How a detector's pixels are cut for the multi-tau kernels.

    detector = blocks of 4096 pixels   a shard has whole blocks; a block's sums become integers once
    block    = tiles of 256 pixels     what a core's cache holds of a chunk of frames
    tile     = groups of 64 pixels     the unit of state; groups without any used pixel have none

All of them are ranges of the flat pixel index (row * W + column), the same whatever shard they are in.
"""

from __future__ import annotations

import itertools
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.xpcs.qmap import QMap

BLOCK: Final = 4096
TILE: Final = 256
GROUP: Final = 64
GROUPS: Final = TILE // GROUP

Int64 = NDArray[np.int64]


class Layout(NamedTuple):
    """Tiles and groups of a range of pixels, as the kernels take them. All `_ptr` arrays are CSR offsets.

    Tile i begins at pixel begin + i * TILE, block b has the tiles from b * BLOCK // TILE on.
    """

    begin: int
    """First pixel of the range."""
    end: int
    """End of the range."""
    group: Int64
    """(n_groups,) first pixel of each group that has a used pixel."""
    tile_ptr: Int64
    """(n_tiles + 1,) groups of each tile."""
    unused: Int64
    """First pixel of each group without a used pixel: only its sum over time is wanted."""
    unused_ptr: Int64
    """(n_tiles + 1,) those groups of each tile."""
    static: NDArray[np.int32]
    """(n_groups, GROUP) place of the pixel's static partition in `block_static`, counted from the block's first;
    -1: the pixel is not used."""
    static_ptr: Int64
    """(n_blocks + 1,) static partitions of each block."""
    block_static: Int64
    """Static partition, from 0."""
    dynamic: NDArray[np.int32]
    """(n_groups, GROUP) dynamic bin, from 0; -1: the pixel is not used."""

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return len(self.static_ptr) - 1


def layout_of(qmap: QMap, pixels: tuple[int, int] | None = None) -> Layout:
    """The layout of a range of pixels of a detector, all of it by default.

    Parameters
    ----------
    qmap: bins of the pixels.
    pixels: (begin, end) flat indices, multiples of `BLOCK` or the end of the detector.

    Raises
    ------
    ValueError: the range is not of whole blocks.
    """
    size = qmap.static.size
    begin, end = pixels or (0, size)
    if not 0 <= begin < end <= size or begin % BLOCK or (end % BLOCK and end != size):
        raise ValueError(
            f"pixels {begin} to {end} are not whole blocks of {BLOCK} of a detector with {size} pixels"
        )
    padded = -(-(end - begin) // GROUP) * GROUP
    labels = np.zeros((2, padded), np.int32)
    labels[0, : end - begin] = qmap.static.ravel()[begin:end]
    labels[1, : end - begin] = qmap.dynamic.ravel()[begin:end]
    static, dynamic = labels.reshape(2, -1, GROUP)
    starts = begin + GROUP * np.arange(len(static))
    used = (static > 0).any(axis=1)
    tiles = np.arange(begin, end + TILE, TILE)[: -(-(end - begin) // TILE) + 1]
    blocks = np.append(np.arange(begin, end, BLOCK), end)
    group, unused = starts[used], starts[~used]
    return Layout(
        begin,
        end,
        group,
        np.searchsorted(group, tiles),
        unused,
        np.searchsorted(unused, tiles),
        *_local_static(static[used], np.searchsorted(group, blocks)),
        dynamic[used] - np.int32(1),
    )


def shards(qmap: QMap, count: int) -> list[tuple[int, int]]:
    """Cut a detector into at most `count` ranges of pixels for `MultiTau(pixels=)`, with much the same work
    each."""
    used = np.flatnonzero(qmap.static.ravel())
    size = qmap.static.size
    at = [int(used[len(used) * part // count]) // BLOCK * BLOCK for part in range(1, count)] if used.size else []
    edges = sorted({0, *at, size})
    return list(itertools.pairwise(edges))


def runs(labels: NDArray[np.int32]) -> tuple[Int64, Int64, NDArray[np.bool_]]:
    """The distinct labels, from 0, of each row as a CSR list, and where in the row each is."""
    ordered = np.sort(labels, axis=1)
    is_first = ordered >= 0
    is_first[:, 1:] &= ordered[:, 1:] != ordered[:, :-1]
    row = np.nonzero(is_first)[0]
    found = ordered[is_first]
    return np.append(0, np.cumsum(is_first.sum(axis=1))), found.astype(np.int64), labels[row] == found[:, None]


def _local_static(static: NDArray[np.int32], edges: Int64) -> tuple[NDArray[np.int32], Int64, Int64]:
    """Partitions counted from the first of each block, which has the groups from edge to edge."""
    blocks, labels = len(edges) - 1, int(static.max(initial=0)) + 1
    key = np.repeat(np.arange(blocks) * labels, np.diff(edges))[:, None] + static
    is_there = np.zeros((blocks, labels), np.bool_)
    is_there.ravel()[key] = True
    is_there[:, 0] = False
    place = np.cumsum(is_there, axis=1, dtype=np.int32) - np.int32(1)
    place[:, 0] = -1
    block, label = np.nonzero(is_there)
    return place.ravel()[key], np.searchsorted(block, np.arange(blocks + 1)), label - 1
