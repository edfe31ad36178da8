"""The Slurm engine on a real Slurm of two nodes."""

from __future__ import annotations

import os
from typing import Any

import pytest

from lightkeep.engines.slurm import SlurmEngine
from lightkeep.model.engines import Engine
from lightkeep.testing.suites.engine import DurableEngineSuite

pytestmark = pytest.mark.cluster


def options() -> dict[str, Any]:
    """Return the options of an engine with two jobs at once."""
    return {"folder": f"{os.environ['LIGHTKEEP_TEST_SLURM']}/engine", "workers": 2, "poll_s": 0.3}


def make(**more: Any) -> SlurmEngine:
    """Return an engine with two jobs at once."""
    return SlurmEngine(**(options() | more))


class TestSlurm(DurableEngineSuite):
    def make(self) -> Engine:
        return make()

    def options(self) -> dict[str, Any]:
        return options()
