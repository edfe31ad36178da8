"""One worker process, to be paused and killed: `worker.py ROOT CATALOG_URL WORKFLOW_URL LEASE_S [POINT]`.

At POINT, as in `driver.py`, it kills itself. SIGTERM ends it cleanly.
"""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

from driver import config, die_after

from lightkeep.config import WorkerConfig
from lightkeep.facility import open_facility
from lightkeep.workflow import open_workflow


def main(root: Path, catalog_url: str, workflow_url: str, lease_s: str, point: str = "") -> None:
    """Work until killed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if point:
        die_after(point)
    settings = replace(
        config(root),
        catalog_url=catalog_url,
        workflow_url=workflow_url,
        worker=WorkerConfig(lease_s=float(lease_s)),
    )
    with open_facility(settings) as facility, open_workflow(facility, always=True) as work:
        while True:
            work.work()
            time.sleep(0.1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
