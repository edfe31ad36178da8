"""A scan that stops itself, watched: a detector's real frames, the real server, a real Chromium."""

from __future__ import annotations

import threading
import time

import pytest
from playwright.sync_api import Page, expect

from lightkeep.config import load
from lightkeep.facility import Facility, open_facility
from lightkeep.lifecycle.acquisitions import acquire
from lightkeep.lifecycle.acquisitions.acquire_run import run
from lightkeep.model.acquisition import SourceKind
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.runs import LIVE
from lightkeep.testing.beamline.live import VirtualBeamline, shots
from lightkeep.testing.populated import EXPERIMENT
from lightkeep.testing.served import Server

PLANNED = 2400
FLATS, DARKS = 8, 4
PARAMS = {"planned": PLANNED, "stop": True, "quality": 0.8, "resolution_px": 4.0, "rows": 4}
MANAGER = Principal("station-manager")
WAIT_S = 120.0


def _followed(facility: Facility, ended: threading.Thread) -> str:
    """Return the id of the run that follows the scan, once there is one."""
    deadline = time.monotonic() + WAIT_S
    view = facility.catalog.view(SERVICE)
    while time.monotonic() < deadline and ended.is_alive():
        found = [each.id for each in view.runs(experiment_id=EXPERIMENT).items if each.engine == LIVE]
        if found:
            return found[0]
        time.sleep(0.1)
    pytest.fail("no run followed the scan")


@pytest.mark.browser
def test_a_scan_that_stops_itself_is_seen_to_do_so(page: Page, server: Server) -> None:
    """Slices from three sides, the curve with its stop, and in words what was used and what was not needed."""
    scan = shots(size=96, rows=8, angles=PLANNED, flats=FLATS, darks=DARKS, i0=3e4)
    with open_facility(load(server.config)) as facility, VirtualBeamline(scan, rate_hz=40) as beamline:
        options = {
            "channel": beamline.image,
            "acquire": beamline.acquire,
            "epics": beamline.epics,
            "idle_s": 2.0,
            "live": "tomography-live",
            "params": PARAMS,
        }
        source = SourceKind.PVACCESS
        made = acquire.define(
            facility, "tomo", experiment_id=EXPERIMENT, kind=source, options=options, principal=MANAGER
        )
        acquire.start(facility, made.id, principal=MANAGER)
        working = threading.Thread(
            target=run, args=(facility, made.id), kwargs={"ending": threading.Event()}, daemon=True
        )
        working.start()
        try:
            page.goto(f"/runs/{_followed(facility, working)}")
            for view in ("xy", "zy", "xz"):
                image = page.locator(f"img[data-view={view}]")
                expect(image).to_be_visible(timeout=WAIT_S * 1000)
                assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") > 10
            expect(page.locator("[data-answer]")).to_contain_text("Enough after", timeout=WAIT_S * 1000)
        finally:
            acquire.stop(facility, made.id, principal=MANAGER)
            working.join(WAIT_S)
        used = page.locator("[data-used]")
        expect(used).to_contain_text(f"of {PLANNED}")
        assert 60 <= int((used.text_content() or "").split()[0]) <= beamline.sent - FLATS - DARKS < PLANNED
        assert 0.8 < float(page.locator("[data-predicted]").text_content() or "") <= 1
        expect(page.locator("[data-plot=quality]")).to_contain_text("stop at")
