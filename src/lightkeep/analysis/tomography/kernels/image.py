"""From the Fourier plane to slices: an inverse FFT along rows, then along columns, and out of the lanes."""

from __future__ import annotations

from typing import NamedTuple

from lightkeep.analysis.simd import compiled
from lightkeep.analysis.simd.compile import part
from lightkeep.analysis.simd.lanes import load, splat, store, transpose
from lightkeep.analysis.simd.memory import clear_bytes, copy_bytes, get_f32, get_i64, prefetch
from lightkeep.analysis.simd.record import record
from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.tomography.kernels.fft import ELEMENT, IMAGINARY, transform
from lightkeep.analysis.tomography.kernels.rays import BATCH, BORDER


class Plane(NamedTuple):
    """Numbers and addresses that `finish` works with."""

    size: int
    """Cells of the plane along x and y, without border."""
    plane: int
    """(size + 2 BORDER, size + 2 BORDER) elements."""
    plan: int
    """FFT of `size`."""
    columns: int
    """Width and height of a slice."""
    taper: int
    """(columns,) float32: what a slice is multiplied by along x, and along y."""
    spans: int
    """(columns, 2) int64: the first pixel of a row that is kept, and the one after the last."""
    work: int
    """2 size + columns LANES elements."""


plane_at = record(Plane)


@part
def add_elements(source: int, target: int, count: int) -> int:
    """Add elements in memory."""
    for i in range(2 * count):
        at = target + i * IMAGINARY
        store(at, load(at) + load(source + i * IMAGINARY))
    return 0


@part
def fold(plane: int, size: int) -> int:
    """Add what lies on the border to the opposite side: the plane is periodic."""
    whole = size + 2 * BORDER
    pitch = whole * ELEMENT
    for row in range(whole):
        at = plane + row * pitch
        add_elements(at, at + size * ELEMENT, BORDER)
        add_elements(at + (size + BORDER) * ELEMENT, at + BORDER * ELEMENT, BORDER)
    for row in range(BORDER):
        add_elements(plane + row * pitch, plane + (row + size) * pitch, whole)
        add_elements(plane + (row + size + BORDER) * pitch, plane + (row + BORDER) * pitch, whole)
    return 0


AHEAD = 4
"""Columns that are fetched from memory before they are needed."""


@part
def copy_strided(source: int, source_step: int, target: int, target_step: int, count: int) -> int:
    """Copy elements that are steps apart."""
    for i in range(count):
        at, to = source + i * source_step, target + i * target_step
        prefetch(at + AHEAD * ELEMENT)
        store(to, load(at))
        store(to + IMAGINARY, load(at + IMAGINARY))
    return 0


@part
def finish_row(job_address: int, row: int) -> int:
    """Transform one row and keep the pixels of the slice, the first at the start of the row."""
    job = plane_at(job_address)
    at = job.plane + (row + BORDER) * (job.size + 2 * BORDER) * ELEMENT
    first = at + BORDER * ELEMENT
    found = transform(first, job.work, job.plan, IMAGINARY, 0)
    left = job.columns // 2
    right = (job.columns - left) * ELEMENT
    spare = job.work
    if found == first:  # a whole row further on, so that nothing is read after it was written
        spare = job.work + job.size * ELEMENT
        copy_bytes(found, spare, right)
    copy_bytes(found + (job.size - left) * ELEMENT, at, left * ELEMENT)
    copy_bytes(spare, at + left * ELEMENT, right)
    return 0


@part
def finish_columns(job_address: int, begin: int, count: int, block: int, step: int) -> int:
    """Transform some columns into as many elements at `block`, its rows `step` bytes apart."""
    job = plane_at(job_address)
    pitch = (job.size + 2 * BORDER) * ELEMENT
    left = job.columns // 2
    for column in range(count):
        copy_strided(job.plane + BORDER * pitch + (begin + column) * ELEMENT, pitch, job.work, ELEMENT, job.size)
        found = transform(job.work, job.work + job.size * ELEMENT, job.plan, IMAGINARY, 0)
        across = get_f32(job.taper, begin + column)
        for y in range(job.columns):
            at = found + (y - left + job.size * (y < left)) * ELEMENT
            to = block + y * step + column * ELEMENT
            factor = splat(across * get_f32(job.taper, y))
            store(to, load(at) * factor)
            store(to + IMAGINARY, load(at + IMAGINARY) * factor)
    return 0


@part
def leave(job_address: int, begin: int, count: int, block: int, step: int, out: int, slices: int) -> int:
    """Write `count` columns, at most LANES, from elements at `block` into the slices."""
    job = plane_at(job_address)
    size = job.columns * job.columns * 4
    spare = job.work
    for y in range(job.columns):
        at = block + y * step
        to = out + (y * job.columns + begin) * 4
        if count == LANES and slices == BATCH:
            transpose(at, ELEMENT, to, 2 * size)
            transpose(at + IMAGINARY, ELEMENT, to + size, 2 * size)
        else:
            transpose(at, ELEMENT, spare, 2 * IMAGINARY)
            transpose(at + IMAGINARY, ELEMENT, spare + IMAGINARY, 2 * IMAGINARY)
            for i in range(slices):
                copy_bytes(spare + i * IMAGINARY, to + i * size, count * 4)
    return 0


@part
def finish_rows(job_address: int) -> int:
    """Transform all rows."""
    job = plane_at(job_address)
    fold(job.plane, job.size)
    for row in range(job.size):
        finish_row(job_address, row)
    return 0


@part
def cut(job_address: int, out: int, slices: int) -> int:
    """Zero what is outside the spans."""
    job = plane_at(job_address)
    row_bytes = job.columns * 4
    for i in range(slices):
        for y in range(job.columns):
            at = out + (i * job.columns + y) * row_bytes
            first, last = get_i64(job.spans, 2 * y), get_i64(job.spans, 2 * y + 1)
            clear_bytes(at, first * 4)
            clear_bytes(at + last * 4, (job.columns - last) * 4)
    return 0


@compiled
def finish(job_address: int, out: int, slices: int) -> int:
    """Make `slices` slices of float32, at most BATCH, from the plane."""
    job = plane_at(job_address)
    finish_rows(job_address)
    block, step = job.work + 2 * job.size * ELEMENT, LANES * ELEMENT
    for begin in range(0, job.columns, LANES):
        count = min(LANES, job.columns - begin)
        finish_columns(job_address, begin, count, block, step)
        leave(job_address, begin, count, block, step, out, slices)
    cut(job_address, out, slices)
    return 0


@compiled
def finish_in_lanes(job_address: int, image: int) -> int:
    """Make (columns, columns) elements from the plane."""
    job = plane_at(job_address)
    finish_rows(job_address)
    finish_columns(job_address, 0, job.columns, image, job.columns * ELEMENT)
    return 0


@compiled
def release(job_address: int, image: int, out: int, slices: int) -> int:
    """Make slices of float32 from (columns, columns) elements; LANES elements behind them are read as well."""
    job = plane_at(job_address)
    for begin in range(0, job.columns, LANES):
        at, count = image + begin * ELEMENT, min(LANES, job.columns - begin)
        leave(job_address, begin, count, at, job.columns * ELEMENT, out, slices)
    cut(job_address, out, slices)
    return 0
