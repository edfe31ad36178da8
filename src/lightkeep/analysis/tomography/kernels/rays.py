"""From sinograms to the Fourier plane: each projection's spectrum is added along its diameter.

2 LANES slices travel together. Lane i holds slices 2 i and 2 i + 1 as real and imaginary part; lanes do not meet,
so the bytes of a pair do not depend on its neighbours. A projection's spectrum goes from the cache straight onto
cells that are still in the cache from the angle before; nothing polar is stored.
"""

from __future__ import annotations

from typing import NamedTuple

from lightkeep.analysis.simd import compiled
from lightkeep.analysis.simd.compile import part
from lightkeep.analysis.simd.lanes import load, transpose
from lightkeep.analysis.simd.memory import clear_bytes, copy_bytes, get_f64, get_i64, prefetch
from lightkeep.analysis.simd.record import record
from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.tomography.kernels.fft import ELEMENT, IMAGINARY, transform
from lightkeep.analysis.tomography.kernels.spread import (
    spread_3,
    spread_4,
    spread_5,
    two_down,
    two_here,
    two_left,
    two_left_down,
    two_right,
    two_right_down,
)

BATCH = 2 * LANES
"""Slices that travel together."""
BORDER = 4
"""Cells around the plane: kernels reach over its edge, and what they leave there is folded back."""
STEP_BITS = 10
STEPS = 1 << STEP_BITS
"""Positions within a cell for which the kernel is kept."""
NEIGHBOURS = 0.98
"""Squared distance of samples, in cells, below which the next one begins at most a cell further."""


class Rays(NamedTuple):
    """Numbers and addresses that `add_rays` works with."""

    angles: int
    columns: int
    length: int
    """Samples of a padded projection."""
    plan: int
    """FFT of `length`."""
    order: int
    """(angles,) int64: which projection comes when; neighbours share cells."""
    directions: int
    """(angles + 1, 2) float64: cells per sample of the spectrum in x and y, in that order; the last one again."""
    factors: int
    """(angles, length) complex64: filter, weight and phase of each sample in the FFT's order, in that order."""
    kernel: int
    """(STEPS, 8) float32: weights by position."""
    size: int
    """Cells of the plane along x and y, without border."""
    plane: int
    """(size + 2 BORDER) rows of elements, `pitch_of(size)` bytes apart."""
    ahead: float
    """How many cells aside of a projection those are that are fetched for the next one; may be a fraction."""
    work: int
    """`length` + LANES elements, and what the FFT works in."""


rays_at = record(Rays)


@part
def pitch_of(size: int) -> int:
    """Bytes from row to row of a plane: an odd number of elements, so a column is spread over the whole cache."""
    return ((size + 2 * BORDER) | 1) * ELEMENT


@part
def enter(source: int, step: int, columns: int, to: int, spare: int, ahead: int) -> int:
    """Turn BATCH rows of `columns` float32, `step` bytes apart, into as many elements.

    ahead: bytes to the rows that come next.
    """
    blocks = columns // LANES
    for pair in range(0, blocks, 2):
        for side in range(2):  # lines of the cache are used up before others of the same place come
            for block in range(pair, min(pair + 2, blocks)):
                at = source + side * step + block * LANES * 4
                transpose(at, 2 * step, to + block * LANES * ELEMENT + side * IMAGINARY, ELEMENT)
        for row in range(BATCH):
            prefetch(source + ahead + row * step + pair * LANES * 4)
    rest = columns - blocks * LANES
    if rest:
        clear_bytes(spare, BATCH * LANES * 4)
        for row in range(BATCH):
            copy_bytes(source + row * step + blocks * LANES * 4, spare + row * LANES * 4, rest * 4)
        z = to + blocks * LANES * ELEMENT
        transpose(spare, 2 * LANES * 4, z, ELEMENT)
        transpose(spare + LANES * 4, 2 * LANES * 4, z + IMAGINARY, ELEMENT)
    return 0


@part
def place(position: float, width: int) -> int:
    """First cell that a kernel touches; in the lower bits, how far on it is, in steps."""
    steps = int((position - 0.5 * width) * STEPS + 0.5)  # positive: rounds to the nearest step
    return steps + STEPS - 1


@part
def fetch_ahead(job_address: int, angle: int, k: int) -> int:
    """Have the cells in the cache soon that the next projection touches and this one does not."""
    job = rays_at(job_address)
    dx, dy = get_f64(job.directions, 2 * angle + 2), get_f64(job.directions, 2 * angle + 3)
    middle = job.size // 2 + BORDER
    pitch = pitch_of(job.size)
    side = job.ahead if k > 0 else -job.ahead
    x, y = middle + k * dx - side * dy, middle + k * dy + side * dx
    at = job.plane + int(y) * pitch + int(x) * ELEMENT
    prefetch(at)
    prefetch(at + ELEMENT)
    prefetch(at + pitch)
    prefetch(at + pitch + ELEMENT)
    return 0


