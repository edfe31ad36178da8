"""A process for each acquisition that is to run, kept alive by the worker.

    worker ── each second ──> which are to run, on this host, and have nobody? ──> a process each
      └── ends ──> the kernel ends its processes; their leases run out, and another worker takes over

Started as `python -m lightkeep.lifecycle.acquisitions.acquire_keep PARENT`, the configuration and the id on stdin.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Final

from lightkeep import telemetry
from lightkeep.engines.worker import die_with
from lightkeep.facility import Facility, open_facility
from lightkeep.lifecycle.acquisitions.acquire_run import run
from lightkeep.model.acquisition import Acquisition, AcquisitionState
from lightkeep.model.errors import Conflict
from lightkeep.model.people import SERVICE

_AGAIN_S: Final = 2.0
"""Pause before an acquisition whose process ended gets the next one."""
_STOP_S: Final = 15.0


class Keeper:
    """Keeps the processes of this host's acquisitions. Use from one thread that lives as long as they do."""

    def __init__(self, facility: Facility) -> None:
        self._facility = facility
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._not_before: dict[str, float] = {}

    def tick(self) -> int:
        """Start what is to run and does not; return how many processes live.

        Raises
        ------
        LightkeepError: the catalogue is away; the processes that live go on.
        """
        ended = {key: each for key, each in self._processes.items() if each.poll() is not None}
        for key, process in ended.items():
            del self._processes[key]
            self._not_before[key] = time.monotonic() + _AGAIN_S
            _close(process)
        view = self._facility.catalog.view(SERVICE)
        for key, process in ended.items():
            self._free(view.acquisition(key), process.pid)
        now = self._facility.clock.now()
        for found in view.acquisitions(state=AcquisitionState.RUNNING, limit=1000).items:
            is_free = found.lease_until is None or found.lease_until <= now
            is_ours = found.host in ("", socket.gethostname())
            is_time = self._not_before.get(found.id, 0.0) <= time.monotonic()
            if is_free and is_ours and is_time and found.id not in self._processes:
                self._processes[found.id] = self._started(found.id)
        return len(self._processes)

    def _free(self, found: Acquisition, pid: int) -> None:
        """Free what a process left behind that died: nobody need wait for its lease to run out."""
        if found.holder == f"{socket.gethostname()}:{pid}":
            with self._facility.catalog.change(SERVICE) as tx:
                tx.free_acquisition(found.id, found.token)

    def _started(self, acquisition_id: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "lightkeep.lifecycle.acquisitions.acquire_keep", str(os.getpid())]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, process_group=0)  # noqa: S603
        if process.stdin is not None:
            with suppress(BrokenPipeError):  # it died already
                pickle.dump((sys.path, self._facility.config, acquisition_id), process.stdin)
                process.stdin.flush()
        return process

    def close(self) -> None:
        """Ask all to end, and wait until they have: what runs goes on with the next worker."""
        for process in self._processes.values():
            _close(process)
        until = time.monotonic() + _STOP_S
        for process in self._processes.values():
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        with suppress(BrokenPipeError):
            process.stdin.close()


def main(parent: int) -> None:
    """Run one acquisition until it is stopped, or stdin closes."""
    die_with(parent)
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path[:], config, acquisition_id = pickle.load(sys.stdin.buffer)  # noqa: S301 -- from the process above
    begin = config.telemetry
    telemetry.start("acquisition", level=begin.log_level, style=begin.log_format, traces=begin.traces)
    threading.Thread(target=_until_closed, args=(ending,), daemon=True).start()
    with open_facility(config) as facility, suppress(Conflict):  # another process was faster
        run(facility, acquisition_id, ending=ending)


def _until_closed(ending: threading.Event) -> None:
    select.select([sys.stdin], [], [])
    ending.set()


if __name__ == "__main__":
    main(int(sys.argv[1]))
