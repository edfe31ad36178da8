"""Datasets: find them, look at them, fetch their files."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from lightkeep.catalog import query
from lightkeep.http import download
from lightkeep.http.desk import AtDesk, Limit, Name, Offset, Seen, Text, Word
from lightkeep.http.problem import Problem
from lightkeep.http.shapes import DatasetShape, FacetsShape, FileShape, PageOf, ReplicaShape
from lightkeep.http.viewing import router as viewing
from lightkeep.model.datasets import DatasetKind, File
from lightkeep.model.people import Verb

router = APIRouter(tags=["datasets"])
router.include_router(viewing)

Order = Literal["created_at", "-created_at", "completed_at", "-completed_at", "name", "-name", "size", "-size"]


@router.get("/datasets")
def datasets(
    view: Seen,
    q: Annotated[Text, Query(description="As in the portal's search field.")] = "",
    experiment: Word = "",
    kind: DatasetKind | None = None,
    order: Order = "-created_at",
    limit: Limit = 50,
    offset: Offset = 0,
) -> PageOf[DatasetShape]:
    """Datasets that a search finds."""
    page = view.datasets(
        query.parse(q), experiment_id=experiment, kind=kind, limit=limit, offset=offset, order=order
    )
    return PageOf[DatasetShape].model_validate(page)


@router.get("/facets")
def facets(view: Seen, q: Text = "", experiment: Word = "") -> FacetsShape:
    """How the datasets that a search finds are spread over stations, techniques, kinds, formats and months."""
    return FacetsShape(facets=view.facets(query.parse(q), experiment_id=experiment))


@router.get("/datasets/{dataset_id}")
def dataset(view: Seen, dataset_id: Name) -> DatasetShape:
    """One dataset, with its metadata."""
    return DatasetShape.model_validate(view.dataset(dataset_id))


@router.get("/datasets/{dataset_id}/children")
def children(view: Seen, dataset_id: Name) -> list[DatasetShape]:
    """Datasets derived from it, newest first."""
    return [DatasetShape.model_validate(each) for each in view.children(dataset_id)]


@router.get("/datasets/{dataset_id}/files")
def files(
    view: Seen, dataset_id: Name, prefix: Text = "", limit: Limit = 100, offset: Offset = 0
) -> PageOf[FileShape]:
    """The manifest, in the order of the paths."""
    return PageOf[FileShape].model_validate(view.files(dataset_id, limit=limit, offset=offset, prefix=prefix))


@router.get("/datasets/{dataset_id}/replicas")
def replicas(view: Seen, dataset_id: Name) -> list[ReplicaShape]:
    """Where its files lie, and when each copy was last read back and proved."""
    view.dataset(dataset_id)
    return [ReplicaShape.model_validate(each) for each in view.replicas(dataset_id)]


_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The file, hashed on the way."},
    206: {"content": {"application/octet-stream": {}}, "description": "A range of it."},
    304: {"description": "Not changed."},
    416: {"description": "The range lies outside the file."},
}


@router.head("/datasets/{dataset_id}/files/{path:path}", include_in_schema=False)
@router.get("/datasets/{dataset_id}/files/{path:path}", response_class=Response, responses=_BYTES)
def file(
    desk: AtDesk, view: Seen, request: Request, dataset_id: Name, path: Annotated[str, Path(max_length=4096)]
) -> Response:
    """A file's bytes; supports `Range`. They hash to the manifest, or the transfer breaks off."""
    view.require(Verb.READ, dataset_id=dataset_id)
    found: File = view.file(dataset_id, _exact(request, path))
    headers = download.headers(found)
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    asked = None
    if request.headers.get("if-range", headers["ETag"]) == headers["ETag"]:
        try:
            asked = download.parse_range(request.headers.get("range", ""), found.size)
        except ValueError:
            more = {"Content-Range": f"bytes */{found.size}"}
            return Problem(
                416, f"the range lies outside the {found.size} bytes", code="invalid_input", headers=more
            )
    first, end = asked or (0, found.size)
    headers["Content-Length"] = str(end - first)
    if asked:
        headers["Content-Range"] = f"bytes {first}-{end - 1}/{found.size}"
    status, media_type = 206 if asked else 200, "application/octet-stream"
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=media_type)
    opened = download.open_replica(desk.facility, found, view.replicas([found.id]))
    if asked:
        body = download.part(desk.facility, opened, desk.integrity, first=first, end=end)
    else:
        body = download.whole(desk.facility, opened, desk.integrity)
    return StreamingResponse(body, status, headers, media_type)


def _exact(request: Request, path: str) -> str:
    """Return the path byte for byte: the server has replaced what is no UTF-8 in `path`."""
    raw: bytes = request.scope.get("raw_path") or b""
    _, mark, tail = raw.partition(b"/files/")
    return os.fsdecode(unquote_to_bytes(tail)) if mark else path
