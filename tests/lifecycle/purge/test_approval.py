"""A policy approves by itself what it was told to, after people had time to look, and nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest

from lightkeep.lifecycle.health import guards
from lightkeep.lifecycle.people import experiments
from lightkeep.lifecycle.retention import plan_approval, policies, purge, purge_plan
from lightkeep.lifecycle.retention.purge_destroy import destroy
from lightkeep.model.errors import Conflict, InvalidInput
from lightkeep.model.people import SERVICE
from lightkeep.model.retention import PlanReason, PlanState, PurgePlan
from lightkeep.policy import document
from lightkeep.testing.retained import ADMIN, EXPERIMENT, MANAGER, POLICY, Retained

TERMS = """
[approve]
after_hours = 12
up_to = "4 kB"
"""


def with_terms(terms: str) -> str:
    head, _, rules = POLICY.partition("[[rule]]")
    return f"{head}{terms}\n[[rule]]{rules}"


def made(kept: Retained, **more: object) -> PurgePlan:
    return purge_plan.plan(kept.facility, "central", principal=ADMIN, **more)


def after(kept: Retained, plan: PurgePlan, hours: float = 12) -> PurgePlan:
    """Let the hours go by, as upkeep does it, and return the plan."""
    kept.clock.at += timedelta(hours=hours)
    kept.trust_clock()
    plan_approval.tick(kept.facility)
    return kept.facility.catalog.view(SERVICE).plan(plan.id)


def test_a_small_plan_is_approved_by_its_policy_after_the_time_to_look_at_it_and_runs(new_kept):
    kept = new_kept(policy=with_terms(TERMS))
    plan = made(kept)
    decision = plan_approval.decide(kept.facility, plan)
    assert not decision
    assert decision.reason.startswith("policy three-months@1 approves it by itself at ")
    early = after(kept, plan, 11.9)
    assert (early.state, early.approvals) == (PlanState.FROZEN, ())
    approved = after(kept, plan, 0.2)
    assert (approved.state, approved.approvals) == (PlanState.APPROVED, ("policy:three-months@1",))
    assert approved.people == frozenset()
    assert purge.run(kept.facility, plan.id, principal=ADMIN).items == 3
    kept.clock.at += timedelta(days=14)
    kept.verified()
    kept.trust_clock()
    (ended,) = destroy(kept.facility, principal=ADMIN)
    assert ended.items == 3
    event = next(
        each for each in kept.facility.catalog.view(SERVICE).events(limit=10_000) if each.verb == "plan.approved"
    )
    assert event.actor == "policy:three-months@1"


def test_a_person_may_cancel_or_approve_before_the_policy_does(new_kept):
    kept = new_kept(policy=with_terms(TERMS))
    plan = made(kept)
    purge_plan.cancel(kept.facility, plan.id, principal=ADMIN)
    assert after(kept, plan).state is PlanState.CANCELLED
    again = made(kept)
    purge_plan.approve(kept.facility, again.id, principal=MANAGER)
    assert after(kept, again).approvals == (MANAGER.id,)


@pytest.mark.parametrize(
    "terms",
    [
        "",
        '[approve]\nafter_hours = 12\nup_to = "3 kB"',
        '[approve]\nafter_hours = 12\nup_to = "1 TB"\nkind = ["derived"]',
    ],
    ids=["no terms", "too large", "another kind"],
)
def test_nothing_outside_its_terms_is_approved(new_kept, terms):
    kept = new_kept(policy=with_terms(terms))
    plan = after(kept, made(kept), 13)
    assert (plan.state, plan.approvals) == (PlanState.FROZEN, ())
    assert not plan_approval.decide(kept.facility, plan).rule


def test_an_emergency_needs_two_people_whatever_the_policy_says(new_kept):
    kept = new_kept(policy=with_terms(TERMS), capacity=3_600)
    kept.facility = _all_at_once(kept)
    plan = made(kept, reason=PlanReason.EMERGENCY)
    assert after(kept, plan, 13).state is PlanState.FROZEN
    with kept.facility.catalog.change(SERVICE) as tx:  # as if somebody had written it in
        tx.approve_plan(plan.id, person_id="policy:three-months@1", is_enough=False)
        tx.approve_plan(plan.id, person_id=MANAGER.id, is_enough=True)
    assert purge.run(kept.facility, plan.id, principal=ADMIN).items == 0
    assert kept.states() == ["verified"] * 3


def test_pressure_is_approved_as_what_has_expired_is(new_kept):
    kept = new_kept(policy=with_terms(TERMS), capacity=3_600)
    kept.facility = _all_at_once(kept)
    assert after(kept, made(kept, reason=PlanReason.PRESSURE)).state is PlanState.APPROVED


def test_public_data_are_for_people(new_kept):
    kept = new_kept(policy=with_terms(TERMS))
    experiments.release(kept.facility, EXPERIMENT, principal=ADMIN)
    plan = after(kept, made(kept), 13)
    assert plan.state is PlanState.FROZEN
    assert plan_approval.decide(kept.facility, plan).reason == "public data would go: people approve that"
    with pytest.raises(Conflict):
        purge.run(kept.facility, plan.id, principal=ADMIN)
    assert purge_plan.approve(kept.facility, plan.id, principal=ADMIN).state is PlanState.APPROVED


def test_last_copies_are_for_people(new_kept):
    text = with_terms(TERMS).replace("durable = true", "last_copy = true")
    kept = new_kept(policy=text, on=("central",), told=False)
    kept.clock.at -= timedelta(days=100)
    kept.told(last_copy=True)
    kept.clock.at += timedelta(days=100)
    kept.trust_clock()
    plan = after(kept, made(kept), 13)
    assert plan.state is PlanState.FROZEN
    assert "last copies would go" in plan_approval.decide(kept.facility, plan).reason


def test_the_amount_counts_for_a_day_not_for_a_plan(new_kept):
    kept = new_kept(policy=with_terms(TERMS.replace("4 kB", "3.4 kB")))
    first = made(kept, experiments=None)
    assert after(kept, first, 13).state is PlanState.FROZEN  # 3.5 kB
    kept = new_kept(policy=with_terms(TERMS.replace("4 kB", "5 kB")))
    plan = after(kept, made(kept))
    assert plan.state is PlanState.APPROVED
    purge_plan.cancel(kept.facility, plan.id, principal=ADMIN)
    second = made(kept)
    assert after(kept, second, 13).state is PlanState.FROZEN  # 3.5 kB today already
    assert "at most 5 kB in a day" in plan_approval.decide(kept.facility, second).reason


def test_a_new_version_of_the_policy_ends_what_the_old_one_approved(new_kept):
    kept = new_kept(policy=with_terms(TERMS))
    plan = after(kept, made(kept))
    assert plan.state is PlanState.APPROVED
    policies.adopt(kept.facility, POLICY, principal=ADMIN)
    assert purge.run(kept.facility, plan.id, principal=ADMIN).items == 0
    assert kept.states() == ["verified"] * 3
    for item in kept.facility.catalog.view(SERVICE).plan_items(plan.id):
        assert item.evidence["conditions"]["P13"][2] == f"plan {plan.id} needs an approval"


def test_nothing_is_approved_while_purges_are_suspended(new_kept):
    kept = new_kept(policy=with_terms(TERMS))
    plan = made(kept)
    guards.switch(kept.facility, on=False, principal=ADMIN)
    assert after(kept, plan, 13).state is PlanState.FROZEN


def test_a_plan_that_nobody_approved_still_needs_somebody(new_kept):
    kept = new_kept(policy=with_terms(TERMS))
    plan = made(kept)
    with pytest.raises(Conflict, match="not approved"):
        purge.run(kept.facility, plan.id, principal=ADMIN)


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        ('[approve]\nup_to = "1 TB"', "after_hours"),
        ('[approve]\nafter_hours = 24\nup_to = "1 TB"', "after_hours"),
        ('[approve]\nafter_hours = 0\nup_to = "1 TB"', "after_hours"),
        ("[approve]\nafter_hours = 2", "would approve every plan"),
        ('[approve]\nafter_hours = 2\nup_to = "much"', "is no size"),
        ('[approve]\nafter_hours = 2\nkind = ["row"]', "is no kind"),
        ('[approve]\nafter_hours = 2\nupto = "1 TB"', "did you mean `up_to`"),
    ],
)
def test_terms_that_could_be_meant_otherwise_are_refused(terms, why):
    with pytest.raises(InvalidInput, match=why):
        document.parse(with_terms(terms))


def _all_at_once(kept: Retained):
    """Let a plan take all of a small store."""
    from dataclasses import replace

    from lightkeep.config import PurgeConfig

    return replace(kept.facility, config=replace(kept.facility.config, purge=PurgeConfig(max_fraction=1.0)))
