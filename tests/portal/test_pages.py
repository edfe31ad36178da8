"""The pages, as a person reads them: without a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people import experiments
from lightkeep.lifecycle.people.sign_in import COOKIE
from lightkeep.model import errors
from lightkeep.model.experiments import Experiment
from lightkeep.model.people import SERVICE
from lightkeep.portal.app import HEADLINES
from lightkeep.testing.populated import EXPERIMENT, PASSWORD, STATION, Populated

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7777*7777}}"


def _as(web: TestClient, house: Populated, role: str) -> TestClient:
    return TestClient(
        web.app,
        cookies={COOKIE: house.tokens[role]},
        headers={"Origin": "http://testserver"},
        raise_server_exceptions=False,
        follow_redirects=False,
    )


@pytest.fixture
def person(web: TestClient, house: Populated) -> TestClient:
    """Return a browser in which the member is signed in."""
    return _as(web, house, "member")


def test_signing_in_leads_to_where_one_wanted_to_go(web: TestClient, house: Populated) -> None:
    asked = web.get(f"/datasets/{house.raw.id}")
    assert asked.status_code == 303
    assert asked.headers["location"] == f"/sign-in?next=%2Fdatasets%2F{house.raw.id}"
    form = {"user": "pi", "password": PASSWORD, "next": f"/datasets/{house.raw.id}"}
    answer = TestClient(web.app, follow_redirects=False).post("/sign-in", data=form)
    assert answer.headers["location"] == f"/datasets/{house.raw.id}"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie


@pytest.mark.parametrize(
    "elsewhere", ["//evil.example", "https://evil.example", "/\\evil.example", "javascript:x"]
)
def test_signing_in_never_leads_to_another_site(web: TestClient, elsewhere: str) -> None:
    form = {"user": "pi", "password": PASSWORD, "next": elsewhere}
    answer = TestClient(web.app, follow_redirects=False).post("/sign-in", data=form)
    assert answer.headers["location"] == "/"


def test_a_wrong_password_says_no_more_than_that(web: TestClient) -> None:
    answer = web.post("/sign-in", data={"user": "collaborator", "password": "wrong"})
    unknown = web.post("/sign-in", data={"user": "nobody-at-all", "password": "wrong"})
    assert answer.status_code == unknown.status_code == 401
    assert answer.text.replace("collaborator", "X") == unknown.text.replace("nobody-at-all", "X")


def test_signing_out_ends_the_session_on_the_server(web: TestClient) -> None:
    browser = TestClient(web.app, headers={"Origin": "http://testserver"}, follow_redirects=False)
    browser.post("/sign-in", data={"user": "pi", "password": PASSWORD})
    token = browser.cookies[COOKIE]
    assert browser.get("/experiments").text.count("Sign out") == 1
    browser.post("/sign-out")
    again = TestClient(web.app, cookies={COOKIE: token})
    assert "Sign out" not in again.get("/experiments").text


def test_a_dataset_page_says_what_it_is_and_whether_it_is_safe(person: TestClient, house: Populated) -> None:
    text = person.get(f"/datasets/{house.raw.id}").text
    assert "One verified copy, on central." in text
    assert "Nothing lets any of it go." in text
    assert re.search(r"27\.4<span class=\"unit\">keV", text)
    assert f"/api/v1/datasets/{house.raw.id}/preview/" in text
    assert "Reconstruct" in text


def test_a_result_page_shows_the_slice_and_leads_back(person: TestClient, house: Populated) -> None:
    text = person.get(f"/datasets/{house.result.id}").text
    assert f"/api/v1/datasets/{house.result.id}/preview/2.png" in text
    assert "attenuation / pixel" in text
    assert f'href="/runs/{house.run.id}"' in text
    assert re.search(r"Rotation centre</dt><dd>.*from the data.*23\.5<span class=\"unit\">px", text)
    assert f'href="/datasets/{house.result.id}/results"' not in text  # nothing is, or can be, made of it
    assert f'href="/datasets/{house.raw.id}"' in person.get(f"/datasets/{house.result.id}/provenance").text


@pytest.mark.parametrize("tab", ["view", "results", "files", "metadata", "provenance", "safety"])
def test_every_tab_has_the_same_head(person: TestClient, house: Populated, tab: str) -> None:
    text = person.get(f"/datasets/{house.raw.id}/{tab}").text
    assert f"<h1>{house.raw.name}</h1>" in text
    assert text.count('aria-current="page"') == 2  # in the navigation and among the tabs


def test_the_form_comes_from_the_techniques_parameters(person: TestClient, house: Populated) -> None:
    text = person.get(f"/datasets/{house.raw.id}/process/tomography").text
    assert 'placeholder="derived from the data"' in text
    assert re.search(r'name="pad" type="number" step="1"[^>]* value="2"[^>]* min="1"[^>]* max="4"', text)
    assert "<option selected>ramp</option>" in text


def test_what_few_people_set_is_folded_away_and_unfolds_where_it_was_set(
    person: TestClient, house: Populated
) -> None:
    def groups(text: str) -> dict[str, bool]:
        return {
            title: bool(is_open)
            for is_open, title in re.findall(r'<details class="fold"( open)?><summary>([^<]+)</summary>', text)
        }

    address = f"/datasets/{house.raw.id}/process/tomography"
    page = person.get(address).text
    folded = groups(page)
    assert {"Corrections", "Phase retrieval"} <= set(folded)
    assert not any(folded.values())
    assert page.index('name="center"') < page.index('<details class="fold"') < page.index('name="delta_beta"')
    typed = {"delta_beta": "200", "mask": "on", "pad": "2", "center": "left"}
    answer = person.post(address, data=typed)
    assert answer.status_code == 422
    assert {title for title, is_open in groups(answer.text).items() if is_open} == {"Phase retrieval"}


def test_pressing_the_button_queues_a_run_that_can_be_cancelled(person: TestClient, house: Populated) -> None:
    pressed = person.post(f"/datasets/{house.raw.id}/process/tomography", data={"window": "hann", "mask": "on"})
    assert pressed.status_code == 303
    page = person.get(pressed.headers["location"])
    assert "queued" in page.text
    assert "hann" in page.text
    assert person.post(f"{pressed.headers['location']}/cancel").status_code == 303
    assert "Cancelled." in person.get(pressed.headers["location"]).text


def test_a_wrong_value_comes_back_with_the_form_and_what_was_typed(person: TestClient, house: Populated) -> None:
    answer = person.post(f"/datasets/{house.raw.id}/process/tomography", data={"pad": "lots", "center": "23.5"})
    assert answer.status_code == 422
    assert "<code>lots</code> is not a whole number" in answer.text
    assert 'value="23.5"' in answer.text


def test_find_narrows_and_names_a_bad_term(person: TestClient, house: Populated) -> None:
    found = person.get("/find", params={"q": "kind:raw"}).text
    assert house.raw.id in found
    assert house.result.id not in found
    assert person.get("/find", params={"q": "energy:8..9"}).status_code == 200
    bad = person.get("/find", params={"q": '"unclosed'})
    assert bad.status_code == 422
    assert "How to ask" in bad.text


def test_what_is_not_there_says_so_in_words(person: TestClient) -> None:
    answer = person.get("/datasets/ds_nothing")
    assert answer.status_code == 404
    assert "There is nothing here." in answer.text


def test_every_error_has_a_headline() -> None:
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception)]
    assert {kind.code for kind in kinds if issubclass(kind, errors.LightkeepError)} == set(HEADLINES)


def test_both_faces_give_an_error_the_same_status() -> None:
    from lightkeep.http.problem import STATUS

    assert {kind.code: status for kind, status in STATUS.items()} == {
        code: headline.status for code, headline in HEADLINES.items()
    }


def test_hostile_names_are_text_wherever_they_stand(web: TestClient, house: Populated, tmp_path: Path) -> None:
    scientist = _as(web, house, "station-manager")
    experiment = Experiment("2026-12-hostile-1", STATION, HOSTILE)
    experiments.create(house.facility, experiment, principal=SERVICE)
    source = tmp_path / "folder"
    source.mkdir()
    (source / HOSTILE.replace("/", "")).write_text("x")
    dataset = ingest(
        house.facility, source, experiment_id=experiment.id, principal=SERVICE, name=HOSTILE, quiet_s=0.0
    ).dataset
    pages = [f"/datasets/{dataset.id}{tab}" for tab in ("", "/files", "/view", "/provenance", "/safety")]
    pages += ["/", "/experiments", f"/experiments/{experiment.id}", f"/stations/{STATION}", "/storage"]
    pages += ["/find?q=%3Cimg%20src=x%3E", "/experiments?q=%3Cimg%20src=x%3E"]
    for page in pages:
        text = scientist.get(page).text
        assert "<img src=x" not in text, page
        assert "60481729" not in text, page


def test_a_page_has_no_script_or_style_of_its_own(person: TestClient, house: Populated) -> None:
    for page in ("/", "/find", f"/datasets/{house.result.id}", f"/runs/{house.run.id}"):
        text = person.get(page).text
        assert not re.search(r"<script(?![^>]* src=)|\son\w+=|\sstyle=|<style", text), page


def test_nothing_is_fetched_from_outside(person: TestClient, house: Populated) -> None:
    for page in ("/", f"/datasets/{house.result.id}"):
        assert not re.search(r'(src|href)="(https?:)?//', person.get(page).text)
    for sheet in ("tokens.css", "portal.css", "portal.js", "theme.js"):
        assert "http" not in person.get(f"/static/{sheet}").text.replace("http://www.w3.org", "")


def test_a_strangers_pages_do_not_change_when_something_invisible_appears(
    web: TestClient, house: Populated, tmp_path: Path
) -> None:
    pages = [
        "/",
        "/experiments",
        "/find",
        "/find?q=core*",
        "/runs",
        "/stations",
        f"/stations/{STATION}",
        "/storage",
    ]
    api = ["/experiments", "/datasets", "/facets", "/runs", "/events", "/people", "/stores", "/datasets?q=x*"]

    def seen(role: str) -> list[bytes]:
        found = [_as(web, house, role).get(page).content for page in pages]
        headers = {"Authorization": f"Bearer {house.tokens[role]}"} if role != "anonymous" else {}
        return found + [web.get(f"/api/v1{each}", headers=headers).content for each in api]

    before = {role: seen(role) for role in ("anonymous", "stranger")}
    insider = seen("facility-admin")
    experiment = Experiment("2026-12-secret-7", STATION, "Nobody may know")
    experiments.create(house.facility, experiment, principal=SERVICE)
    source = tmp_path / "core-secret.txt"
    source.write_text("x marks the spot")
    ingest(house.facility, source, experiment_id=experiment.id, principal=SERVICE, quiet_s=0.0)
    free = re.compile(
        rb"<td class=\"num\"><span class=\"num\">[0-9.]+<span class=\"unit\">.B</span>"
    )  # of the disk
    for role, pages_before in before.items():
        assert [free.sub(b"", page) for page in seen(role)] == [free.sub(b"", page) for page in pages_before]
    assert seen("facility-admin") != insider


def test_an_experiment_lists_its_people_and_runs(person: TestClient, house: Populated) -> None:
    people = person.get(f"/experiments/{EXPERIMENT}/people").text
    assert "collaborator" in people
    assert house.run.id in person.get(f"/experiments/{EXPERIMENT}/runs").text
