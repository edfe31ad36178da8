"""Reconstruction from 64 rows: our gridding against finufft, algotom's and scikit-image's back-projection, scipy.

One phantom, exact line integrals, as many threads for each. Iterations are compared with the same convolution by
scipy's FFT in single precision.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from bench._harness import Figure, Timing, interleaved
from lightkeep.analysis import simulate, tomography
from lightkeep.analysis.tomography.by_finufft import reconstruct_by_finufft
from lightkeep.analysis.tomography.iterative import Operator
from lightkeep.analysis.tomography.nufft import geometry

PART = "tomography"
SLICES, FEW, THREADS, REPETITIONS = 64, 8, 2, 5

Image = NDArray[Any]


def run() -> list[Figure]:
    """Time and error of each."""
    import numba

    numba.set_num_threads(min(THREADS, numba.config.NUMBA_NUM_THREADS))
    return [
        *_against_finufft(512, 720, "ratio >= 8"),
        *_against_finufft(1024, 1440, "ratio >= 10"),
        *_against_back_projection(512, 720),
        _noise(512),
        *_iterations(512, 720),
        *_stripes(512, 720),
    ]


def stack_of(size: int, theta: Image, slices: int = SLICES) -> Image:
    """(slices, angles, size) exact line integrals of the head, the same in every row."""
    sinogram = simulate.shepp_logan().projections(theta, columns=size)[:, 0]
    return np.repeat(sinogram[None], slices, axis=0)


def _against_finufft(size: int, angles: int, goal: str) -> list[Figure]:
    theta = np.arange(angles) * 180 / angles
    middle = (size - 1) / 2
    stack = stack_of(size, theta)
    few, out = stack[:FEW], np.empty((SLICES, size, size), np.float32)

    def ours(accuracy: Any) -> Image:
        return tomography.reconstruct(stack, theta, middle, accuracy=accuracy, threads=THREADS, out=out)[0].copy()

    standard, preview, peer = interleaved(
        lambda: ours("standard"),
        lambda: ours("preview"),
        lambda: reconstruct_by_finufft(few, theta, middle, threads=THREADS)[0],
        repetitions=REPETITIONS,
    )
    note = f"peer: finufft, a pair of slices with each transform; {size} x {size}, {angles} angles"
    errors = [error_of(each.result, middle) for each in (standard, preview, peer)]
    name = f"{size} x {size}"
    return [
        _times(f"slice {name} vs finufft", standard, SLICES, peer, FEW, goal, note),
        _times(f"preview {name} vs finufft", preview, SLICES, peer, FEW, "ratio >= 11", note),
        _errors(f"RMSE {name} vs finufft", errors[0], errors[2], "ratio >= 0.999", note),
        _errors(f"RMSE {name}, preview", errors[1], errors[2], "", note),
    ]


def _against_back_projection(size: int, angles: int) -> list[Figure]:
    from algotom.rec.reconstruction import fbp_reconstruction
    from skimage.transform import iradon

    theta = np.arange(angles) * 180 / angles
    middle = (size - 1) / 2
    stack = stack_of(size, theta)
    # Both peers turn the other way round; iradon takes (columns, angles) with its axis at column N // 2.
    turned = np.deg2rad(-theta)
    shifted = simulate.shepp_logan().projections(theta, columns=size, center=size // 2)
    columns_first = shifted[:, 0].T.astype(float)

    out = np.empty((SLICES, size, size), np.float32)

    def ours() -> Image:
        return tomography.reconstruct(stack, theta, middle, threads=THREADS, out=out)[0]

    def algotom() -> Image:
        return np.asarray(
            fbp_reconstruction(stack[0], middle, turned, ratio=1, filter_name=None, apply_log=False, gpu=False)
        )

    def skimage() -> Image:
        with ThreadPoolExecutor(THREADS) as pool:  # it has no threads of its own: one slice on each
            return np.asarray(list(pool.map(lambda _: iradon(columns_first, -theta), range(THREADS))))[0]

    a, b, c = interleaved(ours, algotom, skimage, repetitions=REPETITIONS)
    error = error_of(a.result, middle)
    figures = []
    for name, peer, slices, goal, axis in (
        ("algotom FBP", b, 1, "ratio >= 150", middle),
        ("skimage iradon", c, THREADS, "ratio >= 40", float(size // 2)),
    ):
        note = f"peer: {name}; {size} x {size}, {angles} angles"
        figures += [
            _times(f"slice vs {name}", a, SLICES, peer, slices, goal, note),
            _errors(f"RMSE vs {name}", error, error_of(peer.result, axis), "ratio >= 1", note),
        ]
    return figures


def _noise(size: int) -> Figure:
    """Relative error on random walks at random angles about an axis off the middle, against precise gridding."""
    rng = np.random.default_rng(0)
    theta = rng.uniform(0, 360, 180)
    rows = rng.normal(size=(8, theta.size, size)).cumsum(axis=2).astype(np.float32)
    rows -= rows.mean(axis=2, keepdims=True)
    axis = size / 2 - 5.7
    found = tomography.reconstruct(rows, theta, axis, threads=THREADS)
    exact = tomography.reconstruct(rows, theta, axis, accuracy="precise", threads=THREADS)
    at = np.arange(size) - (size - 1) / 2
    inside = np.hypot(at[:, None], at[None, :]) < 0.95 * size / 2
    error = float(np.linalg.norm((found - exact)[:, inside]) / np.linalg.norm(exact[:, inside]))
    note = "random walks, 180 random angles, against precise gridding, which the tests hold to exact sums"
    return Figure("error on noise", error, None, "ours <= 0.0035", repetitions=1, unit="relative L2", note=note)


def _iterations(size: int, angles: int) -> list[Figure]:
    theta = np.arange(angles) * 180 / angles
    middle = (size - 1) / 2
    stack = stack_of(size, theta)
    transfer = Operator(geometry(theta.tobytes(), size, middle, None, True, "precise", whole=True)).transfer.T
    half = np.ascontiguousarray(transfer[:, : transfer.shape[1] // 2 + 1])
    images = np.random.default_rng(0).normal(size=(FEW, size, size)).astype(np.float32)

    def solve(iterations: int) -> Image:
        return tomography.reconstruct(stack, theta, middle, method="cgls", iterations=iterations, threads=THREADS)[
            0
        ]

    def convolve() -> Image:
        spectrum = scipy.fft.rfft2(images, transfer.shape, workers=THREADS)
        return np.asarray(scipy.fft.irfft2(spectrum * half, transfer.shape, workers=THREADS)[:, :size, :size])

    one, eleven, peer = interleaved(lambda: solve(1), lambda: solve(11), convolve, repetitions=REPETITIONS)
    note = f"peer: scipy rfft2, the convolution alone; {size} x {size}; ours with all of an iteration"
    each = 1e3 * (eleven.median - one.median) / 10 / SLICES
    return [
        Figure("CGLS iteration vs scipy", each, 1e3 * peer.median / FEW, "ratio >= 4", REPETITIONS, THREADS, "ms",
               note=note),
        Figure("CGLS RMSE after 11 iterations", error_of(eleven.result, middle), None, "ours <= 0.045",
               REPETITIONS, THREADS, "1/pixel"),
    ]  # fmt: skip


def _stripes(size: int, angles: int) -> list[Figure]:
    from algotom.prep import removal

    rng = np.random.default_rng(0)
    clean = 2 + stack_of(size, np.arange(angles) * 180 / angles, 4)
    rows = (clean * (1 + 0.02 * rng.normal(size=(1, 1, size))) + rng.normal(0, 1e-2, clean.shape)).astype(
        np.float32
    )
    note = f"{len(rows)} sinograms of {angles} x {size}; peer: algotom, one after the other"
    figures = []
    for name, ours, peer in (
        ("Vo", tomography.remove_stripes_vo, removal.remove_all_stripe),
        ("wavelet", tomography.remove_stripes_wavelet, removal.remove_stripe_based_wavelet_fft),
    ):
        a, b = interleaved(
            lambda ours=ours: ours(rows, threads=THREADS),
            lambda peer=peer: [peer(row) for row in rows],
            repetitions=REPETITIONS,
        )
        figures.append(_times(f"stripes, {name}, vs algotom", a, len(rows), b, len(rows), "ratio >= 5", note))
    return figures


def _times(name: str, ours: Timing, slices: int, peer: Timing, peers: int, goal: str, note: str) -> Figure:
    a, b = 1e3 * ours.median / slices, 1e3 * peer.median / peers
    return Figure(name, a, b, goal, REPETITIONS, THREADS, "ms", note=note)


def _errors(name: str, ours: float, peer: float, goal: str, note: str) -> Figure:
    return Figure(name, ours, peer, goal, REPETITIONS, THREADS, "1/pixel", note=note)


def error_of(image: Image, axis: float) -> float:
    """RMSE against the true slice, inside 0.95 of the circle about the axis' pixel index, (N - 1) / 2 or N / 2."""
    size = len(image)
    halves = round(2 * axis) - (size - 1)  # the truth is moved by so many half pixels
    fine = np.roll(simulate.shepp_logan().slices(2 * size)[0], halves, axis=(0, 1))
    truth = fine.reshape(size, 2, size, 2).mean(axis=(1, 3))
    at = np.arange(size) - axis
    inside = np.hypot(at[:, None], at[None, :]) < 0.95 * size / 2
    return float(np.sqrt(np.mean((image - truth)[inside] ** 2)))
