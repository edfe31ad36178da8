"""Time and identity are passed in, so that tests and the simulator own them."""

from __future__ import annotations

import secrets
import time
from datetime import UTC, datetime
from typing import Protocol

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford base 32: no i, l, o, u


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
    """48 bits of milliseconds, then 32 random bits, in base 32: sortable and short enough to read aloud."""

    def new(self, prefix: str) -> str:
        """Return a new identifier such as `ds_01kb3x5e9q7m2r4t`."""
        value = (int(time.time() * 1000) << 32) | secrets.randbits(32)
        digits = []
        for _ in range(16):
            value, digit = divmod(value, 32)
            digits.append(_ALPHABET[digit])
        return f"{prefix}_{''.join(reversed(digits))}"
