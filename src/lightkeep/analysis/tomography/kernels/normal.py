"""The normal operator in lanes: project and back-project at once, as a convolution.

Of a parallel beam that is one, whatever the angles: zero-pad to twice the size, multiply in Fourier space, cut.
Half of the padded plane is zero, so only the other half is kept. Conjugate gradients do the rest.
"""

from __future__ import annotations

from typing import NamedTuple

from lightkeep.analysis.simd import compiled
from lightkeep.analysis.simd.compile import part
from lightkeep.analysis.simd.lanes import add_to_f64, fmuladd, load, splat, store, zero
from lightkeep.analysis.simd.memory import clear_bytes, copy_bytes, get_f32
from lightkeep.analysis.simd.record import record
from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.tomography.kernels.fft import ELEMENT, IMAGINARY, fetch, transform
from lightkeep.analysis.tomography.kernels.image import copy_strided


class Normal(NamedTuple):
    """Numbers and addresses that `apply` works with."""

    columns: int
    size: int
    """Length of a padded row, at least 2 columns - 1."""
    plan: int
    """FFT of `size`."""
    transfer: int
    """(size, size) float32, by x and y: what the image's spectrum is multiplied by, 1 / size^2 included."""
    plane: int
    """(columns, size + PAD) elements."""
    ones: int
    """One complex64: 1."""
    work: int
    """3 size + 1 elements, and what the FFT works in."""


PAD = 9
"""Elements between the rows of the plane: a step that is a power of two would use few lines of the cache."""
AHEAD = 4
"""Columns that are fetched from memory before they are needed."""
normal_at = record(Normal)


@part
def enter_rows(job_address: int, image: int) -> int:
    """Transform the rows of an image."""
    job = normal_at(job_address)
    row, work = job.columns * ELEMENT, job.work + (3 * job.size + 1) * ELEMENT
    clear_bytes(job.work + row, (job.size - job.columns) * ELEMENT)
    for y in range(job.columns):
        copy_bytes(image + y * row, job.work, row)
        to = job.plane + y * (job.size + PAD) * ELEMENT
        transform(job.work, ELEMENT, to, ELEMENT, job.ones, 0, job.plan, work, 0, 0)
    return 0


@part
def turn_columns(job_address: int) -> int:
    """Transform columns, multiply, transform back."""
    job = normal_at(job_address)
    pitch = (job.size + PAD) * ELEMENT
    found, last = job.work + job.size * ELEMENT, job.work + 2 * job.size * ELEMENT
    work = job.work + (3 * job.size + 1) * ELEMENT
    clear_bytes(job.work + job.columns * ELEMENT, (job.size - job.columns) * ELEMENT)
    for x in range(job.size):
        column = job.plane + x * ELEMENT
        fetch(column + AHEAD * ELEMENT, pitch, job.columns)
        copy_strided(column, pitch, job.work, ELEMENT, job.columns)
        transform(job.work, ELEMENT, found, ELEMENT, job.ones, 0, job.plan, work, 0, 0)
        factors = job.transfer + x * job.size * 4
        for y in range(job.size):
            at = found + y * ELEMENT
            factor = splat(get_f32(factors, y))
            store(at, load(at) * factor)
            store(at + IMAGINARY, load(at + IMAGINARY) * factor)
        transform(found, ELEMENT, last, ELEMENT, job.ones, 0, job.plan, work, 0, 0)
        copy_bytes(last, last + job.size * ELEMENT, ELEMENT)
        copy_strided(last + job.size * ELEMENT, -ELEMENT, column, pitch, job.columns)
    return 0


@part
def add_products(a: int, b: int, count: int, dots: int) -> int:
    """Add to the 2 LANES float64 at `dots` the products of elements, part by part."""
    real, imaginary = zero(), zero()
    for i in range(count):
        at = i * ELEMENT
        real = fmuladd(load(a + at), load(b + at), real)
        imaginary = fmuladd(load(a + at + IMAGINARY), load(b + at + IMAGINARY), imaginary)
    add_to_f64(dots, real)
    add_to_f64(dots + 8 * LANES, imaginary)
    return 0


@compiled
def apply(job_address: int, image: int, out: int, dots: int) -> int:
    """Write the operator's image of an image; add their products to `dots`, 2 LANES float64."""
    job = normal_at(job_address)
    enter_rows(job_address, image)
    turn_columns(job_address)
    row, work = job.columns * ELEMENT, job.work + (3 * job.size + 1) * ELEMENT
    for y in range(job.columns):
        at = job.plane + y * (job.size + PAD) * ELEMENT
        transform(at, ELEMENT, job.work, ELEMENT, job.ones, 0, job.plan, work, 0, 0)
        end = job.work + job.size * ELEMENT
        copy_bytes(job.work, end, ELEMENT)
        copy_strided(end, -ELEMENT, out + y * row, ELEMENT, job.columns)
        add_products(image + y * row, out + y * row, job.columns, dots)
    return 0


@compiled
def descend(x: int, r: int, p: int, q: int, step: int, columns: int, dots: int) -> int:
    """Move x by a step along p, take as much of q from r, and add r's squares to `dots`; step: 2 LANES float32."""
    real, imaginary = load(step), load(step + IMAGINARY)
    less_real, less_imaginary = zero() - real, zero() - imaginary
    for y in range(columns):
        for i in range(y * columns, (y + 1) * columns):
            a, b = i * ELEMENT, i * ELEMENT + IMAGINARY
            store(x + a, fmuladd(real, load(p + a), load(x + a)))
            store(x + b, fmuladd(imaginary, load(p + b), load(x + b)))
            store(r + a, fmuladd(less_real, load(q + a), load(r + a)))
            store(r + b, fmuladd(less_imaginary, load(q + b), load(r + b)))
        add_products(r + y * columns * ELEMENT, r + y * columns * ELEMENT, columns, dots)
    return 0


@compiled
def turn(p: int, r: int, share: int, count: int) -> int:
    """Make p what it is times `share`, 2 LANES float32, plus r."""
    real, imaginary = load(share), load(share + IMAGINARY)
    for i in range(count):
        a, b = i * ELEMENT, i * ELEMENT + IMAGINARY
        store(p + a, fmuladd(real, load(p + a), load(r + a)))
        store(p + b, fmuladd(imaginary, load(p + b), load(r + b)))
    return 0
