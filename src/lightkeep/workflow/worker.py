"""The process that `workflow.apart` keeps alive: the facility's worker, until its stdin closes.

Beside the runs it keeps a process for each acquisition alive, and does the upkeep of `lifecycle.upkeep`, in a
thread of its own that nothing waits for: what it does is known to the catalogue step by step, so it may end with
the process at any instruction.

Started as `python -m lightkeep.workflow.worker PARENT`.
"""

from __future__ import annotations

import logging
import pickle
import select
import signal
import sys
from collections.abc import Callable
from threading import Event, Thread

from lightkeep import telemetry
from lightkeep.engines.worker import die_with
from lightkeep.facility import Facility, open_facility
from lightkeep.lifecycle.acquisitions.acquire_keep import Keeper
from lightkeep.lifecycle.upkeep import upkeep
from lightkeep.model.errors import CatalogUnavailable, LightkeepError
from lightkeep.workflow.orchestrator import Orchestrator, open_workflow

_LOG = logging.getLogger(__name__)

_AGAIN_S = 1.0
"""Pause between two looks at a lock that somebody else has."""
_UPKEEP_S = 60.0
"""Pause before, and between, two ticks of upkeep."""


def main(parent: int) -> None:
    """Work for the facility whose configuration comes in on stdin, until stdin closes."""
    die_with(parent)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # a service manager stops all processes at once
    sys.path[:], config = pickle.load(sys.stdin.buffer)  # noqa: S301 -- from the process that started this one
    begin = config.telemetry
    telemetry.start("worker", level=begin.log_level, style=begin.log_format, traces=begin.traces)
    with open_facility(config) as facility, open_workflow(facility, always=True) as work:
        attend(facility, work, is_over=lambda: bool(select.select([sys.stdin], [], [], _AGAIN_S)[0]))


def attend(facility: Facility, work: Orchestrator, *, is_over: Callable[[], bool]) -> None:
    """Be a worker whenever one is wanted, and do the upkeep, until `is_over`, which waits a moment."""
    ending = Event()
    Thread(target=keep_up, args=(facility, work.work, ending), name="lightkeep-upkeep", daemon=True).start()
    keeper = Keeper(facility)
    try:
        while not is_over():
            try:
                work.work()
            except CatalogUnavailable as error:  # a new life begins when its databases are back
                _LOG.warning("no worker: %s", error.message)
            try:
                keeper.tick()
            except LightkeepError as error:  # those that run go on
                _LOG.warning("acquisition: %s", error.message)
    finally:
        ending.set()
        keeper.close()


def keep_up(
    facility: Facility, is_worker: Callable[[], bool], ending: Event, *, pause_s: float = _UPKEEP_S
) -> None:
    """Do the facility's upkeep again and again, while this process is its worker."""
    while not ending.wait(pause_s):
        if is_worker():
            try:
                kept = upkeep(facility)
            except LightkeepError as error:  # the next tick tries again; `doctor` says what is behind
                _LOG.warning("upkeep: %s", error.message, extra={"about": {"remedy": error.remedy}})
                continue
            for part, why in kept.failed.items():
                _LOG.warning("upkeep: %s", why, extra={"about": {"part": part}})
            if kept.done:
                _LOG.info("upkeep", extra={"about": dict(kept.done)})


if __name__ == "__main__":
    main(int(sys.argv[1]))
