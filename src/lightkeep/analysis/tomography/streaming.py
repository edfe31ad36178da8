"""Reconstruction while projections come: each is added to the Fourier plane once, and can leave it again.

    add ──> line integrals are kept; each projection's share of the half circle is what changes
    step ──> only what changed is spread onto the planes; then one inverse FFT: images of all that is there
    quality ──> the two halves of the angles, reconstructed each for itself, and how well they agree

A new projection narrows the shares of its neighbours. They are added again with the difference, so that the planes
always hold what `reconstruct` would spread at once: live and batch agree to rounding, in any order of angles.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightkeep.analysis.tomography.angles import angular_weights
from lightkeep.analysis.tomography.filters import Window
from lightkeep.analysis.tomography.kernels.image import finish
from lightkeep.analysis.tomography.kernels.rays import BATCH
from lightkeep.analysis.tomography.nufft import Accuracy, Desk, Geometry, empty_plane, weighted
from lightkeep.analysis.tomography.quality import RingCorrelation, halves, ring_correlation
from lightkeep.analysis.tomography.reconstruction import reconstruct

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

_PROBES: Final = 8
"""Rows whose halves are compared, at most: as many as share one batch."""
_LEAST: Final = 8
"""Projections below which nothing can be said about quality."""


@dataclass(frozen=True)
class Quality:
    """How good the images are after some projections, without knowing the truth."""

    projections: int
    """How many were in them."""
    rings: RingCorrelation
    """Of the two halves of the angles."""
    change: float
    """Relative change since `quality` was asked before, ||x - x'|| / ||x||; infinite the first time."""


