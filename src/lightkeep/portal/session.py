"""Signing in and out."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from lightkeep.lifecycle.people import sign_in
from lightkeep.model.errors import SignInRequired
from lightkeep.portal.page import Here, Text

router = APIRouter()


@router.get("/sign-in")
def form(here: Here, next: Text = "/") -> Response:  # noqa: A002 (the parameter's name on the address)
    """The sign-in page."""
    if not here.principal.is_anonymous:
        return RedirectResponse(_inside(next), 303)
    return here.render("sign_in.html", next=_inside(next), user="", error="", remedy="")


@router.post("/sign-in")
def sign_in_now(
    here: Here,
    request: Request,
    user: Annotated[str, Form(max_length=200)] = "",
    password: Annotated[str, Form(max_length=1024)] = "",
    next: Annotated[str, Form(max_length=1000)] = "/",  # noqa: A002
) -> Response:
    """Check user name and password; on to where one wanted to go."""
    address = request.client.host if request.client else ""
    try:
        token = sign_in.sign_in(here.facility, user, password, attempts=here.house.attempts, address=address)
    except SignInRequired as error:
        status = 429 if error.data else 401
        page: HTMLResponse = here.render(
            "sign_in.html", status=status, next=_inside(next), user=user, error=error.message, remedy=error.remedy
        )
        return page
    answer = RedirectResponse(_inside(next), 303)
    is_https = request.url.scheme == "https"
    length = int(sign_in.SESSION_LENGTH.total_seconds())
    answer.set_cookie(sign_in.COOKIE, token, max_age=length, httponly=True, samesite="lax", secure=is_https)
    return answer


@router.post("/sign-out")
def sign_out(here: Here, request: Request) -> Response:
    """End the session, here and on the server."""
    sign_in.sign_out(here.facility, request.cookies.get(sign_in.COOKIE, ""))
    answer = RedirectResponse("/sign-in", 303)
    answer.delete_cookie(sign_in.COOKIE, httponly=True, samesite="lax")
    return answer


def _inside(address: str) -> str:
    """Return an address of ours, or / for any other: a sign-in must not lead to another site.

    >>> _inside("/runs?page=2"), _inside("//evil.example"), _inside("https://evil.example"), _inside("/\\\\evil")
    ('/runs?page=2', '/', '/', '/')
    """
    parts = urlsplit(address.replace("\\", "/").replace("\t", "").replace("\n", "").replace("\r", ""))
    if parts.scheme or parts.netloc or not address.startswith("/") or address[1:2] in ("/", "\\"):
        return "/"
    return address
