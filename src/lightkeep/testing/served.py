"""What a test in a browser needs to know of the server that it talks to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Server:
    """A running portal."""

    address: str
    config: Path
    """Of its facility."""
    raw_id: str
    result_id: str
    slow_id: str
    """A scan whose reconstruction takes a while."""
    curves: tuple[str, ...]
    """Results of XPCS; the last does not belong to the others."""
