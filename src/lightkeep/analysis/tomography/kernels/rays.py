"""From sinograms to the Fourier plane: each projection's spectrum is added along its diameter.

2 LANES slices travel together. Lane i holds slices 2 i and 2 i + 1 as real and imaginary part; lanes do not meet,
so the bytes of a pair do not depend on its neighbours. A projection's spectrum goes from the cache straight onto
cells that are still in the cache from the angle before; nothing polar is stored.
"""

from __future__ import annotations

from typing import NamedTuple

from lightkeep.analysis.simd import compiled
from lightkeep.analysis.simd.compile import part
from lightkeep.analysis.simd.lanes import fmuladd, load, splat, store, transpose, zero
from lightkeep.analysis.simd.memory import clear_bytes, copy_bytes, get_f32, get_i64, prefetch
from lightkeep.analysis.simd.record import record
from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.tomography.kernels.fft import ELEMENT, IMAGINARY, transform
from lightkeep.analysis.tomography.kernels.spread import two_3, two_4, two_5

BATCH = 2 * LANES
"""Slices that travel together."""
BORDER = 4
"""Cells around the plane: kernels reach over its edge, and what they leave there is folded back."""
STEP_BITS = 10
STEPS = 1 << STEP_BITS
"""Positions within a cell for which the kernel is kept."""
TAPS = 24
"""Samples from which one between them is interpolated."""
TOGETHER = 4
"""Projections that are added side by side."""
PLACE_BITS = 32
"""Bits of a position below the cell."""
MORE_BITS = PLACE_BITS - STEP_BITS


class Rays(NamedTuple):
    """Numbers and addresses that `add_rays` works with."""

    angles: int
    columns: int
    length: int
    """Samples of whole number of a projection's spectrum; a multiple of 4."""
    halves: int
    """Samples between those at frequency zero; even."""
    near: int
    """Samples of whole number -near to near are what those between are interpolated from."""
    taps: int
    """(TAPS,) complex64: by what, the lowest first."""
    weights: int
    """(2 near + 1 + halves,) float32: what both are multiplied by then, the lowest first."""
    plan: int
    """FFT of `length`."""
    order: int
    """(angles,) int64: which projection comes when; neighbours share cells."""
    directions: int
    """(angles + 1, 2) int64: half a sample's step in x and y, in cells / 2 ** PLACE_BITS, in that order; the last
    one again."""
    factors: int
    """(angles, length) complex64: filter, weight and phase of each sample in the FFT's order, in that order."""
    kernel: int
    """(STEPS, 8) float32: weights by position, after a zero and before more."""
    size: int
    """Cells of the plane along x and y, without border."""
    plane: int
    """(size + 2 BORDER) rows of elements, `pitch_of(size)` bytes apart."""
    ahead: int
    """How many half samples aside of a projection those cells are that are fetched for it."""
    work: int
    """TOGETHER (`length` + `halves`) + LANES elements, and what the FFT works in."""


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
def between(job_address: int, spectrum: int) -> int:
    """Interpolate the samples between, to the spectrum's end, and weigh them and those they came from."""
    job = rays_at(job_address)
    length, near, halves = job.length, job.near, job.halves
    for i in range(halves):
        first = i - halves // 2 - TAPS // 2 + 1
        real, imaginary = zero(), zero()
        for tap in range(TAPS):
            at = spectrum + (first + tap + length * (first + tap < 0)) * ELEMENT
            x, y = load(at), load(at + IMAGINARY)
            c, s = splat(get_f32(job.taps, 2 * tap)), splat(get_f32(job.taps, 2 * tap + 1))
            real = fmuladd(x, c, real) - y * s
            imaginary = fmuladd(x, s, fmuladd(y, c, imaginary))
        weight = splat(get_f32(job.weights, 2 * near + 1 + i))
        at = spectrum + (length + i) * ELEMENT
        store(at, real * weight)
        store(at + IMAGINARY, imaginary * weight)
    for k in range(-near, near + 1):
        at = spectrum + (k + length * (k < 0)) * ELEMENT
        weight = splat(get_f32(job.weights, near + k))
        store(at, load(at) * weight)
        store(at + IMAGINARY, load(at + IMAGINARY) * weight)
    return 0


