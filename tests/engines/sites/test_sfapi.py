"""A run at NERSC, through NERSC's own client and a server that speaks the Superfacility API over loopback."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lightkeep.engines.sites.parts import SiteAway
from lightkeep.engines.sites.sfapi import SfapiSite
from lightkeep.model.engines import Task
from lightkeep.model.errors import ConfigError, NotFound, RunCancelled, RunFailed
from lightkeep.testing.sfapi import SfapiServer
from lightkeep.testing.suites.engine import HERE
from lightkeep.testing.suites.site import ROW, begin_again, is_doubled, rows_to_double

Make = Callable[..., SfapiSite]


@pytest.fixture
def nersc(tmp_path: Path) -> Iterator[SfapiServer]:
    with SfapiServer(tmp_path / "nersc") as running:
        yield running


@pytest.fixture
def far(nersc: SfapiServer) -> Make:
    """Return a way to make the engine; further settings as keywords."""

    def make(**settings: Any) -> SfapiSite:
        given = {
            "key": str(nersc.key),
            "url": nersc.url,
            "token_url": nersc.token_url,
            "staging": str(nersc.folder / "light keep"),
            "python": sys.executable,
            "processes": 1,
            "poll_s": 0.02,
            "patience_s": 60.0,
            "settle_s": 0.1,
        }
        return SfapiSite(**(given | settings))

    return make


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    return rows_to_double(tmp_path)


def test_a_run_there_is_right_asks_for_what_was_set_and_sends_nothing_twice(
    far: Make, nersc: SfapiServer, tasks: list[Task], tmp_path: Path
) -> None:
    site = far(qos="realtime", account="m1234", constraint="cpu", walltime="15", setup=["true"])
    assert site.map(tasks, key="run_1", folder=tmp_path / "a") == [task.reads[0] for task in tasks]
    assert is_doubled(tasks)
    assert nersc.jobs == ["COMPLETED"]
    asked = nersc.scripts[0].splitlines()
    wanted = {"--qos=realtime", "--account=m1234", "--constraint=cpu", "--time=15:00"}
    assert {f"#SBATCH {each}" for each in wanted} < set(asked)
    begin_again(Path(tasks[0].works_in))
    site.map(tasks, key="run_2", folder=tmp_path / "b")
    first, second = (site.spent(tmp_path / name)["moved_bytes"] for name in "ab")
    assert first - second > 2 * ROW - 20_000
    assert list((nersc.folder / "light keep" / "runs").iterdir()) == []


def test_a_run_ends_right_and_is_one_job_through_every_fault(
    far: Make, nersc: SfapiServer, tasks: list[Task]
) -> None:
    faults = nersc.faults
    faults.bursts, faults.lost_answers, faults.corrupted, faults.endless_tasks = 3, 1, 1, 1
    faults.requests_per_token, faults.is_held = 25, True
    threading.Timer(1.5, lambda: setattr(faults, "is_held", False)).start()
    far(task_s=1.0).map(tasks)
    assert is_doubled(tasks)
    assert nersc.jobs == ["COMPLETED"]
    assert nersc.tokens > 2
    assert (faults.bursts, faults.lost_answers, faults.corrupted, faults.endless_tasks) == (0, 0, 0, 0)


def test_a_token_that_ends_is_renewed(far: Make, nersc: SfapiServer) -> None:
    nersc.faults.token_s = 1.0
    site = far()
    assert site.queue.find("lightkeep-none") == ""
    time.sleep(1.1)
    assert site.queue.find("lightkeep-none") == ""
    assert nersc.tokens > 1


def test_a_failed_node_costs_one_more_job(far: Make, nersc: SfapiServer, tasks: list[Task]) -> None:
    nersc.faults.node_failures = 1
    far().map(tasks)
    assert is_doubled(tasks)
    assert nersc.jobs == ["NODE_FAIL", "COMPLETED"]


def test_a_cancel_reaches_the_job(far: Make, nersc: SfapiServer, tmp_path: Path) -> None:
    cancel, path = threading.Event(), tmp_path / "pids"
    task = Task(f"{HERE}:touch_and_wait", {"path": str(path), "wait_s": 60})

    def withdraw() -> None:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        cancel.set()

    threading.Thread(target=withdraw).start()
    with pytest.raises(RunCancelled):
        far().map([task], cancel=cancel)
    assert nersc.jobs == ["CANCELLED"]


def test_a_caller_that_was_killed_before_it_wrote_the_id_down_finds_its_job(
    far: Make, nersc: SfapiServer, tasks: list[Task], tmp_path: Path
) -> None:
    class Killed(BaseException):
        """Stands for a kill: nothing catches it."""

    class Stop:
        def is_set(self) -> bool:
            if nersc.jobs:
                raise Killed
            return False

    with pytest.raises(Killed):
        far().map(tasks, key="run_1", folder=tmp_path / "map", cancel=Stop())
    state = tmp_path / "map" / "site.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"job_id": ""}))
    far().map(tasks, key="run_1", folder=tmp_path / "map")
    assert is_doubled(tasks)
    assert nersc.jobs == ["COMPLETED"]


def test_what_sbatch_refuses_is_told_in_its_words(far: Make, nersc: SfapiServer) -> None:
    nersc.faults.refusal = "sbatch: error: Invalid qos specification"
    with pytest.raises(RunFailed, match="Invalid qos specification"):
        far().queue.submit("x", ["true"], folder="/x")


def test_a_machine_that_is_down_is_away_and_a_missing_file_is_not_found(far: Make, nersc: SfapiServer) -> None:
    assert far().expected_wait_s() is None
    far().area.prepare("objects")
    with pytest.raises(NotFound):
        far().area.get("objects/none")
    nersc.faults.is_down = True
    with pytest.raises(SiteAway, match="maintenance"):
        far().expected_wait_s()


def test_a_key_that_is_not_the_clients_is_refused_and_one_that_others_can_read_is_not_used(
    far: Make, nersc: SfapiServer, tmp_path: Path
) -> None:
    with SfapiServer(tmp_path / "other") as other, pytest.raises(ConfigError, match="invalid_client"):
        far(key=str(other.key)).expected_wait_s()
    nersc.key.chmod(0o644)
    with pytest.raises(ConfigError, match="permissions"):
        far().expected_wait_s()
    with pytest.raises(ConfigError, match="https"):
        far(url="http://api.example.org")
