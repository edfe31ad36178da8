"""Every copy is read back in its turn; what is bad is found, repaired from a good copy, and never spreads."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from lightkeep.lifecycle.replicas.repair import repair_files
from lightkeep.lifecycle.replicas.replicate import replicate
from lightkeep.lifecycle.replicas.scrub import freshness, scrub, tick
from lightkeep.lifecycle.replicas.verify import verify
from lightkeep.model.errors import Forbidden
from lightkeep.model.people import SERVICE, Person, Principal
from lightkeep.model.stores import ReplicaState
from lightkeep.testing.harm import FLIPS, HARMS, harm, newest_place

ADA = Principal("ada")


def states(house, dataset, store_id) -> Sequence[str]:
    held = house.catalog.view(SERVICE).held_of(dataset.id)
    return [f"{each.file.path} {each.replica.state}" for each in held if each.replica.store_id == store_id]


def contents(house, dataset, name) -> set[bytes]:
    """The bytes of every replica of a file that counts as a copy."""
    view = house.catalog.view(SERVICE)
    found = set()
    for each in view.held([view.file(dataset.id, name).id]):
        if each.replica.state in ("verified", "present", "suspect"):
            store = house.stores[each.replica.store_id]
            with store.open(each.replica.key) as file:
                found.add(file.read())
    return found


@pytest.fixture
def twice(house, measure):
    """A dataset on both stores."""
    dataset = measure()
    replicate(house, dataset.id, principal=ADA, store_id="second")
    return dataset


def test_nothing_is_due_before_its_days_are_over_and_then_everything_is(house, twice, clock):
    assert scrub(house, principal=ADA).checked == 0
    clock.forward(days=house.config.scrub.days, seconds=1)
    assert freshness(house)["central"].overdue_fraction == 1.0
    done = scrub(house, principal=ADA)
    assert (done.checked, done.size, done.corrupt, done.is_over) == (6, 120_000, [], True)
    assert [each.overdue for each in freshness(house).values()] == [0, 0]
    assert freshness(house)["second"].oldest_at == clock.now()
    assert scrub(house, principal=ADA).checked == 0


def test_what_waits_longest_is_read_first(house, measure, clock):
    first = measure("first", ("a",))
    clock.forward(days=1)
    second = measure("second", ("a",))
    clock.forward(days=house.config.scrub.days)
    told = []
    scrub(house, principal=ADA, rate=1.0, told=told.append)  # a byte a second: the burst allows one file
    assert told == [20_000]
    view = house.catalog.view(SERVICE)
    assert view.replicas(first.id)[0].verified_at == clock.now()
    assert view.replicas(second.id)[0].verified_at < clock.now()


def test_the_rate_holds_over_many_ticks(house, measure, clock):
    measure("scan", tuple(f"f{n:02}" for n in range(30)))
    clock.forward(days=house.config.scrub.days, seconds=1)
    read = 0
    for _ in range(8):
        read += scrub(house, rate=1000.0, slice_=timedelta(seconds=20)).size
        clock.forward(minutes=1)
    assert 8 * 60_000 <= read <= 8 * 60_000 + 80_000  # a burst of a minute, and one file more


def test_with_somebody_who_waits_a_scrub_goes_on_to_its_end(house, twice, clock):
    clock.forward(days=house.config.scrub.days, seconds=1)
    waited = []

    def wait(seconds: float) -> None:
        waited.append(seconds)
        clock.forward(seconds=seconds)

    assert scrub(house, principal=ADA, rate=20_000.0, wait=wait).checked == 6
    assert sum(waited) == 6.0  # three files of a second on each store


def test_a_time_slice_ends_the_work_and_the_next_goes_on(house, measure, clock):
    measure("scan", tuple(f"f{n:02}" for n in range(10)))
    clock.forward(days=house.config.scrub.days, seconds=1)

    def second(_size: int) -> None:
        clock.forward(seconds=1)

    done = scrub(house, slice_=timedelta(seconds=4), told=second)
    assert (done.checked, done.is_over) == (4, False)
    assert scrub(house, told=second).checked == 6


@pytest.mark.fault
@pytest.mark.parametrize(
    ("fault", "harms"), [("F7", FLIPS), ("F8", [how for how in HARMS if how not in FLIPS])], ids=["F7", "F8"]
)
def test_every_harm_is_found_repaired_and_never_spreads(house, twice, clock, figure, fault, harms):
    rounds = found = repaired = 0
    for how in harms:
        whole = {name: contents(house, twice, name) for name in ("a", "b", "sub/c")}
        hurt = ("a", "b") if how == "swapped" else ("b",)
        other = newest_place(house, twice.id, "a", "second")
        harm(newest_place(house, twice.id, "b", "second"), how, other=other)
        clock.forward(days=house.config.scrub.days, seconds=1)
        done = scrub(house, principal=ADA)
        rounds += len(hurt)
        found += len(set(done.corrupt) & set(hurt))
        repaired += len(set(done.repaired) & set(hurt))
        assert {name: contents(house, twice, name) for name in whole} == whole
        good = [each for each in states(house, twice, "second") if "verified" in each]
        assert good == ["a verified", "b verified", "sub/c verified"]
    assert (found, repaired) == (rounds, rounds)
    assert house.catalog.verify_events() == []
    figure(
        fault,
        injected=f"{', '.join(harms)}: {rounds} files on a POSIX store",
        found=f"{found} of {rounds} found, {repaired} repaired from the other store, 0 spread",
    )


def test_corrupt_bytes_stay_where_they_are(house, twice):
    place = newest_place(house, twice.id, "b", "second")
    harm(place, "zeros")
    report = verify(house, twice.id, principal=ADA, repair=True)
    assert (report.corrupt, report.repaired) == (("b",), ("b",))
    assert place[0].read_bytes() == bytes(20_000)
    assert newest_place(house, twice.id, "b", "second")[0] != place[0]
    assert "b corrupt" in states(house, twice, "second")


def test_a_repair_never_copies_from_a_bad_replica(house, twice):
    harm(newest_place(house, twice.id, "b", "second"), "zeros")
    assert verify(house, twice.id, principal=ADA).corrupt == ("b",)
    harm(newest_place(house, twice.id, "b", "central"), "first bit")  # after it was verified
    done = repair_files(house, twice.id, principal=ADA)
    assert (done.repaired, done.failed) == ((), ("b",))
    assert "b suspect" in states(house, twice, "central")
    assert [each for each in states(house, twice, "second") if each[0] == "b"] == ["b corrupt"]


def test_the_same_other_content_on_two_stores_accuses_the_manifest_and_nobody_repairs(house, twice):
    for store_id in ("central", "second"):
        harm(newest_place(house, twice.id, "b", store_id), "middle bit")
    report = verify(house, twice.id, principal=ADA, repair=True)
    assert (report.disputed, report.corrupt, report.repaired) == (("b",), (), ())
    for store_id in ("central", "second"):
        assert "b suspect" in states(house, twice, store_id)
    verbs = [each.verb for each in house.catalog.view(SERVICE).events(experiment_id="e1", limit=500)]
    assert verbs.count("file.disputed") == 1


def test_two_different_harms_on_two_stores_are_two_corrupt_copies(house, twice):
    harm(newest_place(house, twice.id, "b", "central"), "first bit")
    harm(newest_place(house, twice.id, "b", "second"), "last bit")
    report = verify(house, twice.id, principal=ADA)
    assert (report.disputed, report.corrupt) == ((), ("b", "b"))


def test_a_good_third_copy_shows_that_two_equal_bad_ones_are_bad(house, twice, tmp_path):
    from lightkeep.lifecycle.people.set_up import add_store

    add_store(house, "third", tmp_path / "third", principal=ADA)
    replicate(house, twice.id, principal=ADA, store_id="third")
    for store_id in ("central", "second"):
        harm(newest_place(house, twice.id, "b", store_id), "zeros")
    report = verify(house, twice.id, principal=ADA, repair=True)
    assert (report.disputed, report.corrupt, report.repaired) == ((), ("b", "b"), ("b", "b"))


def test_a_purge_that_began_meanwhile_is_not_undone_by_a_verification(house, twice, monkeypatch):
    view = house.catalog.view(SERVICE)
    mine = [each for each in view.replicas(twice.id) if each.store_id == "second"]
    store = house.stores["second"]

    class Slow:
        record = store.record

        def __getattr__(self, name):
            return getattr(store, name)

        def verify(self, key):
            found = store.verify(key)
            if key == mine[0].key:
                with house.catalog.change(SERVICE) as tx:
                    tx.set_replicas(mine[:1], state=ReplicaState.DELETE_PENDING)
            return found

    monkeypatch.setitem(house.stores._open, "second", Slow())
    verify(house, twice.id, principal=ADA)
    assert states(house, twice, "second") == ["a delete_pending", "b verified", "sub/c verified"]


@pytest.mark.fault
def test_a_store_that_lost_many_files_at_once_is_left_and_said(house, measure, clock, figure):
    dataset = measure("scan", tuple(f"f{n:02}" for n in range(60)))
    replicate(house, dataset.id, principal=ADA, store_id="second")
    for n in range(50):
        newest_place(house, dataset.id, f"f{n:02}", "second")[0].unlink()
    clock.forward(days=house.config.scrub.days, seconds=1)
    done = scrub(house, principal=ADA)
    assert "is all of it mounted?" in done.stopped["second"]
    missing = [each for each in states(house, dataset, "second") if "corrupt" in each]
    assert len(missing) == 11
    assert done.repaired == []
    figure(
        "F19", injected="50 of 60 files of a store gone", found="stopped after 11, event, 0 repaired, 0 deleted"
    )


def test_a_store_that_is_not_mounted_is_left_alone(house, twice, clock, tmp_path):
    Path(house.stores["second"].record.location).rename(tmp_path / "unplugged")
    clock.forward(days=house.config.scrub.days, seconds=1)
    done = scrub(house, principal=ADA)
    assert done.checked == 3
    assert "second" in done.stopped
    assert states(house, twice, "second") == ["a verified", "b verified", "sub/c verified"]


def test_what_a_disk_could_not_read_is_asked_again_after_an_hour_not_each_minute(house, twice, clock):
    view = house.catalog.view(SERVICE)
    with house.catalog.change(SERVICE) as tx:
        mine = [each for each in view.replicas(twice.id) if each.store_id == "second"]
        tx.set_replicas(mine, state=ReplicaState.SUSPECT)
    newest_place(house, twice.id, "a", "second")[0].unlink()
    assert tick(house) == 4  # and the other copy of the one that is gone
    assert "a verified" in states(house, twice, "second")  # repaired
    clock.forward(minutes=1)
    assert tick(house) == 0


def test_who_does_not_manage_the_facility_cannot_scrub(house):
    with house.catalog.change(SERVICE) as tx:
        tx.add_person(Person("eve", "Eve"))
    with pytest.raises(Forbidden):
        scrub(house, principal=Principal("eve"))
