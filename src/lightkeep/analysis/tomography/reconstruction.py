"""`reconstruct`: one way in for every method."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightkeep.analysis.tomography.fbp import BackProjector
from lightkeep.analysis.tomography.filters import Window
from lightkeep.analysis.tomography.iterative import Solver, operator_of
from lightkeep.analysis.tomography.kernels.rays import BATCH, BORDER, TOGETHER
from lightkeep.analysis.tomography.nufft import Accuracy, Worker, geometry
from lightkeep.analysis.tomography.plan import aligned

Float32 = NDArray[np.float32]
Method = Literal["nufft", "cgls", "tv", "fbp"]
Work = Callable[[NDArray[Any], Float32], None]

ITERATIONS: Final = {"cgls": 10, "tv": 50}
"""How many there are unless it is said."""


def reconstruct(
    sinograms: ArrayLike,
    theta_deg: ArrayLike,
    center: float,
    *,
    method: Method = "nufft",
    accuracy: Accuracy = "standard",
    window: Window = "ramp",
    iterations: int | None = None,
    tv_weight: float = 0.0,
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
    method: `nufft`, filtered back-projection by a non-uniform FFT; `fbp`, the same in real space, slow, to compare
      with; `cgls`, least squares, for few or noisy projections; `tv`, filtered least squares without negative
      values and with little total variation.
    accuracy: of the FFT's gridding, on noise: `standard` 3.4e-3, `precise` 8e-4, `preview` 3.4e-2 and faster.
      `cgls` and `tv` are always precise.
    window: `ramp` (sharpest), `shepp-logan`, or `hann` (smoothest); not used by `cgls`.
    iterations: of `cgls` (10 unless given; fewer are smoother) and `tv` (50).
    tv_weight: of the total variation in `tv`, in units of the slices; about the noise that is to go.
    pad: of `fbp`, whose rows are padded with zeros to `pad` times their width; 2 avoids wrap-around.
    mask: zero outside the circle that touches the image's edges, where not every angle saw the sample; False keeps
      the corners.
    threads: how many batches of rows are worked on at once.
    out: (rows, columns, columns) float32 to write into.

    Returns
    -------
    : (rows, y, x) float32, line integral per pixel length; x and y grow with the index, the axis is in the middle
      (see `lightkeep.analysis.simulate.phantoms` for the geometry).

    Raises
    ------
    ValueError: shapes disagree, the centre is not on the detector, a value or an angle is not finite, or a
      parameter is out of range.
    """
    data, theta = np.asarray(sinograms), np.asarray(theta_deg, float).ravel()
    _check_shapes(data, theta, center)
    threads = max(1, threads)
    count, _, columns = data.shape
    if out is None:
        out = aligned(count, columns, columns, is_clear=False)
    elif out.shape != (count, columns, columns) or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ValueError(
            f"out must be {(count, columns, columns)} float32 in one block, not {out.shape} {out.dtype}"
        )
    if pad < 1:
        raise ValueError(f"pad is {pad}; the detector cannot be made narrower: choose 1 or more")
    steps = ITERATIONS.get(method, 1) if iterations is None else iterations
    if steps < 1 or not (np.isfinite(tv_weight) and tv_weight >= 0):
        raise ValueError(f"iterations ({steps}) must be 1 or more, tv_weight ({tv_weight}) 0 or more")
    angles, axis = theta.tobytes(), float(center)
    if method == "fbp":
        projector = BackProjector(theta, columns, axis, window=window, pad=pad, mask=mask)
        _run(data, out, threads, lambda: projector.run)
    elif method == "nufft":
        scan = geometry(angles, columns, axis, window, mask, accuracy)
        _run(data, out, threads, lambda: Worker(scan).run)
    elif method in ("cgls", "tv"):
        scan = geometry(angles, columns, axis, None if method == "cgls" else window, mask, "precise", whole=True)
        operator = operator_of(scan)
        weight = None if method == "cgls" else tv_weight
        _run(data, out, threads, lambda: partial(Solver(scan, operator).run, iterations=steps, tv_weight=weight))
    else:
        raise ValueError(f"no method {method!r}: choose nufft, cgls, tv or fbp")
    return out


def working_memory(angles: int, columns: int, *, method: Method = "nufft", pad: int = 2) -> int:
    """Bytes that each thread of `reconstruct` works in, beside sinograms and slices; shared tables are counted.

    A thread's batch is `BATCH` rows, however few there are.
    """
    if method == "fbp":
        return 8 * (2 * angles * columns * pad + columns**2)
    batch = 4 * BATCH
    samples = (1.5 if method == "nufft" else 1.8) * columns
    plane = (1.3 * columns + 2 * BORDER) ** 2 + (TOGETHER + 3) * samples
    images = {"nufft": 0, "cgls": 6, "tv": 8}[method] * columns**2
    tables = 8 * angles * samples + (16 * columns**2 if images else 0)
    return int(batch * (plane + images + angles * columns / 4) + tables)


def _check_shapes(data: NDArray[Any], theta: NDArray[np.float64], center: float) -> None:
    if data.ndim != 3:
        raise ValueError(f"sinograms must be (rows, angles, columns), not {data.shape}")
    if data.shape[1] != theta.size:
        raise ValueError(f"sinograms have {data.shape[1]} angles, theta_deg has {theta.size}")
    if theta.size == 0 or data.shape[2] == 0:
        raise ValueError(f"sinograms {data.shape} have no angles or no columns: there is nothing to reconstruct")
    if not np.isfinite(theta).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(theta))} of {theta.size} angles are not finite")
    if not 0 <= center <= data.shape[2] - 1:
        raise ValueError(f"the rotation centre {center} is not on the detector's {data.shape[2]} columns")


def _run(data: NDArray[Any], out: Float32, threads: int, worker: Callable[[], Work]) -> None:
    """Work on batches of rows, each thread with buffers of its own."""
    begins = range(0, len(data), BATCH)
    shares = [begins[thread::threads] for thread in range(min(threads, len(begins)))]

    def work(share: range) -> None:
        run = worker()
        for begin in share:
            rows = slice(begin, begin + BATCH)
            run(data[rows], out[rows])
            _check_finite(data[rows], out[rows], begin)

    if len(shares) == 1:
        work(shares[0])
    elif shares:
        with ThreadPoolExecutor(len(shares)) as pool:
            list(pool.map(work, shares))


def _check_finite(rows: NDArray[Any], out: Float32, begin: int) -> None:
    """Refuse values that are not finite: one of them spoils every pixel, so the middle ones tell."""
    middle = out.shape[1] // 2
    if np.isfinite(out[:, middle, middle]).all():
        return
    bad = np.argwhere(~np.isfinite(rows))
    if bad.size:
        row, angle, column = bad[0] + [begin, 0, 0]
        raise ValueError(
            f"{len(bad)} values of the sinograms are not finite, the first in row {row}, angle {angle}, "
            f"column {column}: replace them before reconstruction"
        )
    raise ValueError(f"the sinograms of rows {begin} to {begin + len(rows)} are too large for single precision")
