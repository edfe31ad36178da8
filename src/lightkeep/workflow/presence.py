"""A worker's lock on its own host: the kernel frees it at death, so that nobody there waits for a lease.

    scratch/workers/HOST/WORKER     locked while that worker lives, were it paused

A lock says less than a lease where it cannot be trusted: another host, a file that is gone, a disk without locks.
There the lease decides, as if there were no lock.
"""

from __future__ import annotations

import fcntl
import os
import socket
from contextlib import suppress
from pathlib import Path

from lightkeep.facility import Facility
from lightkeep.model.runs import Worker


class Presence:
    """The lock of a worker that is about to join."""

    def __init__(self, facility: Facility, worker_id: str) -> None:
        self._path = _folder(facility) / worker_id
        self._lock = -1
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)

    def close(self) -> None:
        """Free the lock of a worker that counts no more."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def is_dead(facility: Facility, worker: Worker) -> bool:
    """Return whether a worker of this host has died; False also where only its lease can tell."""
    return worker.host == socket.gethostname() and _is_free(_folder(facility) / worker.id)


def sweep(facility: Facility) -> None:
    """Delete the locks that the dead of this host left, once they count no more."""
    with suppress(OSError):
        for path in list(_folder(facility).iterdir()):
            if _is_free(path):
                path.unlink(missing_ok=True)


def _folder(facility: Facility) -> Path:
    return facility.config.scratch / "workers" / socket.gethostname()


def _is_free(path: Path) -> bool:
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True
