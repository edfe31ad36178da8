"""The model check: every history of small facilities, with the real decision. One line of JSON at the end.

python tests/safety/model_check.py
"""

from __future__ import annotations

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from lightkeep.testing.purge_model import WORLDS, Result, World, explore


def timed(world: World) -> tuple[Result, float]:
    """Explore one world; return what was found, and the CPU seconds."""
    begin = time.process_time()
    return explore(world), time.process_time() - begin


def main() -> int:
    """Explore all worlds; return 0 when no deletion was wrong and some were right in each."""
    rows = []
    with ProcessPoolExecutor(2) as pool:
        for result, seconds in pool.map(timed, WORLDS):
            rows.append(result)
            print(f"{result.world}: {result.states} states, {result.allowed} deletions allowed, {seconds:.0f} s")
            if result.counterexample:
                print("  " + "; ".join(result.counterexample))
            sys.stdout.flush()
    wrong = {row.world: row.counterexample for row in rows if row.counterexample}
    idle = [row.world for row in rows if not row.allowed]
    figures = {
        "worlds": len(rows),
        "states": sum(row.states for row in rows),
        "decisions": sum(row.decisions for row in rows),
        "deletions_allowed": sum(row.allowed for row in rows),
        "counterexamples": wrong,
        "worlds_without_a_deletion": idle,
    }
    print(json.dumps(figures))
    return 1 if wrong or idle else 0


if __name__ == "__main__":
    sys.exit(main())
