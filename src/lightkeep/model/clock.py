"""Time and identity are passed in, so that tests and the simulator own them."""

from __future__ import annotations

import os
import secrets
import threading
import time
from datetime import UTC, datetime
from typing import Protocol

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32: no i, l, o, u
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
_SHIFTS = range(70, 10, -10)


class Clock(Protocol):
    """Where `now` comes from."""

    def now(self) -> datetime:
        """Return the present as an aware datetime in UTC."""
        ...


class Ids(Protocol):
    """Where new identifiers come from."""

    def new(self, prefix: str) -> str:
        """Return `prefix_` and 16 characters, sortable by time of creation."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Return the machine's time in UTC."""
        return datetime.now(UTC)


class SystemIds:
    """48 bits of milliseconds, then 32 bits, in base 32: sortable and short enough to read aloud.

    The 32 bits are random for the first identifier of a millisecond and count on for the others: random ones would
    meet once in some hundred thousand files of a fast ingest. For all threads of a process, and for its forks.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._process = 0
        self._head = (-1, "")
        """The first twelve characters, made once for a million identifiers in a row."""

    def new(self, prefix: str) -> str:
        """Return a new identifier such as `ds_01kb3x5e9q7m2r4t`."""
        begin = time.time_ns() // 1_000_000 << 32
        with self._lock:
            if self._last < begin or self._process != os.getpid():
                self._last = begin | secrets.randbits(32)
                self._process = os.getpid()
            else:
                self._last += 1
            value = self._last
            if self._head[0] != value >> 20:
                self._head = (value >> 20, "".join([_PAIRS[value >> shift & 1023] for shift in _SHIFTS]))
            head = self._head[1]
        return f"{prefix}_{head}{_PAIRS[value >> 10 & 1023]}{_PAIRS[value & 1023]}"
