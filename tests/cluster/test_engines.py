"""The same run on every engine, on a real Slurm, Dask and PostgreSQL: the same bytes; and what an engine costs."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import create_engine, text

from lightkeep import engines, formats
from lightkeep.config import Config
from lightkeep.engines.slurm import job_name
from lightkeep.engines.slurm_commands import Slurm
from lightkeep.facility import Facility, create_facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing.process import cancel, process, request, sweep
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.model.datasets import Dataset
from lightkeep.model.engines import Task
from lightkeep.model.errors import RunCancelled
from lightkeep.model.people import SERVICE, Person
from lightkeep.model.runs import RunState
from lightkeep.testing.beamline import simulate_tomography, simulate_xpcs
from lightkeep.testing.suites.engine import HERE
from lightkeep.testing.suites.engine import Leave as Stopped

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
from house import ADA, EXPERIMENT, furnish

pytestmark = [pytest.mark.cluster, pytest.mark.postgres]
TABLES = {
    "two": {"kind": "processes", "workers": 2},
    "dask-here": {"kind": "dask", "workers": 2},
    "dask-slurm": {
        "kind": "dask",
        "cluster": "slurm",
        "workers": 2,
        "memory_mb": 900,
        "interface": "lo",
        "partition": "realtime",
    },
    "array": {"kind": "slurm", "workers": 2, "poll_s": 0.3, "partition": "realtime"},
    "job": {"kind": "slurm", "workers": 1, "processes": 2, "poll_s": 0.3},
}


@pytest.fixture(scope="module")
def facility(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Facility]:
    """Make a facility on PostgreSQL, whose folder the nodes have too."""
    root = tmp_path_factory.mktemp("house")
    server, name = os.environ["LIGHTKEEP_TEST_POSTGRES"], f"cluster_{os.getpid()}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    config = Config(root, catalog_url=server.replace("/postgres?", f"/{name}?"))
    with create_facility(replace(config, engines=TABLES), admin=Person("ada", "Ada")) as made:
        furnish(made)
        yield made


def taken(facility: Facility, path: Path) -> Dataset:
    """Ingest a path."""
    return ingest(facility, path, experiment_id=EXPERIMENT, principal=ADA, quiet_s=0).dataset


@pytest.fixture(scope="module")
def scan(facility: Facility, tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, str, dict[str, object]]:
    """Return a small tomography scan, its technique and parameters."""
    path = tmp_path_factory.mktemp("2-BM") / "core.h5"
    simulate_tomography(path, size=64, rows=12, angles=90)
    return taken(facility, path), "tomography", {"center": 39.3}


@pytest.fixture(scope="module")
def colloid(
    facility: Facility, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Dataset, str, dict[str, object]]:
    """Return a small XPCS run, its technique and parameters."""
    folder = tmp_path_factory.mktemp("8-ID") / "gel"
    truth = simulate_xpcs(folder, format="imm", shape=(64, 64), frames=200, rings=(3, 6))
    bins = taken(facility, truth.qmap_path)
    return taken(facility, folder), "xpcs", {"qmap": bins.id}


def outputs(facility: Facility, result: Dataset) -> dict[str, bytes]:
    """Return every array of a result's file."""
    path = local_path(facility, result.id, result.main_file)
    with formats.get(result.format).open(path) as source:
        return {name: np.asarray(each[...]).tobytes() for name, each in source.arrays.items()}


@pytest.mark.parametrize("data", ["scan", "colloid"])
def test_every_engine_gives_the_same_bytes(
    facility: Facility, data: str, request: pytest.FixtureRequest, tell: Callable[..., None]
) -> None:
    dataset, technique, params = request.getfixturevalue(data)
    found = {}
    for engine in ("inline", *TABLES):
        run = _requested(facility, dataset, technique, params, engine)
        began = time.monotonic()
        found[engine] = outputs(facility, process(facility, run))
        tell(f"{technique}_{engine}", time.monotonic() - began, "s")
        assert facility.catalog.view(SERVICE).run(run).engine == engine
    assert found["inline"]
    assert {engine for engine, values in found.items() if values != found["inline"]} == set()
    tell(f"{technique}_engines_with_the_same_bytes", len(found), "engines", least=6)