class StreamingReconstruction:
    """Slices of what came so far, fresh after every few projections. For one thread; it uses several.

    Parameters
    ----------
    shape: (rows, columns) of the projections.
    center: column (0-based pixel index, may be fractional) where the rotation axis is seen.
    window: projections that are kept; older ones leave when new ones come. None: all.
    filter_: `ramp` (sharpest), `shepp-logan`, or `hann` (smoothest).
    accuracy, mask, threads: as of `reconstruct`.

    Raises
    ------
    ValueError: the centre is not on the detector, or a number cannot be.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        *,
        center: float,
        window: int | None = None,
        filter_: Window = "ramp",
        accuracy: Accuracy = "standard",
        mask: bool = True,
        threads: int = 1,
    ) -> None:
        rows, columns = shape
        if rows < 1 or columns < 1 or (window is not None and window < 1):
            raise ValueError(f"shape {shape}, window {window}: choose 1 or more")
        if not 0 <= center <= columns - 1:
            raise ValueError(f"the rotation centre {center} is not on the detector's {columns} columns")
        self.shape = (rows, columns)
        self._center = float(center)
        self._window = window
        self._filter: Window = filter_
        self._accuracy: Accuracy = accuracy
        self._mask, self._threads = mask, max(1, threads)
        self._kept: list[Float32] = []
        self._theta = np.empty(0)
        self._spread = np.empty(0, np.float32)  # the share with which each kept projection is on the planes
        self._leaving: list[tuple[Float32, float, float]] = []
        scan = self._scan(np.zeros(1), np.zeros(1))
        self._scratch = [_Scratch(scan) for _ in range(min(self._threads, -(-rows // BATCH)))]
        self._planes = [empty_plane(scan) for _ in range(0, rows, BATCH)]
        self._images: Float32 | None = None
        self._before: Float32 | None = None

    @property
    def projections(self) -> int:
        """How many are in the images."""
        return self._theta.size

    @property
    def theta_deg(self) -> Float64:
        """(projections,) their angles, in the order in which they came."""
        return self._theta.copy()

    def add(self, projections: ArrayLike, theta_deg: ArrayLike) -> None:
        """Take up new projections; with a window, as many old ones leave.

        Parameters
        ----------
        projections: (n, rows, columns) line integrals. theta_deg: (n,) degrees, any order.

        Raises
        ------
        ValueError: of another shape than before, or a value is not finite; nothing was taken up.
        """
        new = np.asarray(projections, np.float32)
        theta = np.asarray(theta_deg, float).ravel()
        if new.ndim != 3 or new.shape[1:] != self.shape:
            raise ValueError(f"projections are {new.shape[1:]} pixels, the first ones were {self.shape}")
        if len(new) != theta.size:
            raise ValueError(f"{len(new)} projections have {theta.size} angles: give one for each")
        if not np.isfinite(theta).all():
            raise ValueError(f"{np.count_nonzero(~np.isfinite(theta))} of {theta.size} angles are not finite")
        bad = np.flatnonzero(~np.isfinite(new.sum(axis=(1, 2), dtype=np.float64)))
        if bad.size:
            raise ValueError(f"{bad.size} of {len(new)} projections hold values that are not finite, "
                             f"the first at {theta[bad[0]]:g} degrees: leave them out")  # fmt: skip
        self._kept += [row.copy() for row in new]
        self._theta = np.concatenate([self._theta, theta])
        self._spread = np.concatenate([self._spread, np.zeros(len(new), np.float32)])
        over = 0 if self._window is None else max(0, self._theta.size - self._window)
        for at in np.flatnonzero(self._spread[:over]):
            self._leaving.append((self._kept[at], float(self._theta[at]), float(self._spread[at])))
        self._kept, self._theta, self._spread = self._kept[over:], self._theta[over:], self._spread[over:]
        self._images = None

    def step(self) -> Float32:
        """Return (rows, y, x) slices of what is there, as `reconstruct` gives them; zeros before the first one."""
        if self._images is None:
            self._images = np.zeros((self.shape[0], self.shape[1], self.shape[1]), np.float32)
            if self.projections:
                self._update(self._images)
        return self._images

    def quality(self, *, rows: NDArray[np.intp] | None = None) -> Quality:
        """Compare the two halves of the angles, smoothed by a Hann window, in some rows.

        Parameters
        ----------
        rows: which; eight spread over all when None.

        Raises
        ------
        ValueError: fewer than eight projections came.
        """
        if self.projections < _LEAST:
            raise ValueError(f"{self.projections} projections tell no quality: {_LEAST} do")
        if rows is None:
            count = min(_PROBES, self.shape[0])
            rows = np.unique(np.linspace(0, self.shape[0] - 1, count + 2)[1:-1].round().astype(np.intp))
        a, b = self._halves(rows)
        whole = np.asarray((a + b) / 2, np.float32)
        before, self._before = self._before, whole
        change, norm = float("inf"), float(np.linalg.norm(whole))
        if before is not None and before.shape == whole.shape and norm > 0:
            change = float(np.linalg.norm(whole - before)) / norm
        return Quality(self.projections, ring_correlation(a, b), change)

    def _halves(self, rows: NDArray[np.intp]) -> tuple[Float32, Float32]:
        """Reconstruct both halves in one go: rows of which the other half is zero, with the half's shares."""
        whole, first = angular_weights(self._theta), halves(self._theta)
        sinograms = np.stack([each[rows] for each in self._kept], axis=1)
        stacks = []
        for half in (first, ~first):
            factor = np.zeros(whole.size, np.float32)
            factor[half] = angular_weights(self._theta[half]) / whole[half]
            stacks.append(sinograms * factor[:, None])
        found = reconstruct(
            np.concatenate(stacks), self._theta, self._center, window="hann", threads=self._threads
        )
        return found[: len(rows)], found[len(rows) :]

    def _update(self, images: Float32) -> None:
        """Spread what changed, and make the images."""
        shares = angular_weights(self._theta).astype(np.float32)
        changed = np.flatnonzero(shares != self._spread)
        rows = [*(self._kept[at] for at in changed), *(row for row, _, _ in self._leaving)]
        theta = np.concatenate([self._theta[changed], [angle for _, angle, _ in self._leaving]])
        by = np.concatenate([shares[changed] - self._spread[changed], [-share for *_, share in self._leaving]])
        scan = self._scan(theta, by) if theta.size else None
        stack = np.stack(rows, axis=1) if rows else np.empty((self.shape[0], 0, self.shape[1]), np.float32)

        def work(thread: int) -> None:
            scratch = self._scratch[thread]
            for batch in range(thread, len(self._planes), len(self._scratch)):
                part = slice(batch * BATCH, (batch + 1) * BATCH)
                if scan is not None:
                    scratch.desk.add(scan, stack[part], self._planes[batch])
                scratch.image(self._planes[batch], images[part])

        if len(self._scratch) == 1:
            work(0)
        else:
            with ThreadPoolExecutor(len(self._scratch)) as pool:
                list(pool.map(work, range(len(self._scratch))))
        self._spread, self._leaving = shares, []

    def _scan(self, theta: Float64, shares: Float64) -> Geometry:
        """Tables of some angles with any shares, also negative ones."""
        columns = self.shape[1]
        return weighted(theta, shares, columns, self._center, self._filter, self._mask, self._accuracy)


class _Scratch:
    """What one thread works in, and a plane that making images uses up."""

    def __init__(self, scan: Geometry) -> None:
        self.desk = Desk(scan)
        self._plane = empty_plane(scan)

    def image(self, plane: Float32, out: Float32) -> None:
        """Make at most BATCH slices of a plane, which stays."""
        job = self.desk.images_of(plane, self._plane)
        finish(job.ctypes.data, out.ctypes.data, len(out))
