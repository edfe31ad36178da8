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
    response = scipy.fft.fft(kernel).real
    frequency = scipy.fft.fftfreq(length)
    if window == "shepp-logan":
        response *= np.sinc(frequency)
    elif window == "hann":
        response *= np.cos(np.pi * frequency) ** 2
    elif window != "ramp":
        raise ValueError(f"no window {window!r}: choose ramp, shepp-logan or hann")
    if length % 2 == 0:
        response[length // 2] = 0  # one-sided: shifted by a fraction, it would leak between slices of a pair
    return np.asarray(response)
