"""Looking into a dataset: pictures, and the content functions that the h5web viewer calls.

The client names a dataset, never a file: the path is looked up on the server, after access was asked for.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response

from lightkeep.formats.viewer import Kind, viewer_call
from lightkeep.http.desk import AtDesk, Name, Seen
from lightkeep.http.shapes import Shape
from lightkeep.lifecycle.pictures.preview import LARGEST, dataset_folder, main_file, shown_as
from lightkeep.model.people import Verb

router = APIRouter()

_PNG: dict[int | str, dict[str, Any]] = {200: {"content": {"image/png": {}}, "description": "The picture."}}
_KEEP = {"Cache-Control": "private, max-age=600", "Vary": "Cookie, Authorization"}


class StackShape(Shape):
    """The images of a dataset's main array."""

    role: str
    count: int
    height: int
    width: int
    dtype: str
    label: str
    unit: str
    steps: tuple[float, float]
    """Distance between neighbouring rows, and columns, in `step_unit`."""
    step_unit: str
    low: float
    high: float


@router.get("/datasets/{dataset_id}/preview")
def preview(desk: AtDesk, view: Seen, dataset_id: Name) -> StackShape:
    """What there is to look at: how many images, of which size, and the contrast they are drawn with."""
    view.require(Verb.READ, dataset_id=dataset_id)
    return StackShape.model_validate(desk.previews.describe(desk.facility, view.dataset(dataset_id)))


@router.get("/datasets/{dataset_id}/preview/{index}.png", response_class=Response, responses=_PNG)
def preview_image(
    desk: AtDesk,
    view: Seen,
    dataset_id: Name,
    index: Annotated[int, Path(ge=0, le=10**9)],
    palette: Literal["grey", "viridis", "magma"] = "grey",
    longest: Annotated[int, Query(ge=16, le=LARGEST, description="Pixels of the longer side.")] = 1024,
    low: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    high: Annotated[float | None, Query(allow_inf_nan=False)] = None,
) -> Response:
    """One image as PNG."""
    view.require(Verb.READ, dataset_id=dataset_id)
    png = desk.previews.draw(
        desk.facility, view.dataset(dataset_id), index=index, palette=palette, longest=longest, low=low, high=high
    )
    return Response(png, media_type="image/png", headers=_KEEP)


@router.get("/datasets/{dataset_id}/thumbnail.png", response_class=Response, responses=_PNG)
def thumbnail(desk: AtDesk, view: Seen, dataset_id: Name) -> Response:
    """The middle image, small."""
    view.require(Verb.READ, dataset_id=dataset_id)
    png = desk.previews.thumbnail(desk.facility, view.dataset(dataset_id))
    return Response(png, media_type="image/png", headers=_KEEP)


@router.get("/datasets/{dataset_id}/h5/{kind}", response_class=Response)
def h5(
    desk: AtDesk,
    view: Seen,
    dataset_id: Name,
    kind: Kind,
    path: Annotated[str, Query(max_length=1000, description="The object inside the file.")] = "/",
    selection: Annotated[
        str | None, Query(max_length=200, description="As numpy writes it, e.g. `3,:,:`.")
    ] = None,
    dtype: Literal["origin", "safe"] = "origin",
    format: Literal["json", "bin", "npy", "csv", "tiff"] = "json",  # noqa: A002 (h5grove's name)
    flatten: bool = False,
    attr_keys: Annotated[list[str] | None, Query(max_length=200)] = None,
    resolve_links: Literal["none", "only_valid", "all"] = "only_valid",
) -> Response:
    """What h5grove answers for one object of the dataset's main file, read in a process that can be killed."""
    view.require(Verb.READ, dataset_id=dataset_id)
    dataset = view.dataset(dataset_id)
    file = main_file(desk.facility, dataset)
    every: dict[str, dict[str, Any]] = {
        "meta": {"resolve_links": resolve_links},
        "paths": {"resolve_links": resolve_links},
        "attr": {"attr_keys": attr_keys},
        "stats": {"selection": selection},
        "data": {"selection": selection, "dtype": dtype, "format": format, "flatten": flatten},
    }
    with shown_as(file, dataset):
        answer = viewer_call(file, [dataset_folder(file, dataset)], kind, path, **every[kind])
    headers = _KEEP | {"Content-Security-Policy": "sandbox; default-src 'none'"}
    if answer.disposition:
        headers["Content-Disposition"] = answer.disposition
    return Response(answer.content, media_type=answer.media_type, headers=headers)
