"""A measurement that is followed gives what the finished file gives, whatever happens on the way."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightkeep import formats
from lightkeep.analysis.xpcs import FrameBlock, QMap
from lightkeep.facility import Facility
from lightkeep.formats import imm, qmap
from lightkeep.lifecycle.acquisitions import following, live
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing.process import cancel, process, request
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.model.datasets import Dataset, DatasetKind, DatasetState
from lightkeep.model.errors import Conflict, InvalidInput, NotFound, RunCancelled, SourceError
from lightkeep.model.people import SERVICE
from lightkeep.model.runs import Run, RunState
from lightkeep.workflow import open_workflow

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
from house import ADA, EVE, EXPERIMENT, build

SHAPE = (64, 80)
COUNT = 90
FRAMES = np.random.default_rng(8).poisson(0.4, (COUNT, *SHAPE)).astype(np.uint16)


VICTIM = """
import sys
from pathlib import Path
from lightkeep.config import Config
from lightkeep.facility import open_facility
from lightkeep.lifecycle.processing.process import process
with open_facility(Config(Path(sys.argv[1]))) as facility:
    process(facility, sys.argv[2])
"""
"""What is killed."""


class Beam:
    """Writes a run, waiting at some frames until it is let on."""

    def __init__(self, path: Path, *, stops: tuple[int, ...] = (), frames: np.ndarray = FRAMES) -> None:
        self.path = path
        self.frames = frames
        self.gates = {stop: threading.Event() for stop in stops}
        self.thread = threading.Thread(target=self._write)

    def _write(self) -> None:
        imm.write_run(self.path, self._blocks(), shape=SHAPE, frame_time_s=0.01)

    def _blocks(self) -> Iterator[FrameBlock]:
        for at, frame in enumerate(self.frames):
            if at in self.gates:
                assert self.gates[at].wait(60)
            yield FrameBlock(at, frame[None])

    def __enter__(self) -> Beam:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        for gate in self.gates.values():
            gate.set()
        self.thread.join()


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    with build(tmp_path / "facility") as facility:
        labels = np.broadcast_to(1 + np.arange(SHAPE[1]) // 20, SHAPE)
        qmap.write_qmap(tmp_path / "rings.h5", QMap.from_labels((labels + 1) // 2, labels))
        ingest(facility, tmp_path / "rings.h5", experiment_id=EXPERIMENT, principal=ADA, quiet_s=0)
        yield facility


def follow(facility: Facility, path: Path, **options: Any) -> Run:
    options = {"experiment_id": EXPERIMENT, "principal": ADA, "wait_s": 20.0, "idle_s": 20.0, **options}
    return live.request(facility, path, "xpcs", options.pop("params", {"qmap": "rings"}), **options)


def outputs(facility: Facility, result: Dataset) -> dict[str, bytes]:
    """Return every array of a result's file."""
    path = local_path(facility, result.id, result.main_file)
    with formats.get(result.format).open(path) as source:
        return {name: np.asarray(each[...]).tobytes() for name, each in source.arrays.items()}


def state_of(facility: Facility, run: Run) -> Run:
    return facility.catalog.view(SERVICE).run(run.id)


def until(condition: Any) -> None:
    deadline = time.monotonic() + 300  # compiling the kernels for the first time may take long
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def in_background(work: Any) -> tuple[threading.Thread, list[BaseException]]:
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 -- the test looks at it
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, failures


def test_what_was_followed_is_what_the_finished_file_gives_to_the_last_byte(
    facility: Facility, tmp_path: Path
) -> None:
    run = follow(facility, tmp_path / "gel.imm", frames=COUNT)
    with Beam(tmp_path / "gel.imm", stops=(1, 40)) as beam:
        work, failures = in_background(lambda: process(facility, run.id))
        beam.gates[1].set()
        until(lambda: live.snapshot(facility, run.id, principal=ADA).frames > 1)
        beam.gates[40].set()
        work.join()
    assert not failures
    done = state_of(facility, run)
    raw, result = (facility.catalog.view(ADA).dataset(each) for each in (run.dataset_id, done.result_id))
    assert (done.state, raw.state, raw.kind) == (RunState.DONE, DatasetState.COMPLETE, DatasetKind.RAW)
    assert (raw.name, raw.format, raw.technique, raw.size) == ("gel", "imm", "xpcs", beam.path.stat().st_size)
    batch = process(facility, request(facility, raw.id, "xpcs", {"qmap": "rings"}, principal=ADA).id)
    assert outputs(facility, result) == outputs(facility, batch)
    assert result.parents == batch.parents
    again = facility.catalog.view(SERVICE).run(batch.run_id)
    assert done.resolved == again.resolved
    assert list((facility.scratch / "runs").iterdir()) == []


