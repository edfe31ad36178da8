"""The other end of `sandbox`: a warm process that forks one short-lived child per call.

Started as `python -m lightkeep.formats.sandbox_worker FD`. It holds the libraries loaded and no data; a child reads one
file, answers and ends, so that what a file does to its reader never reaches the next file.
"""

from __future__ import annotations

import ctypes
import importlib
import math
import os
import resource
import signal
import socket
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from lightkeep.model.errors import BadFile, LightkeepError

_PRELOAD = (
    "lightkeep.formats.inspection",
    "lightkeep.formats.data_exchange",
    "lightkeep.formats.nxtomo",
    "lightkeep.formats.nexus",
)
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446
_LANDLOCK_WRITES = sum(1 << bit for bit in (1, *range(4, 13)))
"""write_file, remove_dir, remove_file and make_* of the first Landlock ABI (Linux 5.13)."""


def confine() -> list[str]:
    """Give up what reading a file does not need; return what the kernel refused to take.

    Files cannot be written (file size limit 0; Landlock where the kernel has it), and the network is an empty
    namespace where the kernel lets this user make one.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    missing = []
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if libc.unshare(_CLONE_NEWNET) and libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET):
        missing.append("network namespace")
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    handled = ctypes.c_uint64(_LANDLOCK_WRITES)
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(handled), ctypes.sizeof(handled), 0)
    if ruleset < 0 or libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0):
        missing.append("landlock")
    return missing


def serve(control: socket.socket) -> None:
    """Fork a child for each socket that arrives, until the other side closes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children
    while True:
        _data, descriptors, _flags, _address = socket.recv_fds(control, 1, 1)
        if not descriptors:
            return
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _answer(Connection(descriptors[0]))
            os._exit(0)
        os.close(descriptors[0])


def _answer(pipe: Connection[Any, Any]) -> None:
    """Run one call under its limits. The kernel's timer ends it even inside a C call, where Python's handlers
    would not run."""
    try:
        function, args, kwargs, timeout_s, memory_bytes, path = pipe.recv()
    except EOFError:  # the asking side died
        return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    seconds = math.ceil(timeout_s) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    room = _mapped_bytes() + memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    sys.path[:] = path
    module, _, name = function.partition(":")
    try:
        answer = (True, getattr(importlib.import_module(module), name)(*args, **kwargs))
    except LightkeepError as error:
        answer = (False, error)
    except MemoryError:
        answer = (False, BadFile("reading it needs too much memory", remedy="keep it as a plain file"))
    except Exception as error:  # noqa: BLE001 -- a parser may raise anything on hostile content
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        answer = (
            False,
            BadFile(f"it cannot be read: {what}", remedy="look at the file with the program that wrote it"),
        )
    pipe.send(answer)


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


if __name__ == "__main__":
    for module in _PRELOAD:
        importlib.import_module(module)
    confine()
    serve(socket.socket(fileno=int(sys.argv[1])))
