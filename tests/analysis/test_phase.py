"""Phase retrieval undoes what a free distance adds, and is -log where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lightkeep.analysis.tomography import paganin, paganin_halo, paganin_length

BEAM = {"energy_kev": 20.0, "distance_mm": 50.0, "pixel_size_um": 1.0, "delta_beta": 500.0}


def thickness(rows: int = 96, columns: int = 128) -> NDArray[np.float64]:
    """(rows, columns) line integrals of a smooth bead."""
    y, x = np.mgrid[:rows, :columns]
    return 0.2 * np.exp(-((x - columns / 2) ** 2 + (y - rows / 2) ** 2) / (2 * 9.0**2))


def propagated(integral: NDArray, length: float) -> NDArray:
    """Transport of intensity over the distance, the exact transfer function: T + (2 pi f length)^2 T."""
    rows, columns = integral.shape
    f2 = np.fft.fftfreq(rows)[:, None] ** 2 + np.fft.fftfreq(columns) ** 2
    spectrum = np.fft.fft2(np.exp(-integral)) * (1 + (2 * np.pi * length) ** 2 * f2)
    return np.fft.ifft2(spectrum).real


def test_the_length_is_the_papers() -> None:
    wavelength = 12.39841984e-10 / 20
    expected = np.sqrt(500 * wavelength * 0.05 / (4 * np.pi)) / 1e-6
    assert paganin_length(**BEAM) == pytest.approx(expected, rel=1e-9)


def test_the_sample_comes_back_from_what_the_distance_made_of_it() -> None:
    length = paganin_length(**BEAM)
    measured = propagated(thickness(), length)
    assert np.abs(measured - np.exp(-thickness())).max() > 0.003  # there are fringes
    found = paganin(measured[:, None], length)[:, 0]
    np.testing.assert_allclose(found, thickness(), atol=2e-6)


def test_no_distance_is_the_logarithm() -> None:
    transmission = np.random.default_rng(0).uniform(0.2, 1, (5, 3, 24))
    np.testing.assert_allclose(paganin(transmission, 0.0), -np.log(transmission), atol=2e-6)


def test_a_piece_with_its_halo_gives_the_same_rows() -> None:
    length = 1.3
    halo = paganin_halo(length)
    transmission = np.random.default_rng(1).uniform(0.4, 1, (80, 2, 40)).astype(np.float32)
    whole = paganin(transmission, length)
    piece = paganin(transmission[32 - halo : 48 + halo], length)[halo:-halo]
    np.testing.assert_allclose(piece, whole[32:48], atol=1e-4)  # the filter's tail, exp(-12) of noise this strong


def test_threads_and_place_do_not_change_the_bytes() -> None:
    transmission = np.random.default_rng(1).uniform(0.4, 1, (12, 7, 40)).astype(np.float32)
    whole = paganin(transmission, 2.0)
    np.testing.assert_array_equal(paganin(transmission, 2.0, threads=2), whole)
    np.testing.assert_array_equal(paganin(transmission, 2.0, out=transmission), whole)


@pytest.mark.parametrize("name", list(BEAM))
@pytest.mark.parametrize("value", [0.0, -1.0, np.nan, 1e9])
def test_numbers_in_other_units_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is .* is it in another unit"):
        paganin_length(**BEAM | {name: value})


def test_what_is_no_transmission_is_refused() -> None:
    with pytest.raises(ValueError, match="1 values of the transmission are not finite"):
        paganin(np.array([[[1.0, np.nan]]]), 1.0)
    with pytest.raises(ValueError, match="rows, angles, columns"):
        paganin(np.ones((3, 3)), 1.0)
    with pytest.raises(ValueError, match="cannot be negative"):
        paganin(np.ones((3, 3, 3)), -1.0)