def test_the_curves_are_shown_while_the_frames_come(facility: Facility, tmp_path: Path) -> None:
    run = follow(facility, tmp_path / "gel.imm", frames=COUNT)
    assert live.snapshot(facility, run.id, principal=ADA).outputs is None
    with Beam(tmp_path / "gel.imm", stops=(32,)) as beam:
        work, failures = in_background(lambda: process(facility, run.id))
        until(lambda: live.snapshot(facility, run.id, principal=ADA).outputs)
        shown = live.snapshot(facility, run.id, principal=ADA)
        assert (shown.state, shown.planned) == (RunState.RUNNING, COUNT)
        assert 2 <= shown.frames <= 32
        assert shown.outputs is not None
        assert np.shape(shown.outputs["g2"]) == (len(shown.outputs["tau"]), 2)
        assert shown.outputs["tau"][0] == 0.01
        assert json.loads(json.dumps(shown.outputs, allow_nan=False)) == shown.outputs
        with pytest.raises(NotFound):
            live.snapshot(facility, run.id, principal=EVE)
        beam.gates[32].set()
        work.join()
    assert not failures
    assert live.snapshot(facility, run.id, principal=ADA).outputs is None


def test_a_raw_dataset_that_is_still_measured_counts_for_nothing(facility: Facility, tmp_path: Path) -> None:
    run = follow(facility, tmp_path / "gel.imm")
    raw = facility.catalog.view(ADA).dataset(run.dataset_id)
    assert (raw.state, raw.files, raw.size) == (DatasetState.RECEIVING, 0, 0)
    assert [each.name for each in facility.catalog.view(ADA).datasets().items] == ["rings"]
    with pytest.raises(Conflict, match="receiving"):
        request(facility, raw.id, "xpcs", {"qmap": "rings"}, principal=ADA)


def test_a_run_whose_length_nobody_said_ends_when_the_file_rests(facility: Facility, tmp_path: Path) -> None:
    with Beam(tmp_path / "gel.imm"):
        pass
    run = follow(facility, tmp_path / "gel.imm", idle_s=0.3)
    result = process(facility, run.id)
    assert state_of(facility, run).resolved["end"] == COUNT
    assert result.parents[0] == run.dataset_id


def test_a_measurement_that_ends_early_says_so(facility: Facility, tmp_path: Path) -> None:
    with Beam(tmp_path / "gel.imm", frames=FRAMES[:50]):
        pass
    run = follow(facility, tmp_path / "gel.imm", frames=COUNT, idle_s=0.3)
    process(facility, run.id)
    assert "the measurement ended after 50 of 90 frames" in state_of(facility, run).message


def test_stopping_keeps_the_result_of_the_frames_so_far(facility: Facility, tmp_path: Path) -> None:
    run = follow(facility, tmp_path / "gel.imm", frames=COUNT)
    with Beam(tmp_path / "gel.imm", stops=(32,)):
        work, failures = in_background(lambda: process(facility, run.id))
        until(lambda: live.snapshot(facility, run.id, principal=ADA).frames)
        with pytest.raises(NotFound):
            live.stop(facility, run.id, principal=EVE)
        live.stop(facility, run.id, principal=ADA)
        work.join()
    assert not failures
    done = state_of(facility, run)
    assert done.state is RunState.STOPPED_EARLY
    assert done.resolved["end"] <= 32
    assert facility.catalog.view(ADA).dataset(done.result_id).state is DatasetState.COMPLETE
    assert facility.catalog.view(ADA).dataset(run.dataset_id).state is DatasetState.RECEIVING
    assert live.stop(facility, run.id, principal=ADA).state is RunState.STOPPED_EARLY
    raw = ingest(facility, tmp_path / "gel.imm", experiment_id=EXPERIMENT, principal=ADA, quiet_s=0).dataset
    assert (raw.id, raw.state) == (run.dataset_id, DatasetState.COMPLETE)


def test_a_cancelled_run_leaves_the_file_and_an_empty_dataset(facility: Facility, tmp_path: Path) -> None:
    run = follow(facility, tmp_path / "gel.imm", frames=COUNT)
    with Beam(tmp_path / "gel.imm", stops=(32,)):
        work, failures = in_background(lambda: process(facility, run.id))
        until(lambda: live.snapshot(facility, run.id, principal=ADA).frames)
        cancel(facility, run.id, principal=ADA)
        work.join()
    assert [type(each) for each in failures] == [RunCancelled]
    assert state_of(facility, run).state is RunState.CANCELLED
    again = follow(facility, tmp_path / "gel.imm", frames=COUNT)
    assert (again.id != run.id, again.dataset_id) == (True, run.dataset_id)
    process(facility, again.id)
    assert state_of(facility, again).state is RunState.DONE


