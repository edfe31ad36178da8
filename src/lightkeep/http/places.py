"""Stations, experiments and stores."""

from __future__ import annotations

from fastapi import APIRouter

from lightkeep.http.desk import Limit, Name, Offset, Seen, Text, Word
from lightkeep.http.shapes import ExperimentShape, PageOf, StationShape, StoreShape

router = APIRouter(tags=["places"])


@router.get("/stations")
def stations(view: Seen) -> list[StationShape]:
    """Every station."""
    return [StationShape.model_validate(each) for each in view.stations()]


@router.get("/stations/{station_id}")
def station(view: Seen, station_id: Name) -> StationShape:
    """One station."""
    return StationShape.model_validate(view.station(station_id))


@router.get("/experiments")
def experiments(
    view: Seen, station: Word = "", text: Text = "", limit: Limit = 50, offset: Offset = 0
) -> PageOf[ExperimentShape]:
    """Experiments, newest first."""
    page = view.experiments(station_id=station, text=text, limit=limit, offset=offset)
    return PageOf[ExperimentShape].model_validate(page)


@router.get("/experiments/{experiment_id}")
def experiment(view: Seen, experiment_id: Name) -> ExperimentShape:
    """One experiment."""
    return ExperimentShape.model_validate(view.experiment(experiment_id))


@router.get("/stores")
def stores(view: Seen) -> list[StoreShape]:
    """Every store."""
    return [StoreShape.model_validate(each) for each in view.stores()]
