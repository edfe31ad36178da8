"""Both built-in engines keep the engine's promises."""

from __future__ import annotations

import os

import pytest

from lightkeep import engines
from lightkeep.model.engines import Engine, Task
from lightkeep.model.errors import ConfigError
from lightkeep.testing.suites.engine import HERE, LocalEngineSuite, RemoteEngineSuite


class TestInline(LocalEngineSuite):
    def make(self) -> Engine:
        return engines.get("inline")


class TestProcesses(RemoteEngineSuite, LocalEngineSuite):
    def make(self) -> Engine:
        return engines.get("processes", workers=2)


def test_the_built_in_engines_are_found_by_name() -> None:
    assert {"dask", "inline", "processes", "slurm"} <= set(engines.names())


def test_an_unknown_engine_is_refused_with_the_names_of_those_there_are() -> None:
    with pytest.raises(ConfigError) as caught:
        engines.get("mainframe")
    assert "processes" in caught.value.remedy


@pytest.mark.parametrize(("workers", "tasks"), [(1, 3), (2, 3), (2, 1)])
def test_each_worker_gets_its_share_of_the_cores_as_threads(workers: int, tasks: int) -> None:
    names = ["OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"]
    share = max(1, len(os.sched_getaffinity(0)) // min(workers, tasks))
    results = engines.get("processes", workers=workers).map(
        [Task(f"{HERE}:environment", {"names": names})] * tasks
    )
    assert results == [[str(share)] * 3] * tasks
