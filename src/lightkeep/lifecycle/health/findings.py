"""What a look at the facility finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """How bad a finding is."""

    ERROR = "error"
    """Data or records are not what they should be."""
    WARNING = "warning"
    """Nothing is lost; somebody should look."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be."""

    severity: Severity
    subject: str
    """Id of the thing."""
    message: str
    """One line: what is wrong with which thing."""
    remedy: str = ""
    """What to do next."""
