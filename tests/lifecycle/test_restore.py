"""What is in the archive only comes back near, equal, for a while; and reads say how to ask for it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from lightkeep.lifecycle.people.set_up import add_store
from lightkeep.lifecycle.replicas.archive import archive
from lightkeep.lifecycle.replicas.export import get
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.lifecycle.replicas.restore import request, run_queue, tick
from lightkeep.lifecycle.replicas.verify import verify
from lightkeep.model.errors import Archived, Conflict, Forbidden, InvalidInput, NotFound, SignInRequired
from lightkeep.model.people import ANONYMOUS, SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.model.retention import RestoreState
from lightkeep.model.stores import ReplicaState
from lightkeep.testing.harm import harm, newest_place
from lightkeep.testing.tape import TapeLibrary

ADA = Principal("ada")
NAMES = ("a", "b", "sub/c")


@pytest.fixture
def far(house, measure):
    """A dataset of which only the archive has a copy."""
    dataset = measure()
    archive(house, principal=ADA, store_id="second", experiment_id="e1")
    forget(house, dataset)
    return dataset


def forget(house, dataset, store_id="central"):
    """Delete a dataset's replicas on a store, as a purge that ran to its end."""
    view = house.catalog.view(SERVICE)
    near = [each for each in view.replicas(dataset.id) if each.store_id == store_id and each.state == "verified"]
    with house.catalog.change(SERVICE) as tx:
        tx.set_replicas(near, state=ReplicaState.DELETE_PENDING)
        tx.set_replicas(near, state=ReplicaState.DELETED)
    for each in near:
        Path(house.stores[store_id].record.location, each.key).unlink()


def near(house, dataset):
    view = house.catalog.view(SERVICE)
    return [each for each in view.replicas(dataset.id) if each.store_id == "central" and each.state == "verified"]


def test_a_whole_dataset_comes_back_equal_in_its_old_place(house, far, tmp_path):
    (asked,) = request(house, principal=ADA, dataset_id=far.id, days=10)
    assert asked.state is RestoreState.QUEUED
    (done,) = run_queue(house)
    assert (done.state, done.files_done, done.error) == (RestoreState.DONE, 3, "")
    assert done.cache_until == house.clock.now() + timedelta(days=10)
    for name in NAMES:
        assert local_path(house, far.id, name).read_bytes() == (tmp_path / "scan" / name).read_bytes()
    assert [each.key for each in near(house, far)] == [f"2-BM/e1/scan/{name}" for name in NAMES]
    assert verify(house, far.id, principal=ADA).checked == 6
    assert run_queue(house) == []


def test_single_files_come_back_by_range(house, far, tmp_path):
    request(house, principal=ADA, dataset_id=far.id, paths=("b",))
    assert tick(house) == 1
    assert local_path(house, far.id, "b").read_bytes() == (tmp_path / "scan" / "b").read_bytes()
    with pytest.raises(Archived):
        local_path(house, far.id, "a")
    with pytest.raises(NotFound):
        request(house, principal=ADA, dataset_id=far.id, paths=("nothing",))


def test_a_whole_experiment_comes_back(house, far, measure):
    other = measure("other", ("x",))
    archive(house, principal=ADA, store_id="second", experiment_id="e1")
    forget(house, other)
    measure("still-here", ("y",))
    assert {each.dataset_id for each in request(house, principal=ADA, experiment_id="e1")} == {far.id, other.id}
    assert [each.state for each in run_queue(house)] == [RestoreState.DONE, RestoreState.DONE]


def test_who_asked_is_told_by_mail_once(house, far):
    request(house, principal=ADA, dataset_id=far.id)
    run_queue(house)
    run_queue(house)
    (mail,) = house.catalog.view(SERVICE).mail_waiting()
    assert mail.mail.to == ("ada@example.org",)
    assert "scan is back until" in mail.mail.subject
    assert f"lightkeep get {far.id}" in mail.mail.text


def test_asking_again_lengthens_the_request_and_never_shortens_it(house, far):
    (first,) = request(house, principal=ADA, dataset_id=far.id, days=10)
    (second,) = request(house, principal=ADA, dataset_id=far.id, days=20)
    (third,) = request(house, principal=ADA, dataset_id=far.id, days=5)
    assert first.id == second.id == third.id
    assert third.cache_until - first.cache_until == timedelta(days=10)


def test_what_is_near_is_not_restored(house, measure):
    dataset = measure()
    with pytest.raises(Conflict, match="is on store central"):
        request(house, principal=ADA, dataset_id=dataset.id)


@pytest.mark.parametrize("days", [0, 367, -1])
def test_a_restore_has_an_end(house, far, days):
    with pytest.raises(InvalidInput):
        request(house, principal=ADA, dataset_id=far.id, days=days)


