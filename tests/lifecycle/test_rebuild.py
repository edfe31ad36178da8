"""A lost catalogue comes back from the stores: every dataset, file and event; nothing counts before it is read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from lightkeep.catalog import schema
from lightkeep.config import Config
from lightkeep.facility import Facility, create_facility, open_facility
from lightkeep.lifecycle.health import guards
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people import set_up
from lightkeep.lifecycle.replicas import records
from lightkeep.lifecycle.replicas.archive import archive
from lightkeep.lifecycle.replicas.rebuild import rebuild
from lightkeep.lifecycle.replicas.verify import verify
from lightkeep.model.errors import Conflict, InvalidInput, NotFound
from lightkeep.model.people import SERVICE, Person
from lightkeep.model.stores import ReplicaState, Tier
from lightkeep.testing.populated import EXPERIMENT, Populated, populate

TABLES = (
    "station",
    "store",
    "experiment",
    "access_grant",
    "dataset",
    "dataset_parent",
    "dataset_field",
    "file",
    "run",
)


def rows(facility: Facility, table: str) -> list[dict[str, object]]:
    with facility.catalog._read() as connection:
        found = connection.execute(select(schema.tables.tables[table])).mappings()
        # facets are numbers that depend on the order of completion: `View.facets` compares them
        kept = ({name: value for name, value in row.items() if name != "facets"} for row in found)
        return sorted(kept, key=repr)


@pytest.fixture
def lost(tmp_path: Path) -> Iterator[tuple[Populated, Facility]]:
    """A facility with data, and a new one on its ruins: the same stores, an empty catalogue."""
    old = populate(tmp_path / "old")
    records.anchor(old.facility)
    odd = tmp_path / "odd\udcff"
    odd.mkdir()
    (odd / "a\nb").write_bytes(b"one")
    (odd / "empty").touch()
    (odd / "link").symlink_to("empty")
    ingest(
        old.facility, odd, experiment_id=EXPERIMENT, principal=SERVICE, name="odd", quiet_s=0.0
    )  # after the anchor
    config = Config(tmp_path / "new")
    config.root.mkdir()
    (config.root / "catalog.db").touch()
    new = open_facility(config)
    yield old, new
    new.close()
    old.close()


def central(facility: Facility) -> Path:
    return Path(facility.stores["central"].record.location)


def test_everything_comes_back(lost: tuple[Populated, Facility]) -> None:
    old, new = lost
    found = rebuild(new, [central(old.facility)])
    assert (found.missing, found.damaged, found.unread) == (0, (), {})
    assert found.rebuilt.problems == ()
    assert found.rebuilt.lost_events == 0
    for table in TABLES:
        assert rows(new, table) == rows(old.facility, table), table
    for dataset in old.facility.catalog.view(SERVICE).datasets().items:
        assert verify(new, dataset.id, principal=SERVICE).corrupt == ()
    assert new.catalog.view(SERVICE).facets() == old.facility.catalog.view(SERVICE).facets()
    assert len(new.catalog.view(SERVICE).datasets(limit=10).items) == 3


def test_what_came_back_is_believed_only_after_it_was_read(lost: tuple[Populated, Facility]) -> None:
    old, new = lost
    rebuild(new, [central(old.facility)])
    states = {each.state for each in new.catalog.view(SERVICE).replicas(old.raw.id)}
    assert states == {ReplicaState.PRESENT}
    assert new.catalog.view(SERVICE).replicas(old.raw.id)[0].verified_at is None
    verify(new, old.raw.id, principal=SERVICE)
    assert {each.state for each in new.catalog.view(SERVICE).replicas(old.raw.id)} == {ReplicaState.VERIFIED}


def test_no_purge_runs_on_the_word_of_a_rebuilt_catalogue(lost: tuple[Populated, Facility]) -> None:
    old, new = lost
    assert "catalogue" not in " ".join(guards.status(old.facility).reasons)
    rebuild(new, [central(old.facility)])
    assert "catalogue" in " ".join(guards.status(new).reasons)


def test_secrets_are_in_no_record(lost: tuple[Populated, Facility]) -> None:
    old, new = lost
    rebuild(new, [central(old.facility)])
    assert {row["password_hash"] for row in rows(new, "person")} == {""}
    assert rows(new, "token") == []
    assert {row["id"] for row in rows(new, "person")} == {row["id"] for row in rows(old.facility, "person")}


def test_an_object_that_is_gone_comes_back_as_corrupt(lost: tuple[Populated, Facility]) -> None:
    old, new = lost
    replica = old.facility.catalog.view(SERVICE).replicas(old.raw.id)[0]
    (central(old.facility) / replica.key).unlink()
    assert rebuild(new, [central(old.facility)]).missing == 1
    assert [each.state for each in new.catalog.view(SERVICE).replicas(old.raw.id)] == [ReplicaState.CORRUPT]


def test_a_catalogue_that_holds_something_is_not_rebuilt(lost: tuple[Populated, Facility]) -> None:
    old, new = lost
    rebuild(new, [central(old.facility)])
    with pytest.raises(Conflict, match="not empty"):
        rebuild(new, [central(old.facility)])


def test_a_folder_that_is_no_store_is_refused(lost: tuple[Populated, Facility], tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no marker"):
        rebuild(lost[1], [tmp_path])


def test_a_store_without_records_is_refused(lost: tuple[Populated, Facility], tmp_path: Path) -> None:
    other = create_facility(Config(tmp_path / "other"), admin=Person("ada", "Ada"))
    with pytest.raises(NotFound, match="holds a record"):
        rebuild(lost[1], [central(other)])
    other.close()


def test_a_damaged_anchor_loses_nothing_that_another_store_has(
    lost: tuple[Populated, Facility], tmp_path: Path
) -> None:
    old, new = lost
    (tmp_path / "second").mkdir()
    set_up.add_store(old.facility, "second", tmp_path / "second", principal=SERVICE)
    assert records.anchor(old.facility) == {}
    for name in ("state.jsonl.gz", "events/000000000001.jsonl.gz"):
        path = next(central(old.facility).rglob(name))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = rebuild(new, [central(old.facility), tmp_path / "second"])
    assert found.rebuilt.problems == ()
    assert rows(new, "file") == rows(old.facility, "file")


def test_the_anchor_is_quiet_when_nothing_happened(lost: tuple[Populated, Facility]) -> None:
    old, _ = lost
    assert records.anchor(old.facility) == {}
    head = old.facility.catalog.head()
    store = old.facility.stores["central"]
    names = list(store.records())
    assert records.anchor(old.facility) == {}
    assert (old.facility.catalog.head(), list(store.records())) == (head, names)
    anchor = records.read_anchor(store)
    assert anchor is not None
    assert (anchor["seq"], anchor["hash"]) == head


def test_a_store_that_is_away_is_caught_up_later(lost: tuple[Populated, Facility], tmp_path: Path) -> None:
    old, _ = lost
    (tmp_path / "second").mkdir()
    set_up.add_store(old.facility, "second", tmp_path / "second", principal=SERVICE)
    shutil.move(tmp_path / "second", tmp_path / "away")
    assert list(records.anchor(old.facility)) == ["second"]
    shutil.move(tmp_path / "away", tmp_path / "second")
    assert records.anchor(old.facility) == {}
    anchor = records.read_anchor(old.facility.stores["second"])
    assert anchor is not None
    assert anchor["seq"] == old.facility.catalog.head()[0]


def test_archive_units_come_back_with_what_is_in_them(lost: tuple[Populated, Facility], tmp_path: Path) -> None:
    old, new = lost
    (tmp_path / "vault").mkdir()
    set_up.add_store(old.facility, "vault", tmp_path / "vault", principal=SERVICE, tier=Tier.TAPE)
    archive(old.facility, principal=SERVICE, store_id="vault", experiment_id=EXPERIMENT)
    found = rebuild(new, [tmp_path / "vault"])
    assert found.rebuilt.problems == ()
    for table in ("archive_unit", "file"):
        assert rows(new, table) == rows(old.facility, table), table
    for dataset in new.catalog.view(SERVICE).datasets().items:
        assert "vault" in {each.store_id for each in new.catalog.view(SERVICE).replicas(dataset.id)}
        assert verify(new, dataset.id, principal=SERVICE).corrupt == ()
