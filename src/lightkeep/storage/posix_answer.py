"""Does the medium of a folder answer at all?

A network filesystem whose server is down keeps whoever asks it, for minutes or for ever, and no thread comes back
from there. So a process of its own asks first, and stays behind in our place when there is no answer.
"""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from typing import Final

from lightkeep.storage.keys import MARKER

_ASK: Final = f"""
import os, sys
os.statvfs(sys.argv[1])
os.read(os.open(os.path.join(sys.argv[1], {MARKER!r}), os.O_RDONLY), 4096)
"""
_ENDING_S: Final = 0.5


class Asker:
    """Asks one folder, by at most one process at a time, however often it is called."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._child: subprocess.Popen[bytes] | None = None
        """Who still waits for an answer: not even a kill ends that on some mounts."""

    def answers(self, *, within_s: float) -> bool:
        """Return whether the folder answered within so many seconds; that it is not there is an answer."""
        if self._child is not None and self._child.poll() is None:
            return False
        child = subprocess.Popen(  # noqa: S603 -- our own interpreter, the folder as an argument
            [sys.executable, "-I", "-S", "-c", _ASK, self._location],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._child = child
        try:
            child.wait(within_s)
        except subprocess.TimeoutExpired:
            child.kill()
            with suppress(subprocess.TimeoutExpired):
                child.wait(_ENDING_S)
            return False
        return True
