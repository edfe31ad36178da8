"""Who manages a station sees of a plan what is of that station, and cannot tell what else is on it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lightkeep.lifecycle.retention import plan_approval, purge, purge_plan
from lightkeep.model.errors import Forbidden, NotFound
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.model.retention import PurgePlan
from lightkeep.testing.retained import ADMIN, MANAGER, Retained

OTHER = "2026-1-kim-2"
BONNIE, NOBODY = Principal("bonnie"), Principal("nora")


@pytest.fixture
def two(new_kept) -> Retained:
    """Data of two stations on `central`, all of which may go; `bonnie` manages the second, `nora` a third."""
    kept = new_kept(expired=False)
    with kept.facility.catalog.change(SERVICE) as tx:
        for station, who in (("2-BM", BONNIE), ("3-ID", NOBODY)):
            tx.add_station(Station(station))
            tx.add_person(Person(who.id, who.id.title(), f"{who.id}@example.org"))
            tx.add_grant(Grant(who.id, Role.STATION_MANAGER, Scope.STATION, station))
        tx.add_experiment(Experiment(OTHER, "2-BM", "Bones"))
    kept.dataset("bones", {"d.h5": b"d" * 400}, experiment=OTHER)
    kept.close(OTHER)
    kept.clock.at += timedelta(days=100)
    kept.told()
    kept.told(experiment=OTHER)
    kept.verified()
    kept.trust_clock()
    return kept


def plan_of_both(kept: Retained) -> PurgePlan:
    plan = purge_plan.plan(kept.facility, "central", principal=ADMIN)
    assert (plan.files, plan.size, plan.is_whole) == (4, 3900, True)
    return plan


def test_the_figures_are_those_of_the_items_that_one_sees(two):
    plan = plan_of_both(two)
    view = two.facility.catalog.view(BONNIE)
    seen = view.plan(plan.id)
    assert (seen.files, seen.size, seen.freed, seen.need, seen.hash, seen.is_whole) == (1, 400, 0, 0, "", False)
    assert view.plans().items == [seen]
    assert view.item_counts(plan.id) == {"planned": (1, 400)}
    assert [item.key.split("/")[-1] for item in view.plan_items(plan.id)] == ["d.h5"]
    assert [part.name for part in view.plan_parts(plan.id)] == ["bones"]
    assert purge_plan.lacking(two.facility, seen, seen.approvals).startswith("an administrator")
    assert not plan_approval.decide(two.facility, seen).rule
    with pytest.raises(Forbidden):
        purge_plan.approve(two.facility, plan.id, principal=BONNIE)


def test_the_figures_stay_those_of_the_part_while_the_plan_runs(two):
    plan = plan_of_both(two)
    purge_plan.approve(two.facility, plan.id, principal=ADMIN)
    purge.run(two.facility, plan.id, principal=ADMIN)
    view = two.facility.catalog.view(BONNIE)
    assert (view.plan(plan.id).freed, view.item_counts(plan.id)) == (400, {"trashed": (1, 400)})
    assert two.facility.catalog.view(ADMIN).plan(plan.id).freed == 3900
    evidence = str([item.evidence for item in view.plan_items(plan.id)])
    assert not any(figure in evidence for figure in ("3900", "3500", "100000"))


def test_a_plan_that_names_nothing_one_sees_is_not_there(two):
    plan = plan_of_both(two)
    view = two.facility.catalog.view(NOBODY)
    assert (view.plans().total, view.plans().items) == (0, [])
    for look in (view.plan, view.item_counts, view.plan_parts):
        with pytest.raises(NotFound):
            look(plan.id)


def test_a_plan_of_ones_own_station_alone_is_seen_whole_and_can_be_approved(two):
    plan = purge_plan.plan(two.facility, "central", principal=ADMIN, experiments=[OTHER])
    assert two.facility.catalog.view(BONNIE).plan(plan.id) == plan
    assert purge_plan.approve(two.facility, plan.id, principal=BONNIE).approvals == (BONNIE.id,)
    with pytest.raises(NotFound):
        two.facility.catalog.view(MANAGER).plan(plan.id)
