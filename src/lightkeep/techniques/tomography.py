"""Tomography: slices of a sample from its shadows under many angles, parallel beam.

Flat and dark correction, logarithm, rotation centre from the data, reconstruction by `analysis.tomography`.
Work may be cut along detector rows: each slice needs its own row only.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

from lightkeep.model.datasets import Dataset, DatasetKind
from lightkeep.model.errors import InvalidInput
from lightkeep.model.formats import Source
from lightkeep.model.quantity import Quantity
from lightkeep.model.techniques import OutputSpec, Preflight, Report
from lightkeep.techniques.tomography_reading import (
    axis_of,
    filter_length,
    flats_lit,
    line_integrals,
    pixel_of,
    preparation_memory,
    prepared,
    seen_tilt,
    theta_of,
    turned_halo,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]

_PIECE_BYTES = 256 << 20
"""Of a piece's rows, about; a larger piece is no faster."""
_PIECES = (64, 48, 32, 16, 8, 4, 2)
"""Rows of a piece, the best first: whole batches, then less; even, so that the same rows are paired in any cut."""
_BATCH = 16
"""Rows that cost as much as one: as many are reconstructed at once."""
_KEV = 1.602176634e-16
"""Joules; CODATA 2018, exact."""
_FULL_TURN = 340.0
"""Degrees from which on a scan is stitched."""


_FILTER: dict[str, Any] = {"group": "Filter and iterations"}
_CORRECT: dict[str, Any] = {"group": "Corrections"}
_PHASE: dict[str, Any] = {"group": "Phase retrieval"}
_REGION: dict[str, Any] = {"group": "Region and memory"}
_SCAN: dict[str, Any] = {"group": "What the file says"}


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
        json_schema_extra=_FILTER | {"unit": "iterations"},
    )
    tv_weight: float = Field(
        0.0,
        ge=0,
        description="Of the total variation in tv: about the noise of the slices that is to go.",
        json_schema_extra=_FILTER | {"unit": "1/px"},
    )
    window: Literal["ramp", "shepp-logan", "hann"] = Field(
        "ramp",
        description="Filter: ramp is sharpest, hann is smoothest. Not used by cgls.",
        json_schema_extra=_FILTER,
    )
    flats_after: int | None = Field(
        None,
        ge=0,
        description="How many of the flats, the last ones, were taken after the projections: the open beam is "
        "interpolated between those before and after. From the file's order, where it has one, when left out.",
        json_schema_extra=_CORRECT | {"unit": "frames"},
    )
    zingers: float | None = Field(
        None,
        gt=0,
        description="Stray photons: a transmission this much above its neighbours', relatively, becomes their "
        "median. 1 is twice the median; none is removed when left out.",
        json_schema_extra=_CORRECT | {"unit": "relative"},
    )
    air: int = Field(
        0,
        ge=0,
        description="Columns at either edge that never see the sample; the beam's flicker is divided out by them.",
        json_schema_extra=_CORRECT | {"unit": "px"},
    )
    tilt_deg: float = Field(
        0.0,
        ge=-10,
        le=10,
        title="Tilt of the rotation axis",
        description="About the beam; positive: the axis is seen further to the right in lower rows. The "
        "projections are turned back by it.",
        json_schema_extra=_CORRECT | {"unit": "deg"},
    )
    stripes: Literal["none", "vo", "wavelet"] = Field(
        "none",
        description="Rings, removed from the sinograms. vo: dead, wide and narrow ones. wavelet: many faint ones.",
    )
    rings: bool = Field(
        False, description="Remove rings from the slices, those that are still there.", json_schema_extra=_CORRECT
    )
    delta_beta: float | None = Field(
        None,
        title="Delta over beta",
        gt=0,
        description="Of the sample's material. Given: phase retrieval by Paganin's method.",
        json_schema_extra=_PHASE | {"unit": "1"},
    )
    energy_kev: float | None = Field(
        None,
        gt=0,
        description="Photon energy, for phase retrieval; from the file when left out.",
        json_schema_extra=_PHASE | {"unit": "keV"},
    )
    distance_mm: float | None = Field(
        None,
        gt=0,
        description="Sample to detector, for phase retrieval; from the file when left out.",
        json_schema_extra=_PHASE | {"unit": "mm"},
    )
    half_acquisition: bool = Field(
        False,
        description="A full turn about an axis near the detector's edge: opposite projections are stitched, the "
        "slices are up to twice as wide.",
    )
    row_begin: int = Field(0, ge=0, description="First detector row.", json_schema_extra=_REGION | {"unit": "px"})
    row_end: int | None = Field(
        None,
        gt=0,
        description="Row after the last one; all rows when left out.",
        json_schema_extra=_REGION | {"unit": "px"},
    )
    mask: bool = Field(
        True,
        description="Set what lies outside the circle that every angle saw to zero.",
        json_schema_extra=_REGION,
    )
    pad: int = Field(2, ge=1, le=4, description="Width of the padded detector, for fbp; 2 avoids wrap-around.",
                     json_schema_extra=_FILTER | {"unit": "detector widths"})  # fmt: skip
    pixel_size_um: float | None = Field(
        None,
        gt=0,
        description="Pixel size at the sample; from the file when left out. Known: slices in 1/cm.",
        json_schema_extra=_SCAN | {"unit": "um"},
    )
    theta_start_deg: float | None = Field(
        None,
        description="First angle, where the file's angles are wrong.",
        json_schema_extra=_SCAN | {"unit": "deg"},
    )
    theta_step_deg: float | None = Field(
        None,
        gt=0,
        description="Angle between projections, where the file's angles are wrong; positive.",
        json_schema_extra=_SCAN | {"unit": "deg"},
    )
    outputs: Literal["ome-zarr", "tiff", "all", "none"] = Field(
        "ome-zarr",
        description="What is written beside the HDF5 file. ome-zarr: several sizes, for napari and neuroglancer. "
        "tiff: a file for each slice.",
    )
    memory_gb: float | None = Field(
        None,
        gt=0,
        title="Memory",
        description="What a piece of the work may use; several are computed at once, one by each worker. "
        "The machine's memory when left out.",
        json_schema_extra=_REGION | {"unit": "GB"},
    )


