"""The composition root of the web side: one process, one facility, the portal at / and the API at /api/v1.

uvicorn --factory lightkeep.asgi:create        # what `lightkeep serve` runs
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Mount

from lightkeep import config, telemetry
from lightkeep.facility import Facility, open_facility
from lightkeep.http.app import create_api
from lightkeep.http.guard import Guard
from lightkeep.http.metrics import Meter
from lightkeep.lifecycle.people.sign_in import Attempts
from lightkeep.lifecycle.pictures.preview import Previews
from lightkeep.portal.app import create_portal
from lightkeep.workflow import Orchestrator, open_workflow

_MIDDLEWARE = [Middleware(Meter), Middleware(Guard)]


def create() -> Starlette:
    """Return the application of the configured facility, which opens when the server starts."""
    settings = config.load()
    begin = settings.telemetry
    telemetry.start("server", level=begin.log_level, style=begin.log_format, traces=begin.traces)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        facility = await anyio.to_thread.run_sync(open_facility, settings)
        with facility:
            # Apart: runs take neither the server's time nor its life.
            orchestrator = await anyio.to_thread.run_sync(partial(open_workflow, facility, apart=True))
            try:
                app.router.routes.extend(compose(facility, orchestrator).routes)
                yield
            finally:
                await anyio.to_thread.run_sync(orchestrator.close)
                await anyio.to_thread.run_sync(telemetry.flush)

    return Starlette(middleware=_MIDDLEWARE, lifespan=lifespan)


def compose(facility: Facility, orchestrator: Orchestrator) -> Starlette:
    """Return both faces over a facility that is open; the caller closes it."""
    attempts, previews = Attempts(), Previews()
    api = create_api(facility, orchestrator, attempts=attempts, previews=previews)
    portal = create_portal(facility, orchestrator, attempts=attempts, previews=previews)
    return Starlette(routes=[Mount("/api/v1", api), Mount("/", portal)], middleware=_MIDDLEWARE)