def _requested(facility: Facility, dataset: Dataset, technique: str, params: object, engine: str) -> str:
    return request(facility, dataset.id, technique, params, principal=ADA, engine=engine).id  # type: ignore[arg-type]


@pytest.mark.parametrize(("engine", "limit"), [("", 0.5), ("job", 3.0), ("array", 3.0)])
def test_what_a_run_costs_above_its_computing(
    facility: Facility,
    tmp_path_factory: pytest.TempPathFactory,
    tell: Callable[..., None],
    engine: str,
    limit: float,
) -> None:
    path = tmp_path_factory.mktemp("2-BM") / f"tiny{engine}.h5"
    simulate_tomography(path, size=32, rows=2, angles=8, center_offset=0.0)
    dataset, costs = taken(facility, path), []
    for _ in range(3):
        began = time.monotonic()
        run = _requested(facility, dataset, "tomography", {"center": 15.5}, engine)
        process(facility, run)
        costs.append(time.monotonic() - began)
    tell(f"overhead_{engine or 'local'}", min(costs), "s", most=limit)
    assert min(costs) < 10 * limit


@pytest.mark.parametrize("options", [{"workers": 2}, TABLES["dask-slurm"]], ids=["here", "slurm"])
def test_dask_takes_hundreds_of_tasks_a_second(
    options: dict[str, object], tmp_path: Path, tell: Callable[..., None]
) -> None:
    given = {key: value for key, value in options.items() if key != "kind"}
    engine = engines.get("dask", folder=str(tmp_path), **given)
    ends: list[float] = []
    tasks = [Task(f"{HERE}:square", {"value": value}) for value in range(3000)]
    assert engine.map(tasks, done=lambda _n, _value: ends.append(time.monotonic()))[-1] == 2999**2
    rate = (len(ends) - 300) / (ends[-1] - ends[299])  # the first ones wait for workers to start
    tell(f"dask_tasks_{'slurm' if 'cluster' in given else 'here'}", rate, "1/s", least=300)


class StopAfter:
    """Looks like a cancel; says that this process is to stop as soon as a run's jobs are there."""

    def __init__(self, name: str) -> None:
        self._name = name

    def is_set(self) -> bool:
        """Return False, or raise."""
        if Slurm().find(self._name):
            raise Stopped
        return False


def test_a_run_whose_worker_stopped_goes_on_with_the_job_that_it_had(facility: Facility, scan: tuple) -> None:  # type: ignore[type-arg]
    run = _requested(facility, *scan, "job")
    name = job_name(f"{run}-compute", 1)
    with pytest.raises(Stopped):
        process(facility, run, cancel=StopAfter(name))
    process(facility, run)
    assert len(Slurm().find(name)) == 1
    assert facility.catalog.view(SERVICE).run(run).state is RunState.DONE


def test_a_cancel_of_a_run_reaches_its_job(facility: Facility, scan: tuple) -> None:  # type: ignore[type-arg]
    run = _requested(facility, *scan, "job")
    name = job_name(f"{run}-compute", 1)

    def withdraw() -> None:
        while not Slurm().find(name):
            time.sleep(0.05)
        cancel(facility, run, principal=ADA)

    thread = threading.Thread(target=withdraw)
    thread.start()
    with pytest.raises(RunCancelled):
        process(facility, run)
    thread.join()
    assert [job.state for job in Slurm().find(name)] == ["CANCELLED"]


def test_the_job_of_a_run_that_is_cancelled_while_no_worker_lives_is_cancelled_by_the_next_one(
    facility: Facility,
    scan: tuple,  # type: ignore[type-arg]
) -> None:
    run = _requested(facility, *scan, "job")
    name = job_name(f"{run}-compute", 1)
    with pytest.raises(Stopped):
        process(facility, run, cancel=StopAfter(name))
    cancel(facility, run, principal=ADA)
    sweep(facility)
    assert all(job.is_over for job in Slurm().find(name))
    assert not (facility.scratch / "runs" / run).exists()
