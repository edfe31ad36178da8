"""Reconstruction of one 512 x 512 slice from 720 angles, against algotom's and scikit-image's back-projection."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench._harness import Figure, interleaved
from lightkeep.analysis import simulate, tomography

PART = "tomography"
SIZE, ANGLES, SLICES, THREADS = 512, 720, 16, 2

Image = NDArray[Any]


def run() -> list[Figure]:
    """Time and error of each, from exact line integrals of one phantom and with as many threads for each."""
    import numba
    from algotom.rec.reconstruction import fbp_reconstruction
    from skimage.transform import iradon

    numba.set_num_threads(min(THREADS, numba.config.NUMBA_NUM_THREADS))
    phantom = simulate.shepp_logan()
    theta = np.arange(ANGLES) * 180 / ANGLES
    middle = (SIZE - 1) / 2
    sinogram = phantom.projections(theta, columns=SIZE)[:, 0]
    stack = np.repeat(sinogram[None], SLICES, axis=0)
    # Both peers turn the other way round; iradon takes (columns, angles) with its axis at column N // 2.
    turned = np.deg2rad(-theta)
    columns_first = phantom.projections(theta, columns=SIZE, center=SIZE // 2)[:, 0].T.astype(float)

    def ours() -> Image:
        return tomography.reconstruct(stack, theta, middle, threads=THREADS)[0]

    def algotom() -> Image:
        return np.asarray(
            fbp_reconstruction(sinogram, middle, turned, ratio=1, filter_name=None, apply_log=False, gpu=False)
        )

    def skimage() -> Image:
        with ThreadPoolExecutor(THREADS) as pool:  # it has no threads of its own: one slice on each
            return np.asarray(list(pool.map(lambda _: iradon(columns_first, -theta), range(THREADS))))[0]

    a, b, c = interleaved(ours, algotom, skimage, repetitions=5)
    error = _error(a.result, middle)
    time_ms = 1e3 * a.median / SLICES
    peers = (
        ("algotom FBP", 1e3 * b.median, "ratio >= 20", _error(b.result, middle)),
        ("skimage iradon", 1e3 * c.median / THREADS, "ratio >= 40", _error(c.result, SIZE // 2)),
    )
    shared: dict[str, Any] = {"repetitions": len(a.seconds), "threads": THREADS}
    figures = []
    for name, peer_ms, goal, peer_error in peers:
        note = f"peer: {name}; {SIZE} x {SIZE}, {ANGLES} angles"
        figures += [
            Figure(f"slice vs {name}", time_ms, peer_ms, goal, unit="ms", note=note, **shared),
            Figure(f"RMSE vs {name}", error, peer_error, "ratio >= 1", unit="1/pixel", note=note, **shared),
        ]
    return figures


def _error(image: Image, axis: float) -> float:
    """RMSE against the true slice, inside 0.95 of the circle about the axis' pixel index, (N - 1) / 2 or N / 2."""
    halves = round(2 * axis) - (SIZE - 1)  # the truth is moved by so many half pixels
    fine = np.roll(simulate.shepp_logan().slices(2 * SIZE)[0], halves, axis=(0, 1))
    truth = fine.reshape(SIZE, 2, SIZE, 2).mean(axis=(1, 3))
    at = np.arange(SIZE) - axis
    inside = np.hypot(at[:, None], at[None, :]) < 0.95 * SIZE / 2
    return float(np.sqrt(np.mean((image - truth)[inside] ** 2)))
