"""Tomography to look at: scans with sinograms and candidate centres, slices from three sides, two compared."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Query
from fastapi.responses import RedirectResponse, Response

from lightkeep.lifecycle.pictures import slices
from lightkeep.lifecycle.processing import process
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import InvalidInput, LightkeepError, NotFound
from lightkeep.model.people import Verb
from lightkeep.model.runs import Run, RunState
from lightkeep.portal import datasets
from lightkeep.portal.page import Here, Name, Visit

router = APIRouter()
_TECHNIQUE = "tomography"


@router.get("/datasets/{dataset_id}/tomography")
def look(here: Here, dataset_id: Name) -> Response:
    """A scan as projections and sinograms with candidate centres, or slices from three sides."""
    dataset = here.view.dataset(dataset_id)
    volume, why = _volume(here, dataset)
    return datasets.tabbed(
        here,
        dataset,
        "tomography",
        volume=volume,
        why=why,
        scan=_scan(here, dataset, volume),
        others=_others(here, dataset),
        made_by=_run(here, dataset),
    )


@router.get("/datasets/{dataset_id}/compare")
def compare(here: Here, dataset_id: Name, other: Annotated[str, Query(max_length=200)] = "") -> Response:
    """Two reconstructions of one scan: under a swipe, side by side, and their difference."""
    dataset = here.view.dataset(dataset_id)
    others = _others(here, dataset)
    chosen = next((each for each in others if each.id == other), others[0] if others else None)
    volume, why = _volume(here, dataset)
    if volume and chosen:
        second, why = _volume(here, chosen)
        if second and second.shape != volume.shape:
            why = f"they are of different size, {_size(volume)} and {_size(second)} pixels"
        volume = volume if not why else None
    return here.render(
        "compare.html",
        dataset=dataset,
        other=chosen,
        others=others,
        volume=volume if chosen else None,
        why=why or ("" if chosen else "there is no other reconstruction of the same scan"),
    )


@router.post("/datasets/{dataset_id}/tomography/center")
def with_center(here: Here, dataset_id: Name, center: Annotated[str, Form(max_length=40)] = "") -> Response:
    """Reconstruct the scan again with a centre that was picked by eye, otherwise as the last time."""
    here.view.require(Verb.PROCESS, dataset_id=dataset_id)
    try:
        value = float(center)
    except ValueError as error:
        raise InvalidInput(f"center: `{center}` is not a number", remedy="pick a slice") from error
    last = _last(here, dataset_id)
    if last is None:
        run = process.request(here.facility, dataset_id, _TECHNIQUE, {"center": value}, principal=here.principal)
    else:
        run = process.retry(here.facility, last.id, principal=here.principal, changes={"center": value})
    here.house.orchestrator.submit_run(run.id)
    return RedirectResponse(f"/runs/{run.id}", 303)


def _size(volume: slices.Volume) -> str:
    return " x ".join(str(each) for each in volume.shape)


def _volume(here: Visit, dataset: Dataset) -> tuple[slices.Volume | None, str]:
    """Return what there is to look at, or why there is nothing."""
    if not here.view.can(Verb.READ, dataset_id=dataset.id):
        return None, "your role does not include reading the data"
    try:
        return slices.describe(here.facility, dataset), ""
    except LightkeepError as error:
        return None, error.message


def _run(here: Visit, dataset: Dataset) -> Run | None:
    try:
        found: Run | None = here.view.run(dataset.run_id) if dataset.run_id else None
    except NotFound:
        return None
    return found


def _last(here: Visit, dataset_id: str) -> Run | None:
    """Return the newest run of a scan that ended well."""
    found = here.view.runs(dataset_id=dataset_id, state=RunState.DONE, limit=100).items
    return next((run for run in found if run.technique == _TECHNIQUE), None)


def _scan(here: Visit, dataset: Dataset, volume: slices.Volume | None) -> dict[str, Any] | None:
    """Return what the strip of candidate centres needs: the scan, where to begin, and what one may do."""
    if volume is None:
        return None
    scan, columns, run = dataset, volume.shape[2], None
    if volume.kind == "volume":
        run = _run(here, dataset)
        try:
            scan = here.view.dataset(dataset.parents[0]) if dataset.parents else dataset
        except NotFound:
            return None
        if scan.format not in slices.SCANS or not here.view.can(Verb.READ, dataset_id=scan.id):
            return None
        seen, _ = _volume(here, scan)
        if seen is None:
            return None
        columns = seen.shape[2]
    else:
        run = _last(here, dataset.id)
    center = run.resolved.get("center") if run else None
    begin = run.resolved.get("row_begin") if run and volume.kind == "volume" else 0
    return {
        "dataset": scan,
        "center": float(center) if isinstance(center, int | float) else (columns - 1) / 2,
        "is_known": center is not None,
        "row_begin": begin if isinstance(begin, int) else 0,
        "columns": columns,
        "may_process": bool(here.view.can(Verb.PROCESS, dataset_id=scan.id)),
    }


def _others(here: Visit, dataset: Dataset) -> list[Dataset]:
    """Return other reconstructions of the same scan, newest first."""
    found: list[Dataset] = []
    for parent in dataset.parents[:1] if dataset.technique in slices.TECHNIQUES else ():
        found += here.view.children(parent)
    return [each for each in found if each.technique in slices.TECHNIQUES and each.id != dataset.id]
