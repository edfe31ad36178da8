"""What every request passes before a route sees it, and every answer on its way out. For both web faces."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lightkeep.http.problem import Problem

MAX_BODY = 1 << 20
"""Bytes that a request may carry: forms and JSON only; files come in by `lightkeep ingest`."""

_PAGES = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
)
# h5web positions its parts by inline styles, draws into blobs, and its array library compiles loops at run time.
# It is a static page in a frame of its own, and takes no script from anywhere else.
_VIEWER = (
    _PAGES.replace("script-src 'self'", "script-src 'self' 'unsafe-eval'")
    .replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
    .replace("data:", "data: blob:")
)

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class Guard:
    """ASGI middleware: refuses requests that are malformed or sent from another site, and sets security headers.

    Another site's page can make a browser send a request with our cookie, but it cannot choose `Origin` and
    `Sec-Fetch-Site`: an unsafe method needs one of them to say that the page is ours. A Bearer token is not sent
    by a browser of its own accord, so requests with one pass.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _secured(scope, send)
        headers = Headers(scope=scope)
        if problem := _malformed(scope, headers) or _from_elsewhere(scope, headers):
            await problem(scope, receive, answer)
            return
        await self._app(scope, _bounded(receive), answer)


def _malformed(scope: Scope, headers: Headers) -> Problem | None:
    if "\0" in scope["path"] or b"%00" in scope["query_string"]:
        return Problem(400, "a NUL character in the address", code="invalid_input", remedy="remove it")
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length[:20]) > MAX_BODY:
        return Problem(413, "the request is too large", code="invalid_input", remedy="at most 1 MiB")
    return None


def _from_elsewhere(scope: Scope, headers: Headers) -> Problem | None:
    if scope["method"] in _SAFE_METHODS or headers.get("authorization", "").lower().startswith("bearer "):
        return None
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None:
        is_ours = site in ("same-origin", "none")
    elif origin is not None:
        is_ours = urlsplit(origin).netloc == headers.get("host", "")
    else:
        is_ours = "cookie" not in headers
    if is_ours:
        return None
    return Problem(
        403, "this request comes from another site", code="forbidden", remedy="use the portal's own pages"
    )


def _bounded(receive: Receive) -> Receive:
    """Return receive that ends a body at MAX_BODY, for requests that do not announce their length."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > MAX_BODY:
                return {"type": "http.disconnect"}
        return message

    return bounded


def _secured(scope: Scope, send: Send) -> Send:
    is_static = scope["path"].startswith("/static/")
    is_viewer = scope["path"].startswith("/static/viewer/")

    async def secured(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _ALWAYS.items():
                headers.setdefault(name, value)
            headers.setdefault("Content-Security-Policy", _VIEWER if is_viewer else _PAGES)
            headers.setdefault("Cache-Control", "no-cache" if is_static else "private, no-store")
            if scope.get("scheme") == "https":
                headers.setdefault("Strict-Transport-Security", "max-age=31536000")
        await send(message)

    return secured
