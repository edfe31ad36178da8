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

from lightkeep.catalog.schema.base import tables
from lightkeep.catalog.schema.data import (
    access_grant,
    chain_head,
    dataset,
    dataset_field,
    dataset_parent,
    event,
    experiment,
    facet_value,
    file,
    person,
    replica,
    skipped_file,
    source_key,
    station,
    store,
    token,
)
from lightkeep.catalog.schema.retention import (
    archive_unit,
    fact,
    growth,
    hold,
    lease,
    listing,
    notice,
    outbox,
    policy,
    purge_item,
    purge_plan,
    quota,
    restore,
    usage_sample,
)
from lightkeep.catalog.schema.work import (
    flow,
    run,
    worker,
    workflow,
)

__all__ = [
    "VERSION",
    "access_grant",
    "archive_unit",
    "chain_head",
    "dataset",
    "dataset_field",
    "dataset_parent",
    "event",
    "experiment",
    "facet_value",
    "fact",
    "file",
    "flow",
    "growth",
    "hold",
    "lease",
    "listing",
    "notice",
    "outbox",
    "person",
    "policy",
    "purge_item",
    "purge_plan",
    "quota",
    "replica",
    "restore",
    "run",
    "skipped_file",
    "source_key",
    "station",
    "store",
    "tables",
    "token",
    "usage_sample",
    "worker",
    "workflow",
]

VERSION = "0002"
"""The migration that this code works with."""
