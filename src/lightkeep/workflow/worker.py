"""The process that `workflow.apart` keeps alive: the facility's worker, until its stdin closes.

Started as `python -m lightkeep.workflow.worker PARENT`.
"""

from __future__ import annotations

import pickle
import select
import signal
import sys

from lightkeep.engines.worker import die_with
from lightkeep.facility import open_facility
from lightkeep.workflow.orchestrator import open_workflow

_AGAIN_S = 1.0
"""Pause between two looks at a lock that somebody else has."""


def main(parent: int) -> None:
    """Work for the facility whose configuration comes in on stdin, until stdin closes."""
    die_with(parent)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # a service manager stops all processes at once
    sys.path[:], config = pickle.load(sys.stdin.buffer)  # noqa: S301 -- from the process that started this one
    with open_facility(config) as facility, open_workflow(facility) as work:
        while not select.select([sys.stdin], [], [], _AGAIN_S)[0]:
            work.work()


if __name__ == "__main__":
    main(int(sys.argv[1]))
