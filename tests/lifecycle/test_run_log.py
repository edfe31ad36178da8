"""What the tasks of a run say is kept, whatever becomes of the run, and is read by who may process its data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing import run_log
from lightkeep.lifecycle.processing.process import process, request
from lightkeep.model.errors import Forbidden, NotFound, RunFailed
from lightkeep.model.people import SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.model.runs import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
from house import ADA, EVE, EXPERIMENT, build, scan


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    with build(tmp_path / "facility", "processes") as facility:
        yield facility


@pytest.fixture
def run(facility: Facility, tmp_path: Path) -> Run:
    """A run of four pieces, each in a process of its own kind."""
    data = ingest(facility, scan(tmp_path / "a.h5"), experiment_id=EXPERIMENT, principal=ADA, quiet_s=0).dataset
    return request(facility, data.id, "gated", {"folder": str(tmp_path)}, principal=ADA)


def test_every_task_says_where_and_how_long_it_ran_and_it_stays_when_the_run_is_over(
    facility: Facility, run: Run
) -> None:
    assert run_log.read(facility, run.id, principal=ADA) == []
    process(facility, run.id)
    lines = run_log.read(facility, run.id, principal=ADA)
    assert not run_log.folders(facility, run.id)
    assert {each.task for each in lines} == {"preflight", *(f"piece-{number:05d}" for number in range(4))}
    assert all(each.message.startswith("done in ") and "process" in each.message for each in lines)
    assert [each.at for each in lines] == sorted(each.at for each in lines)


def test_a_failure_is_there_with_its_traceback_when_the_scratch_folder_is_gone(
    facility: Facility, run: Run, tmp_path: Path
) -> None:
    (tmp_path / "fail").touch()
    with pytest.raises(RunFailed):
        process(facility, run.id)
    lines = run_log.read(facility, run.id, principal=ADA)
    assert not run_log.folders(facility, run.id)
    assert any(each.task.startswith("piece-") and "ValueError: row" in each.message for each in lines)
    (traceback,) = [each for each in lines if each.task == "run" and "Traceback" in each.message]
    assert "gated.py" in traceback.message
    assert traceback.level == "error"


def test_only_who_may_process_the_data_reads_it(facility: Facility, run: Run) -> None:
    with facility.catalog.change(SERVICE) as tx:
        tx.add_person(Person("max", "Max"))
        tx.add_grant(Grant("max", Role.COLLABORATOR, Scope.EXPERIMENT, EXPERIMENT))
    with pytest.raises(Forbidden):
        run_log.read(facility, run.id, principal=Principal("max"))
    with pytest.raises(NotFound):
        run_log.read(facility, run.id, principal=EVE)


def test_what_is_kept_twice_is_there_once_and_a_half_written_line_is_left_out(
    facility: Facility, run: Run, tmp_path: Path
) -> None:
    run_log.say(tmp_path, "piece-00001", "info", "second\nline")
    with (tmp_path / "log" / "piece-00000.jsonl").open("w") as file:
        file.write('{"at": "2026-11-23T00:00:00", "task": "piece-00000", "level": "info", "message": "fi')
    for _ in range(2):
        run_log.keep(facility, run.id, tmp_path)
    assert [each.message for each in run_log.read(facility, run.id, principal=ADA)] == ["second\nline"]
