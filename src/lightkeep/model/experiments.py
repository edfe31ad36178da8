"""Stations and experiments."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Station:
    """An end station of a beamline: where experiments take place."""

    id: str
    """As the facility writes it, e.g. `2-BM-A`."""
    name: str = ""
    """What is done there, e.g. `Micro-tomography`."""
    techniques: tuple[str, ...] = ()
    """Techniques offered, e.g. `("tomography",)`."""
    created_at: datetime | None = None
    """When it was registered; set by the catalogue."""


class ExperimentState(StrEnum):
    """planned -> open -> closed -> (retained <-> expiring) -> expired; opened again from any but expired.

    Never deleted. Being public is no state: `Experiment.released_at` says from when on, whatever becomes of bytes.
    """

    PLANNED = "planned"
    OPEN = "open"
    CLOSED = "closed"
    RETAINED = "retained"
    EXPIRING = "expiring"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Experiment:
    """The unit of access and of policy: one group's beam time at one station."""

    id: str
    """Facility-wide name, e.g. `2026-11-lee-81234`: year-month, PI, proposal number."""
    station_id: str
    title: str = ""
    """What the group set out to measure."""
    state: ExperimentState = ExperimentState.OPEN
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    """The beam-time window; either side may be unknown."""
    identifiers: dict[str, str] = field(default_factory=dict)
    """Other systems' numbers by scheme, e.g. `{"esaf": "281234", "gup": "81234"}`."""
    policy_id: str = ""
    """Retention policy of its own; empty: the one that its station follows."""
    created_at: datetime | None = None
    """Set by the catalogue."""
    closed_at: datetime | None = None
    """When it was closed last; set by the catalogue."""
    released_at: datetime | None = None
    """From then on everybody may see and read it; later than now: an embargo. None: only who has a role."""
    datasets: int = 0
    """Number of complete datasets; kept by the catalogue."""
    files: int = 0
    """Number of files in them; kept by the catalogue."""
    size: int = 0
    """Bytes in them; kept by the catalogue."""

    def is_public(self, now: datetime) -> bool:
        """Return whether everybody may see and read it at a time."""
        return self.released_at is not None and self.released_at <= now
