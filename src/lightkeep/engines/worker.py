"""The other end of `processes`: a process that answers tasks until its pipe closes.

Started as `python -m lightkeep.engines.worker FD PARENT`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from multiprocessing.connection import Connection
from typing import Any

from lightkeep.engines.call import call
from lightkeep.model.errors import LightkeepError, RunFailed

_PR_SET_PDEATHSIG = 1


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when the thread that started it ends, however it ends.

    Raises
    ------
    SystemExit: the parent was gone before the kernel could be asked.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit(1)


def serve(pipe: Connection[Any, Any]) -> None:
    """Answer each task with `(True, result)` or `(False, error)` until the pipe closes."""
    sys.path[:] = pipe.recv()
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            answer: tuple[bool, object] = (True, call(task))
        except LightkeepError as error:
            answer = (False, error)
        _send(pipe, answer, task.function)


def _send(pipe: Connection[Any, Any], answer: tuple[bool, object], function: str) -> None:
    try:
        pipe.send(answer)
    except (TypeError, AttributeError, ValueError) as error:  # what pickle raises; nothing was sent yet
        pipe.send((False, RunFailed(f"{function}: its result cannot be sent to another process: {error}")))


if __name__ == "__main__":
    die_with(int(sys.argv[2]))
    serve(Connection(int(sys.argv[1])))
