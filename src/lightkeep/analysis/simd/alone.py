"""One process compiles, the others wait and load: a dozen workers that start together need no dozen compilers."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PATIENCE_S: Final = 180.0


@contextmanager
def alone(path: Path | None, *, patience_s: float = _PATIENCE_S) -> Iterator[None]:
    """Hold the lock of a cached file across processes; the system takes it from whoever dies.

    Nobody is kept out for good: after `patience_s`, or where nothing can be locked, the work is done side by side,
    which costs time and nothing else, as cached files are replaced whole.
    """
    try:
        lock = -1 if path is None else os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError:
        lock = -1
    try:
        end = time.monotonic() + patience_s
        while lock >= 0 and not _taken(lock) and time.monotonic() < end:
            time.sleep(0.02)
        yield
    finally:
        if lock >= 0:
            os.close(lock)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a filesystem without locks
        return True
    return True
