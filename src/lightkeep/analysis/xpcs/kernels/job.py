"""What the SIMD multi-tau kernels are told: addresses and numbers."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.simd.lanes import LANES
from lightkeep.analysis.xpcs.kernels.layout import BLOCK, TILE, Layout, runs

CELLS: Final = TILE // LANES
"""Cells of a tile."""
CELL_PAD: Final = 64
"""Bytes behind a cell's frames in a tile, or all cells would fall on the same lines of the cache."""
TILES: Final = BLOCK // TILE
SLOTS: Final = 5
"""Accumulators per level and group: dpl + 1."""
MOST_PIECES: Final = 17
"""Most segments that a chunk has, the incomplete one included."""
U8, U16, U32, F32 = 1, 2, 4, 8
KINDS: Final = {"uint8": U8, "uint16": U16, "uint32": U32, "float32": F32}


class Cells(NamedTuple):
    """What a layout says of its cells; CSR over group * (GROUP // LANES) + cell of the group."""

    dynamic_ptr: NDArray[np.int64]
    dynamic: NDArray[np.int64]
    """Dynamic bin, from 0."""
    dynamic_byte: NDArray[np.uint8]
    """(n, LANES) 255 or 0."""
    dynamic_float: NDArray[np.float32]
    """(n, LANES) 1 or 0."""
    static_ptr: NDArray[np.int64]
    static: NDArray[np.int64]
    """Partition, counted from the block's first."""
    static_weight: NDArray[np.float64]
    """(n, LANES) 1 or 0."""


class Job(NamedTuple):
    """Addresses and numbers of one thread's work; all integers but `limit`."""

    kind: int
    frames: int
    stride: int
    """Bytes from frame to frame."""
    origin: int
    first_chunk: int
    n: int
    """Number of frames."""
    has_events: int
    event_ptr: int
    events: int
    begin: int
    end: int
    tiles: int
    group: int
    tile_ptr: int
    unused: int
    unused_ptr: int
    static: int
    static_ptr: int
    block_static: int
    cell_dynamic_ptr: int
    cell_dynamic: int
    cell_dynamic_byte: int
    cell_dynamic_float: int
    cell_static_ptr: int
    cell_static: int
    cell_static_weight: int
    base: int
    lowest: int
    is_float: int
    limit: float
    n_dynamic: int
    n_static: int
    tile: int
    """This thread's: CELLS times (CHUNK rows of LANES counts, CELL_PAD)."""
    x: int
    y: int
    """This thread's buffers of samples, of the first after the history."""
    scratch: int
    """This thread's: 8 rows of LANES float64."""
    bins: int
    """This thread's: (n_dynamic, CHUNK) float64, zeros in between, then n_dynamic marks."""
    taus: int
    tau_pitch: int
    """taus, rounded up to a multiple of 4."""
    level: int
    lag: int
    pairs: int
    row: int
    slot: int
    out: int
    """This thread's: (6, tau_pitch, LANES) float64."""
    whole: int
    part: int
    segment_whole: int
    segment_part: int
    segments: int
    intensity: int
    saxs: int
    remark: int


class Place(NamedTuple):
    """A state's arrays."""

    groups: int
    levels: int
    acc: int
    history: int
    head: int
    total: int
    remark: int


def cells_of(layout: Layout) -> Cells:
    """The bins and partitions of each cell."""
    ptr, label, mask = runs(layout.dynamic.reshape(-1, LANES))
    static_ptr, static, weight = runs(layout.static.reshape(-1, LANES))
    return Cells(
        ptr,
        label,
        mask.view(np.uint8) * np.uint8(255),
        mask.astype(np.float32),
        static_ptr,
        static,
        weight.astype(np.float64),
    )
