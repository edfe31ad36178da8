"""Filtered back-projection in Fourier space, with as many slices at once as fit into the vectors of the processor.

Each sinogram row is zero-padded and transformed; the Fourier transform of a projection lies on a line through the
origin of the image's Fourier plane. Ramp, window, axis and angular share are one table that it is multiplied by.
A short kernel (Kaiser-Bessel) spreads every sample onto the cells of a plane that is a quarter finer than the
image's own, an FFT makes the image, and division by the kernel's transform undoes its taper.

Fourier slice theorem: Kak and Slaney (1988), section 3. Gridding: Beatty, Nishimura and Pauly (2005), IEEE Trans.
Med. Imaging 24, 799.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal

import numpy as np
import scipy.special
from numpy.typing import NDArray

from lightkeep.analysis.simd.units import packed
from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.tomography.angles import angular_weights
from lightkeep.analysis.tomography.filters import Window
from lightkeep.analysis.tomography.kernels.image import Plane, finish
from lightkeep.analysis.tomography.kernels.rays import BATCH, BORDER, PLACE_BITS, STEPS, TOGETHER, Rays, add_rays
from lightkeep.analysis.tomography.plan import FftPlan, aligned, fast_length
from lightkeep.analysis.tomography.sampling import Sampling, sampling

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Accuracy = Literal["preview", "standard", "precise"]

_KERNELS: Final[dict[str, tuple[float, int, float]]] = {
    "preview": (1.125, 3, 0.2),
    "standard": (1.25, 4, 0.3),
    "precise": (1.25, 5, 0.3),
}
"""Cells per pixel of the image; cells that a sample is spread over along each axis; `free` of `sampling`."""
_AHEAD: Final = 4
"""Half samples aside of a projection where it needs cells that those before it do not."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """What depends on the scan but not on the slice."""

    angles: int
    columns: int
    sampling: Sampling
    window: Window | None
    weights: Float64
    """(angles,), in the order in which they are worked on."""
    width: int
    order: NDArray[np.int64]
    directions: NDArray[np.int64]
    factors: NDArray[np.complex64]
    near: Float32
    kernel: Float32
    size: int
    """Cells of the plane along x and y."""
    taper: NDArray[np.complex64]
    spans: NDArray[np.int64]
    of_rays: FftPlan
    of_plane: FftPlan


@lru_cache(maxsize=2)
def geometry(
    theta_bytes: bytes,
    columns: int,
    center: float,
    window: Window | None,
    mask: bool,
    accuracy: Accuracy,
    *,
    whole: bool = False,
) -> Geometry:
    """Tables of a scan.

    theta_bytes: its angles, float64 degrees.
    window: None for the plain back-projection, the adjoint of projecting.
    whole: the image has corners while it is made, also where `mask` clears them in the end.
    """
    theta_deg = np.frombuffer(theta_bytes)
    weights = np.ones(theta_deg.size) if window is None else angular_weights(theta_deg)
    return weighted(theta_deg, weights, columns, center, window, mask, accuracy, whole=whole)


def weighted(
    theta_deg: Float64,
    weights: Float64,
    columns: int,
    center: float,
    window: Window | None,
    mask: bool,
    accuracy: Accuracy,
    *,
    whole: bool = False,
) -> Geometry:
    """Tables of some angles with weights of any kind, also negative ones."""
    if accuracy not in _KERNELS:
        raise ValueError(f"no accuracy {accuracy!r}: choose preview, standard or precise")
    oversampling, width, free = _KERNELS[accuracy]
    size = fast_length(math.ceil(oversampling * columns), of=2)
    samples = sampling(columns, center, size, window=window, whole=whole or not mask, free=free)
    length, near = samples.length, samples.near
    order = np.argsort(np.mod(theta_deg, 180.0), kind="stable")
    theta = np.deg2rad(theta_deg[order])
    direction = np.stack([np.cos(theta), np.sin(theta)], axis=1)
    numbers = samples.numbers[:length]
    later = np.abs(numbers) <= near
    filtered = np.exp(2j * np.pi * numbers * center / length) * np.where(later, 1, samples.weights[:length])
    # An even image's pixels lie half a pixel off the whole numbers that the FFT counts.
    shift = np.pi * (1 - columns % 2) * direction.sum(axis=1) / length
    phase = (shift[:, None] * numbers).astype(np.float32)
    factors = np.empty(phase.shape, np.complex64)
    np.cos(phase, out=factors.real)
    np.sin(phase, out=factors.imag)
    factors *= filtered.astype(np.complex64)
    factors *= weights[order].astype(np.float32)[:, None]
    kernel, taper = _kernel(size, columns, width)
    steps = np.rint(direction * size / length * 2 ** (PLACE_BITS - 1)).astype(np.int64)
    return Geometry(
        angles=theta.size,
        columns=columns,
        sampling=samples,
        window=window,
        weights=weights[order],
        width=width,
        order=order.astype(np.int64),
        directions=np.concatenate([steps, steps[-1:]]),
        factors=factors,
        near=np.concatenate(
            [samples.weights[np.arange(-near, near + 1) % length], samples.weights[length:]]
        ).astype(np.float32),
        kernel=kernel,
        size=size,
        taper=taper,
        spans=spans(columns, mask),
        of_rays=FftPlan(length),
        of_plane=FftPlan(size),
    )


@lru_cache(maxsize=8)
def _kernel(size: int, columns: int, width: int) -> tuple[Float32, NDArray[np.complex64]]:
    """(STEPS, 8) weights of a Kaiser-Bessel kernel by position; (size,) what undoes its taper, the FFT's way."""
    beta = np.pi * width * (1 - columns / size / 2)  # what lies beyond the image folds back least; measured
    ahead = (STEPS - 1 - np.arange(STEPS))[:, None] / STEPS - width / 2
    place = (ahead + np.arange(width)) * 2 / width
    weights = np.zeros((STEPS, 8), np.float32)
    weights[:, 1 : width + 1] = scipy.special.i0(beta * np.sqrt(np.maximum(1 - place**2, 0)))
    weights[-1, 1] = 0  # the edge, which the mirrored sample does not reach: the slices of a pair would leak
    x = np.arange(columns) - columns // 2
    root = np.sqrt(beta**2 - (np.pi * width * x / size) ** 2 + 0j)
    taper = np.zeros(size, np.complex64)
    taper[-x] = (-1.0) ** x / (width * np.sinh(root) / root).real
    return weights, taper


