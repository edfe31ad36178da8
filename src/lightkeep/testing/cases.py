"""A deletion with nothing against it, and a way to change one fact of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from lightkeep.model.experiments import ExperimentState
from lightkeep.model.retention import (
    ItemState,
    Notice,
    NoticeState,
    PlanReason,
    PlanState,
    PurgeItem,
    PurgePlan,
)
from lightkeep.model.stores import ReplicaState, StoreRecord, Tier
from lightkeep.policy.case import Budget, Case, Copy, Guards, Home, PlanFacts, Step, Told
from lightkeep.policy.document import parse
from lightkeep.policy.retention import ClockFacts, Facts, Policy

NOW = datetime(2027, 6, 1, 12, tzinfo=UTC)
"""When the case is decided."""
EXPIRY = datetime(2027, 5, 10, 12, tzinfo=UTC)
"""Three months after its experiment was closed."""
CENTRAL = StoreRecord("central", "posix", "/srv/central", "uuid-central", failure_domain="hall", capacity=10**15)
TAPE = StoreRecord("tape", "hpss", "/tape", "uuid-tape", Tier.TAPE, "silo", is_durable=True)
MIRROR = StoreRecord("mirror", "posix", "/srv/mirror", "uuid-mirror", Tier.WARM, "annex")
POLICY_TEXT = """
id = "test"
stations = ["*"]
[[rule]]
name = "beamtime"
[rule.hot]
keep = "3 months"
keep_under_pressure = "1 month"
min_copies = 1
durable = true
"""


def policy_of(text: str = POLICY_TEXT, *, author: str = "ann") -> Policy:
    """Return a policy that somebody adopted as its first version."""
    return parse(text, version=1, author=author)


def notice(days: int, *, last_copy: bool = False, sent_at: datetime | None = None) -> Told:
    """Return a notice that was sent in time to one person and lists the replica."""
    found = Notice(
        f"nt_{days}", "exp", "central", days, "aa" * 32, 1, 100, EXPIRY, ("pi@example.org",), NoticeState.SENT,
        "test@1", last_copy, EXPIRY - timedelta(days), sent_at or EXPIRY - timedelta(days),
    )  # fmt: skip
    return Told(found, True)


def lawful_case(step: Step = Step.TRASH) -> Case:
    """Return a case that may be deleted at `NOW`: on `central`, with a copy on tape that was just read back."""
    trashed = step is Step.DESTROY
    item = PurgeItem(
        "pl_1", 0, "rp_1", "fl_1", "ds_1", "exp", "central", "ds_1/scan.h5", 100, "ab" * 32, "test@1",
        state=ItemState.TRASHED if trashed else ItemState.PLANNED, evidence={"P1": "tape"} if trashed else {},
        trash_key=".trash/pl_1/ds_1/scan.h5" if trashed else "",
        trashed_at=NOW - timedelta(days=14) if trashed else None, destroy_after=NOW if trashed else None,
    )  # fmt: skip
    plan = PurgePlan(
        "pl_1", "central", "uuid-central", PlanReason.EXPIRY, "cd" * 32, 1, 100, 0, NOW + timedelta(hours=12),
        PlanState.DONE if trashed else PlanState.RUNNING, "bob", NOW - timedelta(hours=1), ("cy",),
        NOW - timedelta(minutes=30), 100 if trashed else 0,
    )  # fmt: skip
    state = ReplicaState.DELETE_PENDING if trashed else ReplicaState.VERIFIED
    read = NOW - timedelta(hours=1)
    return Case(
        Copy("rp_1", CENTRAL, state, "ds_1/scan.h5", read),
        Home(
            "ds_1",
            "exp",
            Facts("8-ID-I", "xpcs", size=100),
            ClockFacts(ExperimentState.CLOSED, closed_at=datetime(2027, 2, 10, 12, tzinfo=UTC)),
            policy_of(),
        ),
        "fl_1",
        100,
        "ab" * 32,
        Budget(held=10**12),
        Guards(high_water=NOW),
        step,
        others=(Copy("rp_2", TAPE, ReplicaState.VERIFIED, "ds_1/scan.h5", read),),
        told=(notice(30), notice(7), notice(1)),
        plan=PlanFacts(plan, item, "cd" * 32),
        uuid_seen="uuid-central",
    )


def last_copy_case(step: Step = Step.TRASH) -> Case:
    """Return a case whose file has no other copy, and that may go all the same: people were told and answered."""
    told = tuple(notice(days, last_copy=True) for days in (30, 7, 1))
    answered = replace(told[2].notice, state=NoticeState.ACKNOWLEDGED, acknowledged_by="lee")
    policy = policy_of(POLICY_TEXT.replace("durable = true", "last_copy = true"))
    told = (*told[:2], Told(answered, True))
    case: Case = changed(lawful_case(step), **{"others": (), "told": told, "home.policy": policy})
    return case


def changed(thing: Any, **facts: Any) -> Any:
    """Return a case, or a part of one, with other facts.

    >>> changed(lawful_case(), **{"home.clock.state": "open"}).home.clock.state
    'open'
    """
    for path, value in facts.items():
        name, _, rest = path.partition(".")
        thing = replace(thing, **{name: changed(getattr(thing, name), **{rest: value}) if rest else value})
    return thing
