"""What is computed: runs, their workers, workflows and flows."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    Table,
    UniqueConstraint,
)

from lightkeep.catalog.columns import Instant, Words
from lightkeep.catalog.schema.base import tables

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
