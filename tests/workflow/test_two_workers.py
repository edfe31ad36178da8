"""Two real worker processes on PostgreSQL: one is paused past its lease, killed, or cut from its database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from lightkeep.config import WorkerConfig
from lightkeep.facility import Facility, create_facility
from lightkeep.lifecycle.ingest import ingest
from lightkeep.lifecycle.process import request
from lightkeep.model.datasets import DatasetKind
from lightkeep.model.people import SERVICE, Person
from lightkeep.model.runs import Run, RunState
from lightkeep.workflow import open_workflow

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "plugin"))
from house import ADA, EXPERIMENT, config, furnish, scan  # noqa: E402

SERVER = os.environ.get("LIGHTKEEP_TEST_POSTGRES", "")
LEASE_S = 2.0

pytestmark = [pytest.mark.postgres, pytest.mark.crash]


@dataclass
class Site:
    """A facility on PostgreSQL, and its workers."""

    facility: Facility
    gates: Path
    source: Path
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start_worker(self, point: str = "") -> subprocess.Popen[bytes]:
        settings = self.facility.config
        urls = [settings.catalog_url, settings.workflow_url]
        words = [sys.executable, str(HERE / "worker.py"), str(settings.root), *urls, str(LEASE_S)]
        worker = subprocess.Popen([*words, point] if point else words, stderr=subprocess.PIPE)
        self.workers.append(worker)
        return worker

    def queue_run(self) -> str:
        data = ingest(self.facility, self.source, experiment_id=EXPERIMENT, principal=ADA, quiet_s=0).dataset
        run = request(self.facility, data.id, "gated", {"folder": str(self.gates)}, principal=ADA)
        with open_workflow(self.facility, work=False) as work:
            return work.submit_run(run.id)

    def queue_ingest(self) -> str:
        with open_workflow(self.facility, work=False) as work:
            options = {"technique": "gated", "params": {"folder": str(self.gates)}}
            return work.submit_ingest(self.source, experiment_id=EXPERIMENT, principal=ADA, **options)

    def runs(self) -> list[Run]:
        return list(self.facility.catalog.view(SERVICE).runs().items)

    def computed(self) -> Counter[int]:
        path = self.gates / "computed"
        return Counter(int(line) for line in path.read_text().split()) if path.exists() else Counter()

    def workers_known(self) -> list[int]:
        return [each.pid for each in self.facility.catalog.view(SERVICE).workers()]


def _drop_all(server: str, names: list[str]) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for name in names:
            connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
    engine.dispose()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    if not SERVER:
        pytest.skip("no PostgreSQL: run the tests through scripts/with-postgres")
    names = [f"{part}_{tmp_path.name}_{os.getpid()}" for part in ("catalog", "queue")]
    engine = create_engine(SERVER, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{names[0]}"'))
    engine.dispose()
    catalog_url, workflow_url = (SERVER.replace("/postgres?", f"/{name}?") for name in names)
    settings = replace(
        config(tmp_path / "facility"),
        catalog_url=catalog_url,
        workflow_url=workflow_url,
        worker=WorkerConfig(lease_s=LEASE_S),
    )
    gates = tmp_path / "gates"
    gates.mkdir()
    with create_facility(settings, admin=Person("ada", "Ada")) as facility:
        furnish(facility)
        made = Site(facility, gates, scan(tmp_path / "tooth.h5"))
        try:
            yield made
        finally:
            for worker in made.workers:
                worker.kill()
                worker.communicate()
    _drop_all(SERVER, names)


def _until(claim: Callable[[], bool], *, within_s: float = 60) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def _assert_done_once(site: Site) -> None:
    view = site.facility.catalog.view(SERVICE)
    (run,) = site.runs()
    (result,) = view.datasets(kind=DatasetKind.DERIVED).items
    assert (run.state, run.result_id) == (RunState.DONE, result.id), run
    happened = Counter(event.verb for event in view.events(limit=1000))
    assert [happened[verb] for verb in ("run.queued", "run.running", "run.done")] == [1, 1, 1]
    assert happened["dataset.completed"] == 2
    assert site.facility.catalog.verify_events() == []


def test_a_worker_paused_past_its_lease_commits_nothing_when_it_goes_on(site: Site) -> None:
    (site.gates / "hold-2").touch()
    first = site.start_worker()
    run_id = site.queue_run()
    _until(lambda: site.computed()[2] == 1)
    os.kill(first.pid, signal.SIGSTOP)
    second = site.start_worker()
    _until(lambda: site.computed()[2] == 2)  # the second one is at it: the lease is over
    os.kill(first.pid, signal.SIGCONT)
    time.sleep(0.3)
    (site.gates / "hold-2").unlink()
    _until(lambda: site.facility.catalog.view(SERVICE).run(run_id).state.is_over)
    _until(lambda: len(site.workers_known()) == 2)  # the first has begun a new life
    assert first.poll() is None
    assert second.poll() is None
    _assert_done_once(site)


def test_what_a_killed_worker_had_in_hand_is_done_within_twice_the_lease(site: Site) -> None:
    (site.gates / "hold-1").touch()
    first = site.start_worker()
    site.queue_ingest()
    _until(lambda: site.computed()[1] == 1)
    second = site.start_worker()
    _until(lambda: second.pid in site.workers_known())
    first.kill()
    killed_at = datetime.now(UTC)
    (site.gates / "hold-1").unlink()
    _until(lambda: bool(site.runs()) and site.runs()[0].state.is_over)
    _assert_done_once(site)
    (lost,) = [
        each for each in site.facility.catalog.view(SERVICE).events(limit=1000) if each.verb == "worker.lost"
    ]
    assert lost.at - killed_at < timedelta(seconds=2 * LEASE_S)


POINTS = [
    "lightkeep.workflow.chain:Chain._take_in",
    "lightkeep.workflow.chain:Chain._choose",
    "lightkeep.workflow.chain:Chain._request",
    "lightkeep.workflow.orchestrator:Orchestrator.submit_run",
    "lightkeep.lifecycle.process:_plan",
    "lightkeep.lifecycle.process:_compute",
    "lightkeep.lifecycle.process:keep_result",
    "lightkeep.lifecycle.process:_finish",
]


def test_workers_killed_one_after_the_other_at_every_step_leave_the_right_result_once(site: Site) -> None:
    site.queue_ingest()
    for point in POINTS:
        worker = site.start_worker(point)
        assert worker.wait(60) == -signal.SIGKILL, point
    site.start_worker()
    _until(lambda: bool(site.runs()) and site.runs()[0].state.is_over)
    _assert_done_once(site)


def test_a_run_survives_the_loss_of_every_database_connection(site: Site) -> None:
    (site.gates / "hold-0").touch()
    (site.gates / "hold-2").touch()
    site.start_worker()
    site.queue_run()
    for row in (0, 2):
        _until(lambda row=row: site.computed()[row] == 1)
        _terminate_backends()
        (site.gates / f"hold-{row}").unlink()
    _until(lambda: site.runs()[0].state.is_over)
    _assert_done_once(site)
    assert site.computed() == {0: 1, 1: 1, 2: 1, 3: 1}


def _terminate_backends() -> None:
    engine = create_engine(SERVER, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        )
    engine.dispose()
