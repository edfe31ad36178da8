"""The small worlds of the model check in which a deletion is wrong soonest; `make safety` explores them all."""

from __future__ import annotations

import pytest

from lightkeep.testing.purge_model import SMALL, World, explore


@pytest.mark.parametrize("world", SMALL, ids=[world.name for world in SMALL])
def test_no_history_ends_in_a_wrong_deletion(world: World) -> None:
    result = explore(world)
    assert result.counterexample == []
    assert result.allowed > 0
    assert result.states > 1_000
