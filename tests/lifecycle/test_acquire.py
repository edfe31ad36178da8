"""What settles in a folder or comes as frames is in the catalogue, once, whatever is killed meanwhile."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lightkeep.config import Config
from lightkeep.facility import Facility, open_facility
from lightkeep.lifecycle.acquisitions import acquire
from lightkeep.lifecycle.acquisitions.acquire_keep import Keeper
from lightkeep.lifecycle.acquisitions.acquire_run import run
from lightkeep.lifecycle.replicas.manifest import all_files
from lightkeep.model.acquisition import Acquisition, AcquisitionState, SourceKind
from lightkeep.model.datasets import DatasetState
from lightkeep.model.errors import Conflict, Forbidden, InvalidInput
from lightkeep.model.experiments import Experiment, ExperimentState, Station
from lightkeep.model.people import SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.testing.new_facility import new_facility
from lightkeep.workflow.apart import WorkerApart

ADA, LEE = Principal("ada"), Principal("lee")
WAIT_S = 60.0


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Facility]:
    """A facility with the machine's own clock; ada manages it, lee is the PI of experiment e1."""
    with new_facility(Config(tmp_path / "house"), admin=Person("ada", "Ada")) as made:
        with made.catalog.change(SERVICE) as tx:
            tx.add_station(Station("2-BM"))
            tx.add_experiment(Experiment("e1", "2-BM"))
            tx.add_person(Person("lee", "Lee"))
            tx.add_grant(Grant("lee", Role.PI, Scope.EXPERIMENT, "e1"))
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "detector"
    made.mkdir()
    return made


def defined(hall: Facility, folder: Path, **options: Any) -> Acquisition:
    given = {"path": str(folder), "quiet_s": 0.3, "complete_s": 0.5, **options}
    made = acquire.define(hall, "watch", experiment_id="e1", kind=SourceKind.FOLDER, options=given, principal=ADA)
    return acquire.start(hall, made.id, principal=ADA)


@contextmanager
def running(hall: Facility, acquisition_id: str) -> Iterator[threading.Event]:
    """Run it in a thread; yields the event that ends it as a process is ended."""
    ending = threading.Event()
    thread = threading.Thread(target=run, args=(hall, acquisition_id), kwargs={"ending": ending})
    thread.start()
    try:
        yield ending
    finally:
        ending.set()
        thread.join()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def paths(hall: Facility, name: str) -> dict[str, int]:
    """Path -> version of what a dataset of e1 holds; empty when there is none."""
    view = hall.catalog.view(SERVICE)
    dataset = view.dataset_named("e1", name)
    return {} if dataset is None else {each.path: each.size for each in all_files(view, dataset.id)}


def state(hall: Facility, name: str) -> DatasetState | None:
    dataset = hall.catalog.view(SERVICE).dataset_named("e1", name)
    return None if dataset is None else dataset.state


def test_a_thousand_files_a_second_are_all_in_the_catalogue(hall: Facility, folder: Path) -> None:
    found = defined(hall, folder, datasets="folder", complete_s=2.0)
    with running(hall, found.id):
        began = time.monotonic()
        for number in range(3000):
            (folder / f"{number:05d}.raw").write_bytes(os.urandom(512))
            if number % 100 == 99:
                time.sleep(max(0.0, began + number / 1000 - time.monotonic()))
        until(lambda: state(hall, "watch") is DatasetState.COMPLETE)
    assert paths(hall, "watch") == {f"{number:05d}.raw": 512 for number in range(3000)}
    assert hall.catalog.view(SERVICE).acquisition(found.id).statistics.files == 3000


def test_a_file_that_is_still_written_is_not_taken(hall: Facility, folder: Path) -> None:
    found = defined(hall, folder, quiet_s=1.5)
    (folder / "first.raw").write_bytes(b"1")
    with running(hall, found.id):
        until(lambda: paths(hall, "first"))
        with (folder / "slow.raw").open("wb", buffering=0) as file:
            for _ in range(8):
                file.write(b"x" * 1000)
                wrote = time.monotonic()
                time.sleep(0.4)
                known = paths(hall, "slow")
                assert known == {} or time.monotonic() - wrote >= 1.5, "it never rested for the quiet time"
        until(lambda: paths(hall, "slow") == {"slow.raw": 8000})


