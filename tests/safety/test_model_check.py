"""The small worlds of the model check in which a deletion is wrong soonest; `make safety` explores them all."""

from __future__ import annotations

import pytest

from lightkeep.testing.purge_model import SMALL, Model, World, explore
from lightkeep.testing.purge_reduce import reduction
from lightkeep.testing.purge_worlds import State

ALIKE = (
    World("two stores", actions=frozenset({"rot"})),
    World("last copies", stores=2, last_copy=True, actions=frozenset({"answer"}), notice_days=(7,)),
    World("three stores, two plans", stores=3, copies=3, plans=2),
)


@pytest.mark.parametrize("world", SMALL, ids=[world.name for world in SMALL])
def test_no_history_ends_in_a_wrong_deletion(world: World) -> None:
    result = explore(world)
    assert result.counterexample == []
    assert result.allowed > 0
    assert result.states > 300


@pytest.mark.parametrize("world", ALIKE, ids=[world.name for world in ALIKE])
def test_a_state_and_the_one_that_stands_for_it_have_the_same_futures(world: World) -> None:
    model, like = Model(world), reduction(world)

    def futures(state: State) -> set[tuple[State, bool]]:
        return {(like(then), bool(wrong)) for _, then, wrong in model.moves(state)}

    start = model.start()
    seen, wave = {start}, [start]
    merged = 0
    while wave and len(seen) < 4_000:
        state = wave.pop(0)
        chosen = like(state)
        assert like(chosen) == chosen
        if chosen != state:
            merged += 1
            # What is over may be dropped, unseen: its futures are among those of the state without it.
            assert futures(state) - {(chosen, False)} <= futures(chosen)
        for _, then, wrong in model.moves(state):
            assert not wrong
            if then not in seen:
                seen.add(then)
                wave.append(then)
    assert merged > 20
