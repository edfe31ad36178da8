"""The tables. What is here and what the migrations make is the same; a test compares them.

station --< experiment --< dataset --< file --< replica >-- store
                |             |--< dataset_field    index of metadata, made again from dataset.metadata
                |             |--< dataset_parent
                |             |--< skipped_file, source_key
                |             '--- dataset_words    full text; its form is the dialect's own
                '--< run
person --< access_grant, token        event (append only), chain_head (one row: the end of the chain)
facet_value: the values that `experiment.facets` counts, see `catalog.counts`
worker; workflow --< flow --< run
policy, hold, lease, notice, listing, outbox, purge_plan --< purge_item, archive_unit, restore, usage_sample,
growth, quota, fact
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    UniqueConstraint,
    false,
)

from lightkeep.catalog.columns import Instant, Words

VERSION = "0002"
"""The migration that this code works with."""

_Serial = BigInteger().with_variant(Integer(), "sqlite")  # INTEGER PRIMARY KEY is SQLite's own row number

tables = MetaData()

station = Table(
    "station",
    tables,
    Column("id", Words, primary_key=True),
    Column("name", Words, nullable=False),
    Column("techniques", Words, nullable=False),
    Column("created_at", Instant, nullable=False),
)

experiment = Table(
    "experiment",
    tables,
    Column("number", _Serial, primary_key=True, autoincrement=False),
    Column("id", Words, nullable=False, unique=True),
    Column("station_id", Words, ForeignKey("station.id"), nullable=False, index=True),
    Column("title", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("starts_at", Instant),
    Column("ends_at", Instant),
    Column("identifiers", Words, nullable=False),
    Column("searched", Words, nullable=False),
    Column("policy_id", Words, nullable=False, server_default=""),
    Column("created_at", Instant, nullable=False, index=True),
    Column("closed_at", Instant),
    Column("released_at", Instant),
    Column("datasets", BigInteger, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("facets", LargeBinary, nullable=False),
)

person = Table(
    "person",
    tables,
    Column("id", Words, primary_key=True),
    Column("name", Words, nullable=False),
    Column("email", Words, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("password_hash", Words, nullable=False),
    Column("created_at", Instant, nullable=False),
)

access_grant = Table(
    "access_grant",
    tables,
    Column("person_id", Words, ForeignKey("person.id"), primary_key=True),
    Column("scope", Words, primary_key=True),
    Column("role", Words, primary_key=True),
    Column("scope_id", Words, primary_key=True),
    Column("origin", Words, nullable=False, server_default=""),
    Column("created_at", Instant, nullable=False),
    Index("ix_access_grant_scope", "scope", "scope_id"),
    sqlite_with_rowid=False,
)

token = Table(
    "token",
    tables,
    Column("token_hash", Words, primary_key=True),
    Column("person_id", Words, ForeignKey("person.id"), nullable=False, index=True),
    Column("kind", Words, nullable=False),
    Column("label", Words, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
)

store = Table(
    "store",
    tables,
    Column("id", Words, primary_key=True),
    Column("kind", Words, nullable=False),
    Column("location", LargeBinary, nullable=False),
    Column("uuid", Words, nullable=False, unique=True),
    Column("tier", Words, nullable=False),
    Column("failure_domain", Words, nullable=False),
    Column("is_managed", Boolean, nullable=False),
    Column("is_durable", Boolean, nullable=False, server_default=false()),
    Column("capacity", BigInteger, nullable=False, server_default="0"),
    Column("high", Double, nullable=False, server_default="0.9"),
    Column("low", Double, nullable=False, server_default="0.8"),
    Column("created_at", Instant, nullable=False),
)

dataset = Table(
    "dataset",
    tables,
    Column("number", _Serial, primary_key=True, autoincrement=False),
    Column("id", Words, nullable=False, unique=True),
    Column("experiment_id", Words, ForeignKey("experiment.id"), nullable=False),
    Column("name", Words, nullable=False),
    Column("name_folded", Words, nullable=False),
    Column("kind", Words, nullable=False),
    Column("technique", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("format", Words, nullable=False),
    Column("main_file", LargeBinary, nullable=False),
    Column("files", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("run_id", Words, nullable=False),
    Column("metadata", Words, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("completed_at", Instant),
    Column("created_by", Words, nullable=False),
    UniqueConstraint("experiment_id", "name", name="uq_dataset_name"),
    Index("ix_dataset_experiment", "experiment_id", "state", "created_at"),
    Index("ix_dataset_created", "state", "created_at"),
)

dataset_parent = Table(
    "dataset_parent",
    tables,
    Column("dataset_id", Words, ForeignKey("dataset.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("parent_id", Words, ForeignKey("dataset.id"), nullable=False, index=True),
    sqlite_with_rowid=False,
)

dataset_field = Table(
    "dataset_field",
    tables,
    Column("dataset_id", Words, ForeignKey("dataset.id"), primary_key=True),
    Column("key", Words, primary_key=True),
    Column("text_value", Words),
    Column("value", Double),
    Column("unit", Words),
    Column("si_value", Double),
    Column("si_unit", Words),
    Index("ix_dataset_field_text", "key", "text_value"),
    Index("ix_dataset_field_value", "key", "value"),
    Index("ix_dataset_field_si", "key", "si_unit", "si_value"),
    sqlite_with_rowid=False,
)

facet_value = Table(
    "facet_value",
    tables,
    Column("number", _Serial, primary_key=True, autoincrement=False),
    Column("facet", Words, nullable=False),
    Column("value", Words, nullable=False),
    UniqueConstraint("facet", "value", name="uq_facet_value"),
)

# One row of each of these two for every file ever kept: they are stored by their key, what a foreign key would
# check for each row `Change.add_files` checks once for the group, and no index is there that nothing asks for.
file = Table(
    "file",
    tables,
    Column("dataset_number", BigInteger, primary_key=True, autoincrement=False),
    Column("path", LargeBinary, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("id", Words, nullable=False, unique=True),
    Column("size", BigInteger, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("mode", Integer, nullable=False),
    Column("event_seq", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

replica = Table(
    "replica",
    tables,
    Column("file_id", Words, primary_key=True),
    Column("id", Words, primary_key=True),
    Column("store_id", Words, nullable=False),
    Column("key", LargeBinary, nullable=False),
    Column("state", Words, nullable=False),
    Column("verified_at", Instant),
    Column("proof", Words, nullable=False),
    Column("created_at", Instant, nullable=False),
    Index("ix_replica_due", "store_id", "state", "verified_at"),  # scrub: the oldest of a store first
    sqlite_with_rowid=False,
)

skipped_file = Table(
    "skipped_file",
    tables,
    Column("dataset_id", Words, ForeignKey("dataset.id"), primary_key=True),
    Column("path", LargeBinary, primary_key=True),
    Column("kind", Words, nullable=False),
    Column("reason", Words, nullable=False),
    Column("target", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

source_key = Table(
    "source_key",
    tables,
    Column("dataset_id", Words, ForeignKey("dataset.id"), primary_key=True),
    Column("root", LargeBinary, primary_key=True),
    Column("path", LargeBinary, primary_key=True),
    Column("dev", BigInteger, nullable=False),
    Column("ino", BigInteger, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("ctime_ns", BigInteger, nullable=False),
    Column("file_id", Words, nullable=False),
    Index("ix_source_key_root", "root", "path"),
    sqlite_with_rowid=False,
)

run = Table(
    "run",
    tables,
    Column("id", Words, primary_key=True),
    Column("experiment_id", Words, ForeignKey("experiment.id"), nullable=False),
    Column("dataset_id", Words, ForeignKey("dataset.id"), nullable=False, index=True),
    Column("technique", Words, nullable=False),
    Column("params", Words, nullable=False),
    Column("resolved", Words, nullable=False),
    Column("engine", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("progress", Double, nullable=False),
    Column("message", Words, nullable=False),
    Column("error", Words, nullable=False),
    Column("result_id", Words, nullable=False),
    Column("software", Words, nullable=False),
    Column("created_by", Words, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    Column("priority", Integer, nullable=False, server_default="0"),
    Column("flow_id", Words, nullable=False, server_default=""),
    Column("stage", Words, nullable=False, server_default=""),
    Column("placement", Words, nullable=False, server_default="{}"),
    Index("ix_run_experiment", "experiment_id", "created_at"),
    Index("ix_run_state", "state", "created_at"),
    Index("ix_run_flow", "flow_id"),
)

worker = Table(
    "worker",
    tables,
    Column("id", Words, primary_key=True),
    Column("host", Words, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("beat", BigInteger, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("seen_at", Instant, nullable=False),
)

workflow = Table(
    "workflow",
    tables,
    Column("id", Words, primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("text", Words, nullable=False),
    Column("author", Words, nullable=False),
    Column("created_at", Instant, nullable=False),
)

flow = Table(
    "flow",
    tables,
    Column("id", Words, primary_key=True),
    Column("workflow_id", Words, nullable=False),
    Column("version", Integer, nullable=False),
    Column("experiment_id", Words, ForeignKey("experiment.id"), nullable=False),
    Column("dataset_id", Words, ForeignKey("dataset.id"), nullable=False, index=True),
    Column("trigger", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("message", Words, nullable=False),
    Column("created_by", Words, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("ended_at", Instant),
    UniqueConstraint("workflow_id", "dataset_id", "trigger", name="uq_flow_trigger"),
    Index("ix_flow_state", "state", "created_at"),
)

event = Table(
    "event",
    tables,
    Column("seq", _Serial, primary_key=True, autoincrement=False),
    Column("at", Instant, nullable=False),
    Column("actor", Words, nullable=False),
    Column("verb", Words, nullable=False),
    Column("subject", Words, nullable=False),
    Column("experiment_id", Words, nullable=False),
    Column("detail", Words, nullable=False),
    Column("previous", Words, nullable=False),
    Column("hash", Words, nullable=False),
    Index("ix_event_experiment", "experiment_id", "seq"),
    Index("ix_event_subject", "subject", "seq"),
)

chain_head = Table(
    "chain_head",
    tables,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("seq", BigInteger, nullable=False),
    Column("hash", Words, nullable=False),
    CheckConstraint("id = 1", name="ck_chain_head_one"),
)

# ---- retention

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
