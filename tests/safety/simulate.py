"""Histories of the simulator, one after the other in one process. One line of JSON at the end.

python tests/safety/simulate.py --first 1 --every 8 --operations 125000 --minutes 10
python tests/safety/simulate.py --drop P1 P4 P16  conditions of the purge decision are dropped: that must be found
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from sqlalchemy import Engine

from lightkeep.testing.simulator import Violation, World
from lightkeep.testing.simulator.planted import dropped

STEPS = 150
"""Of one history; in longer ones a step costs more, because there is more to look at."""


def history(folder: Path, seed: int, *, engine: Engine | None) -> tuple[World, str]:
    """Run one history in an empty folder; return the world as it ended, and what was violated."""
    with World(folder, seed=seed, engine=engine) as world:
        try:
            world.run(STEPS)
            world.settle()
        except Violation as error:
            return world, str(error)
    return world, ""


def main() -> int:
    """Run seeds first, first + every, ... until there are enough operations or time is up; 0: nothing was lost."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--drop", nargs="+", default=[])
    asked = parser.parse_args()
    gc.set_threshold(100_000, 20, 20)
    until = time.monotonic() + 60 * asked.minutes
    done: Counter[str] = Counter()
    outcomes: Counter[str] = Counter()
    violations: list[str] = []
    engine = None
    seed, histories = asked.first, 0
    shared = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=shared) as place, dropped(*asked.drop):
        while done.total() < asked.operations and not violations and time.monotonic() < until:
            folder = Path(place, "facility")
            folder.mkdir()
            world, violation = history(folder, seed, engine=engine)
            engine = world.facility.catalog.engine
            shutil.rmtree(folder)
            done.update(world.operations)
            outcomes.update(world.outcomes)
            violations += [violation] if violation else []
            histories += 1
            seed += asked.every
            print(f"seed {seed - asked.every}: {done.total()} operations", flush=True)
    if asked.drop:
        found = f"found in history {histories}, after {done.total()} operations" if violations else "NOT FOUND"
        print("\n".join(violations))
        print(json.dumps({"planted": {f"without {' and '.join(asked.drop)}": found}}))
        return 0 if violations else 1
    figures = {"operations_at": dict(done), "histories": histories, "violations": violations}
    print(json.dumps({**figures, "outcomes": dict(sorted(outcomes.items()))}))
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
