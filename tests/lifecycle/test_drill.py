"""Restore drills and sentinels: what comes back is compared, what goes missing is told."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.lifecycle.health import drill, sentinels
from lightkeep.lifecycle.health.doctor import examine
from lightkeep.lifecycle.health.findings import Severity
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people import experiments, set_up
from lightkeep.model.errors import Forbidden
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Person, Principal
from lightkeep.testing.new_facility import new_facility
from lightkeep.testing.populated import StillClock

ADMIN = Principal("ada")


@pytest.fixture
def clock() -> StillClock:
    return StillClock(datetime(2026, 11, 22, tzinfo=UTC))


@pytest.fixture
def facility(tmp_path: Path, clock: StillClock) -> Iterator[Facility]:
    with new_facility(Config(tmp_path / "facility"), admin=Person("ada", "Ada"), clock=clock) as made:
        set_up.add_station(made, Station("2-BM"), principal=ADMIN)
        experiments.create(made, Experiment("exp", "2-BM"), principal=ADMIN)
        for number in range(4):
            (tmp_path / f"scan{number}").mkdir()
            (tmp_path / f"scan{number}" / "a.txt").write_text("one" * number)
            ingest(made, tmp_path / f"scan{number}", experiment_id="exp", principal=ADMIN, quiet_s=0)
        yield made


def place(facility: Facility, name: str) -> Path:
    return next(Path(facility.stores["central"].record.location).rglob(name))


def test_a_drill_brings_everything_back(facility: Facility) -> None:
    done = drill.drill(facility, principal=ADMIN)
    assert (done.failures, done.passed) == ((), True)
    assert (done.datasets, done.files) == (3, 3)
    assert (done.rebuilt_datasets, done.expected_datasets) == (4, 4)
    assert drill.last(facility) == done
    assert list(facility.scratch.iterdir()) == []
    events = facility.catalog.view(SERVICE).events(limit=1000)
    assert [each.actor for each in events if each.verb == "drill.passed"] == ["ada"]


def test_a_drill_that_finds_other_bytes_fails_and_the_doctor_says_so(facility: Facility) -> None:
    for number in range(4):
        kept = place(facility, f"scan{number}") / "a.txt"
        kept.chmod(0o600)
        kept.write_text("two" * number or "x")
    done = drill.drill(facility, principal=ADMIN)
    assert not done.passed
    assert len(done.failures) == 3
    assert "came back as other bytes" in done.failures[0]
    assert any("restore drill of 2026-11-22 failed" in each.message for each in examine(facility))


def test_a_dataset_that_no_record_has_fails_the_drill(facility: Facility) -> None:
    place(facility, "scan1.jsonl.gz").unlink()
    done = drill.drill(facility, principal=ADMIN)
    assert done.failures == ("a rebuilt catalogue has 3 of 4 datasets",)


def test_a_drill_needs_the_role(facility: Facility) -> None:
    set_up.add_person(facility, Person("eve", "Eve"), principal=ADMIN)
    with pytest.raises(Forbidden):
        drill.drill(facility, principal=Principal("eve"))


def test_upkeep_holds_a_drill_each_month(facility: Facility, clock: StillClock) -> None:
    assert drill.tick(facility) == 0
    clock.at += timedelta(days=31)
    assert drill.tick(facility) == 1
    assert drill.tick(facility) == 0
    clock.at += timedelta(days=91)
    assert any("nothing was restored for a trial since 2026-12-23" in each.message for each in examine(facility))
    assert drill.tick(facility) == 1


def test_a_sentinel_that_goes_raises_the_alarm_once(facility: Facility) -> None:
    assert sentinels.tick(facility) == 0
    assert sentinels.tick(facility) == 0
    assert [each for each in examine(facility) if each.severity is Severity.ERROR] == []
    key = sentinels.key_of(facility.stores["central"])
    (Path(facility.stores["central"].record.location) / key).unlink()
    assert (sentinels.tick(facility), sentinels.tick(facility)) == (1, 1)
    events = [each for each in facility.catalog.view(SERVICE).events(limit=1000) if each.verb == sentinels.ALARM]
    assert len(events) == 1
    assert any("sentinel of store central is gone" in each.message for each in examine(facility))


def test_a_sentinel_that_was_changed_raises_the_alarm(facility: Facility) -> None:
    sentinels.tick(facility)
    path = Path(facility.stores["central"].record.location) / sentinels.key_of(facility.stores["central"])
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[::-1])
    assert sentinels.tick(facility) == 1


def test_a_store_that_is_away_is_no_alarm(facility: Facility) -> None:
    sentinels.tick(facility)
    location = Path(facility.stores["central"].record.location)
    location.rename(location.with_name("away"))
    assert sentinels.tick(facility) == 0


def test_what_is_in_the_trash_must_belong_to_a_plan(facility: Facility) -> None:
    store = facility.stores["central"]
    store.trash("2-BM/exp/scan1/a.txt", bin="plan_1", size=3)
    messages = [each.message for each in examine(facility)]
    assert any("1 objects in the trash belong to no plan" in each for each in messages)


def test_a_catalogue_that_is_older_than_its_stores_is_found(facility: Facility) -> None:
    store = facility.stores["central"]
    store.write_record("anchor.json", b'{"seq": 999, "hash": "00", "at": "2026-11-22T00:00:00+00:00"}')
    (found,) = [each for each in examine(facility) if "has seen event 999" in each.message]
    assert found.severity is Severity.ERROR


def test_copies_that_nobody_read_back_are_told(facility: Facility, clock: StillClock) -> None:
    clock.at += timedelta(days=31)
    assert any("4 of 4 copies were not read back" in each.message for each in examine(facility))


def test_a_store_above_its_watermark_is_told(facility: Facility) -> None:
    with closing(sqlite3.connect(facility.config.root / "catalog.db", isolation_level=None)) as connection:
        connection.execute("UPDATE store SET capacity = 19")  # it holds 18 bytes
    messages = [each.message for each in examine(facility)]
    assert "store central is 95% full, its high watermark is 90%" in messages
