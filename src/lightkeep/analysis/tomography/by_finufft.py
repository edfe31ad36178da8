"""The oracle of `nufft`: filtered back-projection by finufft, a pair of slices with each transform.

Each sinogram row is zero-padded, filtered with the sampled ramp, and cut to what the slice's circle sees of it,
with the rotation axis in its middle. The Fourier transform of that lies on a line through the origin of the
image's Fourier plane; weighted by its angle's share, a type-1 non-uniform FFT sums all of them onto the pixels.
Two real slices travel as the real and the imaginary part of one.

Cutting after the filter halves the samples of the costly step. It repeats each row with a period of
`Geometry.length`, which no pixel inside the circle notices; an odd length has no one-sided Nyquist sample, which
would leak from one slice of a pair into the other.

Fourier slice theorem: Kak and Slaney (1988), section 3. Transforms: finufft, Barnett, Magland and af Klinteberg
(2019), SIAM J. Sci. Comput. 41, C479.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import finufft
import numpy as np
import scipy.fft
from numpy.typing import ArrayLike, NDArray

from lightkeep.analysis.tomography.angles import angular_weights
from lightkeep.analysis.tomography.filters import Window, ramp

Float32 = NDArray[np.float32]
Complex64 = NDArray[np.complex64]

_EPS: Final = 1e-2
"""Tolerance of the transform. Measured: the image's error does not change down to 1e-4, only the time."""
_UPSAMPLING: Final = 1.25
_MARGIN: Final = 8
"""Columns kept beyond the circle, for the ringing where a row meets its repetition."""
_BLOCK: Final = 64
"""Angles that are filtered at once: they stay in the cache."""


