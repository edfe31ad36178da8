"""May a policy approve a purge plan by itself? For what is small and expected; the rest is for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from lightkeep.model.datasets import DatasetKind
from lightkeep.model.decision import Decision
from lightkeep.model.quantity import bytes_in_words
from lightkeep.model.retention import BY_POLICY, PlanReason, PlanState, PurgePlan
from lightkeep.policy.retention import Policy


@dataclass(frozen=True, slots=True)
class Named:
    """What a plan names, all of it."""

    policies: tuple[str, ...]
    """Stamps of the policies under which its items would go."""
    kinds: tuple[DatasetKind, ...]
    """Of the datasets."""
    has_last_copy: bool = False
    is_public: bool = False


def may_approve(
    plan: PurgePlan, named: Named, policies: Sequence[Policy], now: datetime, *, approved_today: int
) -> Decision:
    """Decide whether the policy of a plan approves it, from now on.

    Parameters
    ----------
    policies: one version of each, the newest.
    approved_today: bytes of the plans that the same policy approved by itself in the last 24 hours.

    Returns
    -------
    : its `rule` is the approval's stamp, `policy:id@version`, also while only time is lacking; otherwise empty.
    """
    policy = next((each for each in policies if (each.stamp,) == named.policies), None)
    if len(named.policies) != 1 or policy is None or policy.approval is None:
        return Decision(False, "no policy approves it by itself", "")
    terms = policy.approval
    refusal = ""
    if plan.state is not PlanState.FROZEN:
        refusal = f"it is {plan.state}"
    elif plan.reason is PlanReason.EMERGENCY:
        refusal = "an emergency is approved by two people"
    elif named.has_last_copy:
        refusal = "last copies would go: people approve that"
    elif named.is_public:
        refusal = "public data would go: people approve that"
    elif terms.up_to is not None and plan.size + approved_today > terms.up_to:
        refusal = f"policy {policy.stamp} approves at most {bytes_in_words(terms.up_to)} in a day"
    elif terms.kinds and not set(named.kinds) <= set(terms.kinds):
        refusal = f"policy {policy.stamp} approves only {', '.join(terms.kinds)} data"
    if refusal:
        return Decision(False, refusal, "")
    at = approves_at(plan, policy)
    if at is None or at >= plan.expires_at:
        return Decision(False, "it is over before its policy could approve it", "")
    stamp = f"{BY_POLICY}{policy.stamp}"
    if now < at:
        return Decision(False, f"policy {policy.stamp} approves it by itself at {at:%Y-%m-%d %H:%M} UTC", stamp)
    return Decision(True, f"policy {policy.stamp} approves it by itself", stamp)


def approves_at(plan: PurgePlan, policy: Policy) -> datetime | None:
    """Return when the waiting time of a plan is over; None: the policy approves none."""
    if policy.approval is None or plan.created_at is None:
        return None
    return plan.created_at + timedelta(hours=policy.approval.after_hours)
