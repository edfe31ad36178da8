"""Ingests a folder in processes that a test traces and kills: warm, so that each costs a fork and not an import.

Each line on standard input is a JSON object {root, source, threads}; the answer is the pid of a process that waits
for SIGCONT before it begins, then, when it is over, its wait status.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

from lightkeep.catalog import Catalog
from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.replicas.transfer import Pace
from lightkeep.model.clock import SystemClock, SystemIds
from lightkeep.model.errors import LightkeepError
from lightkeep.model.people import SERVICE
from lightkeep.storage.calls import machine
from lightkeep.storage.posix import PosixStore

PACE = Pace(files=10, size=1 << 20, many=1)  # four groups
BIG = 1 << 20


def run(root: Path, source: Path, threads: int) -> None:
    """Ingest the source into the facility at root. With one thread the calls have one order."""
    clock, ids = SystemClock(), SystemIds()
    catalog = Catalog.open(f"sqlite:///{root / 'catalog.db'}", clock=clock, ids=ids)
    store = PosixStore(catalog.view(SERVICE).store("central"), threads=1, big=BIG)
    facility = Facility(Config(root), catalog, clock, ids, {"central": store})
    ingest(
        facility, source, experiment_id="e1", principal=SERVICE, quiet_s=0.0, pace=replace(PACE, threads=threads)
    )
    facility.close()


def attempt(root: Path, source: Path, threads: int) -> int:
    """Ingest; return 0, or 3 after writing the error's code and message to `root/error`."""
    try:
        run(root, source, threads)
    except LightkeepError as error:
        (root / "error").write_text(f"{error.code}: {error.message}; {error.remedy}")
        return 3
    return 0


def answer(number: int) -> None:
    """Tell the test a number."""
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def main() -> None:
    """Serve until standard input closes."""
    machine()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.kill(os.getpid(), signal.SIGSTOP)
            os._exit(attempt(Path(order["root"]), Path(order["source"]), order["threads"]))
        os.waitpid(pid, os.WUNTRACED)
        answer(pid)
        answer(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    main()
