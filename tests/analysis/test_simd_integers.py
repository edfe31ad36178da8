"""Every operation on vectors of whole numbers against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lightkeep.analysis.simd import compiled, integers

Array = NDArray[Any]
RNG = np.random.default_rng(3)


def at(array: Array) -> int:
    return array.ctypes.data


@compiled
def products(address: int, lag: int, is_bytes: bool, out: int) -> None:
    if is_bytes:
        integers.store_words(out, integers.add_byte_products(integers.no_words(), address, lag))
    else:
        integers.store_words(out, integers.add_short_products(integers.no_words(), address, lag))


@pytest.mark.parametrize("lag", [0, 1, 5, 8])
def test_products_with_earlier_samples_are_exact_up_to_the_highest_counts(lag: int) -> None:
    out = np.zeros(8, np.int32)
    for dtype, below, count, is_bytes in ((np.uint8, 64, 128, True), (np.int16, 8192, 32, False)):
        counts = RNG.integers(0, below, 400).astype(dtype)
        counts[180:] = below - 1
        for begin in (50, 200):
            products(at(counts[begin:]), lag, is_bytes, at(out))
            now, earlier = (counts[start : start + count].astype(int) for start in (begin, begin - lag))
            assert out.sum() == (now * earlier).sum()


@compiled
def folded(a: int, b: int, out: int) -> None:
    integers.fold_bytes(a, out)
    integers.fold_shorts(b, out + 32)
    integers.store_shorts(out + 64, integers.widen_bytes(a))
    integers.store_words(out + 96, integers.add_sum_of_bytes(integers.no_words(), integers.load_bytes(a)))


def test_neighbours_add_up() -> None:
    a, b = RNG.integers(0, 256, 32).astype(np.uint8), RNG.integers(0, 4000, 32).astype(np.int16)
    out = np.zeros((4, 16), np.int16)
    folded(at(a), at(b), at(out))
    np.testing.assert_array_equal(out[0], a.astype(int).reshape(-1, 2).sum(axis=1))
    np.testing.assert_array_equal(out[1], b.reshape(-1, 2).sum(axis=1))
    np.testing.assert_array_equal(out[2], a[:16])
    np.testing.assert_array_equal(out[3].view(np.int32), a.astype(int).reshape(-1, 4).sum(axis=1))


@compiled
def reduced(a: int, words: int, out: int) -> int:
    integers.add_sums_of_rows(words, out)
    most = integers.most_byte(integers.most_bytes(integers.load_bytes(a), integers.load_bytes(a + 32)))
    sums = integers.add_sum_of_bytes(integers.no_words(), integers.load_bytes(a))
    return int(1000000 * most + integers.sum_of_words(sums))


def test_vectors_are_reduced_to_numbers() -> None:
    a, words = RNG.integers(0, 256, 64).astype(np.uint8), RNG.integers(0, 1 << 20, (8, 8)).astype(np.int32)
    sums = np.ones(8)
    assert reduced(at(a), at(words), at(sums)) == 1000000 * int(a.max()) + int(a[:32].sum())
    np.testing.assert_array_equal(sums, 1 + words.sum(axis=1))


@compiled
def turned(frames: int, step: int, lines: int) -> None:
    integers.turn_bytes(frames, step, lines, 40)


def test_frames_become_lines() -> None:
    frames, lines = RNG.integers(0, 256, (32, 48)).astype(np.uint8), np.zeros((16, 40), np.uint8)
    turned(at(frames), 48, at(lines))
    np.testing.assert_array_equal(lines[:, :32], frames[:, :16].T)
    assert not lines[:, 32:].any()


@compiled
def there_and_back(rows: int, narrow: int, short: int, a: int, b: int) -> None:
    integers.rows_to_bytes(rows, 32, narrow, 8)
    integers.bytes_to_rows(narrow, 8, a, 32)
    integers.rows_to_shorts(rows, 32, short, 16)
    integers.shorts_to_rows(short, 16, b, 32)


def test_rows_of_pixels_become_columns_of_samples_and_rows_again() -> None:
    rows = RNG.integers(0, 256, (8, 8)).astype(np.float32)
    narrow, short = np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.int16)
    back = np.zeros((2, 8, 8), np.float32)
    there_and_back(at(rows), at(narrow), at(short), at(back[0]), at(back[1]))
    np.testing.assert_array_equal(narrow, rows.T)
    np.testing.assert_array_equal(short, rows.T)
    np.testing.assert_array_equal(back, [rows, rows])


@compiled
def gathered(a: int, shorts: int, longs: int) -> None:
    integers.add_bytes_to_u16(integers.add_bytes(integers.load_bytes(a), integers.load_bytes(a + 32)), shorts)
    integers.add_shorts_to_i64(shorts, longs)


def test_counts_are_gathered_in_wider_numbers() -> None:
    a = RNG.integers(0, 128, 64).astype(np.uint8)
    shorts, longs = np.full(32, 65000, np.uint16), np.full(16, 5, np.int64)
    wanted = 65000 + a[:32].astype(int) + a[32:]
    gathered(at(a), at(shorts), at(longs))
    np.testing.assert_array_equal(shorts, wanted)
    np.testing.assert_array_equal(longs, 5 + (wanted[:16] << 20))
