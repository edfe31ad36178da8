"""Experiments from proposals: files, a real HTTP server with faults, and what a synchronisation may change."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightkeep.config import Config, ProposalsConfig
from lightkeep.facility import Facility
from lightkeep.lifecycle.people import experiments, set_up
from lightkeep.lifecycle.people.proposal_source import fetch
from lightkeep.lifecycle.people.proposals import Act, experiment_name, from_source, plain_name, sync
from lightkeep.model.clock import SystemIds
from lightkeep.model.errors import Forbidden, InvalidInput, LightkeepError, NotFound, SourceError
from lightkeep.model.experiments import ExperimentState, Station
from lightkeep.model.people import SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.model.proposals import Member, Proposal
from lightkeep.testing.new_facility import new_facility
from lightkeep.testing.populated import StillClock

ADMIN, SCIENTIST = Principal("admin"), Principal("scientist")
RECORD = {
    "number": "81234",
    "station": "2-BM-A",
    "title": "Zähne & Knochen",
    "starts": "2026-11-20T08:00-06:00",
    "ends": "2026-11-27",
    "esaf": "281234",
    "people": [
        {"last_name": "Müller-Lüdenscheidt", "first_name": "Jörg", "email": "JM@uni.example", "role": "pi"},
        {"last_name": "李", "first_name": "雷", "email": "lei@uni.example", "badge": 65321},
        {"last_name": "Müller-Lüdenscheidt", "first_name": "J.", "email": "jm@uni.example", "role": "member"},
    ],
}
NAME = "2026-11-mueller-luedenscheidt-81234"


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    with new_facility(
        Config(tmp_path / "home"), admin=Person("admin", "Admin"), clock=StillClock(), ids=SystemIds()
    ) as made:
        set_up.add_station(made, Station("2-BM-A"), principal=ADMIN)
        set_up.add_person(made, Person("scientist", "Sci"), principal=ADMIN)
        set_up.grant(made, Grant("scientist", Role.STATION_SCIENTIST, Scope.STATION, "2-BM-A"), principal=ADMIN)
        yield made


def proposal(**changes: Any) -> Proposal:
    people = (Member("Lee", "Ann", "ann@uni.example", is_pi=True), Member("Kim", "Bo", "bo@uni.example", "d2"))
    made = Proposal("777", "2-BM-A", people, "Teeth", datetime(2026, 11, 20, tzinfo=UTC))
    return replace(made, **changes)


def roles(facility: Facility, experiment_id: str) -> dict[str, str]:
    return {g.person_id: str(g.role) for g in facility.catalog.view(SERVICE).grants(experiment_id)}


def written(folder: Path, kind: str) -> Path:
    path = folder / f"proposals.{kind}"
    if kind == "json":
        path.write_text(json.dumps({"proposals": [RECORD, {**RECORD, "number": "9", "esaf": "1"}]}))
    elif kind == "csv":
        lines = ["number,station,title,starts,ends,esaf,last_name,first_name,email,badge,role"]
        for person in RECORD["people"]:  # type: ignore[attr-defined]
            head = [str(RECORD[key]) for key in ("number", "station", "title", "starts", "ends", "esaf")]
            keys = ("last_name", "first_name", "email", "badge", "role")
            lines.append(",".join([*head, *(str(person.get(key, "")) for key in keys)]))
        path.write_text("\n".join(lines))
    else:
        people = "\n".join(
            "[[proposal.people]]\n"
            + "\n".join(f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in each.items())
            for each in RECORD["people"]  # type: ignore[attr-defined]
        )
        top = "\n".join(f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in RECORD.items() if k != "people")
        path.write_text(f"[[proposal]]\n{top}\n{people}\n")
    return path


@pytest.mark.parametrize("kind", ["json", "csv", "toml"])
def test_a_file_of_each_kind_makes_the_same_experiment(facility: Facility, tmp_path: Path, kind: str) -> None:
    (done,) = from_source(facility, principal=ADMIN, place=str(written(tmp_path, kind)), number="81234")
    assert done.experiment_id == NAME
    made = facility.catalog.view(ADMIN).experiment(NAME)
    assert made.title == "Zähne & Knochen"
    assert made.starts_at == datetime(2026, 11, 20, 14, tzinfo=UTC)
    assert made.state is ExperimentState.OPEN
    assert made.identifiers == {"proposal": "81234", "esaf": "281234"}
    assert roles(facility, NAME) == {"mueller-luedenscheidt-j": "pi", "d65321": "member"}
    assert facility.catalog.view(ADMIN).person("d65321").name == "雷 李"
    assert facility.catalog.password_hash("d65321") is None
    assert facility.catalog.verify_events() == []


def test_again_changes_nothing(facility: Facility) -> None:
    assert sync(facility, proposal(), principal=ADMIN).steps
    head = facility.catalog.head()
    assert sync(facility, proposal(), principal=ADMIN).steps == ()
    assert facility.catalog.head() == head


def test_a_dry_run_names_what_it_would_do_and_does_nothing(facility: Facility) -> None:
    head = facility.catalog.head()
    looked = sync(facility, proposal(station_id="9-ID"), principal=ADMIN, dry_run=True)
    assert facility.catalog.head() == head
    assert not looked.is_done
    assert [step.act for step in looked.steps] == [
        Act.ADD_STATION, Act.ADD_EXPERIMENT, Act.ADD_PERSON, Act.ADD_PERSON, Act.GRANT, Act.GRANT,
    ]  # fmt: skip
    assert sync(facility, proposal(station_id="9-ID"), principal=ADMIN).steps == looked.steps


def test_the_end_of_a_membership_counts_at_once(facility: Facility) -> None:
    name = sync(facility, proposal(), principal=ADMIN).experiment_id
    view = facility.catalog.view(Principal("d2"))
    assert view.experiment(name).id == name
    sync(facility, proposal(people=proposal().people[:1]), principal=ADMIN)
    with pytest.raises(NotFound):
        view.experiment(name)


def test_a_grant_that_a_person_gave_is_never_taken_away(facility: Facility) -> None:
    name = sync(facility, proposal(), principal=ADMIN).experiment_id
    set_up.add_person(facility, Person("guest", "Guest"), principal=ADMIN)
    set_up.grant(facility, Grant("guest", Role.MEMBER, Scope.EXPERIMENT, name), principal=ADMIN)
    set_up.grant(facility, Grant("d2", Role.MEMBER, Scope.EXPERIMENT, name), principal=ADMIN)  # again, by hand
    done = sync(facility, proposal(people=proposal().people[:1]), principal=ADMIN)
    assert done.steps == ()
    assert roles(facility, name) == {"lee-a": "pi", "guest": "member", "d2": "member"}


def test_a_member_who_becomes_pi_changes_role(facility: Facility) -> None:
    name = sync(facility, proposal(), principal=ADMIN).experiment_id
    ann, bo = proposal().people
    sync(facility, proposal(people=(replace(ann, is_pi=False), replace(bo, is_pi=True))), principal=ADMIN)
    assert roles(facility, name) == {"lee-a": "member", "d2": "pi"}


def test_another_pi_or_title_is_the_same_experiment(facility: Facility) -> None:
    name = sync(facility, proposal(), principal=ADMIN).experiment_id
    other = proposal(title="Bones", people=(Member("New", "Pi", "new@x.example", is_pi=True),))
    again = sync(facility, other, principal=ADMIN)
    assert again.experiment_id == name
    assert facility.catalog.view(ADMIN).experiment(name).title == "Bones"
    assert facility.catalog.view(ADMIN).experiments().total == 1


def test_the_next_beam_time_of_a_proposal_is_another_experiment(facility: Facility) -> None:
    first = sync(facility, proposal(identifiers={"esaf": "1"}), principal=ADMIN).experiment_id
    later = proposal(identifiers={"esaf": "2"}, starts_at=datetime(2027, 2, 1, tzinfo=UTC))
    second = sync(facility, later, principal=ADMIN).experiment_id
    assert first != second
    assert facility.catalog.view(ADMIN).experiment(second).state is ExperimentState.PLANNED


def test_the_window_of_a_closed_experiment_stays(facility: Facility) -> None:
    name = sync(facility, proposal(), principal=ADMIN).experiment_id
    experiments.close(facility, name, principal=ADMIN)
    assert sync(facility, proposal(ends_at=datetime(2026, 11, 21, tzinfo=UTC)), principal=ADMIN).steps == ()


def test_nobody_is_granted_anything_in_doubt(facility: Facility) -> None:
    set_up.add_person(facility, Person("mlee", "Mary Lee", "mary@x.example"), principal=ADMIN)
    set_up.add_person(facility, Person("two", "Two", "same@x.example"), principal=ADMIN)
    set_up.add_person(facility, Person("three", "Three", "SAME@x.example"), principal=ADMIN)
    people = (
        proposal().people[0],
        Member("Lee", "Michael", "michael@x.example", "mlee"),  # the user name of somebody else
        Member("Nobody", "Known"),
        Member("Same", "S", "same@x.example"),
    )
    done = sync(facility, proposal(people=people), principal=ADMIN)
    assert roles(facility, done.experiment_id) == {"lee-a": "pi"}
    left = [step.text for step in done.steps if step.act is Act.LEAVE]
    assert len(left) == 3
    assert "another e-mail address" in left[0]


def test_two_people_of_one_name_are_two(facility: Facility) -> None:
    people = (proposal().people[0], Member("Lee", "Alan", "alan@x.example"))
    done = sync(facility, proposal(people=people), principal=ADMIN)
    assert roles(facility, done.experiment_id) == {"lee-a": "pi", "lee-a-2": "member"}


def test_accounts_come_from_an_administrator_or_the_facilitys_own_source(
    facility: Facility, tmp_path: Path
) -> None:
    place = str(written(tmp_path, "json"))
    with pytest.raises(Forbidden):
        from_source(facility, principal=SCIENTIST, place=place, number="81234")
    ours = replace(facility, config=replace(facility.config, proposals=ProposalsConfig(place)))
    (done,) = from_source(ours, principal=SCIENTIST, number="81234")
    assert done.experiment_id == NAME
    with pytest.raises(NotFound):
        from_source(ours, principal=Principal("d65321"), experiment_id="nowhere")
    (again,) = from_source(ours, principal=SCIENTIST, experiment_id=NAME)
    assert again.steps == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"people": ()}, "no principal investigator"),
        ({"number": ""}, "needs a number"),
        ({"station_id": ""}, "names no station"),
        ({"station_id": "../etc"}, "not a name for a station"),
        ({"ends_at": datetime(2020, 1, 1, tzinfo=UTC)}, "ends before it starts"),
    ],
)
def test_what_cannot_be_an_experiment_is_refused(facility: Facility, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput, match=says):
        sync(facility, proposal(**changes), principal=ADMIN)


@given(last=st.text(max_size=300), number=st.text("0123456789-abc /.", min_size=1, max_size=80))
def test_any_name_makes_an_experiment_that_any_folder_takes(last: str, number: str) -> None:
    made = Proposal(number, "2-BM", (Member(last, is_pi=True),))
    name = experiment_name(made, now=datetime(2026, 11, 22, tzinfo=UTC))
    set_up.check_name(name, "an experiment")
    assert plain_name(plain_name(last)) == plain_name(last)


# ---- a service


class Service:
    """A proposal system on loopback that answers as it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.answer: Callable[[BaseHTTPRequestHandler], None] = self.good
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.seen.append((self.path, self.headers.get("Authorization", "")))
                with suppress(BrokenPipeError):
                    service.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def good(self, request: BaseHTTPRequestHandler) -> None:
        self.send(request, 200, json.dumps(RECORD).encode())

    @staticmethod
    def send(request: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)


