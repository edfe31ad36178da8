"""The routes, as a member uses them."""

from __future__ import annotations

import json
from pathlib import Path

from starlette.testclient import TestClient

from lightkeep.testing.populated import EXPERIMENT, PASSWORD, STATION, Populated


def test_me_says_who_asks(member: TestClient, web: TestClient) -> None:
    assert member.get("/api/v1/me").json() == {"id": "member", "name": "Member", "is_anonymous": False}
    assert web.get("/api/v1/me").json()["is_anonymous"] is True


def test_signing_in_gives_a_token_that_works_until_signing_out(web: TestClient, house: Populated) -> None:
    token = web.post("/api/v1/sessions", json={"user": "pi", "password": PASSWORD}).json()["token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert web.get("/api/v1/me", headers=headers).json()["id"] == "pi"
    assert web.delete("/api/v1/sessions/current", headers=headers).status_code == 204
    assert web.get("/api/v1/me", headers=headers).status_code == 401


def test_a_person_makes_an_api_token_for_themselves(member: TestClient, web: TestClient) -> None:
    made = member.post("/api/v1/tokens", json={"label": "script", "days": 1})
    assert made.status_code == 201
    headers = {"Authorization": f"Bearer {made.json()['token']}"}
    assert web.get("/api/v1/me", headers=headers).json()["id"] == "member"


def test_an_experiment_counts_its_datasets(member: TestClient) -> None:
    found = member.get(f"/api/v1/experiments/{EXPERIMENT}").json()
    assert found["station_id"] == STATION
    assert found["datasets"] >= 2  # other tests add theirs
    assert member.get("/api/v1/experiments", params={"text": "pore"}).json()["total"] == 1
    assert member.get("/api/v1/experiments", params={"text": "nothing"}).json() == {"items": [], "total": 0}


def test_a_dataset_carries_typed_metadata(member: TestClient, house: Populated) -> None:
    found = member.get(f"/api/v1/datasets/{house.raw.id}").json()
    energy = found["metadata"]["quantities"]["energy"]
    assert (energy["unit"], energy["unit_si"]) == ("keV", "J")
    assert found["format"] == "data-exchange"


def test_search_and_facets_speak_the_same_grammar(member: TestClient, house: Populated) -> None:
    found = member.get("/api/v1/datasets", params={"q": "kind:raw name:core energy:1..100keV"}).json()
    assert [each["id"] for each in found["items"]] == [house.raw.id]
    facets = member.get("/api/v1/facets", params={"q": "kind:raw name:core"}).json()["facets"]
    assert facets["station"] == [[STATION, 1]]


def test_a_result_knows_its_parent_and_the_parent_its_child(member: TestClient, house: Populated) -> None:
    assert member.get(f"/api/v1/datasets/{house.result.id}").json()["parents"] == [house.raw.id]
    assert [each["id"] for each in member.get(f"/api/v1/datasets/{house.raw.id}/children").json()] == [
        house.result.id
    ]
    assert member.get(f"/api/v1/runs/{house.run.id}/result").json()["id"] == house.result.id


def test_replicas_tell_how_they_were_proved(member: TestClient, house: Populated) -> None:
    replicas = member.get(f"/api/v1/datasets/{house.raw.id}/replicas").json()
    assert {each["store_id"] for each in replicas} == {"central"}
    assert all(each["state"] == "verified" and each["verified_at"] for each in replicas)


def test_a_technique_gives_the_schema_of_its_parameters(member: TestClient) -> None:
    names = [each["name"] for each in member.get("/api/v1/techniques").json()]
    assert "tomography" in names
    assert member.get("/api/v1/techniques/tomography").json()["params"]["type"] == "object"
    assert member.get("/api/v1/techniques/astrology").status_code == 404


def test_a_run_is_queued_then_cancelled(member: TestClient, house: Populated) -> None:
    asked = {"technique": "tomography", "engine": "inline"}
    queued = member.post(f"/api/v1/datasets/{house.raw.id}/runs", json=asked)
    assert queued.status_code == 202
    run_id = queued.json()["id"]
    assert queued.headers["location"] == f"/api/v1/runs/{run_id}"
    assert member.post(f"/api/v1/runs/{run_id}/cancel").json()["state"] == "cancelled"
    again = member.post(f"/api/v1/runs/{run_id}/retry")
    assert (again.status_code, again.json()["state"]) == (202, "queued")
    assert member.post(f"/api/v1/runs/{again.json()['id']}/cancel").status_code == 200


def test_parameters_that_are_not_finite_are_refused(member: TestClient, house: Populated) -> None:
    body = '{"technique": "tomography", "params": {"center": NaN}}'
    headers = {"Content-Type": "application/json"}
    answer = member.post(f"/api/v1/datasets/{house.raw.id}/runs", content=body, headers=headers)
    assert answer.status_code == 422


def test_a_finished_run_streams_its_last_state_and_ends(member: TestClient, house: Populated) -> None:
    answer = member.get(f"/api/v1/runs/{house.run.id}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    data = [line for line in answer.text.splitlines() if line.startswith("data: ")]
    assert json.loads(data[-1].removeprefix("data: "))["state"] == "done"


def test_a_client_that_comes_back_hears_only_what_is_new(member: TestClient, house: Populated) -> None:
    text = member.get(f"/api/v1/runs/{house.run.id}/events").text
    last = next(line for line in text.splitlines() if line.startswith("id: ")).removeprefix("id: ")
    again = member.get(f"/api/v1/runs/{house.run.id}/events", headers={"Last-Event-ID": last}).text
    assert "data:" not in again


def test_events_are_the_audit_trail_in_order(member: TestClient) -> None:
    found = member.get("/api/v1/events", params={"experiment": EXPERIMENT, "limit": 500}).json()
    assert [each["seq"] for each in found] == sorted(each["seq"] for each in found)
    assert "dataset.completed" in {each["verb"] for each in found}


def test_the_openapi_document_describes_every_route(web: TestClient) -> None:
    document = web.get("/api/v1/openapi.json").json()
    assert document["info"]["title"] == "Lightkeep"
    operations = [each for path in document["paths"].values() for each in path.values()]
    assert all(each.get("description") for each in operations)


def test_the_reference_names_every_route(web: TestClient) -> None:
    reference = (Path(__file__).parents[2] / "docs" / "reference" / "http-api.md").read_text("utf-8")
    paths = web.get("/api/v1/openapi.json").json()["paths"]
    routes = {f"`{method.upper()} {path}`" for path, methods in paths.items() for method in methods}
    assert {route for route in routes if route not in reference} == set()
