"""What the kernels of events are told: addresses and numbers (`simd.record`). Without numba, as its caller is."""

from __future__ import annotations

from typing import Final, NamedTuple

from lightkeep.analysis.xpcs.kernels.layout import BLOCK, TILE

HISTORY: Final = 8
"""Last samples of a level that a state remembers, for 4 delays per level."""
FEW: Final = 8
"""Events of a pixel up to which they are worked on pair by pair."""
TILES: Final = BLOCK // TILE
MOST: Final = 4096
"""Counts of a pixel in a run: their square is 2**24, and every sum of products that a float32 of the dense kernel
holds is below that."""


class EventJob(NamedTuple):
    """Addresses and numbers of one thread's work; all integers."""

    correlate: int
    """Address of `correlate_pixel`: called so, it is not compiled into its caller again."""
    chunks: int
    event_ptr: int
    events: int
    begin: int
    end: int
    """Pixels."""
    tiles: int
    group: int
    tile_ptr: int
    unused: int
    unused_ptr: int
    static: int
    static_ptr: int
    block_static: int
    dynamic: int
    base: int
    lowest: int
    n_static: int
    n_dynamic: int
    levels: int
    first: int
    """First frame of these; 0 for `finish_events`."""
    frames: int
    taus: int
    tau_pitch: int
    """taus, rounded up to a multiple of 4."""
    factor: int
    """(2, taus) float64: one over pairs, and over the frames in a sample, twice for G2 and once for IP and IF."""
    pairs: int
    early: int
    """(frames,) uint8: to so many delays, from the first on, an event of this frame adds to IP."""
    late: int
    """Same: so many delays have begun to count it for IF."""
    ends: int
    """Same: in so many delays its frame is in a whole sample."""
    nearest: int
    """(frames,) uint8: lowest level at which events so far from each other may be within the longest lag."""
    segments: int
    segment_level: int
    whole: int
    part: int
    segment_whole: int
    intensity: int
    saxs: int
    counts: int
    """This thread's: (BLOCK,) int64, number of events of each pixel, then where they are."""
    totals: int
    """This thread's: (BLOCK,) float64."""
    times: int
    """This thread's: int64 frames of a tile's events, pixel by pixel."""
    values: int
    """This thread's: their float64 counts."""
    walk_times: int
    walk_values: int
    """This thread's: a pixel's samples of one level."""
    out: int
    """This thread's: (3, tau_pitch, LANES) float64 G2, g and g^2 of a cell; zeros in between."""
    marks: int
    """This thread's: (tau_pitch / 4) bytes, where `out` is not zero."""
    touched: int
    """This thread's: (taus,) addresses in `out`."""
    spans: int
    """This thread's: to how many delays of IP and of IF each of the tile's events adds, 2 bytes each."""
    weights: int
    """This thread's: (LANES,) float64."""
    sums: int
    """This thread's: (partitions of a block, 6, tau_pitch) float64; zeros in between."""


class Sorting(NamedTuple):
    """Which events are taken, and where they go; all integers."""

    first: int
    """First detector frame of the run."""
    stride: int
    average: int
    done: int
    """Frames, after stride and average, that went before."""
    wanted: int
    """Frames of now."""
    begin: int
    end: int
    """Pixels."""
    tiles: int
    cursor: int
    """Address of (chunks, tiles + 1) int64: numbers of events, then where the next one goes."""
    words: int
    """Address of the sorted events."""
