"""A killed worker's work goes on where it was; nothing is done twice; a cancel reaches from any process."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from dbos import DBOSClient

from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing.process import request, retry
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.model.datasets import Dataset, DatasetKind
from lightkeep.model.errors import InvalidInput, NotFound, SourceError
from lightkeep.model.people import SERVICE
from lightkeep.model.runs import Run, RunState
from lightkeep.testing.suites.engine import is_alive
from lightkeep.workflow import open_workflow

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "plugin"))
from house import ADA, EXPERIMENT, build, mean_of_scan, scan  # noqa: E402

CHAIN = "lightkeep.workflow.chain:Chain"
PROCESS = "lightkeep.lifecycle.processing.process"
POINTS = [
    "lightkeep.workflow.orchestrator:Orchestrator.submit_ingest",
    f"{CHAIN}._take_in",
    f"{CHAIN}._verify",
    f"{CHAIN}._choose",
    f"{CHAIN}._request",
    "lightkeep.workflow.orchestrator:Orchestrator.submit_run",
    f"{PROCESS}:_plan",
    f"{PROCESS}:_compute",
    f"{PROCESS}:keep_result",
    f"{PROCESS}:_finish",
]
"""Where the chain dies: each effect is done, and nobody knows of it yet."""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "facility"


@pytest.fixture
def facility(root: Path) -> Iterator[Facility]:
    with build(root, "inline") as facility:  # the processes that are killed use the other engine
        yield facility


@pytest.fixture
def gates(tmp_path: Path) -> Path:
    folder = tmp_path / "gates"
    folder.mkdir()
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return scan(tmp_path / "tooth.h5")


def _start(root: Path, source: Path, gates: Path, point: str = "") -> subprocess.Popen[str]:
    words = [
        sys.executable,
        str(HERE / "driver.py"),
        str(root),
        str(source),
        str(gates),
        *([point] if point else []),
    ]
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, out, err


def _computed(gates: Path) -> list[int]:
    path = gates / "computed"
    return sorted(int(line) for line in path.read_text().split()) if path.exists() else []


def _until(claim: Callable[[], bool], driver: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 60
    while not claim():
        assert driver is None or driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline, "it did not come true within a minute"
        time.sleep(0.02)


def _only_result(facility: Facility) -> Dataset:
    (result,) = facility.catalog.view(SERVICE).datasets(kind=DatasetKind.DERIVED).items
    return result


def _assert_done_once(facility: Facility) -> None:
    """One raw dataset, one run, one result; the right values; an event for each thing that happened, once."""
    view = facility.catalog.view(SERVICE)
    assert view.datasets(kind=DatasetKind.RAW).total == 1
    result = _only_result(facility)
    (run,) = view.runs().items
    assert (run.state, run.result_id) == (RunState.DONE, result.id)
    happened = Counter(event.verb for event in view.events(limit=1000))
    assert {verb: happened[verb] for verb in ("dataset.added", "dataset.completed", "dataset.files_added")} == {
        "dataset.added": 2,
        "dataset.completed": 2,
        "dataset.files_added": 2,
    }
    assert [happened[verb] for verb in ("run.queued", "run.running", "run.done")] == [1, 1, 1]
    assert facility.catalog.verify_events() == []
    assert list((facility.scratch / "runs").iterdir()) == []
    arrays: list[np.ndarray] = []
    with h5py.File(local_path(facility, result.id, result.main_file)) as file:
        file.visititems(
            lambda _n, node: arrays.append(node[()]) if getattr(node, "shape", None) == (4, 5) else None
        )
    assert any(np.array_equal(array, mean_of_scan()) for array in arrays)


@pytest.mark.crash
def test_a_chain_killed_after_every_step_ends_once_with_the_right_result(
    facility: Facility, root: Path, source: Path, gates: Path
) -> None:
    for point in POINTS[1:]:
        code, _, err = _end(_start(root, source, gates, point))
        assert code == -signal.SIGKILL, f"it should have died after {point}: {err}"
    code, out, err = _end(_start(root, source, gates))
    assert (code, out) == (0, "['done']\n"), err
    _assert_done_once(facility)
    assert _computed(gates) == [0, 1, 2, 3]


@pytest.mark.crash
def test_a_run_killed_between_pieces_computes_only_the_unfinished_ones(
    facility: Facility, root: Path, source: Path, gates: Path
) -> None:
    (gates / "hold-2").touch()
    driver = _start(root, source, gates)
    _until(
        lambda: {0, 1, 2, 3} <= set(_computed(gates)), driver
    )  # two workers: one waits in piece 2, the other goes on
    scratch = next((facility.scratch / "runs").iterdir())
    _until((scratch / "piece-00003").exists, driver)
    marks = {path.name: path.stat().st_mtime_ns for path in scratch.glob("piece-*")}
    driver.kill()
    _end(driver)
    again = _start(root, source, gates)
    _until(lambda: _computed(gates) == [0, 1, 2, 2, 3], again)
    assert {path.name: path.stat().st_mtime_ns for path in scratch.glob("piece-*")} == marks
    (gates / "hold-2").unlink()
    code, _, err = _end(again)
    assert code == 0, err
    _assert_done_once(facility)


@pytest.mark.crash
def test_sigterm_stops_a_worker_cleanly_and_the_next_one_goes_on(
    facility: Facility, root: Path, source: Path, gates: Path
) -> None:
    (gates / "hold-0").touch()
    driver = _start(root, source, gates)
    _until(lambda: 0 in _computed(gates), driver)
    workers = [int(pid) for pid in _children(driver.pid)]
    asked = time.monotonic()
    driver.terminate()
    code, _, err = _end(driver)
    assert (code, err) == (0, "")
    assert time.monotonic() - asked < 5
    assert not [pid for pid in workers if is_alive(pid)]
    (run,) = facility.catalog.view(SERVICE).runs().items
    assert run.state is RunState.RUNNING
    (gates / "hold-0").unlink()
    code, _, err = _end(_start(root, source, gates))
    assert code == 0, err
    _assert_done_once(facility)


def _children(pid: int) -> list[str]:
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return [child for task in tasks for child in (task / "children").read_text().split()]


@pytest.mark.crash
def test_a_cancel_reaches_the_worker_from_another_process(
    facility: Facility, root: Path, source: Path, gates: Path
) -> None:
    (gates / "hold-0").touch()
    driver = _start(root, source, gates)
    _until(lambda: 0 in _computed(gates), driver)
    (run,) = facility.catalog.view(ADA).runs().items
    with open_workflow(facility) as work:
        assert not work.work(), "the other process is the worker"
        work.cancel(run.id, principal=ADA)
        assert work.wait(run.id, timeout_s=10).runs[0].state is RunState.CANCELLED
    assert _end(driver)[:2] == (0, "['cancelled']\n")
    assert facility.catalog.view(SERVICE).datasets(kind=DatasetKind.DERIVED).total == 0


@pytest.mark.crash
def test_who_waits_takes_over_when_the_worker_is_killed(
    facility: Facility, root: Path, source: Path, gates: Path
) -> None:
    (gates / "hold-0").touch()
    driver = _start(root, source, gates)
    _until(lambda: 0 in _computed(gates), driver)
    with open_workflow(facility) as work:
        assert not work.work()
        driver.kill()
        _end(driver)
        (gates / "hold-0").unlink()
        job = work.wait((root / "job").read_text(), timeout_s=60)
    assert [run.state for run in job.runs] == [RunState.DONE]
    _assert_done_once(facility)


def _requested(facility: Facility, source: Path, gates: Path) -> Run:
    dataset = ingest(facility, source, experiment_id=EXPERIMENT, principal=ADA, quiet_s=0).dataset
    return request(facility, dataset.id, "gated", {"folder": str(gates)}, principal=ADA)


def test_a_run_that_was_requested_but_never_queued_is_found_by_the_next_worker(
    facility: Facility, source: Path, gates: Path
) -> None:
    run = _requested(facility, source, gates)
    with open_workflow(facility) as work:
        assert work.wait(run.id, timeout_s=60).runs[0].state is RunState.DONE


def test_a_run_whose_workflow_was_given_up_does_not_stay_queued(
    facility: Facility, source: Path, gates: Path
) -> None:
    run = _requested(facility, source, gates)
    with open_workflow(facility, work=False) as work:
        work.submit_run(run.id)
    client = DBOSClient(system_database_url=facility.config.workflow_url)
    client.cancel_workflow(run.id)
    client.destroy()
    with open_workflow(facility) as work:
        (lost,) = work.wait(run.id, timeout_s=10).runs
    assert (lost.state, lost.message) == (RunState.FAILED, "given up: its workflow ended as cancelled")


def test_queueing_a_run_twice_runs_it_once(facility: Facility, source: Path, gates: Path) -> None:
    run = _requested(facility, source, gates)
    with open_workflow(facility) as work:
        assert work.submit_run(run.id) == work.submit_run(run.id) == run.id
        work.wait(run.id, timeout_s=60)
    _assert_done_once(facility)
    assert _computed(gates) == [0, 1, 2, 3]


def test_a_failed_run_is_listed_with_its_reason_and_done_when_tried_again(
    facility: Facility, source: Path, gates: Path
) -> None:
    (gates / "fail").touch()
    run = _requested(facility, source, gates)
    with open_workflow(facility) as work:
        failed = work.wait(work.submit_run(run.id), timeout_s=60).runs[0]
        assert (failed.state, failed.message) == (RunState.FAILED, "ValueError: row 0 is empty")
        assert [each.id for each in facility.catalog.view(ADA).runs(state=RunState.FAILED).items] == [run.id]
        (gates / "fail").unlink()
        again = retry(facility, run.id, principal=ADA)
        assert work.wait(work.submit_run(again.id), timeout_s=60).runs[0].state is RunState.DONE
    assert _only_result(facility).run_id == again.id


def test_a_known_dataset_is_not_processed_again_unasked(facility: Facility, source: Path, gates: Path) -> None:
    with open_workflow(facility) as work:
        options = {"experiment_id": EXPERIMENT, "principal": ADA}
        first = work.wait(work.submit_ingest(source, technique="gated", params={"folder": str(gates)}, **options))
        second = work.wait(work.submit_ingest(source, technique="", **options), timeout_s=60)
    assert (second.dataset_id, second.runs) == (first.dataset_id, ())


def test_an_ingest_that_fails_raises_its_own_error_where_it_is_waited_for(
    facility: Facility, tmp_path: Path
) -> None:
    with open_workflow(facility) as work:
        job = work.submit_ingest(tmp_path / "absent.h5", experiment_id=EXPERIMENT, principal=ADA)
        with pytest.raises(SourceError, match=r"absent\.h5"):
            work.wait(job, timeout_s=60)


def test_a_wrong_parameter_is_refused_before_anything_is_queued(facility: Facility, source: Path) -> None:
    with open_workflow(facility, work=False) as work, pytest.raises(InvalidInput, match="scale"):
        work.submit_ingest(
            source, experiment_id=EXPERIMENT, principal=ADA, technique="gated", params={"scale": "much"}
        )


def test_an_unknown_job_is_not_found(facility: Facility) -> None:
    with open_workflow(facility, work=False) as work, pytest.raises(NotFound):
        work.wait("job_nowhere")


def test_waiting_without_a_worker_ends_at_the_timeout(facility: Facility, source: Path, gates: Path) -> None:
    run = _requested(facility, source, gates)
    with open_workflow(facility, work=False) as work:
        work.submit_run(run.id)
        with pytest.raises(TimeoutError):
            work.wait(run.id, timeout_s=0.2)


def test_a_facility_can_be_opened_again_in_the_same_process(facility: Facility, source: Path, gates: Path) -> None:
    for _ in range(2):
        run = _requested(facility, source, gates)
        with open_workflow(facility) as work:
            assert work.work()
            assert work.wait(work.submit_run(run.id), timeout_s=60).runs[0].message == "done; one flat is empty"


def test_an_error_stream_that_was_closed_stops_nothing(
    facility: Facility, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = io.StringIO()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", stream)
        with open_workflow(facility) as work:
            assert work.work()
    stream.close()
    with open_workflow(facility) as work:
        assert work.work()


def test_two_facilities_in_one_process_are_both_worked_for(
    facility: Facility, tmp_path: Path, source: Path, gates: Path
) -> None:
    with build(tmp_path / "second") as other, open_workflow(facility) as here, open_workflow(other) as there:
        runs = [_requested(each, source, gates) for each in (facility, other)]
        ends = [
            work.wait(work.submit_run(run.id), timeout_s=60) for work, run in zip((here, there), runs, strict=True)
        ]
    assert [end.runs[0].state for end in ends] == [RunState.DONE, RunState.DONE]
    _assert_done_once(facility)
    _assert_done_once(other)


def test_a_worker_apart_is_replaced_when_it_is_killed_and_gone_after_close(
    facility: Facility, root: Path, source: Path, gates: Path
) -> None:
    (gates / "hold-0").touch()
    with open_workflow(facility, apart=True) as work:
        job = work.submit_run(_requested(facility, source, gates).id)
        _until(lambda: 0 in _computed(gates))
        first = _worker_apart()
        os.kill(first, signal.SIGKILL)
        (gates / "hold-0").unlink()
        assert [run.state for run in work.wait(job, timeout_s=60).runs] == [RunState.DONE]
        second = _worker_apart()
    assert first != second
    assert not is_alive(second)
    _assert_done_once(facility)


def _worker_apart() -> int:
    """Return the child of this process that works for it."""
    (worker,) = [
        pid for pid in _children(os.getpid()) if b"workflow.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return int(worker)


@pytest.mark.postgres
def test_the_chain_runs_on_postgresql_too(root: Path, source: Path, gates: Path) -> None:
    server = os.environ.get("LIGHTKEEP_TEST_POSTGRES")
    if not server:
        pytest.skip("no PostgreSQL: run the tests through scripts/with-postgres")
    with build(root, "inline") as embedded:
        url = server.replace("/postgres?", f"/workflow_{root.parent.name}?")
        facility = replace(embedded, config=replace(embedded.config, workflow_url=url))
        with open_workflow(facility) as work:
            job = work.submit_ingest(
                source, experiment_id=EXPERIMENT, principal=ADA, technique="gated", params={"folder": str(gates)}
            )
            assert [run.state for run in work.wait(job, timeout_s=60).runs] == [RunState.DONE]
        _assert_done_once(facility)
