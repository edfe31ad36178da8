"""Usage and the life of experiments over HTTP, with each role."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from lightkeep.asgi import compose
from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people import experiments, sign_in
from lightkeep.model.experiments import Experiment
from lightkeep.model.people import SERVICE
from lightkeep.testing.populated import EXPERIMENT, ROLES, STATION, with_people
from lightkeep.workflow import open_workflow

API = "/api/v1"
X = f"/experiments/{EXPERIMENT}"
SECRET = "2026-11-kim-9"


class Web:
    """The API with a token for each role."""

    def __init__(self, facility: Facility, client: TestClient) -> None:
        self.facility = facility
        self._client = client
        self._tokens = {
            role: sign_in.new_api_token(facility, role, label="t") for role in ROLES if role != "anonymous"
        }

    def __call__(self, role: str, method: str, path: str, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {self._tokens[role]}"} if role in self._tokens else {}
        json = body if method in ("POST", "PUT") else None
        return self._client.request(method, API + path, headers=headers, json=json)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    with with_people(tmp_path) as facility:
        for id_, size in ((EXPERIMENT, 100), (SECRET, 999)):
            if id_ == SECRET:
                experiments.create(facility, Experiment(id_, STATION), principal=SERVICE)
            (tmp_path / id_).mkdir()
            (tmp_path / id_ / "data").write_bytes(b"x" * size)
            ingest(facility, tmp_path / id_, experiment_id=id_, principal=SERVICE, quiet_s=0.0)
        with open_workflow(facility, work=False) as orchestrator:
            app = compose(facility, orchestrator)
            with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as client:
                yield Web(facility, client)


WRITERS = {"anonymous": 404, "stranger": 404, "collaborator": 403, "member": 403}
MANAGERS = WRITERS | {"pi": 403, "station-scientist": 403}
QUOTA = f"/usage/quotas/experiment/{EXPERIMENT}"
PLACE = {"anonymous": 401} | dict.fromkeys(("stranger", "collaborator", "member", "pi"), 403)
CASES: list[tuple[str, str, dict[str, Any], dict[str, int]]] = [
    ("POST", "/experiments", {"id": "new", "station_id": STATION}, PLACE),
    ("POST", f"{X}/open", {}, WRITERS),
    ("POST", f"{X}/close", {}, WRITERS),
    ("POST", f"{X}/extend", {"until": "2030-01-01T00:00:00Z", "reason": "paper"}, WRITERS),
    ("POST", f"{X}/withdraw-release", {}, WRITERS),
    ("PUT", QUOTA, {"size": 10**12}, MANAGERS),
    ("PUT", f"/usage/growth/{STATION}", {"bytes_per_day": 1e12}, PLACE | {"station-scientist": 403}),
]


@pytest.mark.parametrize(("method", "path", "body", "refused"), CASES, ids=[case[1] for case in CASES])
def test_each_change_is_for_the_roles_that_may(
    web: Web, method: str, path: str, body: dict[str, Any], refused: dict[str, int]
) -> None:
    for role in ROLES:
        answer = web(role, method, path, **body)
        if role in refused:
            assert answer.status_code == refused[role], (role, answer.text)
        elif "new" in body.values():
            assert answer.status_code in (201, 409), (role, answer.text)  # made by the role before
        else:
            assert 200 <= answer.status_code < 300, (role, answer.text)


def test_quotas_and_growth_are_taken_back(web: Web) -> None:
    assert web("facility-admin", "PUT", QUOTA, size=50, is_hard=True).status_code == 200
    (found,) = web("pi", "GET", "/usage/quotas").json()
    assert (found["used"], found["is_warning"]) == (100, True)
    assert web("anonymous", "GET", "/usage/quotas").json() == []
    assert web("pi", "DELETE", QUOTA).status_code == 403
    assert web("facility-admin", "DELETE", QUOTA).status_code == 204
    assert web("facility-admin", "DELETE", QUOTA).status_code == 404
    steps = [{"at": "2027-06-01", "factor": 10}]
    set_ = web("station-manager", "PUT", f"/usage/growth/{STATION}", bytes_per_day=1e12, steps=steps)
    assert set_.json()["steps"] == [{"at": "2027-06-01", "factor": 10.0}]
    assert len(web("anonymous", "GET", "/usage/growth").json()) == 1
    assert web("station-manager", "DELETE", f"/usage/growth/{STATION}").status_code == 204


def test_usage_is_cut_to_what_one_may_see(web: Web) -> None:
    sizes = {role: web(role, "GET", "/usage").json()["total"] for role in ROLES}
    assert sizes == dict.fromkeys(("anonymous", "stranger"), 0) | dict.fromkeys(
        ("collaborator", "member", "pi"), 100
    ) | dict.fromkeys(("station-scientist", "station-manager", "facility-admin"), 1099)
    for path in ("/usage?by=experiment", "/usage/table.csv?by=experiment", "/usage/history?by=experiment"):
        assert SECRET not in web("member", "GET", path).text
        assert SECRET not in web("stranger", "GET", path).text
    assert web("anonymous", "GET", "/usage?by=store").status_code == 401


def test_a_spreadsheet_gets_csv(web: Web) -> None:
    answer = web("pi", "GET", "/usage/table.csv?by=technique")
    assert answer.headers["content-type"].startswith("text/csv")
    assert answer.text.splitlines()[0] == "technique,bytes,copies,experiments,measured_bytes,datasets,newest_at"


def test_a_life_over_http(web: Web) -> None:
    closed = web("pi", "POST", f"{X}/close").json()
    assert (closed["experiment"]["state"], closed["files"]) == ("closed", 1)
    assert web("pi", "POST", f"{X}/open").status_code == 403
    released = web("pi", "POST", f"{X}/release", at="2029-01-01T00:00:00Z").json()
    assert released["released_at"] == "2029-01-01T00:00:00Z"
    assert web("anonymous", "GET", X).status_code == 404
    assert web("pi", "POST", f"{X}/release").status_code == 200
    assert web("anonymous", "GET", X).status_code == 200
    report = web("anonymous", "GET", f"{X}/report").json()
    assert report["places"] == []
    assert report["people"] == []
    assert web("pi", "POST", f"{X}/withdraw-release").status_code == 200
    assert web("anonymous", "GET", X).status_code == 404
    places = web("pi", "GET", f"{X}/report").json()["places"]
    assert [place["size"] for place in places] == [100]
    assert "for ever" in places[0]["why"]


def test_release_and_sync_are_for_the_roles_that_may(web: Web) -> None:
    web("pi", "POST", f"{X}/close")
    for role in ROLES:
        expected = WRITERS.get(role, 200)
        assert web(role, "POST", f"{X}/release", at="2029-01-01T00:00:00Z").status_code == expected
        assert web(role, "POST", f"{X}/sync").status_code in (404, 422)  # no source is set


def test_the_forecast_is_for_who_sees_everything(web: Web) -> None:
    for role in ROLES:
        status = web(role, "POST", "/usage/forecast", days=30).status_code
        assert status == {"anonymous": 401, "facility-admin": 200}.get(role, 403)
    scenario = [{"name": "ten times", "factor": 10, "store": [{"id": "central", "capacity": "1 MB"}]}]
    plain, other = web("facility-admin", "POST", "/usage/forecast", days=30, scenario=scenario).json()
    assert other["bytes_per_day"] == pytest.approx(10 * plain["bytes_per_day"])
    (central,) = other["stores"]
    assert len(central["days"]) == len(central["used"]) == 30
    assert (
        web("facility-admin", "POST", "/usage/forecast", scenario=[{"policy": "/etc/passwd"}]).status_code == 422
    )
