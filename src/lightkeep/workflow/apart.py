"""A worker in a process of its own, for a server: what it computes takes neither the server's time nor its life.

server ──starts──> python -m lightkeep.workflow.apart     when it dies, a new one goes on with its work
   │                   │
   └─ closes its stdin ┴─> clean stop                     when the server dies, the kernel kills it
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress

from lightkeep.config import Config
from lightkeep.engines.worker import die_with
from lightkeep.facility import open_facility
from lightkeep.workflow.orchestrator import open_workflow

_LOOK_S = 0.2
_AGAIN_S = 1.0
"""Pause before a new worker when one died, and between two looks at a lock that somebody else has."""
_STOP_S = 15.0
"""How long a worker may take to leave its step; then it is killed, which costs it the piece it was at."""


class WorkerApart:
    """Keeps one worker process alive until it is closed."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._closing = threading.Event()
        # A thread that lives as long as the workers: the kernel ends them when the one that started them ends.
        self._thread = threading.Thread(target=self._keep_alive, name="lightkeep-worker", daemon=True)
        self._thread.start()

    def _keep_alive(self) -> None:
        command = [sys.executable, "-m", "lightkeep.workflow.apart", str(os.getpid())]
        while not self._closing.is_set():
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, process_group=0)  # noqa: S603
            _attend(process, self._config, self._closing)
            self._closing.wait(_AGAIN_S)

    def close(self) -> None:
        """Ask the worker to stop, and wait until it is gone."""
        self._closing.set()
        self._thread.join()


def _attend(process: subprocess.Popen[bytes], config: Config, closing: threading.Event) -> None:
    """Tell a new process what to work for; return when it has ended, or was asked to and did."""
    stdin = process.stdin
    if stdin is None:
        return
    with suppress(BrokenPipeError):  # it died already
        pickle.dump((sys.path, config), stdin)
        stdin.flush()
    while process.poll() is None and not closing.wait(_LOOK_S):
        pass
    with suppress(BrokenPipeError):
        stdin.close()
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


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
