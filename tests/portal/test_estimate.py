"""When a run would end at each place, asked for before it is begun."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from lightkeep.lifecycle.people.sign_in import COOKIE
from lightkeep.model.people import SERVICE
from lightkeep.testing.populated import Populated


def _runs(house: Populated) -> int:
    return int(house.facility.catalog.view(SERVICE).runs(limit=1).total)


def test_form_and_api_tell_where_a_run_would_end_first_and_queue_nothing(
    web: TestClient, house: Populated
) -> None:
    person = TestClient(web.app, cookies={COOKIE: house.tokens["member"]}, headers={"Origin": "http://testserver"})
    before = _runs(house)
    form = f"/datasets/{house.raw.id}/process/tomography"
    assert f'formaction="{form}/estimate' in person.get(form).text
    page = person.post(f"{form}/estimate", data={"center": "23.5"})
    assert page.status_code == 200
    for text in ("Where it would end first", "inline", "processes", 'value="23.5"', f'action="{form}"'):
        assert text in page.text
    asked = {"technique": "tomography", "params": {"center": 23.5}}
    answer = person.post(f"/api/v1/datasets/{house.raw.id}/estimates", json=asked)
    assert answer.status_code == 200, answer.text
    places = answer.json()
    assert {each["place"] for each in places} == {"inline", "processes"}
    assert all(each["total_s"] > 0 for each in places)
    assert places == sorted(places, key=lambda each: each["total_s"])
    wrong = person.post(f"{form}/estimate", data={"center": "east"})
    assert (wrong.status_code, "center" in wrong.text, _runs(house)) == (422, True, before)


@pytest.mark.parametrize(("role", "status"), [("anonymous", 404), ("stranger", 404), ("collaborator", 403)])
def test_who_may_not_process_is_told_nothing(web: TestClient, house: Populated, role: str, status: int) -> None:
    headers = {"Authorization": f"Bearer {token}"} if (token := house.tokens[role]) else {}
    asked = {"technique": "tomography"}
    answer = web.post(f"/api/v1/datasets/{house.raw.id}/estimates", json=asked, headers=headers)
    assert answer.status_code == status
