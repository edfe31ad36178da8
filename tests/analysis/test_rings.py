"""Rings that are left in the slices go; integers have one scale."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lightkeep.analysis import simulate
from lightkeep.analysis.tomography import percentile_range, remove_rings, to_integers

SIZE = 128
RADIUS = np.hypot(*(np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2))


def clean() -> NDArray[np.float32]:
    sample = simulate.materials_sample(np.random.default_rng(2), grains=40, pores=20)
    noise = np.random.default_rng(3).normal(0, 0.05, (2, SIZE, SIZE))
    return (sample.slices(SIZE, rows=2) + noise).astype(np.float32)


def ringed() -> NDArray[np.float32]:
    rings = sum(height * np.exp(-((RADIUS - at) ** 2)) for at, height in ((12, 0.3), (31, -0.2), (42, 0.2)))
    return (clean() + rings).astype(np.float32)


def error(found: NDArray) -> float:
    inside = RADIUS < 0.75 * SIZE / 2  # without the tube and the rim, which are rings
    return float(np.sqrt(np.mean((found - clean())[:, inside] ** 2)))


def test_rings_are_less_than_half_of_what_they_were() -> None:
    assert error(remove_rings(ringed())) < 0.5 * error(ringed())


def test_a_clean_slice_hardly_changes() -> None:
    assert error(remove_rings(clean())) < 0.03 * clean().std()


def test_each_slice_is_by_itself_and_may_be_written_in_place() -> None:
    data = ringed()
    whole = remove_rings(data)
    np.testing.assert_array_equal(remove_rings(data[1:])[0], whole[1])
    assert remove_rings(data, out=data) is data
    np.testing.assert_array_equal(data, whole)


@pytest.mark.parametrize("options", [{"width": 4}, {"width": 99}])
def test_options_that_cannot_be_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="width"):
        remove_rings(clean(), **options)
    with pytest.raises(ValueError, match="size, size"):
        remove_rings(np.zeros((1, 20, 30)))
    with pytest.raises(ValueError, match="not finite"):
        remove_rings(np.full((1, 32, 32), np.nan))


def test_integers_span_the_limits() -> None:
    values = np.array([[[-5.0, 0.0], [0.5, np.nan]], [[1.0, 9.0], [0.25, np.inf]]])
    assert to_integers(values, (0.0, 1.0)).tolist() == [[[0, 0], [128, 0]], [[255, 255], [64, 255]]]
    assert to_integers(values, (0.0, 1.0), dtype="uint16").max() == 65535
    with pytest.raises(ValueError, match="first below the second"):
        to_integers(values, (1.0, 1.0))
    with pytest.raises(ValueError, match="choose uint8 or uint16"):
        to_integers(values, (0.0, 1.0), dtype="int8")  # type: ignore[arg-type]


def test_the_range_is_of_the_circle_and_leaves_extremes_out() -> None:
    data = np.random.default_rng(0).normal(size=(3, 64, 64))
    data[:, 0, 0], data[1, 32, 32] = 1e6, np.nan
    low, high = percentile_range(data, low=2.5, high=97.5)
    assert (low, high) == (pytest.approx(-1.96, abs=0.1), pytest.approx(1.96, abs=0.1))
    with pytest.raises(ValueError, match="percentages"):
        percentile_range(data, low=5, high=5)
    with pytest.raises(ValueError, match="no voxel is finite"):
        percentile_range(np.full((1, 8, 8), np.nan))
