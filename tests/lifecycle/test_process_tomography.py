"""A tomography run from the raw file to OME-Zarr: the same in any process, and a killed worker costs its piece."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import h5py
import numpy as np
import pytest

from lightkeep import formats
from lightkeep.analysis import simulate
from lightkeep.facility import Facility
from lightkeep.formats.data_exchange import ScanHeader, write_scan
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing.process import folder_of, process, request
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.model.datasets import Dataset
from lightkeep.model.people import SERVICE
from lightkeep.model.runs import Run
from lightkeep.techniques import tomography

PLUGIN = Path(__file__).parents[1] / "plugin"
sys.path.insert(0, str(PLUGIN))
from house import ADA, EXPERIMENT, build  # noqa: E402

ROWS, COLUMNS, ANGLES = 10, 96, 120


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    with build(tmp_path / "facility") as facility:
        yield facility


@pytest.fixture
def dataset(facility: Facility, tmp_path: Path) -> Dataset:
    made = simulate.tomography_scan(
        simulate.shepp_logan(),
        np.arange(ANGLES) * 180 / ANGLES,
        rows=ROWS,
        columns=COLUMNS,
        rng=np.random.default_rng(3),
        center=46.3,
        i0=4e4,
    )
    header = ScanHeader(made.theta_deg, ROWS, COLUMNS, title="head")
    path = write_scan(
        tmp_path / "head.h5", header, projections=made.projections, flats=made.flats, darks=made.darks
    )
    return ingest(facility, path, experiment_id=EXPERIMENT, principal=ADA, quiet_s=0).dataset


def requested(facility: Facility, dataset: Dataset, engine: str, **params: object) -> Run:
    return request(facility, dataset.id, "tomography", params, principal=ADA, engine=engine)


def slices_of(facility: Facility, result: Dataset) -> np.ndarray:
    with h5py.File(local_path(facility, result.id, result.main_file)) as file:
        return file["entry/slices/data"][:]


def files_of(facility: Facility, result: Dataset) -> dict[str, bytes]:
    """The OME-Zarr's chunks by their path."""
    names = [each.path for each in facility.catalog.view(SERVICE).files(result.id)]
    return {name: local_path(facility, result.id, name).read_bytes() for name in names if "/c/" in name}


def test_inline_and_processes_give_the_same_bytes_down_to_the_chunks(facility: Facility, dataset: Dataset) -> None:
    made = []
    for engine in ("inline", "processes"):
        result = process(facility, requested(facility, dataset, engine).id)
        made.append((slices_of(facility, result), files_of(facility, result)))
    np.testing.assert_array_equal(made[0][0], made[1][0])
    assert made[0][1] == made[1][1]
    assert made[0][1]


def workers_in(pid: int) -> list[int]:
    """Process ids of the workers that a process started, but not of what they started."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(stat[1]) == pid and b"lightkeep.engines.worker" in command:
                found.append(int(entry.name))
    return found


def test_a_worker_that_is_killed_costs_the_piece_that_it_had(facility: Facility, dataset: Dataset) -> None:
    """kill -9 while pieces are computed: those that are done stay as they are, and the slices are the same."""
    slow = {"center": 46.3, "method": "tv", "iterations": 120}
    with formats.get("data-exchange").open(local_path(facility, dataset.id, dataset.main_file)) as source:
        of_two = tomography.preflight(source, tomography.Params(**slow, row_end=2)).memory_bytes
    slow["memory_gb"] = 1.001 * of_two / 1e9
    expected = process(facility, requested(facility, dataset, "inline", **slow).id)
    run = requested(facility, dataset, "processes", **slow)
    folder = folder_of(facility, run.id)
    results: list[Dataset] = []
    thread = threading.Thread(target=lambda: results.append(process(facility, run.id)))
    thread.start()
    deadline = time.monotonic() + 60
    while not (marks := inodes(folder)) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(workers_in(os.getpid())[0], signal.SIGKILL)
    seen = {name: {inode} for name, inode in marks.items()}
    while thread.is_alive():
        for name, inode in inodes(folder).items():
            seen.setdefault(name, set()).add(inode)
        thread.join(timeout=0.005)
    assert len(marks) < len(seen) == ROWS // 2
    assert all(len(of_one) == 1 for of_one in seen.values())
    np.testing.assert_array_equal(slices_of(facility, results[0]), slices_of(facility, expected))


def inodes(folder: Path) -> dict[str, int]:
    """The marks of pieces that are done; one that is written again is another file."""
    found = {}
    for path in folder.glob("piece-?????"):
        with suppress(FileNotFoundError):
            found[path.name] = path.stat().st_ino
    return found
