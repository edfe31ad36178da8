"""A second copy is proved before it counts, and a bad source never spreads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people.set_up import add_store
from lightkeep.lifecycle.replicas.replicate import replicate
from lightkeep.lifecycle.replicas.verify import verify
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import Conflict, Forbidden, InvalidInput
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.model.stores import ReplicaState
from lightkeep.testing.new_facility import new_facility

ADA = Principal("ada")
NAMES = ("a", "b", "sub/c")
SIZE = 20_000


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    with new_facility(Config(tmp_path / "facility"), admin=Person("ada", "Ada")) as made:
        with made.catalog.change(SERVICE) as tx:
            tx.add_station(Station("2-BM"))
            tx.add_experiment(Experiment("e1", "2-BM"))
        add_store(made, "second", tmp_path / "second", principal=ADA)
        yield made


@pytest.fixture
def dataset(facility: Facility, tmp_path: Path) -> Dataset:
    source = tmp_path / "scan"
    for name in NAMES:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(SIZE))
    return ingest(facility, source, experiment_id="e1", principal=ADA, quiet_s=0.0).dataset


def path_of(facility: Facility, dataset: Dataset, name: str, store_id: str) -> Path:
    """Where a file's newest replica on a store lies."""
    view = facility.catalog.view(SERVICE)
    file = view.file(dataset.id, name)
    found = [each for each in view.replicas([file.id]) if each.store_id == store_id]
    return Path(facility.stores[store_id].record.location, found[-1].key)


def states(facility: Facility, dataset: Dataset, store_id: str) -> list[str]:
    held = facility.catalog.view(SERVICE).held_of(dataset.id)
    return [f"{each.file.path} {each.replica.state}" for each in held if each.replica.store_id == store_id]


def test_every_file_gets_a_verified_copy_with_the_same_bytes(facility, dataset):
    done = replicate(facility, dataset.id, principal=ADA, store_id="second")
    assert (done.copied, done.size, done.known, done.failed, done.suspect) == (3, 3 * SIZE, 0, (), ())
    assert states(facility, dataset, "second") == [f"{name} verified" for name in NAMES]
    for name in NAMES:
        copy = path_of(facility, dataset, name, "second")
        assert copy.read_bytes() == path_of(facility, dataset, name, "central").read_bytes()
    assert verify(facility, dataset.id, principal=ADA).checked == 6
    assert facility.catalog.verify_events() == []


def test_a_second_time_copies_nothing_and_says_nothing(facility, dataset):
    replicate(facility, dataset.id, principal=ADA, store_id="second")
    head = facility.catalog.head()
    done = replicate(facility, dataset.id, principal=ADA, store_id="second")
    assert (done.copied, done.known) == (0, 3)
    assert facility.catalog.head() == head


def test_the_store_that_shares_no_failure_domain_is_chosen_and_then_none_is_left(facility, dataset):
    assert replicate(facility, dataset.id, principal=ADA).store_id == "second"
    with pytest.raises(Conflict, match="every store"):
        replicate(facility, dataset.id, principal=ADA)


def test_what_a_killed_copy_left_without_a_row_is_adopted(facility, dataset):
    replicate(facility, dataset.id, principal=ADA, store_id="second")
    keys = sorted(each.key for each in facility.stores["second"].list())
    with facility.catalog.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM replica WHERE store_id = 'second'")
    assert replicate(facility, dataset.id, principal=ADA, store_id="second").copied == 3
    assert sorted(each.key for each in facility.stores["second"].list()) == keys


@pytest.mark.parametrize("harm", ["flip", "truncate", "extend", "zeros", "swap", "gone"])
def test_a_bad_source_is_marked_and_never_copied(facility, dataset, harm):
    spoil(path_of(facility, dataset, "b", "central"), path_of(facility, dataset, "a", "central"), harm)
    done = replicate(facility, dataset.id, principal=ADA, store_id="second")
    bad = ("a", "b") if harm == "swap" else ("b",)
    assert (done.failed, tuple(sorted(done.suspect))) == (bad, bad)
    assert states(facility, dataset, "second") == [f"{name} verified" for name in NAMES if name not in bad]
    assert [each for each in states(facility, dataset, "central") if "suspect" in each] == [
        f"{name} suspect" for name in bad
    ]


