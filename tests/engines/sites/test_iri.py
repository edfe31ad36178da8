"""A run at a facility that speaks the IRI API, and all that goes wrong on the way."""

from __future__ import annotations

import json
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lightkeep.engines.sites.iri import IriSite, token_source
from lightkeep.engines.sites.packing import Packed, sha256
from lightkeep.engines.sites.parts import SiteAway
from lightkeep.engines.sites.site import RemoteSite
from lightkeep.model.engines import Task
from lightkeep.model.errors import BadFile, ConfigError, Corrupt, RunCancelled, RunFailed
from lightkeep.testing.iri import IriServer
from lightkeep.testing.suites.engine import HERE
from lightkeep.testing.suites.site import ROW, begin_again, is_doubled, rows_to_double

Make = Callable[..., RemoteSite]


@pytest.fixture
def tasks(tmp_path: Path) -> list[Task]:
    return rows_to_double(tmp_path)


def test_files_travel_there_and_what_changed_travels_back(
    site: Make, server: IriServer, tasks: list[Task]
) -> None:
    assert site().map(tasks) == [task.reads[0] for task in tasks]
    assert is_doubled(tasks)
    assert server.jobs == ["completed"]


def test_nothing_travels_twice_unless_the_site_purged_it(
    site: Make, server: IriServer, tasks: list[Task], tmp_path: Path
) -> None:
    moved = []
    for name in ("first", "second", "third"):
        begin_again(Path(tasks[0].works_in))
        if name == "third":
            for each in (server.folder / "lightkeep" / "objects").iterdir():
                each.unlink()
        site().map(tasks, key=name, folder=tmp_path / name)
        assert is_doubled(tasks)
        moved.append(site().spent(tmp_path / name)["moved_bytes"])
    assert moved[0] > 4 * ROW
    assert moved[0] - moved[1] > 2 * ROW - 20_000
    assert moved[2] == pytest.approx(moved[0], rel=0.01)


def test_a_run_ends_right_and_is_one_job_through_every_fault(
    site: Make, server: IriServer, tasks: list[Task]
) -> None:
    faults = server.faults
    faults.bursts, faults.in_flight, faults.lost_answers, faults.corrupted = 3, 1, 1, 1
    faults.requests_per_token, faults.endless_tasks, faults.is_held = 25, 1, True
    threading.Timer(1.5, lambda: setattr(faults, "is_held", False)).start()
    site(task_s=0.5).map(tasks)
    assert is_doubled(tasks)
    assert server.jobs == ["completed"]
    assert server.renewals > 2
    assert (faults.bursts, faults.in_flight, faults.lost_answers, faults.endless_tasks) == (0, 0, 0, 0)


def test_a_server_without_idempotency_gets_one_job_though_its_answer_was_lost(
    site: Make, server: IriServer, tasks: list[Task]
) -> None:
    server.faults.keeps_no_keys, server.faults.lost_answers = True, 1
    site().map(tasks)
    assert is_doubled(tasks)
    assert server.jobs == ["completed"]


def test_a_failed_node_costs_one_more_job(site: Make, server: IriServer, tasks: list[Task]) -> None:
    server.faults.node_failures = 1
    site().map(tasks)
    assert is_doubled(tasks)
    assert server.jobs == ["failed", "completed"]


def test_a_site_that_loses_every_job_is_a_failed_run(site: Make, server: IriServer, tasks: list[Task]) -> None:
    server.faults.node_failures = 99
    with pytest.raises(RunFailed, match="lost the job 3 times"):
        site().map(tasks)
    assert server.jobs == ["failed"] * 3


def test_what_was_sent_is_removed_when_it_is_old_and_nothing_else(
    site: Make, server: IriServer, tasks: list[Task]
) -> None:
    engine = site()
    engine.map(tasks)
    objects = server.folder / "lightkeep" / "objects"
    (objects / "notes.txt").write_text("somebody's own")
    assert len(list(objects.iterdir())) > 3
    assert engine.clean() == 0
    assert site(keep_days=0.0).clean() > 0
    assert [each.name for each in objects.iterdir()] == ["notes.txt"]
    assert list((server.folder / "lightkeep" / "runs").iterdir()) == []


