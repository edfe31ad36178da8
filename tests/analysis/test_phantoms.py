"""The simulated samples: their line integrals are exact, their slices are what was projected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lightkeep.analysis import simulate, tomography
from lightkeep.analysis.simulate import Phantom


def _ball(x: float, y: float, z: float, radius: float) -> Phantom:
    return Phantom.of([(x, y, z)], [(radius, radius, radius)], [1.0], [np.eye(3)])


def test_the_shadow_of_a_ball_is_its_chord() -> None:
    columns = 200
    shadow = _ball(0, 0, 0, 0.5).projections([0.0, 33.0], columns=columns, rows=3)
    across = np.arange(columns) - (columns - 1) / 2
    chord = 2 * np.sqrt(np.maximum(50**2 - 1 - across**2, 0))  # the rows beside the middle one are 1 pixel off
    inside = np.abs(across) < 48  # at the rim the mean over a pixel is not the value in its middle
    assert np.allclose(shadow[:, 0, inside], chord[inside], rtol=2e-3)
    assert np.allclose(shadow[0], shadow[1], atol=1e-4)


@pytest.mark.parametrize(
    ("theta", "column"), [(0, 87.0), (90, 67.0), (180, 47.0), (30, 67 + 20 * np.cos(np.pi / 6))]
)
def test_a_ball_at_positive_x_is_seen_right_of_the_axis_at_zero_degrees(theta: float, column: float) -> None:
    shadow = _ball(0.3125, 0, 0, 0.05).projections([theta], columns=128, center=67.0)[0, 0]
    assert (shadow @ np.arange(128)) / shadow.sum() == pytest.approx(column, abs=0.02)


def test_a_ball_at_positive_y_is_seen_right_of_the_axis_at_ninety_degrees() -> None:
    shadow = _ball(0, 0.3125, 0, 0.05).projections([90.0], columns=128)[0, 0]
    assert (shadow @ np.arange(128)) / shadow.sum() == pytest.approx(63.5 + 20, abs=0.02)


@pytest.mark.parametrize("theta", [33.0, 217.0])
def test_line_integrals_of_tilted_ellipsoids_are_what_quadrature_gives(theta: float) -> None:
    turn = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))[0]
    middles, semi_axes = [[0.2, -0.3, 0.05], [-0.3, 0.2, -0.1]], [[0.3, 0.15, 0.4], [0.2, 0.25, 0.5]]
    phantom = Phantom.of(middles, semi_axes, [1.0, -0.5], [turn, turn.T])
    size, center, row = 64, 37.2, 3
    cos, sin, z = np.cos(np.deg2rad(theta)), np.sin(np.deg2rad(theta)), (row - 2) * 2 / size
    seen = ((np.arange(size)[:, None] + (np.arange(5) - 2) / 5 - center) * 2 / size)[..., None]
    along = np.linspace(-1, 1, 1001)
    points = np.stack(np.broadcast_arrays(seen * cos - along * sin, seen * sin + along * cos, z), axis=-1)
    total = np.zeros(size)
    for centre, form, value in zip(phantom.centres, phantom.forms, phantom.densities, strict=True):
        inside = np.sum((points - centre) @ form * (points - centre), axis=-1) <= 1
        total += value * inside.sum(axis=2).mean(axis=1) * 0.002 * size / 2
    found = phantom.projections([theta], columns=size, rows=5, center=center)[0, row]
    assert np.allclose(found, total, atol=0.15)  # the steps of the quadrature at the rims


@pytest.mark.parametrize("phantom", [simulate.shepp_logan(), simulate.shepp_logan_3d()])
def test_every_projection_holds_as_much_as_the_slices(phantom: Phantom) -> None:
    sums = phantom.projections(np.arange(0, 180, 7.3), columns=96, rows=24).sum(axis=2, dtype=float)
    slices = phantom.slices(96, rows=24, oversample=32).sum(axis=(1, 2), dtype=float)
    assert np.allclose(sums, slices, rtol=2e-3)


def test_a_tilted_ellipsoid_weighs_the_same_from_everywhere() -> None:
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
    phantom = Phantom.of([(0.1, -0.2, 0.05)], [(0.3, 0.1, 0.2)], [2.0], [turn])
    volume = 2 * 4 / 3 * np.pi * 0.3 * 0.1 * 0.2 * 64**3
    shadows = phantom.projections(np.arange(0, 360, 30.0), columns=128, rows=128)
    assert np.allclose(shadows.sum(axis=(1, 2), dtype=float), volume, rtol=5e-3)


def test_the_materials_sample_is_dense_nowhere_below_zero() -> None:
    slices = simulate.materials_sample(np.random.default_rng(5)).slices(128, rows=8)
    assert slices.min() > -0.01
    assert slices.max() > 1.5, "bright inclusions"
    inner = slices[4, 24:-24, 24:-24]
    assert (inner < 0.2).any(), "pores and a crack"


def test_counts_correct_back_to_the_line_integrals_within_photon_noise() -> None:
    rng = np.random.default_rng(11)
    scan = simulate.tomography_scan(
        simulate.shepp_logan(), np.arange(0, 180, 10.0), rows=4, columns=64, rng=rng, i0=4e4, flats=200, darks=50
    )
    measured = tomography.normalise(scan.projections, scan.flats, scan.darks)
    truth = scan.phantom.projections(scan.theta_deg, columns=64, rows=4, center=scan.center).transpose(1, 0, 2)
    assert truth.max() == pytest.approx(2.0)
    error = (measured - truth) * np.sqrt(4e4 * np.exp(-truth))  # in units of the photon noise at full beam
    assert abs(error.mean()) < 0.1
    assert 0.9 < error.std() < 1.6  # the beam is darker than i0 towards its edges


def test_zingers_only_add_light() -> None:
    def scan(zingers: float) -> simulate.TomographyScan:
        return simulate.tomography_scan(
            simulate.shepp_logan(),
            np.arange(0, 180, 20.0),
            rows=8,
            columns=32,
            rng=np.random.default_rng(2),
            flaws=simulate.Flaws(zingers=zingers),
        )

    hit = scan(0.01).projections.astype(int) > scan(0).projections.astype(int) + 5000
    assert 0.003 < hit.mean() < 0.02


@pytest.mark.parametrize("i0", [0.0, -1.0, 1e5])
def test_more_photons_than_a_16_bit_detector_counts_are_refused(i0: float) -> None:
    with pytest.raises(ValueError, match="i0"):
        simulate.tomography_scan(
            simulate.shepp_logan(), [0.0], rows=1, columns=16, rng=np.random.default_rng(0), i0=i0
        )


def test_golden_angles_leave_no_wide_gap_at_any_count() -> None:
    for count in (5, 50, 233):
        gaps = np.diff(np.sort(simulate.golden_angles(count)))
        assert gaps.max() < 2.7 * 180 / count  # three-gap theorem: at most phi squared times the mean


def scan_with(flaws: simulate.Flaws, **changes: Any) -> simulate.TomographyScan:
    options = {"rows": 16, "columns": 96, "i0": 5e4, "rng": np.random.default_rng(5), "flaws": flaws} | changes
    return simulate.tomography_scan(simulate.shepp_logan(), np.arange(40) * 4.5, **options)


def test_a_tilted_axis_is_seen_further_on_in_every_row() -> None:
    """The centre of mass over half a turn and its mirror image is the axis."""
    theta = np.arange(0, 360, 9.0)
    seen = simulate.shepp_logan().projections(theta, columns=128, rows=33, center=60.0, tilt_deg=2.0).astype(float)
    middles = (seen @ np.arange(128)) / seen.sum(axis=2)
    expected = 60 + np.tan(np.deg2rad(2.0)) * (np.arange(33) - 16)
    np.testing.assert_allclose(middles.mean(axis=0), expected, atol=0.05)
    np.testing.assert_allclose(
        simulate.shepp_logan_3d().projections(theta, columns=64, rows=9, tilt_deg=1e-9),
        simulate.shepp_logan_3d().projections(theta, columns=64, rows=9),
        atol=1e-4,
    )


def test_stripes_and_dead_pixels_are_where_the_truth_says() -> None:
    found = scan_with(simulate.Flaws(stripes=5, dead=3))
    assert ((found.gain == 0).sum(axis=1) == 3).all()
    assert ((found.gain != 1).sum(axis=1) == 8).all()
    clean = scan_with(simulate.Flaws())
    assert (clean.gain == 1).all()
    dead = found.projections[:, found.gain == 0].astype(float)
    assert dead.std() < 1.2 * np.sqrt(dead.mean())
    with pytest.raises(ValueError, match="too many for 96 columns"):
        scan_with(simulate.Flaws(stripes=90))


def test_a_beam_that_drifts_is_seen_by_the_flats_after() -> None:
    found = scan_with(simulate.Flaws(beam_drift=0.2), flats=10, flats_after=10, darks=1)
    before, after = found.flats[:10].mean() - 100, found.flats[10:].mean() - 100
    assert after / before == pytest.approx(0.8, abs=0.01)
    assert found.flats_at.tolist() == [0.0] * 10 + [40.0] * 10
    air = found.projections[:, :, :3].mean(axis=(1, 2)) - 100
    assert air[-1] / air[0] == pytest.approx(0.8, abs=0.02)


def test_interlaced_passes_fill_the_gaps_of_those_before() -> None:
    angles = simulate.interlaced_angles(24, 4)
    np.testing.assert_allclose(np.sort(angles), np.arange(24) * 7.5)
    assert angles[:7].tolist() == [0.0, 30.0, 60.0, 90.0, 120.0, 150.0, 15.0]
    assert simulate.interlaced_angles(10, 3, span_deg=360).max() == 324
    with pytest.raises(ValueError, match="11 passes"):
        simulate.interlaced_angles(10, 11)
    assert simulate.golden_angles(500, span_deg=360).max() > 350