def test_a_bad_source_is_passed_over_when_another_copy_is_good(facility, dataset, tmp_path):
    replicate(facility, dataset.id, principal=ADA, store_id="second")
    add_store(facility, "third", tmp_path / "third", principal=ADA)
    spoil(path_of(facility, dataset, "b", "central"), Path(), "flip")
    done = replicate(facility, dataset.id, principal=ADA, store_id="third")
    assert (done.copied, done.failed, done.suspect) == (3, (), ("b",))
    good = path_of(facility, dataset, "b", "second").read_bytes()
    assert path_of(facility, dataset, "b", "third").read_bytes() == good


def test_other_content_under_the_name_stays_and_the_copy_gets_a_version(facility, dataset):
    replicate(facility, dataset.id, principal=ADA, store_id="second")
    path_of(facility, dataset, "a", "second").write_bytes(b"not it")
    with facility.catalog.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM replica WHERE store_id = 'second'")
    assert replicate(facility, dataset.id, principal=ADA, store_id="second").copied == 3
    assert path_of(facility, dataset, "a", "second").parts[-5:-4] != ("second",)
    kept = [each.key for each in facility.stores["second"].list() if each.key.endswith("/a")]
    assert len(kept) == 2


def test_a_name_that_is_being_deleted_is_not_given_again(facility, dataset):
    replicate(facility, dataset.id, principal=ADA, store_id="second")
    view = facility.catalog.view(SERVICE)
    there = [each for each in view.replicas(dataset.id) if each.store_id == "second"]
    with facility.catalog.change(SERVICE) as tx:
        tx.set_replicas(there, state=ReplicaState.DELETE_PENDING)
    with pytest.raises(Conflict, match="delete_pending"), facility.catalog.change(SERVICE) as tx:
        tx.add_replicas(dataset.id, there)
    assert replicate(facility, dataset.id, principal=ADA, store_id="second").copied == 3
    new = [each for each in view.replicas(dataset.id) if each.state == "verified" and each.store_id == "second"]
    assert {each.key for each in new}.isdisjoint({each.key for each in there})
    with facility.catalog.change(SERVICE) as tx:
        tx.set_replicas([*there, *new], state=ReplicaState.DELETED, only=[ReplicaState.DELETE_PENDING])
    assert sorted(each.state for each in view.replicas([there[0].file_id])) == ["deleted", "verified", "verified"]


def test_a_store_registered_in_place_and_tape_take_no_copies(facility, dataset, tmp_path):
    (tmp_path / "disk").mkdir()
    add_store(facility, "disk", tmp_path / "disk", principal=ADA, is_managed=False)
    with pytest.raises(InvalidInput, match="in place"):
        replicate(facility, dataset.id, principal=ADA, store_id="disk")


def test_who_may_only_read_cannot_replicate(facility, dataset):
    with facility.catalog.change(SERVICE) as tx:
        tx.add_person(Person("bob", "Bob"))
        tx.add_grant(Grant("bob", Role.MEMBER, Scope.EXPERIMENT, "e1"))
    with pytest.raises(Forbidden):
        replicate(facility, dataset.id, principal=Principal("bob"), store_id="second")


def spoil(path: Path, other: Path, harm: str) -> None:
    """Harm a file on a store as disks, people and filesystems do."""
    content = path.read_bytes()
    if harm == "gone":
        path.unlink()
    elif harm == "swap":
        path.write_bytes(other.read_bytes())
        other.write_bytes(content)
    else:
        path.write_bytes(
            {
                "flip": content[:9999] + bytes([content[9999] ^ 1]) + content[10_000:],
                "truncate": content[:-1],
                "extend": content + b"\0",
                "zeros": bytes(len(content)),
            }[harm]
        )
