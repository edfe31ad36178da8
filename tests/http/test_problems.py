"""Errors as RFC 9457 problems."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from lightkeep.http import problem
from lightkeep.model import errors
from lightkeep.testing.populated import Populated


def _all_errors() -> list[type[errors.LightkeepError]]:
    return [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, errors.LightkeepError)
    ]


def test_every_error_has_a_status() -> None:
    assert set(problem.STATUS) == set(_all_errors())


@pytest.mark.parametrize("kind", _all_errors(), ids=lambda kind: kind.__name__)
def test_an_error_becomes_a_problem_with_code_and_remedy(kind: type[errors.LightkeepError]) -> None:
    answer = problem.of_error(kind("it broke", remedy="mend it"))
    assert answer.media_type == "application/problem+json"
    assert answer.status_code == problem.STATUS[kind]
    assert b'"remedy":"mend it"' in answer.body
    assert f'"code":"{kind.code}"'.encode() in answer.body


def test_a_path_with_odd_bytes_can_stand_in_a_problem() -> None:
    answer = problem.of_error(errors.NotFound("no file 'a\udcff'"))
    assert rb"a\\xff" in answer.body


def test_a_wrong_parameter_is_named_and_its_value_is_not_echoed(member: TestClient) -> None:
    answer = member.get("/api/v1/datasets", params={"limit": "sesame"})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("query.limit")
    assert "sesame" not in answer.text


def test_an_unknown_address_is_a_problem_too(web: TestClient) -> None:
    answer = web.get("/api/v1/nothing/here")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_bad_search_names_its_term(member: TestClient) -> None:
    answer = member.get("/api/v1/datasets", params={"q": "energy:8..keVkeV"})
    assert answer.status_code == 422
    assert answer.json()["code"] == "invalid_input"


def test_a_token_that_is_not_good_answers_401_and_says_how_to_make_one(web: TestClient, house: Populated) -> None:
    answer = web.get("/api/v1/me", headers={"Authorization": "Bearer nonsense"})
    assert answer.status_code == 401
    assert "lightkeep person token" in answer.json()["remedy"]
    assert answer.headers["www-authenticate"].startswith("Bearer")
