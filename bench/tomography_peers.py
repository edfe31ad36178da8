"""Reconstruction against gridrec and ASTRA, which cannot simply be installed: left out where they are not found.

gridrec: `LIGHTKEEP_GRIDREC` is the path of libtomo's gridrec as a shared library (github.com/tomopy/tomopy,
source/libtomo/gridrec, built with -O3 -march=native -DNDEBUG -DTOMOPY_USE_FFTW on FFTW in single precision).
ASTRA: the package astra-toolbox. Its wheel needs CUDA's runtime and cuFFT even where there is no GPU.
Each of our threads works on many slices at once, each of theirs on one, on gridrec's two.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench._harness import Figure, Timing, interleaved
from bench.tomography import FEW, REPETITIONS, SLICES, THREADS, error_of, stack_of
from lightkeep.analysis import tomography
from lightkeep.analysis.tomography.iterative import operator_of
from lightkeep.analysis.tomography.nufft import geometry

PART = "tomography"
ITERATIONS = 10

Image = NDArray[Any]


def run() -> list[Figure]:
    """Time and error of each peer that is there."""
    figures = []
    library = os.environ.get("LIGHTKEEP_GRIDREC")
    if library:
        figures += [*_gridrec(library, 512, 720), *_gridrec(library, 1024, 1440)]
    else:
        print("gridrec: LIGHTKEEP_GRIDREC names no library, left out")
    if importlib.util.find_spec("astra"):
        figures += _astra(512, 720)
    else:
        print("ASTRA: no package astra, left out")
    return figures


def _gridrec(path: str, size: int, angles: int) -> list[Figure]:
    gridrec = ctypes.CDLL(path).gridrec
    theta, middle = np.arange(angles) * 180 / angles, (size - 1) / 2
    stack = stack_of(size, theta)
    out = np.empty((SLICES, size, size), np.float32)
    few = [np.ascontiguousarray(stack[i : i + 2], np.float32) for i in range(0, FEW, 2)]

    def mine() -> Image:
        return tomography.reconstruct(stack, theta, middle, threads=THREADS, out=out)[0]

    def peer(pad: int) -> Image:
        with ThreadPoolExecutor(THREADS) as pool:
            return next(iter(pool.map(lambda pair: _two_by_gridrec(gridrec, pair, theta, middle, pad), few)))[0]

    ours, plain, padded = interleaved(
        mine,
        lambda: peer(0),
        lambda: peer(size // 2),
        repetitions=REPETITIONS,
    )
    name = f"{size} x {size}"
    return [
        *_figures(f"{name} vs gridrec, padded", ours, padded, FEW, middle, "ratio >= 25"),
        *_figures(f"{name} vs gridrec, not padded", ours, plain, FEW, middle, "ratio >= 6"),
    ]


def _two_by_gridrec(gridrec: Any, pair: Image, theta: Image, middle: float, pad: int) -> Image:
    """Two slices; each row is continued by its edges by `pad` columns on either side, as its users do."""
    rows = np.ascontiguousarray(np.pad(pair, ((0, 0), (0, 0), (pad, pad)), mode="edge"))
    count, angles, width = rows.shape
    images = np.zeros((count, width, width), np.float32)
    center, radians = np.full(count, middle + pad, np.float32), np.deg2rad(theta).astype(np.float32)
    gridrec(
        _floats(rows), count, angles, width, _floats(center), _floats(radians), _floats(images), width, width,
        b"ramlak", _floats(np.array([0.5, 8], np.float32)),
    )  # fmt: skip
    inside = slice(pad, width - pad)
    return images[:, inside, inside]


def _floats(array: Image) -> Any:
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))


def _astra(size: int, angles: int) -> list[Figure]:
    theta, middle = np.arange(angles) * 180 / angles, (size - 1) / 2
    stack = stack_of(size, theta)
    out = np.empty((SLICES, size, size), np.float32)
    run = _astra_of(stack[0], theta)

    def ours(**options: Any) -> Image:
        return tomography.reconstruct(stack, theta, middle, threads=THREADS, out=out, **options)[0].copy()

    def whole() -> Image:
        geometry.cache_clear()
        operator_of.cache_clear()
        return solve(ITERATIONS)

    def solve(iterations: int) -> Image:
        return ours(method="cgls", iterations=iterations)

    def both(algorithm: str, iterations: int) -> Image:
        with ThreadPoolExecutor(THREADS) as pool:
            return next(iter(pool.map(lambda _: run(algorithm, iterations), range(THREADS))))

    plain, fbp, first, ten, peer = interleaved(
        ours,
        lambda: both("FBP", 1),
        lambda: solve(1),
        whole,
        lambda: both("CGLS", ITERATIONS),
        repetitions=REPETITIONS,
    )
    each = 1e3 * (ten.median - first.median) / (ITERATIONS - 1) / SLICES
    theirs = 1e3 * peer.median / ITERATIONS / THREADS
    note = f"peer: ASTRA on the processor, {size} x {size}, {angles} angles"
    return [
        *_figures("FBP vs ASTRA", plain, fbp, THREADS, middle, "ratio >= 300"),
        Figure("CGLS iteration vs ASTRA", each, theirs, "ratio >= 300", REPETITIONS, THREADS, "ms", note=note),
        *_figures(
            f"CGLS, {ITERATIONS} iterations with set-up, vs ASTRA", ten, peer, THREADS, middle, "ratio >= 50"
        ),
    ]


def _astra_of(rows: Image, theta: Image) -> Callable[[str, int], Image]:
    """A function that runs one of ASTRA's algorithms on a slice."""
    import astra

    size = rows.shape[1]
    volume = astra.create_vol_geom(size, size)
    beam = astra.create_proj_geom("parallel", 1.0, size, np.deg2rad(theta))

    def run(algorithm: str, iterations: int) -> Image:
        projector = astra.create_projector("linear", beam, volume)
        settings = astra.astra_dict(algorithm)
        settings["ProjectorId"] = projector
        settings["ProjectionDataId"] = given = astra.data2d.create("-sino", beam, rows)
        settings["ReconstructionDataId"] = found = astra.data2d.create("-vol", volume)
        work = astra.algorithm.create(settings)
        astra.algorithm.run(work, iterations)
        image = astra.data2d.get(found)
        astra.algorithm.delete(work)
        astra.data2d.delete([given, found])
        astra.projector.delete(projector)
        return np.asarray(image)

    return run


def _figures(name: str, ours: Timing, peer: Timing, peers: int, middle: float, goal: str) -> list[Figure]:
    a, b = 1e3 * ours.median / SLICES, 1e3 * peer.median / peers
    # each has its own idea of up and of angles
    turned = [np.rot90(peer.result, turns)[:: 1 - 2 * flip] for turns in range(4) for flip in range(2)]
    errors = error_of(ours.result, middle), min(error_of(image, middle) for image in turned)
    note = f"{SLICES} slices of ours, {peers} of the peer's"
    return [
        Figure(name, a, b, goal, REPETITIONS, THREADS, "ms", note=note),
        Figure(f"RMSE {name}", *errors, "", REPETITIONS, THREADS, "1/pixel", note=note),
    ]
