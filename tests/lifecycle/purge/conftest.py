"""A closed experiment past its three months, on stores in memory: everything that may go, may go now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from lightkeep.lifecycle.people.set_up import set_store
from lightkeep.lifecycle.replicas.archive import archive
from lightkeep.lifecycle.retention import purge_plan
from lightkeep.model.people import SERVICE
from lightkeep.testing.retained import ADMIN, EXPERIMENT, MANAGER, POLICY, Retained, retained

NewKept = Callable[..., Retained]
CONTENTS = {"scan": {"a.h5": b"a" * 1000, "b.h5": b"b" * 2000}, "flat": {"c.h5": b"c" * 500}}


@pytest.fixture
def new_kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewKept]:
    """A function that makes a facility with two datasets that have expired, told of and read back just now."""
    made: list[Retained] = []

    def new(
        *,
        expired: bool = True,
        told: bool = True,
        on: Sequence[str] = ("central", "second", "vault"),
        **more: Any,
    ) -> Retained:
        folder = tmp_path_factory.mktemp("kept")
        kept = retained(folder, **more)
        made.append(kept)
        for name, contents in CONTENTS.items():
            kept.dataset(name, contents, on=on)
        kept.close()
        if expired:
            kept.clock.at += timedelta(days=100)
            if told:
                kept.told()
            kept.verified()
            kept.trust_clock()
        return kept

    yield new
    for each in made:
        each.facility.close()


@pytest.fixture
def kept(new_kept: NewKept) -> Retained:
    return new_kept()


@pytest.fixture
def approved(kept: Retained) -> str:
    """Id of an approved plan of all that is on `central`."""
    return approve(kept)


def approve(kept: Retained, **more: Any) -> str:
    """Return the id of a new, approved plan."""
    plan = purge_plan.plan(kept.facility, "central", principal=ADMIN, **more)
    assert kept.facility.catalog.view(SERVICE).plan(plan.id) == plan
    return purge_plan.approve(kept.facility, plan.id, principal=MANAGER).id


UNITS = """
[rule.warm]
keep = "3 months"
min_copies = 1
durable = true
"""


@pytest.fixture
def new_packed(new_kept: NewKept) -> Callable[..., Retained]:
    """A function that makes the same two datasets on `central` and `vault`, and one unit of both on `second`."""

    def new(**more: Any) -> Retained:
        kept = new_kept(expired=False, policy=POLICY + UNITS, on=("central", "vault"), **more)
        (unit,) = archive(kept.facility, principal=ADMIN, store_id="second", experiment_id=EXPERIMENT).units
        assert unit.members == 3
        store = kept.facility.stores["second"]
        store.record = replace(store.record, capacity=100_000)
        set_store(kept.facility, store.record, principal=ADMIN)
        kept.clock.at += timedelta(days=100)
        kept.told("second")
        kept.verified()
        kept.trust_clock()
        return kept

    return new
