"""Who may do what: persons, roles as bundles of eight verbs, grants, and the principal of a request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Verb(StrEnum):
    """The eight things that one may do to an experiment or its data."""

    SEE = "see"
    READ = "read"
    WRITE = "write"
    ANNOTATE = "annotate"
    PROCESS = "process"
    SHARE = "share"
    MANAGE = "manage"
    DESTROY = "destroy"


class Role(StrEnum):
    """Bundles of verbs; the table that says which is in `policy.access`."""

    COLLABORATOR = "collaborator"
    MEMBER = "member"
    PI = "pi"
    STATION_SCIENTIST = "station-scientist"
    STATION_MANAGER = "station-manager"
    FACILITY_ADMIN = "facility-admin"
    PUBLIC = "public"


class Scope(StrEnum):
    """How wide a grant reaches."""

    FACILITY = "facility"
    STATION = "station"
    EXPERIMENT = "experiment"


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an account."""

    id: str
    """The user name: lower case, as typed at sign-in."""
    name: str
    """The name as shown to others."""
    email: str = ""
    """Where notices go; may be empty."""
    created_at: datetime | None = None
    """When the account was made; set by the catalogue."""
    is_active: bool = True
    """False: may not sign in any more; the record stays."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A role for one person on the facility, a station or an experiment. Grants only add, never deny."""

    person_id: str
    role: Role
    scope: Scope
    scope_id: str = ""
    """Station or experiment id; empty for the facility."""
    created_at: datetime | None = None
    """When it was granted; set by the catalogue."""
    origin: str = ""
    """Who takes care of it: empty for a person, `proposal` for the proposal system; only it takes its own away."""


@dataclass(frozen=True, slots=True)
class Principal:
    """On whose behalf a request runs. Every read and every change names one."""

    id: str
    """Person id; `anonymous` or `lightkeep` for the two that are not persons."""
    is_service: bool = False
    """True only for Lightkeep itself (workers, doctor): sees everything; never made from a request."""

    @property
    def is_anonymous(self) -> bool:
        """True when nobody signed in."""
        return self.id == "anonymous" and not self.is_service


ANONYMOUS = Principal("anonymous")
SERVICE = Principal("lightkeep", is_service=True)
