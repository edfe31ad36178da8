"""Planes of scans and volumes as pictures, slices for candidate rotation centres, differences of two volumes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from lightkeep.formats import sandbox
from lightkeep.lifecycle.pictures import slice_pictures
from lightkeep.lifecycle.pictures.preview import main_file, shown_as
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import BadFile, InvalidInput

if TYPE_CHECKING:
    from lightkeep.facility import Facility

SCANS: Final = ("data-exchange", "nxtomo")
"""Formats of raw scans."""
TECHNIQUES: Final = ("tomography", "tomography-live")
"""Whose results are slices."""
_TIMEOUT_S = 30.0
_WIDEST = 2048
"""Columns that a candidate slice is computed from; wider rows are binned: it is looked at, not measured."""
_PERCENTILES = (1.0, 99.7)

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Volume:
    """What there is to look at."""

    kind: str
    """`scan` (angles, rows, columns) or `volume` (rows, y, x)."""
    shape: tuple[int, int, int]
    label: str
    """What the values are."""
    unit: str
    step: float
    """From one pixel to the next, in `step_unit`."""
    step_unit: str
    low: float
    high: float
    """Contrast: the 0.5 and 99.5 percentiles of a few planes."""
    least: float
    most: float
    """Ends of the histogram."""
    histogram: list[int]
    theta: list[float]
    """Of a scan, degrees; empty where it does not say."""


def describe(facility: Facility, dataset: Dataset) -> Volume:
    """Return what there is to look at. NotFound: neither projections nor slices."""
    return Volume(**_call("describe", facility, dataset))


def plane(
    facility: Facility,
    dataset: Dataset,
    name: str,
    index: int,
    *,
    low: float,
    high: float,
    palette: str = "grey",
    longest: int = 768,
) -> bytes:
    """Return a plane as PNG; see `slice_pictures.render`. NotFound: there is no such plane."""
    return cast(
        bytes,
        _call(
            "render", facility, dataset, plane=name, index=index, low=low, high=high, palette=palette,
            longest=longest,
        ),
    )  # fmt: skip


def difference(
    facility: Facility, dataset: Dataset, other: Dataset, name: str, index: int, *, span: float, longest: int = 768
) -> bytes:
    """Return a plane of the one minus that of the other as PNG, white at zero, blue and red at -span and span.

    Raises
    ------
    InvalidInput: they are not of the same size. NotFound: there is no such plane.
    """
    path = main_file(facility, other)
    with shown_as(path, other):
        png = _call(
            "difference", facility, dataset, other=path, other_format=other.format, plane=name, index=index,
            span=span, longest=longest,
        )  # fmt: skip
    return cast(bytes, png)


@dataclass(frozen=True)
class Axis:
    """The rotation axis, as one row of a scan says."""

    center: float
    """Column, 0-based."""
    sigma: float


def found_center(facility: Facility, dataset: Dataset, *, row: int) -> Axis:
    """Return the rotation axis that one detector row shows, for a scan that nobody reconstructed yet.

    A row wider than 2048 columns is binned. A run looks at several rows.

    Raises
    ------
    NotFound: it is no scan with angles, or there is no such row. BadFile: nothing in the row tells it.
    """
    from lightkeep.analysis.tomography import find_center

    path = main_file(facility, dataset)
    with shown_as(path, dataset):
        values, theta = _sinogram(path, dataset.format, row)
    values, by = _binned(values)
    try:
        found = find_center(values, theta)
    except ValueError as error:
        raise BadFile(f"row {row} of {dataset.name} does not tell its axis: {error}") from error
    return Axis((found.value + 0.5) * by - 0.5, found.sigma * by)


def candidates(
    facility: Facility, dataset: Dataset, *, row: int, centers: Sequence[float], longest: int = 384
) -> list[bytes]:
    """Return the slice of one detector row as it would be with each of several rotation centres, as PNG.

    Previews, all with one contrast: filtered back-projection with the least accurate gridding, of a row binned to
    2048 columns.

    Parameters
    ----------
    centers: columns, 0-based, may be fractional.

    Raises
    ------
    NotFound: it is no scan with angles, or there is no such row. InvalidInput: a centre is not on the detector.
    """
    from lightkeep.analysis.tomography import center_sweep

    path = main_file(facility, dataset)
    with shown_as(path, dataset):
        values, theta = _sinogram(path, dataset.format, row)
    columns = values.shape[1]
    for center in centers:
        if not 0 <= center <= columns - 1:
            raise InvalidInput(f"center {center:g} is outside the detector's {columns} columns")
    values, by = _binned(values)
    binned = np.clip((np.asarray(centers) + 0.5) / by - 0.5, 0, values.shape[1] - 1)
    swept = center_sweep(values, theta, binned)
    inside = swept[:, _circle(values.shape[1])]
    low, high = np.percentile(inside, _PERCENTILES)
    return [
        slice_pictures.painted(each, low=float(low), high=float(high), palette="grey", longest=longest)
        for each in swept
    ]


def _binned(values: Float32) -> tuple[Float32, int]:
    """Return a sinogram of at most 2048 columns, and of how many each is the mean."""
    columns = values.shape[1]
    by = -(-columns // _WIDEST)
    kept = columns // by * by
    return np.nan_to_num(values[:, :kept].reshape(values.shape[0], -1, by).mean(axis=2)), by


def _circle(size: int) -> NDArray[np.bool_]:
    axis = np.arange(size) - (size - 1) / 2
    inside: NDArray[np.bool_] = np.hypot(axis[:, None], axis) < 0.47 * size
    return inside


@lru_cache(maxsize=4)
def _sinogram(path: Path, format_name: str, row: int) -> tuple[Float32, NDArray[np.float64]]:
    """Return (angles, columns) and the angles; a file of a complete dataset never changes, so it is read once."""
    function = "lightkeep.lifecycle.pictures.slice_pictures:sinogram"
    (shape, content), theta = sandbox.call(function, path, format_name, timeout_s=_TIMEOUT_S, row=row)
    return np.frombuffer(content, "<f4").reshape(shape), np.array(theta)


def _call(name: str, facility: Facility, dataset: Dataset, **options: Any) -> Any:
    path = main_file(facility, dataset)
    with shown_as(path, dataset):
        function = f"lightkeep.lifecycle.pictures.slice_pictures:{name}"
        return sandbox.call(function, path, dataset.format, timeout_s=_TIMEOUT_S, **options)
