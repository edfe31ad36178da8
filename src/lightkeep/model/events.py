"""The audit trail: one event per change, chained by hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """Who did what to which thing, when. Written in the transaction of the change itself."""

    seq: int
    """1, 2, 3 ... without gaps."""
    at: datetime
    actor: str
    """Principal id."""
    verb: str
    """`noun.verb`, e.g. `dataset.completed`."""
    subject: str
    """Id of the thing changed."""
    experiment_id: str = ""
    """The experiment that it belongs to: decides who may see the event. Empty: facility staff only."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """JSON-safe facts."""
    previous: str = ""
    """Hash of the event before; 64 zeros for the first."""
    hash: str = ""
    """SHA-256 over `previous` and the canonical form of this event."""


def event_hash(event: Event) -> str:
    """Return SHA-256(previous || canonical(event)) in hex (invariant A1)."""
    canonical = json.dumps(
        [
            event.seq,
            event.at.isoformat(),
            event.actor,
            event.verb,
            event.subject,
            event.experiment_id,
            event.detail,
        ],
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=True,
    )
    return hashlib.sha256(event.previous.encode() + canonical.encode()).hexdigest()
