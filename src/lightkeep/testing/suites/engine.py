"""What every engine must do. Subclass `EngineSuite` in a test module and say how to make the engine.

An engine whose tasks run on this machine subclasses `LocalEngineSuite`, one whose tasks run in other processes
`RemoteEngineSuite`, one whose work outlives its caller `DurableEngineSuite`: each promises more.
"""

# ruff: noqa: S101, S603 -- a suite is a test that ships

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from lightkeep.model.engines import Engine, Task
from lightkeep.model.errors import BadFile, RunCancelled, RunFailed, StoreUnavailable

HERE = "lightkeep.testing.suites.engine"


def square(value: int) -> int:
    """Return value squared."""
    return value * value


def slow_square(value: int, delays_s: list[float]) -> int:
    """Return value squared after a delay of its own: tasks end out of order."""
    time.sleep(delays_s[value])
    return value * value


def fail(value: int, failing: dict[int, float]) -> int:
    """Return value, or raise ValueError after the delay given for it."""
    if value in failing:
        time.sleep(failing[value])
        raise ValueError(f"no frames in piece {value}")
    return value


def refuse() -> None:
    """Raise an error of ours, with a remedy and data."""
    raise BadFile("scan.h5 is cut short", remedy="copy it again", path="scan.h5")


def zeros(count: int) -> bytes:
    """Return that many zero bytes."""
    return bytes(count)


def touch(path: str) -> int:
    """Append this process's id to a file; return it."""
    with Path(path).open("a") as file:
        file.write(f"{os.getpid()}\n")
    return os.getpid()


def touch_and_wait(path: str, wait_s: float) -> None:
    """Append this process's id to a file, then be busy for long."""
    touch(path)
    time.sleep(wait_s)


def die(path: str, times: int) -> str:
    """Be killed by SIGKILL the first `times` times; then return."""
    touch(path)
    if len(Path(path).read_text().split()) <= times:
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def environment(names: list[str]) -> list[str]:
    """Return the values of environment variables."""
    return [os.environ.get(name, "") for name in names]


def map_forever(engine: str, path: str, wait_s: float) -> None:
    """Run two long tasks on a named engine: the body of a process that will be killed."""
    from lightkeep import engines

    task = Task(f"{HERE}:touch_and_wait", {"path": path, "wait_s": wait_s})
    engines.get(engine).map([task, task])


class EngineSuite:
    """Subclass it, name the class `Test...`, and override `make`."""

    def make(self) -> Engine:
        """Return a fresh engine that runs at least two tasks at once, if it can."""
        raise NotImplementedError

    def test_results_come_in_the_order_of_the_tasks(self) -> None:
        delays = [0.2, 0.0, 0.1, 0.0]
        tasks = [Task(f"{HERE}:slow_square", {"value": n, "delays_s": delays}) for n in range(4)]
        assert self.make().map(tasks) == [0, 1, 4, 9]

    def test_no_tasks_give_no_results(self) -> None:
        assert self.make().map([]) == []

    def test_each_task_is_reported_once_in_the_callers_thread(self) -> None:
        seen: list[tuple[int, Any, int]] = []
        tasks = [Task(f"{HERE}:square", {"value": n}) for n in range(5)]
        self.make().map(tasks, done=lambda n, result: seen.append((n, result, threading.get_ident())))
        assert sorted(seen) == [(n, n * n, threading.get_ident()) for n in range(5)]

    def test_an_error_of_ours_arrives_as_it_was_raised(self) -> None:
        with pytest.raises(BadFile) as caught:
            self.make().map([Task(f"{HERE}:refuse")])
        assert (caught.value.message, caught.value.remedy) == ("scan.h5 is cut short", "copy it again")
        assert caught.value.data == {"path": "scan.h5"}

    def test_another_error_becomes_a_failed_run_that_names_it_and_its_place(self) -> None:
        with pytest.raises(RunFailed) as caught:
            self.make().map([Task(f"{HERE}:fail", {"value": 0, "failing": {0: 0.0}})])
        assert caught.value.message == "ValueError: no frames in piece 0"
        assert "fail" in caught.value.remedy
        assert "Traceback" in caught.value.data["traceback"]

    def test_the_first_failing_task_wins_even_when_a_later_one_fails_sooner(self) -> None:
        tasks = [Task(f"{HERE}:fail", {"value": n, "failing": {1: 0.4, 2: 0.0}}) for n in range(4)]
        with pytest.raises(RunFailed, match="no frames in piece 1"):
            self.make().map(tasks)

    def test_a_large_result_arrives_whole(self) -> None:
        sizes = [30_000_000, 1, 20_000_000]
        results = self.make().map([Task(f"{HERE}:zeros", {"count": size}) for size in sizes])
        assert [len(result) for result in results] == sizes

    def test_each_task_runs_once(self, tmp_path: Path) -> None:
        paths = [tmp_path / str(n) for n in range(6)]
        self.make().map([Task(f"{HERE}:touch", {"path": str(path)}) for path in paths])
        assert [len(path.read_text().split()) for path in paths] == [1] * 6

    def test_a_cancel_before_the_start_runs_nothing(self, tmp_path: Path) -> None:
        cancel = threading.Event()
        cancel.set()
        with pytest.raises(RunCancelled):
            self.make().map([Task(f"{HERE}:touch", {"path": str(tmp_path / "ran")})], cancel=cancel)
        assert not (tmp_path / "ran").exists()

    def test_a_cancel_between_tasks_stops_the_rest(self, tmp_path: Path) -> None:
        cancel = threading.Event()
        tasks = _appending(tmp_path, count=50, wait_s=0.1)
        with pytest.raises(RunCancelled):
            self.make().map(tasks, done=lambda _n, _result: cancel.set(), cancel=cancel)
        assert len(list(tmp_path.iterdir())) < 50

    def test_no_process_is_left_behind(self, tmp_path: Path) -> None:
        path = tmp_path / "pids"
        self.make().map([Task(f"{HERE}:touch", {"path": str(path)}) for _ in range(4)])
        pids = {int(pid) for pid in path.read_text().split()} - {os.getpid()}
        assert not [pid for pid in pids if is_alive(pid)]


