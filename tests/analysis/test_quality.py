"""Quality without the truth agrees with quality against it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

from lightkeep.analysis import simulate
from lightkeep.analysis.tomography.quality import halves, predicted, ring_correlation, ssim

SIZE = 128
TRUTH = simulate.shepp_logan().slices(SIZE)[0].astype(float)


def noisy(level: float, seed: int) -> NDArray[np.float64]:
    return np.asarray(TRUTH + np.random.default_rng(seed).normal(0, level, TRUTH.shape))


def test_an_image_agrees_with_itself_at_every_ring_and_noise_with_noise_at_none() -> None:
    assert ring_correlation(TRUTH, TRUTH).correlation == pytest.approx(1)
    rng = np.random.default_rng(0)
    found = ring_correlation(*rng.normal(size=(2, 8, SIZE, SIZE)))
    assert np.abs(found.correlation[4:]).max() < 0.2
    assert np.abs(found.correlation).mean() < 0.04


def test_the_correlation_of_white_signal_and_white_noise_is_that_of_their_powers() -> None:
    rng = np.random.default_rng(1)
    signal = rng.normal(size=(16, SIZE, SIZE))
    found = ring_correlation(*(signal + rng.normal(size=signal.shape) for _ in range(2)))
    assert found.correlation.mean() == pytest.approx(0.5, abs=0.02)
    assert found.mean(2.0) == pytest.approx(2 / 3, abs=0.02), "of both halves together"


def test_resolution_is_where_a_sharp_image_drowns_in_noise() -> None:
    rng = np.random.default_rng(2)
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.fftfreq(SIZE))
    band = np.fft.ifft2(np.fft.fft2(rng.normal(size=(4, SIZE, SIZE))) * (frequency < 1 / 5)).real
    found = ring_correlation(*(band + rng.normal(0, 0.4, band.shape) for _ in range(2)))
    assert found.resolution_px() == pytest.approx(5, abs=0.3)
    assert ring_correlation(TRUTH, TRUTH).resolution_px() == 2


def test_halves_are_every_other_angle_in_order_whatever_the_order_of_the_scan() -> None:
    bit_reversed = np.array([int(f"{number:08b}"[::-1], 2) for number in range(256)]) * 180 / 256
    for theta in (
        bit_reversed,
        np.arange(256) * 180 / 256,
        simulate.golden_angles(256),
        np.arange(256) * 360 / 256,
    ):
        first = halves(theta)
        assert first.sum() == 128
        for half in (first, ~first):
            folded = np.sort(np.mod(theta[half], 180))
            assert np.diff(folded, append=folded[0] + 180).max() < 4.5 * 180 / 256


def test_ssim_is_that_of_scikit_image() -> None:
    image = noisy(0.1, 0)
    compare: Any = structural_similarity
    _, whole = compare(
        TRUTH, image, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    inside = np.hypot(axis[:, None], axis) < 0.95 * SIZE / 2
    assert ssim(image, TRUTH) == pytest.approx(whole[inside].mean(), abs=1e-6)
    assert ssim(TRUTH, TRUTH) == 1


def test_the_prediction_of_a_curve_that_follows_the_law_is_exact() -> None:
    counts = [100, 150, 200, 250]
    assert predicted(counts, [1 - 0.02 - 10 / n for n in counts], 1000) == pytest.approx(0.97)
    assert predicted([100], [0.5], 100) == pytest.approx(0.5)
    assert 0 <= predicted(counts, [0.9, 0.8, 0.7, 0.6], 1000) <= 1, "a curve that falls predicts no wonders"


@pytest.mark.parametrize("shapes", [((8, 8), (8, 9)), ((4, 4), (4, 4)), ((8, 9), (8, 9))])
def test_images_that_cannot_be_compared_are_refused(shapes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="same shape"):
        ring_correlation(*(np.zeros(shape) for shape in shapes))
    with pytest.raises(ValueError, match="flat"):
        ssim(TRUTH, np.zeros_like(TRUTH))
