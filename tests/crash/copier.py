"""Replicates, archives and restores in processes that a test traces and kills; the protocol is that of victim.py.

What is done: a dataset is replicated to `second`, its experiment is archived to `vault`, and another dataset, of
which only `vault` has a copy, is restored to `central`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from tests.crash.victim import answer

from lightkeep.catalog import Catalog
from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.lifecycle.replicas.archive import archive
from lightkeep.lifecycle.replicas.replicate import replicate
from lightkeep.lifecycle.replicas.restore import request, run_queue
from lightkeep.lifecycle.replicas.transfer import Pace
from lightkeep.model.clock import SystemClock, SystemIds
from lightkeep.model.errors import Conflict
from lightkeep.model.people import SERVICE
from lightkeep.storage.posix import PosixStore

PACE = Pace(files=4, threads=1)


def opened(root: Path) -> Facility:
    """Open the facility, with stores that read one file after the other."""
    clock, ids = SystemClock(), SystemIds()
    catalog = Catalog.open(f"sqlite:///{root / 'catalog.db'}", clock=clock, ids=ids)
    stores = {each.id: PosixStore(each, threads=1) for each in catalog.view(SERVICE).stores()}
    return Facility(Config(root), catalog, clock, ids, stores)


def run(root: Path) -> None:
    """Do all three."""
    facility = opened(root)
    view = facility.catalog.view(SERVICE)
    near, far = (view.dataset_named("e1", name) for name in ("near", "far"))
    assert near is not None
    assert far is not None
    replicate(facility, near.id, principal=SERVICE, store_id="second", pace=PACE)
    archive(facility, principal=SERVICE, store_id="vault", experiment_id="e1", pace=PACE)
    with suppress(Conflict):  # it is there
        request(facility, principal=SERVICE, dataset_id=far.id)
    run_queue(facility, pace=PACE)
    facility.close()


def main() -> None:
    """Serve until standard input closes."""
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            run(Path(order["root"]))
            os._exit(0)
        os.waitpid(pid, os.WUNTRACED)
        answer(pid)
        answer(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    main()