@lru_cache(maxsize=8)
def spans(columns: int, mask: bool) -> NDArray[np.int64]:
    """(columns, 2): first kept pixel of each row of a slice, and the one after the last."""
    if not mask:
        return np.tile(np.array([0, columns], np.int64), (columns, 1))
    axis = np.arange(columns) - (columns - 1) / 2
    inside = axis[:, None] ** 2 + axis**2 <= (columns / 2) ** 2
    first = inside.argmax(axis=1)
    return np.stack([first, columns - first], axis=1).astype(np.int64)


def empty_plane(scan: Geometry) -> Float32:
    """A plane without anything on it."""
    return aligned(scan.size + 2 * BORDER, (scan.size + 2 * BORDER) | 1, 2, LANES)


class Desk:
    """What one thread works in beside planes."""

    def __init__(self, scan: Geometry) -> None:
        self._scan = scan
        samples = scan.sampling
        of_rays = TOGETHER * (samples.length + samples.halves) + LANES + scan.of_rays.work_elements
        of_plane = scan.size + scan.columns + 3 * LANES + scan.of_plane.work_elements
        self._work = aligned(max(of_rays, of_plane), 2, LANES)

    def add(self, scan: Geometry, rows: NDArray[Any], plane: Float32) -> None:
        """Spread sinograms (at most BATCH rows, angles, columns), of any angles, onto a plane."""
        whole = _floats(rows)
        job = packed(
            Rays(
                angles=scan.angles,
                columns=scan.columns,
                length=scan.sampling.length,
                halves=scan.sampling.halves,
                near=scan.sampling.near,
                taps=scan.sampling.taps.ctypes.data,
                weights=scan.near.ctypes.data,
                plan=scan.of_rays.address,
                order=scan.order.ctypes.data,
                directions=scan.directions.ctypes.data,
                factors=scan.factors.ctypes.data,
                kernel=scan.kernel.ctypes.data + 4,
                size=scan.size,
                plane=plane.ctypes.data,
                ahead=_AHEAD,
                work=self._work.ctypes.data,
            )
        )
        add_rays(job.ctypes.data, whole.ctypes.data, whole.strides[1], whole.strides[0], scan.width)

    def images_of(self, source: Float32, plane: Float32) -> NDArray[np.int64]:
        """What the functions of `kernels.image` are told, to make images of one plane and use up another."""
        scan = self._scan
        return packed(
            Plane(
                size=scan.size,
                source=source.ctypes.data,
                plane=plane.ctypes.data,
                plan=scan.of_plane.address,
                columns=scan.columns,
                taper=scan.taper.ctypes.data,
                spans=scan.spans.ctypes.data,
                work=self._work.ctypes.data,
            )
        )


class Worker:
    """One thread's plane and what it works in."""

    def __init__(self, scan: Geometry) -> None:
        self._scan = scan
        self._desk = Desk(scan)
        self._plane = empty_plane(scan)
        self._images = self._desk.images_of(self._plane, self._plane)

    @property
    def finish_address(self) -> int:
        """What the functions of `kernels.image` are told."""
        return int(self._images.ctypes.data)

    def add(self, rows: NDArray[Any]) -> None:
        """Add at most BATCH rows to the plane, which is clear before and after its images were made."""
        self._desk.add(self._scan, rows, self._plane)

    def run(self, rows: NDArray[Any], out: Float32) -> None:
        """Reconstruct at most BATCH rows."""
        self.add(rows)
        finish(self.finish_address, out.ctypes.data, len(rows))


def _floats(rows: NDArray[Any]) -> Float32:
    """BATCH rows of float32 with neighbouring columns side by side; what is missing is zero."""
    if len(rows) == BATCH and rows.dtype == np.float32 and rows.strides[2] == 4:
        return rows
    whole = np.zeros((BATCH, *rows.shape[1:]), np.float32)
    whole[: len(rows)] = rows
    return whole