def test_errors_of_a_task_arrive_as_they_were_raised(site: Make, server: IriServer) -> None:
    with pytest.raises(BadFile) as caught:
        site().map([Task(f"{HERE}:refuse")])
    assert (caught.value.message, caught.value.remedy) == ("scan.h5 is cut short", "copy it again")
    with pytest.raises(RunFailed, match="no frames in piece 1"):
        site().map([Task(f"{HERE}:fail", {"value": n, "failing": {1: 0.0}}) for n in range(3)])


def test_a_cancel_reaches_the_job(site: Make, server: IriServer, tmp_path: Path) -> None:
    cancel, path = threading.Event(), tmp_path / "pids"
    task = Task(f"{HERE}:touch_and_wait", {"path": str(path), "wait_s": 60})
    threading.Thread(target=lambda: (_until(path.exists), cancel.set())).start()
    with pytest.raises(RunCancelled):
        site().map([task], cancel=cancel)
    assert server.jobs == ["canceled"]


def test_a_caller_that_was_killed_finds_its_job_again(
    site: Make, server: IriServer, tasks: list[Task], tmp_path: Path
) -> None:
    class Killed(BaseException):
        """Stands for a kill: nothing catches it."""

    class Stop:
        def is_set(self) -> bool:
            if server.jobs:
                raise Killed
            return False

    with pytest.raises(Killed):
        site().map(tasks, key="run_1", folder=tmp_path / "map", cancel=Stop())
    assert len(server.jobs) == 1
    site().map(tasks, key="run_1", folder=tmp_path / "map")
    assert is_doubled(tasks)
    assert server.jobs == ["completed"]


def test_an_abandoned_job_is_cancelled(site: Make, server: IriServer, tmp_path: Path) -> None:
    class Stop:
        def is_set(self) -> bool:
            if "active" in server.jobs:
                raise KeyboardInterrupt
            return False

    task = Task(f"{HERE}:touch_and_wait", {"path": str(tmp_path / "pids"), "wait_s": 60})
    with pytest.raises(KeyboardInterrupt):
        site().map([task], key="run_1", folder=tmp_path / "map", cancel=Stop())
    site().abandon(key="run_1", folder=tmp_path / "map")
    assert server.jobs == ["canceled"]


def test_what_a_site_refuses_is_told_in_its_words(site: Make, server: IriServer) -> None:
    with pytest.raises(RunFailed, match="422") as caught:
        site(walltime="1").queue.submit("x", ["true"], folder="")
    assert "at least 1 character" in caught.value.message


def test_a_resource_that_is_down_is_away(site: Make, server: IriServer) -> None:
    assert site().expected_wait_s() is None
    server.faults.is_down = True
    with pytest.raises(SiteAway, match="down"):
        site().expected_wait_s()


def test_a_token_never_travels_in_the_open(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="https"):
        IriSite(url="http://api.example.org", compute="a", filesystem="b", staging="/x", token_file="t")


def test_a_command_is_asked_for_a_token_once_until_it_is_refused(tmp_path: Path) -> None:
    count = tmp_path / "count"
    token = token_source(token_command=f"sh -c 'echo x >> {count}; wc -l < {count}'")
    assert [token(False), token(False), token(True), token(False)] == ["1", "1", "2", "2"]


def _until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not claim() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_a_result_that_the_job_did_not_write_is_refused_and_never_unpickled(
    site: Make, server: IriServer, tasks: list[Task], tmp_path: Path
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str, ...]]:
            return Path.touch, (Path(tmp_path / "ran"),)  # type: ignore[return-value]

    content = pickle.dumps(Evil())
    name = sha256(content)
    forged = json.dumps({"state": "done", "answer": Packed("answer", len(content), (name,)).to_json()})
    (tmp_path / "answer").write_bytes(content)
    (tmp_path / "out.json").write_text(json.dumps(json.loads(forged) | {"changed": [], "compute_s": 1}))
    script = tmp_path / "forge"
    script.write_text(f'cp {tmp_path}/answer "$3/objects/{name}"; cp {tmp_path}/out.json "$3/runs/$4/"\n')
    with pytest.raises(Corrupt, match="our job did not write"):
        site(python=f"sh {script}").map(tasks)
    assert not (tmp_path / "ran").exists()
    pickle.loads(content)
    assert (tmp_path / "ran").exists(), "it would have run"
