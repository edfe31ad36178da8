"""Faults that no single room owns: the catalogue's server, twice at once, many files, limits, a lost facility."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from lightkeep.catalog import Catalog
from lightkeep.config import Config
from lightkeep.facility import Facility, create_facility, empty_facility
from lightkeep.lifecycle.health.doctor import examine
from lightkeep.lifecycle.health.findings import Severity
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people import set_up
from lightkeep.lifecycle.replicas import records
from lightkeep.lifecycle.replicas.export import get
from lightkeep.lifecycle.replicas.rebuild import rebuild
from lightkeep.lifecycle.replicas.replicate import replicate
from lightkeep.lifecycle.replicas.verify import verify
from lightkeep.model.clock import SystemClock, SystemIds
from lightkeep.model.errors import Conflict, LightkeepError
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Person

pytestmark = pytest.mark.fault
MANY = int(os.environ.get("LIGHTKEEP_MANY_FILES", "5000"))
"""Files of the test of flat memory; the safety suite takes 100 000."""
Tell = Callable[..., None]


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    with create_facility(Config(tmp_path / "facility"), admin=Person("ada", "Ada")) as made:
        furnish(made)
        yield made


def furnish(facility: Facility) -> None:
    with facility.catalog.change(SERVICE) as tx:
        tx.add_station(Station("2-BM"))
        tx.add_experiment(Experiment("e1", "2-BM"))


def measured(folder: Path, *, files: int = 12, size: int = 1000) -> Path:
    folder.mkdir(parents=True)
    for number in range(files):
        (folder / f"frame{number:06d}.tif").write_bytes(number.to_bytes(8, "big") * (size // 8))
    return folder


def take_in(facility: Facility, source: Path) -> str:
    return ingest(facility, source, experiment_id="e1", principal=SERVICE, quiet_s=0.0).dataset.id


def errors(facility: Facility) -> list[str]:
    return [each.message for each in examine(facility, full=True) if each.severity is Severity.ERROR]


def test_a_catalogue_that_somebody_locks_is_said_and_nothing_is_half(
    facility: Facility, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, figure: Tell
) -> None:
    source = measured(tmp_path / "scan")
    take_in(facility, measured(tmp_path / "before"))
    facility.catalog.close()
    with closing(sqlite3.connect(facility.config.root / "catalog.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        monkeypatch.setattr("lightkeep.catalog.sqlite._WAIT_MS", 300)
        with (
            closing(Catalog.open(facility.config.catalog_url, clock=SystemClock(), ids=SystemIds())) as catalog,
            pytest.raises(Conflict, match="another process is changing the catalogue"),
        ):
            take_in(Facility(facility.config, catalog, facility.clock, facility.ids, facility.stores), source)
        other.execute("ROLLBACK")
    assert facility.catalog.view(SERVICE).dataset_named("e1", "scan") is None
    take_in(facility, source)
    assert errors(facility) == []
    figure(
        "F11", injected="SQLite locked by another process for longer than we wait", found="said; 0 half, 0 lost"
    )


class CommitCutter:
    """Stands before PostgreSQL's socket; cuts the connection at the n-th COMMIT, before or after it arrives."""

    def __init__(self, folder: Path, target: Path, *, after: bool, when: int) -> None:
        self.folder = folder
        self.commits = 0
        self.cut = False
        self._target = target
        self._after, self._when = after, when
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(folder / ".s.PGSQL.5432"))
        self._server.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            upstream = socket.socket(socket.AF_UNIX)
            upstream.connect(str(self._target))
            threading.Thread(target=self._forward, args=(client, upstream), daemon=True).start()
            threading.Thread(target=self._back, args=(upstream, client), daemon=True).start()

    def _forward(self, client: socket.socket, upstream: socket.socket) -> None:
        while data := _received(client):
            if b"COMMIT" in data:
                self.commits += 1
                if self.commits == self._when:
                    self.cut = True
                    if self._after:
                        client.shutdown(socket.SHUT_RDWR)
                        upstream.sendall(data)
                        time.sleep(0.3)  # the server commits; nobody hears of it
                    break
            upstream.sendall(data)
        for each in (client, upstream):
            with closing(each), suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _back(self, upstream: socket.socket, client: socket.socket) -> None:
        while data := _received(upstream):
            try:
                client.sendall(data)
            except OSError:
                return

    def close(self) -> None:
        self._server.close()


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except OSError:
        return b""


