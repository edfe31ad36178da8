"""A fixed corpus of hostile values, on every parameter of every route: never an error of ours."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, unquote

import anyio
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import Mount
from starlette.testclient import TestClient

from lightkeep.testing.populated import Populated

CORPUS = [
    "0",
    "-1",
    str(2**63),
    "1e400",
    "NaN",
    "",
    "a\0b",
    "x" * 1_000_000,
    "../../../etc/passwd",
    "%2e%2e%2f",
    "\N{GRINNING FACE}",
    "\"'<script>alert(1)</script>",
    "name:* OR 1=1 --",
    '"unclosed',
    "(" * 5000,
    "\udcff",
    "energy:..keV",
]


def _routes(client: TestClient) -> Iterator[tuple[str, APIRoute]]:
    for mount in client.app.routes:  # type: ignore[attr-defined]
        if isinstance(mount, Mount) and isinstance(mount.app, FastAPI):
            prefix = mount.path
            yield from (
                (prefix, found.original_route)
                for found in iter_route_contexts(mount.app.routes)
                if isinstance(found.original_route, APIRoute)
            )


def _filled(template: str, house: Populated, **replaced: str) -> str:
    known = {
        "dataset_id": house.raw.id,
        "run_id": house.run.id,
        "experiment_id": house.raw.experiment_id,
        "station_id": "2-BM-A",
        "name": "tomography",
        "technique": "tomography",
        "kind": "meta",
        "index": "0",
        "path": "core.h5",
    }
    for key, value in (known | replaced).items():
        template = template.replace(f"{{{key}}}", value).replace(f"{{{key}:path}}", value)
    return template


@pytest.mark.parametrize("value", CORPUS, ids=lambda value: repr(value[:12]))
def test_no_value_of_any_parameter_is_an_error_of_ours(web: TestClient, house: Populated, value: str) -> None:
    quoted = quote(value[:20_000].encode("utf-8", "surrogateescape"), safe="")  # servers refuse longer addresses
    routes = list(_routes(web))
    assert len(routes) > 50
    asked = []
    for prefix, route in routes:
        if not {"GET", "POST"} & route.methods or route.path == "/sign-out":
            continue
        method = "POST" if "POST" in route.methods else "GET"
        names = [each.name for each in route.dependant.path_params]
        asked += [(method, prefix + _filled(route.path, house, **{name: quoted})) for name in names]
        plain = prefix + _filled(route.path, house)
        asked += [(method, f"{plain}?{name}={quoted}") for name in _queries(route)]
    assert len(asked) > 200
    with ThreadPoolExecutor(1) as apart:  # a browser of another test has a loop in this thread
        apart.submit(anyio.run, _try, web, house.tokens["facility-admin"], asked).result()


async def _try(web: TestClient, token: str, asked: list[tuple[str, str]]) -> None:
    """Ask as a server does, in one loop: a client of its own for each of thousands takes as long as the answer."""
    headers = {"Host": "testserver", "Authorization": f"Bearer {token}", "Origin": "http://testserver"}
    headers |= {"Cookie": f"lightkeep_session={token}"}
    for method, address in asked:
        path, _, query = address.partition("?")
        body = {"Content-Type": "application/json", "Content-Length": "2"} if method == "POST" else {}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), text.encode()) for name, text in (headers | body).items()],
            "client": ("testclient", 50_000),
            "server": ("testserver", 80),
        }
        status, text = await _answer(web, scope, b"{}" if body else b"")
        assert status < 500, (method, address[:200], text[:300])


async def _answer(web: TestClient, scope: dict[str, Any], body: bytes) -> tuple[int, bytes]:
    waiting = [{"type": "http.request", "body": body, "more_body": False}]
    heard: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        if not waiting:
            await anyio.sleep_forever()
        return waiting.pop()

    async def send(message: MutableMapping[str, Any]) -> None:
        heard.append(message)

    await web.app(scope, receive, send)
    return heard[0]["status"], b"".join(each.get("body", b"") for each in heard)


def _queries(route: APIRoute) -> set[str]:
    waiting, found = [route.dependant], set()
    while waiting:
        dependant = waiting.pop()
        found |= {each.alias for each in dependant.query_params}
        waiting += dependant.dependencies
    return found


@pytest.mark.parametrize("value", CORPUS, ids=lambda value: repr(value[:12]))
def test_no_value_in_a_body_is_an_error_of_ours(member: TestClient, house: Populated, value: str) -> None:
    value = value.replace("\udcff", "\N{REPLACEMENT CHARACTER}")  # JSON itself cannot carry it; see below
    bodies: list[Any] = [
        {"technique": value},
        {"technique": "tomography", "engine": value},
        {"technique": "tomography", "params": {"center": value}},
        {"technique": "tomography", "params": {value: 1}},
        {"technique": "tomography", "params": value},
        [value],
        value,
    ]
    for body in bodies:
        answer = member.post(f"/api/v1/datasets/{house.raw.id}/runs", json=body)
        assert answer.status_code < 500, (str(body)[:100], answer.text[:300])
    for body in ({"user": value, "password": value}, {"user": value}):
        assert member.post("/api/v1/sessions", json=body).status_code in (401, 422, 429, 413)


@pytest.mark.parametrize(
    "body", [b"{", b"\xff\xfe", b"[" * 100_000, b'{"technique":"\\ud800"}', b"null", b"1e999"]
)
def test_no_malformed_body_is_an_error_of_ours(member: TestClient, house: Populated, body: bytes) -> None:
    headers = {"Content-Type": "application/json"}
    answer = member.post(f"/api/v1/datasets/{house.raw.id}/runs", content=body, headers=headers)
    assert 400 <= answer.status_code < 500
