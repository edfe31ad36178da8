"""The real `lightkeep serve`: its processes are killed by kill -9 while a run is asked for, begun and computed.

    lightkeep serve ── lightkeep.workflow.worker ── lightkeep.engines.worker

What the worker does between its steps is enumerated in test_scale_workers.py; here the steps are what can be seen
from outside.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing.process import cancel
from lightkeep.model.datasets import DatasetKind
from lightkeep.model.people import SERVICE
from lightkeep.model.runs import RunState

sys.path.insert(0, str(Path(__file__).parent))
from serving import ADA, EXPERIMENT, LEASE_S, Served, scan, until

pytestmark = [pytest.mark.cluster, pytest.mark.postgres]


def test_a_run_survives_every_kill_of_a_process_of_the_server(
    served: Served, tmp_path: Path, tell: Callable[..., None], request: pytest.FixtureRequest
) -> None:
    data = ingest(served.facility, scan(tmp_path / "a.h5"), experiment_id=EXPERIMENT, principal=ADA, quiet_s=0)
    (served.gates / "hold-1").touch()
    served.start()
    asked = {"technique": "gated", "params": {"folder": str(served.gates)}}
    run_id = served.ask(f"/datasets/{data.dataset.id}/runs", asked)["id"]
    served.kill("server")  # it was asked for, and hardly queued
    until(lambda: served.computed()[1] == 1)
    slowest = 0.0
    for times, what in enumerate(("lightkeep.engines.worker", "lightkeep.workflow.worker", "server"), 2):
        killed_at = time.monotonic()
        served.kill(what)
        until(lambda times=times: served.computed()[1] >= times)
        slowest = max(slowest, time.monotonic() - killed_at)
    (served.gates / "hold-1").unlink()
    until(lambda: served.ask(f"/runs/{run_id}")["state"] == RunState.DONE)
    view = served.facility.catalog.view(SERVICE)
    (result,) = view.datasets(kind=DatasetKind.DERIVED).items
    assert served.ask(f"/runs/{run_id}/result")["id"] == result.id
    happened = Counter(event.verb for event in view.events(limit=1000))
    assert [happened[verb] for verb in ("run.queued", "run.running", "run.done")] == [1, 1, 1]
    assert served.facility.catalog.verify_events() == []
    which = request.node.callspec.params["served"]
    tell(f"served_at_work_again_{which}", slowest / LEASE_S, "leases", most=2)


def test_a_run_that_is_cancelled_while_the_server_is_dead_stays_cancelled(served: Served, tmp_path: Path) -> None:
    data = ingest(served.facility, scan(tmp_path / "a.h5"), experiment_id=EXPERIMENT, principal=ADA, quiet_s=0)
    (served.gates / "hold-1").touch()
    served.start()
    asked = {"technique": "gated", "params": {"folder": str(served.gates)}}
    run_id = served.ask(f"/datasets/{data.dataset.id}/runs", asked)["id"]
    until(lambda: served.computed()[1] == 1)
    assert served.server is not None
    served.server.kill()
    served.server.wait()
    cancel(served.facility, run_id, principal=ADA)
    served.start()
    scratch = served.facility.scratch / "runs"
    until(lambda: list(scratch.iterdir()) == [])
    assert served.ask(f"/runs/{run_id}")["state"] == RunState.CANCELLED
    assert served.computed()[1] == 1
    assert served.facility.catalog.view(SERVICE).datasets(kind=DatasetKind.DERIVED).total == 0
