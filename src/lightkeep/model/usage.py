"""What is planned for room: how stations grow, and how much each may take."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from lightkeep.model.people import Scope


@dataclass(frozen=True, slots=True)
class Step:
    """A planned change of what a station produces, such as a new detector."""

    at: date
    """From this day on."""
    factor: float
    """What it produced is multiplied by this, for good."""


@dataclass(frozen=True, slots=True)
class Growth:
    """How much a station produces, and how that grows."""

    station_id: str
    technique: str = ""
    """Only data of this technique; empty: all of the station's."""
    bytes_per_day: float = 0.0
    """Raw data, on the mean of all days of a year, today."""
    per_year: float = 1.0
    """Factor by which it grows in a year: 1 not at all, 2 doubles."""
    steps: tuple[Step, ...] = ()
    """Planned upgrades, in the order of their days."""


@dataclass(frozen=True, slots=True)
class Quota:
    """How much of the managed stores an experiment or a station may take. Never a reason to delete."""

    scope: Scope
    """Experiment or station."""
    scope_id: str
    size: int
    """Bytes of all copies on managed stores."""
    is_hard: bool = False
    """True: ingest refuses what would go beyond; False: it only warns."""
    warn_at: float = 0.8
    """Fraction from which people are warned."""
