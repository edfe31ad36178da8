"""What keeps data and what lets it go: holds, leases, notices, purge plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from lightkeep.model.stores import ReplicaState, split_member


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A retention policy as it was adopted: its text never changes, a new text is a new version."""

    id: str
    """E.g. `aps-default`."""
    version: int
    """1, 2, 3 ... without gaps."""
    text: str
    """The TOML document."""
    author: str = ""
    """Person who adopted it: may not approve the loss of a last copy under it (P4)."""
    created_at: datetime | None = None

    @property
    def stamp(self) -> str:
        """What every decision under it carries, e.g. `aps-default@3`."""
        return f"{self.id}@{self.version}"


class HoldScope(StrEnum):
    """How wide a hold reaches."""

    FACILITY = "facility"
    STATION = "station"
    STORE = "store"
    EXPERIMENT = "experiment"
    DATASET = "dataset"
    FILE = "file"


class HoldKind(StrEnum):
    """Why something is held."""

    USER = "user"
    """Somebody still needs it."""
    EXTENSION = "extension"
    """A user asked for more time, from the mail or the portal."""
    LEGAL = "legal"
    REVIEW = "review"
    """Its quality or a dispute is open."""
    PUBLICATION = "publication"
    """It is cited, or about to be."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing under it is deleted while it stands."""

    id: str
    scope: HoldScope
    scope_id: str
    """Id of the thing; empty for the facility."""
    kind: HoldKind
    reason: str
    """One sentence of the person who set it."""
    until: datetime | None = None
    """It ends by itself then; None: only when it is released."""
    created_by: str = ""
    created_at: datetime | None = None
    released_by: str = ""
    released_at: datetime | None = None

    def stands(self, now: datetime) -> bool:
        """Return whether it holds at a time."""
        return self.released_at is None and (self.until is None or now < self.until)


class LeaseKind(StrEnum):
    """Who is reading."""

    RUN = "run"
    DOWNLOAD = "download"
    RESTORE = "restore"
    TRANSFER = "transfer"


@dataclass(frozen=True, slots=True)
class Lease:
    """Somebody reads a dataset right now: none of its replicas goes until the lease ends."""

    id: str
    dataset_id: str
    kind: LeaseKind
    holder: str
    """Run id, principal id or plan id."""
    expires_at: datetime
    """Renewed while the reading lasts: a reader that died blocks nothing for ever."""
    created_at: datetime | None = None


class NoticeState(StrEnum):
    """due -> sent -> (bounced) -> acknowledged; any -> void."""

    DUE = "due"
    SENT = "sent"
    BOUNCED = "bounced"
    ACKNOWLEDGED = "acknowledged"
    VOID = "void"
    """A hold came, or its list grew: it counts no more, and people are told anew before anything goes."""


@dataclass(frozen=True, slots=True)
class Notice:
    """What the people of an experiment were told, about which files, and whether it reached anybody."""

    id: str
    experiment_id: str
    store_id: str
    """Where the files would go from."""
    days: int
    """How long before: 30, 7, 1."""
    listing: str
    """SHA-256 over the sorted replica ids that were announced (P3): another list restarts the clock."""
    files: int
    size: int
    """Bytes."""
    expires_at: datetime
    """When the files may go, as announced."""
    recipients: tuple[str, ...] = ()
    """Addresses."""
    state: NoticeState = NoticeState.DUE
    policy: str = ""
    """Stamp `id@version`."""
    last_copy: bool = False
    """True when no other copy stays."""
    created_at: datetime | None = None
    sent_at: datetime | None = None
    acknowledged_by: str = ""
    acknowledged_at: datetime | None = None


BY_POLICY: Final = "policy:"
"""What an approval begins with that a policy gave, before its stamp; no person's name has a colon."""


class PlanReason(StrEnum):
    """Why bytes should go."""

    EXPIRY = "expiry"
    PRESSURE = "pressure"
    """The store is above its high watermark."""
    EMERGENCY = "emergency"
    """Room is needed now: two people approve, and the trash is emptied at once."""


