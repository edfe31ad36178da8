"""Retention: policies, holds, notices, purge plans, archive units, restores, usage."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_WORDS = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Add to what 0001 made."""
    op.create_table(
        "fact",
        sa.Column("name", _WORDS, nullable=False),
        sa.Column("value", _WORDS, nullable=False),
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "hold",
        sa.Column("id", _WORDS, nullable=False),
        sa.Column("scope", _WORDS, nullable=False),
        sa.Column("scope_id", _WORDS, nullable=False),
        sa.Column("kind", _WORDS, nullable=False),
        sa.Column("reason", _WORDS, nullable=False),
        sa.Column("until", sa.BigInteger(), nullable=True),
        sa.Column("created_by", _WORDS, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("released_by", _WORDS, nullable=False),
        sa.Column("released_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_hold_scope", "hold", ["scope", "scope_id"], unique=False)
    op.create_table(
        "outbox",
        sa.Column("key", _WORDS, nullable=False),
        sa.Column("recipients", _WORDS, nullable=False),
        sa.Column("subject", _WORDS, nullable=False),
        sa.Column("text", _WORDS, nullable=False),
        sa.Column("notice_id", _WORDS, nullable=False),
        sa.Column("state", _WORDS, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("error", _WORDS, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_index("ix_outbox_state", "outbox", ["state", "next_at"], unique=False)
    op.create_table(
        "policy",
        sa.Column("id", _WORDS, nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("text", _WORDS, nullable=False),
        sa.Column("author", _WORDS, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", "version"),
    )
    op.create_table(
        "listing",
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("replica_id", _WORDS, nullable=False),
        sa.PrimaryKeyConstraint("hash", "replica_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usage_sample",
        sa.Column("day", sa.BigInteger(), nullable=False),
        sa.Column("store_id", _WORDS, nullable=False),
        sa.Column("experiment_id", _WORDS, nullable=False),
        sa.Column("technique", _WORDS, nullable=False),
        sa.Column("kind", _WORDS, nullable=False),
        sa.Column("station_id", _WORDS, nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("day", "store_id", "experiment_id", "technique", "kind"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "growth",
        sa.Column("station_id", _WORDS, nullable=False),
        sa.Column("technique", _WORDS, nullable=False),
        sa.Column("bytes_per_day", sa.Double(), nullable=False),
        sa.Column("per_year", sa.Double(), nullable=False),
        sa.Column("steps", _WORDS, nullable=False),
        sa.Column("created_by", _WORDS, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["station_id"],
            ["station.id"],
        ),
        sa.PrimaryKeyConstraint("station_id", "technique"),
    )
    op.create_table(
        "purge_plan",
        sa.Column("id", _WORDS, nullable=False),
        sa.Column("store_id", _WORDS, nullable=False),
        sa.Column("store_uuid", _WORDS, nullable=False),
        sa.Column("reason", _WORDS, nullable=False),
        sa.Column("hash", _WORDS, nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("need", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("state", _WORDS, nullable=False),
        sa.Column("created_by", _WORDS, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("approvals", _WORDS, nullable=False),
        sa.Column("approved_at", sa.BigInteger(), nullable=True),
        sa.Column("freed", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["store_id"],
            ["store.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_purge_plan_state", "purge_plan", ["state", "created_at"], unique=False)
    op.create_table(
        "archive_unit",
        sa.Column("id", _WORDS, nullable=False),
        sa.Column("store_id", _WORDS, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("experiment_id", _WORDS, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("members", sa.BigInteger(), nullable=False),
        sa.Column("content_size", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("state", _WORDS, nullable=False),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiment.id"],
        ),
        sa.ForeignKeyConstraint(
            ["store_id"],
            ["store.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("store_id", "key", name="uq_archive_unit_key"),
    )
    op.create_index(("ix_archive_unit_experiment_id"), "archive_unit", ["experiment_id"], unique=False)
    op.create_table(
        "notice",
        sa.Column("id", _WORDS, nullable=False),
        sa.Column("experiment_id", _WORDS, nullable=False),
        sa.Column("store_id", _WORDS, nullable=False),
        sa.Column("days", sa.Integer(), nullable=False),
        sa.Column("listing", _WORDS, nullable=False),
        sa.Column("files", sa.BigInteger(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("recipients", _WORDS, nullable=False),
        sa.Column("state", _WORDS, nullable=False),
        sa.Column("policy", _WORDS, nullable=False),
        sa.Column("last_copy", sa.Boolean(), nullable=False),
        sa.Column("token_hash", _WORDS, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("acknowledged_by", _WORDS, nullable=False),
        sa.Column("acknowledged_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiment.id"],
        ),
        sa.ForeignKeyConstraint(
            ["store_id"],
            ["store.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_notice_experiment", "notice", ["experiment_id", "store_id", "created_at"], unique=False)
    op.create_index("ix_notice_token", "notice", ["token_hash"], unique=False)
    op.create_table(
        "purge_item",
        sa.Column("plan_id", _WORDS, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("replica_id", _WORDS, nullable=False),
        sa.Column("file_id", _WORDS, nullable=False),
        sa.Column("dataset_id", _WORDS, nullable=False),
        sa.Column("experiment_id", _WORDS, nullable=False),
        sa.Column("store_id", _WORDS, nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.LargeBinary(), nullable=False),
        sa.Column("policy", _WORDS, nullable=False),
        sa.Column("notice_id", _WORDS, nullable=False),
        sa.Column("state", _WORDS, nullable=False),
        sa.Column("evidence", _WORDS, nullable=False),
        sa.Column("trash_key", sa.LargeBinary(), nullable=False),
        sa.Column("trashed_at", sa.BigInteger(), nullable=True),
        sa.Column("destroy_after", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["plan_id"],
            ["purge_plan.id"],
        ),
        sa.PrimaryKeyConstraint("plan_id", "position"),
        sqlite_with_rowid=False,
    )
    op.create_index(("ix_purge_item_dataset_id"), "purge_item", ["dataset_id"], unique=False)
    op.create_index(("ix_purge_item_replica_id"), "purge_item", ["replica_id"], unique=False)
    op.create_index("ix_purge_item_state", "purge_item", ["state", "destroy_after"], unique=False)
    op.create_table(
        "lease",
        sa.Column("id", _WORDS, nullable=False),
        sa.Column("dataset_id", _WORDS, nullable=False),
        sa.Column("kind", _WORDS, nullable=False),
        sa.Column("holder", _WORDS, nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["dataset.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(("ix_lease_dataset_id"), "lease", ["dataset_id"], unique=False)
    op.create_table(
        "quota",
        sa.Column("scope", _WORDS, nullable=False),
        sa.Column("scope_id", _WORDS, nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("is_hard", sa.Boolean(), nullable=False),
        sa.Column("warn_at", sa.Double(), nullable=False),
        sa.Column("created_by", _WORDS, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("scope", "scope_id"),
    )
    op.create_table(
        "restore",
        sa.Column("id", _WORDS, nullable=False),
        sa.Column("dataset_id", _WORDS, nullable=False),
        sa.Column("target_id", _WORDS, nullable=False),
        sa.Column("cache_until", sa.BigInteger(), nullable=False),
        sa.Column("paths", _WORDS, nullable=False),
        sa.Column("state", _WORDS, nullable=False),
        sa.Column("files_done", sa.BigInteger(), nullable=False),
        sa.Column("error", _WORDS, nullable=False),
        sa.Column("created_by", _WORDS, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["dataset.id"],
        ),
        sa.ForeignKeyConstraint(
            ["target_id"],
            ["store.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(("ix_restore_dataset_id"), "restore", ["dataset_id"], unique=False)
    op.create_index("ix_restore_state", "restore", ["state", "created_at"], unique=False)
    op.create_table(
        "worker",
        sa.Column("id", _WORDS, nullable=False),
        sa.Column("host", _WORDS, nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "workflow",
        sa.Column("id", _WORDS, nullable=False),
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("text", _WORDS, nullable=False),
        sa.Column("author", _WORDS, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", "version"),
    )
    op.create_table(
        "flow",
        sa.Column("id", _WORDS, nullable=False),
        sa.Column("workflow_id", _WORDS, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("experiment_id", _WORDS, nullable=False),
        sa.Column("dataset_id", _WORDS, nullable=False),
        sa.Column("trigger", _WORDS, nullable=False),
        sa.Column("state", _WORDS, nullable=False),
        sa.Column("message", _WORDS, nullable=False),
        sa.Column("created_by", _WORDS, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiment.id"],
        ),
        sa.ForeignKeyConstraint(
            ["dataset_id"],
            ["dataset.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("workflow_id", "dataset_id", "trigger", name="uq_flow_trigger"),
    )
    op.create_index("ix_flow_dataset_id", "flow", ["dataset_id"], unique=False)
    op.create_index("ix_flow_state", "flow", ["state", "created_at"], unique=False)
    op.add_column("run", sa.Column("priority", sa.Integer(), server_default="0", nullable=False))
    op.add_column("run", sa.Column("flow_id", _WORDS, server_default="", nullable=False))
    op.add_column("run", sa.Column("stage", _WORDS, server_default="", nullable=False))
    op.add_column("run", sa.Column("placement", _WORDS, server_default="{}", nullable=False))
    op.create_index("ix_run_flow", "run", ["flow_id"], unique=False)
    op.create_table(
        "acquisition",
        sa.Column("id", _WORDS, nullable=False),
        sa.Column("experiment_id", _WORDS, nullable=False),
        sa.Column("name", _WORDS, nullable=False),
        sa.Column("kind", _WORDS, nullable=False),
        sa.Column("options", _WORDS, nullable=False),
        sa.Column("host", _WORDS, nullable=False),
        sa.Column("state", _WORDS, nullable=False),
        sa.Column("error", _WORDS, nullable=False),
        sa.Column("statistics", _WORDS, nullable=False),
        sa.Column("holder", _WORDS, nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("created_by", _WORDS, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["experiment_id"],
            ["experiment.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("experiment_id", "name", name="uq_acquisition_name"),
    )
    op.create_index("ix_acquisition_state", "acquisition", ["state"], unique=False)
    op.create_index("ix_replica_due", "replica", ["store_id", "state", "verified_at"], unique=False)
    op.add_column("experiment", sa.Column("policy_id", _WORDS, server_default="", nullable=False))
    op.add_column("experiment", sa.Column("closed_at", sa.BigInteger(), nullable=True))
    op.add_column("experiment", sa.Column("released_at", sa.BigInteger(), nullable=True))
    # Being public was a state; now it is a time, and the state goes on telling how long the data are kept.
    op.execute("UPDATE experiment SET released_at = created_at, state = 'closed' WHERE state = 'released'")
    op.add_column("access_grant", sa.Column("origin", _WORDS, server_default="", nullable=False))
    op.add_column("store", sa.Column("is_durable", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("store", sa.Column("capacity", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("store", sa.Column("high", sa.Double(), server_default="0.9", nullable=False))
    op.add_column("store", sa.Column("low", sa.Double(), server_default="0.8", nullable=False))
