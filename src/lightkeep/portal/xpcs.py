"""Several correlation results of an experiment, averaged."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response

from lightkeep.catalog.query import parse
from lightkeep.lifecycle.pictures import curves
from lightkeep.model.people import Verb
from lightkeep.portal.page import Here, Name

router = APIRouter()
_MOST = 200


@router.get("/experiments/{experiment_id}/average")
def average(
    here: Here,
    experiment_id: Name,
    result: Annotated[list[str], Query(max_length=50)] = [],  # noqa: B006 (FastAPI copies it)
    outliers: Annotated[str, Query(max_length=20)] = "robust",
) -> Response:
    """Choose results; see their mean, and which of them were left out and why."""
    experiment = here.view.experiment(experiment_id)
    query = parse(f"format:{curves.FORMAT}")
    found = here.view.datasets(query, experiment_id=experiment_id, limit=_MOST).items
    may_read = here.view.can(Verb.READ, experiment_id=experiment_id)
    return here.render(
        "xpcs_average.html",
        experiment=experiment,
        results=found if may_read else [],
        why="" if may_read else "your role does not include reading the data",
        chosen=[each.id for each in found if each.id in result],
        outliers=outliers,
    )
