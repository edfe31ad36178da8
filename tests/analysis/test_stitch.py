"""A full turn about an axis near the edge becomes half a turn of a wider detector."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray

from lightkeep.analysis import simulate
from lightkeep.analysis.tomography import find_overlap, normalise, reconstruct, stitch_360

COLUMNS = 128
FULL_TURN = np.arange(400) * 0.9


def wide_sample() -> simulate.Phantom:
    """1.6 times as wide as the detector."""
    small = simulate.materials_sample(np.random.default_rng(2), grains=30, pores=20)
    return dataclasses.replace(small, centres=small.centres * 1.6, forms=small.forms / 1.6**2)


def exact(theta: NDArray, center: float) -> NDArray:
    return wide_sample().projections(theta, columns=COLUMNS, rows=2, center=center).swapaxes(0, 1)


@pytest.mark.parametrize("center", [18.3, 50.25, 112.6])
def test_the_overlap_gives_the_axis_on_either_side(center: float) -> None:
    rng = np.random.default_rng(1)
    made = simulate.tomography_scan(wide_sample(), FULL_TURN, rows=2, columns=COLUMNS, rng=rng, center=center)
    found = find_overlap(normalise(made.projections, made.flats, made.darks), FULL_TURN)
    assert found.center == pytest.approx(center, abs=0.15)
    assert found.side == ("left" if center < COLUMNS / 2 else "right")
    assert found.width == pytest.approx(2 * min(center, COLUMNS - 1 - center) + 1, abs=0.3)
    assert found.score > 0.5


@pytest.mark.parametrize("center", [18.3, 112.6])
@pytest.mark.parametrize("order", ["as measured", "golden"])
def test_the_stitched_sinogram_is_what_a_wide_detector_sees(center: float, order: str) -> None:
    theta = FULL_TURN if order == "as measured" else simulate.golden_angles(1200, span_deg=360)
    found = stitch_360(exact(theta, center), theta, center)
    assert np.ptp(found.theta_deg) < 180
    rows, angles, wide = found.sinograms.shape
    assert (rows, wide) == (2, int(2 * max(center, COLUMNS - 1 - center)) + 1)
    assert angles >= theta.size // 2 - 4
    # The wide detector's scale: half-widths of the narrow one.
    scale = COLUMNS / wide
    sample = wide_sample()
    narrow = dataclasses.replace(sample, centres=sample.centres * scale, forms=sample.forms / scale**2)
    seen = narrow.projections(found.theta_deg, columns=wide, rows=1, center=found.center)[:, 0]
    mine = wide_sample().projections(theta[:1], columns=COLUMNS, rows=1, center=center)
    assert mine.max() > 0
    single = stitch_360(
        wide_sample().projections(theta, columns=COLUMNS, center=center).swapaxes(0, 1), theta, center
    )
    assert np.sqrt(np.mean((single.sinograms[0] - seen) ** 2)) < 0.02 * seen.max()


def test_slices_of_the_stitched_scan_are_the_sample() -> None:
    center = 112.6
    rows = wide_sample().projections(FULL_TURN, columns=COLUMNS, center=center).swapaxes(0, 1)
    found = stitch_360(rows, FULL_TURN, center)
    wide = found.sinograms.shape[2]
    image = reconstruct(found.sinograms, found.theta_deg, found.center, window="hann")[0]
    truth = wide_sample().slices(wide, columns=COLUMNS)[0]
    middle = (wide - 1) / 2
    inside = np.hypot(*(np.mgrid[:wide, :wide] - middle)) < 0.9 * wide / 2
    assert np.corrcoef(image[inside], truth[inside])[0, 1] > 0.93
    assert image[inside].mean() == pytest.approx(truth[inside].mean(), rel=0.02)


def test_projections_without_an_opposite_are_left_out() -> None:
    theta = FULL_TURN[(FULL_TURN < 200) | (FULL_TURN > 260)]
    found = stitch_360(exact(theta, 112.6), theta, 112.6)
    assert not ((found.theta_deg > 22) & (found.theta_deg < 79)).any()
    assert found.theta_deg.size > 100


def test_what_cannot_be_stitched_is_refused() -> None:
    rows = exact(FULL_TURN, 112.6)
    with pytest.raises(ValueError, match="none is half a turn from another"):
        stitch_360(rows[:, :150], FULL_TURN[:150], 112.6)
    with pytest.raises(ValueError, match="not on the detector"):
        stitch_360(rows, FULL_TURN, 200.0)
    with pytest.raises(ValueError, match="nothing absorbs"):
        find_overlap(np.zeros((1, 400, COLUMNS)), FULL_TURN)
    with pytest.raises(ValueError, match="disagree"):
        find_overlap(rows, FULL_TURN[1:])
    with pytest.raises(ValueError, match="finite"):
        find_overlap(np.full((1, 400, COLUMNS), np.nan), FULL_TURN)
