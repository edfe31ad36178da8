"""A scan of a real RunEngine ends early when an acquisition asks for it, and its documents say why."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bluesky.plan_stubs as bps
import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import RunEngine
from ophyd_async.core import init_devices
from ophyd_async.sim import SimMotor
from p4p.client.thread import Context, RemoteError
from p4p.nt import NTNDArray
from p4p.server import Server
from p4p.server.thread import SharedPV

from lightkeep.acquisition.documents import Documents, read
from lightkeep.acquisition.frames import PvAccessSource
from lightkeep.acquisition.options import PvAccess
from lightkeep.acquisition.stop_requests import StopRequests
from lightkeep.model.acquisition import Frame

PLANNED = 12
SUFFICES = {"reason": "the images are at rest", "used": 5, "planned": PLANNED, "quality": 0.93}
WAIT_S = 60.0


@pytest.fixture
def requests() -> Iterator[StopRequests]:
    with StopRequests("SIM:StopRequest", is_isolated=True) as made:
        yield made


@pytest.fixture
def engine(tmp_path: Path) -> RunEngine:
    made = RunEngine(call_returns_result=True)
    made.subscribe(Documents(tmp_path / "documents"))
    return made


@pytest.fixture
def angle(engine: RunEngine) -> SimMotor:
    with init_devices():
        motor = SimMotor(instant=True)
    return motor  # noqa: RET504 -- named when the block ends


def _at_point(engine: RunEngine, number: int, act: Callable[[], object]) -> None:
    """Do something when a scan has taken its point of this number, from 1; the scan waits for it."""

    def seen(_: str, document: Any) -> None:
        if document["seq_num"] == number:
            act()

    engine.subscribe(seen, "event")


def _ask(requests: StopRequests, why: object) -> None:
    with Context("pva", conf=requests.epics, useenv=False) as context:
        text = why if isinstance(why, str) else json.dumps(why)
        context.put(requests.channel, {"value": text}, timeout=WAIT_S)


def _ended(tmp_path: Path) -> dict[str, Any]:
    """Return the newest run's stop document."""
    newest = max((tmp_path / "documents").glob("*.jsonl"), key=lambda path: path.stat().st_mtime_ns)
    name, document = json.loads(newest.read_text().splitlines()[-1])
    assert name == "stop"
    return dict(document)


def test_a_scan_ends_at_the_checkpoint_after_the_request_and_says_why(
    engine: RunEngine, angle: SimMotor, requests: StopRequests, tmp_path: Path
) -> None:
    _at_point(engine, 6, lambda: _ask(requests, SUFFICES))
    engine.preprocessors.append(requests.obeyed)
    assert engine(bp.scan([], angle, 0, 180, PLANNED)).exit_status == "success"
    stop = _ended(tmp_path)
    assert (stop["exit_status"], stop["num_events"]) == ("success", {"primary": 6})
    assert stop["reason"] == "Lightkeep: enough after 5 of 12 projections: the images are at rest"
    (documents,) = (tmp_path / "documents").glob("*.jsonl")
    assert read(documents).reason == stop["reason"]


def test_the_plan_around_a_scan_that_ended_early_goes_on(
    engine: RunEngine, angle: SimMotor, requests: StopRequests, tmp_path: Path
) -> None:
    cleaned = []

    def scan() -> Iterator[Any]:
        try:
            yield from bp.scan([], angle, 0, 180, PLANNED)
        finally:
            cleaned.append(True)
            yield from bps.null()

    def night() -> Iterator[Any]:
        yield from requests.obeyed(scan())
        yield from requests.obeyed(bp.scan([], angle, 0, 180, 3))

    _at_point(engine, 6, lambda: _ask(requests, SUFFICES))
    assert len(engine(night()).run_start_uids) == 2
    assert cleaned == [True]
    assert _ended(tmp_path)["num_events"] == {"primary": 3}


@pytest.mark.parametrize("point", [0, 3])
def test_a_request_that_is_about_an_earlier_scan_is_not_obeyed(
    engine: RunEngine, angle: SimMotor, requests: StopRequests, tmp_path: Path, point: int
) -> None:
    late = {**SUFFICES, "used": 400}
    if point:
        _at_point(engine, point, lambda: _ask(requests, late))
    else:
        _ask(requests, SUFFICES)
    engine(requests.obeyed(bp.scan([], angle, 0, 180, PLANNED)))
    stop = _ended(tmp_path)
    assert (stop["num_events"], stop["reason"]) == ({"primary": PLANNED}, "")


@pytest.mark.parametrize("text", ["stop!", "[]", '{"used": 3}', '{"reason": "x", "used": "many"}'])
def test_what_is_no_request_is_refused(requests: StopRequests, text: str) -> None:
    with pytest.raises(RemoteError, match="not a request to stop"):
        _ask(requests, text)
    assert requests.newest == {}


def test_what_a_plan_cannot_do_still_fails_its_run(
    engine: RunEngine, requests: StopRequests, tmp_path: Path
) -> None:
    def broken() -> Iterator[Any]:
        yield from bps.open_run()
        raise ValueError("no beam")

    engine.preprocessors.append(requests.obeyed)
    with pytest.raises(ValueError, match="no beam"):
        engine(broken())
    assert _ended(tmp_path)["exit_status"] == "fail"


def test_an_acquisition_ends_a_scan_through_the_channel(
    engine: RunEngine, angle: SimMotor, requests: StopRequests, tmp_path: Path
) -> None:
    image = SharedPV(initial=_frame(0))
    with Server(providers=[{"SIM:Image": image}], isolate=True) as server:
        ports = [each["EPICS_PVA_BROADCAST_PORT"] for each in (server.conf(), requests.epics)]
        epics = {
            "EPICS_PVA_ADDR_LIST": " ".join(f"127.0.0.1:{port}" for port in ports),
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        }
        source = PvAccessSource(PvAccess(channel="SIM:Image", request=requests.channel, epics=epics))
        following = threading.Thread(target=_follow, args=(source,))
        following.start()
        engine.subscribe(lambda _, event: image.post(_frame(event["seq_num"])), "event")
        _at_point(engine, 5, following.join)
        engine(requests.obeyed(bp.scan([], angle, 0, 180, PLANNED)))
    source.close()
    stop = _ended(tmp_path)
    assert stop["num_events"] == {"primary": 5}
    assert "the images are at rest" in stop["reason"]


def _frame(number: int) -> Any:
    value = NTNDArray().wrap(np.full((4, 4), number, np.uint16), timestamp=time.time() if number else 1.0)
    value.uniqueId = number
    return value


def _follow(source: PvAccessSource) -> None:
    """Ask for the end after the fifth frame, as an acquisition does whose technique has seen enough."""
    for message in source.messages():
        if isinstance(message, Frame) and message.number == 5:
            source.stop(SUFFICES)
            return
