"""A run computes what its technique says, keeps it as one derived dataset, and tells how it went."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest

from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing import process as processing
from lightkeep.lifecycle.processing.process import cut, process, request, retry
from lightkeep.lifecycle.processing.scratch import Scratch
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.model.datasets import Dataset, DatasetKind
from lightkeep.model.errors import Conflict, InvalidInput, NotFound, RunCancelled, RunFailed, SignInRequired
from lightkeep.model.people import ANONYMOUS, SERVICE
from lightkeep.model.runs import Run, RunState

PLUGIN = Path(__file__).parents[1] / "plugin"
sys.path.insert(0, str(PLUGIN))
from house import ADA, EVE, EXPERIMENT, build, mean_of_scan, scan  # noqa: E402


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    with build(tmp_path / "facility") as facility:
        yield facility


@pytest.fixture
def dataset(facility: Facility, tmp_path: Path) -> Dataset:
    return _ingest(facility, scan(tmp_path / "tooth.h5"))


@pytest.fixture
def gates(tmp_path: Path) -> Path:
    folder = tmp_path / "gates"
    folder.mkdir()
    return folder


def _ingest(facility: Facility, path: Path) -> Dataset:
    return ingest(facility, path, experiment_id=EXPERIMENT, principal=ADA, quiet_s=0).dataset


def _request(facility: Facility, dataset: Dataset, gates: Path, **options: object) -> Run:
    engine = str(options.pop("engine", ""))
    params = {"folder": str(gates), **options}
    return request(facility, dataset.id, "gated", params, principal=ADA, engine=engine)


def _run(facility: Facility, run: Run) -> Run:
    return facility.catalog.view(SERVICE).run(run.id)


def _result(facility: Facility, result: Dataset) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}

    def look(name: str, node: object) -> None:
        if isinstance(node, h5py.Dataset) and node.shape in ((4, 5), (6,), (32, 5), (9, 5)):
            found[name] = node[()]

    with h5py.File(local_path(facility, result.id, result.main_file)) as file:
        file.visititems(look)
    return found


def _computed(gates: Path) -> list[int]:
    return sorted(int(line) for line in (gates / "computed").read_text().split())


def test_a_run_becomes_a_derived_dataset_with_its_input_and_its_run(
    facility: Facility, dataset: Dataset, gates: Path
) -> None:
    run = _request(facility, dataset, gates)
    result = process(facility, run.id)
    assert (result.kind, result.parents, result.run_id) == (DatasetKind.DERIVED, (dataset.id,), run.id)
    assert (result.experiment_id, result.name) == (dataset.experiment_id, "tooth-gated-1")
    assert any(np.array_equal(values, mean_of_scan()) for values in _result(facility, result).values())


def test_a_finished_run_keeps_the_parameters_in_force_the_result_and_the_warnings(
    facility: Facility, dataset: Dataset, gates: Path
) -> None:
    run = _request(facility, dataset, gates)
    result = process(facility, run.id)
    done = _run(facility, run)
    assert (done.state, done.progress, done.result_id) == (RunState.DONE, 1.0, result.id)
    assert done.resolved == {"folder": str(gates), "scale": 1.0, "piece": 1, "seconds": 10.0}
    assert "one flat is empty" in done.message
    assert done.software.startswith("lightkeep ")


def test_processing_a_run_again_returns_the_same_dataset(
    facility: Facility, dataset: Dataset, gates: Path
) -> None:
    run = _request(facility, dataset, gates)
    assert process(facility, run.id).id == process(facility, run.id).id
    assert _computed(gates) == [0, 1, 2, 3]


def test_two_runs_make_two_results_with_their_own_names(facility: Facility, dataset: Dataset, gates: Path) -> None:
    names = [process(facility, _request(facility, dataset, gates).id).name for _ in range(2)]
    assert names == ["tooth-gated-1", "tooth-gated-2"]


def test_inline_and_processes_write_the_same_bytes(facility: Facility, dataset: Dataset, gates: Path) -> None:
    results = []
    for engine in ("inline", "processes"):
        values = _result(facility, process(facility, _request(facility, dataset, gates, engine=engine).id))
        results.append({name: array.tobytes() for name, array in values.items()})
    assert results[0] == results[1]


def test_a_run_that_was_stopped_between_pieces_does_not_repeat_the_finished_ones(
    facility: Facility, dataset: Dataset, gates: Path
) -> None:
    class Unplugged(BaseException):
        pass

    class Plug:
        def is_set(self) -> bool:
            if (gates / "computed").exists() and len(_computed(gates)) == 2:
                raise Unplugged
            return False

    run = _request(facility, dataset, gates)
    with pytest.raises(Unplugged):
        process(facility, run.id, cancel=Plug())
    assert _run(facility, run).state is RunState.RUNNING
    result = process(facility, run.id)
    assert _computed(gates) == [0, 1, 2, 3]
    assert any(np.array_equal(values, mean_of_scan()) for values in _result(facility, result).values())


@pytest.mark.crash
def test_a_run_unplugged_at_any_sync_goes_on_and_ends_once(
    facility: Facility, dataset: Dataset, gates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unplugged(BaseException):
        pass

    sync = os.fsync
    left = 10_000

    def unplug(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise Unplugged
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", unplug)
    process(facility, _request(facility, dataset, gates, piece=2).id)
    syncs = 10_000 - left
    assert syncs > 6
    for at in range(1, syncs + 1):
        run = _request(facility, dataset, gates, piece=2)
        left = at
        with pytest.raises(Unplugged):
            process(facility, run.id)
        result = process(facility, run.id)
        assert any(np.array_equal(values, mean_of_scan()) for values in _result(facility, result).values())
        assert [each.id for each in _results_of(facility, run)] == [result.id]
    assert list((facility.scratch / "runs").iterdir()) == []


def _results_of(facility: Facility, run: Run) -> list[Dataset]:
    children = facility.catalog.view(SERVICE).children(run.dataset_id)
    return [child for child in children if child.run_id == run.id]


def test_a_result_that_was_written_but_not_stored_is_stored_as_it_is(
    facility: Facility, dataset: Dataset, gates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _request(facility, dataset, gates)

    def unplug(*_arguments: object) -> Dataset:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(processing, "keep_result", unplug)
        with pytest.raises(KeyboardInterrupt):
            process(facility, run.id)
    written = {
        path.name: path.stat().st_mtime_ns for path in (facility.scratch / "runs" / run.id / "result").iterdir()
    }
    result = process(facility, run.id)
    files = facility.catalog.view(SERVICE).files(result.id).items
    assert {file.path: file.mtime_ns for file in files} == written


@pytest.mark.parametrize(("engine", "piece"), [("inline", 1), ("inline", 4), ("processes", 2)])
def test_an_incremental_technique_gives_the_same_however_it_is_cut(
    facility: Facility, dataset: Dataset, engine: str, piece: int
) -> None:
    run = request(facility, dataset.id, "total", {"piece": piece}, principal=ADA, engine=engine)
    result = _result(facility, process(facility, run.id))
    assert any(np.array_equal(values, 6 * mean_of_scan()) for values in result.values())


def test_the_scratch_folder_is_empty_after_a_run(facility: Facility, dataset: Dataset, gates: Path) -> None:
    process(facility, _request(facility, dataset, gates).id)
    assert list((facility.scratch / "runs").iterdir()) == []


def test_a_failed_run_says_why_and_can_be_tried_again(facility: Facility, dataset: Dataset, gates: Path) -> None:
    run = _request(facility, dataset, gates)
    (gates / "fail").touch()
    with pytest.raises(RunFailed):
        process(facility, run.id)
    failed = facility.catalog.view(ADA).runs(state=RunState.FAILED).items
    assert [(each.id, each.error, each.message) for each in failed] == [
        (run.id, "run_failed", "ValueError: row 0 is empty")
    ]
    (gates / "fail").unlink()
    again = retry(facility, run.id, principal=ADA)
    assert again.params == run.params
    assert process(facility, again.id).name == "tooth-gated-1"
    assert list((facility.scratch / "runs").iterdir()) == []


def test_a_failed_run_is_not_taken_up_again(facility: Facility, dataset: Dataset, gates: Path) -> None:
    run = _request(facility, dataset, gates)
    (gates / "fail").touch()
    for _ in range(2):
        with pytest.raises(RunFailed, match="row 0 is empty"):
            process(facility, run.id)
    assert _computed(gates) == [0]


def test_a_preflight_that_refuses_fails_the_run_before_any_piece(
    facility: Facility, dataset: Dataset, gates: Path
) -> None:
    run = _request(facility, dataset, gates, scale=0)
    with pytest.raises(RunFailed, match="scale is 0"):
        process(facility, run.id)
    assert not (gates / "computed").exists()


def test_a_worker_killed_twice_fails_the_run_by_the_name_of_the_signal(
    facility: Facility, dataset: Dataset, gates: Path
) -> None:
    run = _request(facility, dataset, gates, engine="processes")
    (gates / "kill").touch()
    with pytest.raises(RunFailed, match="SIGKILL"):
        process(facility, run.id)
    assert "SIGKILL" in _run(facility, run).message


def test_a_run_is_cancelled_within_a_second_by_whoever_may_process(
    facility: Facility, dataset: Dataset, gates: Path
) -> None:
    run = _request(facility, dataset, gates, engine="processes")
    (gates / "hold-1").touch()
    ended: list[float] = []

    def work() -> None:
        with pytest.raises(RunCancelled):
            process(facility, run.id)
        ended.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    while not (gates / "computed").exists():
        time.sleep(0.01)
    asked = time.monotonic()
    processing.cancel(facility, run.id, principal=ADA)
    thread.join(timeout=20)
    assert ended[0] - asked < 1
    done = _run(facility, run)
    assert (done.state, done.message) == (RunState.CANCELLED, "cancelled by ada")
    assert list((facility.scratch / "runs").iterdir()) == []


def test_a_queued_run_that_is_cancelled_never_starts(facility: Facility, dataset: Dataset, gates: Path) -> None:
    run = _request(facility, dataset, gates)
    processing.cancel(facility, run.id, principal=ADA)
    with pytest.raises(RunCancelled):
        process(facility, run.id)
    assert not (gates / "computed").exists()


def test_a_run_cancelled_at_the_last_moment_leaves_no_visible_result(
    facility: Facility, dataset: Dataset, gates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _request(facility, dataset, gates)
    keep = processing.keep_result

    def keep_then_cancel(*arguments: object) -> Dataset:
        kept = keep(*arguments)  # type: ignore[arg-type]
        processing.cancel(facility, run.id, principal=ADA)
        return kept

    monkeypatch.setattr(processing, "keep_result", keep_then_cancel)
    with pytest.raises(RunCancelled):
        process(facility, run.id)
    assert facility.catalog.view(ADA).datasets(kind=DatasetKind.DERIVED).total == 0


def test_a_run_that_another_process_works_on_is_left_to_it(
    facility: Facility, dataset: Dataset, gates: Path
) -> None:
    run = _request(facility, dataset, gates)
    with Scratch(facility.scratch / "runs" / run.id), pytest.raises(Conflict, match="another process"):
        process(facility, run.id)
    assert _run(facility, run).state is RunState.QUEUED


def test_progress_never_falls_and_reaches_one(facility: Facility, dataset: Dataset, gates: Path) -> None:
    run = _request(facility, dataset, gates)
    seen: list[float] = []
    process(facility, run.id, report=lambda fraction, _message: seen.append(fraction))
    assert seen == sorted(seen)
    assert _run(facility, run).progress == 1.0


def test_who_may_not_process_is_refused_and_who_may_not_see_finds_nothing(
    facility: Facility, dataset: Dataset, gates: Path
) -> None:
    with pytest.raises((SignInRequired, NotFound)):
        request(facility, dataset.id, "gated", principal=ANONYMOUS)
    with pytest.raises(NotFound):
        request(facility, dataset.id, "gated", principal=EVE)
    run = _request(facility, dataset, gates)
    with pytest.raises(NotFound):
        processing.cancel(facility, run.id, principal=EVE)


def test_a_wrong_parameter_is_refused_by_name_before_anything_is_queued(
    facility: Facility, dataset: Dataset
) -> None:
    with pytest.raises(InvalidInput, match="scale"):
        request(facility, dataset.id, "gated", {"scale": "much"}, principal=ADA)
    assert facility.catalog.view(ADA).runs().total == 0


def test_an_unknown_engine_is_refused_before_anything_is_queued(facility: Facility, dataset: Dataset) -> None:
    with pytest.raises(InvalidInput, match="mainframe"):
        request(facility, dataset.id, "gated", principal=ADA, engine="mainframe")
    assert facility.catalog.view(ADA).runs().total == 0


@pytest.mark.parametrize(
    ("asked", "seconds", "taken"), [("", 0.1, "inline"), ("", 10, "processes"), ("processes", 0.1, "processes")]
)
def test_work_that_is_not_worth_starting_processes_stays_inline_unless_asked_otherwise(
    tmp_path: Path, gates: Path, asked: str, seconds: float, taken: str
) -> None:
    with build(tmp_path / "other", "processes") as facility:
        dataset = _ingest(facility, scan(tmp_path / "tooth.h5"))
        run = _request(facility, dataset, gates, engine=asked, seconds=seconds)
        process(facility, run.id)
        assert _run(facility, run).engine == taken


def test_a_request_with_the_same_run_id_is_one_run(facility: Facility, dataset: Dataset) -> None:
    first = request(facility, dataset.id, "gated", principal=ADA, run_id="run_1")
    assert request(facility, dataset.id, "gated", principal=ADA, run_id="run_1") == first
    assert facility.catalog.view(ADA).runs().total == 1


def test_the_command_in_the_result_names_technique_dataset_and_parameters(
    facility: Facility, dataset: Dataset, gates: Path
) -> None:
    result = process(facility, _request(facility, dataset, gates, scale=2.0).id)
    with h5py.File(local_path(facility, result.id, result.main_file)) as file:
        texts: list[str] = []
        file.visititems(
            lambda _name, node: (
                texts.append(str(node.asstr()[()]))
                if isinstance(node, h5py.Dataset) and h5py.check_string_dtype(node.dtype) and node.shape == ()
                else None
            )
        )
    words = next(shlex.split(text) for text in texts if text.startswith("lightkeep run"))
    assert dataset.id in words
    assert words[words.index("--scale") + 1] == "2.0"


@pytest.mark.parametrize(("length", "piece"), [(1, 0), (31, 0), (33, 0), (1000, 0), (10, 3), (10, 10), (10, 99)])
def test_pieces_share_out_every_index_once(length: int, piece: int) -> None:
    covered = [index for begin, end in cut(length, piece) for index in range(begin, end)]
    assert covered == list(range(length))
    assert len(cut(length, piece)) <= 32


def test_runs_of_one_dataset_that_end_at_once_are_named_apart_and_leave_nothing_over(
    facility: Facility, tmp_path: Path
) -> None:
    dataset = _ingest(facility, scan(tmp_path / "tooth.h5"))
    runs = [request(facility, dataset.id, "gated", {"seconds": 0}, principal=ADA).id for _ in range(4)]
    with ThreadPoolExecutor(len(runs)) as pool:
        made = list(pool.map(lambda run_id: process(facility, run_id), runs))
    assert sorted(each.name for each in made) == [f"tooth-gated-{number}" for number in range(1, 5)]
    assert [each.run_id for each in made] == runs
    view = facility.catalog.view(SERVICE)
    known = {each.key for one in (dataset, *made) for each in view.replicas(one.id)}
    store = Path(facility.stores["central"].record.location)
    there = {path.relative_to(store).as_posix() for path in (store / "2-BM-A").rglob("*") if path.is_file()}
    assert there == known