@pytest.fixture
def service() -> Iterator[Service]:
    made = Service()
    yield made
    made.close()


def test_a_service_is_asked_for_the_number_with_the_token(facility: Facility, service: Service) -> None:
    (found,) = fetch(service.url + "/api/{number}", "81234", token="secret")
    assert service.seen == [("/api/81234", "Bearer secret")]
    assert sync(facility, found, principal=ADMIN).experiment_id == NAME


def test_names_of_the_aps_services_are_read(service: Service) -> None:
    record = {
        "id": 81234,
        "title": "HEDM",
        "experimenters": [
            {"badge": "65321", "firstName": "Ann", "lastName": "Lee", "email": "a@x.example", "piFlag": "Y"},
            {"badge": "65322", "firstName": "Bo", "lastName": "Kim", "email": "b@x.example"},
        ],
        "activities": [{"beamline": "1-ID", "startTime": "2026-11-20 08:00:00-06:00", "endTime": "2026-11-25"}],
    }
    service.answer = lambda request: service.send(request, 200, json.dumps(record).encode())
    (found,) = fetch(service.url)
    assert (found.number, found.station_id, found.people[0].user) == ("81234", "1-ID", "d65321")
    assert [each.is_pi for each in found.people] == [True, False]
    assert found.starts_at == datetime(2026, 11, 20, 14, tzinfo=UTC)


