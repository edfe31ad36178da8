"""The page behind the link of a notice's mail: what goes, when, why, and one button to keep it. No sign-in."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from fastapi.responses import RedirectResponse, Response

from lightkeep.lifecycle.retention import notices
from lightkeep.model.errors import Conflict, NotFound
from lightkeep.portal.page import Here

router = APIRouter()
Token = Annotated[str, Path(min_length=1, max_length=200)]


@router.get("/extend/{token}")
def extension(here: Here, token: Token) -> Response:
    """What the mail announced, and until when it is kept; changes nothing."""
    return _page(here, token)


@router.post("/extend/{token}")
def extend(here: Here, token: Token) -> Response:
    """Keep everything longer, then show it. Again: no change."""
    try:
        notices.extend_by_token(here.facility, token)
    except (NotFound, Conflict) as error:
        return _page(here, token, problem=error.message, remedy=error.remedy)
    return RedirectResponse(f"/extend/{token}", 303)


def _page(here: Here, token: str, *, problem: str = "", remedy: str = "") -> Response:
    try:
        notice = notices.by_token(here.facility, token)
    except NotFound as error:
        return here.render(
            "extend.html",
            status=404,
            notice=None,
            kept_until=None,
            days=0,
            problem=error.message,
            remedy=error.remedy,
        )
    return here.render(
        "extend.html",
        status=409 if problem else 200,
        notice=notice,
        kept_until=notices.extended_until(here.facility, notice),
        days=notices.MORE.days,
        problem=problem,
        remedy=remedy,
    )
