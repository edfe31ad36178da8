"""May this replica be deleted now? The one decision that planner, executor, dry run, API and `explain` share.

Every condition must be met. They are evaluated twice: when the bytes go to the trash, in the transaction that
records the intent, and again before they are destroyed.

==== ============ =============================================================================================
P1   copies       enough other good copies stay, on other stores, in enough failure domains
P2   holds        no hold stands on it, at any level
P3   notice       people were told long enough ago, about this very file, and it reached them
P4   last copy    where too few copies stay: the rule says so, people answered, a second person approved
P5   intent       the plan's item is this replica with this content, and was not dealt with yet
P6   trash        bytes leave the trash only after the undo window
P7   caps         the plan is no larger than a plan may be, and stops when it has freed what it must
P8   clock        the machine's time can be trusted
P9   record       the catalogue knows it, Lightkeep wrote it, and the store is the one it should be
P10  catalogue    the catalogue is not an older one that was put back
P11  expiry       its time by the policy is over
P12  public       what is public keeps a copy that can be read, and goes only with an administrator's approval
P13  plan         a frozen, approved plan that is not over names it
P14  switch       purges are switched on
P15  unit         all members of its archive unit go with it
P16  read-back    the copies that stay were read back; just now where none is to spare
P17  leases       nobody reads it
==== ============ =============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from lightkeep.model.retention import BY_POLICY, Hold, ItemState, Notice, NoticeState, PlanReason, PlanState
from lightkeep.model.stores import ReplicaState
from lightkeep.policy.case import Case, Condition, Copy, PlanFacts, Step, Verdict
from lightkeep.policy.retention import Expiry, Keep, Rule, expiry
from lightkeep.policy.spans import LATEST

BY_PLANNING = ("P5", "P7", "P13", "P16")
"""Conditions that a plan, its approval and the read-back before its run fulfil; P4, P12 and P15 partly."""

_NEVER = Rule("")


def may_delete(case: Case, now: datetime) -> Verdict:
    """Decide whether a replica may go, with every condition, its evidence and the date when it turns true.

    Parameters
    ----------
    case: facts as of `now`, read in the transaction that acts on the answer.
    now: aware.
    """
    limit = _expiry(case)
    work = _Work(case, now, limit, _rule(case))
    conditions = tuple(condition(work) for condition in CONDITIONS)
    refused = next((each for each in conditions if not each.met), None)
    reason = "every condition is met" if refused is None else f"{refused.text} ({refused.id} {refused.name})"
    return Verdict(refused is None, reason, limit.rule, conditions, limit.policy)


def may_delete_all(cases: Iterable[Case], now: datetime) -> list[Verdict]:
    """Decide on many replicas that no plan names yet, in order; cases that are alike are decided once.

    The evidence of a verdict names the copies of the first case that it was made for.
    """
    known: dict[tuple[object, ...], Verdict] = {}
    verdicts = []
    for case in cases:
        if case.plan is not None:
            verdicts.append(may_delete(case, now))
            continue
        key = _likeness(case)
        if key not in known:
            known[key] = may_delete(case, now)
        verdicts.append(known[key])
    return verdicts


def may_delete_together(cases: Sequence[Case], now: datetime) -> list[Verdict]:
    """Decide on all members of one object, in order: it goes as a whole, or not at all.

    Where one of them must stay for another reason than a read-back that is due or today's allowance, the verdicts
    on the others name it.
    """
    verdicts = [may_delete(case, now) for case in cases]
    pairs = zip(cases, verdicts, strict=True)
    stays = next(((case, verdict) for case, verdict in pairs if not verdict.holds_but("P7", "P16")), None)
    if stays is None or len(cases) == 1:
        return verdicts
    case, verdict = stays
    text = f"file {case.file_id} of dataset {case.home.dataset_id} stays: {verdict.reason}"
    return [
        verdict
        if not verdict or each.unit is None
        else may_delete(replace(each, unit=replace(each.unit, stays=text)), now)
        for each, verdict in zip(cases, verdicts, strict=True)
    ]


def _likeness(case: Case) -> tuple[object, ...]:
    """Return all that decides while no plan does; what many cases share is compared by identity."""
    return (
        id(case.home),
        id(case.replica.store),
        case.replica.state,
        case.step,
        case.reason,
        case.cache_until,
        case.unit,
        case.uuid_seen,
        id(case.guards),
        id(case.budget),
        tuple([(id(copy.store), copy.state, copy.verified_at, copy.is_planned) for copy in case.others]),
        tuple([id(hold) for hold in case.holds]),
        tuple([(id(told.notice), told.is_listed) for told in case.told]),
    )


class _Work:
    """A case with what several conditions need of it."""

    __slots__ = ("case", "enough", "expiry", "keep", "now", "reason", "rule", "staying")

    def __init__(self, case: Case, now: datetime, limit: Expiry, rule: Rule) -> None:
        self.case = case
        self.now = now
        self.expiry = limit
        self.rule = rule
        self.keep = rule.keep.get(case.replica.store.tier, _KEEP)
        self.reason = case.plan.plan.reason if case.plan else case.reason
        self.staying = [copy for copy in case.others if _stays(copy, case.replica)]
        self.enough = _enough(self.staying, self.keep)


_KEEP = Keep()


def _rule(case: Case) -> Rule:
    policy = case.home.policy
    return (policy.rule_for(case.home.facts) if policy else None) or _NEVER


def _expiry(case: Case) -> Expiry:
    return expiry(case.home.policy, case.home.clock, case.home.facts, tier=case.replica.store.tier)


def _stays(copy: Copy, replica: Copy) -> bool:
    return (
        copy.state is ReplicaState.VERIFIED
        and copy.verified_at is not None
        and copy.store.is_managed
        and copy.store.id != replica.store.id
        and not copy.is_planned
    )


def _enough(copies: Iterable[Copy], keep: Keep) -> bool:
    stores = {copy.store.id: copy.store for copy in copies}.values()
    return (
        len(stores) >= max(1, keep.min_copies)
        and len({store.failure_domain for store in stores}) >= max(1, keep.min_domains)
        and (not keep.durable or any(store.is_durable for store in stores))
    )


def _expired(work: _Work) -> Condition:
    limit, until = work.expiry, work.case.cache_until
    at = limit.at if work.reason is PlanReason.EXPIRY else limit.pressure_at
    if at is not None and until is not None:
        at = max(at, until)
    met = at is not None and work.now >= at
    text = limit.text if at is None else f"{limit.text}; kept until {_day(at)}"
    evidence = {"policy": limit.policy, "rule": limit.rule, "until": _iso(at), "cache_until": _iso(until)}
    return Condition("P11", "expiry", met, text, evidence, None if met else at)


def _holds(work: _Work) -> Condition:
    standing = [hold for hold in (*work.case.home.holds, *work.case.holds) if hold.stands(work.now)]
    if not standing:
        return Condition("P2", "holds", True, "no hold stands")
    ends = [hold.until for hold in standing]
    end = max((at for at in ends if at), default=None) if all(ends) else None
    longest = next((hold for hold in standing if hold.until is None), None) or max(standing, key=_until)
    until = f"until {_day(longest.until)}" if longest.until else "until it is released"
    text = f"on hold {until}: {longest.reason} ({longest.kind} hold on {longest.scope} {longest.scope_id})"
    return Condition("P2", "holds", False, text, {"holds": [hold.id for hold in standing]}, end)


def _until(hold: Hold) -> str:
    return _iso(hold.until) or ""


def _leases(work: _Work) -> Condition:
    home = work.case.home
    reading = [lease for lease in home.leases if work.now < lease.expires_at]
    if home.runs:
        return Condition("P17", "leases", False, f"run {home.runs[0]} works on it", {"runs": list(home.runs)})
    if not reading:
        return Condition("P17", "leases", True, "nobody reads it")
    end = max(lease.expires_at for lease in reading)
    text = f"a {reading[0].kind} reads it until {_minute(end)} at the latest"
    return Condition("P17", "leases", False, text, {"leases": [lease.id for lease in reading]}, end)


def _copies(work: _Work) -> Condition:
    keep, staying = work.keep, work.staying
    wanted = f"{keep.min_copies} in {keep.min_domains} failure domains{', one durable' if keep.durable else ''}"
    evidence = {
        "staying": [copy.replica_id for copy in staying],
        "stores": sorted({copy.store.id for copy in staying}),
        "domains": sorted({copy.store.failure_domain for copy in staying}),
        "wanted": wanted,
    }
    if work.enough:
        text = f"good copies stay on {', '.join(evidence['stores'])}"
        return Condition("P1", "copies", True, text, evidence)
    number = len(evidence["stores"])
    stay = f"{number} good {'copy stays' if number == 1 else 'copies stay'}" if staying else "no good copy stays"
    text = f"{stay} elsewhere, the rule asks for {wanted}"
    if work.rule is _NEVER:
        text = f"{stay} elsewhere, and no rule says how many would do"
    if keep.last_copy:
        text = f"{stay} elsewhere; the rule lets it go as a last copy"
    return Condition("P1", "copies", keep.last_copy, text, evidence)


def _read_back(work: _Work) -> Condition:
    if not work.enough:
        return Condition("P16", "read-back", True, "no copy counts that would have to be read back")
    fresh = _read_within(work, work.keep.verified_days)
    just_read = _read_within(work, work.keep.read_back_days)
    met = _enough(just_read, work.keep) or (
        _enough(fresh, work.keep)
        and all(_enough([copy for copy in fresh if copy is not each], work.keep) for each in fresh)
    )
    if met:
        return Condition("P16", "read-back", True, "the copies that stay were read back in time")
    stale = [copy for copy in work.staying if copy not in just_read]
    text = f"{stale[0].store.id} must read its copy back first: no copy is to spare"
    return Condition("P16", "read-back", False, text, {"stale": [copy.replica_id for copy in stale]})


def _read_within(work: _Work, days: int) -> list[Copy]:
    oldest = work.now - timedelta(days)
    return [copy for copy in work.staying if copy.verified_at and oldest <= copy.verified_at <= work.now]


def _good_notices(work: _Work) -> list[Notice]:
    """Return the notices that count, in the order in which they were sent: a bounce makes all before it void."""
    notices = [told.notice for told in work.case.told]
    bounced = [n.sent_at or n.created_at for n in notices if n.state is NoticeState.BOUNCED]
    good = [told.notice for told in work.case.told if told.is_listed and _was_delivered(told.notice)]
    after = [n for n in good if all(at is not None and n.sent_at is not None and n.sent_at > at for at in bounced)]
    return sorted(after, key=lambda n: n.sent_at or work.now)


def _was_delivered(notice: Notice) -> bool:
    delivered = notice.state in (NoticeState.SENT, NoticeState.ACKNOWLEDGED)
    return delivered and notice.sent_at is not None and bool(notice.recipients)


def _notice(work: _Work) -> Condition:
    days = work.rule.notice_days
    good = _good_notices(work)
    due = {day: [_lasts_until(n, day) for n in good if n.days == day] for day in days}
    evidence = {"notices": [notice.id for notice in good], "days": list(days)}
    first = due[days[0]] if days else []
    if not first:
        wait = f"{days[0]} days must pass after one has" if days else "and no rule says how many must"
        return Condition("P3", "notice", False, f"no notice about it has reached anybody; {wait}", evidence)
    # Notices that are still to be sent are sent in time: they do not make it later than the first one does.
    at = max(min(dates) for dates in due.values() if dates)
    met = all(dates and min(dates) <= work.now for dates in due.values())
    told = f"people were told on {_day(good[0].sent_at)}"
    if met:
        return Condition("P3", "notice", True, f"{told}, and reminded", evidence)
    late = [day for day, dates in due.items() if not dates]
    text = f"{told} that it stays until {_day(at)}"
    if work.now >= at:
        text = f"{told}, but the notice of {late[0]} days before has reached nobody yet"
    return Condition("P3", "notice", False, text, evidence, at if work.now < at else None)


def _lasts_until(notice: Notice, days: int) -> datetime:
    return max((notice.sent_at or LATEST) + timedelta(days if notice.sent_at else 0), notice.expires_at)


def _last_copy(work: _Work) -> Condition:
    if work.enough:
        return Condition("P4", "last copy", True, "it is not the last copy")
    if not work.keep.last_copy:
        return Condition("P4", "last copy", False, "no rule lets a last copy go here")
    good = [notice for notice in _good_notices(work) if notice.last_copy]
    days = [notice.sent_at for notice in good if notice.sent_at]
    answered = [notice.acknowledged_by for notice in good if notice.state is NoticeState.ACKNOWLEDGED]
    final = max(days) + timedelta(work.rule.final_days) if days else None
    approvals = sorted(work.case.plan.plan.people) if work.case.plan else []
    author = work.case.home.policy.author if work.case.home.policy else ""
    second = [person for person in approvals if person != author]
    evidence = {"notices": [n.id for n in good], "answered": answered, "final": _iso(final), "second": second}
    if len(set(days)) < 2:
        text = "people must be told twice that no other copy stays"
        return Condition("P4", "last copy", False, text, evidence)
    if not answered and (final is None or work.now < final):
        text = f"nobody has answered the notice; without an answer it stays until {_day(final)}"
        return Condition("P4", "last copy", False, text, evidence, final)
    if not second:
        text = f"somebody other than {author or 'the author of the policy'} must approve the loss of a last copy"
        return Condition("P4", "last copy", False, text, evidence)
    return Condition("P4", "last copy", True, f"a last copy: {second[0]} approved it", evidence)


def _intent(work: _Work) -> Condition:
    case = work.case
    item = case.plan.item if case.plan else None
    if item is None:
        return Condition("P5", "intent", False, "no item of a plan names it")
    found = (item.replica_id, item.file_id, item.dataset_id, item.store_id, item.key, item.size, item.sha256)
    replica = case.replica
    here = (replica.replica_id, case.file_id, case.home.dataset_id, replica.store.id, replica.key)
    evidence = {"plan": item.plan_id, "position": item.position, "state": item.state}
    if found != (*here, case.size, case.sha256):
        return Condition("P5", "intent", False, "the plan names other content than it has", evidence)
    wanted = ItemState.PLANNED if case.step is Step.TRASH else ItemState.TRASHED
    if item.state is not wanted:
        return Condition("P5", "intent", False, f"its item on the plan is {item.state}, not {wanted}", evidence)
    if case.step is Step.DESTROY and not (item.evidence and item.trash_key):
        return Condition("P5", "intent", False, "it carries no record of why it went to the trash", evidence)
    return Condition("P5", "intent", True, f"item {item.position} of plan {item.plan_id}", evidence)


def _trash(work: _Work) -> Condition:
    case = work.case
    if case.step is Step.TRASH:
        return Condition("P6", "trash", True, f"it goes to the trash first, for {work.rule.undo_days} days")
    item = case.plan.item if case.plan else None
    if item is None or item.trashed_at is None or item.destroy_after is None:
        return Condition("P6", "trash", False, "it is not in the trash")
    at = max(item.destroy_after, item.trashed_at + timedelta(work.rule.undo_days))
    if work.reason is PlanReason.EMERGENCY and case.plan and len(case.plan.plan.people) > 1:
        at = item.trashed_at
    met = work.now >= at
    text = f"in the trash since {_day(item.trashed_at)}, can be undone until {_day(at)}"
    return Condition("P6", "trash", met, text, {"trashed_at": _iso(item.trashed_at)}, None if met else at)


def _by_policy(work: _Work, facts: PlanFacts) -> bool:
    """Return whether the policy under which it goes approved the plan, and before the trash would still."""
    policy, home = work.case.home.policy, work.case.home
    if facts.item is None or f"{BY_POLICY}{facts.item.policy}" not in facts.plan.approvals:
        return False
    if work.case.step is Step.DESTROY:
        return True
    terms = policy.approval if policy and policy.stamp == facts.item.policy else None
    is_small = terms is not None and (terms.up_to is None or facts.plan.size <= terms.up_to)
    return is_small and terms is not None and (not terms.kinds or home.facts.kind in terms.kinds)


def _caps(work: _Work) -> Condition:
    case, budget = work.case, work.case.budget
    if case.step is Step.DESTROY:
        return Condition("P7", "caps", True, "it went to the trash within the caps")
    if case.plan is None:
        return Condition("P7", "caps", False, "no plan says how much may go")
    plan = case.plan.plan
    size = max(case.size, case.unit.size if case.unit else 0)  # a unit goes as a whole
    whole = case.replica.store.capacity or budget.held + plan.freed
    evidence = {"plan": plan.id}  # not its figures: who sees one file need not know of the others
    refusal = ""
    if plan.size > budget.max_fraction * whole:
        refusal = f"the plan takes more than {budget.max_fraction:.0%} of store {plan.store_id}"
    elif plan.freed + size > plan.size:
        refusal = "the plan has freed all that it names"
    elif plan.reason is not PlanReason.EXPIRY and plan.freed >= plan.need:
        refusal = f"store {plan.store_id} has lost what it must"
    elif budget.max_bytes_per_day and budget.freed_today + size > budget.max_bytes_per_day:
        refusal = f"store {plan.store_id} has lost what it may in a day"
    return Condition("P7", "caps", not refusal, refusal or "within the caps of a plan and of a day", evidence)


def _clock(work: _Work) -> Condition:
    guards = work.case.guards
    doubt = guards.clock_doubt
    if guards.high_water is not None and work.now < guards.high_water:
        doubt = f"the clock says {_minute(work.now)}, but it has been {_minute(guards.high_water)} already"
    evidence = {"now": _iso(work.now), "high_water": _iso(guards.high_water)}
    return Condition("P8", "clock", not doubt, doubt or "the clock is trusted", evidence)


def _record(work: _Work) -> Condition:
    case, replica = work.case, work.case.replica
    wanted = ReplicaState.VERIFIED if case.step is Step.TRASH else ReplicaState.DELETE_PENDING
    store = replica.store
    planned = case.plan.plan.store_uuid if case.plan else store.uuid
    refusal = ""
    if not store.is_managed:
        refusal = f"store {store.id} is a station's own disk: Lightkeep deletes nothing there"
    elif not case.home.is_complete:
        refusal = "its dataset is still received"
    elif replica.state is not wanted:
        refusal = f"it is {replica.state}; only what is {wanted} may go"
    elif not case.uuid_seen:
        refusal = f"the identity of store {store.id} was not read"
    elif case.uuid_seen != store.uuid or planned != store.uuid:
        refusal = f"store {store.id} is not the one that the catalogue knows"
    evidence = {"state": replica.state, "uuid": store.uuid, "seen": case.uuid_seen}
    return Condition("P9", "record", not refusal, refusal or "Lightkeep wrote it and knows it", evidence)


def _catalog(work: _Work) -> Condition:
    doubt = work.case.guards.catalog_doubt
    return Condition("P10", "catalogue", not doubt, doubt or "the catalogue is the newest one")


def _public(work: _Work) -> Condition:
    if not work.case.home.is_public:
        return Condition("P12", "public", True, "it is not public")
    if not work.staying:
        return Condition("P12", "public", False, "it is public, and no other copy could be read")
    if not (work.case.plan and work.case.plan.admins):
        return Condition("P12", "public", False, "it is public: a facility administrator must approve the plan")
    return Condition("P12", "public", True, f"{work.case.plan.admins[0]} approved the plan for public data")


def _plan(work: _Work) -> Condition:
    case = work.case
    if case.plan is None:
        return Condition("P13", "plan", False, "no plan names it")
    plan = case.plan.plan
    allowed = {
        Step.TRASH: (PlanState.APPROVED, PlanState.RUNNING),
        Step.DESTROY: (PlanState.RUNNING, PlanState.DONE),
    }[case.step]
    people = plan.people
    by_policy = plan.reason is not PlanReason.EMERGENCY and _by_policy(work, case.plan)
    refusal = ""
    if case.plan.hash != plan.hash:
        refusal = f"the list of plan {plan.id} is not the one that was approved"
    elif plan.store_id != case.replica.store.id:
        refusal = f"plan {plan.id} is for store {plan.store_id}"
    elif plan.state not in allowed:
        refusal = f"plan {plan.id} is {plan.state}"
    elif len(people) < (2 if plan.reason is PlanReason.EMERGENCY else 1) and not by_policy:
        refusal = f"plan {plan.id} needs {'two approvals' if people else 'an approval'}"
    elif case.step is Step.TRASH and work.now >= plan.expires_at:
        refusal = f"plan {plan.id} was to be run before {_minute(plan.expires_at)}"
    evidence = {"plan": plan.id, "hash": plan.hash, "approvals": sorted(plan.approvals)}
    return Condition("P13", "plan", not refusal, refusal or f"plan {plan.id} names it", evidence)


def _switch(work: _Work) -> Condition:
    met = work.case.guards.is_enabled
    return Condition("P14", "switch", met, "purges are on" if met else "purges are switched off")


def _unit(work: _Work) -> Condition:
    unit = work.case.unit
    if unit is None:
        return Condition("P15", "unit", True, "it is an object of its own")
    met = unit.on_plan == unit.members and not unit.stays
    text = "its whole archive unit goes" if met else "other members of its archive unit must stay"
    if unit.stays:
        text = f"its archive unit goes as a whole, and {unit.stays}"
    evidence = {"members": unit.members, "on_plan": unit.on_plan, "stays": unit.stays}
    return Condition("P15", "unit", met, text, evidence, None if met else unit.stays_until)


def _iso(at: datetime | None) -> str | None:
    return at.isoformat() if at else None


def _day(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d}" if at else "further notice"


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"


CONDITIONS: tuple[Callable[[_Work], Condition], ...] = (
    _expired, _holds, _leases, _public, _copies, _read_back, _last_copy, _notice,
    _record, _unit, _plan, _intent, _caps, _trash, _switch, _clock, _catalog,
)  # fmt: skip
"""In the order in which a person asks."""
