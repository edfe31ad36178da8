"""A facility on PostgreSQL with worker processes of its own, for the tests that pause, kill and cut them off."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from lightkeep.config import Config, WorkerConfig
from lightkeep.facility import Facility, create_facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing.process import request
from lightkeep.model.datasets import DatasetKind
from lightkeep.model.people import SERVICE, Grant, Person, Role, Scope
from lightkeep.model.runs import Run, RunState
from lightkeep.workflow import open_workflow

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "plugin"))
from house import ADA, EXPERIMENT, config, furnish, scan  # noqa: E402

SERVER = os.environ.get("LIGHTKEEP_TEST_POSTGRES", "")
LEASE_S = 2.0


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


def drop_all(server: str, names: list[str]) -> None:
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for name in names:
            connection.execute(text(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))
    engine.dispose()


@contextmanager
def databases(settings: Config, name: str) -> Iterator[Config]:
    """Return the settings with catalogue and queue in databases of their own, which are gone afterwards."""
    if not SERVER:
        pytest.skip("no PostgreSQL: run the tests through scripts/with-postgres")
    names = [f"{part}_{name}_{os.getpid()}" for part in ("catalog", "queue")]
    engine = create_engine(SERVER, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f'CREATE DATABASE "{names[0]}"'))
    engine.dispose()
    catalog_url, workflow_url = (SERVER.replace("/postgres?", f"/{each}?") for each in names)
    try:
        yield replace(settings, catalog_url=catalog_url, workflow_url=workflow_url)
    finally:
        drop_all(SERVER, names)


def add_user(facility: Facility) -> None:
    """Make whoever runs the tests known to a facility: its commands refuse others."""
    with facility.catalog.change(SERVICE) as tx:
        tx.add_person(Person(getpass.getuser(), "Whoever runs this"))
        tx.add_grant(Grant(getpass.getuser(), Role.PI, Scope.EXPERIMENT, EXPERIMENT))


@contextmanager
def opened_site(tmp_path: Path) -> Iterator[Site]:
    """Make one; its workers and databases are gone afterwards."""
    usual = replace(config(tmp_path / "facility"), worker=WorkerConfig(lease_s=LEASE_S))
    gates = tmp_path / "gates"
    gates.mkdir()
    with (
        databases(usual, tmp_path.name) as settings,
        create_facility(settings, admin=Person("ada", "Ada")) as facility,
    ):
        furnish(facility)
        made = Site(facility, gates, scan(tmp_path / "tooth.h5"))
        try:
            yield made
        finally:
            for worker in made.workers:
                worker.kill()
                worker.communicate()


def until(claim: Callable[[], bool], *, within_s: float = 120) -> None:
    deadline = time.monotonic() + within_s
    while not claim():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.02)


def assert_done_once(site: Site) -> None:
    view = site.facility.catalog.view(SERVICE)
    (run,) = site.runs()
    (result,) = view.datasets(kind=DatasetKind.DERIVED).items
    assert (run.state, run.result_id) == (RunState.DONE, result.id), run
    happened = Counter(event.verb for event in view.events(limit=1000))
    assert [happened[verb] for verb in ("run.queued", "run.running", "run.done")] == [1, 1, 1]
    assert happened["dataset.completed"] == 2
    assert site.facility.catalog.verify_events() == []


def terminate_backends(site: Site) -> None:
    """Cut every connection to the databases of a site."""
    settings = site.facility.config
    names = [make_url(url).database for url in (settings.catalog_url, settings.workflow_url)]
    engine = create_engine(SERVER, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(
            text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY(:names)"),
            {"names": names},
        )
    engine.dispose()
