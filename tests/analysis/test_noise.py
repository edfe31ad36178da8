"""Reconstruction against exact sums in double precision, on noise: what a phantom does not show, noise does."""

from __future__ import annotations

from typing import Any

import finufft
import numpy as np
import pytest
from numpy.typing import NDArray

from lightkeep.analysis import tomography


def _oracle(sinograms: NDArray[Any], theta_deg: NDArray[Any], center: float) -> NDArray[Any]:
    """Double precision to 1e-10: filter the padded rows, sum every sample onto the pixels; nothing is cut."""
    columns = sinograms.shape[2]
    padded = 2 * columns
    index = np.rint(np.fft.fftfreq(padded) * padded)
    odd = np.abs(index) % 2 == 1
    kernel = np.where(odd, -1 / (np.pi * np.where(odd, index, 1)) ** 2, 0)
    kernel[0] = 0.25
    ramp = np.fft.fft(kernel).real / padded
    ramp[columns] = 0
    turn, theta = 2 * np.pi * np.fft.fftfreq(padded), np.deg2rad(theta_deg)
    x, y = np.outer(np.cos(theta), turn), np.outer(np.sin(theta), turn)
    half = 0.5 * (1 - columns % 2)
    factor = ramp * tomography.angular_weights(theta_deg)[:, None] * np.exp(1j * (turn * center + half * (x + y)))
    samples = np.fft.fft(sinograms, padded, axis=2) * factor
    modes = (columns, columns)
    return np.stack(
        [finufft.nufft2d1(y.ravel(), x.ravel(), s.ravel(), modes, eps=1e-10, isign=1).real for s in samples]
    )


def _noise(rows: int, angles: int, columns: int, *, cutoff: float) -> NDArray[np.float32]:
    """Different white noise in every row, band-limited to cutoff cycles per pixel."""
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=(rows, angles, columns)))
    spectrum[..., np.fft.rfftfreq(columns) > cutoff] = 0
    return np.fft.irfft(spectrum, columns).astype(np.float32)


@pytest.mark.parametrize(("columns", "center"), [(128, 63.5), (128, 60.3), (129, 66.2)])
def test_it_equals_exact_sums_on_noise(columns: int, center: float) -> None:
    # Noise in pairs is the hard case: a wrong one-sided sample, or a leak between partners, is invisible on a
    # phantom. The top tenth of the band is left out: the two interpolate its last bin in different ways.
    theta = np.random.default_rng(1).uniform(0, 360, 100)
    noise = _noise(4, 100, columns, cutoff=0.45)
    expected = _oracle(noise, theta, center)
    axis = np.arange(columns) - (columns - 1) / 2
    inside = np.hypot(axis[:, None], axis) < 0.95 * columns / 2
    error = (tomography.reconstruct(noise, theta, center) - expected)[:, inside]
    assert np.linalg.norm(error) <= 0.01 * np.linalg.norm(expected[:, inside])  # finufft's tolerance