def reconstruct_by_finufft(
    sinograms: ArrayLike,
    theta_deg: ArrayLike,
    center: float,
    *,
    window: Window = "ramp",
    pad: int = 2,
    mask: bool = True,
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
    mask: zero outside the circle that touches the image's edges, where not every angle saw the sample; False keeps
      the corners, which takes 1.4 times as long.
    threads: how many pairs are worked on at once.
    out: (rows, columns, columns) float32 to write into.

    Returns
    -------
    : (rows, y, x) float32, line integral per pixel length; x and y grow with the index, the axis is in the middle
      (see `lightkeep.analysis.simulate.phantoms` for the geometry).

    Raises
    ------
    ValueError: shapes disagree, the centre is not on the detector, or an angle is not finite.
    """
    data = np.asarray(sinograms)
    if data.ndim != 3:
        raise ValueError(f"sinograms must be (rows, angles, columns), not {data.shape}")
    geometry = Geometry.of(theta_deg, data.shape[2], center, window=window, pad=pad, mask=mask)
    if data.shape[1] != geometry.angles:
        raise ValueError(f"sinograms have {data.shape[1]} angles, theta_deg has {geometry.angles}")
    if out is None:
        out = np.empty((data.shape[0], data.shape[2], data.shape[2]), np.float32)
    pairs = [slice(row, row + 2) for row in range(0, data.shape[0], 2)]
    shares = [pairs[thread::threads] for thread in range(min(max(1, threads), len(pairs)))]

    def work(share: list[slice]) -> None:
        worker = _Worker(geometry)
        for pair in share:
            worker.run(data[pair], out[pair])

    if len(shares) == 1:
        work(shares[0])
    elif shares:
        with ThreadPoolExecutor(len(shares)) as pool:
            list(pool.map(work, shares))
    return out


@dataclass(frozen=True)
class Geometry:
    """What depends on the scan but not on the slice."""

    columns: int
    angles: int
    length: int
    """Number of filtered columns that are kept, the rotation axis in their middle; odd."""
    filter: Complex64
    """(padded,) ramp, window, and the shift of the axis from `center` to index `length // 2`."""
    y: Float32
    """(angles * length,) radians per pixel: where each sample lies in the Fourier plane."""
    x: Float32
    table: Complex64
    """(angles, length): what each sample is multiplied by."""
    inside: NDArray[np.bool_]
    """(columns, columns): the pixels that are kept."""

    @classmethod
    def of(
        cls, theta_deg: ArrayLike, columns: int, center: float, *, window: Window, pad: int, mask: bool
    ) -> Geometry:
        """Return the geometry of a scan; see `reconstruct`."""
        if not 0 <= center <= columns - 1:
            raise ValueError(f"the rotation centre {center} is not on the detector's {columns} columns")
        weights = angular_weights(theta_deg)
        theta = np.deg2rad(np.asarray(theta_deg, float).ravel())
        across, along = np.cos(theta)[:, None], np.sin(theta)[:, None]
        axis = np.arange(columns) - (columns - 1) / 2
        inside = (axis[:, None] ** 2 + axis**2 <= (columns / 2) ** 2) | (not mask)
        length = _odd_length((columns if mask else math.ceil(math.sqrt(2) * columns)) + _MARGIN)
        padded = scipy.fft.next_fast_len(max(pad * columns, length))
        response = ramp(padded, window)
        moved = response * np.exp(2j * np.pi * scipy.fft.fftfreq(padded) * (center - length // 2))
        frequency = scipy.fft.fftfreq(length)  # cycles per pixel
        back = np.exp(2j * np.pi * frequency * (length // 2)) / length
        # finufft counts an even image's pixels from its middle + 1/2, ours lies between two of them.
        half = np.pi * (1 - columns % 2)
        phase = (half * frequency * (across + along)).astype(np.float32)
        table = np.empty(phase.shape, np.complex64)
        np.cos(phase, out=table.real)
        np.sin(phase, out=table.imag)
        table *= (weights[:, None] * back).astype(np.complex64)
        turn = 2 * np.pi * frequency
        return cls(
            columns=columns,
            angles=theta.size,
            length=length,
            filter=moved.astype(np.complex64),
            y=(turn * along).astype(np.float32).ravel(),
            x=(turn * across).astype(np.float32).ravel(),
            table=table,
            inside=inside,
        )


def _odd_length(least: int) -> int:
    """Smallest odd length from `least` on whose only prime factors are 3, 5, 7 and 11, for the FFT."""
    length = least + 1 - least % 2
    while scipy.fft.next_fast_len(length) != length:
        length += 2
    return length


class _Worker:
    """One thread's plan and buffers."""

    def __init__(self, geometry: Geometry) -> None:
        self._geometry = geometry
        self._rows = np.zeros((min(_BLOCK, geometry.angles), geometry.filter.size), np.complex64)
        self._samples = np.empty((geometry.angles, geometry.length), np.complex64)
        self._image = np.empty((geometry.columns, geometry.columns), np.complex64)
        # One thread each: sums in a fixed order, so the same bytes always; the threads are ours.
        self._plan: Any = finufft.Plan(
            1, self._image.shape, eps=_EPS, isign=1, dtype="complex64", upsampfac=_UPSAMPLING, nthreads=1
        )
        self._plan.setpts(geometry.y, geometry.x)

    def run(self, pair: NDArray[Any], out: Float32) -> None:
        """Reconstruct one or two rows."""
        geometry = self._geometry
        for begin in range(0, geometry.angles, _BLOCK):
            block = slice(begin, min(begin + _BLOCK, geometry.angles))
            rows = self._rows[: block.stop - begin]
            rows[:, geometry.columns :] = 0
            rows.real[:, : geometry.columns] = pair[0, block]
            rows.imag[:, : geometry.columns] = pair[1, block] if len(pair) == 2 else 0
            spectrum = scipy.fft.fft(rows, axis=1, overwrite_x=True)
            spectrum *= geometry.filter
            filtered = scipy.fft.ifft(spectrum, axis=1, overwrite_x=True)[:, : geometry.length]
            np.multiply(scipy.fft.fft(filtered, axis=1), geometry.table[block], out=self._samples[block])
        self._plan.execute(self._samples.ravel(), out=self._image)
        for slice_, part in zip(out, (self._image.real, self._image.imag), strict=False):
            slice_[:] = part
            slice_[~geometry.inside] = 0
