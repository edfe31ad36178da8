"""One tick does what is due, once; a part that fails keeps no other from its work."""

from __future__ import annotations

from datetime import timedelta
from threading import Event, Thread

import pytest

from lightkeep.lifecycle import upkeep as module
from lightkeep.lifecycle.retention import purge, purge_plan
from lightkeep.lifecycle.upkeep import PARTS, upkeep
from lightkeep.model.errors import StorageError
from lightkeep.model.people import SERVICE
from lightkeep.testing.retained import ADMIN, MANAGER
from lightkeep.workflow.worker import keep_up


def test_ticks_of_two_months_tell_people_empty_the_trash_and_never_alarm(new_kept):
    kept = new_kept()
    plan = purge_plan.plan(kept.facility, "central", principal=ADMIN)
    purge_plan.approve(kept.facility, plan.id, principal=MANAGER)
    purge.run(kept.facility, plan.id, principal=ADMIN)
    told = []
    done = upkeep(kept.facility, lambda fraction, name: told.append((fraction, name)))
    assert done.failed == {}
    assert [name for _, name in told] == list(PARTS)
    assert told[-1][0] == 1.0
    kept.clock.at += timedelta(days=14)
    kept.verified()
    kept.trust_clock()
    assert upkeep(kept.facility).done["trash"] == 3
    assert kept.states() == ["deleted"] * 3
    assert not kept.facility.catalog.verify_events()


def test_a_second_tick_has_nothing_left_to_do(kept):
    upkeep(kept.facility)
    kept.clock.at += timedelta(minutes=1)
    upkeep(kept.facility)
    kept.clock.at += timedelta(minutes=1)
    head = kept.facility.catalog.head()
    done = upkeep(kept.facility)
    assert done.failed == {}
    assert set(done.done) <= {"scrub"}
    assert kept.facility.catalog.head() == head


def test_a_part_that_fails_is_told_and_the_others_go_on(kept, monkeypatch):
    def broken(_facility: object) -> int:
        raise StorageError("the disk is on fire")

    monkeypatch.setattr(module, "PARTS", {"first": broken, "second": lambda _facility: 2})
    done = upkeep(kept.facility)
    assert (done.done, done.failed) == ({"second": 2}, {"first": "the disk is on fire"})


def test_what_is_suspended_stays_in_the_trash(kept):
    plan = purge_plan.plan(kept.facility, "central", principal=ADMIN)
    purge_plan.approve(kept.facility, plan.id, principal=MANAGER)
    purge.run(kept.facility, plan.id, principal=ADMIN)
    kept.clock.at += timedelta(days=3652)  # nobody has confirmed that clock
    done = upkeep(kept.facility)
    assert "trash" not in done.done
    assert len(kept.bytes_on("central")) >= 3


@pytest.mark.parametrize("is_worker", [True, False])
def test_the_worker_keeps_up_beside_its_runs_and_ends_when_asked(kept, is_worker):
    ending = Event()
    thread = Thread(target=keep_up, args=(kept.facility, lambda: is_worker, ending), kwargs={"pause_s": 0.01})
    thread.start()
    for _ in range(3000):
        if not is_worker or kept.facility.catalog.view(SERVICE).fact("upkeep.trash"):
            break
        Event().wait(0.01)
    ending.set()
    thread.join(60)
    assert not thread.is_alive()
    assert bool(kept.facility.catalog.view(SERVICE).fact("upkeep.trash")) is is_worker
