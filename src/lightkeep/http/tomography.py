"""Tomography as pictures: planes of scans and volumes, candidate rotation centres, differences of two volumes."""

from __future__ import annotations

from base64 import b64encode
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import Field

from lightkeep.http.desk import AtDesk, Name, Seen
from lightkeep.http.shapes import Shape, Shown
from lightkeep.lifecycle.pictures import slices
from lightkeep.model.people import Verb

router = APIRouter(tags=["tomography"])

_PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "The picture."}}
_KEEP = {"Cache-Control": "private, max-age=600", "Vary": "Cookie, Authorization"}

Plane = Annotated[
    Literal["projection", "sinogram", "xy", "xz", "zy"],
    Path(description="Of a scan `projection`, `sinogram`; of a volume `xy`, `xz`, `zy` (z to the right)."),
]
Index = Annotated[int, Path(ge=0, le=10**9, description="Along the axis that the plane is cut across.")]
Longest = Annotated[int, Query(ge=16, le=2048, description="Pixels of the longer side.")]
Level = Annotated[float | None, Query(allow_inf_nan=False)]


Center = Annotated[float, Field(ge=0, le=10**6, allow_inf_nan=False)]
Row = Annotated[int, Query(ge=0, le=10**6, description="Detector row.")]


class Candidate(Shape):
    """A slice, and the rotation centre that it was made with."""

    center: float
    """Column, 0-based."""
    png: str
    """A data URI."""


class AxisShape(Shape):
    """The rotation axis, as one row of a scan says."""

    center: float
    """Column, 0-based."""
    sigma: float


class VolumeShape(Shape):
    """What there is to look at."""

    kind: Literal["scan", "volume"]
    shape: tuple[int, int, int]
    """Angles, rows, columns of a scan; rows, y, x of a volume."""
    label: Shown
    unit: Shown
    step: float
    step_unit: Shown
    low: float
    high: float
    least: float
    most: float
    histogram: list[int]
    """Of a few planes, in equal bars from `least` to `most`."""
    theta: list[float]


@router.get("/datasets/{dataset_id}/tomography")
def volume(desk: AtDesk, view: Seen, response: Response, dataset_id: Name) -> VolumeShape:
    """What there is to look at: shape, contrast and histogram of a scan or of reconstructed slices."""
    view.require(Verb.READ, dataset_id=dataset_id)
    response.headers.update(_KEEP)
    return VolumeShape.model_validate(slices.describe(desk.facility, view.dataset(dataset_id)))


@router.get("/datasets/{dataset_id}/tomography/center")
def found_center(desk: AtDesk, view: Seen, response: Response, dataset_id: Name, row: Row) -> AxisShape:
    """The rotation axis that one row of a scan shows: where to begin to look by eye."""
    view.require(Verb.READ, dataset_id=dataset_id)
    response.headers.update(_KEEP)
    return AxisShape.model_validate(slices.found_center(desk.facility, view.dataset(dataset_id), row=row))


@router.get("/datasets/{dataset_id}/tomography/centers")
def candidates(
    desk: AtDesk,
    view: Seen,
    response: Response,
    dataset_id: Name,
    center: Annotated[list[Center], Query(min_length=1, max_length=32)],
    row: Row,
    longest: Longest = 384,
) -> list[Candidate]:
    """One slice of a scan as it would be with each of several rotation centres, all with the same contrast."""
    view.require(Verb.READ, dataset_id=dataset_id)
    response.headers.update(_KEEP)
    pictures = slices.candidates(desk.facility, view.dataset(dataset_id), row=row, centers=center, longest=longest)
    encoded = [f"data:image/png;base64,{b64encode(each).decode()}" for each in pictures]
    return [Candidate(center=at, png=png) for at, png in zip(center, encoded, strict=True)]


@router.get("/datasets/{dataset_id}/tomography/{plane}/{index}.png", response_class=Response, responses=_PNG)
def plane_png(
    desk: AtDesk,
    view: Seen,
    dataset_id: Name,
    plane: Plane,
    index: Index,
    low: Level = None,
    high: Level = None,
    palette: Literal["grey", "viridis", "magma"] = "grey",
    longest: Longest = 768,
) -> Response:
    """One plane as PNG; only what is drawn is read."""
    view.require(Verb.READ, dataset_id=dataset_id)
    dataset = view.dataset(dataset_id)
    if low is None or high is None:
        known = slices.describe(desk.facility, dataset)
        low, high = known.low if low is None else low, known.high if high is None else high
    png = slices.plane(desk.facility, dataset, plane, index, low=low, high=high, palette=palette, longest=longest)
    return Response(png, media_type="image/png", headers=_KEEP)


@router.get(
    "/datasets/{dataset_id}/tomography/minus/{other_id}/{plane}/{index}.png",
    response_class=Response,
    responses=_PNG,
)
def difference(
    desk: AtDesk,
    view: Seen,
    dataset_id: Name,
    other_id: Name,
    plane: Plane,
    index: Index,
    span: Annotated[float, Query(gt=0, allow_inf_nan=False, description="Value of the last colours.")],
    longest: Longest = 768,
) -> Response:
    """A plane of one volume minus that of another: white is no difference, blue less, red more."""
    view.require(Verb.READ, dataset_id=dataset_id)
    view.require(Verb.READ, dataset_id=other_id)
    png = slices.difference(
        desk.facility, view.dataset(dataset_id), view.dataset(other_id), plane, index, span=span, longest=longest
    )
    return Response(png, media_type="image/png", headers=_KEEP)
