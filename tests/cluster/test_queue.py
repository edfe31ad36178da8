"""A thousand queued runs: drained in the order of their priority, in memory that does not grow."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from lightkeep.catalog import View
from lightkeep.config import WorkerConfig
from lightkeep.facility import create_facility
from lightkeep.lifecycle.ingest import ingest
from lightkeep.lifecycle.process import request
from lightkeep.model.people import SERVICE, Person
from lightkeep.model.runs import Priority, Run, RunState
from lightkeep.workflow import open_workflow

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
from house import ADA, EXPERIMENT, config, furnish, scan

pytestmark = pytest.mark.cluster
MANY = 1000
AT_ONCE = 4


def test_a_thousand_runs_are_drained_by_priority_in_memory_that_does_not_grow(
    tmp_path: Path, tell: Callable[..., None]
) -> None:
    settings = replace(config(tmp_path / "facility"), worker=WorkerConfig(runs=AT_ONCE))
    with create_facility(settings, admin=Person("ada", "Ada")) as facility:
        furnish(facility)
        taken = ingest(facility, scan(tmp_path / "a.h5"), experiment_id=EXPERIMENT, principal=ADA, quiet_s=0)
        classes, params = (
            list(Priority),
            {"scale": 0},
        )  # which the preflight refuses: the queue is what is measured
        with open_workflow(facility, work=False) as work:
            for number in range(MANY):
                usual = classes[number % len(classes)]
                run = request(facility, taken.dataset.id, "gated", params, principal=ADA, usual=usual)
                work.submit_run(run.id)
        began, resident = time.monotonic(), []
        with open_workflow(facility):
            while done := _left(facility.catalog.view(SERVICE)):
                resident.append((MANY - done, _resident()))
                time.sleep(0.5)
        took = time.monotonic() - began
        runs = _runs(facility.catalog.view(SERVICE))
    assert {run.state for run in runs} == {RunState.FAILED}
    order = [run.priority for run in sorted(runs, key=lambda run: run.started_at or run.created_at)]
    early = sum(first > later for first, later in zip(order, order[AT_ONCE:], strict=False))
    half = next(size for count, size in resident if count >= MANY // 2)
    grown = resident[-1][1] - half
    tell("queue_runs_drained", len(runs), "runs", least=MANY)
    tell("queue_runs_before_their_turn", early, "runs", most=0)
    tell("queue_drained_in", took, "s")
    tell("queue_memory_grown_in_its_second_half", grown / 1e6, "MB", most=8)
    assert early == 0
    assert grown < 8e6


def _left(view: View) -> int:
    return sum(view.runs(state=state, limit=1).total for state in (RunState.QUEUED, RunState.RUNNING))


def _runs(view: View) -> list[Run]:
    return [run for offset in range(0, MANY, 500) for run in view.runs(limit=500, offset=offset).items]


def _resident() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1000 for line in lines if line.startswith("VmRSS"))
