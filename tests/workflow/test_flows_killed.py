"""A worker is killed after each step of a flow: every stage is done once, and who is to be told is told once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing import flows
from lightkeep.model.people import SERVICE
from lightkeep.model.runs import RunState
from lightkeep.model.workflows import FlowState

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
from flow_walker import walk
from house import ADA, EXPERIMENT, build, scan

pytestmark = pytest.mark.crash
WALKER = Path(__file__).parent / "flow_walker.py"
TEXT = """
id = "chain"
[[trigger]]
on = "dataset"
[[stage]]
name = "mean"
technique = "gated"
[[stage]]
name = "copy"
command = ["cp", "{input}", "{copy}"]
source = "mean"
outputs = { copy = "copy.h5" }
[notify]
to = ["ada@example.org"]
on = ["done"]
"""
STEPS = [
    "lightkeep.lifecycle.processing.flows:_begin",
    "lightkeep.lifecycle.processing.process:process",
    "lightkeep.catalog.workflows:WorkflowChanges.update_flow",
]


@pytest.mark.parametrize("point", STEPS)
def test_a_flow_whose_worker_is_killed_after_each_step_has_every_stage_done_once(
    tmp_path: Path, point: str
) -> None:
    with build(tmp_path / "facility") as facility:
        flows.adopt(facility, TEXT, principal=ADA)
        ingest(facility, scan(tmp_path / "tooth.h5"), experiment_id=EXPERIMENT, principal=ADA, quiet_s=0)
        words = [sys.executable, str(WALKER), str(tmp_path / "facility"), point]
        died = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert died.returncode == -signal.SIGKILL, died.stderr
        walk(facility)
        view = facility.catalog.view(SERVICE)
        (flow,) = view.flows().items
        assert (flow.state, flow.message) == (FlowState.DONE, "2 of 2 stages done")
        runs = [(run.stage, run.state) for run in view.flow_runs(flow.id)]
        assert runs == [("mean", RunState.DONE), ("copy", RunState.DONE)]
        assert len(view.mail_waiting()) == 1
