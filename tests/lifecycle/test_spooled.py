"""A file of a spool goes when its copy was read back, and stays whenever anything speaks against it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from lightkeep.acquisition.spool import Recorder, mark_of
from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.lifecycle.acquisitions import acquire
from lightkeep.lifecycle.acquisitions.acquire_run import run
from lightkeep.lifecycle.acquisitions.spooled import clear
from lightkeep.lifecycle.health import guards
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.lifecycle.replicas.verify import verify
from lightkeep.model.acquisition import Begin, Frame, SourceKind
from lightkeep.model.errors import LightkeepError
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Person, Principal
from lightkeep.model.runs import LIVE, Run, RunState
from lightkeep.model.stores import ReplicaState
from lightkeep.testing.new_facility import new_facility

ADA = Principal("ada")


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Facility]:
    with new_facility(Config(tmp_path / "house"), admin=Person("ada", "Ada")) as made:
        with made.catalog.change(SERVICE) as tx:
            tx.add_station(Station("2-BM"))
            tx.add_experiment(Experiment("e1", "2-BM"))
        yield made


@pytest.fixture
def spooled(hall: Facility, tmp_path: Path) -> Path:
    """A file that a replay left in the spool, and whose dataset is complete; two hours old."""
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["entry/data/data"] = np.arange(24, dtype=np.uint16).reshape(2, 3, 4)
    options = {"file": str(tmp_path / "old.h5"), "rate": 1000}
    made = acquire.define(hall, "r", experiment_id="e1", kind=SourceKind.REPLAY, options=options, principal=ADA)
    acquire.start(hall, made.id, principal=ADA)
    run(hall, made.id, ending=threading.Event())
    (path,) = (hall.config.root / "spool" / made.id).glob("*.h5")
    age(path, hours=2)
    return path


def age(path: Path, *, hours: float) -> None:
    then = time.time() - 3600 * hours
    os.utime(mark_of(path), (then, then))


def copy_of(hall: Facility) -> Path:
    (dataset,) = hall.catalog.view(SERVICE).datasets().items
    return local_path(hall, dataset.id, dataset.main_file)


def test_a_file_whose_copy_was_read_back_goes_and_its_mark_stays(hall: Facility, spooled: Path) -> None:
    content = spooled.read_bytes()
    assert clear(hall) == 1
    assert (spooled.exists(), mark_of(spooled).exists()) == (False, True)
    assert copy_of(hall).read_bytes() == content
    (dataset,) = hall.catalog.view(SERVICE).datasets().items
    assert verify(hall, dataset.id, principal=SERVICE).corrupt == ()
    (event,) = [e for e in hall.catalog.view(SERVICE).events(limit=100) if e.verb == "acquisition.spool_removed"]
    assert event.detail["dataset"] == dataset.id
    assert clear(hall) == 0


def test_a_file_stays_while_something_speaks_against_it(hall: Facility, spooled: Path) -> None:
    (dataset,) = hall.catalog.view(SERVICE).datasets().items
    age(spooled, hours=0.5)
    assert clear(hall) == 0, "it is young"
    mark_of(spooled).rename(spooled.with_name("mark"))
    assert clear(hall) == 0, "it may still be written"
    spooled.with_name("mark").rename(mark_of(spooled))
    age(spooled, hours=2)
    guards.switch(hall, on=False, principal=ADA, why="a doubt")
    assert clear(hall) == 0, "deletion is switched off"
    guards.switch(hall, on=True, principal=ADA)
    with hall.catalog.change(SERVICE) as tx:
        tx.add_run(Run("run_1", "e1", dataset.id, "xpcs", engine=LIVE, created_by="ada"))
    assert clear(hall) == 0, "a run follows it"
    with hall.catalog.change(SERVICE) as tx:
        tx.update_run("run_1", state=RunState.CANCELLED, message="")
    assert clear(hall) == 1


def test_a_file_stays_unless_its_copy_and_itself_are_what_the_manifest_says(hall: Facility, spooled: Path) -> None:
    (dataset,) = hall.catalog.view(SERVICE).datasets().items
    (replica,) = hall.catalog.view(SERVICE).replicas(dataset.id)
    with hall.catalog.change(SERVICE) as tx:
        tx.set_replicas([replica], state=ReplicaState.SUSPECT)
    assert clear(hall) == 0, "no copy is verified"
    with hall.catalog.change(SERVICE) as tx:
        tx.set_replicas([replica], state=ReplicaState.VERIFIED, verified_at=hall.clock.now(), proof=replica.proof)
    copy = copy_of(hall)
    copy.parent.chmod(0o700)
    away = copy.rename(copy.with_name("elsewhere"))
    with pytest.raises(LightkeepError):
        clear(hall)
    assert spooled.exists(), "its copy is gone"
    away.rename(copy)
    copy.chmod(0o600)
    content = copy.read_bytes()
    copy.write_bytes(flipped(content))
    assert clear(hall) == 0, "its copy rotted"
    copy.write_bytes(content)
    times = spooled.stat()
    spooled.write_bytes(flipped(content))
    os.utime(spooled, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert clear(hall) == 0, "it is not what was taken in, though size and time are the same"
    assert spooled.exists()


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def test_a_name_that_a_removed_file_had_is_not_used_again(tmp_path: Path) -> None:
    frame = Frame(0, np.zeros((2, 2), np.uint16), 0.0)

    def record() -> None:
        recorder = Recorder(tmp_path, prefix="x", frames_per_file=1)
        recorder.take(Begin("scan"))
        for number in range(2):
            recorder.take(replace(frame, number=number))
        recorder.end()

    record()
    assert sorted(path.name for path in tmp_path.glob("*.h5")) == ["scan-2.h5", "scan.h5"]
    for path in tmp_path.glob("*.h5"):
        path.unlink()
    record()
    assert sorted(path.name for path in tmp_path.glob("*.h5")) == ["scan_2-2.h5", "scan_2.h5"]
    (tmp_path / "scan_2-2.h5").unlink()
    (tmp_path / "scan_3-2.h5.done").touch()
    record()
    assert (tmp_path / "scan_3-3.h5").exists()
