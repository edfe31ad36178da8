"""What the decision about one replica looks at, and what it answers; see `lightkeep.policy.purge`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from lightkeep.model.retention import Hold, Lease, Notice, PlanReason, PurgeItem, PurgePlan
from lightkeep.model.stores import ReplicaState, StoreRecord
from lightkeep.policy.retention import ClockFacts, Facts, Policy


class Step(StrEnum):
    """Which of the two deletions is decided."""

    TRASH = "trash"
    """Out of sight; can be undone."""
    DESTROY = "destroy"


@dataclass(frozen=True, slots=True)
class Copy:
    """One replica of the file, and where it lies."""

    replica_id: str
    store: StoreRecord
    state: ReplicaState
    key: str = ""
    verified_at: datetime | None = None
    """When all its bytes were last read back and hashed equal."""
    is_planned: bool = False
    """True: it is on a purge plan that may still run, so it does not count as a copy that stays."""


@dataclass(frozen=True, slots=True)
class Home:
    """What all replicas of a dataset share."""

    dataset_id: str
    experiment_id: str
    facts: Facts
    clock: ClockFacts
    policy: Policy | None = None
    """The one that applies; None: kept for ever."""
    is_complete: bool = True
    """False while the dataset is still received."""
    is_public: bool = False
    """Released to the public, or cited."""
    holds: tuple[Hold, ...] = ()
    """On the facility, the station, the experiment or the dataset; also those that stand no more."""
    leases: tuple[Lease, ...] = ()
    runs: tuple[str, ...] = ()
    """Runs that are queued or running with the dataset as input."""


@dataclass(frozen=True, slots=True)
class Told:
    """A notice about the experiment's files on the store."""

    notice: Notice
    is_listed: bool
    """True: this replica is on the list whose hash the notice carries."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much a store may lose."""

    held: int
    """Bytes on the store now, by the catalogue."""
    freed_today: int = 0
    """Bytes that purges took from the store in the last 24 hours."""
    max_fraction: float = 0.1
    """Of the store's capacity (of what it holds, where none is set) that one plan may take."""
    max_bytes_per_day: int = 0
    """0: no limit."""


@dataclass(frozen=True, slots=True)
class Guards:
    """Whether the facility is in a state to delete at all."""

    is_enabled: bool = True
    high_water: datetime | None = None
    """The latest time that the facility has seen."""
    clock_doubt: str = ""
    """Why the clock is not trusted; empty: it is."""
    catalog_doubt: str = ""
    """Why the catalogue may be an older one that was put back; empty: it is not."""


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """The plan that names the replica."""

    plan: PurgePlan
    item: PurgeItem | None
    """The replica's entry."""
    hash: str
    """SHA-256 over the items as they are now."""
    admins: tuple[str, ...] = ()
    """Those who approved and are facility administrators."""


@dataclass(frozen=True, slots=True)
class UnitFacts:
    """The archive unit that the replica is a member of."""

    members: int
    """Files that were packed into it."""
    on_plan: int
    """How many of them go together: named by one plan, or asked about at once."""
    size: int = 0
    """Bytes of those that go together."""
    stays: str = ""
    """Which other member must stay and why, for a person; empty: none is known to."""
    stays_until: datetime | None = None
    """When that member may go; None: not by waiting."""


@dataclass(frozen=True, slots=True)
class Case:
    """Everything that the decision about one replica looks at."""

    replica: Copy
    home: Home
    file_id: str
    size: int
    """Bytes."""
    sha256: str
    budget: Budget
    guards: Guards
    step: Step = Step.TRASH
    reason: PlanReason = PlanReason.EXPIRY
    """Why room is wanted; that of the plan where there is one."""
    others: tuple[Copy, ...] = ()
    """The file's other replicas."""
    holds: tuple[Hold, ...] = ()
    """On the file or the store."""
    told: tuple[Told, ...] = ()
    """Notices to the experiment about the store."""
    cache_until: datetime | None = None
    """It was restored to stay until then."""
    plan: PlanFacts | None = None
    unit: UnitFacts | None = None
    """None: an object of its own."""
    uuid_seen: str = ""
    """Identity read from the medium in this session; empty: not read."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One of P1 to P17."""

    id: str
    name: str
    met: bool
    text: str
    """One sentence for a person."""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """JSON-safe facts on which it was decided."""
    turns_true_at: datetime | None = None
    """When it will be met if nothing else changes; None: met already, or not by waiting."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """May it go? And on what grounds."""

    allow: bool
    reason: str
    """One sentence: what forbids it, or that nothing does."""
    rule: str
    """Name of the rule of the policy; empty where none applies."""
    conditions: tuple[Condition, ...]
    policy: str = ""
    """Stamp `id@version`."""

    def __bool__(self) -> bool:
        return self.allow

    @property
    def turns_true_at(self) -> datetime | None:
        """When it may go if nothing changes but time; None: now, or not by waiting."""
        dates = [condition.turns_true_at for condition in self.conditions if not condition.met]
        return max((at for at in dates if at), default=None) if all(dates) else None

    def holds_but(self, *ids: str) -> bool:
        """Return whether every condition but these is met: a planner passes over what approving and running do."""
        return all(condition.met for condition in self.conditions if condition.id not in ids)