@pytest.mark.postgres
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("when", [1, 2, 3])
def test_a_connection_that_breaks_at_a_commit_neither_loses_nor_doubles(
    tmp_path: Path, after: bool, when: int, figure: Tell
) -> None:
    address = os.environ.get("LIGHTKEEP_TEST_POSTGRES", "")
    if not address:
        pytest.skip("no PostgreSQL: run it through scripts/with-postgres")
    from sqlalchemy import create_engine, make_url, text

    url = make_url(address)
    name = f"cut{os.getpid()}{time.monotonic_ns()}"
    admin = create_engine(url.set(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    own = url.set(database=name).render_as_string(hide_password=False)
    ground = tmp_path / "facility"
    with create_facility(Config(ground, catalog_url=own), admin=Person("ada", "Ada")) as direct:
        furnish(direct)
        source = measured(tmp_path / "scan")
        with tempfile.TemporaryDirectory(prefix="lk") as folder:
            cutter = CommitCutter(
                Path(folder), Path(str(url.query["host"]), ".s.PGSQL.5432"), after=after, when=when
            )
            cut = url.set(database=name).update_query_dict({"host": folder}).render_as_string(hide_password=False)
            through = Facility(
                direct.config,
                Catalog.open(cut, clock=SystemClock(), ids=SystemIds()),
                direct.clock,
                direct.ids,
                direct.stores,
            )
            cutter.commits = 0
            try:
                take_in(through, source)
            except LightkeepError:
                assert cutter.cut
            through.close()
            cutter.close()
        dataset_id = take_in(direct, source)
        view = direct.catalog.view(SERVICE)
        assert [each.name for each in view.datasets().items] == ["scan"]
        assert view.files(dataset_id).total == 12
        assert len(view.replicas(dataset_id)) == 12
        assert errors(direct) == []
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    admin.dispose()
    side = "after" if after else "before"
    figure("F11", injected=f"PostgreSQL's connection cut {side} COMMIT {when}", found="0 lost, 0 doubled")


def test_the_same_folder_ingested_by_four_at_once_is_there_once(
    facility: Facility, tmp_path: Path, figure: Tell
) -> None:
    source = measured(tmp_path / "scan", files=60)
    with ThreadPoolExecutor(4) as pool:
        ids = {each.result() for each in [pool.submit(take_in, facility, source) for _ in range(4)]}
    view = facility.catalog.view(SERVICE)
    assert [each.name for each in view.datasets().items] == ["scan"]
    assert view.files(ids.pop()).total == 60
    assert ids == set()
    assert errors(facility) == []
    figure(
        "F13",
        injected="one folder announced four times at once, and again",
        found="1 dataset, 60 files, 0 doubled",
    )


INGEST = """
import sys
from pathlib import Path
from lightkeep import config
from lightkeep.facility import open_facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.model.people import SERVICE
with open_facility(config.Config(Path(sys.argv[1]))) as facility:
    done = ingest(facility, Path(sys.argv[2]), experiment_id="e1", principal=SERVICE, quiet_s=0.0)
status = Path("/proc/self/status").read_text()
print(done.dataset.files, status.split("VmHWM:")[1].split()[0])
"""


def ingest_apart(facility: Facility, source: Path) -> tuple[int, float]:
    """Return the files taken in by a process of its own, and the most memory that it used, in MiB."""
    command = [sys.executable, "-c", INGEST, str(facility.config.root), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    files, kilobytes = done.stdout.split()
    return int(files), int(kilobytes) / 1024


def test_memory_does_not_grow_with_the_number_of_files(facility: Facility, tmp_path: Path, figure: Tell) -> None:
    few, some = ingest_apart(facility, measured(tmp_path / "few", files=1500, size=64))
    many, most = ingest_apart(facility, measured(tmp_path / "many", files=MANY, size=64))
    assert (few, many) == (1500, MANY)
    assert most - some < 60 + MANY / 1000  # a kilobyte for each name that the walk holds
    figure("F15", injected=f"{MANY} files in one folder", found=f"{most:.0f} MiB at most, {some:.0f} with 1500")


@pytest.mark.parametrize("limit", ["--nofile=40", "--as=700000000"])
def test_a_process_at_its_limits_claims_nothing_false(
    facility: Facility, tmp_path: Path, limit: str, figure: Tell
) -> None:
    source = measured(tmp_path / "scan", files=300)
    command = ["prlimit", limit, sys.executable, "-c", INGEST, str(facility.config.root), str(source)]
    code = subprocess.run(command, capture_output=True).returncode
    assert errors(facility) == []
    dataset_id = take_in(facility, source)
    assert verify(facility, dataset_id, principal=SERVICE).corrupt == ()
    assert facility.catalog.view(SERVICE).files(dataset_id).total == 300
    assert errors(facility) == []
    ended = "refused" if code else "finished"
    figure(
        "F21", injected=f"an ingest under prlimit {limit}", found=f"{ended}; no false state; the next run finishes"
    )


def test_a_store_and_the_catalogue_are_lost_together(facility: Facility, tmp_path: Path, figure: Tell) -> None:
    (tmp_path / "second").mkdir()
    set_up.add_store(facility, "second", tmp_path / "second", principal=SERVICE)
    sources = [measured(tmp_path / f"scan{number}", files=5 + number) for number in range(6)]
    for source in sources:
        replicate(facility, take_in(facility, source), store_id="second", principal=SERVICE)
    assert records.anchor(facility) == {}
    facility.close()
    shutil.rmtree(facility.config.root)
    began = time.monotonic()
    with empty_facility(Config(tmp_path / "anew")) as anew:
        found = rebuild(anew, [tmp_path / "second"])
        seconds = time.monotonic() - began
        assert found.rebuilt.problems == ()
        assert sorted(found.unread) == ["central"]
        datasets = anew.catalog.view(SERVICE).datasets().items
        assert sorted(each.name for each in datasets) == [source.name for source in sources]
        for dataset in datasets:
            got = get(anew, dataset.id, tmp_path / "got" / dataset.name, principal=SERVICE)
            assert {path.name: digest(path) for path in got} == {
                path.name: digest(path) for path in (tmp_path / dataset.name).iterdir()
            }
    figure(
        "F20",
        injected="the catalogue and one of two stores deleted",
        found=f"{len(datasets)} of {len(sources)} datasets back in {seconds:.1f} s, every byte equal",
    )


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.skipif(os.geteuid() != 0, reason="giving up root's right to read everything needs root")
def test_files_that_may_not_be_read_are_named_and_nothing_of_them_is_claimed(
    facility: Facility, tmp_path: Path, figure: Tell
) -> None:
    source = measured(tmp_path / "scan")
    (source / "frame000007.tif").chmod(0)
    mortal = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"]
    command = [*mortal, sys.executable, "-c", INGEST, str(facility.config.root), str(source)]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "frame000007.tif" in refused.stderr
    assert facility.catalog.view(SERVICE).dataset_named("e1", "scan") is None
    (source / "frame000007.tif").chmod(0o644)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.split()[:1] == ["12"], done.stderr
    assert errors(facility) == []
    figure(
        "F16", injected="one of 12 files unreadable, without root's rights", found="named; nothing claimed of it"
    )
