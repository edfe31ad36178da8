"""Two hosts with a `lightkeep worker` each and PostgreSQL on a third: the links between them are cut and healed.

    host a  10.232.n.2 ── veth ── 10.232.n.1  ┐
                                              ├─ PostgreSQL
    host b  10.232.n.6 ── veth ── 10.232.n.5  ┘

Each host has its own network and its own name; the disk is shared. A link is cut at PostgreSQL's end, so that
nobody is told: packets only fail to arrive.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import h5py
import numpy as np
import pytest
from sqlalchemy import make_url

from lightkeep.config import WorkerConfig
from lightkeep.facility import create_facility
from lightkeep.lifecycle.acquisitions import acquire
from lightkeep.lifecycle.processing.process import request
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.model.acquisition import AcquisitionState, SourceKind
from lightkeep.model.datasets import DatasetKind, DatasetState
from lightkeep.model.people import SERVICE, Person
from lightkeep.model.runs import RunState
from lightkeep.workflow import open_workflow

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / "workflow"), str(TESTS / "plugin")]
from house import ADA, EXPERIMENT, config, furnish, scan  # noqa: E402
from two_workers import Site, add_user, assert_done_once, until  # noqa: E402

pytestmark = [pytest.mark.cluster, pytest.mark.postgres]
LEASE_S = 6.0
HOSTS = ("a", "b")


def sh(*command: object) -> str:
    """Run a command that must succeed; return what it printed."""
    return subprocess.run([str(each) for each in command], check=True, capture_output=True, text=True).stdout


@dataclass
class Net:
    """The three places."""

    folder: Path
    number: int

    def name(self, place: str) -> str:
        return f"lkh{os.getpid()}{place}"

    def address(self, host: str, end: int) -> str:
        """Return the address of an end of a host's link: 1 is PostgreSQL's, 2 the host's."""
        return f"10.232.{self.number}.{4 * HOSTS.index(host) + end}"

    def inside(self, place: str) -> list[str]:
        """Return what goes before a command that runs at a place."""
        naming = ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', f"host-{place}"]
        return ["nsenter", f"--net=/run/netns/{self.name(place)}", *naming]

    def cut(self, host: str) -> None:
        sh("ip", "-n", self.name("db"), "link", "set", f"to-{host}", "down")

    def heal(self, host: str) -> None:
        sh("ip", "-n", self.name("db"), "link", "set", f"to-{host}", "up")

    def url(self, database: str, host: str = "") -> str:
        """Return the address of a database as a host sees it; from here it is a socket in the shared folder."""
        where = self.address(host, 1) if host else str(self.folder)
        return f"postgresql+psycopg://lightkeep@/{database}?host={where}"

    def make(self) -> None:
        for place in (*HOSTS, "db"):
            sh("ip", "netns", "add", self.name(place))
            sh("ip", "-n", self.name(place), "link", "set", "lo", "up")
        for host in HOSTS:
            ours, theirs = self.name("db"), self.name(host)
            sh("ip", "-n", ours, "link", "add", f"to-{host}", "type", "veth", "peer", "eth0", "netns", theirs)
            for place, link, end in ((ours, f"to-{host}", 1), (theirs, "eth0", 2)):
                sh("ip", "-n", place, "addr", "add", f"{self.address(host, end)}/30", "dev", link)
                sh("ip", "-n", place, "link", "set", link, "up")

    def remove(self) -> None:
        for place in (*HOSTS, "db"):
            subprocess.run(["ip", "netns", "del", self.name(place)], check=False, capture_output=True)

    def postgres(self, *command: str) -> None:
        """Run a command as PostgreSQL's account, on its host."""
        binaries = max(Path("/usr/lib/postgresql").glob("*/bin"))
        words = " ".join(f"'{each}'" for each in (binaries / command[0], *command[1:]))
        sh(*self.inside("db"), "su", "-s", "/bin/sh", "postgres", "-c", words)

    def start(self) -> None:
        listen = ",".join(self.address(host, 1) for host in HOSTS)
        options = f"-c listen_addresses={listen} -c unix_socket_directories={self.folder}"
        log = str(self.folder / "log")
        self.postgres("pg_ctl", "-D", str(self.folder / "data"), "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """End PostgreSQL as a power cut would."""
        self.postgres("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    folder = Path(tempfile.mkdtemp(prefix="lightkeep-hosts."))
    shutil.chown(folder, "postgres")
    made = Net(folder, os.getpid() % 250)
    data = str(folder / "data")
    try:
        made.make()
        made.postgres(
            "initdb", "-D", data, "-U", "lightkeep", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"
        )
        with (folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 10.232.0.0/16 trust\n")
        made.start()
        yield made
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            made.stop()
        made.remove()
        shutil.rmtree(folder, ignore_errors=True)


def _database(url: str) -> str:
    return make_url(url).database or ""


@dataclass
class Hosts(Site):
    """A facility whose workers are on other hosts."""

    net: Net | None = None

    def run_on(self, host: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a command of the facility's on a host."""
        assert self.net is not None
        settings = self.facility.config
        environment = os.environ | {
            "PYTHONPATH": str(TESTS / "plugin"),
            "LIGHTKEEP_ROOT": str(settings.root),
            "LIGHTKEEP_CATALOG_URL": self.net.url(_database(settings.catalog_url), host),
            "LIGHTKEEP_WORKFLOW_URL": self.net.url(_database(settings.workflow_url), host),
            "LIGHTKEEP_WORKER_LEASE_S": str(LEASE_S),
            "LIGHTKEEP_ENGINE_NAME": "inline",
        }
        words = [*self.net.inside(host), sys.executable, *command]
        started = subprocess.Popen(
            words, env=environment, cwd=settings.root, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.workers.append(started)
        return started

    def start_on(self, host: str) -> subprocess.Popen[bytes]:
        """Start a worker on a host, and wait until it looks at the queue."""
        worker = self.run_on(host, "-m", "lightkeep", "worker")
        assert worker.stdout is not None
        assert b"Working" in worker.stdout.readline(), worker.communicate()
        return worker

    def hosts_known(self) -> list[str]:
        return [each.host for each in self.facility.catalog.view(SERVICE).workers()]

    def is_over(self) -> bool:
        return bool(self.runs()) and all(run.state.is_over for run in self.runs())


@pytest.fixture
def site(net: Net, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    name = f"t{abs(hash(request.node.name)) % 10**6}"
    sh("createdb", "-h", net.folder, "-U", "lightkeep", f"catalog_{name}")
    settings = replace(
        config(tmp_path / "facility"),
        catalog_url=net.url(f"catalog_{name}"),
        workflow_url=net.url(f"queue_{name}"),
        worker=WorkerConfig(lease_s=LEASE_S),
    )
    (tmp_path / "gates").mkdir()
    with create_facility(settings, admin=Person("ada", "Ada")) as facility:
        furnish(facility)
        add_user(facility)
        made = Hosts(facility, tmp_path / "gates", scan(tmp_path / "tooth.h5"), net=net)
        try:
            yield made
        finally:
            for host in HOSTS:
                net.heal(host)
            for worker in made.workers:
                worker.kill()
                worker.communicate()


def test_a_host_that_is_cut_off_loses_its_run_to_the_other_and_commits_nothing_when_it_is_back(
    site: Hosts, net: Net, tell: Callable[..., None]
) -> None:
    (site.gates / "hold-2").touch()
    first = site.start_on("a")
    site.queue_run()
    until(lambda: site.computed()[2] == 1)
    second = site.start_on("b")
    net.cut("a")
    cut_at, cut_on = time.monotonic(), datetime.now(UTC)
    until(lambda: site.computed()[2] == 2)
    (site.gates / "hold-2").unlink()  # both compute now; one of them may say so
    until(site.is_over)
    took = time.monotonic() - cut_at
    (lost,) = [
        each for each in site.facility.catalog.view(SERVICE).events(limit=1000) if each.verb == "worker.lost"
    ]
    net.heal("a")
    until(lambda: sorted(site.hosts_known()) == ["host-a", "host-b"])  # the first has begun a new life
    assert (first.poll(), second.poll()) == (None, None)
    assert_done_once(site)
    tell("cut_link_noticed", (lost.at - cut_on).total_seconds() / LEASE_S, "leases", most=2)
    tell("rescue_after_a_cut_link", took / LEASE_S, "leases", most=2)


def test_a_link_cut_in_the_middle_of_a_change_does_not_hold_up_the_others(
    site: Hosts, net: Net, tell: Callable[..., None]
) -> None:
    holding = (
        "import time\n"
        "from lightkeep.config import load\n"
        "from lightkeep.facility import open_facility\n"
        "from lightkeep.model.people import SERVICE\n"
        "with open_facility(load()) as facility, facility.catalog.change(SERVICE) as tx:\n"
        "    tx.set_fact('half', 'done')\n"
        "    print('held', flush=True)\n"
        "    time.sleep(600)\n"
    )
    held = site.run_on("a", "-c", holding)
    assert held.stdout is not None
    assert held.stdout.readline() == b"held\n", held.communicate()
    net.cut("a")
    cut_at = time.monotonic()
    with site.facility.catalog.change(SERVICE) as tx:
        tx.set_fact("others", "go on")
    took = time.monotonic() - cut_at
    assert site.facility.catalog.view(SERVICE).fact("half") is None
    tell("lock_freed_after_a_cut_link", took, "s", most=10)
    assert took < 20


def test_a_database_that_is_cut_from_all_and_comes_back_costs_nothing_but_the_time(
    site: Hosts, net: Net, tell: Callable[..., None]
) -> None:
    (site.gates / "hold-1").touch()
    for host in HOSTS:
        site.start_on(host)
    site.queue_ingest()
    until(lambda: site.computed()[1] == 1)
    for host in HOSTS:
        net.cut(host)
    (site.gates / "hold-1").unlink()
    time.sleep(LEASE_S)
    for host in HOSTS:
        net.heal(host)
    healed_at = time.monotonic()
    until(site.is_over)
    tell("over_after_the_database_is_back", (time.monotonic() - healed_at) / LEASE_S, "leases", most=2)
    assert_done_once(site)
    assert sorted(site.hosts_known()) == ["host-a", "host-b"]
    lost = [each for each in site.facility.catalog.view(SERVICE).events(limit=1000) if each.verb == "worker.lost"]
    assert lost == []
    assert site.computed() == {0: 1, 1: 1, 2: 1, 3: 1}


def test_a_postgres_that_dies_in_the_middle_of_a_run_costs_nothing_but_the_time(site: Hosts, net: Net) -> None:
    (site.gates / "hold-1").touch()
    site.start_on("a")
    site.queue_run()
    until(lambda: site.computed()[1] == 1)
    net.stop()
    try:
        (site.gates / "hold-1").unlink()
        time.sleep(LEASE_S / 2)
    finally:
        net.start()
    until(site.is_over)
    assert_done_once(site)
    assert site.computed() == {0: 1, 1: 1, 2: 1, 3: 1}


def test_what_a_worker_had_that_died_during_an_outage_is_done_within_two_leases_after_it(
    site: Hosts, net: Net, tell: Callable[..., None]
) -> None:
    (site.gates / "hold-1").touch()
    first = site.start_on("a")
    site.queue_run()
    until(lambda: site.computed()[1] == 1)
    site.start_on("b")
    net.stop()
    try:
        first.kill()
        (site.gates / "hold-1").unlink()
        time.sleep(2.5 * LEASE_S)  # long enough for who asks at growing intervals to be asleep when it is back
    finally:
        net.start()
    back_at = time.monotonic()
    until(site.is_over)
    tell("rescue_after_an_outage", (time.monotonic() - back_at) / LEASE_S, "leases", most=2)
    assert_done_once(site)


def test_runs_queued_while_links_fail_are_all_done_once(site: Hosts, net: Net) -> None:
    for host in HOSTS:
        site.start_on(host)
    site.queue_run()
    until(site.is_over)
    (first,) = site.runs()
    options = {"params": {"folder": str(site.gates)}, "principal": ADA}
    queued = [request(site.facility, first.dataset_id, "gated", **options).id for _ in range(8)]
    with open_workflow(site.facility, work=False) as work:
        for number, run_id in enumerate(queued):
            work.submit_run(run_id)
            host = HOSTS[number // 4]
            if number % 4 == 1:
                net.cut(host)
                time.sleep(0.5)
            if number % 4 == 3:
                net.heal(host)
    until(site.is_over)
    view = site.facility.catalog.view(SERVICE)
    made = Counter(each.run_id for each in view.datasets(kind=DatasetKind.DERIVED, limit=100).items)
    assert {run.id: run.state for run in site.runs()} == dict.fromkeys([first.id, *queued], RunState.DONE)
    assert made == dict.fromkeys([first.id, *queued], 1)
    assert site.facility.catalog.verify_events() == []


def test_frames_go_on_to_disk_while_the_catalogue_is_stopped_and_are_taken_in_when_it_is_back(
    site: Hosts, net: Net, tmp_path: Path
) -> None:
    frames = np.arange(400 * 6, dtype=np.uint16).reshape(400, 2, 3)
    with h5py.File(tmp_path / "old.h5", "w") as file:
        file["entry/data/data"] = frames
    options = {"file": str(tmp_path / "old.h5"), "rate": 40}
    kind = SourceKind.REPLAY
    made = acquire.define(site.facility, "r", experiment_id=EXPERIMENT, kind=kind, options=options, principal=ADA)
    acquire.start(site.facility, made.id, principal=ADA)
    running = site.run_on("a", "-m", "lightkeep", "acquire", "run", made.id)
    series = site.facility.config.root / "spool" / made.id / "old.h5"
    until(lambda: _frames(series) > 20 or running.poll() is not None)
    assert running.poll() is None, running.communicate()
    net.stop()
    try:
        before = _frames(series)
        until(lambda: _frames(series) > before + 100)
        assert running.poll() is None, running.communicate()
    finally:
        net.start()
    view = site.facility.catalog.view(SERVICE)
    until(lambda: view.acquisition(made.id).state is AcquisitionState.STOPPED)
    dataset = view.dataset_named(EXPERIMENT, "old")
    assert dataset is not None
    assert dataset.state is DatasetState.COMPLETE
    with h5py.File(local_path(site.facility, dataset.id, dataset.main_file)) as file:
        np.testing.assert_array_equal(file["entry/data/data"][:], frames)
        np.testing.assert_array_equal(file["entry/data/frame_number"][:], np.arange(400))
    assert view.acquisition(made.id).statistics.gaps == 0


def _frames(path: Path) -> int:
    """Return how many frames a file has that is being written."""
    with suppress(OSError, KeyError, RuntimeError), h5py.File(path, "r", swmr=True, locking=False) as file:
        return int(file["entry/data/data"].shape[0])
    return 0
