"""Which states of the model check are one: what may happen from each may happen from the one that stands for it.

Three merges, whatever `may_delete` decides of one store:

- a plan all of whose items are over can only be dropped, at any time and unseen: it counts as dropped;
- bytes that were destroyed and bytes that were never there are absent alike;
- stores are interchangeable: same tier, same policy, one failure domain each. They are sorted. Not where one of
  them is special: it holds an archive unit, or it is one of a few that are purged.

One merge uses how time enters the decision: where no clock is wrong, a plan is of today or of an earlier day, and
the trash is of today or older than the undo window, because the days of the model lie that far apart. Which
earlier day it was is forgotten.

`tests/safety/test_model_check.py` shows it on whole worlds, with the real decision: every move from a state leads
where a move from the one that stands for it leads, with the same verdict of the truth (a simulation). So no wrong
deletion can hide behind a merge.
"""

from __future__ import annotations

from collections.abc import Callable

from lightkeep.model.retention import ItemState
from lightkeep.testing.purge_worlds import ABSENT, GONE, Bytes, Plan, State, World

Side = tuple[tuple[Bytes, ...], Plan | None]
"""All of one store: its replica of each content, and its plan."""

_ALIVE = frozenset({ItemState.PLANNED, ItemState.PENDING, ItemState.TRASHED})


def reduction(world: World) -> Callable[[State], State]:
    """Return the function from a state to the one that stands for it and its like."""
    is_symmetric = not world.unit and world.plans >= world.stores
    forgets = "clock" not in world.actions
    sides: dict[tuple[Side, int], tuple[int, Side]] = {}
    numbers: dict[Side, int] = {}

    def side_of(side: Side, wall: int) -> tuple[int, Side]:
        row, plan = side
        merged = (
            tuple(each._replace(truth=ABSENT) if each.truth == GONE else each for each in row),
            _plan(plan, wall, forgets=forgets),
        )
        return numbers.setdefault(merged, len(numbers)), merged

    def reduced(state: State) -> State:
        found = []
        for side in zip(zip(*state.replicas, strict=True), state.plans, strict=True):
            known = sides.get((side, state.wall))
            if known is None:
                known = sides[side, state.wall] = side_of(side, state.wall)
            found.append(known)
        if is_symmetric:
            found.sort()
        rows, plans = zip(*(side for _, side in found), strict=True)
        return state._replace(replicas=tuple(zip(*rows, strict=True)), plans=plans)

    return reduced


def _plan(plan: Plan | None, wall: int, *, forgets: bool) -> Plan | None:
    if plan is None or _ALIVE.isdisjoint(plan.items):
        return None
    if not forgets:
        return plan
    made = plan.made if plan.made == wall and ItemState.PLANNED in plan.items else 0
    trashed = plan.trashed if plan.trashed in (-1, wall) else 0
    return plan._replace(made=made, trashed=trashed)