@part
def fetch_ahead(job_address: int, angle: int, first: int) -> int:
    """Have the cells in the cache soon that a later projection touches and none before it does."""
    job = rays_at(job_address)
    angle = min(angle, job.angles)
    dx, dy = get_i64(job.directions, 2 * angle), get_i64(job.directions, 2 * angle + 1)
    middle, pitch = (job.size // 2 + BORDER) << PLACE_BITS, pitch_of(job.size)
    side = job.ahead if first >= 0 else -job.ahead
    x, y = middle + first * dx - side * dy, middle + first * dy + side * dx
    at = job.plane + (y >> PLACE_BITS) * pitch + (x >> PLACE_BITS) * ELEMENT
    prefetch(at)
    prefetch(at + ELEMENT)
    prefetch(at + pitch)
    prefetch(at + pitch + ELEMENT)
    return 0


@part
def add_pair(job_address: int, at: int, first: int, angle: int, width: int) -> int:
    """Add two neighbouring samples of a projection to the plane; the first is `first` halves from zero."""
    job = rays_at(job_address)
    kernel, pitch = job.kernel, pitch_of(job.size)
    dx, dy = get_i64(job.directions, 2 * angle), get_i64(job.directions, 2 * angle + 1)
    begin = ((job.size // 2 + BORDER) << PLACE_BITS) - (width << (PLACE_BITS - 1)) + (STEPS << MORE_BITS)
    x, y = begin - (1 << (MORE_BITS - 1)) + first * dx, begin - (1 << (MORE_BITS - 1)) + first * dy
    vr, vi, zr, zi = load(at), load(at + IMAGINARY), load(at + ELEMENT), load(at + ELEMENT + IMAGINARY)
    a, b, c, d = x >> MORE_BITS, y >> MORE_BITS, (x + 2 * dx) >> MORE_BITS, (y + 2 * dy) >> MORE_BITS
    column, row = min(a, c) >> STEP_BITS, min(b, d) >> STEP_BITS
    wx = kernel + (a & (STEPS - 1)) * 32 - 4 * ((a >> STEP_BITS) - column)
    wy = kernel + (b & (STEPS - 1)) * 32 - 4 * ((b >> STEP_BITS) - row)
    ux = kernel + (c & (STEPS - 1)) * 32 - 4 * ((c >> STEP_BITS) - column)
    uy = kernel + (d & (STEPS - 1)) * 32 - 4 * ((d >> STEP_BITS) - row)
    cell = job.plane + row * pitch + column * ELEMENT
    fetch_ahead(job_address, angle + TOGETHER, first)
    if width == 4:
        two_4(cell, pitch, wx, wy, ux, uy, vr, vi, zr, zi)
    elif width == 3:
        two_3(cell, pitch, wx, wy, ux, uy, vr, vi, zr, zi)
    else:
        two_5(cell, pitch, wx, wy, ux, uy, vr, vi, zr, zi)
    return 0


@part
def add_samples(job_address: int, at: int, count: int, first: int, angle: int, rays: int, width: int) -> int:
    """Add neighbouring samples of some projections, side by side: they meet the same cells."""
    job = rays_at(job_address)
    step = (job.length + job.halves) * ELEMENT
    for i in range(0, count, 2):
        for ray in range(rays):
            add_pair(job_address, at + i * ELEMENT + ray * step, first + 2 * i, angle + ray, width)
    return 0


@compiled
def add_rays(job_address: int, source: int, row_step: int, slice_step: int, width: int) -> int:
    """Add BATCH sinograms of float32 to the plane; steps in bytes."""
    job = rays_at(job_address)
    step = (job.length + job.halves) * ELEMENT
    spare = job.work + TOGETHER * step
    work = spare + LANES * ELEMENT
    filled, half = -(-job.columns // LANES) * LANES * ELEMENT, job.length // 2
    for first in range(0, job.angles, TOGETHER):
        rays = min(TOGETHER, job.angles - first)
        for angle in range(first, first + rays):
            x = job.work + (angle - first) * step
            row = source + get_i64(job.order, angle) * row_step
            following = source + get_i64(job.order, min(angle + 1, job.angles - 1)) * row_step
            enter(row, slice_step, job.columns, x, spare, following - row)
            clear_bytes(x + filled, job.length * ELEMENT - filled)
            factors = job.factors + angle * job.length * 8
            for line in range(
                job.length * 8, 2 * job.length * 8, 64
            ):  # the next one's, which are not read in turn
                prefetch(factors + line)
            transform(x, ELEMENT, x, ELEMENT, factors, 8, job.plan, work, 0, 0)
            between(job_address, x)
        add_samples(job_address, job.work + half * ELEMENT, half, -job.length, first, rays, width)
        add_samples(job_address, job.work + job.length * ELEMENT, job.halves, 1 - job.halves, first, rays, width)
        add_samples(job_address, job.work, half, 0, first, rays, width)
    return 0
