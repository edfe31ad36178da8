"""The Slurm engine on a real Slurm of two nodes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lightkeep.engines.exchange import Exchange
from lightkeep.engines.slurm import SlurmEngine, job_name
from lightkeep.engines.slurm_commands import Job, Slurm
from lightkeep.model.engines import Engine, Task
from lightkeep.model.errors import RunFailed
from lightkeep.testing.suites.engine import HERE, DurableEngineSuite

pytestmark = pytest.mark.cluster
STATE = Path(os.environ.get("LIGHTKEEP_TEST_SLURM", ""))


def options() -> dict[str, Any]:
    """Return the options of an engine with two jobs at once."""
    return {"folder": f"{os.environ['LIGHTKEEP_TEST_SLURM']}/engine", "workers": 2, "poll_s": 0.3}


def make(**more: Any) -> SlurmEngine:
    """Return an engine with two jobs at once."""
    return SlurmEngine(**(options() | more))


class TestSlurm(DurableEngineSuite):
    def make(self) -> Engine:
        return make()

    def options(self) -> dict[str, Any]:
        return options()


def touching(folder: Path, *, count: int, wait_s: float) -> list[Task]:
    """Return tasks that write their process's id to a file each, then wait."""
    return [Task(f"{HERE}:touch_and_wait", {"path": str(folder / str(n)), "wait_s": wait_s}) for n in range(count)]


def tries(folder: Path, count: int) -> list[int]:
    """Return how often each of those tasks was begun."""
    return [len((folder / str(n)).read_text().split()) for n in range(count)]


def until(claim: Callable[[], Any], *, timeout_s: float = 40.0) -> Any:
    """Wait until a claim holds; return its value."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := claim():
            return value
        time.sleep(0.05)
    raise AssertionError("it did not come true in time")


@pytest.fixture
def key(request: pytest.FixtureRequest) -> str:
    """Return a key that no other test has."""
    return f"{request.node.name}-{time.time_ns()}"


def control(*words: str) -> None:
    """Be the cluster's administrator."""
    subprocess.run(["scontrol", *words], check=True, capture_output=True, text=True)


@contextmanager
def mapping(engine: SlurmEngine, tasks: list[Task], folder: Path, key: str) -> Iterator[list[Any]]:
    """Run tasks under a key while something happens to their jobs; the list holds how it ended."""
    ended: list[Any] = []

    def run() -> None:
        try:
            ended.append(engine.map(tasks, key=key, folder=folder))
        except RunFailed as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield ended
    thread.join(timeout=60)
    assert ended, "it did not end"


def jobs(key: str, number: int = 1) -> list[Job]:
    """Return the jobs of a submission."""
    return Slurm().find(job_name(key, number))


def test_sbatchs_own_words_reach_the_user() -> None:
    with pytest.raises(RunFailed, match="nvalid partition") as caught:
        make(partition="nights").map(touching(Path("unused"), count=1, wait_s=0))
    assert "--partition=nights" in caught.value.remedy


def test_a_job_that_no_waiting_will_start_fails_with_slurms_reason() -> None:
    with pytest.raises(RunFailed, match="never start: PartitionTimeLimit"):
        make(partition="realtime", walltime="2:00:00").map(touching(Path("unused"), count=1, wait_s=0))


def test_the_state_names_partition_and_free_cores() -> None:
    assert make(partition="realtime").state() == "realtime up, 4 of 4 cores free"


def test_slurm_says_how_long_a_job_would_wait_and_why_it_would_not_be_taken() -> None:
    wait_s = make(partition="realtime").expected_wait_s()
    assert wait_s is not None
    assert 0 <= wait_s < 30
    with pytest.raises(RunFailed, match="nvalid partition"):
        make(partition="nights").expected_wait_s()


def test_what_a_job_printed_is_kept_and_the_last_line_is_in_the_error(tmp_path: Path) -> None:
    engine = make(setup=["echo no such module: hdf5", "exit 3"], poll_s=0.2)
    with pytest.raises(RunFailed, match=r"FAILED.*no such module: hdf5") as caught:
        engine.map(touching(tmp_path, count=1, wait_s=0))
    assert "no such module" in Path(caught.value.data["log_file"]).read_text()


def test_a_job_that_somebody_cancels_fails_the_run_and_says_so(tmp_path: Path, key: str) -> None:
    with mapping(make(workers=1), touching(tmp_path, count=1, wait_s=60), tmp_path / "jobs", key) as ended:
        until((tmp_path / "0").exists)
        Slurm().cancel(*[job.id for job in jobs(key)])
    assert "CANCELLED" in ended[0].message
    assert "cancelled it on the cluster" in ended[0].remedy
    assert len(jobs(key, 2)) == 0


def test_a_killed_job_is_replaced_and_its_finished_pieces_stay(tmp_path: Path, key: str) -> None:
    tasks = [*touching(tmp_path, count=1, wait_s=0), *touching(tmp_path / "late", count=1, wait_s=2)]
    (tmp_path / "late").mkdir()
    with mapping(make(workers=1), tasks, tmp_path / "jobs", key) as ended:
        until((tmp_path / "late" / "0").exists)
        worker = int((tmp_path / "late" / "0").read_text())
        os.kill(parent_of(worker), signal.SIGKILL)
    assert ended == [[None, None]]
    assert (tries(tmp_path, 1), tries(tmp_path / "late", 1)) == ([1], [2])
    until(lambda: [job.state for job in (*jobs(key, 1), *jobs(key, 2))] == ["FAILED", "COMPLETED"])


