"""A tilted rotation axis: seen in two opposite projections, and turned upright."""

from __future__ import annotations

import numpy as np
import pytest

from lightkeep.analysis import simulate
from lightkeep.analysis.tomography import find_tilt, tilt_halo, upright

ROWS, COLUMNS, AXIS = 96, 128, 67.3
MIDDLE = (ROWS - 1) / 2


def seen(tilt: float, theta: np.ndarray, *, rows: int = ROWS, columns: int = COLUMNS) -> np.ndarray:
    """(rows, angles, columns) exact line integrals of the three-dimensional head."""
    made = simulate.shepp_logan_3d().projections(theta, columns=columns, rows=rows, center=AXIS, tilt_deg=tilt)
    return np.ascontiguousarray(np.moveaxis(made, 1, 0), np.float32)


@pytest.mark.parametrize("tilt", [-2.0, -0.3, 0.0, 0.05, 1.0, 4.0])
def test_the_tilt_is_found_in_two_opposite_projections(tilt: float) -> None:
    pair = seen(tilt, np.array([20.0, 200.0]))
    noisy = pair + np.random.default_rng(1).normal(0, 0.01 * pair.max(), pair.shape)
    found = find_tilt(noisy[:, 0], noisy[:, 1], center=AXIS + 3)
    assert found.tilt_deg == pytest.approx(tilt, rel=0.02, abs=0.03)
    assert found.center == pytest.approx(AXIS, abs=0.2)
    assert found.sigma_deg < 0.02


def test_a_wide_detector_is_binned_and_gives_the_same() -> None:
    made = simulate.shepp_logan_3d().projections(
        np.array([0.0, 180.0]), columns=1100, rows=200, center=561.2, tilt_deg=0.4
    )
    found = find_tilt(made[0], made[1], center=560)
    assert found.tilt_deg == pytest.approx(0.4, abs=0.02)
    assert found.center == pytest.approx(561.2, abs=0.3)


@pytest.mark.parametrize("tilt", [0.7, -3.0])
def test_upright_projections_are_those_of_an_axis_that_does_not_lean(tilt: float) -> None:
    theta = np.arange(6) * 30.0
    leaning, straight = seen(tilt, theta), seen(0.0, theta)
    inside = np.s_[20:76, :, 32:104]  # the skull's outer edge is sharper than any interpolation
    options = {"first_row": 0, "begin": 20, "end": 76, "middle": MIDDLE, "center": AXIS}
    errors = [
        np.abs(turned[..., 32:104] - straight[inside]).mean()
        for turned in (upright(leaning, tilt, **options), leaning[20:76], upright(leaning, -tilt, **options))
    ]
    assert errors[0] < 0.3 * errors[1] < 0.2 * errors[2]


def test_a_piece_with_its_halo_gives_the_same_bytes() -> None:
    leaning = seen(1.5, np.arange(3) * 50.0)
    whole = upright(leaning, 1.5, first_row=0, begin=0, end=ROWS, middle=MIDDLE, center=AXIS)
    halo = tilt_halo(1.5, ROWS, COLUMNS, AXIS)
    assert 2 < halo < 8
    piece = leaning[40 - halo : 50 + halo]
    part = upright(piece, 1.5, first_row=40 - halo, begin=40, end=50, middle=MIDDLE, center=AXIS)
    np.testing.assert_array_equal(part, whole[40:50])


def test_what_cannot_show_a_tilt_is_refused() -> None:
    pair = seen(0.0, np.array([0.0, 180.0]))
    with pytest.raises(ValueError, match="8 rows are too few"):
        find_tilt(pair[:8, 0], pair[:8, 1], center=AXIS)
    with pytest.raises(ValueError, match="not finite"):
        find_tilt(pair[:, 0] * np.nan, pair[:, 1], center=AXIS)
