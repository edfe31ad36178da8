"""The process of an acquisition is killed after each of its steps: every file and whole frame is in, once."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.lifecycle.acquisitions import acquire
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.lifecycle.replicas.manifest import all_files
from lightkeep.model.acquisition import Acquisition, SourceKind
from lightkeep.model.datasets import DatasetState
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Person, Principal
from lightkeep.testing.new_facility import new_facility

pytestmark = pytest.mark.crash
ADA = Principal("ada")
TAKER = Path(__file__).parent / "taker.py"
INGEST = "lightkeep.lifecycle.intake.ingest:Intake"
TAKE = "lightkeep.lifecycle.acquisitions.acquire_take"
SPOOL = "lightkeep.acquisition.spool"
FOLDER_STEPS = [
    "lightkeep.catalog.acquisitions:AcquisitionChanges.lease_acquisition",
    f"{TAKE}:FolderTaker._read",
    "lightkeep.acquisition.folder:FolderWatch.look",
    f"{TAKE}:Growing._found",
    f"{INGEST}.move_all",
    f"{INGEST}.commit",
    f"{TAKE}:Growing.take",
    f"{TAKE}:FolderTaker.step",
    "lightkeep.lifecycle.acquisitions.acquire_run:_Running._renew",
    f"{TAKE}:Growing.complete",
]
FRAME_STEPS = [
    f"{SPOOL}:Recorder.salvage",
    f"{SPOOL}:Recorder._open",
    f"{SPOOL}:_extend",
    f"{SPOOL}:Recorder._flush",
    f"{SPOOL}:finish",
    f"{SPOOL}:Recorder._close",
    f"{TAKE}:FolderTaker._take_file",
]


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Facility]:
    with new_facility(Config(tmp_path / "house"), admin=Person("ada", "Ada")) as made:
        with made.catalog.change(SERVICE) as tx:
            tx.add_station(Station("2-BM"))
            tx.add_experiment(Experiment("e1", "2-BM"))
        yield made


def started(hall: Facility, kind: SourceKind, **options: Any) -> Acquisition:
    made = acquire.define(hall, "watch", experiment_id="e1", kind=kind, options=options, principal=ADA)
    return acquire.start(hall, made.id, principal=ADA)


def taker(hall: Facility, found: Acquisition, point: str = "") -> subprocess.Popen[bytes]:
    """Start its process; the lease that a dead one left is freed, as the worker does that kept it."""
    now = hall.catalog.view(SERVICE).acquisition(found.id)
    if now.holder:
        with hall.catalog.change(SERVICE) as tx:
            tx.free_acquisition(found.id, now.token)
    words = [sys.executable, str(TAKER), str(hall.config.root), found.id, *([point] if point else [])]
    return subprocess.Popen(words, stderr=subprocess.PIPE)


def kill_at(hall: Facility, found: Acquisition, point: str) -> None:
    process = taker(hall, found, point)
    try:
        _, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGKILL, f"it should have died after {point}: {error.decode()}"


def test_a_folder_whose_taker_is_killed_after_each_step_is_taken_in_once(hall: Facility, tmp_path: Path) -> None:
    (tmp_path / "detector").mkdir()
    options = {"path": str(tmp_path / "detector"), "datasets": "folder", "quiet_s": 0.2, "complete_s": 1.0}
    found = started(hall, SourceKind.FOLDER, **options)
    names = []
    for number, point in enumerate(FOLDER_STEPS):
        names.append(f"{number}.raw")
        (tmp_path / "detector" / names[-1]).write_bytes(b"%d" % number)
        kill_at(hall, found, point)
    acquire.stop(hall, found.id, principal=ADA)
    acquire.start(hall, found.id, principal=ADA)
    last = taker(hall, found)
    try:
        view = hall.catalog.view(SERVICE)
        while Counter(each.path for each in _files(hall)).total() < len(names):
            assert last.poll() is None
        acquire.stop(hall, found.id, principal=ADA)
        last.wait(60)
    finally:
        last.kill()
        last.communicate()
    assert Counter(each.path for each in _files(hall)) == Counter(names)
    assert {each.state for each in view.datasets(limit=100).items} == {DatasetState.COMPLETE}
    assert hall.catalog.verify_events() == []


def _files(hall: Facility) -> list[Any]:
    view = hall.catalog.view(SERVICE)
    return [file for each in view.datasets(limit=100).items for file in all_files(view, each.id)]


def test_frames_whose_recorder_is_killed_after_each_step_are_whole_and_in_order(
    hall: Facility, tmp_path: Path
) -> None:
    frames = np.arange(30 * 6, dtype=np.uint16).reshape(30, 2, 3)
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["entry/data/data"] = frames
    found = started(hall, SourceKind.REPLAY, file=str(tmp_path / "old.h5"), rate=100)
    for point in FRAME_STEPS:
        kill_at(hall, found, point)
    last = taker(hall, found)
    _, error = last.communicate(timeout=60)
    assert last.returncode == 0, error.decode()
    view = hall.catalog.view(SERVICE)
    taken = view.datasets(limit=100).items
    assert {each.state for each in taken} == {DatasetState.COMPLETE}
    lengths = []
    for each in taken:
        with h5py.File(local_path(hall, each.id, each.main_file)) as file:
            kept = file["entry/data/data"][:]
        np.testing.assert_array_equal(kept, frames[: len(kept)])
        lengths.append(len(kept))
    assert lengths.count(30) >= 2, "the last one, and the one that was killed after it was marked"
    assert all(length > 0 for length in lengths)
    assert len({each.name for each in taken}) == len(taken)
