"""A scan on a virtual beamline stops itself when its data suffice, and everything that was measured is kept."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightkeep.facility import Facility
from lightkeep.lifecycle.acquisitions import acquire
from lightkeep.lifecycle.acquisitions.acquire_run import run
from lightkeep.lifecycle.processing import process
from lightkeep.model.acquisition import SourceKind
from lightkeep.model.datasets import DatasetState
from lightkeep.model.people import SERVICE
from lightkeep.model.runs import LIVE, Run, RunState
from lightkeep.testing.beamline.live import VirtualBeamline, shots

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


def measured(facility: Facility, beamline: VirtualBeamline) -> Run:
    """Acquire one scan of a virtual beamline with live tomography; return the run that followed it."""
    options = {
        "channel": beamline.image,
        "acquire": beamline.acquire,
        "epics": beamline.epics,
        "idle_s": 2.0,
        "live": "tomography-live",
        "params": PARAMS,
    }
    made = acquire.define(
        facility, "camera", experiment_id=EXPERIMENT, kind=SourceKind.PVACCESS, options=options, principal=ADA
    )
    acquire.start(facility, made.id, principal=ADA)
    ending = threading.Event()
    working = threading.Thread(target=run, args=(facility, made.id), kwargs={"ending": ending})
    working.start()
    view = facility.catalog.view(SERVICE)
    try:
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
        followed = measured(facility, beamline)
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
