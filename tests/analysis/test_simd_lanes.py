"""Every operation of the SIMD lanes against numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lightkeep.analysis.simd import compiled, lanes, memory
from lightkeep.analysis.simd.lanes import LANES

Array = NDArray[Any]
RNG = np.random.default_rng(20)


def floats(*shape: int) -> Array:
    return RNG.normal(size=(*shape, LANES)).astype(np.float32)


def at(array: Array) -> int:
    return array.ctypes.data


@compiled
def arithmetic(a: int, b: int, c: int, out: int) -> None:
    x, y, z = lanes.load(a), lanes.load(b), lanes.load(c)
    row = 4 * LANES
    lanes.store(out, x + y)
    lanes.store(out + row, x - y)
    lanes.store(out + 2 * row, x * y)
    lanes.store(out + 3 * row, x / y)
    lanes.store(out + 4 * row, lanes.fmuladd(x, y, z))
    lanes.store(out + 5 * row, lanes.select_less(x, y, z, lanes.splat(2.5)))
    lanes.store(out + 6 * row, lanes.zip_low(x, y))
    lanes.store(out + 7 * row, lanes.zip_high(x, y))
    lanes.store(out + 8 * row, lanes.zero())


def test_arithmetic_is_numpys_lane_by_lane() -> None:
    x, y, z = floats(3)
    x[0], y[1] = np.nan, 0
    out = np.empty((9, LANES), np.float32)
    arithmetic(at(x), at(y), at(z), at(out))
    with np.errstate(divide="ignore"):
        wanted = [x + y, x - y, x * y, x / y]
    for found, right in zip(out, wanted, strict=False):
        np.testing.assert_array_equal(found, right)
    once = (x.astype(float) * y + z).astype(np.float32)
    np.testing.assert_allclose(out[4], once, rtol=1e-6, atol=1e-6)  # a machine without fused adds rounds twice
    np.testing.assert_array_equal(out[5], np.where(x < y, z, np.float32(2.5)))
    zipped = np.stack([x, y], axis=1).ravel()
    np.testing.assert_array_equal(out[6:8].ravel(), zipped)
    np.testing.assert_array_equal(out[8], 0)


@compiled
def widened(kind: int, source: int, out: int) -> None:
    if kind == 1:
        lanes.store(out, lanes.load_u8(source))
    elif kind == 2:
        lanes.store(out, lanes.load_u16(source))
    else:
        lanes.store(out, lanes.load_u32(source))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32])
def test_unsigned_integers_load_as_the_nearest_float(dtype: type[np.unsignedinteger[Any]]) -> None:
    highest = int(np.iinfo(dtype).max)
    source = RNG.integers(0, highest, LANES, dtype=dtype)
    source[:2] = 0, highest
    out = np.empty(LANES, np.float32)
    widened(np.dtype(dtype).itemsize, at(source), at(out))
    np.testing.assert_array_equal(out, source.astype(np.float32))


@compiled
def bulk(rows: int, flipped: int, line: int, copied: int, wide: int) -> None:
    lanes.transpose(rows, 8 * LANES, flipped, 4 * LANES)
    lanes.copy64(line, copied)
    lanes.add_to_f64(wide, lanes.load(rows))


def test_transpose_copy_and_adding_to_doubles() -> None:
    rows = floats(LANES, 2)  # every second row of LANES: a step of 8 LANES bytes
    flipped = np.empty((LANES, LANES), np.float32)
    line = RNG.integers(0, 255, 64, dtype=np.uint8)
    copied, wide = np.zeros_like(line), RNG.random(LANES)
    before = wide.copy()
    bulk(at(rows), at(flipped), at(line), at(copied), at(wide))
    np.testing.assert_array_equal(flipped, rows[:, 0].T)
    np.testing.assert_array_equal(copied, line)
    np.testing.assert_array_equal(wide, before + rows[0, 0])


@compiled
def sums(rows: int, weights: int, wide: int, doubles: int, out: int) -> None:
    lanes.add_row_sums(rows, weights, out)
    lanes.add_row_sums_f64(wide, doubles, out + 32)


def test_sums_over_lanes_are_weighted_and_added() -> None:
    rows, weights = (
        RNG.integers(0, 99, (4, LANES)).astype(np.float32),
        RNG.integers(0, 3, LANES).astype(np.float32),
    )
    out = np.full((2, 4), 7.0)
    wide, doubles = rows.astype(float) / 8, weights.astype(float)
    sums(at(rows), at(weights), at(wide), at(doubles), at(out))
    np.testing.assert_array_equal(out[0], 7 + rows @ weights)
    np.testing.assert_array_equal(out[1], 7 + wide @ doubles)


@compiled
def finish(acc: int, sums: int, edges: int, pairs: float, out: int) -> None:
    total = lanes.load_f64(sums)
    tail = lanes.add_wide(lanes.no_doubles(), lanes.load(edges))
    head = lanes.sub_wide(lanes.no_doubles(), lanes.load(edges + 4 * LANES))
    lanes.finish_pixels(acc, total, tail, head, pairs, 1e-3, out, 8 * LANES)


def test_pixels_without_counts_give_zero_and_are_not_counted() -> None:
    acc, total = RNG.random(LANES) * 9, 5 + RNG.random(LANES)
    edges = RNG.random((2, LANES)).astype(np.float32)
    edges[0, 0] = total[0] * (1 - 1e-5)  # IP of the first pixel is 0 but for noise
    out = np.empty((6, LANES))
    finish(at(acc), at(total), at(edges), 11.0, at(out))
    early, late = total - edges[0], total + edges[1]
    early[0] = 0
    g = np.divide(acc * 11.0, early * late, out=np.zeros(LANES), where=early > 0)
    np.testing.assert_allclose(out, [acc, early, late, g, g * g, early > 0], rtol=1e-15)


GETTERS: list[tuple[str, type[Any], Any]] = [
    ("u8", np.uint8, 200),
    ("u16", np.uint16, 60_000),
    ("u32", np.uint32, 4_000_000_000),
    ("i64", np.int64, -(2**40)),
    ("f32", np.float32, np.float32(0.1)),
    ("f64", np.float64, 0.1),
]


@pytest.mark.parametrize(("name", "dtype", "value"), GETTERS)
def test_a_number_is_read_where_it_was_written(name: str, dtype: type[Any], value: Any) -> None:
    get, put = getattr(memory, f"get_{name}"), getattr(memory, f"set_{name}")
    move: Callable[[int, int], None] = compiled(lambda source, target: put(target, 2, get(source, 1)))
    source, target = np.array([0, value], dtype), np.zeros(4, dtype)
    move(at(source), at(target))
    assert target.tolist() == [0, 0, dtype(value), 0]


def test_a_signed_integer_keeps_its_sign() -> None:
    read: Callable[[int], int] = compiled(lambda source: memory.get_i32(source, 1))
    assert read(at(np.array([0, -3], np.int32))) == -3


@compiled
def move_bytes(source: int, target: int, count: int) -> None:
    memory.clear_bytes(target, count + 2)
    memory.copy_bytes(source, target + 1, count)


def test_bytes_are_copied_and_cleared() -> None:
    source, target = RNG.integers(1, 255, 100, dtype=np.uint8), np.full(200, 9, np.uint8)
    move_bytes(at(source), at(target), 100)
    assert target[:103].tolist() == [0, *source.tolist(), 0, 9]
