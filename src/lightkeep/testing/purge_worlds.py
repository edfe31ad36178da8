"""The states and the worlds of the model check; see `lightkeep.testing.purge_model`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from lightkeep.model.retention import ItemState, PlanState
from lightkeep.model.stores import ReplicaState

CLOSED = datetime(2026, 12, 1, tzinfo=UTC)
EXPIRY = datetime(2027, 3, 1, tzinfo=UTC)
DAYS = (-30, 0, 14, 130)
LAST = len(DAYS) - 1

ABSENT, WHOLE, ROTTEN, GONE = "absent", "whole", "rotten", "gone"


class Bytes(NamedTuple):
    """One replica: what the catalogue says, and what is true."""

    state: ReplicaState | None = None
    read: int = -1
    """Day of the last read-back."""
    truth: str = ABSENT
    is_trashed: bool = False


class Plan(NamedTuple):
    """A plan for one store, with an item for each content or none."""

    made: int
    """Wall-clock day."""
    items: tuple[ItemState | None, ...]
    trashed: int = -1
    state: PlanState = PlanState.FROZEN
    by: str = ""
    """Who approved."""


class State(NamedTuple):
    """Everything, hashable."""

    replicas: tuple[tuple[Bytes, ...], ...]
    """By content, then by store."""
    plans: tuple[Plan | None, ...]
    """By store."""
    day: int = 0
    wall: int = 0
    """The day that the machine's clock shows."""
    seen: int = 0
    """The latest wall-clock day that was written down."""
    is_doubted: bool = False
    is_held: bool = False
    is_read: bool = False
    is_open: bool = False
    """The experiment was opened again: its clock does not run."""
    told: tuple[int, ...] = ()
    """Day on which each notice went out; -1: not."""
    last: tuple[bool, ...] = ()
    """Whether each said that no other copy stays."""
    bounced: int = -1
    answered: bool = False
    rots: int = 0


class World(NamedTuple):
    """A facility to explore."""

    name: str
    stores: int = 2
    contents: int = 1
    copies: int = 2
    """Good replicas at the start."""
    min_copies: int = 1
    last_copy: bool = False
    unit: bool = False
    """True: on the first store all contents are members of one archive unit, and the last is nowhere else."""
    plans: int = 9
    """Plans are made for so many stores, from the first on."""
    rots: int = 1
    notice_days: tuple[int, ...] = (30,)
    actions: frozenset[str] = frozenset()
    """What may happen besides time, plans, purges and reading back."""


WORLDS = (
    World("two stores, holds", actions=frozenset({"hold", "rot"})),
    World("two stores, readers", actions=frozenset({"read"})),
    World("two stores, opened again", actions=frozenset({"open", "bounce"})),
    World("two stores, wrong clocks", actions=frozenset({"clock"})),
    World("two stores, rot and repair", actions=frozenset({"rot", "copy"})),
    World(
        "last copy",
        stores=1,
        copies=1,
        last_copy=True,
        notice_days=(30, 7),
        actions=frozenset({"answer", "bounce", "hold"}),
    ),
    World("last copy of two", last_copy=True, notice_days=(30, 7), actions=frozenset({"answer"})),
    World("three stores", stores=3, copies=3, actions=frozenset({"rot"})),
    World("three stores, two copies stay", stores=3, copies=3, min_copies=2, actions=frozenset({"rot"})),
    World("a unit of two contents", contents=2, unit=True, plans=1, actions=frozenset({"copy"})),
)


SMALL = (
    World("two stores, held", actions=frozenset({"hold"})),
    World("two stores, rot", actions=frozenset({"rot"})),
    World(
        "one store, wrong clocks",
        stores=1,
        copies=1,
        last_copy=True,
        notice_days=(30, 7),
        actions=frozenset({"clock", "answer"}),
    ),
    World("a unit of two contents", contents=2, unit=True, plans=1, actions=frozenset({"copy"})),
)
"""What breaks soonest when the decision is wrong: seconds."""


def plan_of(state: State, store: int) -> Plan:
    plan = state.plans[store]
    if plan is None:
        raise ValueError(f"no plan names s{store}")
    return plan


def put(state: State, content: int, store: int, each: Bytes) -> State:
    row = state.replicas[content]
    rows = (*state.replicas[:content], (*row[:store], each, *row[store + 1 :]), *state.replicas[content + 1 :])
    return state._replace(replicas=rows)


def with_plan(state: State, store: int, plan: Plan | None) -> State:
    return state._replace(plans=(*state.plans[:store], plan, *state.plans[store + 1 :]))


def with_item(state: State, store: int, content: int, item: ItemState) -> Plan:
    plan = plan_of(state, store)
    return plan._replace(items=(*plan.items[:content], item, *plan.items[content + 1 :]))
