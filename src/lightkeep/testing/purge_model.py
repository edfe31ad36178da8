"""Every history of a small facility that purges, with the real `may_delete` deciding.

A state holds both what the catalogue believes and what is true: where bytes are, whether they are whole, what time
it is. Planner, approvers and executors do anything at any time; a crash is a step that is never taken. What
forbids a deletion is `may_delete` alone, and each deletion that it allows is judged by the truth (`_verdict`),
which shares no code with it. Breadth first, so the first counterexample is a shortest one.

The days of the model are four: 30 days before the expiry, the expiry, the end of the undo window, 116 days later.
Two faults of nature are granted, because no policy could survive their absence: a copy that was read back on a
day does not rot on that day, and in one history at most `rots` copies rot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from lightkeep.model.experiments import ExperimentState
from lightkeep.model.retention import (
    Hold,
    HoldKind,
    HoldScope,
    ItemState,
    Lease,
    LeaseKind,
    Notice,
    NoticeState,
    PlanReason,
    PlanState,
    PurgeItem,
    PurgePlan,
)
from lightkeep.model.stores import ReplicaState, StoreRecord
from lightkeep.policy.case import Budget, Case, Copy, Guards, Home, PlanFacts, Step, Told, UnitFacts
from lightkeep.policy.document import parse
from lightkeep.policy.purge import may_delete
from lightkeep.policy.retention import ClockFacts, Facts, Policy
from lightkeep.testing.purge_reduce import reduction
from lightkeep.testing.purge_worlds import (
    ABSENT,
    CLOSED,
    DAYS,
    EXPIRY,
    GONE,
    LAST,
    ROTTEN,
    SMALL,
    WHOLE,
    WORLDS,
    Bytes,
    Plan,
    State,
    World,
    plan_of,
    put,
    with_item,
    with_plan,
)

__all__ = ["SMALL", "WORLDS", "Result", "World", "explore"]


@dataclass
class Result:
    """What an exploration found."""

    world: str
    states: int = 0
    decisions: int = 0
    allowed: int = 0
    counterexample: list[str] = field(default_factory=list)
    """Shortest history that ends in a wrong deletion; empty: there is none."""


def explore(world: World, *, most: int = 5_000_000) -> Result:
    """Visit every state that can be reached, of like ones one; stop at the first deletion that the truth forbids.

    Which states are alike is told in `purge_reduce`; in a counterexample the stores' names may change on the way.
    """
    model = Model(world)
    like = reduction(world)
    start = like(model.start())
    came: dict[State, tuple[State, str] | None] = {start: None}
    wave = [start]
    result = Result(world.name)
    while wave and len(came) < most:
        following = []
        for state in wave:
            for name, after, wrong in model.moves(state):
                if wrong:
                    result.counterexample = [*_history(came, state), name, wrong]
                    result.states = len(came)
                    return result
                then = like(after)
                if then not in came:
                    came[then] = (state, name)
                    following.append(then)
        wave = following
    result.states, result.decisions, result.allowed = len(came), model.decisions, model.allowed
    return result


def _history(came: dict[State, tuple[State, str] | None], state: State) -> list[str]:
    names: list[str] = []
    while (step := came[state]) is not None:
        state, name = step
        names.append(name)
    return names[::-1]


_Seen = tuple[ReplicaState | None, int, bool]
Move = tuple[str, State, str]
"""(what happens, the state after it, what is wrong with it)."""


class Model:
    """The moves of a facility."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.stores = tuple(
            StoreRecord(f"s{n}", "posix", f"/s{n}", f"uuid-{n}", failure_domain=f"d{n}", capacity=10**6)
            for n in range(world.stores)
        )
        self.policy = _policy(world.min_copies, world.last_copy, world.notice_days)
        self.decisions = 0
        self.allowed = 0
        self._ask = cache(self._decide)

    def start(self) -> State:
        """Return the state after ingest: every copy whole and read back."""
        good, none = Bytes(ReplicaState.VERIFIED, 0, WHOLE), Bytes()
        row = tuple(good if store < self.world.copies else none for store in range(self.world.stores))
        rows = [row] * self.world.contents
        if self.world.unit:
            rows[-1] = (good, *[none] * (self.world.stores - 1))
        count = len(self.world.notice_days)
        plans: tuple[Plan | None, ...] = (None,) * self.world.stores
        return State(tuple(rows), plans, told=(-1,) * count, last=(False,) * count)

    def moves(self, state: State) -> Iterator[Move]:
        """Yield all that can happen next."""
        yield from self._time(state)
        yield from self._people(state)
        yield from self._nature(state)
        for store in range(min(self.world.stores, self.world.plans)):
            yield from self._planning(state, store)
            yield from self._executing(state, store)

    # ---- time and people

    def _time(self, state: State) -> Iterator[Move]:
        if state.day < LAST:
            wall = min(LAST, state.wall + 1)
            seen = max(state.seen, wall)
            yield "a day later", state._replace(day=state.day + 1, wall=wall, seen=seen), ""
        if "clock" not in self.world.actions:
            return
        if state.wall == state.day < LAST:
            yield "the clock jumps ahead", state._replace(wall=state.day + 1, is_doubted=True), ""
        if state.wall == state.day > 0:
            yield "the clock falls back", state._replace(wall=state.day - 1), ""
        if state.wall != state.day:
            seen = state.day
            yield "the clock is set right", state._replace(wall=state.day, is_doubted=False, seen=seen), ""

    def _people(self, state: State) -> Iterator[Move]:
        actions = self.world.actions
        if "hold" in actions:
            yield "hold" if not state.is_held else "release", state._replace(is_held=not state.is_held), ""
        if "read" in actions:
            yield "a download begins or ends", state._replace(is_read=not state.is_read), ""
        if "open" in actions:
            yield "opened again or closed", state._replace(is_open=not state.is_open), ""
        if "bounce" in actions and state.bounced < state.day and max(state.told) >= 0:
            yield "a mail bounces", state._replace(bounced=state.day), ""
        if "answer" in actions and not state.answered and min(state.told) >= 0:
            yield "the group answers", state._replace(answered=True), ""
        if state.wall != state.day:
            return
        for which, days in enumerate(self.world.notice_days):
            if state.told[which] == -1 or state.told[which] <= state.bounced:
                told = tuple(state.day if n == which else day for n, day in enumerate(state.told))
                said = len(self._good(state, 0)) < 2
                last = tuple(said if n == which else flag for n, flag in enumerate(state.last))
                yield f"notice of {days} days", state._replace(told=told, last=last), ""

    def _good(self, state: State, content: int) -> list[int]:
        return [n for n, each in enumerate(state.replicas[content]) if each.state is ReplicaState.VERIFIED]

    # ---- nature, and reading back

    def _nature(self, state: State) -> Iterator[Move]:
        for content, row in enumerate(state.replicas):
            for store, each in enumerate(row):
                named = f"content {content} on s{store}"
                if "rot" in self.world.actions and state.rots < self.world.rots and _can_rot(each, state.day):
                    then = put(state, content, store, each._replace(truth=ROTTEN))
                    yield f"{named} rots", then._replace(rots=state.rots + 1), ""
                if each.state is ReplicaState.VERIFIED and each.read < state.day:
                    yield f"{named} is read back", put(state, content, store, _read(each, state.day)), ""
                if "copy" in self.world.actions and each.truth in (ABSENT, GONE):
                    yield from self._copying(state, content, store)

    def _copying(self, state: State, content: int, store: int) -> Iterator[Move]:
        whole = any(each.truth == WHOLE and not each.is_trashed for each in state.replicas[content])
        if whole and state.plans[store] is None:
            fresh = Bytes(ReplicaState.VERIFIED, state.day, WHOLE)
            yield f"content {content} is copied to s{store}", put(state, content, store, fresh), ""

    # ---- plans

    def _planning(self, state: State, store: int) -> Iterator[Move]:
        plan = state.plans[store]
        if plan is None:
            for items in self._lists(state, store):
                named = [n for n, item in enumerate(items) if item]
                yield f"plan for s{store} with {named}", with_plan(state, store, Plan(state.wall, items)), ""
        elif plan.state is PlanState.FROZEN:
            for who in ("author", "other") if self.world.last_copy else ("other",):
                approved = plan._replace(state=PlanState.APPROVED, by=who)
                yield f"the {who} approves s{store}", with_plan(state, store, approved), ""
        if plan is not None and plan.state in (PlanState.FROZEN, PlanState.APPROVED):
            yield f"the plan for s{store} is dropped", with_plan(state, store, None), ""

    def _lists(self, state: State, store: int) -> Iterator[tuple[ItemState | None, ...]]:
        """Yield what a careless planner puts on a list: anything that the catalogue says is there."""
        there = [row[store].state is not None and not row[store].is_trashed for row in state.replicas]
        for mask in range(1, 2 ** len(there)):
            chosen = [bool(mask >> n & 1) for n in range(len(there))]
            if all(here or not wanted for here, wanted in zip(there, chosen, strict=True)):
                yield tuple(ItemState.PLANNED if wanted else None for wanted in chosen)

    # ---- the executor

    def _executing(self, state: State, store: int) -> Iterator[Move]:
        plan = state.plans[store]
        if plan is None:
            return
        for contents in self._together(plan, store, ItemState.PLANNED):
            yield from self._intent(state, store, contents)
        for contents in self._together(plan, store, ItemState.TRASHED):
            yield from self._destroy(state, store, contents)
        if ItemState.PENDING in plan.items:
            yield f"what is pending on s{store} goes to the trash", self._moved(state, store), ""
        if {ItemState.PENDING, ItemState.TRASHED} & set(plan.items):
            yield f"the plan for s{store} is undone", self._undone(state, store), ""
        if not {ItemState.PLANNED, ItemState.PENDING, ItemState.TRASHED} & set(plan.items):
            yield f"the plan for s{store} is over", with_plan(state, store, None), ""

    def _is_unit(self, store: int) -> bool:
        return self.world.unit and store == 0

    def _together(self, plan: Plan, store: int, item: ItemState) -> list[tuple[int, ...]]:
        """Return what is decided in one transaction: the items of one object."""
        found = [content for content, each in enumerate(plan.items) if each is item]
        if self._is_unit(store):
            return [tuple(found)] if found else []
        return [(content,) for content in found]

    def _intent(self, state: State, store: int, contents: tuple[int, ...]) -> Iterator[Move]:
        if not all(self._ask(*self._question(state, store, content, Step.TRASH)) for content in contents):
            return
        then, wrong = state, ""
        for content in contents:
            wrong = wrong or self._wrong(state, store, content, Step.TRASH)
            plan = with_item(then, store, content, ItemState.PENDING)._replace(state=PlanState.RUNNING)
            pending = _mark(then.replicas[content][store], ReplicaState.DELETE_PENDING)
            then = with_plan(put(then, content, store, pending), store, plan)
        yield f"content {contents} may leave s{store}", then, wrong

    def _moved(self, state: State, store: int) -> State:
        plan = plan_of(state, store)
        for content, item in enumerate(plan.items):
            # A unit is one object: its bytes move for every member, whatever the list says.
            if item is ItemState.PENDING or self._is_unit(store):
                each = state.replicas[content][store]
                state = put(state, content, store, each._replace(is_trashed=True))
        items = tuple(ItemState.TRASHED if item is ItemState.PENDING else item for item in plan.items)
        state_ = PlanState.RUNNING if ItemState.PLANNED in items else PlanState.DONE
        return with_plan(state, store, plan._replace(items=items, trashed=state.wall, state=state_))

    def _undone(self, state: State, store: int) -> State:
        plan = plan_of(state, store)
        for content, item in enumerate(plan.items):
            if item in (ItemState.PENDING, ItemState.TRASHED):
                each = _mark(state.replicas[content][store], ReplicaState.VERIFIED)
                state = put(state, content, store, each._replace(is_trashed=False))
        items = tuple(item and ItemState.UNDONE for item in plan.items)
        return with_plan(state, store, plan._replace(items=items))

    def _destroy(self, state: State, store: int, contents: tuple[int, ...]) -> Iterator[Move]:
        if not all(self._ask(*self._question(state, store, content, Step.DESTROY)) for content in contents):
            return
        then, wrong = state, ""
        for content in contents:
            wrong = wrong or self._wrong(state, store, content, Step.DESTROY)
            then = with_plan(then, store, with_item(then, store, content, ItemState.DESTROYED))
        for content in range(self.world.contents) if self._is_unit(store) else contents:
            wrong = wrong or self._lost(state, store, content)
            then = put(then, content, store, Bytes(None, -1, GONE))
        yield f"content {contents} on s{store} is destroyed", then, wrong

    # ---- the truth

    def _wrong(self, state: State, store: int, content: int, step: Step) -> str:
        """Return what forbids a deletion, by the true day and the true bytes; empty: nothing."""
        plan = plan_of(state, store)
        told = [day for day in state.told if day > state.bounced and day >= 0]
        since = [DAYS[state.day] - DAYS[day] for day in told]
        if state.is_held:
            return "WRONG: it is held"
        if state.is_read:
            return "WRONG: somebody reads it"
        if state.is_open or DAYS[state.day] < 0:
            return "WRONG: it has not expired"
        days = self.world.notice_days
        if len(told) < len(days) or any(s < d for s, d in zip(since, days, strict=True)):
            return "WRONG: nobody was told in time"
        if not plan.by:
            return "WRONG: nobody approved"
        if step is Step.DESTROY and DAYS[state.day] - DAYS[plan.trashed] < 14:
            return "WRONG: the undo window is open"
        return self._lost(state, store, content)

    def _lost(self, state: State, store: int, content: int) -> str:
        row = state.replicas[content]
        others = [each for n, each in enumerate(row) if n != store and not each.is_trashed]
        whole = sum(each.truth == WHOLE for each in others)
        believed = sum(each.state is ReplicaState.VERIFIED for each in others)
        if row[store].truth != WHOLE or (whole and believed >= self.world.min_copies):
            return ""
        plan = state.plans[store]
        days = [DAYS[state.day] - DAYS[day] for day in state.told]
        answered = state.answered or min(days) >= 90
        lawful = self.world.last_copy and all(state.last) and answered and plan is not None and plan.by == "other"
        return "" if lawful else "WRONG: too few good copies stay"

    # ---- the decision

    def _question(self, state: State, store: int, content: int, step: Step) -> tuple[Any, ...]:
        """Return all that the case is made of: equal questions are asked once."""
        seen = tuple(
            (each.state, each.read, _is_planned(state.plans[n], content))
            for n, each in enumerate(state.replicas[content])
        )
        rest = state._replace(replicas=(), plans=(state.plans[store],), day=0, rots=0)
        return seen, rest, store, content, step

    def _decide(self, seen: tuple[_Seen, ...], rest: State, store: int, content: int, step: Step) -> bool:
        self.decisions += 1
        now = EXPIRY + timedelta(DAYS[rest.wall])
        verdict = may_delete(self._case(seen, rest, store, content, step), now)
        self.allowed += verdict.allow
        return verdict.allow

    def _case(self, seen: tuple[_Seen, ...], rest: State, store: int, content: int, step: Step) -> Case:
        copies = [
            Copy(f"rp_{n}", self.stores[n], state, "k", _at(read), is_planned)
            for n, (state, read, is_planned) in enumerate(seen)
            if state is not None
        ]
        plan = plan_of(rest, 0)
        here = self.stores[store]
        hold = Hold("hd", HoldScope.DATASET, "ds", HoldKind.USER, "held")
        lease = Lease("le", "ds", LeaseKind.DOWNLOAD, "lee", EXPIRY + timedelta(9999))
        on_plan = sum(item is not None for item in plan.items)
        home = Home(
            "ds",
            "exp",
            Facts("A"),
            ClockFacts(ExperimentState.OPEN if rest.is_open else ExperimentState.CLOSED, closed_at=CLOSED),
            self.policy,
            holds=(hold,) if rest.is_held else (),
            leases=(lease,) if rest.is_read else (),
        )
        return Case(
            next(copy for copy in copies if copy.store is here),
            home,
            "fl",
            1,
            "ab",
            Budget(held=10**6),
            Guards(high_water=_at(rest.seen), clock_doubt="jumped" if rest.is_doubted else ""),
            step,
            others=tuple(copy for copy in copies if copy.store is not here),
            told=_told(rest, self.world.notice_days),
            plan=_plan_facts(plan, here, content),
            unit=UnitFacts(self.world.contents, on_plan) if self._is_unit(store) else None,
            uuid_seen=here.uuid,
        )


