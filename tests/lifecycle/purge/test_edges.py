"""Where a purge begins and ends to the byte, and a file that was rewritten with as many bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from lightkeep.lifecycle.retention import purge, purge_plan
from lightkeep.model.errors import Conflict
from lightkeep.model.people import SERVICE
from lightkeep.model.retention import ItemState
from lightkeep.model.stores import ObjectStat
from lightkeep.testing.retained import ADMIN, MANAGER, Retained
from lightkeep.testing.stores import FaultyStore


@pytest.mark.parametrize(("held", "need"), [(0, 0), (80, 0), (85, 0), (90, 0), (91, 11), (200, 120)])
def test_a_store_loses_down_to_its_low_mark_once_it_is_above_the_high_one(
    kept: Retained, held: int, need: int
) -> None:
    record = replace(kept.facility.stores["central"].record, capacity=100, high=0.9, low=0.8)
    assert purge_plan.need_of(kept.facility, record, held=held) == need
    assert purge_plan.need_of(kept.facility, replace(record, capacity=0), held=held) == 0


def test_an_item_in_the_trash_is_never_called_skipped(kept: Retained, approved: str) -> None:
    purge.run(kept.facility, approved, principal=ADMIN)
    items = kept.facility.catalog.view(SERVICE).plan_items(approved)
    with pytest.raises(Conflict), kept.facility.catalog.change(SERVICE) as tx:
        tx.move_items(items[:1], ItemState.SKIPPED)


class Written(FaultyStore):
    """A store that says when its objects were written."""

    at = 1

    def stat(self, key: str) -> ObjectStat:
        return replace(super().stat(key), mtime_ns=self.at)


def test_a_file_that_was_rewritten_with_as_many_bytes_stays(kept: Retained) -> None:
    old = kept.facility.stores["central"]
    store = Written(kept.media["central"], id="central")
    store.record = old.record
    facility = replace(kept.facility, stores={**kept.facility.stores, "central": store})
    plan = purge_plan.plan(facility, "central", principal=ADMIN)
    purge_plan.approve(facility, plan.id, principal=MANAGER)
    store.at = 2
    done = purge.run(facility, plan.id, principal=ADMIN)
    assert (done.items, done.skipped) == (0, plan.files)
    assert set(kept.states()) == {"suspect"}
