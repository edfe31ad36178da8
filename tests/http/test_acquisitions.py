"""Acquisitions over HTTP and in the portal: who defines, starts, stops and sees them."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from lightkeep.lifecycle.acquisitions import acquire
from lightkeep.lifecycle.people.sign_in import COOKIE
from lightkeep.model.acquisition import AcquisitionState, SourceKind
from lightkeep.model.people import SERVICE
from lightkeep.testing.populated import ROLES, Populated

MANAGERS = ("station-manager", "facility-admin")
WRITERS = ("pi", "station-scientist", *MANAGERS)
BLIND = ("anonymous", "stranger")


@pytest.fixture
def scans(house: Populated) -> Iterator[str]:
    """The id of an acquisition that nothing runs."""
    known = house.facility.catalog.view(SERVICE).acquisition_named(house.raw.experiment_id, "scans")
    made = known or acquire.define(
        house.facility,
        "scans",
        experiment_id=house.raw.experiment_id,
        kind=SourceKind.FOLDER,
        options={"path": "/data/incoming"},
        principal=SERVICE,
    )
    yield made.id
    acquire.stop(house.facility, made.id, principal=SERVICE)


def _as(house: Populated, role: str, *, portal: bool = False) -> dict[str, str]:
    token = house.tokens[role]
    if not token:
        return {"Origin": "http://testserver"}
    name = {"Cookie": f"{COOKIE}={token}"} if portal else {"Authorization": f"Bearer {token}"}
    return {"Origin": "http://testserver", **name}


@pytest.mark.parametrize("role", ROLES)
def test_who_writes_starts_and_stops_one_and_the_team_sees_it(
    web: TestClient, house: Populated, scans: str, role: str
) -> None:
    headers, place = _as(house, role), f"/api/v1/acquisitions/{scans}"
    expected = 200 if role in WRITERS else 404 if role in BLIND else 403
    assert web.post(f"{place}/start", headers=headers).status_code == expected
    started = house.facility.catalog.view(SERVICE).acquisition(scans)
    assert (started.state is AcquisitionState.RUNNING) == (role in WRITERS)
    assert web.post(f"{place}/stop", headers=headers).status_code == expected
    seen = web.get(place, headers=headers)
    assert seen.status_code == (404 if role in BLIND else 200)
    if seen.status_code == 200:
        assert seen.json()["options"] == {"path": "/data/incoming"}
        assert seen.json()["statistics"]["gaps"] == 0


@pytest.mark.parametrize("role", ROLES)
def test_only_a_manager_of_the_station_names_a_folder_for_the_service_to_read(
    web: TestClient, house: Populated, role: str
) -> None:
    answer = web.post(
        f"/api/v1/experiments/{house.raw.experiment_id}/acquisitions",
        headers=_as(house, role),
        json={"name": f"by-{role}", "kind": "folder", "options": {"path": "/data"}},
    )
    assert answer.status_code == (201 if role in MANAGERS else 404 if role in BLIND else 403)


def test_a_wrong_option_is_a_problem_that_names_it(web: TestClient, house: Populated) -> None:
    answer = web.post(
        f"/api/v1/experiments/{house.raw.experiment_id}/acquisitions",
        headers=_as(house, "facility-admin"),
        json={"name": "wrong", "kind": "folder", "options": {"path": "data"}},
    )
    assert answer.status_code == 422
    assert "absolute" in answer.json()["detail"]


def test_the_portal_shows_where_each_kind_takes_its_data_from(web: TestClient, house: Populated) -> None:
    options: dict[SourceKind, dict[str, Any]] = {
        SourceKind.FOLDER: {"path": "/data/h5", "include": ["*.h5"], "exclude": ["*.tmp"], "done": "{name}.done"},
        SourceKind.PVACCESS: {"channel": "SIM:Image"},
        SourceKind.ZEROMQ: {"address": "tcp://eiger:9999"},
        SourceKind.BLUESKY: {"path": "/data/documents"},
        SourceKind.REPLAY: {"file": "/data/old.h5"},
    }
    for kind, given in options.items():
        acquire.define(
            house.facility,
            f"from-{kind}",
            experiment_id=house.raw.experiment_id,
            kind=kind,
            options=given,
            principal=SERVICE,
        )
    address = f"/experiments/{house.raw.experiment_id}/acquisition"
    page = web.get(address, headers=_as(house, "pi", portal=True))
    assert page.status_code == 200
    for given in options.values():
        assert next(iter(given.values())) in page.text
    assert "only *.h5 without *.tmp done by {name}.done" in page.text


@pytest.mark.parametrize(("role", "sees_button"), [("pi", True), ("member", False)])
def test_the_portal_shows_them_with_a_button_for_who_may_press_it(
    web: TestClient, house: Populated, scans: str, role: str, sees_button: bool
) -> None:
    headers = _as(house, role, portal=True)
    page = web.get(f"/experiments/{house.raw.experiment_id}/acquisition", headers=headers)
    assert page.status_code == 200
    assert "/data/incoming" in page.text
    assert (f"/acquisitions/{scans}/start" in page.text) is sees_button
    assert web.post(f"/acquisitions/{scans}/start", headers=headers).status_code == (303 if sees_button else 403)


@pytest.mark.parametrize("role", ROLES)
def test_only_a_manager_of_the_station_defines_one_in_the_portal(
    web: TestClient, house: Populated, role: str
) -> None:
    headers, place = _as(house, role, portal=True), f"/experiments/{house.raw.experiment_id}/acquisition/folder"
    typed = {"_name": f"drawn-by-{role}", "path": "/data", "include": "*.h5 *.tif", "quiet_s": "3.5"}
    answers = [web.get(place, headers=headers), web.post(place, headers=headers, data=typed)]
    known = house.facility.catalog.view(SERVICE).acquisition_named(house.raw.experiment_id, typed["_name"])
    assert (known is not None) == (role in MANAGERS)
    if known is None:
        assert all(answer.status_code in (303, 403, 404) for answer in answers)
        assert all("sign-in" in answer.headers["location"] for answer in answers if answer.status_code == 303)
        return
    assert [answer.status_code for answer in answers] == [200, 303]
    assert known.options == {"path": "/data", "include": ["*.h5", "*.tif"], "quiet_s": 3.5}
    assert known.state is AcquisitionState.DEFINED


@pytest.mark.parametrize(
    ("kind", "typed", "options"),
    [
        ("pvaccess", {"channel": "SIM:Image", "live": "tomography-live", "params": "planned=600\nstop=true"},
         {"channel": "SIM:Image", "live": "tomography-live", "params": {"planned": "600", "stop": "true"}}),
        ("zeromq", {"address": "tcp://eiger:9999", "bind": "on"}, {"address": "tcp://eiger:9999", "bind": True}),
        ("bluesky", {"path": "/data/documents"}, {"path": "/data/documents"}),
        ("replay", {"file": "/data/old.h5", "rate": "25"}, {"file": "/data/old.h5", "rate": 25.0}),
    ],
)  # fmt: skip
def test_the_portals_form_defines_and_starts_each_kind(
    web: TestClient, house: Populated, kind: str, typed: dict[str, str], options: dict[str, Any]
) -> None:
    headers = _as(house, "facility-admin", portal=True)
    place = f"/experiments/{house.raw.experiment_id}/acquisition/{kind}"
    answer = web.post(place, headers=headers, data={"_name": f"form-{kind}", "_start": "on", **typed})
    assert answer.headers["location"] == f"/experiments/{house.raw.experiment_id}/acquisition"
    known = house.facility.catalog.view(SERVICE).acquisition_named(house.raw.experiment_id, f"form-{kind}")
    assert known is not None
    assert (known.options, known.state) == (options, AcquisitionState.RUNNING)
    acquire.stop(house.facility, known.id, principal=SERVICE)


@pytest.mark.parametrize(
    ("kind", "typed", "says"),
    [
        ("folder", {"_name": "x", "path": "data"}, "give an absolute path"),
        ("folder", {"_name": "no name", "path": "/data"}, "no name"),
        ("replay", {"_name": "x", "file": "/data/old.h5", "rate": "fast"}, "<code>fast</code> is not a number"),
        ("pvaccess", {"_name": "x", "channel": "C", "live": "average"}, "average does not work live"),
        ("pvaccess", {"_name": "x"}, "channel: Field required"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_form_is_said_above_it_and_what_was_typed_stays(
    web: TestClient, house: Populated, kind: str, typed: dict[str, str], says: str
) -> None:
    headers = _as(house, "facility-admin", portal=True)
    answer = web.post(f"/experiments/{house.raw.experiment_id}/acquisition/{kind}", headers=headers, data=typed)
    assert answer.status_code == 422
    assert says in html.unescape(answer.text)
    for value in typed.values():
        assert value in answer.text
