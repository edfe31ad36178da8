"""Errors as HTTP answers: RFC 9457 problem details, and the one table from error class to status."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from lightkeep.model.errors import (
    Archived,
    BadFile,
    CatalogUnavailable,
    ConfigError,
    Conflict,
    Corrupt,
    Forbidden,
    InvalidInput,
    LightkeepError,
    MailError,
    NotFound,
    RunCancelled,
    RunFailed,
    SignInRequired,
    SourceError,
    StorageError,
    StoreFull,
    StoreUnavailable,
    UnsafeFile,
)

STATUS: Mapping[type[LightkeepError], int] = {
    LightkeepError: 500,
    NotFound: 404,
    Forbidden: 403,
    SignInRequired: 401,
    Conflict: 409,
    Archived: 409,
    InvalidInput: 422,
    BadFile: 422,
    UnsafeFile: 422,
    ConfigError: 500,
    StorageError: 500,
    StoreFull: 507,
    StoreUnavailable: 503,
    CatalogUnavailable: 503,
    Corrupt: 500,
    SourceError: 502,
    MailError: 502,
    RunFailed: 500,
    RunCancelled: 409,
}


class Problem(JSONResponse):
    """`application/problem+json` with type, title, status, detail, code and remedy."""

    media_type = "application/problem+json"

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        code: str,
        remedy: str = "",
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        body = {
            "type": f"urn:lightkeep:error:{code}",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": shown(detail),
            "code": code,
            "remedy": shown(remedy),
            **more,
        }
        super().__init__(body, status, headers=dict(headers or {}))


def shown(text: str) -> str:
    """Return text that every encoder takes: a byte that is no UTF-8 becomes `\\xNN`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") if _is_odd(text) else text


def _is_odd(text: str) -> bool:
    return any("\ud800" <= each <= "\udfff" for each in text)


def of_error(error: LightkeepError) -> Problem:
    """Return the answer to one of our own errors."""
    status = STATUS[type(error)]
    headers = {"WWW-Authenticate": 'Bearer realm="lightkeep"'} if status == HTTPStatus.UNAUTHORIZED else {}
    if wait := error.data.get("retry_after_s"):
        status, headers = HTTPStatus.TOO_MANY_REQUESTS, {"Retry-After": str(wait)}
    if error.data.get("gone"):
        status = HTTPStatus.GONE
    return Problem(status, error.message, code=error.code, remedy=error.remedy, headers=headers)


def of_validation(error: RequestValidationError) -> Problem:
    """Return the answer to parameters that the route does not take; says where and what, never echoes values."""
    faults = [
        {"where": ".".join(str(part)[:80] for part in each["loc"]), "what": each["msg"]} for each in error.errors()
    ]
    first = faults[0] if faults else {"where": "request", "what": "not understood"}
    detail = shown(f"{first['where']}: {first['what']}")
    safe = [{name: shown(text) for name, text in fault.items()} for fault in faults[:20]]
    remedy = "the parameters are described in /api/v1/openapi.json"
    return Problem(422, detail, code=InvalidInput.code, remedy=remedy, errors=safe)


def install(app: FastAPI) -> None:
    """Answer every error of the app as a problem."""

    @app.exception_handler(LightkeepError)
    async def _ours(_: Request, error: LightkeepError) -> Problem:
        return of_error(error)

    @app.exception_handler(RequestValidationError)
    async def _parameters(_: Request, error: RequestValidationError) -> Problem:
        return of_validation(error)

    @app.exception_handler(HTTPException)
    async def _routing(_: Request, error: HTTPException) -> Problem:
        code = NotFound.code if error.status_code == HTTPStatus.NOT_FOUND else InvalidInput.code
        return Problem(error.status_code, str(error.detail), code=code, headers=error.headers)

    @app.exception_handler(Exception)
    async def _unexpected(_: Request, error: Exception) -> Problem:
        del error  # it goes to the log; its text may hold what the reader may not see
        return Problem(
            500, "an error inside Lightkeep", code=LightkeepError.code, remedy="the server's log names it"
        )
