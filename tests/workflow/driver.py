"""A process that works for a facility, to be killed: `driver.py ROOT SOURCE GATES [POINT]`.

It submits SOURCE once (a second start finds the job's id in ROOT/job), and waits for the job. At POINT, a function
named `module:qualified.name`, it kills itself as soon as that function has returned. SIGTERM stops it cleanly.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
from house import ADA, EXPERIMENT, config

from lightkeep.facility import open_facility
from lightkeep.workflow import open_workflow


def die_after(point: str) -> None:
    """Replace a function by one that kills this process when the original has returned."""
    module, _, path = point.partition(":")
    owner: Any = importlib.import_module(module)
    *outer, name = path.split(".")
    for part in outer:
        owner = getattr(owner, part)
    function: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(function)
    def dying(*args: Any, **kwargs: Any) -> Any:
        function(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, dying)


def main(root: Path, source: Path, gates: Path, point: str = "") -> None:
    """Submit once, wait, print the name of the result."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    if point:
        die_after(point)
    job_file = root / "job"
    with open_facility(config(root, "processes")) as facility, open_workflow(facility) as work:
        if not job_file.exists():
            job = work.submit_ingest(
                source, experiment_id=EXPERIMENT, principal=ADA, technique="gated", params={"folder": str(gates)}
            )
            job_file.write_text(job)
        outcome = work.wait(job_file.read_text(), timeout_s=120)
        sys.stdout.write(f"{[run.state.value for run in outcome.runs]}\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), *sys.argv[4:])