def parent_of(pid: int) -> int:
    """Return the process that started one."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_a_preempted_job_is_queued_again_and_ends_right(tmp_path: Path, key: str) -> None:
    (tmp_path / "urgent").mkdir()
    with mapping(make(cpus=2), touching(tmp_path, count=2, wait_s=3), tmp_path / "jobs", key) as ended:
        until(lambda: all((tmp_path / str(n)).exists() for n in range(2)))
        began = time.monotonic()
        urgent = make(cpus=2, partition="realtime")
        urgent.map(touching(tmp_path / "urgent", count=2, wait_s=0), key=f"{key}-urgent", folder=tmp_path / "now")
        took = time.monotonic() - began
    assert ended == [[None, None]]
    assert sum(tries(tmp_path, 2)) in (3, 4), "one was begun again, or both"
    assert {job.array_id for job in jobs(key)} == {jobs(key)[0].array_id}, "preempted is not submitted again by us"
    assert took < 15


def test_a_drained_node_takes_nothing_new_and_the_run_ends_on_the_other(tmp_path: Path, key: str) -> None:
    control("update", "nodename=n1", "state=drain", "reason=disk")
    try:
        make().map(touching(tmp_path, count=3, wait_s=0), key=key, folder=tmp_path / "jobs")
        assert {job.nodes for job in jobs(key)[-2:]} == {"n2"}
    finally:
        control("update", "nodename=n1", "state=resume")
    until(lambda: make().state().startswith("debug up, 4 of 4"))


def test_a_submission_whose_id_was_not_written_down_is_found_by_its_name(tmp_path: Path, key: str) -> None:
    exchange, engine = Exchange(tmp_path / "jobs"), make()
    tasks = touching(tmp_path, count=2, wait_s=1)
    exchange.offer(tasks)
    exchange.share_out(1, [[0], [1]])
    job_id = engine.submit(exchange, key, 1)
    (exchange.folder / "1.id").unlink()
    (exchange.folder / "1.owner").unlink(missing_ok=True)
    engine.map(tasks, key=key, folder=exchange.folder)
    assert {job.array_id for job in jobs(key)} == {job_id}
    assert tries(tmp_path, 2) == [1, 1]


def test_of_two_submissions_of_the_same_work_one_does_it(tmp_path: Path, key: str) -> None:
    """A caller is killed while its sbatch is on the way: the next one does not see the job yet."""
    exchange, engine = Exchange(tmp_path / "jobs"), make(workers=1)
    tasks = touching(tmp_path, count=1, wait_s=2)
    exchange.offer(tasks)
    exchange.share_out(1, [[0]])
    first = engine.submit(exchange, f"{key}-a", 1)
    (exchange.folder / "1.id").unlink()
    second = engine.submit(exchange, f"{key}-b", 1)
    engine.map(tasks, key=f"{key}-b", folder=exchange.folder)
    assert first != second
    assert tries(tmp_path, 1) == [1]
    until(lambda: all(job.is_over for number in (first, second) for job in Slurm().jobs(number)))
    assert tries(tmp_path, 1) == [1]


def test_the_containers_command_runs_the_job(tmp_path: Path) -> None:
    """A runtime of the kernel's own: a host name that only the job has."""
    boxed = make(workers=1, container="unshare --uts --fork sh -c 'hostname boxed; exec \"$@\"' runtime")
    assert boxed.map([Task("platform:node")]) == ["boxed"]
    assert make(workers=1).map([Task("platform:node")]) != ["boxed"]


def test_a_controller_that_is_started_again_during_a_run_costs_nothing(tmp_path: Path, key: str) -> None:
    with mapping(make(), touching(tmp_path, count=2, wait_s=6), tmp_path / "jobs", key) as ended:
        until(lambda: all((tmp_path / str(n)).exists() for n in range(2)))
        pid = int((STATE / "slurmctld.pid").read_text())
        os.kill(pid, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{pid}").exists())
        time.sleep(1.0)  # the engine asks, and nobody answers
        subprocess.run([daemon("slurmctld")], check=True)
        until(lambda: answers("sinfo"))
    assert ended == [[None, None]]
    assert tries(tmp_path, 2) == [1, 1]
    until(lambda: {job.state for job in jobs(key)} == {"COMPLETED"})


def test_the_pieces_of_a_node_that_fails_are_done_on_the_other(tmp_path: Path, key: str) -> None:
    tasks = touching(tmp_path, count=1, wait_s=8)
    with mapping(make(workers=1), tasks, tmp_path / "jobs", key) as ended:
        until((tmp_path / "0").exists)
        node = jobs(key)[0].nodes
        try:
            os.kill(int((STATE / f"slurmd-{node}.pid").read_text()), signal.SIGKILL)
            worker = int((tmp_path / "0").read_text())
            for pid in (parent_of(parent_of(worker)), parent_of(worker)):  # its step, its job
                os.kill(pid, signal.SIGKILL)
            control("update", f"nodename={node}", "state=down", "reason=power")
            until(lambda: len((tmp_path / "0").read_text().split()) == 2)
            assert {job.nodes for job in jobs(key) if job.state == "RUNNING"} == {"n2" if node == "n1" else "n1"}
        finally:
            subprocess.run([daemon("slurmd"), "-N", node], check=True)
            until(lambda: make().state().endswith("of 4 cores free"))
    assert ended == [[None]]
    assert {job.array_id for job in jobs(key)} == {jobs(key)[0].array_id}, "Slurm queued it again; we did not"


def daemon(name: str) -> str:
    """Return the path of a daemon of Slurm."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") or name


def answers(command: str) -> bool:
    """Return whether one of Slurm's commands is answered."""
    return subprocess.run([command], check=False, capture_output=True).returncode == 0