def drip(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.send_header("Content-Length", "1000000")
    request.end_headers()
    for _ in range(200):
        request.wfile.write(b" ")
        request.wfile.flush()
        time.sleep(0.05)


FAULTS: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {
    "error": lambda request: Service.send(request, 500, b"<h1>oops"),
    "no JSON": lambda request: Service.send(request, 200, b"<html>"),
    "nested": lambda request: Service.send(request, 200, b"[" * 200_000),
    "no records": lambda request: Service.send(request, 200, b'["a", 3]'),
    "not UTF-8": lambda request: Service.send(request, 200, b'{"number": "\xff"}'),
    "people of no kind": lambda request: Service.send(request, 200, b'{"number": 1, "people": "Lee"}'),
    "odd time": lambda request: Service.send(request, 200, b'{"number": 1, "people": [], "starts": "soon"}'),
    "huge": lambda request: Service.send(request, 200, b" " * (9 << 20)),
    "drip": drip,
    "other host": lambda request: Service.send(request, 302, b"", Location="http://127.0.0.2:1/"),
    "other scheme": lambda request: Service.send(request, 302, b"", Location="file:///etc/passwd"),
    "circle": lambda request: Service.send(request, 302, b"", Location="/again"),
    "cut off": lambda request: Service.send(request, 200, b"", **{"Transfer-Encoding": "chunked"}),
    "gone": lambda request: Service.send(request, 404, b""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_service_with_a_fault_is_an_error_of_ours_and_soon(service: Service, fault: str) -> None:
    service.answer = FAULTS[fault]
    begin = time.monotonic()
    with pytest.raises((SourceError, InvalidInput, NotFound)) as refused:
        fetch(service.url + "/{number}", "1", token="secret", deadline_s=1.0)
    assert time.monotonic() - begin < 8
    assert isinstance(refused.value, LightkeepError)
    assert "secret" not in refused.value.message + refused.value.remedy


def test_a_redirect_on_the_same_host_is_followed(service: Service) -> None:
    def once(request: BaseHTTPRequestHandler) -> None:
        if request.path == "/old":
            service.send(request, 301, b"", Location="/new")
        else:
            service.good(request)

    service.answer = once
    assert fetch(service.url + "/old")[0].number == "81234"


def test_another_host_is_never_asked_and_never_sees_the_token(service: Service) -> None:
    other = Service()
    service.answer = lambda request: service.send(request, 302, b"", Location=other.url + "/81234")
    with pytest.raises(SourceError, match="another host"):
        fetch(service.url, token="secret")
    other.close()
    assert other.seen == []


def test_a_service_that_is_not_there_is_said_so() -> None:
    with pytest.raises(SourceError):
        fetch("http://127.0.0.1:1/", deadline_s=1.0)


def test_link_local_addresses_are_not_asked() -> None:
    from lightkeep.lifecycle.people.proposal_source import _check_peer

    for address in ("169.254.169.254", "fe80::1%eth0", "::ffff:169.254.169.254", "0.0.0.0", "ff02::1"):
        with pytest.raises(OSError, match="not one of a proposal system"):
            _check_peer(address)
    for address in ("10.1.2.3", "127.0.0.1", "::1", "2001:db8::1"):
        _check_peer(address)