class LocalEngineSuite(EngineSuite):
    """For an engine whose tasks run on this machine: they end with the process that asked for them."""

    def test_no_process_outlives_a_killed_parent(self, tmp_path: Path) -> None:
        path = tmp_path / "pids"
        call = f"from {HERE} import map_forever; map_forever({self.make().name!r}, {str(path)!r}, 60)"
        with subprocess.Popen([sys.executable, "-c", call]) as parent:
            pids = _wait_for_pids(path, self.make().workers())
            parent.kill()
        deadline = time.monotonic() + 5
        while any(is_alive(pid) for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not [pid for pid in pids if is_alive(pid)]


class RemoteEngineSuite(EngineSuite):
    """For an engine whose tasks run in other processes: a cancel interrupts them, and they may die."""

    def test_a_cancel_stops_running_tasks_within_a_second(self, tmp_path: Path) -> None:
        cancel, path = threading.Event(), tmp_path / "pids"
        stopped: list[float] = []
        tasks = [Task(f"{HERE}:touch_and_wait", {"path": str(path), "wait_s": 60}) for _ in range(2)]

        def run() -> None:
            with pytest.raises(RunCancelled):
                self.make().map(tasks, cancel=cancel)
            stopped.append(time.monotonic())

        thread = threading.Thread(target=run)
        thread.start()
        pids = _wait_for_pids(path, 2)
        asked = time.monotonic()
        cancel.set()
        thread.join(timeout=30)
        assert stopped[0] - asked < 1
        assert not [pid for pid in pids if is_alive(pid)]

    def test_a_killed_worker_costs_one_retry(self, tmp_path: Path) -> None:
        task = Task(f"{HERE}:die", {"path": str(tmp_path / "tries"), "times": 1})
        others = [Task(f"{HERE}:square", {"value": n}) for n in range(3)]
        assert self.make().map([task, *others]) == ["survived", 0, 1, 4]
        assert len((tmp_path / "tries").read_text().split()) == 2

    def test_the_other_tasks_go_on_while_one_has_lost_its_worker(self, tmp_path: Path) -> None:
        tasks = [Task(f"{HERE}:die", {"path": str(tmp_path / str(n)), "times": n % 2}) for n in range(4)]
        assert self.make().map(tasks) == ["survived"] * 4
        assert [len((tmp_path / str(n)).read_text().split()) for n in range(4)] == [1, 2, 1, 2]

    def test_a_worker_killed_twice_is_a_failed_run_that_names_task_and_signal(self, tmp_path: Path) -> None:
        task = Task(f"{HERE}:die", {"path": str(tmp_path / "tries"), "times": 9})
        with pytest.raises(RunFailed, match=r"piece 0 .*:die.*SIGKILL") as caught:
            self.make().map([task])
        assert "memory" in caught.value.remedy
        assert len((tmp_path / "tries").read_text().split()) == 2


class Leave(BaseException):
    """The process that asked is being stopped, not the work."""


class LeaveWhen:
    """Looks like a cancel; raises an error as soon as a file is there."""

    def __init__(self, path: Path, why: type[BaseException]) -> None:
        self._path = path
        self._why = why

    def is_set(self) -> bool:
        """Return False, or raise."""
        if self._path.exists():
            raise self._why("not a cancel")
        return False


class DurableEngineSuite(RemoteEngineSuite):
    """For an engine whose work outlives its caller: the next call with the same key finds it."""

    def options(self) -> dict[str, Any]:
        """Return what the engine is made with, for a process that will be killed: it makes its own."""
        raise NotImplementedError

    def _caller(self, folder: Path, *, count: int, wait_s: float) -> subprocess.Popen[bytes]:
        arguments = f"{self.make().name!r}, {self.options()!r}, {str(folder)!r}, {count}, {wait_s}"
        code = f"from {HERE} import map_durably; map_durably({arguments})"
        return subprocess.Popen([sys.executable, "-c", code])

    def test_a_killed_callers_work_is_found_again_and_done_once(self, tmp_path: Path) -> None:
        tasks, folder = _appending(tmp_path, count=3, wait_s=2.0), tmp_path / "jobs"
        with self._caller(tmp_path, count=3, wait_s=2.0) as caller:
            _wait_for_pids(tmp_path / "0", 1)
            caller.kill()
        self.make().map(tasks, key="run_1-compute", folder=folder)
        assert [len((tmp_path / str(n)).read_text().split()) for n in range(3)] == [1] * 3

    def test_what_is_done_already_is_not_done_again(self, tmp_path: Path) -> None:
        tasks, folder = _appending(tmp_path, count=2, wait_s=0.0), tmp_path / "jobs"
        first = self.make().map(tasks, key="run_2-compute", folder=folder)
        assert self.make().map(tasks, key="run_2-compute", folder=folder) == first
        assert [len((tmp_path / str(n)).read_text().split()) for n in range(2)] == [1, 1]

    @pytest.mark.parametrize("why", [Leave, StoreUnavailable])
    def test_a_caller_that_is_stopped_or_loses_its_catalogue_leaves_the_work_running(
        self, tmp_path: Path, why: type[BaseException]
    ) -> None:
        tasks, folder = _appending(tmp_path, count=1, wait_s=2.0), tmp_path / "jobs"
        with pytest.raises(why):
            self.make().map(tasks, cancel=LeaveWhen(tmp_path / "0", why), key="run_3-compute", folder=folder)
        self.make().map(tasks, key="run_3-compute", folder=folder)
        assert len((tmp_path / "0").read_text().split()) == 1

    def test_work_whose_caller_died_is_stopped_by_its_key(self, tmp_path: Path) -> None:
        with self._caller(tmp_path, count=1, wait_s=60.0) as caller:
            pids = _wait_for_pids(tmp_path / "0", 1)
            caller.kill()
        self.make().abandon(key="run_1-compute", folder=tmp_path / "jobs")
        assert not [pid for pid in pids if is_alive(pid)]

    def test_there_is_nothing_to_abandon_where_nothing_was_asked_for(self, tmp_path: Path) -> None:
        self.make().abandon(key="run_9-compute", folder=tmp_path / "jobs")
        assert not (tmp_path / "jobs").exists()


def _appending(folder: Path, *, count: int, wait_s: float) -> list[Task]:
    return [Task(f"{HERE}:touch_and_wait", {"path": str(folder / str(n)), "wait_s": wait_s}) for n in range(count)]


def map_durably(name: str, options: dict[str, Any], folder: str, count: int, wait_s: float) -> None:
    """Run appending tasks under a key: the body of a process that will be killed."""
    from lightkeep import engines

    tasks = _appending(Path(folder), count=count, wait_s=wait_s)
    engines.get(name, **options).map(tasks, key="run_1-compute", folder=Path(folder) / "jobs")


def is_alive(pid: int) -> bool:
    """True while a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait_for_pids(path: Path, count: int) -> list[int]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        pids = path.read_text().split() if path.exists() else []
        if len(pids) >= count:
            return [int(pid) for pid in pids]
        time.sleep(0.01)
    raise AssertionError(f"only {len(pids)} of {count} tasks started within a minute")
