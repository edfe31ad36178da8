"""Further copies in the catalogue: what is new, what is known, what is refused; units, restores, what is due."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lightkeep.catalog import Catalog
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import Conflict, InvalidInput, NotFound
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.retention import ArchiveUnit, Restore, RestoreState
from lightkeep.model.stores import Proof, Replica, ReplicaState, StoreRecord

NOW = datetime(2026, 11, 2, tzinfo=UTC)


@dataclass
class Shelf:
    """A dataset of two files, and an empty store beside the one that has it."""

    catalog: Catalog
    dataset: Dataset

    def copies(self, prefix: str = "k/", state: ReplicaState = ReplicaState.VERIFIED) -> list[Replica]:
        new = self.catalog.ids.new
        return [
            Replica(new("rp"), file.id, "vault", prefix + file.path, state, NOW, Proof.DIRECT)
            for file in self.catalog.view(SERVICE).files(self.dataset.id).items
        ]

    def add(self, replicas: list[Replica], **options: Any) -> list[Replica]:
        with self.catalog.change(SERVICE) as tx:
            return tx.add_replicas(self.dataset.id, replicas, **options)

    def set(self, replicas: list[Replica], *states: ReplicaState, **options: Any) -> None:
        with self.catalog.change(SERVICE) as tx:
            for state in states:
                tx.set_replicas(replicas, state=state, **options)


@pytest.fixture
def shelf(house: Any) -> Shelf:
    dataset = house.add_dataset("a1", "copied")
    with house.catalog.change(SERVICE) as tx:
        tx.add_store(StoreRecord("vault", "posix", "/vault", "uuid-vault"))
    return Shelf(house.catalog, dataset)


def test_new_copies_are_rows_and_one_event(shelf: Shelf) -> None:
    before = shelf.catalog.head()[0]
    copies = shelf.copies()
    assert [each.id for each in shelf.add(copies)] == [each.id for each in copies]
    assert shelf.catalog.head()[0] == before + 1
    assert len(shelf.catalog.view(SERVICE).replicas(shelf.dataset.id)) == 4
    assert shelf.catalog.verify_events() == []


def test_copies_that_are_known_change_nothing(shelf: Shelf) -> None:
    shelf.add(shelf.copies())
    head = shelf.catalog.head()
    assert shelf.add(shelf.copies()) == []
    assert shelf.catalog.head() == head


@pytest.mark.parametrize(
    "states",
    [
        (ReplicaState.SUSPECT, ReplicaState.CORRUPT),
        (ReplicaState.DELETE_PENDING,),
        (ReplicaState.DELETE_PENDING, ReplicaState.DELETED),
    ],
)
def test_the_key_of_a_bad_or_vanishing_copy_is_not_given_again(
    shelf: Shelf, states: tuple[ReplicaState, ...]
) -> None:
    copies = shelf.add(shelf.copies())
    shelf.set(copies, *states)
    with pytest.raises(Conflict, match=states[-1]):
        shelf.add(shelf.copies())
    assert len(shelf.add(shelf.copies("other/"))) == 2


def test_the_key_of_a_copy_that_was_deleted_before_is_free(shelf: Shelf) -> None:
    copies = shelf.add(shelf.copies())
    shelf.set(copies, ReplicaState.DELETE_PENDING, ReplicaState.DELETED)
    assert len(shelf.add(shelf.copies(), gone=[each.id for each in copies])) == 2


def test_a_dataset_that_is_receiving_and_files_of_another_are_refused(shelf: Shelf, house: Any) -> None:
    receiving = house.begin_dataset("a1", "receiving")
    with house.catalog.change(SERVICE) as tx:
        files = tx.add_files(receiving.id, house.files(receiving.id, {"x": b"x"}))
    copy = Replica("rp_x", files[0].id, "vault", "x", ReplicaState.VERIFIED, NOW)
    with pytest.raises(Conflict, match="receiving"), house.catalog.change(SERVICE) as tx:
        tx.add_replicas(receiving.id, [copy])
    with pytest.raises(InvalidInput):
        shelf.add([copy])
    with pytest.raises(NotFound):
        shelf.add([replace(each, store_id="nowhere") for each in shelf.copies()])


def test_only_replicas_in_the_states_named_are_moved_on(shelf: Shelf) -> None:
    first, second = shelf.add(shelf.copies())
    shelf.set([first], ReplicaState.DELETE_PENDING)
    good = [ReplicaState.VERIFIED, ReplicaState.PRESENT]
    shelf.set([first, second], ReplicaState.VERIFIED, verified_at=NOW + timedelta(days=1), only=good)
    found = {each.id: each for each in shelf.catalog.view(SERVICE).replicas(shelf.dataset.id)}
    assert found[first.id].state is ReplicaState.DELETE_PENDING
    assert found[second.id].verified_at == NOW + timedelta(days=1)
    head = shelf.catalog.head()
    shelf.set([first], ReplicaState.SUSPECT, only=good)
    assert shelf.catalog.head() == head


def test_what_is_due_comes_oldest_first_and_page_by_page(shelf: Shelf) -> None:
    young, old = shelf.add(shelf.copies())
    shelf.set([young], ReplicaState.VERIFIED, verified_at=NOW + timedelta(days=2))
    view = shelf.catalog.view(SERVICE)
    verified = ReplicaState.VERIFIED
    due = view.due("vault", verified, before=NOW + timedelta(days=9))
    assert [each.replica.id for each in due] == [old.id, young.id]
    assert [each.replica.id for each in view.due("vault", verified, before=NOW + timedelta(days=1))] == [old.id]
    assert [e.replica.id for e in view.due("vault", verified, before=None, limit=1, offset=1)] == [young.id]
    assert due[0].file.sha256
    assert due[0].experiment_id == "a1"


def test_freshness_counts_what_is_overdue_and_what_is_corrupt(shelf: Shelf) -> None:
    first, second = shelf.add(shelf.copies())
    view = shelf.catalog.view(SERVICE)
    fresh = view.freshness("vault", before=NOW)
    assert (fresh.replicas, fresh.overdue, fresh.corrupt, fresh.oldest_at) == (2, 0, 0, NOW)
    assert view.freshness("vault", before=NOW + timedelta(days=1)).overdue_fraction == 1.0
    shelf.set([first], ReplicaState.SUSPECT)
    shelf.set([second], ReplicaState.SUSPECT, ReplicaState.CORRUPT)
    fresh = view.freshness("vault", before=NOW)
    assert (fresh.replicas, fresh.overdue, fresh.corrupt, fresh.oldest_at) == (1, 1, 1, None)


def test_a_corrupt_copy_waits_for_repair_until_the_store_has_a_good_one(shelf: Shelf) -> None:
    copies = shelf.add(shelf.copies())
    shelf.set(copies[:1], ReplicaState.SUSPECT, ReplicaState.CORRUPT)
    view = shelf.catalog.view(SERVICE)
    assert [each.replica.id for each in view.corrupt("vault")] == [copies[0].id]
    shelf.add(shelf.copies("again/")[:1])
    assert view.corrupt("vault") == []


def test_a_unit_is_registered_once_and_seen_by_those_of_the_experiment(shelf: Shelf, house: Any) -> None:
    unit = ArchiveUnit("u_1", "vault", "units/u_1.tar", "a1", 100, "ab" * 32, 2, 80)
    with shelf.catalog.change(SERVICE) as tx:
        assert tx.add_unit(unit)
        assert not tx.add_unit(replace(unit, id="u_2"))
    assert house.view("member").unit("u_1").sha256 == "ab" * 32
    assert house.view("member").unit_at("vault", "units/u_1.tar").members == 2
    assert house.view("nobody").units().total == 0
    with pytest.raises(NotFound):
        house.view("nobody").unit("u_1")


def test_a_restore_goes_through_its_states_and_keeps_odd_paths(shelf: Shelf, house: Any) -> None:
    odd = ("a b", "n\udcffme", "line\nbreak")
    with shelf.catalog.change(Principal("member")) as tx:
        tx.add_restore(Restore("restore_1", shelf.dataset.id, "central", NOW, paths=odd))
    kept = house.view("member").restore("restore_1")
    assert (kept.paths, kept.state, kept.created_by) == (odd, RestoreState.QUEUED, "member")
    with shelf.catalog.change(SERVICE) as tx:
        tx.update_restore("restore_1", cache_until=NOW + timedelta(days=1))
        tx.update_restore("restore_1", cache_until=NOW - timedelta(days=1))
        tx.update_restore("restore_1", state=RestoreState.RUNNING)
        tx.update_restore("restore_1", state=RestoreState.DONE, files_done=2)
    kept = house.view("member").restores(states=[RestoreState.DONE]).items[0]
    assert (kept.files_done, kept.cache_until) == (2, NOW + timedelta(days=1))
    assert kept.ended_at is not None
    with pytest.raises(Conflict), shelf.catalog.change(SERVICE) as tx:
        tx.update_restore("restore_1", state=RestoreState.RUNNING)
    assert house.view("nobody").restores().total == 0
