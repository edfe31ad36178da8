"""A plan is decided on again, item by item, at the moment when bytes move; whatever changed meanwhile stays."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from lightkeep.lifecycle import purge, purge_destroy, purge_plan
from lightkeep.model.people import SERVICE
from lightkeep.testing.retained import ADMIN, MANAGER, Retained, retained


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Retained]:
    """A closed experiment with two datasets, past its three months, everybody told, every copy just read back."""
    made = retained(tmp_path)
    made.dataset("scan", {"a.h5": b"a" * 1000, "b.h5": b"b" * 2000})
    made.dataset("flat", {"c.h5": b"c" * 500})
    made.close()
    made.clock.at += timedelta(days=100)
    made.told()
    made.verified()
    made.trust_clock()
    yield made
    made.facility.close()


def planned(kept: Retained) -> str:
    plan = purge_plan.plan(kept.facility, "central", principal=ADMIN)
    return purge_plan.approve(kept.facility, plan.id, principal=MANAGER).id


def test_what_has_expired_goes_to_the_trash_and_then_for_good(kept):
    plan_id = planned(kept)
    done = purge.run(kept.facility, plan_id, principal=ADMIN)
    assert (done.items, done.skipped) == (3, 0), purge_show(kept, plan_id)


def purge_show(kept: Retained, plan_id: str):
    return [(i.state, i.evidence) for i in kept.facility.catalog.view(SERVICE).plan_items(plan_id)]