@cache
def _policy(min_copies: int, last_copy: bool, notice_days: tuple[int, ...]) -> Policy:
    text = f"""
        id = "p"
        stations = ["*"]
        [[rule]]
        name = "r"
        notice_days = {list(notice_days)}
        [rule.hot]
        keep = "3 months"
        min_copies = {min_copies}
        last_copy = {str(last_copy).lower()}
    """
    return replace(parse(text, version=1), author="author")


def _at(day: int) -> datetime | None:
    return None if day < 0 else EXPIRY + timedelta(DAYS[day])


def _told(rest: State, notice_days: tuple[int, ...]) -> tuple[Told, ...]:
    told = []
    for which, day in enumerate(rest.told):
        if day >= 0:
            answered = rest.answered and which == len(notice_days) - 1
            state = NoticeState.ACKNOWLEDGED if answered else NoticeState.SENT
            told.append(Told(_notice(notice_days[which], day, state, last=rest.last[which]), True))
    if rest.bounced >= 0:
        told.append(Told(_notice(0, rest.bounced, NoticeState.BOUNCED, last=False), True))
    return tuple(told)


def _notice(days: int, sent: int, state: NoticeState, *, last: bool) -> Notice:
    people = ("pi@example.org",)
    return Notice(
        f"nt_{days}_{sent}", "exp", "s", days, "", 1, 1, EXPIRY, people, state, "p@1", last, sent_at=_at(sent)
    )


