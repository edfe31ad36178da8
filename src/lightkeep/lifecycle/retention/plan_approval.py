"""Plans that their policy approves by itself, after people had time to look at them; see `policy.approval`."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from lightkeep.lifecycle.health import guards
from lightkeep.lifecycle.retention.purge_plan import lacking
from lightkeep.model.decision import Decision
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.retention import PlanState, PurgePlan
from lightkeep.policy.approval import Named, may_approve

if TYPE_CHECKING:
    from lightkeep.facility import Facility

_MOST = 10_000


def decide(facility: Facility, plan: PurgePlan) -> Decision:
    """Return whether the policy of a plan approves it by itself now; the reason says when it will, or why not."""
    if not plan.is_whole:
        return Decision(False, "it names data that you do not see", "")
    view, now = facility.catalog.view(SERVICE), facility.clock.now()
    flags = view.plan_flags(plan.id)
    policies, kinds = view.plan_names(plan.id)
    named = Named(policies, kinds, bool(flags.last_copy_policies), flags.is_public)
    today = sum(
        each.size
        for each in view.plans(limit=_MOST).items
        if each.approved_at is not None
        and each.approved_at > now - timedelta(days=1)
        and any(f":{stamp}" in approval for stamp in policies for approval in each.approvals)
    )
    return may_approve(plan, named, view.policies(), now, approved_today=today)


def tick(facility: Facility) -> int:
    """Let the policies approve what they may; return how many plans. Nothing while purges are suspended."""
    waiting = facility.catalog.view(SERVICE).plans(state=PlanState.FROZEN, limit=_MOST).items
    if not waiting or guards.status(facility).reasons:
        return 0
    approved = 0
    for plan in reversed(waiting):  # the oldest first
        decision = decide(facility, plan)
        if decision and not lacking(facility, plan, (*plan.approvals, decision.rule)):
            with facility.catalog.change(Principal(decision.rule)) as tx:
                tx.approve_plan(plan.id, person_id=decision.rule, is_enough=True)
            approved += 1
    return approved
