"""The Dask engine: in this process, on a scheduler that is there, and on a real Slurm."""

from __future__ import annotations

import pytest

from lightkeep import engines
from lightkeep.model.engines import Engine
from lightkeep.testing.suites.engine import LocalEngineSuite, RemoteEngineSuite

pytestmark = pytest.mark.cluster


class TestDaskHere(RemoteEngineSuite, LocalEngineSuite):
    def make(self) -> Engine:
        return engines.get("dask", workers=2)
