"""What tomography reads from a scan: angles, flats that saw the beam, line integrals, the rotation axis."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from lightkeep.model.errors import InvalidInput
from lightkeep.model.formats import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lightkeep.techniques.tomography import Params

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]

_PROBE_ROWS = 5
_MIN_ANGLES = 8
_SURE_PX, _UNSURE_PX = 0.1, 2.0
"""Of an overlap that fits, and of one that does not."""
_TILT_ROWS = 16
"""Of the detector, below which a tilt is not looked for."""
_OPPOSITE_DEG = 2.0
"""How far two projections may be from half a turn apart to be compared."""


def theta_of(source: Source, params: Params) -> Float64:
    import numpy as np

    count = source.arrays["projections"].shape[0]
    if params.theta_step_deg is not None:
        theta: Float64 = (params.theta_start_deg or 0.0) + params.theta_step_deg * np.arange(
            count, dtype=np.float64
        )
    else:
        theta = np.asarray(source.arrays["theta_deg"][:], np.float64)
        if params.theta_start_deg is not None:
            theta = theta + params.theta_start_deg - theta[0]
    if theta.shape != (count,) or not np.isfinite(theta).all():
        raise InvalidInput(
            f"{source.path.name}: {np.isfinite(theta).sum()} angles for {count} projections",
            remedy="give theta_start_deg and theta_step_deg",
        )
    if count < _MIN_ANGLES:
        raise InvalidInput(
            f"{source.path.name}: {count} projections are too few; at least {_MIN_ANGLES} are needed",
            remedy="choose a scan that was not cut short",
        )
    return theta


def pixel_of(source: Source) -> float | None:
    found = source.metadata.quantities.get("pixel_size")
    if found is None or found.unit_si != "m" or not found.value_si > 0:
        return None
    return float(f"{found.value_si * 1e6:.9g}")


def flats_lit(source: Source) -> NDArray[np.bool_]:
    """Which flats saw the beam, by the same few rows for every piece of the work."""
    from lightkeep.analysis.tomography import lit_flats

    flats, darks = source.arrays["flats"], source.arrays["darks"]
    rows = slice(0, flats.shape[1], max(1, flats.shape[1] // 16))
    lit = lit_flats(flats[:, rows], darks[:, rows])
    if not lit.any():
        raise InvalidInput(
            f"{source.path.name}: all {flats.shape[0]} flats are empty: no more counts than the darks",
            remedy="take flats with the beam on and the sample out, and add them to the scan",
        )
    return lit


def line_integrals(source: Source, params: Params, rows: slice, lit: NDArray[np.bool_]) -> Float32:
    """Line integrals of some rows, after phase retrieval where it is asked for."""
    import numpy as np
    from numba import get_num_threads

    from lightkeep.analysis.tomography import normalise, paganin

    arrays, flats_at = source.arrays, None
    angles, flats = arrays["projections"].shape[0], lit.size
    if params.flats_after is not None:
        after = min(params.flats_after, flats)
        flats_at = np.repeat([0.0, angles], [flats - after, after])[lit]
    elif "flats_at" in arrays:
        flats_at = np.asarray(arrays["flats_at"][:], float)[lit]
    try:
        sinograms = normalise(
            arrays["projections"][:, rows],
            arrays["flats"][:, rows][lit],
            arrays["darks"][:, rows],
            flats_at=flats_at,
            zingers=params.zingers,
            air=params.air,
            log=params.delta_beta is None,
        )
    except ValueError as error:
        raise InvalidInput(
            f"{source.path.name}: rows {rows.start} to {rows.stop}: {error}",
            remedy="choose rows that the beam lit",
        ) from error
    if params.delta_beta is not None:
        paganin(sinograms, filter_length(params), threads=get_num_threads(), out=sinograms)
    return sinograms


def _beside(sinograms: Float32, by: float) -> Float32:
    """Move rows to the left by a number of columns, by linear interpolation."""
    import numpy as np

    if not by:
        return sinograms
    at = np.arange(sinograms.shape[2]) + by
    moved = [[np.interp(at, np.arange(line.size), line) for line in row] for row in sinograms]
    return np.asarray(moved, np.float32)


def axis_of(
    source: Source, params: Params, theta: Float64, lit: NDArray[np.bool_], begin: int, end: int
) -> tuple[float, dict[str, Any]]:
    """Find the axis from a few rows spread over the middle of the selected ones."""
    import numpy as np

    from lightkeep.analysis.tomography import find_center, find_overlap

    quarter = (end - begin) // 4
    chosen = np.unique(np.linspace(begin + quarter, end - 1 - quarter, _PROBE_ROWS).astype(int))
    across = math.tan(math.radians(params.tilt_deg)) * (chosen - _middle(source))
    try:
        rows = [
            _beside(line_integrals(source, _absorbing(params), slice(row, row + 1), lit), by)
            for row, by in zip(chosen.tolist(), across.tolist(), strict=True)
        ]
        if params.half_acquisition:
            overlap = find_overlap(np.concatenate(rows), theta)
            sigma = _SURE_PX if overlap.score > 0.5 else _UNSURE_PX
            return overlap.center, {"sigma": sigma, "center_per_method": {"overlap": round(overlap.center, 3)}}
        found = find_center(np.concatenate(rows), theta)
    except ValueError as error:
        raise InvalidInput(
            f"{source.path.name}: {error}", remedy="give the rotation centre as `center`"
        ) from error
    return found.value, {
        "sigma": round(found.sigma, 3),
        "center_low": round(found.low, 3),
        "center_high": round(found.high, 3),
        "center_outliers": list(found.outliers),
        "center_per_method": dict(found.per_method),
    }


def _remove_stripes(sinograms: Float32, theta: Float64, method: str) -> None:
    """Remove stripes in place."""
    from numba import get_num_threads

    from lightkeep.analysis.tomography import remove_stripes_vo, remove_stripes_wavelet

    threads = get_num_threads()
    if method == "wavelet":
        remove_stripes_wavelet(sinograms, theta, threads=threads, out=sinograms)
    elif method == "vo":
        columns = sinograms.shape[2]  # 51 and 21 are for 2000 columns; a narrow detector's stripes are as narrow
        large, small = min(51, columns // 8 * 2 + 1), min(21, columns // 64 * 2 + 3)
        remove_stripes_vo(sinograms, theta, large=large, small=small, threads=threads, out=sinograms)


def prepared(source: Source, params: Params, sinograms: Float32, low: int, *, rows: tuple[int, int]) -> Float32:
    """Line integrals of some rows of those from `low` on: without stripes, the rotation axis upright."""
    from lightkeep.analysis.tomography import upright

    first, last = rows
    theta, around = theta_of(source, params), turned_halo(source, params)
    kept = slice(max(0, first - around - low), last + around - low)
    sinograms = sinograms[kept]
    _remove_stripes(sinograms, theta, params.stripes)
    if not params.tilt_deg:
        return sinograms
    return upright(
        sinograms,
        params.tilt_deg,
        first_row=low + kept.start,
        begin=first,
        end=last,
        middle=_middle(source),
        center=params.center or 0.0,
    )


def turned_halo(source: Source, params: Params) -> int:
    """Rows beyond each end of a piece that turning the rotation axis upright needs to know."""
    from lightkeep.analysis.tomography import tilt_halo

    _, rows, columns = source.arrays["projections"].shape
    center = (columns - 1) / 2 if params.center is None else params.center
    return tilt_halo(params.tilt_deg, rows, columns, center)


def seen_tilt(
    source: Source, params: Params, theta: Float64, lit: NDArray[np.bool_], warnings: list[str]
) -> dict[str, Any]:
    """How far two opposite projections say that the axis leans, with a warning where slices would suffer."""
    import numpy as np

    from lightkeep.analysis.tomography import find_tilt, normalise

    arrays = source.arrays
    _, rows, columns = source.arrays["projections"].shape
    apart = np.abs(np.abs(theta[:, None] - theta[None]) - 180)
    first, second = (int(each) for each in np.unravel_index(int(np.argmin(apart)), apart.shape))
    if params.tilt_deg or rows < _TILT_ROWS or apart[first, second] > _OPPOSITE_DEG or params.half_acquisition:
        return {}
    flats, darks = arrays["flats"][:][lit], arrays["darks"][:]
    pair = [normalise(arrays["projections"][each : each + 1], flats, darks)[:, 0] for each in (first, second)]
    found = find_tilt(pair[0], pair[1], center=params.center or 0.0)
    reach = math.tan(math.radians(abs(found.tilt_deg))) * max(rows, columns) / 2
    if reach > 1 and abs(found.tilt_deg) > 5 * found.sigma_deg:
        warnings.append(f"the rotation axis seems to lean: look at slices with tilt_deg {found.tilt_deg:.2f}")
    return {"tilt_deg_seen": round(found.tilt_deg, 4), "tilt_deg_sigma": round(found.sigma_deg, 4)}


def _middle(source: Source) -> float:
    """Row in which `center` is told, where the axis is tilted."""
    return float((source.arrays["projections"].shape[1] - 1) / 2)


def _absorbing(params: Params) -> Params:
    """Without phase retrieval, which needs the neighbours of a row."""
    return params.model_copy(update={"delta_beta": None})


def filter_length(params: Params) -> float:
    """Of Paganin's filter, in pixels."""
    from lightkeep.analysis.tomography import paganin_length

    known = {name: getattr(params, name) for name in ("energy_kev", "distance_mm", "pixel_size_um", "delta_beta")}
    missing = [name for name, value in known.items() if value is None]
    if missing:
        raise InvalidInput(
            f"phase retrieval needs {missing[0]}, which the file does not have", remedy=f"give {missing[0]}"
        )
    try:
        return paganin_length(**known)
    except ValueError as error:
        raise InvalidInput(str(error), remedy="give the right one as a parameter") from error


def preparation_memory(source: Source, params: Params, rows: int, *, threads: int) -> int:
    """Bytes of the copies that the steps before and after the reconstruction of so many rows make, about."""
    angles, _, columns = source.arrays["projections"].shape
    found = 0
    if params.delta_beta is not None:  # a mask of what is finite; padded projections and their spectra
        found += rows * angles * columns + threads * 4 * rows * columns * 20
    if params.stripes != "none":  # a mask; sorted values, their places and what is left, in one row by each thread
        found += rows * angles * columns + threads * angles * columns * 32
    if params.tilt_deg:
        found += rows * angles * columns * 4
    if params.rings:
        found += threads * columns**2 * 24
    return int(found)
