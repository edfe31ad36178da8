"""What the API answers about holds, notices and purges, and what it takes."""

from __future__ import annotations

from datetime import datetime

from pydantic import AwareDatetime, BaseModel, Field

from lightkeep.http.shapes import Facts, Shape, Shown
from lightkeep.model.retention import HoldKind, HoldScope, PlanReason


class HoldShape(Shape):
    """What keeps something from being deleted."""

    id: str
    scope: HoldScope
    scope_id: Shown
    kind: HoldKind
    reason: Shown
    until: datetime | None
    created_by: Shown
    created_at: datetime | None
    released_by: Shown
    released_at: datetime | None


class HoldRequest(BaseModel):
    """A new hold."""

    scope: HoldScope
    scope_id: str = Field("", max_length=200, description="Id of the thing; empty for the facility.")
    reason: str = Field(min_length=1, max_length=2000, description="One sentence: who needs it.")
    kind: HoldKind = HoldKind.USER
    until: AwareDatetime | None = Field(None, description="It ends by itself then; absent: when it is released.")


class NoticeShape(Shape):
    """What people were told before anything goes."""

    id: str
    experiment_id: Shown
    store_id: Shown
    days: int = Field(description="How long before.")
    files: int
    size: int = Field(description="Bytes.")
    expires_at: datetime
    state: str
    policy: Shown
    last_copy: bool
    created_at: datetime | None
    sent_at: datetime | None
    acknowledged_by: Shown
    acknowledged_at: datetime | None


class ExtensionShape(Shape):
    """What the link of a mail is about."""

    experiment_id: Shown
    store_id: Shown
    files: int
    size: int = Field(description="Bytes.")
    expires_at: datetime
    state: str
    policy: Shown
    days: int = Field(description="How many days more a POST keeps everything.")
    kept_until: datetime | None


class PlanShape(Shape):
    """A frozen list of what may go from a store."""

    id: str
    store_id: Shown
    reason: PlanReason
    hash: str
    files: int
    size: int = Field(description="Bytes.")
    need: int = Field(description="Bytes that the store must lose; 0: all that has expired may go.")
    expires_at: datetime
    state: str
    created_by: Shown
    created_at: datetime | None
    approvals: tuple[Shown, ...] = Field(description="Persons; `policy:id@version` where a policy did by itself.")
    approved_at: datetime | None
    freed: int = Field(description="Bytes.")
    is_whole: bool = Field(description="False: the figures are of the part that one may see.")
    waiting_for: str = Field("", description="Whose approval it still waits for.")
    by_policy: str = Field("", description="When its policy approves it by itself, or why it never does.")


class PlanRequest(BaseModel):
    """A new plan."""

    store: str = Field(min_length=1, max_length=200)
    reason: PlanReason = PlanReason.EXPIRY
    experiments: list[str] | None = Field(None, max_length=1000, description="Only these; absent: all.")


class ItemShape(Shape):
    """One replica on a plan, and why it may go, or stays."""

    position: int
    unit: Shown = Field(description="Key of the archive unit that it goes with as a whole; empty: a file.")
    replica_id: str
    file_id: str
    dataset_id: str
    experiment_id: Shown
    key: Shown
    size: int = Field(description="Bytes.")
    sha256: str
    policy: Shown
    state: str
    evidence: Facts
    trashed_at: datetime | None
    destroy_after: datetime | None
    ended_at: datetime | None


class PurgedShape(Shape):
    """What a run or an undo did."""

    plan_id: str
    items: int
    size: int = Field(description="Bytes.")
    skipped: int
    left: int
    why_left: Shown


class PurgeStatusShape(Shape):
    """Whether purges may run."""

    is_enabled: bool
    reasons: tuple[Shown, ...] = Field(description="Why nothing is deleted now; empty: purges may run.")
