"""Samples of a spectrum stand for all of the ramp, and nothing that wraps round is seen."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from lightkeep.analysis.tomography import plan
from lightkeep.analysis.tomography.filters import ramp
from lightkeep.analysis.tomography.kernels.rays import TAPS
from lightkeep.analysis.tomography.sampling import Sampling, sampling

SCANS = [
    (512, 255.5, 640, False, 0.3),
    (512, 100.0, 640, False, 0.2),
    (512, 255.5, 576, True, 0.1),
    (97, 48.0, 125, False, 0.3),
    (33, 14.8, 40, False, 0.3),
]


def reached(columns: int, center: float, whole: bool) -> int:
    """How far a column is from a point of the image, at most."""
    seen = columns * (0.5 if not whole else np.sqrt(0.5))
    return int(seen + max(center, columns - 1 - center, seen if whole else 0))


def kernel_of(samples: Sampling, count: int) -> Any:
    """What the samples make of one column, at 0, 1, ... columns from it."""
    turns = np.outer(np.arange(count), samples.numbers) / samples.length
    return np.cos(2 * np.pi * turns) @ samples.weights


@pytest.mark.parametrize(("columns", "center", "size", "whole", "free"), SCANS)
def test_the_samples_make_the_kernel_of_the_ramp_as_far_as_anything_is_seen(
    columns: int, center: float, size: int, whole: bool, free: float
) -> None:
    samples = sampling(columns, center, size, window="hann", whole=whole, free=free)
    count = reached(columns, center, whole) + 1
    exact = np.fft.ifft(ramp(1 << 14, "hann")).real[:count]
    assert np.linalg.norm(kernel_of(samples, count) - exact) < 1e-4 * np.linalg.norm(exact)
    assert abs(np.sum(kernel_of(samples, count) - exact)) < 5e-4 * abs(exact.sum())


@pytest.mark.parametrize(("columns", "center", "size", "whole", "free"), SCANS)
def test_a_sample_between_is_interpolated_from_those_about_it(
    columns: int, center: float, size: int, whole: bool, free: float
) -> None:
    samples = sampling(columns, center, size, window="ramp", whole=whole, free=free)
    row = np.random.default_rng(0).normal(size=columns).cumsum()

    def at(number: float) -> complex:
        return complex(row @ np.exp(-2j * np.pi * (np.arange(columns) - center) * number / samples.length))

    between = samples.numbers[samples.length :]
    assert between.size == samples.halves > 0
    exact = np.array([at(number) for number in between])
    lowest = np.floor(between) - TAPS // 2 + 1
    found = [sum(tap * at(low + i) for i, tap in enumerate(samples.taps)) for low in lowest]
    assert np.abs(found - exact).max() < 3e-3 * np.abs(exact).max()
    assert samples.near >= max(-lowest.min(), lowest.max() + TAPS - 1)


def test_without_a_ramp_every_sample_is_the_same_but_the_one_without_a_partner() -> None:
    samples = sampling(64, 31.5, 80, window=None, whole=True, free=0.3)
    assert samples.halves == 0
    assert samples.near < 0
    assert sorted(set(samples.weights)) == [0, 1 / samples.length]
    assert kernel_of(samples, 1)[0] == pytest.approx(1, abs=0.02)
    assert np.abs(kernel_of(samples, reached(64, 31.5, True) + 1)[1:]).max() < 0.02


def test_memory_that_nobody_uses_is_lent_again_and_is_clear() -> None:
    plan.POOL.clear()
    shape = (3, 1 << 20)
    first = plan.aligned(*shape)
    first[:] = 7
    place, part = first.ctypes.data, first[1]
    del first
    gc.collect()
    other = plan.aligned(*shape)
    assert other.ctypes.data != place  # a part of the first is still in use
    np.testing.assert_array_equal(part, 7)
    del part
    gc.collect()
    again = plan.aligned(*shape)
    assert again.ctypes.data == place
    assert not again.any()


def test_no_more_memory_is_kept_than_a_bound() -> None:
    plan.POOL.clear()
    blocks = [plan.aligned(60 << 20) for _ in range(3)]  # 240 MiB each, never touched
    del blocks
    gc.collect()
    assert plan.POOL.kept <= 1 << 29
    assert plan.POOL.kept >= 240 << 20
    plan.POOL.clear()
    assert plan.POOL.kept == 0
