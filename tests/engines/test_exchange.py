"""Tasks and results through a folder: all of a file or none, first come first served."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from lightkeep.engines.exchange import Exchange
from lightkeep.engines.slurm import SlurmEngine
from lightkeep.engines.slurm_work import work
from lightkeep.model.engines import FarEngine, MeasuredEngine, Task
from lightkeep.model.errors import BadFile, RunFailed, StorageError
from lightkeep.testing.suites.engine import HERE


def squares(count: int) -> list[Task]:
    return [Task(f"{HERE}:square", {"value": value}) for value in range(count)]


def offered(folder: Path, tasks: list[Task], *shares: list[int]) -> Exchange:
    exchange = Exchange(folder / "jobs")
    exchange.offer(tasks)
    exchange.share_out(1, shares)
    return exchange


def test_a_job_does_its_share_and_no_more(tmp_path: Path) -> None:
    exchange = offered(tmp_path, squares(4), [0, 2], [1, 3])
    work(exchange, 1, share=1, job_id="17", processes=1, cores=1)
    assert exchange.answered() == {1, 3}
    assert exchange.answer(3) == (True, 9)


def test_a_job_that_runs_again_does_only_what_has_no_answer(tmp_path: Path) -> None:
    exchange = offered(
        tmp_path, [Task(f"{HERE}:touch", {"path": str(tmp_path / str(n))}) for n in range(2)], [0, 1]
    )
    exchange.give(0, (True, "before"))
    work(exchange, 1, share=0, job_id="17", processes=1, cores=1)
    assert exchange.answer(0) == (True, "before")
    assert not (tmp_path / "0").exists()
    assert (tmp_path / "1").exists()


def test_a_failing_task_is_answered_with_its_error_and_ends_the_share(tmp_path: Path) -> None:
    tasks = [*squares(1), Task(f"{HERE}:refuse"), *squares(1)]
    exchange = offered(tmp_path, tasks, [0, 1, 2])
    work(exchange, 1, share=0, job_id="17", processes=1, cores=1)
    succeeded, error = exchange.answer(1)
    assert not succeeded
    assert isinstance(error, BadFile)
    assert exchange.answered() == {0, 1}


def test_a_dying_task_is_called_by_its_number_in_the_run_not_in_the_share(tmp_path: Path) -> None:
    die = Task(f"{HERE}:die", {"path": str(tmp_path / "tries"), "times": 9})
    exchange = offered(tmp_path, [*squares(2), die], [0], [2])
    work(exchange, 1, share=1, job_id="17", processes=1, cores=1)
    assert "piece 2 " in exchange.answer(2)[1].message


def test_the_jobs_of_a_second_submission_of_the_same_number_do_nothing(tmp_path: Path) -> None:
    exchange = offered(tmp_path, squares(1), [0])
    assert exchange.may_work(1, "17")
    work(exchange, 1, share=0, job_id="18", processes=1, cores=1)
    assert exchange.answered() == set()
    assert exchange.job_id(1) == "17"


def test_the_owner_counts_more_than_what_was_written_down(tmp_path: Path) -> None:
    exchange = offered(tmp_path, squares(1), [0])
    exchange.note_id(1, "18")
    exchange.may_work(1, "17")
    assert exchange.job_id(1) == "17"


def test_who_comes_second_takes_the_shares_of_the_first(tmp_path: Path) -> None:
    exchange = offered(tmp_path, squares(4), [0, 1], [2, 3])
    assert exchange.share_out(1, [[0, 1, 2, 3]]) == [[0, 1], [2, 3]]


def test_an_answer_never_changes(tmp_path: Path) -> None:
    exchange = offered(tmp_path, squares(1), [0])
    exchange.give(0, (True, "first"))
    exchange.give(0, (True, "second"))
    assert exchange.answer(0) == (True, "first")


def test_a_result_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    exchange = offered(tmp_path, squares(1), [0])
    exchange.give(0, (True, lambda: None))
    succeeded, error = exchange.answer(0)
    assert not succeeded
    assert "cannot be written" in error.message


def test_a_file_that_was_being_written_when_its_writer_died_is_not_seen(tmp_path: Path) -> None:
    exchange = offered(tmp_path, squares(1), [0])
    (exchange.folder / ".0.result.deadbeef").write_bytes(pickle.dumps((True, 0))[:3])
    assert exchange.answered() == set()


def test_other_tasks_under_the_same_key_are_refused(tmp_path: Path) -> None:
    exchange = offered(tmp_path, squares(2), [0, 1])
    exchange.offer(squares(2))
    with pytest.raises(RunFailed, match="holds 2 other tasks"):
        exchange.offer(squares(3))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("a file")
    with pytest.raises(StorageError, match="jobs"):
        Exchange(tmp_path / "jobs").offer(squares(1))


def test_waiting_ends_when_the_first_job_begins(tmp_path: Path) -> None:
    exchange = Exchange(tmp_path / "jobs")
    assert SlurmEngine().spent(exchange.folder) == {}
    exchange.offer([Task("a:b"), Task("a:b")])
    exchange.share_out(1, [[0, 1]])
    assert SlurmEngine().spent(exchange.folder) == {}
    exchange.may_work(1, "17")
    exchange.give(0, (True, None))
    exchange.give(1, (True, None))
    for name, at in (("1.shares", 100), ("1.owner", 160), ("0.result", 170), ("1.result", 190)):
        os.utime(exchange.folder / name, (at, at))
    assert SlurmEngine().spent(exchange.folder) == {"wait_s": 60, "compute_s": 30}
    assert isinstance(SlurmEngine(), MeasuredEngine)
    assert not isinstance(SlurmEngine(), FarEngine)