def _plan_facts(plan: Plan, store: StoreRecord, content: int) -> PlanFacts:
    made, trashed = EXPIRY + timedelta(DAYS[plan.made]), _at(plan.trashed)
    noun = PurgePlan(
        "pl", store.id, store.uuid, PlanReason.EXPIRY, "hash", 1, 9, 0, made + timedelta(hours=24), plan.state,
        approvals=(plan.by,) if plan.by else (),
    )  # fmt: skip
    state = plan.items[content] or ItemState.SKIPPED
    item = PurgeItem(
        "pl", 0, f"rp_{store.id[1:]}", "fl", "ds", "exp", store.id, "k", 1, "ab", "p@1", state=state,
        evidence={"P1": "x"}, trash_key="t", trashed_at=trashed,
        destroy_after=trashed + timedelta(14) if trashed else None,
    )  # fmt: skip
    return PlanFacts(noun, item, "hash")


def _is_planned(plan: Plan | None, content: int) -> bool:
    return plan is not None and plan.items[content] in (ItemState.PLANNED, ItemState.PENDING, ItemState.TRASHED)


def _can_rot(each: Bytes, day: int) -> bool:
    return each.truth == WHOLE and each.read < day


def _read(each: Bytes, day: int) -> Bytes:
    if each.truth == WHOLE:
        return each._replace(state=ReplicaState.VERIFIED, read=day)
    return each._replace(state=ReplicaState.CORRUPT)


def _mark(each: Bytes, state: ReplicaState) -> Bytes:
    return each._replace(state=state)
