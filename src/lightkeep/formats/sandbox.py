"""Reading files from strangers in a process that can die.

    call ──socket──> zygote (libraries loaded, no data) ──fork──> child: limits, one call, one answer, end
      │                                                             │
      └── waits at most timeout_s <── answer, or end of file when ──┘ the kernel's timer or a crash ended it

A file that makes HDF5 loop inside a C call cannot be stopped by a thread or a signal handler (seen: 1 mutant in
2,000), so only a process boundary helps. The child has a limit on memory, CPU time and wall time, cannot write
files, and has no network where the kernel allows that (see `sandbox_worker.confine`). Answers are rebuilt from a
short list of classes, so that a child that was taken over cannot run code here.
"""

from __future__ import annotations

import atexit
import io
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from lightkeep.model import errors
from lightkeep.model.errors import BadFile, StorageError

_GRACE_S = 1.0
"""How much longer than the child's own timer the caller waits."""
_START_S = 60.0
"""How long loading the libraries may take, on a busy machine with a cold disk."""
_AT_ONCE = 8
"""Calls that run at the same time; more wait."""
_PLAIN = {
    ("lightkeep.formats", "Inspection"),
    ("lightkeep.formats.viewing", "Answer"),
    ("lightkeep.model.datasets", "Metadata"),
    ("lightkeep.model.quantity", "Quantity"),
    ("lightkeep.model.errors", "_rebuild"),
    ("pathlib", "PosixPath"),
}
_ERRORS = {name for name, value in vars(errors).items() if isinstance(value, type)}


class Sandbox:
    """One zygote, started when it is first needed and again after it died. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(_AT_ONCE)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._owner = 0

    def call(
        self, function: str, *args: Any, timeout_s: float = 30.0, memory_bytes: int = 1 << 30, **kwargs: Any
    ) -> Any:
        """Return what `module:function` returns for the arguments, computed in a child.

        The first argument names the file in messages. What is returned must be plain values, or one of the few
        dataclasses that `formats` and `model` share.

        Raises
        ------
        BadFile: the function raised something that is not ours, ran longer than `timeout_s`, needed more than
            `memory_bytes`, or ended its process. Errors of ours come as they are.
        """
        with self._places:
            ours, theirs = socket.socketpair()
            with Connection(ours.detach()) as pipe:
                with theirs:
                    self._hand_over(theirs, function.partition(":")[0])
                started = time.monotonic()
                with suppress(BrokenPipeError):  # it died already: reading from the pipe will tell
                    pipe.send((function, args, kwargs, timeout_s, memory_bytes))
                answer = self._receive(pipe, timeout_s)
        if answer is None:
            took_too_long = time.monotonic() - started >= timeout_s
            raise _death(args, f"took longer than {timeout_s:g} s" if took_too_long else "ended its reader")
        succeeded, value = answer
        if succeeded:
            return value
        raise value

    def close(self) -> None:
        """End the zygote and every child; the next call starts a new one."""
        with self._lock:
            self._end()

    def _hand_over(self, theirs: socket.socket, module: str) -> None:
        with self._lock:
            for _ in range(2):  # the zygote may have died since the last call
                with suppress(OSError):
                    socket.send_fds(self._running(), [module.encode()], [theirs.fileno()])
                    return
                self._end()
        raise StorageError("the process that reads files does not start", remedy="see its last words in the log")

    def _running(self) -> socket.socket:
        """Return the way to a living zygote. OSError when it does not come to life."""
        if self._control is not None and self._owner == os.getpid():
            return self._control
        self._end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "lightkeep.formats.sandbox_worker", str(theirs.fileno())]
            self._process = subprocess.Popen(  # noqa: S603 -- our own module, no shell
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # a library's print must not end up in somebody's --json
                env=_environment(),
                process_group=0,
            )
        self._control, self._owner = ours, os.getpid()
        ours.settimeout(_START_S)
        if ours.recv(1) != b"r":
            raise ConnectionError("it ended while it started")
        ours.settimeout(None)
        return ours

    def _end(self) -> None:
        if self._control is not None:
            self._control.close()
        if self._process is not None and self._owner == os.getpid():  # after a fork it is the parent's
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = self._control = None

    def _receive(self, pipe: Connection[Any, Any], timeout_s: float) -> tuple[bool, Any] | None:
        """The answer; None when there will be none."""
        if not pipe.poll(timeout_s + _GRACE_S):
            self.close()  # its own timer did not end it
            return None
        try:
            answer = _Answers(io.BytesIO(pipe.recv_bytes())).load()
        except (EOFError, OSError, pickle.UnpicklingError):
            return None
        return answer if isinstance(answer, tuple) and len(answer) == 2 else None


class _Answers(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN or (module == errors.__name__ and name in _ERRORS):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} does not come out of the sandbox")


def _environment() -> dict[str, str]:
    """One thread, so that the zygote may fork; no variable that tells HDF5 where else to look for files."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HDF5_")}
    single = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS")
    return kept | dict.fromkeys(single, "1") | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def _death(args: tuple[Any, ...], how: str) -> BadFile:
    return BadFile(
        f"{args[0] if args else 'a file'}: reading it {how}",
        remedy="keep it as a plain file, or write it again with the program that made it",
    )


_SHARED = Sandbox()
"""One per process. It is a warm interpreter, and remembers nothing of what it read."""
atexit.register(_SHARED.close)


def call(function: str, *args: Any, timeout_s: float = 30.0, memory_bytes: int = 1 << 30, **kwargs: Any) -> Any:
    """Return `Sandbox.call` of the sandbox that this process shares."""
    return _SHARED.call(function, *args, timeout_s=timeout_s, memory_bytes=memory_bytes, **kwargs)
