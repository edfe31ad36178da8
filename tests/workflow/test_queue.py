"""The queue: beam time first, reprocessing last, and no growth of memory; what one run costs above its compute."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from lightkeep.catalog.workers import Fenced
from lightkeep.facility import Facility
from lightkeep.lifecycle.ingest import ingest
from lightkeep.lifecycle.process import request
from lightkeep.lifecycle.reprocess import reprocess
from lightkeep.model.datasets import DatasetKind
from lightkeep.model.errors import InvalidInput
from lightkeep.model.experiments import Experiment
from lightkeep.model.people import SERVICE
from lightkeep.model.runs import Priority, Run, RunState, Worker
from lightkeep.workflow import open_workflow
from lightkeep.workflow.heart import Silence

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
from house import ADA, EXPERIMENT, build, scan

BEAM = "2026-11-beam-3"


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    with build(tmp_path / "facility") as facility:
        now = facility.clock.now()
        with facility.catalog.change(SERVICE) as tx:
            tx.add_experiment(
                Experiment(BEAM, "2-BM-A", starts_at=now - timedelta(hours=1), ends_at=now + timedelta(hours=8))
            )
        yield facility


def _take_in(facility: Facility, path: Path, experiment: str = EXPERIMENT, name: str = "") -> str:
    options = {"experiment_id": experiment, "principal": ADA, "name": name, "quiet_s": 0}
    return ingest(facility, scan(path), **options).dataset.id


def test_beam_time_comes_first_and_reprocessing_last(facility: Facility, tmp_path: Path) -> None:
    usual = _take_in(facility, tmp_path / "a.h5")
    on_beam = _take_in(facility, tmp_path / "b.h5", BEAM)
    again = reprocess(facility, "kind:raw", "gated", {"seconds": 0}, principal=ADA)
    asked = [request(facility, d, "gated", {"seconds": 0}, principal=ADA).id for d in (usual, usual, on_beam)]
    queued = [*again.runs, *asked]
    view = facility.catalog.view(SERVICE)
    by_beam = {run_id for run_id in queued if view.run(run_id).experiment_id == BEAM}
    assert len(by_beam) == 2
    with open_workflow(facility, work=False) as work:
        for run_id in queued:
            work.submit_run(run_id)
    with open_workflow(facility) as work:
        runs = [work.wait(run_id, timeout_s=60).runs[0] for run_id in queued]
    order = [run.priority for run in sorted(runs, key=lambda run: run.started_at or run.created_at)]
    assert order == [Priority.BEAM, Priority.BEAM, Priority.ASKED, Priority.ASKED, Priority.AGAIN]


def test_a_dry_run_says_how_much_there_is_to_do_and_asks_for_nothing(facility: Facility, tmp_path: Path) -> None:
    first = _take_in(facility, tmp_path / "a.h5")
    _take_in(facility, tmp_path / "b.h5", name="other")
    found = reprocess(facility, "name:a", "gated", principal=ADA, dry_run=True)
    assert (found.datasets, found.left_out, found.runs, found.seconds) == (1, 0, (), None)
    with open_workflow(facility) as work:
        run = request(facility, first, "gated", {"seconds": 0}, principal=ADA)
        done = work.wait(work.submit_run(run.id), timeout_s=60).runs[0]
    took = _span(done)
    found = reprocess(facility, "kind:raw", "gated", principal=ADA, dry_run=True)
    assert found.datasets == 2
    assert found.seconds == pytest.approx(2 * took, rel=0.01)  # two scans of one size
    assert facility.catalog.view(SERVICE).runs().total == 1
    with pytest.raises(InvalidInput, match="reprocess what"):
        reprocess(facility, " ", "gated", principal=ADA)


def _span(run: Run) -> float:
    return (run.ended_at - run.started_at).total_seconds() if run.ended_at and run.started_at else 0.0


def test_draining_a_long_queue_takes_no_more_memory_as_it_goes_on(facility: Facility, tmp_path: Path) -> None:
    data = _take_in(facility, tmp_path / "a.h5")
    wrong = {"scale": 0}  # which the preflight refuses
    queued = [request(facility, data, "gated", wrong, principal=ADA).id for _ in range(30)]
    with open_workflow(facility) as work:
        for run_id in queued:
            work.submit_run(run_id)
        work.wait(queued[14], timeout_s=60)
        before = _resident()
        for run_id in queued[15:]:
            assert work.wait(run_id, timeout_s=60).runs[0].state is RunState.FAILED
        assert _resident() - before < 4e6


def _resident() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) * 1e3 for line in lines if line.startswith("VmRSS"))


def test_a_run_costs_little_above_its_compute(facility: Facility, tmp_path: Path) -> None:
    data = _take_in(facility, tmp_path / "a.h5")
    with open_workflow(facility) as work:
        for _ in range(2):  # the first one loads the technique
            before = time.process_time()
            run = request(facility, data, "gated", {"seconds": 0}, principal=ADA)
            work.wait(work.submit_run(run.id), timeout_s=60)
            took = time.process_time() - before
    assert took < 1.0  # of the processor: a busy machine's clock says nothing; `make bench` has the goal of 0.5 s


def _workers(*beats: int) -> list[Worker]:
    return [replace(Worker("", "host", 1), id=f"w{number}", beat=beat) for number, beat in enumerate(beats)]


def test_two_runs_that_end_at_once_with_the_same_values_keep_a_result_each(
    facility: Facility, tmp_path: Path
) -> None:
    data = _take_in(facility, tmp_path / "a.h5")
    runs = [request(facility, data, "gated", {"seconds": 0}, principal=ADA) for _ in range(2)]
    (tmp_path / "result").mkdir()
    (tmp_path / "result" / "mean").write_bytes(b"the same")
    options = {"experiment_id": EXPERIMENT, "principal": ADA, "kind": DatasetKind.DERIVED, "quiet_s": 0}
    kept = [ingest(facility, tmp_path / "result", name="a-1", run_id=run.id, **options).dataset for run in runs]
    assert [each.run_id for each in kept] == [run.id for run in runs]


def test_silence_counts_only_while_somebody_listens() -> None:
    silence = Silence(period_s=1.0)
    assert silence.look(_workers(5, 9), 100.0) == {"w0": 0.0, "w1": 0.0}
    assert silence.look(_workers(5, 10), 101.0) == {"w0": 1.0, "w1": 0.0}
    assert silence.look(_workers(5, 11), 500.0) == {"w0": 3.0, "w1": 0.0}, "its own pause counts as short"
    assert silence.look(_workers(6, 11), 501.0) == {"w0": 0.0, "w1": 1.0}
    assert silence.look(_workers(6), 502.0) == {"w0": 1.0}


def test_nothing_is_committed_by_a_worker_that_was_taken_for_dead(facility: Facility) -> None:
    catalog = facility.catalog
    with catalog.change(SERVICE) as tx:
        tx.join(Worker("worker_1", "host", 1))
    fenced = catalog.fenced("worker_1")
    with fenced.change(SERVICE) as tx:
        tx.set_fact("said", "alive")
    catalog.beat("worker_1")
    (worker,) = catalog.view(SERVICE).workers()
    with catalog.change(SERVICE) as tx:
        assert not tx.lose(replace(worker, beat=worker.beat - 1)), "it gave a sign of life since"
        assert tx.lose(worker)
    for change in (lambda: fenced.change(SERVICE).__enter__(), lambda: catalog.beat("worker_1")):
        with pytest.raises(Fenced):
            change()
    assert catalog.view(SERVICE).fact("said") == "alive"
    with catalog.change(SERVICE) as tx:
        tx.set_fact("said", "others go on")


def test_work_that_takes_every_worker_down_is_given_up(facility: Facility, tmp_path: Path) -> None:
    data = _take_in(facility, tmp_path / "a.h5")
    run = request(facility, data, "gated", {"seconds": 0}, principal=ADA)
    with facility.catalog.change(SERVICE) as tx:
        tx.set_fact(f"rescued.{run.id}", "20")
    with open_workflow(facility, work=False) as work:
        work.submit_run(run.id)
        engine = create_engine(facility.config.workflow_url)
        with engine.begin() as connection:  # as a worker leaves it that dies in it
            connection.execute(text("UPDATE workflow_status SET status = 'PENDING', executor_id = 'worker_gone'"))
        engine.dispose()
    with open_workflow(facility) as work:
        (lost,) = work.wait(run.id, timeout_s=30).runs
    assert (lost.state, lost.message) == (RunState.FAILED, "given up: its workflow ended as cancelled")
