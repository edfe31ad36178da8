"""From the Fourier plane to slices: an inverse FFT along columns, then along rows, and out of the lanes."""

from __future__ import annotations

from typing import NamedTuple

from lightkeep.analysis.simd import compiled
from lightkeep.analysis.simd.compile import part
from lightkeep.analysis.simd.lanes import fence, load, store, store_far, transpose
from lightkeep.analysis.simd.memory import clear_bytes, copy_bytes, get_i64
from lightkeep.analysis.simd.record import record
from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.tomography.kernels.fft import ELEMENT, IMAGINARY, transform
from lightkeep.analysis.tomography.kernels.rays import BORDER, pitch_of


class Plane(NamedTuple):
    """Numbers and addresses that `finish` works with."""

    size: int
    """Cells of the plane along x and y, without border."""
    source: int
    """The plane, (size + 2 BORDER) rows `pitch_of(size)` bytes apart; what is on its border is folded back."""
    plane: int
    """As much memory, which is clear in the end; may be the same."""
    plan: int
    """FFT of `size`."""
    columns: int
    """Width and height of a slice."""
    taper: int
    """(size,) complex64: what a slice is multiplied by along x, and along y, by the number in the FFT."""
    spans: int
    """(columns, 2) int64: the first pixel of a row that is kept, and the one after the last."""
    work: int
    """size + columns + 3 LANES elements, and what the FFT works in."""


plane_at = record(Plane)
AHEAD = 2
"""Columns that are fetched from memory before they are needed."""


@part
def add_elements(source: int, target: int, count: int) -> int:
    """Move elements in memory onto others."""
    for i in range(2 * count):
        at = target + i * IMAGINARY
        store(at, load(at) + load(source + i * IMAGINARY))
    clear_bytes(source, count * ELEMENT)
    return 0


@part
def fold(plane: int, size: int) -> int:
    """Move what lies on the border to the opposite side: the plane is periodic."""
    whole, pitch = size + 2 * BORDER, pitch_of(size)
    for row in range(whole):
        at = plane + row * pitch
        add_elements(at, at + size * ELEMENT, BORDER)
        add_elements(at + (size + BORDER) * ELEMENT, at + BORDER * ELEMENT, BORDER)
    for row in range(BORDER):
        add_elements(plane + row * pitch, plane + (row + size) * pitch, whole)
        add_elements(plane + (row + size + BORDER) * pitch, plane + (row + BORDER) * pitch, whole)
    return 0


@part
def finish_columns(job_address: int) -> int:
    """Transform all columns, from one plane to the other."""
    job = plane_at(job_address)
    fold(job.source, job.size)
    pitch = pitch_of(job.size)
    work = job.work + (job.size + job.columns + 3 * LANES) * ELEMENT
    ahead = AHEAD * ELEMENT
    for column in range(job.size):
        at = BORDER * pitch + (BORDER + column) * ELEMENT
        x, z = job.source + at, job.plane + at
        transform(x, pitch, z, pitch, job.taper, 8, job.plan, work, ahead, ahead * (z != x))
    return 0


@part
def finish_row(job_address: int, y: int) -> int:
    """Transform the row of a slice's y to the work, behind LANES elements: its last ones once more."""
    job = plane_at(job_address)
    pitch, left = pitch_of(job.size), job.columns // 2
    found = job.work + LANES * ELEMENT
    work = job.work + (job.size + job.columns + 3 * LANES) * ELEMENT
    at = job.plane + (BORDER + left - y + job.size * (y > left)) * pitch + BORDER * ELEMENT
    transform(at, ELEMENT, found, ELEMENT, job.taper, 8, job.plan, work, -pitch, 0)
    clear_bytes(at, job.size * ELEMENT)  # for the next batch, while it is in the cache
    copy_bytes(found + (job.size - LANES) * ELEMENT, job.work, LANES * ELEMENT)
    return 0


