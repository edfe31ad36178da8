"""The Dask engine: in this process, on a scheduler that is there, and on a real Slurm."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
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
    dask = [sys.executable, "-m", "distributed.cli.dask_"]
    with (folder / "log").open("w") as log:
        begin = {"stdout": log, "stderr": log, "cwd": folder}
        words = [f"{dask[2]}scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        processes = [subprocess.Popen([*dask[:2], *words, "--scheduler-file", str(file)], **begin)]
        for _ in range(2):
            words = [f"{dask[2]}worker", "--no-dashboard", "--nthreads", "1", "--no-nanny"]
            processes.append(
                subprocess.Popen([*dask[:2], *words, "--scheduler-file", str(file)], **begin)  # type: ignore[call-overload]
            )
        import json

        _until(file.exists)
        address = json.loads(file.read_text())["address"]
        _until(lambda: DaskEngine(address=address).workers() == 2)
        yield address
        for process in reversed(processes):
            process.terminate()
            process.wait(30)


class TestDaskScheduler(RemoteEngineSuite):
    @pytest.fixture(autouse=True)
    def _address(self, scheduler: str) -> None:
        self.address = scheduler

    def make(self) -> Engine:
        return engines.get("dask", address=self.address)


def test_a_scheduler_that_is_not_there_is_named() -> None:
    with pytest.raises(ConfigError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:9"):
        DaskEngine(address="tcp://127.0.0.1:9").map([Task(f"{HERE}:square", {"value": 2})])


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
    import time

    deadline = time.monotonic() + 60
    while not claim():
        assert time.monotonic() < deadline, "it did not come true within a minute"
        time.sleep(0.1)
