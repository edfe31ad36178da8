"""Least squares and total variation on the normal operator, without ever projecting.

A^T A of a parallel beam is a convolution (Delaney and Bresler 1996, IEEE Trans. Image Process. 5, 740): an
iteration costs the same for any number of projections. Its point spread function comes from one finufft.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final

import finufft
import numpy as np
import scipy.fft
from numpy.typing import NDArray

from lightkeep.analysis.simd.units import packed
from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.tomography.kernels.image import finish_in_lanes, release
from lightkeep.analysis.tomography.kernels.normal import PAD, Normal, apply, descend, turn
from lightkeep.analysis.tomography.kernels.rays import PLACE_BITS
from lightkeep.analysis.tomography.kernels.variation import dual, primal
from lightkeep.analysis.tomography.nufft import Geometry, Worker
from lightkeep.analysis.tomography.plan import FftPlan, aligned, fast_length

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_EPS: Final = 1e-6


class Operator:
    """A^T F A of a scan: F is the ramp filter with the angles' weights, or nothing."""

    def __init__(self, scan: Geometry) -> None:
        self.columns = scan.columns
        self.size = fast_length(2 * scan.columns)
        self.plan = FftPlan(self.size)
        samples = scan.sampling
        weights = scan.weights[:, None] * samples.weights
        turn_ = 2.0 ** (1 - PLACE_BITS) * 2 * np.pi / scan.size * samples.numbers
        x, y = (scan.directions[: scan.angles, i, None] * turn_ for i in (0, 1))
        lags = 2 * scan.columns - 1
        spread = finufft.nufft2d1(y.ravel(), x.ravel(), weights.ravel() + 0j, (lags, lags), eps=_EPS, nthreads=1)
        padded = np.zeros((self.size, self.size))
        padded[:lags, :lags] = spread.real
        padded = np.roll(padded, (1 - scan.columns, 1 - scan.columns), axis=(0, 1))
        transfer = scipy.fft.fft2(padded).real
        self.norm = float(transfer.max())
        """At least the operator's greatest eigenvalue."""
        self.transfer: Float32 = np.ascontiguousarray(transfer.T / self.size**2, np.float32)


class Solver:
    """One thread's images in lanes, and what it works in."""

    def __init__(self, scan: Geometry, operator: Operator) -> None:
        self._operator = operator
        self._worker = Worker(scan)
        n, size = operator.columns, operator.size
        self._plane = aligned(n, size + PAD, 2, LANES)
        self._work = aligned(3 * size + 1 + operator.plan.work_elements, 2, LANES)
        self._one = np.ones(1, np.complex64)
        self._job = packed(
            Normal(
                columns=n,
                size=size,
                plan=operator.plan.address,
                transfer=operator.transfer.ctypes.data,
                plane=self._plane.ctypes.data,
                ones=self._one.ctypes.data,
                work=self._work.ctypes.data,
            )
        )

    def run(self, rows: NDArray[Any], out: Float32, *, iterations: int, tv_weight: float | None) -> None:
        """Reconstruct at most BATCH rows: by least squares, or with a weight of total variation."""
        start = self._images(1)[0]
        self._worker.add(rows)
        finish_in_lanes(self._worker.finish_address, start.ctypes.data)
        if tv_weight is None:
            found = self._least_squares(start, iterations)
        else:
            found = self._least_variation(start, iterations, tv_weight)
        release(self._worker.finish_address, found.ctypes.data, out.ctypes.data, len(rows))

    def _images(self, count: int) -> list[Float32]:
        n = self._operator.columns
        return [aligned(n * n + LANES, 2, LANES) for _ in range(count)]

    def _apply(self, image: Float32, out: Float32) -> Float64:
        dots = np.zeros((2, LANES))
        apply(self._job.ctypes.data, image.ctypes.data, out.ctypes.data, dots.ctypes.data)
        return dots

    def _least_squares(self, r: Float32, iterations: int) -> Float32:
        """Conjugate gradients from zero, every slice with steps of its own; Hestenes and Stiefel (1952)."""
        n = self._operator.columns
        x, p, q = self._images(3)
        p[:] = r
        squares = np.einsum("npl,npl->pl", r, r, dtype=float)
        for _ in range(iterations):
            step = _ratio(squares, self._apply(p, q))
            left = np.zeros((2, LANES))
            descend(
                x.ctypes.data, r.ctypes.data, p.ctypes.data, q.ctypes.data, step.ctypes.data, n, left.ctypes.data
            )
            share = _ratio(left, squares)
            turn(p.ctypes.data, r.ctypes.data, share.ctypes.data, n * n)
            squares = left
        return x

    def _least_variation(self, b: Float32, iterations: int, weight: float) -> Float32:
        """Primal and dual steps from the filtered back-projection on."""
        n = self._operator.columns
        hx, ahead = self._images(2)
        x = np.maximum(b, 0, out=self._images(1)[0])
        fields = aligned(2 * n * n, 2, LANES)
        # Steps that converge: 1 / tau - 8 sigma >= norm / 2, where 8 bounds the squared norm of the differences.
        sigma = self._operator.norm / 8
        tau = 1 / (self._operator.norm / 2 + 8 * sigma)
        for _ in range(iterations):
            self._apply(x, hx)
            primal(x.ctypes.data, hx.ctypes.data, b.ctypes.data, fields.ctypes.data, ahead.ctypes.data, tau, n)
            dual(ahead.ctypes.data, fields.ctypes.data, sigma, weight, n)
        return x


def _ratio(above: Float64, below: Float64) -> Float32:
    """above / below, 0 where there is nothing left to find."""
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0).astype(np.float32)


operator_of = lru_cache(maxsize=1)(Operator)
"""The operator of a geometry, kept for its next piece."""
