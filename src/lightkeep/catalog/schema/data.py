"""Experiments and people, datasets and files, stores and replicas, and the chain of events."""

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
    Table,
    UniqueConstraint,
    false,
)

from lightkeep.catalog.columns import Instant, Words
from lightkeep.catalog.schema.base import Serial, tables

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
    Column("number", Serial, primary_key=True, autoincrement=False),
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
    Column("number", Serial, primary_key=True, autoincrement=False),
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
    Column("number", Serial, primary_key=True, autoincrement=False),
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

event = Table(
    "event",
    tables,
    Column("seq", Serial, primary_key=True, autoincrement=False),
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
