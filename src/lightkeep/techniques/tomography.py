"""Tomography: slices of a sample from its shadows under many angles, parallel beam.

Flat and dark correction, logarithm, rotation centre from the data, reconstruction by `analysis.tomography`.
Work may be cut along detector rows: each slice needs its own row only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

from lightkeep.model.datasets import Dataset, DatasetKind
from lightkeep.model.errors import InvalidInput
from lightkeep.model.formats import Source
from lightkeep.model.quantity import Quantity
from lightkeep.model.techniques import OutputSpec, Preflight, Report

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]

_PIECE_BYTES = 256 << 20
_BATCH = 16
"""Rows that cost as much as one: as many are reconstructed at once."""
_PROBE_ROWS = 5
_MIN_ANGLES = 8


class Params(BaseModel, extra="forbid"):
    """How to reconstruct; whatever is left out is derived from the data."""

    center: float | None = Field(
        None,
        title="Rotation centre",
        ge=0,
        description="Column where the rotation axis is seen, counted from 0; found from the data when left out.",
        json_schema_extra={"unit": "px"},
    )
    method: Literal["nufft", "cgls", "tv", "fbp"] = Field(
        "nufft",
        description="nufft: filtered back-projection by Fourier methods. cgls: least squares. tv: not negative, "
        "little total variation. fbp: back-projection in real space, slow, to compare with.",
    )
    accuracy: Literal["preview", "standard", "precise"] = Field(
        "standard",
        description="Of nufft. A preview is faster and errs by 3 %: look at it, do not measure it.",
    )
    iterations: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="Of cgls (10 when left out; fewer are smoother) and of tv (50).",
        json_schema_extra={"unit": "iterations"},
    )
    tv_weight: float = Field(
        0.0,
        ge=0,
        description="Of the total variation in tv: about the noise of the slices that is to go.",
        json_schema_extra={"unit": "1/px"},
    )
    window: Literal["ramp", "shepp-logan", "hann"] = Field(
        "ramp", description="Filter: ramp is sharpest, hann is smoothest. Not used by cgls."
    )
    row_begin: int = Field(0, ge=0, description="First detector row.", json_schema_extra={"unit": "px"})
    row_end: int | None = Field(
        None, gt=0, description="Row after the last one; all rows when left out.", json_schema_extra={"unit": "px"}
    )
    mask: bool = Field(True, description="Set what lies outside the circle that every angle saw to zero.")
    pad: int = Field(2, ge=1, le=4, description="Width of the padded detector; 2 avoids wrap-around.",
                     json_schema_extra={"unit": "detector widths"})  # fmt: skip
    pixel_size_um: float | None = Field(
        None,
        gt=0,
        description="Pixel size at the sample; from the file when left out. Known: slices in 1/cm.",
        json_schema_extra={"unit": "um"},
    )
    theta_start_deg: float | None = Field(
        None, description="First angle, where the file's angles are wrong.", json_schema_extra={"unit": "deg"}
    )
    theta_step_deg: float | None = Field(
        None,
        gt=0,
        description="Angle between projections, where the file's angles are wrong; positive.",
        json_schema_extra={"unit": "deg"},
    )


OUTPUTS = {"slices": OutputSpec(("rows", "y", "x"), "1/pixel", "Linear attenuation coefficient", view="stack")}
RESULTS = ["nexus", "tiff-stack", "thumbnail"]
SPLIT = "rows"


def accepts(dataset: Dataset) -> bool:
    """A measured scan with projections, flats, darks and angles."""
    return dataset.kind is DatasetKind.RAW and dataset.format in ("data-exchange", "nxtomo")


def preflight(source: Source, params: Params) -> Preflight:
    """Find the rotation centre and the size of the work; refuse a scan that cannot be reconstructed."""
    projections = source.arrays["projections"]
    angles, rows, columns = projections.shape
    theta = _theta_deg(source, params)
    begin, end = params.row_begin, rows if params.row_end is None else params.row_end
    if not begin < end <= rows:
        raise InvalidInput(
            f"rows {begin} to {end} are not inside the detector's {rows} rows",
            remedy="choose row_begin < row_end, both within the detector",
        )
    lit = _lit_flats(source)
    warnings = [] if lit.all() else [f"{int((~lit).sum())} of {lit.size} flats are empty and were left out"]
    center = params.center
    facts: dict[str, Any] = {}
    if center is None:
        center, facts = _find_center(source, theta, lit, begin, end)
        if facts["sigma"] >= 1:
            warnings.append(f"the rotation centre is uncertain: {center:.2f} +- {facts['sigma']:.2f} px")
    elif not 0 <= center <= columns - 1:
        raise InvalidInput(
            f"center {center:g} is outside the detector's {columns} columns",
            remedy=f"choose 0 to {columns - 1}, or leave it out to find it from the data",
        )
    if params.method == "nufft" and params.accuracy == "preview":
        warnings.append("a preview, whose slices err by up to 3 %: choose accuracy standard before you measure")
    per_row = columns * (angles * (projections.dtype.itemsize + 4) + columns * 4)
    piece = max(_BATCH, min(64, _PIECE_BYTES // per_row // _BATCH * _BATCH))
    pixel = params.pixel_size_um or _pixel_size_um(source)
    known = {"center": round(center, 3), "row_end": end, "pixel_size_um": pixel}
    return Preflight(
        params=params.model_copy(update=known).model_dump(),
        shapes={"slices": (end - begin, columns, columns)},
        dtypes={"slices": "float32"},
        length=end - begin,
        memory_bytes=min(piece, end - begin) * per_row + _working_memory(params, angles, columns),
        seconds=(end - begin) * _seconds(params, angles, columns),
        warnings=warnings,
        piece=piece,
        facts=facts,
        units={"slices": "1/cm"} if pixel else {},
        steps=dict.fromkeys(OUTPUTS["slices"].axes, Quantity.of(pixel, "um")) if pixel else {},
    )


def run(source: Source, params: Params, report: Report, begin: int, end: int) -> dict[str, Float32]:
    """Reconstruct rows begin to end of the selected ones."""
    from numba import get_num_threads

    from lightkeep.analysis.tomography import reconstruct

    if params.center is None:
        raise InvalidInput("tomography needs its rotation centre here", remedy="run the preflight first")
    theta = _theta_deg(source, params)
    rows = slice(params.row_begin + begin, params.row_begin + end)
    report(0.0, "reading")
    sinograms = _sinograms(source, rows, _lit_flats(source))
    report(0.3, "reconstructing")
    slices = reconstruct(
        sinograms,
        theta,
        params.center,
        method=params.method,
        accuracy=params.accuracy,
        iterations=params.iterations,
        tv_weight=params.tv_weight,
        window=params.window,
        pad=params.pad,
        mask=params.mask,
        threads=get_num_threads(),
    )
    if params.pixel_size_um is not None:
        slices *= 1e4 / params.pixel_size_um
    report(1.0, "reconstructed")
    return {"slices": slices}


def _working_memory(params: Params, angles: int, columns: int) -> int:
    """Bytes that all threads work in."""
    from numba import get_num_threads

    from lightkeep.analysis.tomography import working_memory

    return get_num_threads() * working_memory(angles, columns, method=params.method, pad=params.pad)


def _seconds(params: Params, angles: int, columns: int) -> float:
    """Of one slice on one thread, about."""
    if params.method == "fbp":
        return 1.5e-9 * angles * columns**2
    steps = {"nufft": 0, "cgls": params.iterations or 10, "tv": params.iterations or 50}[params.method]
    return 4e-9 * angles * columns * params.pad + (5e-9 + 1e-8 * steps) * columns**2


def _theta_deg(source: Source, params: Params) -> Float64:
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


def _pixel_size_um(source: Source) -> float | None:
    found = source.metadata.quantities.get("pixel_size")
    if found is None or found.unit_si != "m" or not found.value_si > 0:
        return None
    return float(f"{found.value_si * 1e6:.9g}")


def _lit_flats(source: Source) -> NDArray[np.bool_]:
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


def _sinograms(source: Source, rows: slice, lit: NDArray[np.bool_]) -> Float32:
    from lightkeep.analysis.tomography import normalise

    arrays = source.arrays
    try:
        return normalise(arrays["projections"][:, rows], arrays["flats"][:, rows][lit], arrays["darks"][:, rows])
    except ValueError as error:
        raise InvalidInput(
            f"{source.path.name}: rows {rows.start} to {rows.stop}: {error}",
            remedy="choose rows that the beam lit",
        ) from error


def _find_center(
    source: Source, theta: Float64, lit: NDArray[np.bool_], begin: int, end: int
) -> tuple[float, dict[str, Any]]:
    """Find the axis from a few rows spread over the middle of the selected ones."""
    import numpy as np

    from lightkeep.analysis.tomography import find_center

    quarter = (end - begin) // 4
    chosen = np.unique(np.linspace(begin + quarter, end - 1 - quarter, _PROBE_ROWS).astype(int))
    try:
        rows = np.concatenate([_sinograms(source, slice(row, row + 1), lit) for row in chosen.tolist()])
        found = find_center(rows, theta)
    except ValueError as error:
        raise InvalidInput(
            f"{source.path.name}: {error}", remedy="give the rotation centre as `center`"
        ) from error
    return found.value, {"sigma": round(found.sigma, 3), "center_per_method": dict(found.per_method)}
