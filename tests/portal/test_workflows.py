"""Workflows and flows in the portal: who sees what, the switch, a start by hand, what failed; live in Chromium."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect
from starlette.testclient import TestClient

from lightkeep.config import load
from lightkeep.facility import Facility, open_facility
from lightkeep.lifecycle.people.sign_in import COOKIE
from lightkeep.lifecycle.processing import flows
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.runs import RunState
from lightkeep.testing.populated import Populated
from lightkeep.testing.served import Server

ADMIN = Principal("facility-admin")
TEXT = """# why we do this
id = "NAME"
description = "<b>bold</b>"

[[stage]]
name = "look"
technique = "tomography"

[[stage]]
name = "tell"
command = ["/bin/sh", "-c", "echo told > {note}"]
after = ["look"]
runs_if = "failure"
outputs = { note = "note.txt" }
"""


def _as(web: TestClient, house: Populated, role: str) -> TestClient:
    headers = {"Origin": "http://testserver"}
    return TestClient(web.app, cookies={COOKIE: house.tokens[role]}, headers=headers, follow_redirects=False)


def _adopted(house: Populated, name: str) -> str:
    return flows.adopt(house.facility, TEXT.replace("NAME", name), principal=ADMIN).id


def test_a_workflow_shows_its_stages_and_nobody_s_markup(web: TestClient, house: Populated) -> None:
    name = _adopted(house, "shown")
    person = _as(web, house, "member")
    assert f"/workflows/{name}" in person.get("/workflows").text
    page = person.get(f"/workflows/{name}").text
    assert "&lt;b&gt;bold" in page
    assert "<b>bold" not in page
    assert "if it fails" in page
    assert "It begins by hand only" in page
    assert "Switch off" not in page
    assert person.get("/workflows/none-of-that").status_code == 404


def test_the_switch_is_for_managers_and_keeps_the_text(web: TestClient, house: Populated) -> None:
    name = _adopted(house, "switched")
    assert _as(web, house, "member").post(f"/workflows/{name}/switch", data={"on": "false"}).status_code == 403
    admin = _as(web, house, "facility-admin")
    view = house.facility.catalog.view(SERVICE)
    for on in ("false", "true"):
        assert admin.post(f"/workflows/{name}/switch", data={"on": on}).status_code == 303
        version = view.workflow_version(name)
        assert version.text == TEXT.replace('id = "NAME"', f'id = "{name}"\nenabled = {on}')
    assert version.version == 3


def test_a_wrong_text_is_shown_with_its_line_and_adopts_nothing(web: TestClient, house: Populated) -> None:
    name = _adopted(house, "edited")
    admin = _as(web, house, "facility-admin")
    good = TEXT.replace("NAME", name)
    for text, why in (
        (good.replace("technique =", "technic ="), "line"),
        (TEXT.replace("NAME", "x"), "of workflow"),
    ):
        answer = admin.post(f"/workflows/{name}/text", data={"text": text})
        assert answer.status_code == 422
        assert why in answer.text
        assert "&lt;b&gt;bold" in answer.text  # what was typed is still there
    assert _as(web, house, "member").post(f"/workflows/{name}/text", data={"text": good}).status_code == 403
    assert house.facility.catalog.view(SERVICE).workflow_version(name).version == 1
    changed = good.replace("why", "how").replace("\n", "\r\n")  # as browsers send it
    assert admin.post(f"/workflows/{name}/text", data={"text": changed}).status_code == 303
    assert house.facility.catalog.view(SERVICE).workflow_version(name).text == good.replace("why", "how")


def test_a_start_by_hand_needs_the_right_to_process(web: TestClient, house: Populated) -> None:
    name = _adopted(house, "by-hand")
    form = {"dataset": house.raw.id}
    assert _as(web, house, "stranger").post(f"/workflows/{name}/start", data=form).status_code == 404
    assert _as(web, house, "collaborator").post(f"/workflows/{name}/start", data=form).status_code == 403
    assert "Start on" not in _as(web, house, "collaborator").get(f"/workflows/{name}").text
    member = _as(web, house, "member")
    assert f'value="{house.raw.id}"' in member.get(f"/workflows/{name}?find=core").text
    where = member.post(f"/workflows/{name}/start", data=form).headers["location"]
    page = member.get(where).text
    assert "queued" in page
    assert "waits" in page
    assert "begun by hand" in " ".join(page.split())
    assert _as(web, house, "stranger").get(where).status_code == 404
    assert where in member.get("/flows?state=running").text
    assert where not in _as(web, house, "stranger").get("/flows").text


def test_a_stage_that_failed_is_shown_with_the_way_to_run_it_again(web: TestClient, house: Populated) -> None:
    facility = house.facility
    flow = flows.start(facility, _adopted(house, "failing"), house.raw.id, principal=Principal("member"))
    flows.advance(facility, flow.id, submit=lambda _: None)
    (run,) = facility.catalog.view(SERVICE).flow_runs(flow.id)
    with facility.catalog.change(SERVICE) as tx:
        tx.update_run(run.id, state=RunState.FAILED, message="no <i>beam</i>")
    flows.advance(facility, flow.id, submit=lambda _: None)  # the stage that tells of it
    told = facility.catalog.view(SERVICE).flow_runs(flow.id)[-1]
    with facility.catalog.change(SERVICE) as tx:
        tx.update_run(told.id, state=RunState.RUNNING)
        tx.update_run(told.id, state=RunState.DONE)
    assert flows.advance(facility, flow.id, submit=lambda _: None).state == "failed"
    page = _as(web, house, "member").get(f"/flows/{flow.id}").text
    assert "no &lt;i&gt;beam" in page
    assert "Inspect and run again" in page
    assert "Inspect and run again" not in _as(web, house, "collaborator").get(f"/flows/{flow.id}").text
    member = _as(web, house, "member")
    assert f'value="{run.id}"' in member.get("/runs?state=failed").text
    assert _as(web, house, "collaborator").post("/runs/retry", data={"run": run.id}).status_code == 409
    assert member.post("/runs/retry", data={"run": run.id}).status_code == 303
    looks = [each.state for each in facility.catalog.view(SERVICE).flow_runs(flow.id) if each.stage == "look"]
    assert looks == ["failed", "queued"]
    assert member.post("/runs/retry").status_code == 422


def test_what_a_search_finds_is_counted_before_it_is_processed(web: TestClient, house: Populated) -> None:
    view = house.facility.catalog.view(SERVICE)
    member = _as(web, house, "member")
    query = f"id:{house.raw.id}"
    before = view.runs(limit=1).total
    page = member.get(f"/find/process?q={query}&technique=tomography").text
    assert "Reconstruct 1 dataset<" in page
    stale = {"q": query, "technique": "tomography", "seen": "7"}
    answer = member.post("/find/process", data=stale)
    assert answer.status_code == 422
    assert "The search finds 1 datasets now" in answer.text
    wrong = stale | {"seen": "1", "center": "left"}
    assert "`left` is not a number" in member.post("/find/process", data=wrong).text
    collaborator = _as(web, house, "collaborator")
    assert "Reconstruct 1" not in collaborator.get(f"/find/process?q={query}&technique=tomography").text
    assert collaborator.post("/find/process", data=stale | {"seen": "1"}).status_code == 422
    assert view.runs(limit=1).total == before
    answer = member.post("/find/process", data=stale | {"seen": "1", "mask": "on", "center": "23.25"})
    assert answer.status_code == 200
    assert view.runs(limit=1).total == before + 1
    assert view.runs(limit=1).items[0].params["center"] == 23.25


@pytest.fixture
def facility(server: Server) -> Iterator[Facility]:
    """Return the server's facility, opened beside it."""
    with open_facility(load(server.config)) as opened:
        yield opened


@pytest.mark.browser
def test_a_flow_goes_on_before_one_s_eyes(page: Page, server: Server, facility: Facility) -> None:
    text = """id = "watched"
[[stage]]
name = "first"
command = ["/bin/sh", "-c", "sleep 1; echo one > {note}"]
outputs = { note = "one.txt" }
[[stage]]
name = "second"
command = ["/bin/sh", "-c", "echo two > {note}"]
after = ["first"]
outputs = { note = "two.txt" }
"""
    flows.adopt(facility, text, principal=ADMIN)
    page.goto("/workflows/watched?find=core")
    expect(page.locator("svg.across .box")).to_have_count(3)
    page.get_by_role("button", name="Start on core", exact=True).click()
    expect(page.locator("#flow > .line .state")).to_have_text("running", timeout=30_000)
    page.evaluate("window.stayed = true")
    expect(page.locator("#flow > .line .state")).to_have_text("done", timeout=60_000)
    expect(page.locator("svg.across .box .state").last).to_contain_text("done in")
    assert page.evaluate("window.stayed")  # nobody loaded the page again
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
