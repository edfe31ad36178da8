"""Clocks that jump, catalogues and stores that were put back: nothing is deleted until a person has looked."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest

from lightkeep.config import PurgeConfig
from lightkeep.lifecycle.health import guards
from lightkeep.lifecycle.replicas import records
from lightkeep.lifecycle.retention import purge, purge_plan
from lightkeep.lifecycle.retention.purge_destroy import destroy
from lightkeep.model.errors import Conflict, Forbidden
from lightkeep.model.people import SERVICE
from lightkeep.testing.populated import StillClock
from lightkeep.testing.retained import ADMIN, MANAGER, PI


@pytest.fixture
def approved(kept):
    plan = purge_plan.plan(kept.facility, "central", principal=ADMIN)
    return purge_plan.approve(kept.facility, plan.id, principal=MANAGER).id


JUMPS = {
    "an hour back": timedelta(hours=-1),
    "more than an hour forward": timedelta(hours=1, seconds=1),
    "ten years forward": timedelta(days=3652),
    "ten years back": timedelta(days=-3652),
}


@pytest.mark.fault
@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS)
def test_a_clock_that_jumps_suspends_purges_until_somebody_has_looked(kept, approved, jump, figure):
    guards.look(kept.facility)
    kept.clock.at += jump
    with pytest.raises(Conflict, match="suspended: the clock"):
        purge.run(kept.facility, approved, principal=ADMIN)
    kept.clock.at -= jump  # it comes back: the doubt stays
    with pytest.raises(Conflict, match="suspended: the clock"):
        purge.run(kept.facility, approved, principal=ADMIN)
    assert kept.states() == ["verified"] * 3
    guards.confirm_clock(kept.facility, principal=ADMIN)
    assert purge.run(kept.facility, approved, principal=ADMIN).items == 3
    figure("F10", injected="-1 h, +1 h, +10 y, -10 y, two servers 5 min apart, DST", found="0 early deletes")


def test_a_jump_between_two_items_of_a_run_stops_the_rest(kept, approved):
    """The clock jumps while the first object is on its way to the trash."""
    store = kept.facility.stores["central"]
    trash = store.trash

    def jumping(key: str, *, bin: str, size: int) -> str:  # noqa: A002
        kept.clock.at += timedelta(days=3652)
        return trash(key, bin=bin, size=size)

    store.trash = jumping
    done = purge.run(kept.facility, approved, principal=ADMIN)
    assert (done.items, done.skipped) == (1, 2)
    assert destroy_is_refused(kept)


def destroy_is_refused(kept) -> bool:
    with pytest.raises(Conflict, match="suspended"):
        destroy(kept.facility, principal=ADMIN)
    return len(kept.bytes_on("central")) == 3


def test_two_servers_five_minutes_apart_are_no_jump(kept, approved):
    slow = StillClock(kept.clock.at - timedelta(minutes=5))
    other = replace(kept.facility, clock=slow)
    for _ in range(3):
        for facility, clock in ((kept.facility, kept.clock), (other, slow)):
            clock.at += timedelta(minutes=1)
            assert guards.look(facility).reasons == ()
    assert purge.run(other, approved, principal=ADMIN).items == 3


def test_a_minute_by_minute_clock_is_trusted_over_days_and_over_summer_time(kept):
    """UTC has no summer time; what people see on their clocks makes no difference."""
    for _ in range(24 * 3):
        kept.clock.at += timedelta(minutes=59)
        assert guards.look(kept.facility).reasons == ()


def test_the_time_never_runs_backward_within_what_is_no_jump(kept):
    with kept.facility.catalog.change(SERVICE) as tx:
        first, _ = guards.time(kept.facility, tx)
    kept.clock.at -= timedelta(minutes=9)
    with kept.facility.catalog.change(SERVICE) as tx:
        second, found = guards.time(kept.facility, tx)
    assert second >= first
    assert not found.clock_doubt


@pytest.mark.fault
def test_a_catalogue_that_was_restored_from_a_backup_deletes_nothing(kept, approved, figure):
    facility, path = kept.facility, kept.facility.config.root / "catalog.db"
    backup = path.with_name("backup.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM INTO ?", (str(backup),))
    with facility.catalog.change(ADMIN) as tx:
        tx.record("something.happened", "e1")
    assert records.anchor(facility) == {}
    facility.close()
    for old in path.parent.glob("catalog.db*"):
        old.unlink()
    shutil.copy(backup, path)
    with pytest.raises(Conflict, match="restored from a backup"):
        purge.run(facility, approved, principal=ADMIN)
    assert kept.states() == ["verified"] * 3
    for who in (PI, MANAGER):
        with pytest.raises(Forbidden):
            guards.confirm_catalog(facility, principal=who)
    with pytest.raises(Conflict, match="older than its data"):
        guards.confirm_catalog(facility, principal=ADMIN)
    figure(
        "F20",
        injected="catalogue put back from a backup before a purge",
        found="0 deletes; no confirmation before a rebuild",
    )


def test_confirming_a_catalogue_that_disagrees_with_the_stores_is_refused(kept, approved):
    with kept.facility.catalog.change(ADMIN) as tx:
        tx.set_fact("epoch", "another one")
    medium = kept.media["second"]
    name = next(name for name in medium.names if name.endswith("a.h5"))
    medium.names[name].now[3] ^= 1
    with pytest.raises(Conflict, match="disagree"):
        guards.confirm_catalog(kept.facility, principal=ADMIN)
    with pytest.raises(Conflict, match="rebuilt"):
        purge.run(kept.facility, approved, principal=ADMIN)


def test_a_store_that_was_put_back_from_a_snapshot_deletes_nothing(kept, approved):
    facility = kept.facility
    store = facility.stores["vault"]
    records.anchor(facility)
    old = store.read_record(records.ANCHOR)
    with facility.catalog.change(ADMIN) as tx:
        tx.record("something.happened", "e1")
    records.anchor(facility)
    assert guards.look(facility).reasons == ()
    store.write_record(records.ANCHOR, old)
    assert json.loads(old)["seq"] < facility.catalog.head()[0]
    with pytest.raises(Conflict, match="put back from a snapshot"):
        purge.run(facility, approved, principal=ADMIN)
    guards.confirm_catalog(facility, principal=ADMIN)  # every byte was compared: nothing is missing there
    assert purge.run(facility, approved, principal=ADMIN).items == 3


def test_the_configuration_can_switch_purges_off(kept, approved):
    config = replace(kept.facility.config, purge=PurgeConfig(enabled=False))
    with pytest.raises(Conflict, match="configuration"):
        purge.run(replace(kept.facility, config=config), approved, principal=ADMIN)


def test_only_administrators_who_are_persons_confirm(kept):
    for who in (PI, MANAGER, SERVICE):
        with pytest.raises(Forbidden):
            guards.confirm_clock(kept.facility, principal=who)
    with pytest.raises(Forbidden):
        guards.switch(kept.facility, on=False, principal=PI)
