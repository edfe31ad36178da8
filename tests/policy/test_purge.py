"""Each condition of a deletion: what meets it, what one fact takes away, and when it turns true."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from lightkeep.model.experiments import ExperimentState
from lightkeep.model.retention import (
    Hold,
    HoldKind,
    HoldScope,
    ItemState,
    Lease,
    LeaseKind,
    NoticeState,
    PlanReason,
    PlanState,
)
from lightkeep.model.stores import ReplicaState
from lightkeep.policy.case import Case, Condition, Copy, Guards, Step, UnitFacts
from lightkeep.policy.purge import BY_PLANNING, CONDITIONS, may_delete, may_delete_all
from lightkeep.testing.cases import (
    EXPIRY,
    MIRROR,
    NOW,
    POLICY_TEXT,
    TAPE,
    changed,
    last_copy_case,
    lawful_case,
    notice,
    policy_of,
)

DAY = timedelta(days=1)
INSTANT = timedelta(microseconds=1)
IDS = {f"P{number}" for number in range(1, 18)}


def unmet(case: Case, now: datetime = NOW) -> set[str]:
    return {condition.id for condition in may_delete(case, now).conditions if not condition.met}


def condition(case: Case, name: str, now: datetime = NOW) -> Condition:
    return next(each for each in may_delete(case, now).conditions if each.id == name)


def with_policy(*lines: tuple[str, str]) -> dict[str, Any]:
    text = POLICY_TEXT
    for old, new in lines:
        assert old in text
        text = text.replace(old, new)
    return {"home.policy": policy_of(text)}


def hold(until: datetime | None = None, released_at: datetime | None = None) -> Hold:
    return Hold("hd_1", HoldScope.EXPERIMENT, "exp", HoldKind.USER, "thesis", until, released_at=released_at)


def mirror_copy(**facts: Any) -> Copy:
    return replace(Copy("rp_3", MIRROR, ReplicaState.VERIFIED, "k", NOW - timedelta(hours=1)), **facts)


def tape_copy(**facts: Any) -> Copy:
    return replace(Copy("rp_2", TAPE, ReplicaState.VERIFIED, "k", NOW - timedelta(hours=1)), **facts)


@pytest.mark.parametrize("step", Step)
def test_what_has_nothing_against_it_may_go_and_every_condition_says_why(step: Step) -> None:
    verdict = may_delete(lawful_case(step), NOW)
    assert verdict.allow
    assert verdict.rule == "beamtime"
    assert verdict.policy == "test@1"
    assert {each.id for each in verdict.conditions} == IDS
    assert all(each.text for each in verdict.conditions)
    assert verdict.turns_true_at is None


@pytest.mark.parametrize("step", Step)
def test_a_last_copy_may_go_when_people_answered_and_a_second_person_approved(step: Step) -> None:
    assert may_delete(last_copy_case(step), NOW).allow


BOTH = [
    ("P1", {"others": ()}),
    ("P1", {"others": (tape_copy(state=ReplicaState.SUSPECT),)}),
    ("P1", {"others": (tape_copy(state=ReplicaState.PRESENT),)}),
    ("P1", {"others": (tape_copy(state=ReplicaState.DELETE_PENDING),)}),
    ("P1", {"others": (tape_copy(verified_at=None),)}),
    ("P1", {"others": (tape_copy(is_planned=True),)}),
    ("P1", {"others": (tape_copy(store=replace(TAPE, is_managed=False)),)}),
    ("P1", {"others": (tape_copy(store=replace(TAPE, id="central")),)}),
    ("P1", {"others": (mirror_copy(),)}),  # not durable
    ("P1", with_policy(("min_copies = 1", "min_copies = 2"))),
    ("P2", {"home.holds": (hold(),)}),
    ("P2", {"holds": (hold(NOW + INSTANT),)}),
    ("P3", {"told": ()}),
    ("P3", {"told": (notice(30), notice(7))}),
    ("P3", {"told": (notice(30, sent_at=NOW - 30 * DAY + INSTANT), notice(7), notice(1))}),
    ("P3", {"told": tuple(replace(told, is_listed=False) for told in lawful_case().told)}),
    ("P3", {"told": tuple(changed(t, **{"notice.recipients": ()}) for t in lawful_case().told)}),
    ("P3", {"told": tuple(changed(t, **{"notice.state": NoticeState.DUE}) for t in lawful_case().told)}),
    ("P3", {"told": tuple(changed(t, **{"notice.state": NoticeState.VOID}) for t in lawful_case().told)}),
    ("P3", {"told": tuple(changed(t, **{"notice.expires_at": NOW + INSTANT}) for t in lawful_case().told)}),
    ("P3", {"told": (*lawful_case().told, changed(notice(1), **{"notice.state": NoticeState.BOUNCED}))}),
    ("P8", {"guards.clock_doubt": "the clock jumped"}),
    ("P8", {"guards.high_water": NOW + INSTANT}),
    ("P9", {"replica.store.is_managed": False}),
    ("P9", {"replica.state": ReplicaState.CORRUPT}),
    ("P9", {"home.is_complete": False}),
    ("P9", {"uuid_seen": ""}),
    ("P9", {"uuid_seen": "uuid-other"}),
    ("P9", {"plan.plan.store_uuid": "uuid-other"}),
    ("P10", {"guards.catalog_doubt": "the store knows a later event"}),
    ("P11", {"home.clock.state": ExperimentState.OPEN}),
    ("P11", {"home.clock.closed_at": NOW - 60 * DAY}),
    ("P11", {"home.clock.ends_at": NOW - 60 * DAY}),
    ("P11", {"home.clock.newest_raw_at": NOW - 60 * DAY}),
    ("P11", {"cache_until": NOW + INSTANT}),
    ("P12", {"home.is_public": True}),
    ("P13", {"plan.hash": "00" * 32}),
    ("P13", {"plan.plan.approvals": ()}),
    ("P13", {"plan.plan.approvals": ("",)}),
    ("P13", {"plan.plan.state": PlanState.FROZEN}),
    ("P13", {"plan.plan.state": PlanState.CANCELLED}),
    ("P14", {"guards.is_enabled": False}),
    ("P15", {"unit": UnitFacts(members=2, on_plan=1)}),
    ("P16", {"others": (tape_copy(verified_at=NOW - DAY - INSTANT),)}),
    ("P16", {"others": (tape_copy(verified_at=NOW + INSTANT),)}),
    ("P17", {"home.runs": ("run_1",)}),
    ("P17", {"home.leases": (Lease("le_1", "ds_1", LeaseKind.DOWNLOAD, "lee", NOW + INSTANT),)}),
    ("P5", {"plan.item.replica_id": "rp_9"}),
    ("P5", {"plan.item.file_id": "fl_9"}),
    ("P5", {"plan.item.dataset_id": "ds_9"}),
    ("P5", {"plan.item.key": "other"}),
    ("P5", {"plan.item.size": 101}),
    ("P5", {"plan.item.sha256": "00" * 32}),
    ("P5", {"plan.item.store_id": "mirror"}),
    ("P5", {"plan.item.state": ItemState.SKIPPED}),
    ("P5", {"plan.item.state": ItemState.UNDONE}),
    ("P5", {"plan.item.state": ItemState.DESTROYED}),
]


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize(("name", "facts"), BOTH, ids=[f"{name}-{n}" for n, (name, _) in enumerate(BOTH)])
def test_one_fact_against_it_is_enough_before_the_trash_and_before_the_end(
    name: str, facts: dict[str, Any], step: Step
) -> None:
    case = changed(lawful_case(step), **facts)
    verdict = may_delete(case, NOW)
    assert not verdict.allow
    # Too few copies: then neither P1 nor P4 is met, because this rule lets no last copy go.
    assert unmet(case) == ({"P1", "P4"} if name == "P1" else {name})
    assert name in verdict.reason or "P1" in verdict.reason


TRASH = [
    ("P5", {"plan.item": None}),
    ("P7", {"plan.plan.size": 10**14 + 1}),
    ("P7", {"plan.plan.freed": 1}),
    ("P7", {"budget.max_bytes_per_day": 199, "budget.freed_today": 100}),
    ("P13", {"plan.plan.expires_at": NOW}),
    ("P13", {"plan.plan.state": PlanState.DONE}),
]


@pytest.mark.parametrize(("name", "facts"), TRASH, ids=[f"{name}-{n}" for n, (name, _) in enumerate(TRASH)])
def test_a_plan_stays_within_its_list_its_time_and_its_caps(name: str, facts: dict[str, Any]) -> None:
    assert unmet(changed(lawful_case(), **facts)) == {name}


def test_without_a_plan_nothing_goes() -> None:
    assert unmet(replace(lawful_case(), plan=None)) == {"P5", "P7", "P13"}
    assert may_delete(replace(lawful_case(), plan=None), NOW).holds_but(*BY_PLANNING)


@pytest.mark.parametrize("freed", [100, 101, 10**9])
def test_under_pressure_it_stops_at_the_item_that_reaches_the_need(freed: int) -> None:
    case = changed(
        lawful_case(),
        **{"plan.plan.reason": PlanReason.PRESSURE, "plan.plan.need": 100, "plan.plan.size": 10**10},
    )
    assert unmet(changed(case, **{"plan.plan.freed": 99})) == set()
    assert unmet(changed(case, **{"plan.plan.freed": freed})) == {"P7"}
    assert unmet(changed(case, **{"plan.plan.need": 0})) == {"P7"}


def test_under_pressure_it_goes_earlier_but_only_then() -> None:
    closed = {"home.clock.closed_at": NOW - 45 * DAY}
    assert unmet(changed(lawful_case(), **closed)) == {"P11"}
    assert (
        unmet(changed(lawful_case(), **closed, **{"plan.plan.reason": PlanReason.PRESSURE, "plan.plan.need": 1}))
        == set()
    )
    closed = {"home.clock.closed_at": NOW - 20 * DAY}
    assert unmet(
        changed(lawful_case(), **closed, **{"plan.plan.reason": PlanReason.PRESSURE, "plan.plan.need": 1})
    ) == {"P11"}


def test_a_day_has_a_limit_and_zero_means_none() -> None:
    assert unmet(changed(lawful_case(), **{"budget.max_bytes_per_day": 200, "budget.freed_today": 100})) == set()
    assert unmet(changed(lawful_case(), **{"budget.freed_today": 10**15})) == set()


def test_a_store_without_a_known_capacity_is_measured_by_what_it_holds() -> None:
    case = changed(lawful_case(), **{"replica.store.capacity": 0, "plan.plan.size": 10**6})
    assert unmet(changed(case, **{"budget.held": 10**7})) == set()
    assert unmet(changed(case, **{"budget.held": 10**7 - 1})) == {"P7"}
    assert unmet(changed(case, **{"budget.held": 10**7 - 500, "plan.plan.freed": 500})) == set()


@pytest.mark.parametrize(
    ("now", "allow"), [(EXPIRY - INSTANT, False), (EXPIRY, True)], ids=["the moment before", "the moment"]
)
def test_it_may_go_from_the_moment_of_its_expiry_on(now: datetime, allow: bool) -> None:
    case = changed(lawful_case(), **{"guards.high_water": None, "others": (tape_copy(verified_at=now),)})
    assert may_delete(case, now).allow is allow
    if not allow:
        assert may_delete(case, now).turns_true_at == EXPIRY


def test_no_policy_and_no_rule_mean_keep() -> None:
    assert unmet(changed(lawful_case(), **{"home.policy": None})) >= {"P11"}
    other = with_policy(('name = "beamtime"', 'name = "beamtime"\nmatch = { technique = "hedm" }'))
    assert unmet(changed(lawful_case(), **other)) >= {"P11"}
    assert unmet(changed(lawful_case(), **with_policy(("rule.hot", "rule.warm")))) >= {"P11"}
    for_ever = with_policy(('keep = "3 months"', 'keep = "for ever"'), ('keep_under_pressure = "1 month"', ""))
    assert unmet(changed(lawful_case(), **for_ever)) == {"P11"}


def test_a_restored_copy_stays_as_long_as_it_was_asked_for() -> None:
    case = replace(lawful_case(), cache_until=NOW + DAY)
    assert condition(case, "P11").turns_true_at == NOW + DAY
    assert may_delete(replace(case, cache_until=NOW), NOW).allow


def test_a_hold_says_whose_it_is_and_when_it_ends() -> None:
    case = changed(lawful_case(), **{"home.holds": (hold(NOW + DAY),), "holds": (hold(NOW + 2 * DAY),)})
    found = condition(case, "P2")
    assert "thesis" in found.text
    assert found.turns_true_at == NOW + 2 * DAY
    open_end = changed(case, holds=(hold(),))
    assert condition(open_end, "P2").turns_true_at is None
    assert may_delete(open_end, NOW).turns_true_at is None


def test_a_hold_that_ended_or_was_released_holds_no_more() -> None:
    ended = (hold(NOW), hold(NOW + DAY, released_at=NOW - DAY))
    assert may_delete(changed(lawful_case(), **{"home.holds": ended}), NOW).allow


def test_a_lease_that_ran_out_blocks_nothing() -> None:
    over = Lease("le_1", "ds_1", LeaseKind.DOWNLOAD, "lee", NOW)
    assert may_delete(changed(lawful_case(), **{"home.leases": (over,)}), NOW).allow


def test_two_replicas_on_one_store_are_one_copy_and_two_stores_of_one_domain_are_one_domain() -> None:
    two = with_policy(("min_copies = 1", "min_copies = 2"))
    twice = (tape_copy(), tape_copy(replica_id="rp_4"))
    assert "P1" in unmet(changed(lawful_case(), others=twice, **two))
    same_domain = (tape_copy(), mirror_copy(store=replace(MIRROR, failure_domain="silo")))
    assert "P1" in unmet(changed(lawful_case(), others=same_domain, **two))
    assert unmet(changed(lawful_case(), others=(tape_copy(), mirror_copy()), **two)) == set()
    one_domain = with_policy(("min_copies = 1", "min_copies = 2\nmin_domains = 1"))
    assert unmet(changed(lawful_case(), others=same_domain, **one_domain)) == set()
    assert "P1" in unmet(changed(lawful_case(), others=twice, **one_domain))
    assert "P1" in unmet(changed(lawful_case(), others=twice[:1], **one_domain))


def test_where_a_copy_is_to_spare_a_month_old_read_back_is_enough() -> None:
    old = NOW - 30 * DAY
    one = with_policy(("durable = true", ""))
    spare = (tape_copy(verified_at=old), mirror_copy(verified_at=old))
    assert unmet(changed(lawful_case(), others=spare, **one)) == set()
    older = (tape_copy(verified_at=old - INSTANT), mirror_copy(verified_at=old))
    assert unmet(changed(lawful_case(), others=older, **one)) == {"P16"}
    assert condition(changed(lawful_case(), others=older, **one), "P16").evidence["stale"] == ["rp_2", "rp_3"]
    # The durable copy is not to spare, whatever else there is.
    assert unmet(changed(lawful_case(), others=spare)) == {"P16"}


def test_a_bounce_starts_the_clock_again() -> None:
    bounced = changed(notice(7), **{"notice.state": NoticeState.BOUNCED, "notice.sent_at": NOW - 40 * DAY})
    again = tuple(notice(days, sent_at=NOW - 35 * DAY) for days in (30, 7, 1))
    assert may_delete(changed(lawful_case(), told=(bounced, *again)), NOW).allow
    before = tuple(notice(days, sent_at=NOW - 40 * DAY) for days in (30, 7, 1))
    assert unmet(changed(lawful_case(), told=(bounced, *before))) == {"P3"}
    # Also when the bounced one spoke of other files: the people of this experiment cannot be reached.
    assert unmet(changed(lawful_case(), told=(replace(bounced, is_listed=False), *before))) == {"P3"}


def test_the_notice_says_until_when_it_stays() -> None:
    case = changed(lawful_case(), told=(notice(30, sent_at=NOW - 10 * DAY),))
    assert condition(case, "P3").turns_true_at == NOW + 20 * DAY
    assert "2027-06-21" in condition(case, "P3").text
    assert condition(changed(case, told=()), "P3").turns_true_at is None


LAST = [
    ({"plan.plan.approvals": ("ann",)}, "the policy's author"),
    ({"told": tuple(notice(days, last_copy=True) for days in (30, 7, 1))}, "nobody answered"),
    ({"told": tuple(notice(days) for days in (30, 7, 1))}, "people thought another copy stays"),
]


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize(("facts", "why"), LAST, ids=[why for _, why in LAST])
def test_a_last_copy_stays_while_anything_of_p4_is_missing(facts: dict[str, Any], why: str, step: Step) -> None:
    del why
    assert unmet(changed(last_copy_case(step), **facts)) == {"P4"}


def test_a_last_copy_goes_without_an_answer_only_long_after_the_last_notice() -> None:
    told = tuple(notice(days, last_copy=True) for days in (30, 7, 1))
    case = changed(last_copy_case(), told=told)
    last = EXPIRY - DAY
    assert condition(case, "P4").turns_true_at == last + 90 * DAY
    at = last + 90 * DAY
    late = changed(case, **{"plan.plan.expires_at": at + DAY})
    assert may_delete(late, at).allow
    assert unmet(late, at - INSTANT) == {"P4"}


def test_whatever_people_say_a_last_copy_stays_where_the_rule_does_not_name_it() -> None:
    strict = with_policy(("durable = true", ""))
    assert unmet(changed(last_copy_case(), **strict)) == {"P1", "P4"}


def test_one_notice_of_a_last_copy_is_not_enough() -> None:
    answered = last_copy_case().told[2]
    once = changed(last_copy_case(), told=(notice(30), notice(7), answered))
    assert unmet(once) == {"P4"}


def test_public_data_keep_a_copy_and_ask_an_administrator() -> None:
    public = {"home.is_public": True}
    assert unmet(changed(lawful_case(), **public)) == {"P12"}
    assert unmet(changed(lawful_case(), **public, **{"plan.admins": ("cy",)})) == set()
    assert unmet(changed(last_copy_case(), **public, **{"plan.admins": ("cy",)})) == {"P12"}


@pytest.mark.parametrize(("approvals", "allow"), [(("cy",), False), (("cy", "cy"), False), (("cy", "di"), True)])
def test_an_emergency_takes_two_people_and_skips_the_undo_window(approvals: tuple[str, ...], allow: bool) -> None:
    emergency = {
        "plan.plan.reason": PlanReason.EMERGENCY, "plan.plan.need": 1000, "plan.plan.approvals": approvals,
    }  # fmt: skip
    assert may_delete(changed(lawful_case(), **emergency), NOW).allow is allow
    fresh = {"plan.item.trashed_at": NOW, "plan.item.destroy_after": NOW + 14 * DAY}
    assert unmet(changed(lawful_case(Step.DESTROY), **emergency, **fresh)) == (set() if allow else {"P6", "P13"})


@pytest.mark.parametrize(
    "facts",
    [
        {"plan.item.destroy_after": NOW + INSTANT},
        {"plan.item.trashed_at": NOW - 14 * DAY + INSTANT},
        {"plan.item.trashed_at": None},
        {"plan.item.destroy_after": None},
    ],
    ids=["its date", "the rule's days", "never trashed", "no date"],
)
def test_the_trash_is_kept_for_the_whole_undo_window(facts: dict[str, Any]) -> None:
    assert unmet(changed(lawful_case(Step.DESTROY), **facts)) == {"P6"}


def test_what_was_trashed_without_a_record_of_why_is_never_destroyed() -> None:
    assert unmet(changed(lawful_case(Step.DESTROY), **{"plan.item.evidence": {}})) == {"P5"}
    assert unmet(changed(lawful_case(Step.DESTROY), **{"plan.item.trash_key": ""})) == {"P5"}


def test_only_a_whole_unit_goes() -> None:
    assert may_delete(changed(lawful_case(), unit=UnitFacts(3, 3)), NOW).allow
    assert unmet(changed(lawful_case(), unit=UnitFacts(3, 4))) == {"P15"}


def test_a_refusal_names_the_first_condition_that_a_person_would_ask_for() -> None:
    case = changed(lawful_case(), **{"home.holds": (hold(),), "guards": Guards(is_enabled=False)})
    verdict = may_delete(case, NOW)
    assert verdict.reason == "on hold until it is released: thesis (user hold on experiment exp) (P2 holds)"
    assert not verdict


def test_when_it_may_go_is_the_latest_of_the_dates_that_are_known() -> None:
    case = changed(lawful_case(), holds=(hold(NOW + 3 * DAY),), cache_until=NOW + 2 * DAY)
    assert may_delete(case, NOW).turns_true_at == NOW + 3 * DAY
    assert may_delete(changed(case, **{"guards.is_enabled": False}), NOW).turns_true_at is None


def test_cases_that_are_alike_are_decided_once_and_the_same() -> None:
    base = replace(lawful_case(), plan=None)
    held = replace(base, holds=(hold(),))
    others = tuple(replace(copy, verified_at=NOW - 2 * DAY) for copy in base.others)
    cases = [base, held, replace(base, file_id="fl_2"), replace(base, others=others), lawful_case()]
    cases += [changed(base, **facts) for _, facts in BOTH if not any("plan" in name for name in facts)]
    verdicts = may_delete_all(cases, NOW)
    assert verdicts == [may_delete(case, NOW) for case in cases]
    assert verdicts[0] is verdicts[2]


def test_there_are_seventeen_conditions_each_once() -> None:
    assert len(CONDITIONS) == len(IDS) == len({condition.__name__ for condition in CONDITIONS})
