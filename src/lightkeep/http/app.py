"""The HTTP API as one application, mounted at /api/v1 by `lightkeep.asgi`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import FastAPI

from lightkeep import __version__
from lightkeep.http import (
    acquisitions,
    copies,
    datasets,
    experiments,
    metrics,
    people,
    places,
    policies,
    problem,
    purge,
    runs,
    tomography,
    usage,
    workflows,
    xpcs,
)
from lightkeep.http.desk import Desk
from lightkeep.lifecycle.people.sign_in import Attempts
from lightkeep.lifecycle.pictures.preview import Previews

if TYPE_CHECKING:
    from lightkeep.facility import Facility
    from lightkeep.workflow import Orchestrator

_ABOUT = """
The nouns of a light source's data, over HTTP. Sign in with `Authorization: Bearer <token>`; make a token with
`lightkeep person token <user>` or `POST /sessions`. What you may not see answers 404. Errors are RFC 9457
problem details with a stable `code` and a `remedy`.
"""


def create_api(
    facility: Facility,
    orchestrator: Orchestrator,
    *,
    attempts: Attempts | None = None,
    previews: Previews | None = None,
) -> FastAPI:
    """Return the API.

    Parameters
    ----------
    attempts, previews: shared with the portal where both run in one process.
    """
    app = FastAPI(
        title="Lightkeep",
        version=__version__,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        responses={"4XX": {"content": {"application/problem+json": {}}, "description": "Problem details."}},
    )
    app.state.desk = Desk(facility, orchestrator, previews or Previews(), attempts=attempts or Attempts())
    problem.install(app)
    for router in (
        people.router,
        experiments.router,
        acquisitions.router,
        usage.router,
        places.router,
        datasets.router,
        copies.router,
        purge.router,
        runs.router,
        tomography.router,
        xpcs.router,
        policies.router,
        workflows.router,
        metrics.router,
    ):
        app.include_router(router)
    return app
