"""Each projection stands for its share of the half circle."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightkeep.analysis.simulate import golden_angles
from lightkeep.analysis.tomography import angular_weights


def test_even_angles_weigh_the_same() -> None:
    np.testing.assert_allclose(angular_weights(np.arange(90) * 2.0), np.pi / 90, rtol=1e-12)


def test_an_angle_stands_for_half_the_gaps_on_its_two_sides() -> None:
    theta = np.array([0.0, 10, 40, 100])  # then 180 = 0 again
    np.testing.assert_allclose(np.rad2deg(angular_weights(theta)), [45, 20, 45, 70], rtol=1e-12)


@given(st.lists(st.floats(-1000, 1000), min_size=1, max_size=8))
def test_the_weights_of_few_angles_sum_to_half_a_turn(theta: list[float]) -> None:
    weights = angular_weights(theta)
    assert weights.sum() == pytest.approx(np.pi)
    assert (weights >= 0).all()


@pytest.mark.parametrize("count", [2, 3, 100, 721])
def test_golden_angles_sum_to_half_a_turn(count: int) -> None:
    assert angular_weights(golden_angles(count)).sum() == pytest.approx(np.pi)


@given(st.lists(st.floats(0, 179.9), min_size=2, max_size=40))
def test_the_order_does_not_matter(theta: list[float]) -> None:
    order = np.random.default_rng(len(theta)).permutation(len(theta))
    np.testing.assert_allclose(angular_weights(np.array(theta)[order]), angular_weights(theta)[order], atol=1e-12)


def test_projections_at_the_same_angle_share_its_arc_equally() -> None:
    theta = np.array([0.0, 60, 60, 120, 60])
    np.testing.assert_allclose(np.rad2deg(angular_weights(theta)), [60, 20, 20, 60, 20], rtol=1e-12)


def test_opposite_projections_share_an_arc() -> None:
    np.testing.assert_allclose(angular_weights(np.arange(8) * 45.0), np.pi / 8, rtol=1e-12)


def test_nobody_stands_for_a_missing_wedge() -> None:
    theta = np.arange(0, 120, 1.0)
    weights = angular_weights(theta)
    assert np.rad2deg(weights.max()) < 2
    assert np.rad2deg(weights.sum()) == pytest.approx(120, abs=2)


@pytest.mark.parametrize("theta", [[], [0, np.nan], [np.inf]])
def test_no_angle_and_no_number_are_refused(theta: list[float]) -> None:
    with pytest.raises(ValueError, match="theta"):
        angular_weights(theta)
