"""Now, and the stations."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from lightkeep.model.errors import SignInRequired
from lightkeep.model.runs import RunState
from lightkeep.portal.page import Here, Name, Visit

router = APIRouter()
_LATEST = 8


@router.get("/")
def now(here: Here) -> Response:
    """What happens now, and what came last."""
    datasets = here.view.datasets(limit=_LATEST)
    if here.principal.is_anonymous and not datasets.total:
        raise SignInRequired("nobody is signed in")
    recent = here.view.runs(limit=5)
    names = {run.dataset_id: here.view.dataset(run.dataset_id).name for run in recent}
    return here.render("now.html", runs=_working(here), recent=recent, recent_names=names, datasets=datasets)


@router.get("/now/runs")
def now_runs(here: Here) -> Response:
    """The part of Now that is asked for again while something runs."""
    return here.render("parts/working.html", runs=_working(here))


@router.get("/stations")
def stations(here: Here) -> Response:
    """Every station, with what one may see of it."""
    facets = dict(here.view.facets()["station"])
    return here.render("stations.html", stations=here.view.stations(), datasets=facets)


@router.get("/stations/{station_id}")
def station(here: Here, station_id: Name) -> Response:
    """One station and its experiments."""
    found = here.view.station(station_id)
    page = here.view.experiments(station_id=station_id, limit=50)
    return here.render("station.html", station=found, experiments=page)


def _working(here: Visit) -> list[tuple[object, str]]:
    """Runs that are under way or wait, each with its dataset's name."""
    found = [run for state in (RunState.RUNNING, RunState.QUEUED) for run in here.view.runs(state=state, limit=20)]
    return [(run, here.view.dataset(run.dataset_id).name) for run in found]
