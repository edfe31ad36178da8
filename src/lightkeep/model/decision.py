"""What a pure decision function answers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Decision:
    """Allowed or not, why, and by which rule."""

    allow: bool
    """True when the thing may be done."""
    reason: str
    """One sentence for a person."""
    rule: str
    """Stable name of the rule that decided, e.g. `role:member`."""

    def __bool__(self) -> bool:
        return self.allow
