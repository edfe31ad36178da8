"""Archive units: one read, nothing or all of a unit, members as good as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightkeep.lifecycle.replicas.archive import archive
from lightkeep.lifecycle.replicas.export import get
from lightkeep.lifecycle.replicas.replicate import replicate
from lightkeep.lifecycle.replicas.scrub import scrub
from lightkeep.lifecycle.replicas.verify import verify
from lightkeep.model.errors import Forbidden
from lightkeep.model.people import SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.model.stores import ReplicaState, split_member
from lightkeep.storage.units import read_index
from lightkeep.testing.harm import FLIPS, HARMS, harm, newest_place

ADA = Principal("ada")


def on_second(house, dataset):
    held = house.catalog.view(SERVICE).held_of(dataset.id)
    return [each for each in held if each.replica.store_id == "second"]


def states(house, dataset):
    return [f"{each.file.path} {each.replica.state}" for each in on_second(house, dataset)]


def test_every_file_of_an_experiment_becomes_a_verified_member(house, measure):
    first, later = measure("first"), measure("later", ("x",))
    done = archive(house, principal=ADA, store_id="second", experiment_id="e1")
    assert (done.files, done.size, len(done.units), done.failed) == (4, 80_000, 1, {})
    assert states(house, first) == ["a verified", "b verified", "sub/c verified"]
    store = house.stores["second"]
    for each in [*on_second(house, first), *on_second(house, later)]:
        assert split_member(each.replica.key)[0] == done.units[0].key
        assert store.verify(each.replica.key).sha256 == each.file.sha256
    (unit,) = house.catalog.view(ADA).units(experiment_id="e1").items
    assert (unit.members, unit.content_size, unit.sha256) == (4, 80_000, store.verify(unit.key).sha256)
    assert house.catalog.verify_events() == []


def test_again_makes_nothing_and_a_later_dataset_gets_a_unit_of_its_own(house, measure):
    measure("first")
    archive(house, principal=ADA, store_id="second", experiment_id="e1")
    head = house.catalog.head()
    again = archive(house, principal=ADA, store_id="second", experiment_id="e1")
    assert (again.units, again.files, again.known) == ([], 0, 3)
    assert house.catalog.head() == head
    measure("later", ("x",))
    assert archive(house, principal=ADA, store_id="second", experiment_id="e1").files == 1


def test_units_have_a_target_and_a_big_file_is_alone(house, measure):
    measure("big", ("x",), size=300_000)
    for n in range(4):
        measure(f"small{n}", ("a", "b"))
    done = archive(house, principal=ADA, store_id="second", experiment_id="e1", target=60_000, cap=100_000)
    assert sorted(unit.content_size for unit in done.units) == [80_000, 80_000, 300_000]


def test_a_whole_unit_that_no_row_names_is_taken_over_without_being_written(house, measure):
    dataset = measure()
    made = archive(house, principal=ADA, store_id="second", experiment_id="e1").units[0]
    with house.catalog.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM archive_unit")
        connection.exec_driver_sql("DELETE FROM replica WHERE store_id = 'second'")
    measure("later", ("x",))
    inode = Path(house.stores["second"].record.location, made.key).stat().st_ino
    done = archive(house, principal=ADA, store_id="second", experiment_id="e1")
    assert [unit.members for unit in done.units] == [3, 1]
    assert Path(house.stores["second"].record.location, made.key).stat().st_ino == inode
    assert states(house, dataset) == ["a verified", "b verified", "sub/c verified"]


def test_a_unit_without_its_row_that_was_damaged_is_not_taken_over(house, measure):
    measure()
    made = archive(house, principal=ADA, store_id="second", experiment_id="e1").units[0]
    with house.catalog.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM archive_unit")
        connection.exec_driver_sql("DELETE FROM replica WHERE store_id = 'second'")
    path = Path(house.stores["second"].record.location, made.key)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    done = archive(house, principal=ADA, store_id="second", experiment_id="e1")
    assert [unit.key for unit in done.units] != [made.key]
    assert (done.files, done.failed) == (3, {})


@pytest.mark.parametrize("how", ["middle bit", "truncated", "gone"])
def test_a_bad_source_is_marked_and_left_out_or_replaced(house, measure, how):
    dataset = measure()
    harm(newest_place(house, dataset.id, "b", "central"), how)
    done = archive(house, principal=ADA, store_id="second", experiment_id="e1")
    assert (done.files, list(done.failed), done.suspect) == (2, ["b"], ["b"])
    assert states(house, dataset) == ["a verified", "sub/c verified"]


def test_a_bad_source_with_a_good_copy_elsewhere_is_archived_from_there(house, measure, tmp_path):
    from lightkeep.lifecycle.people.set_up import add_store

    dataset = measure()
    add_store(house, "third", tmp_path / "third", principal=ADA)
    replicate(house, dataset.id, principal=ADA, store_id="third")
    harm(newest_place(house, dataset.id, "b", "central"), "zeros")
    done = archive(house, principal=ADA, store_id="second", experiment_id="e1")
    assert (done.files, done.failed, done.suspect) == (3, {}, ["b"])


@pytest.mark.fault
@pytest.mark.parametrize(
    ("fault", "rounds"),
    [("F7", FLIPS), ("F8", [how for how in HARMS if how not in (*FLIPS, "extended")])],
    ids=["F7", "F8"],
)
def test_every_harm_to_a_unit_is_found_and_repaired_into_a_new_one(house, measure, clock, figure, fault, rounds):
    dataset = measure()
    archive(house, principal=ADA, store_id="second", experiment_id="e1")
    for how in rounds:
        other = newest_place(house, dataset.id, "a", "second")
        harm(newest_place(house, dataset.id, "b", "second"), how, other=other)
        clock.forward(days=house.config.scrub.days, seconds=1)
        done = scrub(house, principal=ADA)
        assert "b" in done.corrupt
        assert done.failed == []
        live = [each for each in on_second(house, dataset) if each.replica.state == "verified"]
        assert [each.file.path for each in live] == ["a", "b", "sub/c"]
        for each in live:
            assert house.stores["second"].verify(each.replica.key).sha256 == each.file.sha256
    figure(
        fault,
        injected=f"{', '.join(rounds)} in members of archive units",
        found=f"{len(rounds)} of {len(rounds)} found, {len(rounds)} archived again, 0 spread",
    )


def test_a_whole_unit_is_proved_with_one_reading(house, measure, clock):
    measure("scan", tuple(f"f{n:02}" for n in range(20)))
    unit = archive(house, principal=ADA, store_id="second", experiment_id="e1").units[0]
    clock.forward(days=house.config.scrub.days, seconds=1)
    told = []
    assert scrub(house, principal=ADA, store_ids=["second"], told=told.append).checked == 20
    assert told == [unit.size]


def test_a_dataset_that_is_a_small_part_of_a_unit_is_verified_by_its_members(house, measure, clock):
    small = measure("small", ("x",))
    measure("large", tuple(f"f{n:02}" for n in range(20)))
    archive(house, principal=ADA, store_id="second", experiment_id="e1")
    assert verify(house, small.id, principal=ADA).checked == 2


def test_members_can_be_got_from_the_unit_when_it_is_the_only_copy(house, measure, tmp_path):
    dataset = measure()
    archive(house, principal=ADA, store_id="second", dataset_id=dataset.id)
    view = house.catalog.view(SERVICE)
    with house.catalog.change(SERVICE) as tx:
        near = [each for each in view.replicas(dataset.id) if each.store_id == "central"]
        tx.set_replicas(near, state=ReplicaState.DELETE_PENDING)
    get(house, dataset.id, tmp_path / "out", principal=ADA)
    for name in ("a", "b", "sub/c"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "scan" / name).read_bytes()


def test_the_sidecar_names_every_member_as_the_catalogue_does(house, measure):
    dataset = measure()
    unit = archive(house, principal=ADA, store_id="second", dataset_id=dataset.id).units[0]
    index = read_index(house.stores["second"], unit.key)
    assert {(m.file_id, index.key_of(m)) for m in index.members} == {
        (each.file.id, each.replica.key) for each in on_second(house, dataset)
    }


def test_who_may_only_read_cannot_archive(house, measure):
    measure()
    with house.catalog.change(SERVICE) as tx:
        tx.add_person(Person("bob", "Bob"))
        tx.add_grant(Grant("bob", Role.MEMBER, Scope.EXPERIMENT, "e1"))
    with pytest.raises(Forbidden):
        archive(house, principal=Principal("bob"), store_id="second", experiment_id="e1")
