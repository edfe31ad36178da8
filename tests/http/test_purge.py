"""Holds, notices, purges and the mail's link over HTTP, with each role; a purged file answers as its tombstone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from email import message_from_bytes, policy
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from lightkeep.asgi import compose
from lightkeep.lifecycle import outbox
from lightkeep.lifecycle.people import sign_in
from lightkeep.lifecycle.retention import notices, purge_plan
from lightkeep.lifecycle.retention.purge_destroy import destroy
from lightkeep.model.people import SERVICE
from lightkeep.model.stores import ReplicaState
from lightkeep.testing.retained import ADMIN, EXPERIMENT, MANAGER, MEMBER, PI, Retained, retained
from lightkeep.workflow import open_workflow

PEOPLE = (ADMIN, MANAGER, PI, MEMBER)
API = "/api/v1"


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Retained]:
    made = retained(tmp_path)
    made.dataset("scan", {"a.h5": b"a" * 1000, "b.h5": b"b" * 2000})
    made.close()
    made.clock.at += timedelta(days=100)
    made.told()
    made.verified()
    made.trust_clock()
    yield made
    made.facility.close()


@pytest.fixture
def client(kept: Retained) -> Iterator[TestClient]:
    with open_workflow(kept.facility, work=False) as orchestrator:
        app = compose(kept.facility, orchestrator)
        with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as found:
            yield found


class Caller:
    """Calls the API as each person."""

    def __init__(self, client: TestClient, kept: Retained) -> None:
        self._client = client
        self._tokens = {who.id: sign_in.new_api_token(kept.facility, who.id, label="test") for who in PEOPLE}

    def __call__(self, who: str, method: str, path: str, body: object = None):
        headers = {"Authorization": f"Bearer {self._tokens[who]}"} if who else {}
        return self._client.request(method, API + path, headers=headers, json=body)

    def statuses(
        self, method: str, path: str, body: object = None, order: str = " mia lee manuel ada"
    ) -> dict[str, int]:
        return {who: self(who, method, path, body).status_code for who in order.split(" ")}


@pytest.fixture
def call(client: TestClient, kept: Retained) -> Caller:
    return Caller(client, kept)


def test_from_a_plan_to_the_trash_and_back_each_step_by_who_may(call, kept):
    body = {"store": "central"}
    assert call.statuses("POST", "/purge/plans", body) == {
        "": 401,
        "mia": 403,
        "lee": 403,
        "manuel": 403,
        "ada": 201,
    }
    (plan,) = call("ada", "GET", "/purge/plans").json()["items"]
    assert (plan["files"], plan["size"], plan["state"]) == (2, 3000, "frozen")
    here = f"/purge/plans/{plan['id']}"
    assert call("ada", "GET", here).json()["waiting_for"] == "a manager must approve it"
    seen = {"": 404, "mia": 404, "lee": 404, "manuel": 200, "ada": 200}
    assert call.statuses("GET", here) == seen
    assert call.statuses("GET", f"{here}/items") == seen
    assert [call(who, "GET", "/purge/plans").json()["total"] for who in ("", "mia", "lee", "manuel")] == [
        0,
        0,
        0,
        1,
    ]
    assert call.statuses("POST", f"{here}/approve") == {"": 404, "mia": 404, "lee": 404, "manuel": 200, "ada": 409}
    assert call.statuses("POST", f"{here}/run") == {"": 401, "mia": 403, "lee": 403, "manuel": 403, "ada": 200}
    items = call("manuel", "GET", f"{here}/items").json()
    assert [item["state"] for item in items] == ["trashed"] * 2
    assert all(item["evidence"]["conditions"]["P1"][1] for item in items)
    assert call.statuses("POST", f"{here}/undo", order=" mia manuel") == {"": 404, "mia": 404, "manuel": 200}
    assert kept.states() == ["verified"] * 2
    assert call.statuses("POST", f"{here}/cancel", order="lee manuel ada") == {
        "lee": 403,
        "manuel": 403,
        "ada": 409,
    }


def test_whether_purges_may_run_is_for_managers(call):
    assert call.statuses("GET", "/purge") == {"": 401, "mia": 403, "lee": 403, "manuel": 403, "ada": 200}
    assert call("ada", "GET", "/purge").json() == {"is_enabled": True, "reasons": []}


def test_holds_by_who_may(call, kept):
    body = {"scope": "experiment", "scope_id": EXPERIMENT, "reason": "thesis", "kind": "extension"}
    until = (kept.clock.at + timedelta(days=90)).isoformat()
    made = call("lee", "POST", "/holds", body | {"until": until})
    assert made.status_code == 201
    assert call.statuses("POST", "/holds", body | {"until": until}, " mia") == {"": 404, "mia": 403}
    assert call("lee", "POST", "/holds", body).status_code == 422
    assert call("lee", "POST", "/holds", body | {"until": until[:-6]}).status_code == 422
    hold = made.json()["id"]
    assert [call(who, "GET", "/holds").json()["total"] for who in ("", "mia", "lee")] == [0, 1, 1]
    release = f"/holds/{hold}/release"
    assert call.statuses("POST", release, order=" mia lee") == {"": 404, "mia": 403, "lee": 200}


def test_notices_say_what_and_never_to_whom(call, kept):
    found = call("mia", "GET", "/notices").json()
    assert found["total"] == 3
    assert "example.org" not in str(found)
    assert call("", "GET", "/notices").json()["total"] == 0
    here = f"/notices/{found['items'][0]['id']}/acknowledge"
    assert call.statuses("POST", here, order=" mia lee") == {"": 404, "mia": 403, "lee": 200}
    assert call("lee", "POST", here).status_code == 409


def link(kept: Retained) -> str:
    """Return the secret of the first mail that went out."""
    outbox.send_waiting(kept.facility)
    folder = kept.facility.config.root / "mail"
    texts = [
        message_from_bytes(each.read_bytes(), policy=policy.default).get_content() for each in folder.glob("*.eml")
    ]
    return next(found[1] for text in texts if (found := re.search(r"/extend/(\S+)", text)))


@pytest.fixture
def token(kept: Retained) -> str:
    with kept.facility.catalog.change(SERVICE) as tx:
        for notice in kept.facility.catalog.view(SERVICE).notices():
            from lightkeep.model.retention import NoticeState

            tx.set_notice_state(notice.id, NoticeState.VOID)
    notices.announce(kept.facility)
    return link(kept)


def test_the_link_shows_what_and_one_button_keeps_it(client, kept, token):
    page = client.get(f"/extend/{token}")
    assert page.status_code == 200
    assert EXPERIMENT in page.text
    assert "Keep all of it 90 days more" in page.text
    assert kept.facility.catalog.view(SERVICE).holds().total == 0  # looking changes nothing
    done = client.post(f"/extend/{token}", headers={"Origin": "http://testserver"})
    assert (done.status_code, done.headers["location"]) == (303, f"/extend/{token}")
    again = client.post(f"/extend/{token}", headers={"Origin": "http://testserver"})
    assert again.status_code == 303
    (hold,) = kept.facility.catalog.view(SERVICE).holds()
    assert hold.until == kept.clock.at + timedelta(days=120)
    after = client.get(f"/extend/{token}")
    assert "kept until" in after.text
    assert "Keep all of it 90 days more" not in after.text


def test_the_link_works_over_the_api_too(client, kept, token):
    assert client.get(f"{API}/extend/{token}").json()["kept_until"] is None
    assert client.post(f"{API}/extend/{token}").json()["kept_until"].startswith("2026-09")


@pytest.mark.parametrize("wrong", ["x" * 43, "x", "a b", "%00", "é" * 30])
def test_a_wrong_link_says_so_and_changes_nothing(client, kept, token, wrong):
    assert client.get(f"/extend/{wrong}").status_code in (400, 404)
    assert client.post(f"/extend/{wrong}", headers={"Origin": "http://testserver"}).status_code in (400, 404)
    assert client.post(f"{API}/extend/{wrong}").status_code in (400, 404, 422)
    assert kept.facility.catalog.view(SERVICE).holds().total == 0


def test_another_sites_page_cannot_press_the_button(client, kept, token):
    found = client.post(f"/extend/{token}", headers={"Origin": "https://evil.example"})
    assert found.status_code == 403
    assert kept.facility.catalog.view(SERVICE).holds().total == 0


def test_a_purged_file_answers_with_its_tombstone(call, kept):
    view = kept.facility.catalog.view(SERVICE)
    plan = purge_plan.plan(kept.facility, "central", principal=ADMIN)
    purge_plan.approve(kept.facility, plan.id, principal=MANAGER)
    here = f"/datasets/{kept.datasets['scan'].id}/files/a.h5"
    assert call("ada", "POST", f"/purge/plans/{plan.id}/run").status_code == 200
    kept.clock.at += timedelta(days=14)
    kept.verified()
    kept.trust_clock()
    destroy(kept.facility, principal=ADMIN)
    others = [r for r in view.replicas(kept.datasets["scan"].id) if r.store_id != "central"]
    with kept.facility.catalog.change(SERVICE) as tx:
        tx.set_replicas(others, state=ReplicaState.SUSPECT)
        tx.set_replicas(others, state=ReplicaState.CORRUPT)
    answer = call("mia", "GET", here)
    assert answer.status_code == 503  # other copies are there, if bad: it is not gone, it cannot be read
    assert call("", "GET", here).status_code == 404
