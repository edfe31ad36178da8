"""How long things stay: policies, holds, notices, plans, archive units; usage and quotas."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    Table,
    UniqueConstraint,
)

from lightkeep.catalog.columns import Instant, Words
from lightkeep.catalog.schema.base import tables

policy = Table(
    "policy",
    tables,
    Column("id", Words, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("text", Words, nullable=False),
    Column("author", Words, nullable=False),
    Column("created_at", Instant, nullable=False),
)

hold = Table(
    "hold",
    tables,
    Column("id", Words, primary_key=True),
    Column("scope", Words, nullable=False),
    Column("scope_id", Words, nullable=False),
    Column("kind", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("until", Instant),
    Column("created_by", Words, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("released_by", Words, nullable=False),
    Column("released_at", Instant),
    Index("ix_hold_scope", "scope", "scope_id"),
)

lease = Table(
    "lease",
    tables,
    Column("id", Words, primary_key=True),
    Column("dataset_id", Words, ForeignKey("dataset.id"), nullable=False, index=True),
    Column("kind", Words, nullable=False),
    Column("holder", Words, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("created_at", Instant, nullable=False),
)

notice = Table(
    "notice",
    tables,
    Column("id", Words, primary_key=True),
    Column("experiment_id", Words, ForeignKey("experiment.id"), nullable=False),
    Column("store_id", Words, ForeignKey("store.id"), nullable=False),
    Column("days", Integer, nullable=False),
    Column("listing", Words, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("recipients", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("policy", Words, nullable=False),
    Column("last_copy", Boolean, nullable=False),
    Column("token_hash", Words, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("sent_at", Instant),
    Column("acknowledged_by", Words, nullable=False),
    Column("acknowledged_at", Instant),
    Index("ix_notice_experiment", "experiment_id", "store_id", "created_at"),
    Index("ix_notice_token", "token_hash"),
)

listing = Table(  # what was announced: a notice of that listing speaks of these replicas
    "listing",
    tables,
    Column("hash", LargeBinary, primary_key=True),
    Column("replica_id", Words, primary_key=True),
    sqlite_with_rowid=False,
)

outbox = Table(
    "outbox",
    tables,
    Column("key", Words, primary_key=True),
    Column("recipients", Words, nullable=False),
    Column("subject", Words, nullable=False),
    Column("text", Words, nullable=False),
    Column("notice_id", Words, nullable=False),
    Column("state", Words, nullable=False),  # waiting, sending, sent, refused
    Column("attempts", Integer, nullable=False),
    Column("next_at", Instant, nullable=False),
    Column("sent_at", Instant),
    Column("error", Words, nullable=False),
    Column("created_at", Instant, nullable=False),
    Index("ix_outbox_state", "state", "next_at"),
)

purge_plan = Table(
    "purge_plan",
    tables,
    Column("id", Words, primary_key=True),
    Column("store_id", Words, ForeignKey("store.id"), nullable=False),
    Column("store_uuid", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("hash", Words, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("need", BigInteger, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("state", Words, nullable=False),
    Column("created_by", Words, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("approvals", Words, nullable=False),
    Column("approved_at", Instant),
    Column("freed", BigInteger, nullable=False),
    Index("ix_purge_plan_state", "state", "created_at"),
)

purge_item = Table(
    "purge_item",
    tables,
    Column("plan_id", Words, ForeignKey("purge_plan.id"), primary_key=True),
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("replica_id", Words, nullable=False, index=True),
    Column("file_id", Words, nullable=False),
    Column("dataset_id", Words, nullable=False, index=True),
    Column("experiment_id", Words, nullable=False),
    Column("store_id", Words, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("policy", Words, nullable=False),
    Column("notice_id", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("evidence", Words, nullable=False),
    Column("trash_key", LargeBinary, nullable=False),
    Column("trashed_at", Instant),
    Column("destroy_after", Instant),
    Column("ended_at", Instant),
    Index("ix_purge_item_state", "state", "destroy_after"),
    sqlite_with_rowid=False,
)

archive_unit = Table(
    "archive_unit",
    tables,
    Column("id", Words, primary_key=True),
    Column("store_id", Words, ForeignKey("store.id"), nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("experiment_id", Words, ForeignKey("experiment.id"), nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("members", BigInteger, nullable=False),
    Column("content_size", BigInteger, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("state", Words, nullable=False),
    UniqueConstraint("store_id", "key", name="uq_archive_unit_key"),
)

restore = Table(
    "restore",
    tables,
    Column("id", Words, primary_key=True),
    Column("dataset_id", Words, ForeignKey("dataset.id"), nullable=False, index=True),
    Column("target_id", Words, ForeignKey("store.id"), nullable=False),
    Column("cache_until", Instant, nullable=False),
    Column("paths", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("files_done", BigInteger, nullable=False),
    Column("error", Words, nullable=False),
    Column("created_by", Words, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("ended_at", Instant),
    Index("ix_restore_state", "state", "created_at"),
)

usage_sample = Table(
    "usage_sample",
    tables,
    Column("day", Instant, primary_key=True),
    Column("store_id", Words, primary_key=True),
    Column("experiment_id", Words, primary_key=True),
    Column("technique", Words, primary_key=True),
    Column("kind", Words, primary_key=True),
    Column("station_id", Words, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""What a group gained or lost on a day: see `catalog.usage`."""

growth = Table(
    "growth",
    tables,
    Column("station_id", Words, ForeignKey("station.id"), primary_key=True),
    Column("technique", Words, primary_key=True),
    Column("bytes_per_day", Double, nullable=False),
    Column("per_year", Double, nullable=False),  # factor by which it grows in a year
    Column("steps", Words, nullable=False),  # [["2027-06-01", 10.0], ...]: planned upgrades
    Column("created_by", Words, nullable=False),
    Column("created_at", Instant, nullable=False),
)

quota = Table(
    "quota",
    tables,
    Column("scope", Words, primary_key=True),
    Column("scope_id", Words, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("is_hard", Boolean, nullable=False),
    Column("warn_at", Double, nullable=False),
    Column("created_by", Words, nullable=False),
    Column("created_at", Instant, nullable=False),
)

fact = Table(  # what the facility remembers of itself: clock high-water, epoch, switches
    "fact",
    tables,
    Column("name", Words, primary_key=True),
    Column("value", Words, nullable=False),
    Column("changed_at", Instant, nullable=False),
)