def test_a_mark_beside_a_file_says_when_it_is_done(hall: Facility, folder: Path) -> None:
    found = defined(hall, folder, done="{name}.done")
    (folder / "a.raw").write_bytes(b"a")
    (folder / "b.raw").write_bytes(b"b")
    (folder / "a.raw.done").touch()
    with running(hall, found.id):
        until(lambda: state(hall, "a") is DatasetState.COMPLETE)
        time.sleep(0.8)
        assert state(hall, "b") is None
        (folder / "b.raw.done").touch()
        until(lambda: state(hall, "b") is DatasetState.COMPLETE)
    assert paths(hall, "a") == {"a.raw": 1}, "the mark is no data"


def test_a_folder_grows_into_a_dataset_until_its_mark_comes(hall: Facility, folder: Path) -> None:
    found = defined(hall, folder, done="DONE", exclude=("*.tmp",))
    scan = folder / "scan_1"
    (scan / "sub").mkdir(parents=True)
    (scan / "one.raw").write_bytes(b"1")
    (scan / "no.tmp").write_bytes(b"1")
    with running(hall, found.id):
        until(lambda: paths(hall, "scan_1") == {"one.raw": 1})
        assert state(hall, "scan_1") is DatasetState.RECEIVING
        (scan / "sub" / "two.raw").write_bytes(b"22")
        (scan / "DONE").touch()
        until(lambda: state(hall, "scan_1") is DatasetState.COMPLETE)
    assert paths(hall, "scan_1") == {"one.raw": 1, "sub/two.raw": 2}


def test_what_comes_late_is_a_dataset_of_its_own_and_holds_nothing_twice(hall: Facility, folder: Path) -> None:
    found = defined(hall, folder, datasets="folder")
    (folder / "one.raw").write_bytes(b"1")
    with running(hall, found.id):
        until(lambda: state(hall, "watch") is DatasetState.COMPLETE)
        (folder / "late.raw").write_bytes(b"late")
        until(lambda: state(hall, "watch-2") is DatasetState.COMPLETE)
    assert paths(hall, "watch") == {"one.raw": 1}
    assert paths(hall, "watch-2") == {"late.raw": 4}


@pytest.mark.parametrize(
    ("datasets", "held"),
    [
        ("folder", {"watch": 3, "watch-2": 1, "watch-3": 1}),
        ("entry", {"one": 1, "scan_1": 2, "late-0": 1, "late-1": 1}),
    ],
)
def test_what_is_in_is_not_taken_again_by_the_next_process(
    hall: Facility, folder: Path, datasets: str, held: dict[str, int]
) -> None:
    found = defined(hall, folder, datasets=datasets)
    (folder / "scan_1").mkdir()
    for name in ("one.raw", "scan_1/two.raw", "scan_1/three.raw"):
        (folder / name).write_bytes(name.encode())

    def complete() -> dict[str, int]:
        datasets = hall.catalog.view(SERVICE).datasets(limit=100).items
        return {each.name: each.files for each in datasets if each.state is DatasetState.COMPLETE}

    for number in range(2):
        with running(hall, found.id):
            until(lambda number=number: len(complete()) == len(held) - 2 + number)
            (folder / f"late-{number}.raw").write_bytes(b"late")  # in when it has looked through the folder
            until(lambda number=number: len(complete()) == len(held) - 1 + number)
    assert complete() == held
    assert hall.catalog.view(SERVICE).acquisition(found.id).statistics.files == 5