@part
def add_two(  # type: ignore[no-untyped-def]
    cell: int, pitch: int, wx: int, wy: int, ux: int, uy: int, vr, vi, zr, zi, across: int, along: int
) -> int:
    """Spread two samples over 4 x 4 cells; the second's are `across` to the right, -1 to 1, and `along` down."""
    if along == 0:
        if across == 0:
            two_here(cell, pitch, wx, wy, ux, uy, vr, vi, zr, zi)
        elif across == 1:
            two_right(cell, pitch, wx, wy, ux, uy, vr, vi, zr, zi)
        else:
            two_left(cell - ELEMENT, pitch, wx, wy, ux, uy, vr, vi, zr, zi)
    elif across == 0:
        two_down(cell, pitch, wx, wy, ux, uy, vr, vi, zr, zi)
    elif across == 1:
        two_right_down(cell, pitch, wx, wy, ux, uy, vr, vi, zr, zi)
    else:
        two_left_down(cell - ELEMENT, pitch, wx, wy, ux, uy, vr, vi, zr, zi)
    return 0


@part
def add_pairs(job_address: int, spectrum: int, angle: int) -> int:
    """Add a projection's spectrum but its last sample, two at a time: most of their 4 x 4 cells are the same."""
    job = rays_at(job_address)
    length, plane, kernel = job.length, job.plane, job.kernel
    half = (length - 1) // 2
    dx, dy = get_f64(job.directions, 2 * angle), get_f64(job.directions, 2 * angle + 1)
    middle = job.size // 2 + BORDER
    pitch = pitch_of(job.size)
    turned = dy < 0  # the one that is further up comes first
    for i in range(half):
        k = 2 * i - half
        j, k = k + turned, k + 1 - turned
        at, to = spectrum + (j + length * (j < 0)) * ELEMENT, spectrum + (k + length * (k < 0)) * ELEMENT
        vr, vi, zr, zi = load(at), load(at + IMAGINARY), load(to), load(to + IMAGINARY)
        x, y = place(middle + j * dx, 4), place(middle + j * dy, 4)
        u, v = place(middle + k * dx, 4), place(middle + k * dy, 4)
        wx, wy = kernel + (x & (STEPS - 1)) * 32, kernel + (y & (STEPS - 1)) * 32
        ux, uy = kernel + (u & (STEPS - 1)) * 32, kernel + (v & (STEPS - 1)) * 32
        row, column = y >> STEP_BITS, x >> STEP_BITS
        across, along = (u >> STEP_BITS) - column, (v >> STEP_BITS) - row
        fetch_ahead(job_address, angle, k)
        add_two(plane + row * pitch + column * ELEMENT, pitch, wx, wy, ux, uy, vr, vi, zr, zi, across, along)
    return 0


@part
def add_ray(job_address: int, spectrum: int, angle: int, width: int) -> int:
    """Add one projection's spectrum to the plane."""
    job = rays_at(job_address)
    length, plane, kernel = job.length, job.plane, job.kernel
    half = (length - 1) // 2
    dx, dy = get_f64(job.directions, 2 * angle), get_f64(job.directions, 2 * angle + 1)
    middle = job.size // 2 + BORDER
    pitch = pitch_of(job.size)
    first = -half
    if width == 4 and dx * dx + dy * dy < NEIGHBOURS:
        add_pairs(job_address, spectrum, angle)
        first = half
    for k in range(first, half + 1):
        at = spectrum + (k + length * (k < 0)) * ELEMENT
        vr, vi = load(at), load(at + IMAGINARY)
        x, y = place(middle + k * dx, width), place(middle + k * dy, width)
        wx = kernel + (x & (STEPS - 1)) * 32
        wy = kernel + (y & (STEPS - 1)) * 32
        cell = plane + (y >> STEP_BITS) * pitch + (x >> STEP_BITS) * ELEMENT
        fetch_ahead(job_address, angle, k)
        if width == 4:
            spread_4(cell, pitch, wx, wy, vr, vi)
        elif width == 3:
            spread_3(cell, pitch, wx, wy, vr, vi)
        else:
            spread_5(cell, pitch, wx, wy, vr, vi)
    return 0


@compiled
def add_rays(job_address: int, source: int, row_step: int, slice_step: int, width: int) -> int:
    """Add BATCH sinograms of float32 to the plane; steps in bytes."""
    job = rays_at(job_address)
    x = job.work
    spare = x + job.length * ELEMENT
    work = spare + LANES * ELEMENT
    filled = -(-job.columns // LANES) * LANES * ELEMENT
    for angle in range(job.angles):
        row = source + get_i64(job.order, angle) * row_step
        following = source + get_i64(job.order, min(angle + 1, job.angles - 1)) * row_step
        enter(row, slice_step, job.columns, x, spare, following - row)
        clear_bytes(x + filled, job.length * ELEMENT - filled)
        factors = job.factors + angle * job.length * 8
        for line in range(job.length * 8, 2 * job.length * 8, 64):  # the next one's, which are not read in turn
            prefetch(factors + line)
        transform(x, ELEMENT, x, ELEMENT, factors, 8, job.plan, work, 0, 0)
        add_ray(job_address, x, angle, width)
    return 0
