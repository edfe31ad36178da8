"""An archive unit goes as one object: all of its members, or none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from lightkeep.config import PurgeConfig
from lightkeep.lifecycle.health.doctor import examine
from lightkeep.lifecycle.people.set_up import set_store
from lightkeep.lifecycle.replicas import restore
from lightkeep.lifecycle.replicas.archive import archive
from lightkeep.lifecycle.retention import holds, purge, purge_plan
from lightkeep.lifecycle.retention.explain import explain
from lightkeep.lifecycle.retention.purge_destroy import destroy, gone
from lightkeep.model.errors import Conflict
from lightkeep.model.people import SERVICE
from lightkeep.model.retention import HoldScope, PlanReason
from lightkeep.model.stores import ReplicaState
from lightkeep.testing.retained import ADMIN, EXPERIMENT, MANAGER, PI, Retained

CONTENTS = {"scan": {"a.h5": b"a" * 1000, "b.h5": b"b" * 2000}, "flat": {"c.h5": b"c" * 500}}


@dataclass
class Packed:
    """Two datasets on `central` and `vault`, and one unit of both on `second`; all may go."""

    kept: Retained
    unit_id: str

    @property
    def unit(self):
        return self.kept.facility.catalog.view(SERVICE).unit(self.unit_id)

    def holds(self, capacity: int, **more: float) -> None:
        """Say how large the store is."""
        store = self.kept.facility.stores["second"]
        store.record = replace(store.record, capacity=capacity, **more)
        set_store(self.kept.facility, store.record, principal=ADMIN)

    def plan(self, **more: object):
        return purge_plan.plan(self.kept.facility, "second", principal=ADMIN, **more)

    def approved(self, **more: object) -> str:
        return purge_plan.approve(self.kept.facility, self.plan(**more).id, principal=MANAGER).id

    def items(self, plan_id: str):
        return self.kept.facility.catalog.view(SERVICE).plan_items(plan_id)

    def objects(self) -> list[str]:
        """Names of the tars on the store, in their place or in the trash."""
        return [key for key, _ in self.kept.media["second"].objects() if key.endswith((".tar", ".tar.zst"))]

    def later(self, **span: float) -> None:
        self.kept.clock.at += timedelta(**span)
        self.kept.verified()
        self.kept.trust_clock()


@pytest.fixture
def packed(new_packed) -> Packed:
    kept = new_packed()
    (unit,) = kept.facility.catalog.view(SERVICE).units().items
    return Packed(kept, unit.id)


def test_a_unit_is_planned_moved_and_destroyed_as_one_and_every_member_leaves_its_record(packed):
    plan_id = packed.approved()
    facility, unit = packed.kept.facility, packed.unit
    items = packed.items(plan_id)
    assert [each.unit for each in items] == [unit.key] * 3
    assert {each.experiment_id for each in items} == {EXPERIMENT}
    done = purge.run(facility, plan_id, principal=ADMIN)
    assert (done.items, done.size, done.skipped, done.left) == (3, 3500, 0, 0)
    assert packed.kept.states("second") == ["delete_pending"] * 3
    assert packed.unit.state is ReplicaState.DELETE_PENDING
    assert packed.objects() == [f".trash/{plan_id}/{unit.key}"]
    assert destroy(facility, principal=ADMIN) == []
    packed.later(days=14)
    (ended,) = destroy(facility, principal=ADMIN)
    assert (ended.items, ended.left) == (3, 0)
    assert packed.objects() == []
    assert packed.kept.states("second") == ["deleted"] * 3
    assert packed.unit.state is ReplicaState.DELETED
    view = facility.catalog.view(PI)
    for dataset in packed.kept.datasets.values():
        stones = view.tombstones(dataset.id)
        assert len(stones) == dataset.files
        assert all(stone.evidence["conditions"]["P15"][1] for stone in stones)
        assert gone(facility, dataset.id, next(iter(CONTENTS[dataset.name]))) is not None
    assert not facility.catalog.verify_events()


def test_one_held_member_keeps_the_whole_unit_and_everybody_is_told_which(packed):
    facility = packed.kept.facility
    scan, flat = packed.kept.datasets["scan"], packed.kept.datasets["flat"]
    file = facility.catalog.view(SERVICE).file(flat.id, "c.h5")
    holds.add(facility, HoldScope.FILE, file.id, reason="a paper needs it", principal=ADMIN)
    with pytest.raises(Conflict, match=r"an archive unit stays for c\.h5 of flat: on hold .*a paper needs it"):
        packed.plan()
    place = next(each for each in explain(facility, scan.id, principal=PI).places if each.store_id == "second")
    (answer,) = place.answers
    assert answer.files == 2
    assert answer.stays_until is None
    assert "c.h5 of flat stays: on hold until it is released: a paper needs it" in answer.text
    own = next(each for each in explain(facility, flat.id, principal=PI).places if each.store_id == "second")
    assert own.answers[0].text.startswith("stays: on hold until it is released: a paper needs it")


def test_a_unit_waits_for_the_member_that_is_kept_longest(packed):
    facility, scan = packed.kept.facility, packed.kept.datasets["scan"]
    until = packed.kept.clock.at + timedelta(days=400)
    file = facility.catalog.view(SERVICE).file(packed.kept.datasets["flat"].id, "c.h5")
    holds.add(facility, HoldScope.FILE, file.id, reason="a thesis", principal=ADMIN, until=until)
    place = next(each for each in explain(facility, scan.id, principal=PI).places if each.store_id == "second")
    assert place.answers[0].stays_until == until
    assert f"c.h5 of flat stays until {until:%Y-%m-%d}: on hold" in place.answers[0].text


@pytest.mark.parametrize("state", [ReplicaState.SUSPECT, ReplicaState.CORRUPT])
def test_a_member_that_is_not_verified_keeps_the_unit(packed, state):
    view = packed.kept.facility.catalog.view(SERVICE)
    first = next(e for e in view.replicas(packed.kept.datasets["scan"].id) if e.store_id == "second")
    with packed.kept.facility.catalog.change(SERVICE) as tx:
        tx.set_replicas([first], state=ReplicaState.SUSPECT)
        if state is ReplicaState.CORRUPT:
            tx.set_replicas([first], state=state)
    with pytest.raises(Conflict, match=f"it is {state}"):
        packed.plan()


def test_a_hold_that_came_after_the_approval_keeps_the_unit_and_each_item_says_so(packed):
    plan_id = packed.approved()
    facility, flat = packed.kept.facility, packed.kept.datasets["flat"]
    file = facility.catalog.view(SERVICE).file(flat.id, "c.h5")
    with facility.catalog.change(ADMIN) as tx:  # a hold on a file alone, its notices left as they are
        tx.set_replicas(
            [each for each in facility.catalog.view(SERVICE).replicas([file.id]) if each.store_id == "second"],
            state=ReplicaState.SUSPECT,
        )
    done = purge.run(facility, plan_id, principal=ADMIN)
    assert (done.items, done.skipped) == (0, 3)
    assert packed.objects() == [packed.unit.key]
    for item in packed.items(plan_id):
        conditions = item.evidence["conditions"]
        if item.dataset_id == flat.id:
            assert not conditions["P9"][1]
        else:
            assert not conditions["P15"][1]
            assert f"of dataset {flat.id} stays: it is suspect" in conditions["P15"][2]


def test_undo_of_one_member_brings_the_whole_unit_back(packed):
    plan_id = packed.approved()
    facility, unit = packed.kept.facility, packed.unit
    purge.run(facility, plan_id, principal=ADMIN)
    one = packed.items(plan_id)[1]
    assert purge.undo(facility, plan_id, principal=PI, replica_ids=[one.replica_id]).items == 3
    assert packed.objects() == [unit.key]
    assert packed.kept.states("second") == ["verified"] * 3
    assert packed.unit == unit
    assert facility.catalog.view(SERVICE).plan(plan_id).freed == 0


def test_a_unit_that_is_other_than_it_was_stays_and_becomes_suspect(packed):
    plan_id = packed.approved()
    names = packed.kept.media["second"].names
    names[packed.unit.key].now.extend(b"more")
    done = purge.run(packed.kept.facility, plan_id, principal=ADMIN)
    assert (done.items, done.skipped) == (0, 3)
    assert packed.kept.states("second") == ["suspect"] * 3
    assert "bytes, not" in packed.items(plan_id)[0].evidence["changed"]


def test_a_day_takes_a_whole_unit_or_none_of_it(packed):
    config = packed.kept.facility.config
    plan_id = packed.approved()
    packed.kept.facility = replace(
        packed.kept.facility, config=replace(config, purge=PurgeConfig(max_fraction=1.0, max_bytes_per_day=3000))
    )
    done = purge.run(packed.kept.facility, plan_id, principal=ADMIN)
    assert (done.items, done.left) == (0, 3)
    assert "may in a day" in done.why_left
    assert packed.objects() == [packed.unit.key]


def test_a_unit_larger_than_a_plan_may_be_does_not_keep_smaller_objects_from_going(packed):
    packed.holds(20_000)
    with pytest.raises(Conflict, match=r"at most 2 kB from store second: 10% of its capacity"):
        packed.plan()


def test_only_expired_members_go_and_pressure_takes_the_unit_whole(packed):
    packed.holds(36_000, high=0.09, low=0.08)
    plan = packed.plan(reason=PlanReason.PRESSURE)
    assert (plan.files, plan.size, plan.need) == (3, 3500, 3500 - 2880)


def test_a_restored_copy_goes_when_its_time_is_over_and_comes_back_from_the_unit(packed):
    """The near copy of what is in a unit is let go file by file; the unit is untouched."""
    facility, kept = packed.kept.facility, packed.kept
    kept.told("central")
    first = purge_plan.plan(facility, "central", principal=ADMIN)
    purge.run(facility, purge_plan.approve(facility, first.id, principal=MANAGER).id, principal=ADMIN)
    packed.later(days=14)
    destroy(facility, principal=ADMIN)
    scan = kept.datasets["scan"]
    (asked,) = restore.request(facility, principal=PI, dataset_id=scan.id, days=30, store_id="central")
    (back,) = restore.run_queue(facility)
    assert (back.id, back.files_done) == (asked.id, 2)
    kept.told("central")
    with pytest.raises(Conflict, match="kept until"):
        purge_plan.plan(facility, "central", principal=ADMIN)
    packed.later(days=31)
    again = purge_plan.plan(facility, "central", principal=ADMIN)
    assert again.files == 2
    done = purge.run(facility, purge_plan.approve(facility, again.id, principal=MANAGER).id, principal=ADMIN)
    assert done.items == 2
    assert packed.objects() == [packed.unit.key]


def test_a_unit_in_the_trash_or_gone_is_no_finding(packed):
    def found() -> list[str]:
        facility = packed.kept.facility
        wrong = [
            each for each in examine(facility, full=True) if "unit" in each.message or "no dataset" in each.message
        ]
        return [each.message for each in wrong]

    assert found() == []
    purge.run(packed.kept.facility, packed.approved(), principal=ADMIN)
    assert found() == []
    packed.later(days=14)
    destroy(packed.kept.facility, principal=ADMIN)
    assert found() == []


def test_what_was_in_a_unit_that_is_gone_can_be_packed_again(packed):
    facility = packed.kept.facility
    purge.run(facility, packed.approved(), principal=ADMIN)
    packed.later(days=14)
    destroy(facility, principal=ADMIN)
    done = archive(facility, principal=ADMIN, store_id="second", experiment_id=EXPERIMENT)
    assert done.files == 3
    assert [unit.id == packed.unit_id for unit in done.units] == [False]
    assert packed.unit.state is ReplicaState.DELETED


def test_a_store_of_unknown_size_says_how_to_tell_it(packed):
    packed.holds(0)
    with pytest.raises(
        Conflict, match="10% of what it holds, as long as nobody has said how large it is"
    ) as refused:
        packed.plan()
    assert "350 bytes" in refused.value.message
    assert "lightkeep store set second --capacity" in refused.value.remedy
