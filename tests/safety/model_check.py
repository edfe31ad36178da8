"""The model check: every history of small facilities, with the real decision. One line of JSON at the end.

python tests/safety/model_check.py            every world
python tests/safety/model_check.py 0/2        every second one, from the first
"""

from __future__ import annotations

import json
import sys
import time

from lightkeep.testing.purge_model import WORLDS, explore


def main(share: str = "0/1") -> int:
    """Explore worlds; return 0 when no deletion was wrong and some were right in each."""
    first, every = map(int, share.split("/"))
    rows = []
    for world in WORLDS[first::every]:
        begin = time.process_time()
        result = explore(world)
        rows.append(result)
        seconds = time.process_time() - begin
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
    sys.exit(main(*sys.argv[1:]))
