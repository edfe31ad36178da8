"""The rotation axis is found to a fraction of a pixel."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from lightkeep.analysis import simulate
from lightkeep.analysis.tomography import CenterResult, center_sweep, find_center, normalise, reconstruct

SIZE = 256
HALF_TURN = np.arange(240) * 0.75


def sinograms(theta_deg: NDArray, center: float, *, seed: int = 4, i0: float = 1e4) -> NDArray:
    """Three rows of a noisy scan."""
    rng = np.random.default_rng(seed)
    sample = simulate.materials_sample(rng, grains=40, pores=30)
    scan = simulate.tomography_scan(sample, theta_deg, rows=3, columns=SIZE, rng=rng, center=center, i0=i0)
    return normalise(scan.projections, scan.flats, scan.darks)


@pytest.mark.parametrize("offset", [-21.4, -3.0, 0.0, 0.35, 7.3])
def test_a_noisy_scan_gives_its_axis(offset: float) -> None:
    center = (SIZE - 1) / 2 + offset
    found = find_center(sinograms(HALF_TURN, center), HALF_TURN)
    assert found.value == pytest.approx(center, abs=0.15)
    assert found.sigma < 1


@pytest.mark.parametrize(
    "theta",
    [
        simulate.golden_angles(240),
        np.arange(300) * 1.2,
        HALF_TURN[::-1],
        np.random.default_rng(1).permutation(HALF_TURN),
    ],
    ids=["golden", "360", "descending", "shuffled"],
)
def test_any_order_of_angles_will_do(theta: NDArray) -> None:
    center = (SIZE - 1) / 2 - 5.8
    assert find_center(sinograms(theta, center), theta).value == pytest.approx(center, abs=0.15)


def test_few_photons_make_it_less_certain_not_wrong() -> None:
    center = (SIZE - 1) / 2 + 4.6
    found = find_center(sinograms(HALF_TURN, center, i0=300), HALF_TURN)
    assert abs(found.value - center) < max(3 * found.sigma, 0.5)


def test_a_single_sinogram_is_enough() -> None:
    center = (SIZE - 1) / 2 + 7.3
    rows = sinograms(HALF_TURN, center)
    assert find_center(rows[1], HALF_TURN).value == pytest.approx(center, abs=0.15)


def test_the_tooth_is_where_its_publications_say(shared_data: Path) -> None:
    with h5py.File(shared_data / "tomography" / "tooth.h5") as file:
        scan = file["exchange"]
        rows = normalise(scan["data"][:], scan["data_white"][:], scan["data_dark"][:])
        found = find_center(rows, scan["theta"][:])
    assert 295 <= found.value <= 296.5
    assert found.low <= found.value <= found.high
    assert 295 <= found.low <= found.high <= 296.5  # what tomopy and algotom find lies in 295.0 to 296.34
    assert found.agree
    assert set(found.per_method) == {"mirror", "phase", "mass", "wedge", "sharpness"}


def test_a_method_that_cannot_work_is_left_out_and_one_alone_is_less_certain() -> None:
    theta = np.arange(120) * 1.0  # no opposite pair, no half turn
    found = find_center(sinograms(theta, 130.2), theta)
    assert set(found.per_method) == {"mass"}
    assert found.value == pytest.approx(130.2, abs=0.15)
    assert found.sigma == 1


@pytest.mark.parametrize(
    ("data", "theta", "words"),
    [
        (np.zeros((1, 20, 64)), np.arange(20.0), "nothing absorbs"),
        (np.ones((1, 7, 64)), np.arange(7.0), "too few"),
        (np.ones((1, 20, 8)), np.arange(20.0), "too few"),
        (np.ones((1, 20, 64)), np.arange(19.0), "disagree"),
        (np.full((1, 20, 64), np.nan), np.arange(20.0), "finite"),
    ],
)
def test_what_cannot_be_centred_is_refused(data: NDArray, theta: NDArray, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        find_center(data, theta)


def test_methods_that_disagree_are_named() -> None:
    one_off = CenterResult(100.0, 0.1, {"mirror": 100.0, "phase": 100.1, "mass": 99.8, "wedge": 140.0})
    assert (one_off.outliers, one_off.agree) == (("wedge",), True)
    assert (one_off.low, one_off.high) == (99.8, 100.1)
    assert not CenterResult(100.0, 8.0, {"mirror": 90.0, "wedge": 110.0}).agree


def test_a_sweep_shows_what_reconstructing_with_each_centre_shows() -> None:
    center = (SIZE - 1) / 2 + 5.3
    row = sinograms(HALF_TURN, center)[1]
    columns = center + np.array([-6.0, -1.5, 0.0, 2.25])
    swept = center_sweep(row, HALF_TURN, columns, accuracy="precise", window="hann")
    inside = np.hypot(*np.mgrid[-127.5:128, -127.5:128]) < 110
    for image, column in zip(swept, columns, strict=True):
        alone = reconstruct(row[None], HALF_TURN, column, accuracy="precise", window="hann")[0]
        assert np.sqrt(np.mean((image - alone)[inside] ** 2)) < 0.03 * alone[inside].std()
    assert np.abs(swept[:, inside]).mean(axis=1).argmin() == 2


def test_a_sweep_refuses_centres_beside_the_detector() -> None:
    row = sinograms(HALF_TURN, 127.5)[0]
    with pytest.raises(ValueError, match="0 to 255"):
        center_sweep(row, HALF_TURN, [100, 256])
    with pytest.raises(ValueError, match="must be"):
        center_sweep(row, HALF_TURN[1:], [100])
    with pytest.raises(ValueError, match="not finite"):
        center_sweep(row * np.nan, HALF_TURN, [100])
