"""The portal as one application: server-rendered pages, mounted at / by `lightkeep.asgi`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.gzip import GZipMiddleware

from lightkeep.lifecycle.people.sign_in import Attempts
from lightkeep.lifecycle.pictures.preview import Previews
from lightkeep.model.errors import LightkeepError
from lightkeep.portal import (
    acquisitions,
    datasets,
    experiments,
    extend,
    find,
    front,
    keeping,
    plans,
    processing,
    reprocess,
    runs,
    session,
    storage,
    tomography,
    workflows,
    xpcs,
)
from lightkeep.portal.page import STATIC, House, environment, visit_of

if TYPE_CHECKING:
    from lightkeep.facility import Facility
    from lightkeep.workflow import Orchestrator


class Headline(NamedTuple):
    """How an error page begins."""

    status: int
    text: str


HEADLINES: Mapping[str, Headline] = {
    "error": Headline(500, "Something went wrong inside Lightkeep."),
    "not_found": Headline(404, "There is nothing here."),
    "forbidden": Headline(403, "You may see this, but not do that."),
    "sign_in_required": Headline(401, "Sign in first."),
    "conflict": Headline(409, "That is not possible in its present state."),
    "archived": Headline(409, "It rests in the archive: ask for it back, then it is here."),
    "invalid_input": Headline(422, "Something in the request is not right."),
    "bad_file": Headline(422, "The file is not what it promises."),
    "unsafe_file": Headline(422, "The file was refused."),
    "config": Headline(500, "Lightkeep is not set up right."),
    "storage": Headline(500, "A store could not do what it must."),
    "store_full": Headline(507, "The store is full."),
    "store_unavailable": Headline(503, "The store cannot be reached now."),
    "catalog_unavailable": Headline(503, "The catalogue does not answer now."),
    "corrupt": Headline(500, "The bytes differ from their checksum."),
    "mail": Headline(502, "A mail could not be sent."),
    "source": Headline(502, "The source cannot be read."),
    "run_failed": Headline(500, "The run failed."),
    "run_cancelled": Headline(409, "The run was cancelled."),
}
_PARTS = (
    session, front, experiments, datasets, processing, runs, find, xpcs, extend, keeping, storage, plans,
    acquisitions, workflows, tomography, reprocess,
)  # fmt: skip
_UNSEEN = ("not_found", "sign_in_required")


def create_portal(
    facility: Facility,
    orchestrator: Orchestrator,
    *,
    attempts: Attempts | None = None,
    previews: Previews | None = None,
) -> FastAPI:
    """Return the portal.

    Parameters
    ----------
    attempts, previews: shared with the API where both run in one process.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, default_response_class=HTMLResponse)
    app.state.house = House(facility, orchestrator, attempts or Attempts(), previews or Previews(), environment())
    app.add_middleware(GZipMiddleware, minimum_size=1024)
    for part in _PARTS:
        app.include_router(part.router)
    app.mount("/static", StaticFiles(directory=STATIC, html=False), name="static")
    _install_errors(app)
    return app


def _install_errors(app: FastAPI) -> None:
    @app.exception_handler(LightkeepError)
    def _ours(request: Request, error: LightkeepError) -> Response:
        visit = visit_of(request)
        if visit.principal.is_anonymous and error.code in _UNSEEN and request.method == "GET":
            asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
            return RedirectResponse(f"/sign-in?next={quote(asked, safe='')}", 303)
        return _page(request, error.code, error.message, error.remedy)

    @app.exception_handler(RequestValidationError)
    def _parameters(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part)[:80] for part in first["loc"])
        return _page(request, "invalid_input", f"{where}: {first['msg']}", "correct the address, or begin at Now")

    @app.exception_handler(HTTPException)
    def _routing(request: Request, error: HTTPException) -> Response:
        code = "not_found" if error.status_code == HEADLINES["not_found"].status else "invalid_input"
        return _page(request, code, "", "check the address, or search for what you need", status=error.status_code)

    @app.exception_handler(Exception)
    def _unexpected(request: Request, error: Exception) -> Response:
        del error  # it goes to the log; its text may hold what the reader may not see
        return _page(request, "error", "", "try again; the server's log says more")


def _page(request: Request, code: str, message: str, remedy: str, *, status: int = 0) -> Response:
    headline = HEADLINES[code]
    return visit_of(request).render(
        "error.html",
        status=status or headline.status,
        headline=headline.text,
        code=code,
        message=message,
        remedy=remedy,
    )