class PlanState(StrEnum):
    """frozen -> approved -> running -> done; frozen, approved -> cancelled | expired."""

    FROZEN = "frozen"
    APPROVED = "approved"
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class PurgePlan:
    """A frozen list of replicas of one store. Only what is on it may go, and only while its hash is right."""

    id: str
    store_id: str
    store_uuid: str
    """Identity read from the medium when the plan was made."""
    reason: PlanReason
    hash: str
    """SHA-256 over the items in order."""
    files: int
    size: int
    """Bytes on the list."""
    need: int
    """Bytes that the store must lose; 0: all that has expired may go."""
    expires_at: datetime
    """Not run after this."""
    state: PlanState = PlanState.FROZEN
    created_by: str = ""
    created_at: datetime | None = None
    approvals: tuple[str, ...] = ()
    """Persons who approved, in order; `policy:id@version` where a policy did by itself."""
    approved_at: datetime | None = None
    freed: int = 0
    """Bytes that went to the trash so far."""
    is_whole: bool = True
    """False: its figures are of the part that one may see; `need` and `hash` are left out."""

    @property
    def people(self) -> frozenset[str]:
        """The persons who approved."""
        return frozenset(each for each in self.approvals if each and not each.startswith(BY_POLICY))


class ItemState(StrEnum):
    """planned -> pending -> trashed -> destroyed; planned -> skipped; pending, trashed -> undone."""

    PLANNED = "planned"
    SKIPPED = "skipped"
    """Something changed since the plan was made: it stays, and the item says why."""
    PENDING = "pending"
    """The intent is durable; the bytes may or may not be in the trash yet."""
    TRASHED = "trashed"
    UNDONE = "undone"
    DESTROYED = "destroyed"


@dataclass(frozen=True, slots=True)
class PurgeItem:
    """One replica on a plan, and the evidence on which it may go. For ever: its tombstone."""

    plan_id: str
    position: int
    """0, 1, 2 ... in the order of execution."""
    replica_id: str
    file_id: str
    dataset_id: str
    experiment_id: str
    store_id: str
    key: str
    size: int
    sha256: str
    policy: str
    """Stamp `id@version`."""
    notice_id: str = ""
    state: ItemState = ItemState.PLANNED
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Each condition with what made it true, at the last decision."""
    trash_key: str = ""
    """Where the bytes are until `destroy_after`."""
    trashed_at: datetime | None = None
    destroy_after: datetime | None = None
    ended_at: datetime | None = None
    """When it was destroyed, undone or skipped."""

    @property
    def unit(self) -> str:
        """Key of the archive unit that it goes with, as a whole; empty: it is an object of its own."""
        found = split_member(self.key)
        return found[0] if found else ""


@dataclass(frozen=True, slots=True)
class ArchiveUnit:
    """One write-once tar on a store that holds members of one experiment and one retention class."""

    id: str
    store_id: str
    key: str
    """Name of the tar on the store; its index stands beside it."""
    experiment_id: str
    size: int
    """Bytes on the store."""
    sha256: str
    members: int
    content_size: int
    """Bytes of the members."""
    created_at: datetime | None = None
    state: ReplicaState = ReplicaState.VERIFIED
    """Verified, delete_pending (in the trash, or on its way there) or deleted: that of all its members."""


class RestoreState(StrEnum):
    """queued -> running -> done | failed."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Restore:
    """A request to have an archived dataset on a near store again, for a while."""

    id: str
    dataset_id: str
    target_id: str
    """Store that gets the new replicas."""
    cache_until: datetime
    """The new replicas are a cache until then."""
    paths: tuple[str, ...] = ()
    """Only these files; all when empty."""
    state: RestoreState = RestoreState.QUEUED
    files_done: int = 0
    error: str = ""
    created_by: str = ""
    created_at: datetime | None = None
    ended_at: datetime | None = None
