"""Workers that share a queue in PostgreSQL: killed one after the other at every step of the chain."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))
from two_workers import Site, assert_done_once, opened_site, until

pytestmark = [pytest.mark.cluster, pytest.mark.postgres]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with opened_site(tmp_path) as made:
        yield made


POINTS = [
    "lightkeep.workflow.chain:Chain._take_in",
    "lightkeep.workflow.chain:Chain._choose",
    "lightkeep.workflow.chain:Chain._request",
    "lightkeep.workflow.orchestrator:Orchestrator.submit_run",
    "lightkeep.lifecycle.processing.process:_plan",
    "lightkeep.lifecycle.processing.process:_compute",
    "lightkeep.lifecycle.processing.process:keep_result",
    "lightkeep.lifecycle.processing.process:_finish",
]


def test_workers_killed_one_after_the_other_at_every_step_leave_the_right_result_once(site: Site) -> None:
    site.queue_ingest()
    for point in POINTS:
        worker = site.start_worker(point)
        assert worker.wait(60) == -signal.SIGKILL, point
    site.start_worker()
    until(lambda: bool(site.runs()) and site.runs()[0].state.is_over)
    assert_done_once(site)
