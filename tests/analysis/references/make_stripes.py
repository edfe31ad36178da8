"""Write stripes.npz: what algotom 1.7 makes of a sinogram with stripes; `pip install lightkeep[peers]`.

The sinogram absorbs everywhere and has no dead pixel, for there the two differ on purpose. Wavelets:
the heights of all levels are odd, for at even ones algotom's damping is one Fourier term off the middle, and
stripes stay.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from algotom.prep import removal

ANGLES, COLUMNS, LEVELS = 97, 80, 2


def main() -> None:
    rng = np.random.default_rng(11)
    angle, column = np.arange(ANGLES)[:, None] * np.pi / ANGLES, np.arange(COLUMNS)[None, :]
    clean = 1.2 + 0.4 * np.exp(-((column - 40 - 18 * np.cos(angle)) ** 2) / 60)
    sinogram = (clean + rng.normal(0, 2e-3, clean.shape)).astype(np.float32)
    sinogram[:, 20] *= 1.05
    sinogram[:, 50:53] += 0.15
    vo = removal.remove_stripe_based_sorting(removal.remove_large_stripe(sinogram, 3.0, 31), 11)
    wavelet = removal.remove_stripe_based_wavelet_fft(sinogram, LEVELS, 1)
    np.savez_compressed(
        Path(__file__).with_name("stripes.npz"),
        sinogram=sinogram,
        vo=vo.astype("f4"),
        wavelet=wavelet.astype("f4"),
    )


if __name__ == "__main__":
    main()