OUTPUTS = {"slices": OutputSpec(("rows", "y", "x"), "1/pixel", "Linear attenuation coefficient", view="stack")}
RESULTS = ["nexus", "ome-zarr", "tiff-stack", "thumbnail"]
SPLIT = "rows"


def results(params: Params) -> list[str]:
    """Names of the formats that are asked for."""
    left_out = {"ome-zarr": {"tiff-stack"}, "tiff": {"ome-zarr"}, "none": {"ome-zarr", "tiff-stack"}}
    return [name for name in RESULTS if name not in left_out.get(params.outputs, ())]


def accepts(dataset: Dataset) -> bool:
    """A measured scan with projections, flats, darks and angles."""
    return dataset.kind is DatasetKind.RAW and dataset.format in ("data-exchange", "nxtomo")


def preflight(source: Source, params: Params) -> Preflight:
    """Find the rotation centre and the size of the work; refuse a scan that cannot be reconstructed."""
    projections = source.arrays["projections"]
    angles, rows, columns = projections.shape
    theta = theta_of(source, params)
    begin, end = params.row_begin, rows if params.row_end is None else params.row_end
    if not begin < end <= rows:
        raise InvalidInput(
            f"rows {begin} to {end} are not inside the detector's {rows} rows",
            remedy="choose row_begin < row_end, both within the detector",
        )
    _check_half_acquisition(params, theta)
    lit = flats_lit(source)
    warnings = [str(note) for note in source.metadata.rest.get("notes", ())]
    if not lit.all():
        warnings.append(f"{int((~lit).sum())} of {lit.size} flats are empty and were left out")
    center = params.center
    facts: dict[str, Any] = {}
    if center is None:
        center, facts = axis_of(source, params, theta, lit, begin, end)
        if facts["sigma"] >= 1:
            warnings.append(f"the rotation centre is uncertain: {center:.2f} +- {facts['sigma']:.2f} px")
        elif 3 * len(facts.get("center_outliers", ())) >= len(facts["center_per_method"]):
            warnings.append("the methods disagree on the rotation centre: look at a centre sweep")
    elif not 0 <= center <= columns - 1:
        raise InvalidInput(
            f"center {center:g} is outside the detector's {columns} columns",
            remedy=f"choose 0 to {columns - 1}, or leave it out to find it from the data",
        )
    facts["flats_left_out"] = [index for index, is_lit in enumerate(lit.tolist()) if not is_lit]
    if params.method == "nufft" and params.accuracy == "preview":
        warnings.append("a preview, whose slices err by up to 3 %: choose accuracy standard before you measure")
    facts |= seen_tilt(source, params.model_copy(update={"center": center}), theta, lit, warnings)
    pixel = params.pixel_size_um or pixel_of(source)
    known = {"center": round(center, 3), "row_end": end, "pixel_size_um": pixel}
    params = _propagation(source, params.model_copy(update=known))
    wide = _width(params, columns)
    piece = _piece(params, source, end - begin)
    return Preflight(
        params=params.model_dump(),
        shapes={"slices": (end - begin, wide, wide)},
        dtypes={"slices": "float32"},
        length=end - begin,
        memory_bytes=_memory(params, source, min(piece, end - begin)),
        seconds=(end - begin) * _seconds(params, angles, wide),
        warnings=warnings,
        piece=piece,
        facts=facts,
        units={"slices": "1/cm"} if pixel else {},
        steps=dict.fromkeys(OUTPUTS["slices"].axes, Quantity.of(pixel, "um")) if pixel else {},
    )


