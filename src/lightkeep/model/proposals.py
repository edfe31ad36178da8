"""Beam times as the proposal system knows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Member:
    """Somebody on a proposal."""

    last_name: str
    first_name: str = ""
    email: str = ""
    user: str = ""
    """User name here, e.g. `d65321`; empty: found by e-mail, or made from the name."""
    is_pi: bool = False

    @property
    def name(self) -> str:
        """First name, last name."""
        return f"{self.first_name} {self.last_name}".strip()


@dataclass(frozen=True, slots=True)
class Proposal:
    """One beam time as the proposal system knows it."""

    number: str
    station_id: str
    people: tuple[Member, ...]
    title: str = ""
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    identifiers: Mapping[str, str] | None = None
    """By scheme, e.g. `{"gup": "81234", "esaf": "281234"}`."""
    station_name: str = ""
    techniques: tuple[str, ...] = ()


def in_utc(at: datetime | None) -> datetime | None:
    """Return a time of a record in UTC; one without a zone is UTC."""
    if at is None:
        return None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
