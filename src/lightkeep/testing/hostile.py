"""Readers that misbehave, for the tests of the sandbox."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
from pathlib import Path
from typing import Any

from lightkeep.formats import sandbox_worker
from lightkeep.model.errors import Conflict


def hang(_path: str) -> None:
    """Stay inside one C call, with signals handled by Python only, as HDF5 does on some damaged files."""
    signal.signal(signal.SIGINT, lambda _number, _frame: None)
    ctypes.PyDLL(None).sleep(60)  # holds the interpreter lock


def crash(_path: str, number: int) -> None:
    """Die by a signal."""
    os.kill(os.getpid(), number)


def swallow(_path: str, size: int) -> int:
    """Take memory."""
    return len(bytearray(size))


def refuse(path: str) -> None:
    """Raise an error of ours."""
    raise Conflict("taken", remedy="choose", name=path)


def divide(_path: str) -> float:
    """Raise an error that a parser should not, but does."""
    return 1 / 0


def write(path: str) -> None:
    """Write a file."""
    with Path(path).open("wb") as file:
        file.write(b"x" * 10_000)


def surroundings() -> tuple[list[str], list[str]]:
    """Return the network interfaces, and what the kernel would not take away."""
    return [name for _number, name in socket.if_nameindex()], sandbox_worker.confine()


class _Strike:
    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self._path,)


def strike_back(path: str) -> object:
    """Answer with something that runs code where it is unpickled."""
    return _Strike(path)