def test_a_measurement_that_never_begins_fails_the_run(facility: Facility, tmp_path: Path) -> None:
    run = follow(facility, tmp_path / "gel.imm", wait_s=0.1)
    with pytest.raises(SourceError, match="nothing to follow"):
        process(facility, run.id)
    assert state_of(facility, run).state is RunState.FAILED


def test_a_source_is_followed_once_at_a_time(facility: Facility, tmp_path: Path) -> None:
    run = follow(facility, tmp_path / "gel.imm", frames=COUNT)
    with pytest.raises(Conflict, match="other parameters"):
        follow(facility, tmp_path / "gel.imm", params={"qmap": "rings", "average": 2})
    with Beam(tmp_path / "gel.imm", stops=(32,)) as beam:
        work, failures = in_background(lambda: process(facility, run.id))
        until(lambda: live.snapshot(facility, run.id, principal=ADA).frames)
        with pytest.raises(Conflict, match="already"):
            follow(facility, tmp_path / "gel.imm", frames=COUNT)
        beam.gates[32].set()
        work.join()
    assert not failures


def test_who_may_not_write_raw_data_may_not_follow(facility: Facility, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        follow(facility, tmp_path / "gel.imm", principal=EVE)
    with pytest.raises(InvalidInput, match="does not work live"):
        live.request(facility, tmp_path / "x.h5", "tomography", experiment_id=EXPERIMENT, principal=ADA)
    assert facility.catalog.view(SERVICE).runs().total == 0


@pytest.mark.crash
def test_killed_while_it_follows_and_started_again_it_gives_the_same_bytes(
    facility: Facility, tmp_path: Path
) -> None:
    run = follow(facility, tmp_path / "gel.imm", frames=COUNT)
    with Beam(tmp_path / "gel.imm", stops=(32,)) as beam:
        command = [sys.executable, "-c", VICTIM, str(facility.config.root), run.id]
        with subprocess.Popen(command) as victim:
            until(lambda: live.snapshot(facility, run.id, principal=ADA).frames > 1)
            victim.kill()
        assert state_of(facility, run).state is RunState.RUNNING
        again = follow(facility, tmp_path / "gel.imm", frames=COUNT)
        assert (again.id, again.dataset_id) == (run.id, run.dataset_id)
        beam.gates[32].set()
        result = process(facility, again.id)
    raw = facility.catalog.view(ADA).dataset(run.dataset_id)
    batch = process(facility, request(facility, raw.id, "xpcs", {"qmap": "rings"}, principal=ADA).id)
    assert outputs(facility, result) == outputs(facility, batch)
    assert [each.id for each in facility.catalog.view(ADA).children(raw.id) if each.run_id == run.id] == [
        result.id
    ]


@pytest.mark.crash
@pytest.mark.parametrize("point", ["write_result", "keep_result", "_store_raw"])
def test_unplugged_after_any_stage_it_ends_once(
    facility: Facility, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    class Unplugged(BaseException):
        pass

    with Beam(tmp_path / "gel.imm"):
        pass
    run = follow(facility, tmp_path / "gel.imm", frames=COUNT)
    stage = getattr(following, point)

    def unplug(*arguments: Any, **options: Any) -> None:
        stage(*arguments, **options)
        raise Unplugged

    with monkeypatch.context() as patch:
        patch.setattr(following, point, unplug)
        with pytest.raises(Unplugged):
            process(facility, run.id)
    result = process(facility, run.id)
    assert state_of(facility, run).state is RunState.DONE
    view = facility.catalog.view(ADA)
    assert [each.id for each in view.children(run.dataset_id)] == [result.id]
    assert view.dataset(run.dataset_id).state is DatasetState.COMPLETE


def test_a_worker_leaves_a_run_alone_that_is_being_followed_and_takes_up_one_that_died(
    facility: Facility, tmp_path: Path
) -> None:
    run = follow(facility, tmp_path / "gel.imm", frames=COUNT)
    with Beam(tmp_path / "gel.imm", stops=(32,)) as beam:
        work, failures = in_background(lambda: process(facility, run.id))
        until(lambda: live.is_followed(facility, run.id))
        with open_workflow(facility, work=False) as orchestrator:
            orchestrator.settle()
            assert not orchestrator.is_queued(run.id)
        beam.gates[32].set()
        work.join()
    assert not failures
    left = follow(facility, tmp_path / "gel.imm", frames=COUNT, name="again")
    with open_workflow(facility) as orchestrator:
        orchestrator.wait(left.id, timeout_s=60)
    assert state_of(facility, left).state is RunState.DONE
