"""What a route needs: the facility, whose request it is, and what that person may see."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, Path, Query, Request

from lightkeep.http.download import Integrity
from lightkeep.lifecycle.people.sign_in import COOKIE, Attempts, principal_of
from lightkeep.lifecycle.pictures.preview import Previews
from lightkeep.model.errors import SignInRequired
from lightkeep.model.people import Principal

if TYPE_CHECKING:
    from lightkeep.facility import Facility
    from lightkeep.workflow import Orchestrator


@dataclass(frozen=True)
class Desk:
    """The objects that all routes share; one per app, on `app.state.desk`."""

    facility: Facility
    orchestrator: Orchestrator
    previews: Previews = field(default_factory=Previews)
    integrity: Integrity = field(default_factory=Integrity)
    attempts: Attempts = field(default_factory=Attempts)


def desk_of(request: Request) -> Desk:
    """Return the app's desk."""
    desk: Desk = request.app.state.desk
    return desk


def token_of(request: Request) -> str:
    """Return the token of a request: of the Bearer header, else of the session cookie, else empty."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else request.cookies.get(COOKIE, "")


def principal_of_request(request: Request) -> Principal:
    """Return whose request it is.

    Raises
    ------
    SignInRequired: a Bearer token that is not good (any more). With a stale cookie one is just anonymous.
    """
    principal = principal_of(desk_of(request).facility, token_of(request))
    if principal.is_anonymous and "authorization" in request.headers:
        raise SignInRequired("this API token is not valid", remedy="make a new one: lightkeep person token <user>")
    return principal


def view_of(request: Request) -> Any:
    """Return the catalogue as the person of the request sees it."""
    return desk_of(request).facility.catalog.view(principal_of_request(request))


AtDesk = Annotated[Desk, Depends(desk_of)]
Who = Annotated[Principal, Depends(principal_of_request)]
Seen = Annotated[Any, Depends(view_of)]

Name = Annotated[str, Path(min_length=1, max_length=200, description="Its id.")]
Limit = Annotated[int, Query(ge=1, le=500, description="Items on the page.")]
Offset = Annotated[int, Query(ge=0, le=1_000_000_000, description="Items to pass over.")]
Text = Annotated[str, Query(max_length=1000)]
Word = Annotated[str, Query(max_length=200)]
