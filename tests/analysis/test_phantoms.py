"""The simulated truth is true: line integrals against numerical quadrature, mass, noise."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lightkeep.analysis import simulate
from lightkeep.analysis.simulate import Phantom

Array = NDArray[np.float64]
SIZE = 64


def density(phantom: Phantom, points: Array) -> Array:
    """(..., 3) positions in half-widths -> (...) density."""
    total = np.zeros(points.shape[:-1])
    for centre, form, value in zip(phantom.centres, phantom.forms, phantom.densities, strict=True):
        offset = points - centre
        total += value * (np.einsum("...i,ij,...j->...", offset, form, offset) <= 1)
    return total


def by_quadrature(phantom: Phantom, theta_deg: float, z: float, center: float) -> Array:
    """(columns,) the density summed along 7 rays across each pixel, in steps of 1/50 pixel."""
    theta, across = np.deg2rad(theta_deg), (np.arange(7) + 0.5) / 7 - 0.5
    seen = ((np.arange(SIZE)[:, None] + across - center) * 2 / SIZE)[..., None]
    along = np.linspace(-1.5, 1.5, 75 * SIZE)
    x = seen * np.cos(theta) - along * np.sin(theta)
    y = seen * np.sin(theta) + along * np.cos(theta)
    points = np.stack([x, y, np.full_like(x, z)], axis=-1)
    return density(phantom, points).sum(axis=2).mean(axis=1) * (along[1] - along[0]) * SIZE / 2


def tilted() -> Phantom:
    """Two ellipsoids in general position, one inside a cylinder."""
    turn = np.linalg.qr(np.random.default_rng(7).normal(size=(3, 3)))[0]
    return Phantom.of(
        [[0.2, -0.3, 0.05], [-0.3, 0.2, -0.1], [0, 0, 0]],
        [[0.3, 0.15, 0.4], [0.2, 0.25, 0.5], [0.9, 0.8, np.inf]],
        [1.0, -0.5, 0.2],
        [turn, turn.T, np.eye(3)],
    )


@pytest.mark.parametrize("theta", [0.0, 33.0, 90.0, 217.0])
@pytest.mark.parametrize("center", [31.5, 37.2])
def test_line_integrals_are_what_quadrature_gives(theta: float, center: float) -> None:
    found = tilted().projections(theta, columns=SIZE, rows=5, center=center)[0]
    for row in (0, 2, 3):
        z = (row - 2) * 2 / SIZE
        # The quadrature is good to about half a percent of the greatest chord.
        np.testing.assert_allclose(found[row], by_quadrature(tilted(), theta, z, center), atol=0.15)


def test_a_cylinder_shows_its_diameter_in_the_middle() -> None:
    disc = Phantom.of([[0, 0, 0]], [[0.5, 0.5, np.inf]], [2.0], [np.eye(3)])
    assert disc.projections(12.0, columns=65)[0, 0, 32] == pytest.approx(2 * 0.5 * 65, rel=1e-3)


def test_mass_is_the_same_from_every_side_and_in_the_slice() -> None:
    integrals = tilted().projections(np.arange(0, 360, 7.0), columns=SIZE, rows=3)
    slices = tilted().slices(SIZE, rows=3)
    for row in range(3):
        masses = integrals[:, row].sum(axis=1)
        np.testing.assert_allclose(masses, masses[0], rtol=1e-5)
        assert slices[row].sum() == pytest.approx(masses[0], rel=1e-3)


def test_at_0_degrees_the_detector_shows_x_and_at_90_degrees_y() -> None:
    dot = Phantom.of([[0.5, -0.25, 0]], [[0.05, 0.05, np.inf]], [1.0], [np.eye(3)])
    at_0, at_90 = dot.projections([0.0, 90.0], columns=SIZE)[:, 0] @ np.arange(SIZE)
    mass = dot.projections(0.0, columns=SIZE).sum()
    assert at_0 / mass == pytest.approx(31.5 + 16, abs=0.01)
    assert at_90 / mass == pytest.approx(31.5 - 8, abs=0.01)


def test_golden_angles_leave_no_wide_gap() -> None:
    for count in (8, 55, 200):
        gaps = np.diff(np.sort(simulate.golden_angles(count)), append=180)
        assert gaps.max() < 3 * 180 / count


def test_a_scan_has_the_noise_of_its_photons() -> None:
    rng = np.random.default_rng(2)
    thin = Phantom.of([[0, 0, 0]], [[0.1, 0.1, np.inf]], [1.0], [np.eye(3)])
    scan = simulate.tomography_scan(thin, np.zeros(200), rows=1, columns=SIZE, rng=rng, i0=1000, darks=200)
    dark = scan.darks.astype(float)
    assert dark.mean() == pytest.approx(100, abs=1)
    counts = scan.projections[:, 0, 2].astype(float)
    photons = counts.mean() - dark[:, 0, 2].mean()
    assert counts.var() - dark[:, 0, 2].var() == pytest.approx(photons, rel=0.4)  # 200 samples of a variance


def test_a_scan_absorbs_as_much_as_it_was_asked_to() -> None:
    rng = np.random.default_rng(2)
    scan = simulate.tomography_scan(
        simulate.shepp_logan(), [0.0, 45.0, 90.0], rows=2, columns=SIZE, rng=rng, absorption=1.5
    )
    assert scan.phantom.projections(scan.theta_deg, columns=SIZE).max() == pytest.approx(1.5, rel=1e-5)
    assert scan.center == (SIZE - 1) / 2
    with pytest.raises(ValueError, match="i0"):
        simulate.tomography_scan(simulate.shepp_logan(), [0.0], rows=1, columns=8, rng=rng, i0=1e6)
