"""A thousand queued runs and two `lightkeep worker`: drained by priority, in memory that does not grow."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lightkeep.catalog import View
from lightkeep.config import Config
from lightkeep.facility import Facility, create_facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing.process import request
from lightkeep.model.datasets import DatasetKind
from lightkeep.model.people import SERVICE, Person
from lightkeep.model.runs import Priority, Run, RunState
from lightkeep.workflow import open_workflow

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "workflow"), str(TESTS / "plugin")]
from house import ADA, EXPERIMENT, config, frames, furnish  # noqa: E402
from two_workers import add_user, databases, until  # noqa: E402

pytestmark = [pytest.mark.cluster, pytest.mark.postgres]
MANY = 1000
WORKERS, EACH = 2, 4
AT_ONCE = WORKERS * EACH


def test_a_thousand_runs_are_drained_by_priority_in_memory_that_does_not_grow(
    tmp_path: Path, tell: Callable[..., None]
) -> None:
    with (
        databases(config(tmp_path / "facility"), "thousand") as settings,
        create_facility(settings, admin=Person("ada", "Ada")) as facility,
    ):
        furnish(facility)
        add_user(facility)
        began = time.monotonic()
        _fill(facility, tmp_path)
        tell("queue_filled_at", MANY / (time.monotonic() - began), "runs/s")
        view, resident = facility.catalog.view(SERVICE), []
        with _working(settings) as workers:
            until(lambda: len(view.workers()) == WORKERS)
            began = time.monotonic()
            while left := _left(view):
                assert all(each.poll() is None for each in workers)
                resident.append((MANY - left, sum(map(_resident, workers))))
                time.sleep(0.5)
            took = time.monotonic() - began
        runs = _runs(view)
        results = view.datasets(kind=DatasetKind.DERIVED, limit=1).total
    assert {run.state for run in runs} == {RunState.DONE}
    assert results == len({run.result_id for run in runs}) == MANY
    order = [run.priority for run in sorted(runs, key=lambda run: run.started_at or run.created_at)]
    early = sum(first > later for first, later in zip(order, order[AT_ONCE:], strict=False))
    half = next(size for count, size in resident if count >= MANY // 2)
    grown = (resident[-1][1] - half) / WORKERS
    tell("queue_runs_drained", len(runs), "runs", least=MANY)
    tell("queue_runs_before_their_turn", early, "runs", most=0)
    tell("queue_drained_at", MANY / took, "runs/s")
    tell("queue_memory_grown_in_its_second_half", grown / 1e6, "MB", most=8)
    assert early < AT_ONCE  # what was taken in its turn may begin late on a busy machine; unordered are hundreds
    assert grown < 8e6


def _fill(facility: Facility, folder: Path) -> None:
    """Queue runs of all priorities in turn."""
    taken = ingest(facility, frames(folder / "a.nxs"), experiment_id=EXPERIMENT, principal=ADA, quiet_s=0)
    classes = list(Priority)
    with open_workflow(facility, work=False) as work:
        for number in range(MANY):
            usual = classes[number % len(classes)]
            run = request(facility, taken.dataset.id, "average", {}, principal=ADA, usual=usual)
            work.submit_run(run.id)


@contextmanager
def _working(settings: Config) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Have two workers work on the queue."""
    environment = os.environ | {
        "LIGHTKEEP_ROOT": str(settings.root),
        "LIGHTKEEP_CATALOG_URL": settings.catalog_url,
        "LIGHTKEEP_WORKFLOW_URL": settings.workflow_url,
        "LIGHTKEEP_WORKER_RUNS": str(EACH),
        "LIGHTKEEP_ENGINE_NAME": "inline",
    }
    words = [sys.executable, "-m", "lightkeep", "worker"]
    started = [subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL) for _ in range(WORKERS)]
    try:
        yield started
    finally:
        for each in started:
            each.terminate()
        for each in started:
            each.wait(60)


def _left(view: View) -> int:
    return sum(view.runs(state=state, limit=1).total for state in (RunState.QUEUED, RunState.RUNNING))


def _runs(view: View) -> list[Run]:
    return [run for offset in range(0, MANY, 500) for run in view.runs(limit=500, offset=offset).items]


def _resident(process: subprocess.Popen[bytes]) -> int:
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1000 for line in lines if line.startswith("VmRSS"))
