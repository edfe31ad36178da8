"""A run's page and the API show what each place promised, and what the run took."""

from __future__ import annotations

from starlette.testclient import TestClient

from lightkeep.lifecycle.people.sign_in import COOKIE
from lightkeep.lifecycle.processing.process import request
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.runs import RunState
from lightkeep.testing.populated import Populated

PARTS = {"transfer_s": 61.0, "compute_s": 5.0, "total_s": 80.0}


def test_estimates_and_truth_are_on_the_page_and_in_the_api(web: TestClient, house: Populated) -> None:
    run = request(house.facility, house.raw.id, "tomography", principal=Principal("member"), engine="auto")
    far = {"place": "nersc", "wait_s": 14.0, "reason": "wait: <guess>", "is_possible": True, **PARTS}
    away = {"place": "alcf", "wait_s": 0.0, "reason": "it is down", "is_possible": False, **PARTS}
    placement = {"estimates": [far, away], "truth": {"wait_s": 33.0, **PARTS}}
    person = TestClient(web.app, cookies={COOKIE: house.tokens["member"]})
    with house.facility.catalog.change(SERVICE) as tx:
        tx.update_run(run.id, state=RunState.RUNNING, engine="nersc", placement={"estimates": [far, away]})
    page = person.get(f"/runs/{run.id}").text
    assert "14 s" in page
    assert "measured" not in page, "it has not ended"
    with house.facility.catalog.change(SERVICE) as tx:
        tx.update_run(run.id, state=RunState.FAILED, engine="nersc", placement=placement)
    page = person.get(f"/runs/{run.id}").text
    assert "wait: &lt;guess&gt;" in page
    for text in ("nersc", "14 s", "33 s", "it is down", "measured"):
        assert text in page
    assert person.get(f"/api/v1/runs/{run.id}").json()["placement"]["truth"]["wait_s"] == 33.0
