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
import scipy.fft
import scipy.special
from numpy.typing import NDArray

from lightkeep.analysis.simd.units import packed
from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.tomography.angles import angular_weights
from lightkeep.analysis.tomography.filters import Window, ramp
from lightkeep.analysis.tomography.kernels.image import Plane, finish
from lightkeep.analysis.tomography.kernels.rays import BATCH, BORDER, STEPS, Rays, add_rays
from lightkeep.analysis.tomography.plan import FftPlan, aligned, fast_length

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Accuracy = Literal["preview", "standard", "precise"]

_KERNELS: Final[dict[str, tuple[float, int]]] = {
    "preview": (1.125, 3),
    "standard": (1.25, 4),
    "precise": (1.25, 5),
}
"""Cells per pixel of the image, and cells that a sample is spread over along each axis."""
_AHEAD: Final = 2.5
"""Samples aside of a projection where the next one will need cells."""
_MARGIN: Final = 8
"""Columns kept free beyond the circle, for the ringing where a row meets its repetition."""


@dataclass(frozen=True, eq=False)
class Geometry:
    """What depends on the scan but not on the slice."""

    angles: int
    columns: int
    length: int
    """Samples of a padded projection."""
    window: Window | None
    weights: Float64
    """(angles,), in the order in which they are worked on."""
    width: int
    order: NDArray[np.int64]
    directions: Float64
    factors: NDArray[np.complex64]
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
    pad: int,
    mask: bool,
    accuracy: Accuracy,
) -> Geometry:
    """Tables of a scan.

    theta_bytes: its angles, float64 degrees.
    window: None for the plain back-projection, the adjoint of projecting.
    """
    theta_deg = np.frombuffer(theta_bytes)
    weights = np.ones(theta_deg.size) if window is None else angular_weights(theta_deg)
    order = np.argsort(np.mod(theta_deg, 180.0), kind="stable")
    if accuracy not in _KERNELS:
        raise ValueError(f"no accuracy {accuracy!r}: choose preview, standard or precise")
    oversampling, width = _KERNELS[accuracy]
    size = fast_length(math.ceil(oversampling * columns), even=True)
    least = (columns if mask else math.ceil(math.sqrt(2) * columns)) + _MARGIN
    length = fast_length(max(pad * columns, least))
    theta = np.deg2rad(theta_deg[order])
    direction = np.stack([np.cos(theta), np.sin(theta)], axis=1)
    half = (length - 1) // 2  # an even length's Nyquist sample is left out: it has no partner
    index = np.rint(scipy.fft.fftfreq(length) * length)
    frequency = index / length
    filtered = np.exp(2j * np.pi * frequency * center) / length
    filtered[np.abs(index) > half] = 0
    if window is not None:
        filtered *= ramp(length, window)
    # An even image's pixels lie half a pixel off the whole numbers that the FFT counts.
    shift = np.pi * (1 - columns % 2) * direction.sum(axis=1)
    phase = (shift[:, None] * frequency).astype(np.float32)
    factors = np.empty(phase.shape, np.complex64)
    np.cos(phase, out=factors.real)
    np.sin(phase, out=factors.imag)
    factors *= filtered.astype(np.complex64)
    factors *= weights[order].astype(np.float32)[:, None]
    kernel, taper = _kernel(size, columns, width)
    return Geometry(
        angles=theta.size,
        columns=columns,
        length=length,
        window=window,
        weights=weights[order],
        width=width,
        order=order.astype(np.int64),
        directions=np.concatenate([direction, direction[-1:]]) * size / length,
        factors=factors,
        kernel=kernel,
        size=size,
        taper=taper,
        spans=spans(columns, mask),
        of_rays=FftPlan(length),
        of_plane=FftPlan(size),
    )


def _kernel(size: int, columns: int, width: int) -> tuple[Float32, NDArray[np.complex64]]:
    """(STEPS, 8) weights of a Kaiser-Bessel kernel by position; (size,) what undoes its taper, the FFT's way."""
    beta = np.pi * width * (1 - columns / size / 2)  # what lies beyond the image folds back least; measured
    ahead = (STEPS - 1 - np.arange(STEPS))[:, None] / STEPS - width / 2
    place = (ahead + np.arange(width)) * 2 / width
    weights = np.zeros((STEPS, 8), np.float32)
    weights[:, :width] = scipy.special.i0(beta * np.sqrt(np.maximum(1 - place**2, 0)))
    weights[-1, 0] = 0  # the edge, which the mirrored sample does not reach: the slices of a pair would leak
    x = np.arange(columns) - columns // 2
    root = np.sqrt(beta**2 - (np.pi * width * x / size) ** 2 + 0j)
    taper = np.zeros(size, np.complex64)
    taper[-x] = (-1.0) ** x / (width * np.sinh(root) / root).real
    return weights, taper


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
        of_rays = scan.length + LANES + scan.of_rays.work_elements
        of_plane = scan.size + scan.columns + 3 * LANES + scan.of_plane.work_elements
        self._work = aligned(max(of_rays, of_plane), 2, LANES)

    def add(self, scan: Geometry, rows: NDArray[Any], plane: Float32) -> None:
        """Spread sinograms (at most BATCH rows, angles, columns), of any angles, onto a plane."""
        whole = _floats(rows)
        job = packed(
            Rays(
                angles=scan.angles,
                columns=scan.columns,
                length=scan.length,
                plan=scan.of_rays.address,
                order=scan.order.ctypes.data,
                directions=scan.directions.ctypes.data,
                factors=scan.factors.ctypes.data,
                kernel=scan.kernel.ctypes.data,
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
        self._is_used = False
        self._images = self._desk.images_of(self._plane, self._plane)

    @property
    def finish_address(self) -> int:
        """What the functions of `kernels.image` are told."""
        return int(self._images.ctypes.data)

    def add(self, rows: NDArray[Any]) -> None:
        """Fill the plane from at most BATCH rows."""
        if self._is_used:
            self._plane[:] = 0
        self._is_used = True
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
