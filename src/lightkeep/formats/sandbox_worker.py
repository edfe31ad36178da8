"""The other end of `sandbox`: a warm process that forks one short-lived child per call.

Started as `python -m lightkeep.formats.sandbox_worker FD`. It holds the libraries loaded and no data; a child
reads one file, answers and ends, so that what a file does to its reader never reaches the next file.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import math
import os
import resource
import signal
import socket
import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py

from lightkeep import formats
from lightkeep.formats import hdf5
from lightkeep.formats.metadata import gather
from lightkeep.model.errors import BadFile, LightkeepError

_PRELOAD = ("lightkeep.formats.inspection", "lightkeep.formats.viewing")
_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_LANDLOCK_CREATE_RULESET, _LANDLOCK_RESTRICT_SELF = 444, 446  # the same numbers on every architecture
_LANDLOCK_WRITES = sum(1 << bit for bit in (1, *range(4, 13)))
"""write_file, remove_dir, remove_file and make_* of the first Landlock ABI (Linux 5.13)."""


def confine() -> list[str]:
    """Give up what reading a file does not need; return what the kernel would not take away.

    No file can grow (size limit 0) and no core is dumped. Where the kernel has Landlock, nothing can be opened for
    writing, created or removed; where it lets this user make one, the network is an empty namespace.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    refused = []
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if libc.unshare(_CLONE_NEWNET) and libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET):
        refused.append("network namespace")
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    handled = ctypes.c_uint64(_LANDLOCK_WRITES)
    ruleset = libc.syscall(_LANDLOCK_CREATE_RULESET, ctypes.byref(handled), ctypes.sizeof(handled), 0)
    if ruleset < 0 or libc.syscall(_LANDLOCK_RESTRICT_SELF, ruleset, 0):
        refused.append("landlock")
    return refused


def serve(control: socket.socket) -> None:
    """Say that all is loaded, then fork a child for each socket that arrives, until the other side closes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the children
    control.send(b"r")
    while True:
        module, descriptors, _flags, _address = socket.recv_fds(control, 1024, 1)
        if not descriptors:
            return
        with suppress(ImportError):  # loaded here once, not in each child; the child will tell what is wrong
            importlib.import_module(module.decode())
        if os.fork() == 0:
            control.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _serve_one(Connection(descriptors[0]))
            os._exit(0)
        os.close(descriptors[0])


def _serve_one(pipe: Connection[Any, Any]) -> None:
    """Run one call under its limits.

    The kernel's own timer ends the process, even inside a C call, where Python's signal handlers would not run.
    """
    try:
        function, args, kwargs, timeout_s, memory_bytes = pipe.recv()
    except EOFError:  # the asking side died
        return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, timeout_s)
    cpu_s, room = math.ceil(timeout_s) + 1, _mapped_bytes() + memory_bytes
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    pipe.send(_answer(function, args, kwargs))


def _answer(function: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[bool, Any]:
    module, _, name = function.partition(":")
    subject = args[0] if args else function
    try:
        return True, getattr(importlib.import_module(module), name)(*args, **kwargs)
    except LightkeepError as error:
        return False, error
    except MemoryError:
        return False, BadFile(f"{subject}: reading it needs too much memory", remedy="keep it as a plain file")
    except Exception as error:  # noqa: BLE001 -- a parser may raise anything on hostile content
        what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return False, BadFile(
            f"{subject}: cannot be read: {what}", remedy="open it with the program that wrote it"
        )


def _mapped_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _warm_up() -> None:
    """Pay for first uses here, once, not in each child; and keep the collector from touching shared pages."""
    with h5py.File("warm", "w", driver="core", backing_store=False) as file:
        file["entry/data"] = [1.0]
        file["entry/data"].attrs["units"] = "counts"
        hdf5.check_safe(file)
        gather(file, {}, {})
    gc.disable()
    gc.freeze()


if __name__ == "__main__":
    for module in _PRELOAD:
        importlib.import_module(module)
    for name in formats.names():
        formats.get(name)
    _warm_up()
    confine()
    serve(socket.socket(fileno=int(sys.argv[1])))