@part
def clear_rest(job_address: int) -> int:
    """Clear the rows that are not in the image."""
    job = plane_at(job_address)
    pitch, left = pitch_of(job.size), job.columns // 2
    for row in range(left + 1, job.size - job.columns + left + 1):
        clear_bytes(job.plane + (row + BORDER) * pitch + BORDER * ELEMENT, job.size * ELEMENT)
    return 0


@part
def copy_strided(source: int, source_step: int, target: int, target_step: int, count: int) -> int:
    """Copy elements that are steps apart."""
    for i in range(count):
        at, to = source + i * source_step, target + i * target_step
        store(to, load(at))
        store(to + IMAGINARY, load(at + IMAGINARY))
    return 0


@part
def copy_far(source: int, target: int, count: int) -> int:
    """Copy bytes past the cache, whose lines would be read first."""
    head = min(-target % 64, count)
    end = count - (count - head) % 64
    copy_bytes(source, target, head)
    for at in range(head, end, 4 * LANES):
        store_far(target + at, load(source + at))
    copy_bytes(source + end, target + end, count - end)
    return 0


@part
def leave(job_address: int, y: int, out: int, slices: int) -> int:
    """Write one row of each slice, zero outside of its span."""
    job = plane_at(job_address)
    line = (job.columns + 2 * LANES) * 4
    rows = job.work + (job.size + LANES) * ELEMENT
    first, last = get_i64(job.spans, 2 * y), get_i64(job.spans, 2 * y + 1)
    for i in range(slices):
        row = rows + i * line
        clear_bytes(row, first * 4)
        clear_bytes(row + last * 4, (job.columns - last) * 4)
        copy_far(row, out + (i * job.columns + y) * job.columns * 4, job.columns * 4)
    return 0


@part
def turn(job_address: int, source: int, step: int, begin: int) -> int:
    """Take LANES elements, `step` bytes apart, out of the lanes: to column `begin` of what `leave` writes."""
    job = plane_at(job_address)
    line = (job.columns + 2 * LANES) * 4
    to = job.work + (job.size + LANES) * ELEMENT + begin * 4
    transpose(source, step, to, 2 * line)
    transpose(source + IMAGINARY, step, to + line, 2 * line)
    return 0


@compiled
def finish(job_address: int, out: int, slices: int) -> int:
    """Make `slices` slices of float32, at most BATCH, from the plane."""
    job = plane_at(job_address)
    left = job.columns // 2
    finish_columns(job_address)
    for y in range(job.columns):
        finish_row(job_address, y)
        for begin in range(0, job.columns, LANES):
            at = LANES + left - begin + job.size * (begin > left)
            turn(job_address, job.work + at * ELEMENT, -ELEMENT, begin)
        leave(job_address, y, out, slices)
    clear_rest(job_address)
    fence()
    return 0


@compiled
def finish_in_lanes(job_address: int, image: int) -> int:
    """Make (columns, columns) elements from the plane."""
    job = plane_at(job_address)
    left = job.columns // 2
    finish_columns(job_address)
    for y in range(job.columns):
        finish_row(job_address, y)
        found, at = job.work + LANES * ELEMENT, image + y * job.columns * ELEMENT
        copy_strided(found + left * ELEMENT, -ELEMENT, at, ELEMENT, left + 1)
        last = found + (job.size - 1) * ELEMENT
        copy_strided(last, -ELEMENT, at + (left + 1) * ELEMENT, ELEMENT, job.columns - left - 1)
    clear_rest(job_address)
    return 0


@compiled
def release(job_address: int, image: int, out: int, slices: int) -> int:
    """Make slices of float32 from (columns, columns) elements; LANES elements behind them are read as well."""
    job = plane_at(job_address)
    for y in range(job.columns):
        for begin in range(0, job.columns, LANES):
            turn(job_address, image + (y * job.columns + begin) * ELEMENT, ELEMENT, begin)
        leave(job_address, y, out, slices)
    fence()
    return 0
