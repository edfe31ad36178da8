"""Events in the order of frames become events in the order of tiles: a counting sort, and one word per event.

    word = frame in its chunk (16 bits) | pixel in its tile (16) | counts as float32 (32)

A chunk's events of one tile lie side by side, in the order of frames: a tile's fit the cache from then on.
"""

from __future__ import annotations

from typing import Final

from lightkeep.analysis.simd.compile import part
from lightkeep.analysis.simd.memory import get_f32, get_i64, get_u32, set_f32, set_i64, set_u16
from lightkeep.analysis.simd.record import record
from lightkeep.analysis.xpcs.kernels.event_job import Sorting
from lightkeep.analysis.xpcs.kernels.layout import TILE
from lightkeep.analysis.xpcs.kernels.state import CHUNK

TILE_BITS: Final = TILE.bit_length() - 1
CHUNK_BITS: Final = CHUNK.bit_length() - 1


sorting_at = record(Sorting)


@part
def key_of(job: Sorting, frame: int, pixel: int) -> int:
    """A place in the cursors times CHUNK, plus the frame in its chunk; -1: not wanted."""
    if pixel < job.begin or pixel >= job.end:
        return -1
    t = frame - job.first
    if job.stride > 1:
        if t % job.stride:
            return -1
        t //= job.stride
    if job.average > 1:
        t //= job.average
    t -= job.done
    if t >= job.wanted:
        return -1
    place = (t >> CHUNK_BITS) * (job.tiles + 1) + ((pixel - job.begin) >> TILE_BITS)
    return (place << CHUNK_BITS) + (t & (CHUNK - 1))


@part
def count_events(address: int, frame: int, pixel: int, value: int, n: int) -> int:
    """Count the wanted ones among n events per chunk and tile; frame, pixel, value: addresses. Returns 0."""
    job = sorting_at(address)
    for e in range(n):
        key = key_of(job, get_u32(frame, e), get_u32(pixel, e))
        if key >= 0 and get_f32(value, e) != 0:
            at = key >> CHUNK_BITS
            set_i64(job.cursor, at, get_i64(job.cursor, at) + 1)
    return 0


@part
def place_events(address: int, frame: int, pixel: int, value: int, n: int) -> int:
    """Put them where they belong. Returns 0."""
    job = sorting_at(address)
    for e in range(n):
        p = get_u32(pixel, e)
        key = key_of(job, get_u32(frame, e), p)
        counts = get_f32(value, e)
        if key >= 0 and counts != 0:
            at = key >> CHUNK_BITS
            to = get_i64(job.cursor, at)
            set_i64(job.cursor, at, to + 1)
            set_u16(job.words, 4 * to, key & (CHUNK - 1))
            set_u16(job.words, 4 * to + 1, (p - job.begin) & (TILE - 1))
            set_f32(job.words, 2 * to + 1, counts)
    return 0
