"""What every request passes: other sites' pages cannot act for us, and nothing malformed gets through."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from lightkeep.http.guard import MAX_BODY
from lightkeep.lifecycle.people.sign_in import COOKIE
from lightkeep.testing.populated import Populated


def _signed_in(web: TestClient, house: Populated) -> TestClient:
    cookies = {COOKIE: house.tokens["member"]}
    return TestClient(web.app, cookies=cookies, raise_server_exceptions=False, follow_redirects=False)


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://testserver"},
        {},
    ],
)
def test_another_site_cannot_act_with_our_cookie(
    web: TestClient, house: Populated, headers: dict[str, str]
) -> None:
    client = _signed_in(web, house)
    for address in ("/sign-out", f"/runs/{house.run.id}/cancel", "/api/v1/tokens"):
        assert client.post(address, headers=headers).status_code == 403


def test_our_own_page_can(web: TestClient, house: Populated) -> None:
    client = _signed_in(web, house)
    answer = client.post("/api/v1/tokens", json={}, headers={"Origin": "http://testserver"})
    assert answer.status_code == 201


def test_a_bearer_token_needs_no_origin(member: TestClient) -> None:
    assert member.post("/api/v1/tokens", json={}).status_code == 201


@pytest.mark.parametrize("address", ["/api/v1/datasets/%00", "/datasets/a%00b", "/find?q=%00", "/%00"])
def test_a_nul_is_refused(member: TestClient, address: str) -> None:
    assert member.get(address).status_code == 400


def test_a_body_beyond_the_limit_is_refused(member: TestClient) -> None:
    assert member.post("/api/v1/tokens", content=b" " * (MAX_BODY + 1)).status_code == 413


def test_a_body_that_does_not_say_its_length_ends_at_the_limit(member: TestClient) -> None:
    answer = member.post("/api/v1/tokens", content=(b" " * 65536 for _ in range(20)))
    assert 400 <= answer.status_code < 500


@pytest.mark.parametrize("address", ["/", "/sign-in", "/api/v1/stations", "/static/portal.css", "/nothing"])
def test_every_answer_is_armoured(web: TestClient, address: str) -> None:
    headers = web.get(address).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["cross-origin-opener-policy"] == "same-origin"


def test_pages_and_answers_are_not_cached_by_others(web: TestClient) -> None:
    assert web.get("/stations").headers["cache-control"] == "private, no-store"
    assert web.get("/api/v1/stations").headers["cache-control"] == "private, no-store"


def test_only_the_viewers_own_page_may_compile_code(web: TestClient) -> None:
    assert "'unsafe-eval'" in web.get("/static/viewer/index.html").headers["content-security-policy"]
