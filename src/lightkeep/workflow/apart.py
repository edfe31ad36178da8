"""A worker in a process of its own, for a server: what it computes takes neither the server's time nor its life.

server ──starts──> python -m lightkeep.workflow.worker    when it dies, a new one goes on with its work
   │                   │
   └─ closes its stdin ┴─> clean stop                     when the server dies, the kernel kills it
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from contextlib import suppress

from lightkeep.config import Config

_LOOK_S = 0.2
_AGAIN_S = 1.0
"""Pause before a new worker when one died."""
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
        command = [sys.executable, "-m", "lightkeep.workflow.worker", str(os.getpid())]
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
