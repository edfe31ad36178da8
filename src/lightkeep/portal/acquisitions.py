"""The Acquisition tab of an experiment: what comes in by itself, how it goes, start and stop."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import RedirectResponse, Response

from lightkeep.lifecycle.acquisitions import acquire
from lightkeep.model.people import Verb
from lightkeep.portal.page import Here, Name

router = APIRouter()


@router.get("/experiments/{experiment_id}/acquisition")
def acquisition(here: Here, experiment_id: Name) -> Response:
    """Sources of an experiment's data."""
    found = here.view.experiment(experiment_id)
    return here.render(
        "experiment.html",
        experiment=found,
        tab="acquisition",
        acquisitions=here.view.acquisitions(experiment_id=found.id, limit=100).items,
        may_start=bool(here.view.can(Verb.WRITE, experiment_id=found.id)),
    )


@router.post("/acquisitions/{acquisition_id}/start")
def start(here: Here, acquisition_id: Name) -> Response:
    """Have one run."""
    done = acquire.start(here.facility, acquisition_id, principal=here.principal)
    return RedirectResponse(f"/experiments/{done.experiment_id}/acquisition", 303)


@router.post("/acquisitions/{acquisition_id}/stop")
def stop(here: Here, acquisition_id: Name) -> Response:
    """Have one end."""
    done = acquire.stop(here.facility, acquisition_id, principal=here.principal)
    return RedirectResponse(f"/experiments/{done.experiment_id}/acquisition", 303)
