"""The ramp filter and its windows."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.fft
from numpy.typing import NDArray

Window = Literal["ramp", "shepp-logan", "hann"]


def ramp(length: int, window: Window) -> NDArray[np.float64]:
    """(length,) filter in the order of the FFT, sampled in real space: its mean is right, and nothing cups."""
    index = np.rint(scipy.fft.fftfreq(length) * length)
    odd = np.abs(index) % 2 == 1
    kernel = np.zeros(length)
    kernel[odd] = -1 / (np.pi * index[odd]) ** 2
    kernel[0] = 0.25
    response = scipy.fft.fft(kernel).real * window_of(scipy.fft.fftfreq(length), window)
    if length % 2 == 0:
        response[length // 2] = 0  # one-sided: shifted by a fraction, it would leak between slices of a pair
    return np.asarray(response)


def window_of(frequency: NDArray[np.float64], window: Window) -> NDArray[np.float64]:
    """What the ramp is multiplied by at a frequency, in cycles per pixel."""
    if window == "ramp":
        return np.ones_like(frequency)
    if window == "shepp-logan":
        return np.asarray(np.sinc(frequency))
    if window == "hann":
        return np.asarray(np.cos(np.pi * frequency) ** 2)
    raise ValueError(f"no window {window!r}: choose ramp, shepp-logan or hann")
