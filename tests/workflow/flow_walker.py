"""A process that takes a facility's flows to their ends, to be killed: `flow_walker.py ROOT [POINT]`.

It does what a worker does: what is queued, then what is due. At POINT it kills itself, see `driver.die_after`.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

from driver import die_after
from house import config

from lightkeep.facility import Facility, open_facility
from lightkeep.lifecycle.processing import flows, process
from lightkeep.model.errors import LightkeepError
from lightkeep.model.people import SERVICE
from lightkeep.model.runs import RunState


def walk(facility: Facility) -> None:
    """Work until nothing is queued, running or due."""
    view = facility.catalog.view(SERVICE)
    while True:
        queue = [run.id for state in (RunState.QUEUED, RunState.RUNNING) for run in view.runs(state=state).items]
        if not flows.tick(facility, submit=queue.append) and not queue:
            return
        for run_id in dict.fromkeys(queue):
            with suppress(LightkeepError):  # the run says why
                process.process(facility, run_id)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        die_after(sys.argv[2])
    with open_facility(config(Path(sys.argv[1]))) as facility:
        walk(facility)
