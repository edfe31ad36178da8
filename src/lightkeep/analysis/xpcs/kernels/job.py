"""What the SIMD multi-tau kernels are told: addresses and numbers; without numba."""

from __future__ import annotations

from typing import Final, NamedTuple

from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.xpcs.kernels.layout import BLOCK, GROUP, TILE
from lightkeep.analysis.xpcs.kernels.state import CHUNK

CELLS: Final = TILE // LANES
"""Cells of a tile."""
CELL_PAD: Final = 64
"""Bytes behind a cell's frames in a tile, or all cells would fall on the same lines of the cache."""
ROW: Final = 4 * LANES
"""Bytes of a row of samples."""
HISTORY: Final = 8
STATE_ROW: Final = 4 * GROUP
"""Bytes of a row of samples in a state."""
SLOT: Final = 8 * GROUP
"""Bytes of an accumulator in a state."""
LINE_BEFORE: Final = 32
LINE: Final = LINE_BEFORE + CHUNK + 32
"""Bytes of a pixel's line in a tile of uint8: 32 that end with its history, a chunk, 32 zeros."""
TILES: Final = BLOCK // TILE
SLOTS: Final = 5
"""Accumulators per level and group: dpl + 1."""
PIECES: Final = -(-17 // LANES) * LANES
"""Places for a partition's segments of a chunk: 17 at most, the incomplete one included."""
U8, U16, U32, F32 = 1, 2, 4, 8
KINDS: Final = {"uint8": U8, "uint16": U16, "uint32": U32, "float32": F32}


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
    dynamic: int
    static_ptr: int
    block_static: int
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
    """This thread's: LANES rows of LANES float64."""
    bins: int
    """This thread's: (n_dynamic, CHUNK) float64, or uint16 for uint8 counts, zeros in between."""
    marks: int
    """This thread's: n_dynamic bytes, which bins are not zero."""
    shorts: int
    """This thread's: lines of LANES pixels on the levels 0 to 4."""
    products: int
    """This thread's: (8, LANES, 8) int32."""
    spare: int
    """This thread's: 32 rows of TILE uint8."""
    peaks: int
    """This thread's: the highest count of each pixel of a tile, uint8."""
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
    """(n_dynamic, intensity_pitch) int64."""
    intensity_pitch: int
    """Frames, rounded up to whole chunks."""
    saxs: int
    remark: int
    take_chunk: int
    """Addresses of units."""
    fill_lines: int
    multiply_first: int
    advance_lines: int
    advance_rows: int
    finish_cell: int


class Place(NamedTuple):
    """A state's arrays."""

    groups: int
    levels: int
    acc: int
    history: int
    head: int
    total: int
    remark: int
