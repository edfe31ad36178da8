"""The doctor finds what is wrong and touches nothing."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from lightkeep.config import Config
from lightkeep.facility import Facility, open_facility
from lightkeep.lifecycle.health.doctor import examine
from lightkeep.lifecycle.health.findings import Severity
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people import experiments, set_up
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import Person, Principal
from lightkeep.testing.new_facility import new_facility

ADMIN = Principal("ada")


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    with new_facility(Config(tmp_path / "facility"), admin=Person("ada", "Ada")) as made:
        set_up.add_station(made, Station("2-BM"), principal=ADMIN)
        experiments.create(made, Experiment("exp", "2-BM"), principal=ADMIN)
        (tmp_path / "scan").mkdir()
        (tmp_path / "scan" / "a.txt").write_text("one")
        (tmp_path / "scan" / "b.txt").write_text("two")
        ingest(made, tmp_path / "scan", experiment_id="exp", principal=ADMIN, quiet_s=0)
        yield made


def kept(facility: Facility) -> Path:
    """Return one file as it lies on the store."""
    return next(Path(facility.stores["central"].record.location).rglob("a.txt"))


def edit(facility: Facility, statement: str) -> None:
    """Change the database behind the catalogue's back."""
    with closing(sqlite3.connect(facility.config.root / "catalog.db", isolation_level=None)) as connection:
        connection.execute(statement)


def test_a_healthy_facility_has_no_finding(facility: Facility) -> None:
    assert examine(facility, full=True) == []


def test_a_missing_file_is_an_error_that_names_it(facility: Facility) -> None:
    kept(facility).unlink()
    (found,) = examine(facility)
    assert found.severity is Severity.ERROR
    assert "scan/a.txt on store central: is missing" in found.message
    assert found.remedy


def test_a_shorter_file_is_found_without_reading_it(facility: Facility) -> None:
    kept(facility).chmod(0o600)
    kept(facility).write_text("on")
    (found,) = examine(facility)
    assert "has 2 bytes instead of 3" in found.message


def test_a_flipped_byte_is_found_by_reading_all(facility: Facility) -> None:
    kept(facility).chmod(0o600)
    kept(facility).write_text("onf")
    assert examine(facility) == []
    (found,) = examine(facility, full=True)
    assert "differs from its checksum" in found.message


def test_an_unmounted_store_is_one_error_and_no_lost_file(facility: Facility) -> None:
    location = Path(facility.stores["central"].record.location)
    location.rename(location.with_name("unmounted"))
    location.mkdir()
    (found,) = examine(facility)
    assert (found.severity, found.subject) == (Severity.ERROR, "central")


def test_an_object_that_no_dataset_names_is_a_warning(facility: Facility) -> None:
    kept(facility).with_name("stray.txt").write_text("x")
    (found,) = examine(facility)
    assert found.severity is Severity.WARNING
    assert "stray.txt" in found.message


def test_what_a_dead_run_left_is_a_warning(facility: Facility) -> None:
    (facility.scratch / "runs" / "run_gone").mkdir(parents=True)
    (found,) = examine(facility)
    assert (found.severity, found.subject) == (Severity.WARNING, "run_gone")


def test_a_counter_that_is_wrong_is_an_error(facility: Facility) -> None:
    edit(facility, "UPDATE experiment SET size = size + 1")
    (found,) = examine(facility)
    assert (found.severity, found.subject) == (Severity.ERROR, "exp")
    assert "counts 7 for size, there are 6" in found.message


def test_a_changed_event_is_an_error(facility: Facility) -> None:
    edit(facility, "DROP TRIGGER IF EXISTS event_is_final")
    for name in triggers(facility):
        edit(facility, f"DROP TRIGGER {name}")
    edit(facility, "UPDATE event SET actor = 'eve' WHERE seq = 2")
    found = examine(facility)
    assert found
    assert all("audit trail" in each.message for each in found)


def triggers(facility: Facility) -> list[str]:
    """Return the triggers that keep events from being changed."""
    with closing(sqlite3.connect(facility.config.root / "catalog.db")) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")]


def test_a_damaged_workflow_database_is_an_error(facility: Facility) -> None:
    (facility.config.root / "workflow.db").write_bytes(b"not a database" * 1000)
    (found,) = examine(facility)
    assert "the workflow database is damaged" in found.message


def test_a_catalogue_that_everybody_may_read_is_a_warning(facility: Facility) -> None:
    (facility.config.root / "catalog.db").chmod(0o644)
    (found,) = examine(facility)
    assert found.severity is Severity.WARNING
    assert "chmod" in found.remedy


def test_an_ingest_that_never_ended_is_a_warning(facility: Facility) -> None:
    edit(facility, "UPDATE dataset SET state = 'receiving', created_at = 0")
    edit(facility, "UPDATE experiment SET datasets = 0, files = 0, size = 0")
    (found,) = examine(facility)
    assert found.severity is Severity.WARNING
    assert "was never completed" in found.message


def test_looking_changes_nothing(facility: Facility) -> None:
    kept(facility).unlink()
    before = (facility.config.root / "catalog.db").read_bytes()
    examine(facility, full=True)
    with open_facility(facility.config) as again:
        assert examine(again)
    assert (facility.config.root / "catalog.db").read_bytes() == before
