"""Copies and archives that are asked for over HTTP: by whom, and what the next upkeep makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from lightkeep.asgi import compose
from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people import sign_in
from lightkeep.lifecycle.people.set_up import add_store
from lightkeep.lifecycle.replicas import asked_copies
from lightkeep.model.people import SERVICE
from lightkeep.testing.populated import EXPERIMENT, ROLES, with_people
from lightkeep.workflow import open_workflow

WRITERS = {"anonymous": 404, "stranger": 404} | dict.fromkeys(
    ("collaborator", "member", "pi", "station-scientist"), 403
)
"""Role -> answer; the others may."""


class Web:
    """The API with a token for each role, and the facility below it."""

    def __init__(self, facility: Facility, client: TestClient, place: Path) -> None:
        self.facility, self.place = facility, place
        self.dataset_id = facility.catalog.view(SERVICE).datasets().items[0].id
        self._client = client
        self._tokens = {r: sign_in.new_api_token(facility, r, label="t") for r in ROLES if r != "anonymous"}

    def __call__(self, role: str, method: str, path: str, **body: Any) -> Any:
        headers = {"Authorization": f"Bearer {self._tokens[role]}"} if role in self._tokens else {}
        json = body if method == "POST" else None
        return self._client.request(method, f"/api/v1{path}", headers=headers, json=json)

    def stores(self) -> list[str]:
        """Return where the dataset's copies are."""
        replicas = self.facility.catalog.view(SERVICE).replicas(self.dataset_id)
        return sorted(each.store_id for each in replicas)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    with with_people(tmp_path) as facility:
        (tmp_path / "scan").write_bytes(b"x" * 1000)
        ingest(facility, tmp_path / "scan", experiment_id=EXPERIMENT, principal=SERVICE, quiet_s=0.0)
        add_store(facility, "vault", tmp_path / "vault", principal=SERVICE)
        with open_workflow(facility, work=False) as orchestrator:
            app = compose(facility, orchestrator)
            with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as client:
                yield Web(facility, client, tmp_path)


@pytest.mark.parametrize("path", ["/datasets/{id}/copies", "/datasets/{id}/archive", "/experiments/{x}/archive"])
def test_only_managers_may_ask_for_copies(web: Web, path: str) -> None:
    path = path.format(id=web.dataset_id, x=EXPERIMENT)
    answers = {role: web(role, "POST", path, store="vault").status_code for role in ROLES}
    assert answers == dict.fromkeys(ROLES, 202) | WRITERS
    assert [len(web(role, "GET", "/copies").json()) for role in ("member", "station-manager")] == [0, 1]


def test_what_was_asked_for_is_made_once_and_then_waits_no_more(web: Web) -> None:
    asked = web("station-manager", "POST", f"/datasets/{web.dataset_id}/copies").json()
    assert (asked["store_id"], asked["as_units"], asked["error"]) == ("vault", False, "")
    again = web("station-manager", "POST", f"/datasets/{web.dataset_id}/copies", store="vault").json()
    assert again["id"] == asked["id"]
    assert asked_copies.tick(web.facility) == 1
    assert web.stores() == ["central", "vault"]
    assert web("station-manager", "GET", "/copies").json() == []
    assert asked_copies.tick(web.facility) == 0
    made = web("station-manager", "POST", f"/experiments/{EXPERIMENT}/archive", store="central").json()
    assert made["as_units"]
    assert asked_copies.tick(web.facility) == 1
    assert web("station-manager", "GET", "/units").json()["total"] == 0, "the store has every file already"


def test_a_copy_to_a_store_that_is_away_waits_for_it(web: Web) -> None:
    assert web("station-manager", "POST", f"/datasets/{web.dataset_id}/archive", store="vault").status_code == 202
    (web.place / "vault").rename(web.place / "away")
    assert asked_copies.tick(web.facility) == 0
    (waits,) = web("station-manager", "GET", "/copies").json()
    assert "vault" in waits["error"]
    (web.place / "away").rename(web.place / "vault")
    assert asked_copies.tick(web.facility) == 1
    assert web("station-manager", "GET", "/units").json()["total"] == 1


def test_who_lost_the_right_gets_no_copy_and_the_trail_says_so(web: Web) -> None:
    web("station-manager", "POST", f"/datasets/{web.dataset_id}/copies", store="vault")
    view = web.facility.catalog.view(SERVICE)
    (grant,) = [each for each in view.grants() if each.person_id == "station-manager"]
    with web.facility.catalog.change(SERVICE) as tx:
        tx.remove_grant(grant)
    assert asked_copies.tick(web.facility) == 1
    assert web.stores() == ["central"]
    (event,) = [each for each in view.events(subject=web.dataset_id) if each.verb == "copy.failed"]
    assert event.detail["error"]


def test_wrong_wishes_are_refused(web: Web) -> None:
    copies = f"/datasets/{web.dataset_id}/copies"
    assert web("facility-admin", "POST", copies, store="nowhere").status_code == 404
    assert web("facility-admin", "POST", f"/datasets/{web.dataset_id}/archive").status_code == 422
    asked_copies.ask(web.facility, principal=SERVICE, dataset_id=web.dataset_id, store_id="vault")
    asked_copies.tick(web.facility)
    assert web("facility-admin", "POST", copies).status_code == 409, "no store is left"
