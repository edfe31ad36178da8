"""A run that failed is started again from its page, with other values."""

from __future__ import annotations

import re

import pytest
from starlette.testclient import TestClient

from lightkeep.lifecycle.people.sign_in import COOKIE
from lightkeep.lifecycle.processing.process import request
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.runs import Run, RunState
from lightkeep.testing.populated import Populated


@pytest.fixture
def failed(house: Populated) -> Run:
    facility = house.facility
    run = request(facility, house.raw.id, "tomography", {"center": 3.5}, principal=Principal("member"))
    with facility.catalog.change(SERVICE) as tx:
        tx.update_run(run.id, state=RunState.FAILED, message="the centre is <b>outside</b>")
    return facility.catalog.view(SERVICE).run(run.id)


def _as(web: TestClient, house: Populated, role: str) -> TestClient:
    headers = {"Origin": "http://testserver"}
    return TestClient(web.app, cookies={COOKIE: house.tokens[role]}, headers=headers, follow_redirects=False)


def test_the_form_has_what_was_asked_for_and_begins_a_new_run(
    web: TestClient, house: Populated, failed: Run
) -> None:
    person = _as(web, house, "member")
    page = person.get(f"/runs/{failed.id}").text
    assert re.search(r'name="center" type="number"[^>]* value="3.5"', page)
    assert "the centre is &lt;b&gt;outside" in page
    wrong = person.post(f"/runs/{failed.id}/retry", data={"center": "left"})
    assert wrong.status_code == 422
    assert "`left` is not a number" in wrong.text
    answer = person.post(f"/runs/{failed.id}/retry", data={"center": "4.25"})
    assert answer.status_code == 303
    again = house.facility.catalog.view(SERVICE).run(answer.headers["location"].rpartition("/")[2])
    assert (again.dataset_id, dict(again.params)) == (failed.dataset_id, {"center": 4.25})
    default = person.post(f"/runs/{failed.id}/retry", data={"center": ""})
    again = house.facility.catalog.view(SERVICE).run(default.headers["location"].rpartition("/")[2])
    assert dict(again.params) == {}


def test_switches_and_choices_are_offered_as_such_and_what_is_left_alone_stays(
    web: TestClient, house: Populated
) -> None:
    facility = house.facility
    asked = {"rings": True, "method": "cgls", "center": 3.5}
    run = request(facility, house.raw.id, "tomography", asked, principal=Principal("member"))
    with facility.catalog.change(SERVICE) as tx:
        tx.update_run(run.id, state=RunState.FAILED, message="no")
    person = _as(web, house, "member")
    page = person.get(f"/runs/{run.id}").text
    assert 'name="rings" type="checkbox" checked' in page
    assert 'name="half_acquisition" type="checkbox">' in page
    assert "<option selected>cgls</option>" in page
    shown = {"center": "3.5", "method": "nufft", "mask": "on", "accuracy": "standard", "with_values": "1"}
    answer = person.post(f"/runs/{run.id}/retry", data=shown)  # the box of `rings` is not ticked any more
    again = facility.catalog.view(SERVICE).run(answer.headers["location"].rpartition("/")[2])
    assert dict(again.params) == {"rings": False, "method": "nufft", "center": 3.5}


def test_who_may_not_process_sees_no_form_and_starts_nothing(
    web: TestClient, house: Populated, failed: Run
) -> None:
    person = _as(web, house, "collaborator")
    assert "With other values" not in person.get(f"/runs/{failed.id}").text
    assert person.post(f"/runs/{failed.id}/retry", data={"center": "4"}).status_code == 403