def test_two_folders_of_one_experiment_are_watched_at_once(hall: Facility, tmp_path: Path) -> None:
    ids = []
    for name in ("left", "right"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.raw").write_bytes(name.encode())
        made = acquire.define(
            hall,
            name,
            experiment_id="e1",
            kind=SourceKind.FOLDER,
            options={"path": str(tmp_path / name), "quiet_s": 0.3},
            principal=ADA,
        )
        ids.append(acquire.start(hall, made.id, principal=ADA).id)
    with running(hall, ids[0]), running(hall, ids[1]):
        until(lambda: paths(hall, "left") and paths(hall, "right"))


def test_stop_takes_what_is_there_and_completes_it(hall: Facility, folder: Path) -> None:
    found = defined(hall, folder, datasets="folder", complete_s=3600)
    with running(hall, found.id):
        (folder / "one.raw").write_bytes(b"1")
        until(lambda: paths(hall, "watch"))
        (folder / "two.raw").write_bytes(b"2")
        acquire.stop(hall, found.id, principal=LEE)
        until(lambda: hall.catalog.view(SERVICE).acquisition(found.id).lease_until is None)
    assert paths(hall, "watch") == {"one.raw": 1, "two.raw": 1}
    assert state(hall, "watch") is DatasetState.COMPLETE


def test_a_process_that_is_killed_again_and_again_loses_nothing_and_takes_nothing_twice(
    hall: Facility, folder: Path
) -> None:
    found = defined(hall, folder, datasets="folder", complete_s=2.0)
    keeper = Keeper(hall)
    number = 0
    try:
        for _ in range(2):
            keeper.tick()
            for _ in range(300):
                (folder / f"{number:05d}.raw").write_bytes(b"%d" % number)
                number += 1
            before = len(paths(hall, "watch"))
            until(lambda before=before: len(paths(hall, "watch")) > before or keeper.tick() < 0)
            for process in keeper._processes.values():
                process.kill()
                process.wait()
        until(lambda: state(hall, "watch") is DatasetState.COMPLETE or keeper.tick() < 0)
    finally:
        keeper.close()
    view = hall.catalog.view(SERVICE)
    dataset = view.dataset_named("e1", "watch")
    assert dataset is not None
    files = all_files(view, dataset.id)
    assert sorted((each.path, each.size) for each in files) == [
        (f"{each:05d}.raw", len(str(each))) for each in range(number)
    ]
    assert view.dataset_named("e1", "watch-2") is None
    assert view.acquisition(found.id).token >= 3


def test_a_process_that_was_taken_over_commits_nothing_more(hall: Facility, folder: Path) -> None:
    found = defined(hall, folder, datasets="folder")
    with running(hall, found.id):
        until(lambda: hall.catalog.view(SERVICE).acquisition(found.id).token == 1)
        with hall.catalog.change(SERVICE) as tx:  # its lease ran out while it was paused
            tx.free_acquisition(found.id, 1)
            tx.lease_acquisition(found.id, holder="another", until=hall.clock.now())
        (folder / "late.raw").write_bytes(b"1")
        time.sleep(2.0)
        assert paths(hall, "watch") == {}
    assert hall.catalog.view(SERVICE).acquisition(found.id).holder == "another"


def test_two_processes_never_run_the_same_one(hall: Facility, folder: Path) -> None:
    found = defined(hall, folder)
    with running(hall, found.id):
        until(lambda: hall.catalog.view(SERVICE).acquisition(found.id).token == 1)
        with pytest.raises(Conflict, match="is run by"):
            run(hall, found.id, ending=threading.Event())


def test_while_the_catalogue_is_away_files_wait_and_then_catch_up(hall: Facility, folder: Path) -> None:
    found = defined(hall, folder, datasets="folder", complete_s=2.0)
    holder = (
        "import sqlite3, sys, time\n"
        "base = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "base.execute('BEGIN EXCLUSIVE')\n"
        "print('held', flush=True)\n"
        "time.sleep(float(sys.argv[2]))\n"
    )
    with running(hall, found.id):
        until(lambda: hall.catalog.view(SERVICE).acquisition(found.id).token == 1)
        command = [sys.executable, "-c", holder, str(hall.config.root / "catalog.db"), "4"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            for number in range(100):
                (folder / f"{number:03d}.raw").write_bytes(b"1")
        until(lambda: state(hall, "watch") is DatasetState.COMPLETE)
    assert len(paths(hall, "watch")) == 100


def test_the_worker_of_a_server_runs_what_is_started_and_ends_it_when_it_is_stopped(
    hall: Facility, folder: Path
) -> None:
    found = defined(hall, folder)
    (folder / "one.raw").write_bytes(b"1")
    worker = WorkerApart(hall.config)
    try:
        until(lambda: state(hall, "one") is DatasetState.COMPLETE)
        acquire.stop(hall, found.id, principal=ADA)
        until(lambda: hall.catalog.view(SERVICE).acquisition(found.id).holder == "")
    finally:
        worker.close()


def test_a_spool_that_another_process_writes_is_left_alone_until_it_is_done(
    hall: Facility, tmp_path: Path
) -> None:
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["entry/data/data"] = np.ones((3, 2, 2), np.uint16)
    options = {"file": str(tmp_path / "old.h5"), "rate": 100}
    made = acquire.define(hall, "r", experiment_id="e1", kind=SourceKind.REPLAY, options=options, principal=ADA)
    acquire.start(hall, made.id, principal=ADA)
    spool = hall.config.root / "spool" / made.id
    spool.mkdir(parents=True)
    with (spool / ".lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with running(hall, made.id):
            until(lambda: "still writes" in hall.catalog.view(SERVICE).acquisition(made.id).statistics.last_error)
            assert list(spool.glob("*.h5")) == []
            fcntl.flock(other, fcntl.LOCK_UN)
            until(lambda: state(hall, "old") is DatasetState.COMPLETE)


def test_a_closed_experiment_ends_it_with_a_reason(hall: Facility, folder: Path) -> None:
    found = defined(hall, folder)
    with running(hall, found.id):
        until(lambda: hall.catalog.view(SERVICE).acquisition(found.id).token == 1)
        with hall.catalog.change(SERVICE) as tx:
            tx.set_experiment_state("e1", ExperimentState.CLOSED)
        (folder / "late.raw").write_bytes(b"1")
        until(lambda: hall.catalog.view(SERVICE).acquisition(found.id).state is AcquisitionState.FAILED)
    assert "takes no raw data" in hall.catalog.view(SERVICE).acquisition(found.id).error


def test_only_who_manages_the_station_defines_one_and_who_writes_starts_it(hall: Facility, folder: Path) -> None:
    with pytest.raises(Forbidden):
        acquire.define(
            hall, "w", experiment_id="e1", kind=SourceKind.FOLDER, options={"path": "/etc"}, principal=LEE
        )
    found = defined(hall, folder)
    acquire.stop(hall, found.id, principal=LEE)
    assert acquire.start(hall, found.id, principal=LEE).state is AcquisitionState.RUNNING
    verbs = [each.verb for each in hall.catalog.view(SERVICE).events(limit=1000) if each.subject == found.id]
    assert verbs == [f"acquisition.{each}" for each in ("defined", "running", "stopped", "running")]


@pytest.mark.parametrize(
    ("kind", "options", "named"),
    [
        (SourceKind.FOLDER, {"path": "relative"}, "absolute"),
        (SourceKind.FOLDER, {"path": "/a", "quite_s": 1}, "quite_s"),
        (SourceKind.PVACCESS, {}, "channel"),
        (SourceKind.REPLAY, {"file": "/a", "rate": 0}, "rate"),
    ],
)
def test_a_wrong_option_is_named(hall: Facility, kind: SourceKind, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidInput, match=named):
        acquire.define(hall, "w", experiment_id="e1", kind=kind, options=options, principal=ADA)


def test_a_replayed_file_goes_through_the_spool_into_the_catalogue(hall: Facility, tmp_path: Path) -> None:
    frames = np.arange(5 * 12, dtype=np.uint16).reshape(5, 3, 4)
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["entry/data/data"] = frames
    options = {"file": str(tmp_path / "old.h5"), "rate": 50}
    made = acquire.define(
        hall, "again", experiment_id="e1", kind=SourceKind.REPLAY, options=options, principal=ADA
    )
    acquire.start(hall, made.id, principal=ADA)
    assert run(hall, made.id, ending=threading.Event()) is AcquisitionState.STOPPED
    view = hall.catalog.view(SERVICE)
    dataset = view.dataset_named("e1", "old")
    assert dataset is not None
    assert dataset.state is DatasetState.COMPLETE
    assert dataset.format == "eiger", "it can be followed while it is written"
    spooled = hall.config.root / "spool" / made.id / "old.h5"
    with h5py.File(spooled) as file:
        np.testing.assert_array_equal(file["entry/data/data"][:], frames)
    ended = view.acquisition(made.id)
    assert (ended.state, ended.statistics.frames, ended.statistics.gaps) == (AcquisitionState.STOPPED, 5, 0)
    with open_facility(hall.config) as again:
        assert again.catalog.view(SERVICE).acquisition(made.id).statistics.files == 1
