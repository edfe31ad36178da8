"""A scan on a virtual beamline stops itself when its data suffice, and everything that was measured is kept."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bluesky.plans as bp
import numpy as np
import pytest
from bluesky import RunEngine
from ophyd_async.core import init_devices
from ophyd_async.sim import SimMotor
from p4p.nt import NTNDArray
from p4p.server import Server
from p4p.server.thread import SharedPV

from lightkeep.acquisition.documents import Documents
from lightkeep.acquisition.stop_requests import StopRequests
from lightkeep.facility import Facility
from lightkeep.lifecycle.acquisitions import acquire
from lightkeep.lifecycle.acquisitions.acquire_run import run
from lightkeep.lifecycle.processing import process
from lightkeep.model.acquisition import SourceKind
from lightkeep.model.datasets import DatasetState
from lightkeep.model.people import SERVICE
from lightkeep.model.runs import LIVE, Run, RunState
from lightkeep.testing.beamline.live import Shot, VirtualBeamline, shots

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
from house import ADA, EXPERIMENT, build

WAIT_S = 180.0
PLANNED = 2000
FLATS, DARKS = 10, 5
PARAMS = {"planned": PLANNED, "stop": True, "quality": 0.8, "resolution_px": 4.0, "rows": 4}


def until(true: Callable[[], Any], why: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while not (found := true()):
        assert time.monotonic() < deadline, why
        time.sleep(0.05)
    return found


def measured(facility: Facility, options: dict[str, Any], *, measure: Callable[[], object] = lambda: None) -> Run:
    """Acquire one scan with live tomography, while `measure` is called; return the run that followed it."""
    options = {"idle_s": 2.0, "live": "tomography-live", "params": PARAMS, **options}
    made = acquire.define(
        facility, "camera", experiment_id=EXPERIMENT, kind=SourceKind.PVACCESS, options=options, principal=ADA
    )
    acquire.start(facility, made.id, principal=ADA)
    ending = threading.Event()
    working = threading.Thread(target=run, args=(facility, made.id), kwargs={"ending": ending})
    working.start()
    view = facility.catalog.view(SERVICE)
    try:
        measure()
        (found,) = until(
            lambda: [each for each in view.runs(experiment_id=EXPERIMENT).items if each.state.is_over],
            "the live run did not end",
        )
    finally:
        acquire.stop(facility, made.id, principal=ADA)
        working.join(WAIT_S)
    return found


def test_a_scan_stops_itself_and_what_was_measured_is_complete_and_reconstructs(tmp_path: Path) -> None:
    scan = shots(size=96, rows=8, angles=PLANNED, flats=FLATS, darks=DARKS, i0=3e4)
    with build(tmp_path / "facility") as facility, VirtualBeamline(scan, rate_hz=25) as beamline:
        options = {"channel": beamline.image, "acquire": beamline.acquire, "epics": beamline.epics}
        followed = measured(facility, options)
        view = facility.catalog.view(SERVICE)
        assert (followed.engine, followed.state) == (LIVE, RunState.DONE), followed.message
        assert "stopped at" in followed.message
        assert f"of {PLANNED} projections: quality 0.9" in followed.message
        assert not beamline.is_acquiring
        assert 60 <= beamline.sent - FLATS - DARKS < PLANNED, "it was stopped by the channel, not by the end"
        raw = view.dataset(followed.dataset_id)
        assert (raw.state, raw.files, raw.format) == (DatasetState.COMPLETE, 1, "nxtomo")
        (event,) = [each for each in view.events(limit=1000) if each.verb == "acquisition.enough"]
        assert event.detail["planned"] == PLANNED
        assert event.detail["used"] <= beamline.sent - FLATS - DARKS
        asked = process.request(facility, raw.id, "tomography", {}, principal=ADA)
        result = process.process(facility, asked.id, principal=ADA)
        assert result.state is DatasetState.COMPLETE
        known = view.run(asked.id).resolved
        assert known["center"] == pytest.approx(47.5 + 3.3, abs=0.5)


class Detector:
    """A camera that a RunEngine triggers: at each point of a scan it sends its next frame by PVAccess."""

    def __init__(self, frames: list[Shot], rate_hz: float) -> None:
        self._frames, self._rate_hz = frames, rate_hz
        self._seen = threading.Event()
        self.image = SharedPV(initial=NTNDArray().wrap(np.zeros_like(frames[0].data), timestamp=1.0))
        self.image.onFirstConnect(lambda _: self._seen.set())

    def at_point(self, _: str, event: Any) -> None:
        shot = self._frames[event["seq_num"] - 1]
        attributes = {"rotation_angle": shot.rotation_angle, "image_key": shot.image_key}
        value = NTNDArray().wrap(shot.data, timestamp=time.time(), attrib=attributes)
        value.uniqueId = event["seq_num"]
        self.image.post(value)
        time.sleep(1 / self._rate_hz)

    def wait_for_a_client(self) -> None:
        assert self._seen.wait(WAIT_S)
        time.sleep(0.5)  # its monitor follows its channel


def test_a_bluesky_scan_is_ended_by_the_tomography_that_follows_it_and_its_documents_say_why(
    tmp_path: Path,
) -> None:
    frames = shots(size=64, rows=8, angles=400, flats=FLATS, darks=DARKS, i0=3e4)
    camera = Detector(frames, rate_hz=40)
    engine = RunEngine(call_returns_result=True)
    engine.subscribe(Documents(tmp_path / "documents"))
    engine.subscribe(camera.at_point, "event")
    with init_devices():
        angle = SimMotor(instant=True)
    with (
        build(tmp_path / "facility") as facility,
        StopRequests("SIM:StopRequest", is_isolated=True) as requests,
        Server(providers=[{"SIM:Image": camera.image}], isolate=True) as server,
    ):
        ports = [each["EPICS_PVA_BROADCAST_PORT"] for each in (server.conf(), requests.epics)]
        epics = {
            "EPICS_PVA_ADDR_LIST": " ".join(f"127.0.0.1:{port}" for port in ports),
            "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        }

        def scan() -> None:
            camera.wait_for_a_client()
            engine(requests.obeyed(bp.scan([], angle, 0, 180, len(frames))))

        options = {"channel": "SIM:Image", "request": requests.channel, "epics": epics}
        followed = measured(facility, options, measure=scan)
        assert (followed.engine, followed.state) == (LIVE, RunState.DONE), followed.message
        assert "stopped at" in followed.message
        view = facility.catalog.view(SERVICE)
        (event,) = [each for each in view.events(limit=1000) if each.verb == "acquisition.enough"]
        raw = view.dataset(followed.dataset_id)
        assert (raw.state, raw.format) == (DatasetState.COMPLETE, "nxtomo")
    (documents,) = (tmp_path / "documents").glob("*.jsonl")
    stop = json.loads(documents.read_text().splitlines()[-1])[1]
    points = stop["num_events"]["primary"]
    assert DARKS + FLATS + event.detail["used"] <= points < len(frames), "bluesky ended it, not its last point"
    assert stop["exit_status"] == "success"
    assert stop["reason"].startswith(f"Lightkeep: enough after {event.detail['used']} of {PLANNED} projections")
