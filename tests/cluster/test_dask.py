"""The Dask engine: in this process, on a scheduler that is there, and on a real Slurm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lightkeep import engines
from lightkeep.engines.dask import DaskEngine
from lightkeep.engines.slurm_commands import Slurm
from lightkeep.model.engines import Engine, Task
from lightkeep.model.errors import ConfigError, RunCancelled, RunFailed
from lightkeep.testing.suites.engine import HERE, LocalEngineSuite, RemoteEngineSuite, is_alive

pytestmark = pytest.mark.cluster


class TestDaskHere(RemoteEngineSuite, LocalEngineSuite):
    def make(self) -> Engine:
        return engines.get("dask", workers=2)


@pytest.fixture(scope="class")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a scheduler and two workers as a cluster's administrator would; return its address."""
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    worker = ["worker", "--nthreads", "1", "--no-nanny"]
    processes = [
        _dask(folder, *words, "--no-dashboard", "--scheduler-file", str(file))
        for words in (["scheduler", "--host", "127.0.0.1", "--port", "0"], worker, worker)
    ]
    try:
        _until(file.exists)
        address = json.loads(file.read_text())["address"]
        _until(lambda: DaskEngine(address=address).workers() == 2)
        yield address
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait(30)


def _dask(folder: Path, kind: str, *words: str) -> subprocess.Popen[bytes]:
    with (folder / f"{kind}.log").open("a") as log:
        command = [sys.executable, "-m", f"distributed.cli.dask_{kind}", *words]
        return subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)


class TestDaskScheduler(RemoteEngineSuite):
    @pytest.fixture(autouse=True)
    def _address(self, scheduler: str) -> None:
        self.address = scheduler

    def make(self) -> Engine:
        return engines.get("dask", address=self.address)


def test_a_scheduler_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:9"):
        DaskEngine(address="tcp://127.0.0.1:9").map([Task(f"{HERE}:square", {"value": 2})])


class Kills:
    """Looks like a cancel; kills a process at the second look, when the tasks are handed over."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        self._looks = 0

    def is_set(self) -> bool:
        """Return False."""
        self._looks += 1
        if self._looks == 2:
            self._process.kill()
        return False


def test_a_scheduler_that_goes_away_fails_the_run_and_says_so(tmp_path: Path) -> None:
    file = tmp_path / "scheduler.json"
    words = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    with _dask(tmp_path, "scheduler", *words) as scheduler:
        _until(file.exists)
        address = json.loads(file.read_text())["address"]
        with pytest.raises(RunFailed, match="scheduler was lost"):
            DaskEngine(address=address).map([Task(f"{HERE}:square", {"value": 2})], cancel=Kills(scheduler))


def on_slurm(**more: Any) -> DaskEngine:
    """Return an engine whose workers are two Slurm jobs."""
    given = {"folder": f"{os.environ['LIGHTKEEP_TEST_SLURM']}/dask", "memory_mb": 700, "interface": "lo"}
    return DaskEngine(cluster="slurm", workers=2, **(given | more))


def dask_jobs() -> list[str]:
    """Return the ids of the Dask workers' jobs that are not over."""
    return [job.id for job in Slurm().find("lightkeep-dask") if not job.is_over]


def test_tasks_run_in_slurm_jobs_and_none_is_left(tmp_path: Path) -> None:
    tasks = [Task(f"{HERE}:square", {"value": n}) for n in range(20)]
    assert on_slurm(partition="realtime").map(tasks) == [n * n for n in range(20)]
    _until(lambda: not dask_jobs())


def test_memory_reaches_slurm_as_it_was_asked_and_its_refusal_reaches_the_user() -> None:
    with pytest.raises(RunFailed, match=r"emory|node configuration") as caught:
        on_slurm(memory_mb=2500).map([Task(f"{HERE}:square", {"value": 2})])
    assert "--mem=2500M" in caught.value.remedy


def test_a_lost_job_is_replaced_and_its_task_done_again(tmp_path: Path) -> None:
    tasks = [
        Task(f"{HERE}:touch_and_wait", {"path": str(tmp_path / str(n)), "wait_s": 6 if n < 2 else 0})
        for n in range(6)
    ]
    lost: list[str] = []

    def lose() -> None:
        _until((tmp_path / "0").exists)
        lost.extend(sorted(dask_jobs())[:1])
        Slurm().cancel(*lost)

    thread = threading.Thread(target=lose)
    thread.start()
    assert on_slurm().map(tasks) == [None] * 6
    thread.join()
    begun = [job for job in Slurm().find("lightkeep-dask") if int(job.id) >= int(lost[0])]
    assert len(begun) == 3, "two, and the one that replaced"


def test_a_cancel_ends_the_jobs(tmp_path: Path) -> None:
    cancel = threading.Event()
    task = Task(f"{HERE}:touch_and_wait", {"path": str(tmp_path / "pid"), "wait_s": 60})
    thread = threading.Thread(target=lambda: (_until((tmp_path / "pid").exists), cancel.set()))
    thread.start()
    with pytest.raises(RunCancelled):
        on_slurm().map([task], cancel=cancel)
    thread.join()
    assert not is_alive(int((tmp_path / "pid").read_text()))
    _until(lambda: not dask_jobs())


def _until(claim: Any) -> None:
    deadline = time.monotonic() + 60
    while not claim():
        assert time.monotonic() < deadline, "it did not come true within a minute"
        time.sleep(0.1)
