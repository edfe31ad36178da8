"""Acquisitions: data that come in while they are measured."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from lightkeep.http.desk import AtDesk, Limit, Name, Offset, Seen, Who
from lightkeep.http.shapes import Facts, PageOf, Shape, Shown
from lightkeep.lifecycle.acquisitions import acquire
from lightkeep.model.acquisition import AcquisitionState, SourceKind

router = APIRouter(tags=["acquisitions"])


class AcquisitionRequest(BaseModel):
    """A new source of data."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=64)
    kind: SourceKind
    options: dict[str, Any] = Field(default_factory=dict, description="As `lightkeep acquire add KIND --help`.")
    host: str = Field("", max_length=255, description="Only workers on this host run it.")


class StatisticsShape(Shape):
    """How it goes, since it was defined."""

    frames: int
    files: int
    bytes: int
    gaps: int = Field(description="Frames that the source numbered and that never arrived.")
    waiting: int = Field(description="Files that were seen and are not in the catalogue yet.")
    lag_s: float = Field(description="From the last write to being in the catalogue, of the newest files.")
    last_error: Shown
    at: str


class AcquisitionShape(Shape):
    """A source of data of one experiment."""

    id: str
    experiment_id: Shown
    name: Shown
    kind: SourceKind
    options: Facts
    host: Shown
    state: AcquisitionState
    error: Shown
    statistics: StatisticsShape
    holder: Shown = Field(description="Host and process that run it now.")
    created_by: Shown
    created_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None


@router.get("/experiments/{experiment_id}/acquisitions")
def acquisitions(
    view: Seen, experiment_id: Name, limit: Limit = 50, offset: Offset = 0
) -> PageOf[AcquisitionShape]:
    """Sources of an experiment's data, newest first; none where one is not on its team."""
    place = view.experiment(experiment_id)
    page = view.acquisitions(experiment_id=place.id, limit=limit, offset=offset)
    return PageOf[AcquisitionShape].model_validate(page)


@router.post("/experiments/{experiment_id}/acquisitions", status_code=201)
def define(desk: AtDesk, who: Who, experiment_id: Name, asked: AcquisitionRequest) -> AcquisitionShape:
    """Define a source; it takes a manager of the station, and does not run before it is started."""
    made = acquire.define(
        desk.facility,
        asked.name,
        experiment_id=experiment_id,
        kind=asked.kind,
        options=asked.options,
        principal=who,
        host=asked.host,
    )
    return AcquisitionShape.model_validate(made)


@router.get("/acquisitions/{acquisition_id}")
def acquisition(view: Seen, acquisition_id: Name) -> AcquisitionShape:
    """One source: its state, and how it goes."""
    return AcquisitionShape.model_validate(view.acquisition(acquisition_id))


@router.post("/acquisitions/{acquisition_id}/start")
def start(desk: AtDesk, who: Who, acquisition_id: Name) -> AcquisitionShape:
    """Have it run; running already: no change."""
    return AcquisitionShape.model_validate(acquire.start(desk.facility, acquisition_id, principal=who))


@router.post("/acquisitions/{acquisition_id}/stop")
def stop(desk: AtDesk, who: Who, acquisition_id: Name) -> AcquisitionShape:
    """Have it end: what is there is still taken in; not running: no change."""
    return AcquisitionShape.model_validate(acquire.stop(desk.facility, acquisition_id, principal=who))