def test_a_damaged_member_never_comes_back_and_who_asked_learns_it(house, far):
    harm(newest_place(house, far.id, "b", "second"), "middle bit")
    request(house, principal=ADA, dataset_id=far.id)
    (done,) = run_queue(house)
    assert (done.state, done.files_done) == (RestoreState.FAILED, 2)
    assert "differs from its checksum" in done.error
    assert [each.key[-1] for each in near(house, far)] == ["a", "c"]
    (mail,) = house.catalog.view(SERVICE).mail_waiting()
    assert "could not be restored" in mail.mail.subject


@pytest.mark.fault
def test_a_store_that_is_away_keeps_its_requests_waiting(house, far, tmp_path, figure):
    request(house, principal=ADA, dataset_id=far.id)
    location = Path(house.stores["second"].record.location)
    location.rename(tmp_path / "unplugged")
    assert run_queue(house) == []
    (tmp_path / "unplugged").rename(location)
    assert [each.state for each in run_queue(house)] == [RestoreState.DONE]
    figure(
        "F12", injected="the archive's store away during a restore", found="it waits, and is done when it is back"
    )


def test_the_queue_reads_units_in_their_order_whoever_asked_first(house, measure, monkeypatch):
    datasets = [measure(name, ("a", "b")) for name in ("one", "two")]
    for each in datasets:
        archive(house, principal=ADA, store_id="second", dataset_id=each.id)
        forget(house, each)
    opened = []
    store = house.stores["second"]
    monkeypatch.setattr(store, "open", lambda key, given=store.open: opened.append(key) or given(key))
    for each in reversed(datasets):
        for path in ("b", "a"):
            request(house, principal=ADA, dataset_id=each.id, paths=(path,))
    from lightkeep.lifecycle.replicas.transfer import Pace

    run_queue(house, pace=Pace(threads=1))
    members = [key for key in opened if "!" in key]
    units = [key.partition("!")[0] for key in members]
    assert len(members) == 4
    assert units == sorted(units)
    offsets = [int(key.partition("!")[2].partition("+")[0]) for key in members]
    assert offsets[0] < offsets[1]
    assert offsets[2] < offsets[3]


def test_reads_of_what_is_on_tape_only_say_how_to_restore_it(house, far, tmp_path):
    with house.catalog.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE store SET tier = 'tape' WHERE id = 'second'")
    house.stores._open.clear()
    for read in (
        lambda: get(house, far.id, tmp_path / "out", principal=ADA),
        lambda: local_path(house, far.id, "a"),
    ):
        with pytest.raises(Archived, match="in the archive only") as caught:
            read()
        assert caught.value.remedy == f"bring it near: lightkeep restore {far.id}"


def test_a_collaborator_may_restore_and_a_stranger_may_not(house, far):
    with house.catalog.change(SERVICE) as tx:
        for name in ("bob", "eve"):
            tx.add_person(Person(name, name))
        tx.add_grant(Grant("bob", Role.COLLABORATOR, Scope.EXPERIMENT, "e1"))
    assert request(house, principal=Principal("bob"), dataset_id=far.id)
    with pytest.raises(NotFound):
        request(house, principal=Principal("eve"), dataset_id=far.id)
    with pytest.raises((SignInRequired, Forbidden, NotFound)):
        request(house, principal=ANONYMOUS, dataset_id=far.id)


def test_a_restore_to_another_store_is_possible_and_to_one_in_place_is_not(house, far, tmp_path):
    add_store(house, "third", tmp_path / "third", principal=ADA)
    (tmp_path / "disk").mkdir()
    add_store(house, "disk", tmp_path / "disk", principal=ADA, is_managed=False)
    request(house, principal=ADA, dataset_id=far.id, store_id="third")
    assert [each.target_id for each in run_queue(house)] == ["third"]
    with pytest.raises(InvalidInput):
        request(house, principal=ADA, dataset_id=far.id, store_id="disk")


def test_a_restore_from_tape_mounts_and_recalls_each_unit_once(house, measure, tmp_path):
    library = TapeLibrary.make(tmp_path / "library", drives=1, tape_size=100_000)
    add_store(house, "tape", library.location("/lightkeep"), principal=ADA, kind="hpss")
    made = [measure(name, ("1", "2", "3")) for name in ("one", "two")]
    for dataset in made:
        archive(house, principal=ADA, store_id="tape", dataset_id=dataset.id)
        forget(house, dataset)
        request(house, principal=ADA, dataset_id=dataset.id)
    before = len(library.journal())
    assert [each.state for each in run_queue(house)] == [RestoreState.DONE] * 2
    done = [line.split() for line in library.journal()[before:]]
    gets = [line[1] for line in done if line[0] == "get"]
    assert sorted(gets) == sorted(f"/lightkeep/{each.key}" for each in house.catalog.view(SERVICE).units().items)
    assert len([line for line in done if line[0] == "mount"]) <= 2
