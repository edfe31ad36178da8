"""Opening, migrating, and what the world outside can do to a catalogue."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from lightkeep.catalog import Catalog, migrate, schema
from lightkeep.catalog.postgres import Patient
from lightkeep.model.clock import SystemClock, SystemIds
from lightkeep.model.datasets import DatasetKind
from lightkeep.model.errors import (
    CatalogUnavailable,
    ConfigError,
    Conflict,
    Corrupt,
    NotFound,
    StoreFull,
    StoreUnavailable,
)
from lightkeep.model.experiments import Station
from lightkeep.model.people import SERVICE, Verb


def test_the_migrations_make_what_the_code_expects(catalog: Any) -> None:
    def differs(context: Any, _i: Any, _m: Any, found: Any, expected: Any) -> bool:
        names = (str(type_.compile(context.dialect)) for type_ in (found, expected))
        return len({name.replace("VARCHAR", "TEXT") for name in names}) > 1  # the same to PostgreSQL

    options = {
        "include_object": lambda _o, name, *_: "dataset_words" not in (name or ""),
        "compare_type": differs,
    }
    with catalog.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, schema.tables) == []


def test_the_newest_migration_is_the_one_the_code_names() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate.FOLDER))
    assert ScriptDirectory.from_config(config).get_current_head() == schema.VERSION


@pytest.mark.parametrize(("version", "remedy"), [("0000", "upgrade"), ("9999", "newer Lightkeep")])
def test_tables_of_another_version_are_refused(
    catalog: Any, url: str, open_catalog: Callable[[str], Any], version: str, remedy: str
) -> None:
    with catalog.writer.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :v"), {"v": version})
    with pytest.raises(ConfigError, match=version) as caught:
        open_catalog(url)
    assert remedy in caught.value.remedy


def test_a_database_of_another_program_is_left_alone(tmp_path: Path, open_catalog: Callable[[str], Any]) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    with pytest.raises(ConfigError, match="another program"):
        open_catalog(f"sqlite:///{path}")


@pytest.mark.parametrize(
    "url",
    ["sqlite://", "sqlite:///:memory:", "sqlite:////no/such/folder/catalog.db", "mysql://x/y", "nonsense", ""],
)
def test_an_address_that_cannot_be_used_says_why(open_catalog: Callable[[str], Any], url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        open_catalog(url)
    assert caught.value.remedy


def test_a_server_that_does_not_answer_is_unavailable(tmp_path: Path, open_catalog: Callable[[str], Any]) -> None:
    with pytest.raises(StoreUnavailable, match="server"):
        open_catalog(f"postgresql+psycopg://x@/x?host={tmp_path}")


def test_a_file_that_is_no_database_is_named_as_damaged(
    tmp_path: Path, open_catalog: Callable[[str], Any]
) -> None:
    path = tmp_path / "catalog.db"
    path.write_bytes(b"no database at all, but long enough to look at" * 100)
    with pytest.raises(Corrupt):
        open_catalog(f"sqlite:///{path}")


def test_a_full_disk_leaves_nothing_and_says_so(house: Any, backend: str) -> None:
    if backend == "postgres":
        return  # the server's own disk is not ours to fill
    head = house.catalog.head()
    with house.catalog.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    dataset = house.begin_dataset()

    def fill() -> None:
        with house.catalog.change(SERVICE) as tx:
            tx._connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
            for part in range(100):
                tx.add_files(dataset.id, house.files(dataset.id, {f"{part}/{i}": b"x" for i in range(200)}))

    with pytest.raises(StoreFull):
        fill()
    assert house.catalog.head()[0] == head[0] + 1
    assert house.view("pi").files(dataset.id).total == 0


def test_a_writer_that_waits_too_long_is_told_to_try_again(house: Any, backend: str) -> None:
    impatient = "PRAGMA busy_timeout = 50" if backend == "sqlite" else "SET lock_timeout = 50"
    with house.catalog.change(SERVICE) as tx:
        tx.add_station(Station("C"))
        with house.catalog.engine.connect() as connection:
            connection.exec_driver_sql(impatient)
            connection.commit()
        with pytest.raises(Conflict) as caught, house.catalog.change(SERVICE):
            pass
    assert "try again" in caught.value.remedy


def test_readers_see_one_state_while_a_change_is_under_way(house: Any) -> None:
    with house.catalog.change(SERVICE) as tx:
        tx.add_station(Station("C"))
        with pytest.raises(NotFound):
            house.view("admin").station("C")
    assert house.view("admin").station("C").id == "C"


def test_threads_write_at_the_same_time_and_the_trail_has_no_gap(house: Any) -> None:
    failures: list[BaseException] = []

    def write(name: str) -> None:
        try:
            for i in range(8):
                house.add_dataset("a1", f"{name}-{i}")
                house.view("pi").datasets()
        except BaseException as error:  # noqa: BLE001 (reported below, in the main thread)
            failures.append(error)

    threads = [threading.Thread(target=write, args=(name,)) for name in ("x", "y", "z")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert house.view("pi").experiment("a1").datasets == 26
    assert house.catalog.verify_events() == []


WRITER = """
import sys
from lightkeep.catalog import Catalog
from lightkeep.model.clock import SystemClock, SystemIds
from lightkeep.model.people import SERVICE, Verb
catalog = Catalog.open(sys.argv[1], clock=SystemClock(), ids=SystemIds())
for i in range(30):
    with catalog.change(SERVICE) as tx:
        tx.record("test.wrote", sys.argv[2], detail={"i": i})
