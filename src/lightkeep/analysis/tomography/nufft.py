"""Filtered back-projection in Fourier space: one non-uniform FFT makes a pair of slices.

Each sinogram row is zero-padded and Fourier transformed; its samples lie on a line through the origin of the
image's Fourier plane. They are multiplied by one complex table, which carries the sampled ramp and its window, the
weight of the angle, and the phases that bring the rotation axis to the middle of the image; a type-1 non-uniform
FFT then sums all of them onto the pixels. Two real slices travel as the real and the imaginary part of one.

Fourier slice theorem: Kak and Slaney (1988), section 3. Transforms: finufft, Barnett, Magland and af Klinteberg
(2019), SIAM J. Sci. Comput. 41, C479.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Literal

import finufft
import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from lightkeep.analysis.tomography.angles import angular_weights

Float32 = NDArray[np.float32]
Complex64 = NDArray[np.complex64]
Window = Literal["ramp", "shepp-logan", "hann"]

EPS: Final = 1e-2
"""Tolerance of the transform. Measured: the image's error does not change down to 1e-4, only the time."""
_UPSAMPLING: Final = 1.25
_PAIRS: Final = 4
"""Pairs of slices in one call of a thread: more gain nothing and cost memory."""


def reconstruct(
    sinograms: ArrayLike,
    theta_deg: ArrayLike,
    center: float,
    *,
    window: Window = "ramp",
    pad: int = 2,
    eps: float = EPS,
    threads: int = 1,
    out: Float32 | None = None,
) -> Float32:
    """Slices from sinograms of a parallel beam.

    Rows are paired by their index: 0 with 1, 2 with 3 and so on. A piece that begins at an even row therefore
    gives the same bytes as the whole, and so does any number of threads.

    Parameters
    ----------
    sinograms: (rows, angles, columns) line integrals, any real dtype, finite.
    theta_deg: (angles,) degrees, any order and spacing.
    center: column (0-based pixel index, may be fractional) where the rotation axis is seen.
    window: `ramp` (sharpest), `shepp-logan`, or `hann` (smoothest).
    pad: the detector is padded with zeros to `pad` times its width, at least; 2 avoids wrap-around.
    eps: relative tolerance of the non-uniform FFT.
    threads: how many pairs are worked on at once.
    out: (rows, columns, columns) float32 to write into.

    Returns
    -------
    : (rows, y, x) float32, line integral per pixel length; x and y grow with the index, the axis is in the middle
      (see `lightkeep.analysis.simulate.phantoms` for the geometry).

    Raises
    ------
    ValueError: shapes disagree, or an angle or the centre is not finite.
    """
    data = np.asarray(sinograms)
    if data.ndim != 3:
        raise ValueError(f"sinograms must be (rows, angles, columns), not {data.shape}")
    geometry = Geometry.of(theta_deg, data.shape[2], center, window=window, pad=pad)
    if data.shape[1] != geometry.angles:
        raise ValueError(f"sinograms have {data.shape[1]} angles, theta_deg has {geometry.angles}")
    if out is None:
        out = np.empty((data.shape[0], data.shape[2], data.shape[2]), np.float32)
    starts = list(range(0, data.shape[0], 2 * _PAIRS))
    shares = [starts[thread::threads] for thread in range(min(threads, len(starts)))]

    def work(share: list[int]) -> None:
        worker = _Worker(geometry, eps=eps, pairs=min(_PAIRS, -(-data.shape[0] // 2)))
        for start in share:
            worker.run(data[start : start + 2 * _PAIRS], out[start : start + 2 * _PAIRS])

    if len(shares) == 1:
        work(shares[0])
    else:
        with ThreadPoolExecutor(len(shares)) as pool:
            list(pool.map(work, shares))
    return out


@dataclass(frozen=True)
class Geometry:
    """What depends on the scan but not on the slice."""

    columns: int
    padded: int
    """Length of a padded row."""
    angles: int
    y: Float32
    """(angles * padded,) radians per pixel: where each sample lies in the Fourier plane."""
    x: Float32
    table: Complex64
    """(angles, padded): what each sample is multiplied by."""

    @classmethod
    def of(
        cls, theta_deg: ArrayLike, columns: int, center: float, *, window: Window = "ramp", pad: int = 2
    ) -> Geometry:
        """Return the geometry of a scan; see `reconstruct`."""
        if not np.isfinite(center):
            raise ValueError(f"the rotation centre is {center}")
        theta = np.deg2rad(np.asarray(theta_deg, float).ravel())
        weights = angular_weights(theta_deg)
        padded = 2 * scipy.fft.next_fast_len(-(-pad * columns // 2))
        frequency = scipy.fft.fftfreq(padded)  # cycles per pixel
        across, along = np.cos(theta)[:, None], np.sin(theta)[:, None]
        # finufft counts an even image's pixels from its middle + 1/2, ours lies between two of them.
        half = 0.5 * (1 - columns % 2)
        shift = frequency * (center + half * (across + along))
        table = weights[:, None] * (_ramp(padded, window) / padded) * np.exp(2j * np.pi * shift)
        table[:, padded // 2] = 0  # one-sided: would leak from one slice of a pair into the other
        turn = 2 * np.pi * frequency
        return cls(
            columns=columns,
            padded=padded,
            angles=theta.size,
            y=(turn * along).astype(np.float32).ravel(),
            x=(turn * across).astype(np.float32).ravel(),
            table=table.astype(np.complex64),
        )


def _ramp(length: int, window: Window) -> NDArray[np.float64]:
    """(length,) filter in the order of the FFT, sampled in real space: its mean is right, and nothing cups."""
    index = np.rint(scipy.fft.fftfreq(length) * length)
    odd = np.abs(index) % 2 == 1
    kernel = np.zeros(length)
    kernel[odd] = -1 / (np.pi * index[odd]) ** 2
    kernel[0] = 0.25
    ramp = scipy.fft.fft(kernel).real
    frequency = scipy.fft.fftfreq(length)
    if window == "shepp-logan":
        ramp *= np.sinc(frequency)
    elif window == "hann":
        ramp *= np.cos(np.pi * frequency) ** 2
    elif window != "ramp":
        raise ValueError(f"no window {window!r}: choose ramp, shepp-logan or hann")
    return np.asarray(ramp)


class _Worker:
    """One thread's plan and buffers."""

    def __init__(self, geometry: Geometry, *, eps: float, pairs: int) -> None:
        self._geometry = geometry
        self._pairs = pairs
        modes = (geometry.columns, geometry.columns)
        # One thread each: sums in a fixed order, so the same bytes always; the threads are ours.
        self._plan: Any = finufft.Plan(
            1, modes, pairs, eps=eps, isign=1, dtype="complex64", upsampfac=_UPSAMPLING, nthreads=1
        )
        self._plan.setpts(geometry.y, geometry.x)
        self._samples = np.zeros((pairs, geometry.angles * geometry.padded), np.complex64)
        self._images = np.empty((pairs, *modes), np.complex64)

    def run(self, sinograms: NDArray[Any], out: Float32) -> None:
        """Reconstruct up to 2 * pairs rows."""
        shape = self._geometry.angles, self._geometry.padded
        rows = np.zeros(shape, np.complex64)
        pairs = list(_pairs(sinograms))
        for index, (first, second) in enumerate(pairs):
            rows[:, self._geometry.columns :] = 0
            rows.real[:, : self._geometry.columns] = first
            rows.imag[:, : self._geometry.columns] = 0 if second is None else second
            spectrum = scipy.fft.fft(rows, axis=1, overwrite_x=True)
            np.multiply(spectrum, self._geometry.table, out=self._samples[index].reshape(shape))
        self._samples[len(pairs) :] = 0
        self._plan.execute(self._samples, out=self._images)
        for index, image in enumerate(self._images[: len(pairs)]):
            out[2 * index] = image.real
            if 2 * index + 1 < len(out):
                out[2 * index + 1] = image.imag


def _pairs(rows: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any] | None]]:
    for index in range(0, len(rows), 2):
        yield rows[index], rows[index + 1] if index + 1 < len(rows) else None
