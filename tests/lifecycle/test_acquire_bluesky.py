"""The files of a bluesky run, made by ophyd-async's simulated detector in a real RunEngine, become its dataset."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import bluesky.plans as bp
import h5py
import pytest
from bluesky import RunEngine
from ophyd_async.core import StaticPathProvider, UUIDFilenameProvider, init_devices
from ophyd_async.sim import SimBlobDetector, SimMotor

from lightkeep.acquisition.documents import Documents, read
from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.lifecycle.acquisitions import acquire
from lightkeep.lifecycle.acquisitions.acquire_run import run
from lightkeep.lifecycle.replicas.manifest import all_files
from lightkeep.model.acquisition import SourceKind
from lightkeep.model.datasets import DatasetState
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Person, Principal
from lightkeep.testing.new_facility import new_facility

ADA = Principal("ada")
WAIT_S = 60.0


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Facility]:
    with new_facility(Config(tmp_path / "house"), admin=Person("ada", "Ada")) as made:
        with made.catalog.change(SERVICE) as tx:
            tx.add_station(Station("2-BM"))
            tx.add_experiment(Experiment("e1", "2-BM"))
        yield made


@pytest.fixture
def scanned(tmp_path: Path) -> Path:
    """A folder with the documents and the files of a scan of three points."""
    beamline = tmp_path / "beamline"
    (beamline / "data").mkdir(parents=True)
    engine = RunEngine(call_returns_result=True)
    engine.subscribe(Documents(beamline / "documents"))
    with init_devices():
        camera = SimBlobDetector(StaticPathProvider(UUIDFilenameProvider(), beamline / "data"))
        motor = SimMotor(instant=True)
    engine(bp.scan([camera], motor, 0, 1, 3))
    return beamline


def _take(hall: Facility, folder: Path, name: str) -> None:
    """Run an acquisition of the documents until a dataset is there, or it has complained."""
    made = acquire.define(
        hall, "runs", experiment_id="e1", kind=SourceKind.BLUESKY, options={"path": str(folder)}, principal=ADA
    )
    acquire.start(hall, made.id, principal=ADA)
    ending = threading.Event()
    thread = threading.Thread(target=run, args=(hall, made.id), kwargs={"ending": ending})
    thread.start()
    deadline = time.monotonic() + WAIT_S
    view = hall.catalog.view(SERVICE)
    while view.dataset_named("e1", name) is None and not view.acquisition(made.id).statistics.last_error:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ending.set()
    thread.join()


def test_a_run_of_the_real_engine_is_a_dataset_with_its_files_and_documents(hall: Facility, scanned: Path) -> None:
    (documents,) = (scanned / "documents").glob("*.jsonl")
    found = read(documents)
    assert (found.name, found.exit_status, len(found.files)) == ("scan_1", "success", 1)
    _take(hall, scanned / "documents", "scan_1")
    view = hall.catalog.view(SERVICE)
    dataset = view.dataset_named("e1", "scan_1")
    assert dataset is not None
    assert dataset.state is DatasetState.COMPLETE
    (data,) = (scanned / "data").iterdir()
    kept = {each.path: each.size for each in all_files(view, dataset.id)}
    assert kept == {
        f"data/{data.name}": data.stat().st_size,
        f"documents/{documents.name}": documents.stat().st_size,
    }
    with h5py.File(data) as file:
        assert file["entry/data/data"].shape[0] == 3


def test_documents_that_name_a_file_elsewhere_are_refused(hall: Facility, scanned: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("not yours")
    (documents,) = (scanned / "documents").glob("*.jsonl")
    lines = documents.read_text().splitlines()
    stolen = ["stream_resource", {"uid": "x", "uri": f"file://localhost{secret}", "run_start": documents.stem}]
    documents.write_text("\n".join([*lines[:-1], json.dumps(stolen), lines[-1]]) + "\n")
    _take(hall, scanned / "documents", "scan_1")
    view = hall.catalog.view(SERVICE)
    assert view.dataset_named("e1", "scan_1") is None
    named = view.acquisition_named("e1", "runs")
    assert named is not None
    assert "secret.txt is not below" in named.statistics.last_error