catalog.close()
"""


def test_processes_that_create_and_write_at_once_keep_one_unbroken_trail(
    backend: str, templates: Any, tmp_path: Path, open_catalog: Callable[[str], Any]
) -> None:
    url = templates.new()
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, url, name]) for name in ("x", "y", "z")]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0, 0]
    catalog = open_catalog(url)
    assert catalog.head()[0] == 90
    assert catalog.verify_events() == []
    wrote = [(e.subject, e.detail["i"]) for e in catalog.view(SERVICE).events(limit=100)]
    assert sorted(wrote) == [(name, i) for name in ("x", "y", "z") for i in range(30)]


def test_a_forked_child_reads_with_a_connection_of_its_own(house: Any) -> None:
    view = house.view("pi")
    assert view.datasets().total == 4
    child = os.fork()
    if child == 0:
        os._exit(0 if view.datasets().total == 4 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert view.datasets().total == 4


@pytest.mark.parametrize("many", [1, 40])
def test_the_number_of_statements_does_not_grow_with_the_rows(
    house: Any, many: int, count_statements: Callable[[Any, Callable[[], Any]], int]
) -> None:
    parent = house.view("pi").datasets().items[0]
    for i in range(many):
        house.add_dataset("a1", f"many {i}", kind=DatasetKind.DERIVED, parents=(parent.id,))
    view = house.view("pi")
    calls: dict[str, tuple[Callable[[], Any], int]] = {
        "datasets": (view.datasets, 3),
        "facets": (view.facets, 2),
        "children": (lambda: view.children(parent.id), 4),
        "experiments": (view.experiments, 2),
        "files": (lambda: view.files(parent.id), 3),
        "replicas": (lambda: view.replicas(parent.id), 1),
        "events": (view.events, 1),
        "can": (lambda: view.can(Verb.READ, dataset_id=parent.id), 1),
    }
    assert {name: count_statements(house.catalog, call) for name, (call, _) in calls.items()} == {
        name: expected for name, (_, expected) in calls.items()
    }


def test_opening_what_exists_does_not_load_the_migrations() -> None:
    code = "import sys, lightkeep.catalog; sys.exit('alembic' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_catalogue_opens_with_the_machines_clock_and_ids(tmp_path: Path) -> None:
    catalog = Catalog.open(f"sqlite:///{tmp_path}/catalog.db", clock=SystemClock(), ids=SystemIds())
    with catalog.change(SERVICE) as tx:
        tx.add_station(Station("A"))
    with catalog.engine.connect() as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}
    catalog.close()


@pytest.mark.fault
@pytest.mark.postgres
def test_a_server_that_stops_in_the_middle_of_a_change_is_an_error_and_the_next_question_gets_its_answer(
    postgres_templates: Any, open_catalog: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch, figure: Any
) -> None:
    catalog = open_catalog(postgres_templates.copy(postgres_templates.empty))
    monkeypatch.setattr(Patient, "patience_s", 1.0)
    began, server = time.monotonic(), 0

    def stop_and_change() -> None:
        nonlocal server
        with catalog.change(SERVICE) as tx:
            server = catalog.dialect.run(tx._connection, "SELECT pg_backend_pid()")[0][0]
            os.kill(server, signal.SIGSTOP)
            tx.set_fact("lost", "half a change")

    try:
        with pytest.raises(CatalogUnavailable, match="no answer within 1 s") as caught:
            stop_and_change()
        assert time.monotonic() - began < 20
        assert "check that it runs" in caught.value.remedy
        assert catalog.view(SERVICE).fact("lost") is None
    finally:
        os.kill(server, signal.SIGCONT)
    with catalog.change(SERVICE) as tx:
        tx.set_fact("it", "goes on")
    assert (catalog.view(SERVICE).fact("it"), catalog.view(SERVICE).fact("lost")) == ("goes on", None)
    figure("F12", injected="SIGSTOP of PostgreSQL within a change", found="given up at the deadline; 0 lost")


@pytest.mark.postgres
def test_a_stopped_server_is_noticed_before_a_pooled_connection_is_used(
    postgres_templates: Any, open_catalog: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = open_catalog(postgres_templates.copy(postgres_templates.empty))
    monkeypatch.setattr(Patient, "patience_s", 1.0)
    with catalog.engine.connect() as connection:
        server = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
    try:
        os.kill(server, signal.SIGSTOP)
        with catalog.change(SERVICE) as tx:
            tx.set_fact("it", "goes on")
    finally:
        os.kill(server, signal.SIGCONT)
    assert catalog.view(SERVICE).fact("it") == "goes on"