def run(source: Source, params: Params, report: Report, begin: int, end: int) -> dict[str, Float32]:
    """Reconstruct rows begin to end of the selected ones."""
    from numba import get_num_threads

    from lightkeep.analysis.tomography import reconstruct, remove_rings, stitch_360

    if params.center is None:
        raise InvalidInput("tomography needs its rotation centre here", remedy="run the preflight first")
    theta, center = theta_of(source, params), params.center
    first, last = params.row_begin + begin, params.row_begin + end
    halo = _halo(source, params)
    low, high = max(0, first - halo), min(source.arrays["projections"].shape[1], last + halo)
    report(0.0, "reading")
    sinograms = line_integrals(source, params, slice(low, high), flats_lit(source))
    sinograms = prepared(source, params, sinograms, low, rows=(first, last))
    if params.half_acquisition:
        stitched = stitch_360(sinograms, theta, center)
        sinograms, theta, center = stitched.sinograms, stitched.theta_deg, stitched.center
    report(0.3, "reconstructing")
    slices = reconstruct(
        sinograms,
        theta,
        center,
        method=params.method,
        accuracy=params.accuracy,
        iterations=params.iterations,
        tv_weight=params.tv_weight,
        window=params.window,
        pad=params.pad,
        mask=params.mask,
        threads=get_num_threads(),
    )
    if params.rings:
        remove_rings(slices, threads=get_num_threads(), out=slices)
    if params.pixel_size_um is not None:
        slices *= 1e4 / params.pixel_size_um
    report(1.0, "reconstructed")
    return {"slices": slices}


def _piece(params: Params, source: Source, length: int) -> int:
    """Rows of a piece: the most that fit into the memory, and not more than is of use."""
    budget = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if params.memory_gb is not None:
        budget = min(budget, int(params.memory_gb * 1e9))
    for rows in _PIECES:
        taken = min(rows, length)
        is_enough = rows <= _BATCH or taken * _row_bytes(params, source) <= _PIECE_BYTES
        if is_enough and _memory(params, source, taken) <= budget:
            return rows
    least = math.ceil(_memory(params, source, min(_PIECES[-1], length)) / 1e7) / 100
    raise InvalidInput(
        f"memory too small: {budget / 1e9:.2f} GB are less than the {least:.2f} GB of the smallest piece",
        remedy=f"choose memory_gb {least:.2f} or more; fewer threads for each worker need less",
    )


def _memory(params: Params, source: Source, rows: int) -> int:
    """Bytes that a piece of so many rows takes at its peak."""
    from numba import get_num_threads

    from lightkeep.analysis.tomography import working_memory

    projections, flats, darks = (source.arrays[name] for name in ("projections", "flats", "darks"))
    angles, all_rows, columns = projections.shape
    each = working_memory(angles, _width(params, columns), method=params.method, pad=params.pad)
    beam = columns * (8 * 3 + sum(stack.shape[0] * stack.dtype.itemsize for stack in (flats, darks)))
    read = min(all_rows, rows + 2 * _halo(source, params))
    threads = get_num_threads()
    taken = rows * _row_bytes(params, source) + (read - rows) * angles * columns * 8 + read * beam
    copies = preparation_memory(source, params, read, threads=threads)
    return int(taken + copies) + min(threads, -(-rows // _BATCH)) * each


def _row_bytes(params: Params, source: Source) -> int:
    """Bytes of a row: its counts, its line integrals and its slice."""
    projections = source.arrays["projections"]
    angles, _, columns = projections.shape
    lines = 8 if params.half_acquisition else 4  # as measured, and stitched
    return int(columns * angles * (projections.dtype.itemsize + lines) + _width(params, columns) ** 2 * 4)


def _halo(source: Source, params: Params) -> int:
    """Rows beyond each end of a piece that the steps before the reconstruction need to know."""
    from lightkeep.analysis.tomography import paganin_halo

    phase = 0 if params.delta_beta is None else paganin_halo(filter_length(params))
    return phase + turned_halo(source, params)


def _propagation(source: Source, params: Params) -> Params:
    """Fill in what phase retrieval needs from the file."""
    if params.delta_beta is None:
        return params
    known = {}
    for name, role, unit, factor in (
        ("energy_kev", "energy", "J", 1 / _KEV),
        ("distance_mm", "distance", "m", 1e3),
    ):
        found = source.metadata.quantities.get(role)
        if getattr(params, name) is None and found is not None and found.unit_si == unit:
            known[name] = float(f"{found.value_si * factor:.9g}")
    filled = params.model_copy(update=known)
    filter_length(filled)  # refuses what is missing, and what cannot be
    return filled


def _width(params: Params, columns: int) -> int:
    """Of the slices: wider than the detector where opposite projections are stitched."""
    if not params.half_acquisition or params.center is None:
        return columns
    return int(2 * max(params.center, columns - 1 - params.center)) + 1


def _check_half_acquisition(params: Params, theta: Float64) -> None:
    span = float(theta.max() - theta.min())
    if params.half_acquisition and span < _FULL_TURN:
        raise InvalidInput(
            f"half_acquisition stitches a full turn; these angles span {span:.1f} degrees",
            remedy="leave it out, or check theta_step_deg",
        )


def _seconds(params: Params, angles: int, columns: int) -> float:
    """Of one slice on one thread, about."""
    if params.method == "fbp":
        return 1.5e-9 * angles * columns**2
    steps = {"nufft": 0, "cgls": params.iterations or 10, "tv": params.iterations or 50}[params.method]
    return 4e-9 * angles * columns + (3.5e-9 + 1e-8 * steps) * columns**2
