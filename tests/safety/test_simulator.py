"""The simulator is deterministic, its oracle sees a loss, and short histories of the product lose nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightkeep.testing.simulator import Violation, World
from lightkeep.testing.simulator.operations import OPERATIONS, Operation


@pytest.mark.parametrize("seed", [1, 2])
def test_nothing_is_lost_in_a_short_history(tmp_path: Path, seed: int) -> None:
    with World(tmp_path, seed=seed) as world:
        world.run(80)
        world.settle()
        assert sum(world.operations.values()) > 1000


def test_one_seed_is_one_history(tmp_path: Path) -> None:
    told = []
    for name in ("first", "second"):
        folder = tmp_path / name
        folder.mkdir()
        with World(folder, seed=11) as world:
            world.run(80)
            told.append((world.head, world.operations, world.clock.true, dict(world.outcomes)))
    assert told[0] == told[1]


def test_the_oracle_sees_bytes_go_that_nobody_may_take(tmp_path: Path) -> None:
    def lose(world: World) -> None:
        for medium in world.media.values():
            medium.names.clear()

    with World(tmp_path, seed=3, faults=0.0) as world:
        ingest = next(each for each in OPERATIONS if each.name == "ingest")
        world.step(ingest)
        world.step(Operation("harm", lose, 1, is_harm=True))  # the scheduler's own: no fault of the program
        world.step(ingest)
        with pytest.raises(Violation, match=r"seed 3: .* (has no good copy left|before its time)"):
            world.step(Operation("bug", lose, 1))
