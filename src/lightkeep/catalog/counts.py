"""Counters and facets, kept in the transaction that completes or withdraws a dataset: no page ever scans."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC

from sqlalchemy import Connection, delete, update

from lightkeep.catalog import schema
from lightkeep.model.datasets import Dataset

COUNTED = ("technique", "kind", "format", "month")
"""Facets that are kept per experiment. `station` follows from the experiments' own counters."""


def facet_values(dataset: Dataset) -> Mapping[str, str]:
    """Return the value of each facet of a dataset; a facet without a value is left out.

    `month` is the month in UTC when its record was made, as `2026-11`.
    """
    values = {"technique": dataset.technique, "kind": dataset.kind.value, "format": dataset.format, "month": ""}
    if dataset.created_at is not None:
        values["month"] = dataset.created_at.astimezone(UTC).strftime("%Y-%m")
    return {facet: value for facet, value in values.items() if value}


def count(connection: Connection, dataset: Dataset, *, sign: int) -> None:
    """Add a dataset to what its experiment counts (sign 1), or take it away (sign -1)."""
    c = schema.experiment.c
    connection.execute(
        update(schema.experiment)
        .where(c.id == dataset.experiment_id)
        .values(
            datasets=c.datasets + sign, files=c.files + sign * dataset.files, size=c.size + sign * dataset.size
        )
    )
    for facet, value in facet_values(dataset).items():
        _count_facet(connection, dataset.experiment_id, facet, value, sign)


def _count_facet(connection: Connection, experiment_id: str, facet: str, value: str, sign: int) -> None:
    c = schema.facet_count.c
    here = (c.experiment_id == experiment_id) & (c.facet == facet) & (c.value == value)
    changed = connection.execute(update(schema.facet_count).where(here).values(n=c.n + sign))
    if not changed.rowcount:
        connection.execute(
            schema.facet_count.insert().values(experiment_id=experiment_id, facet=facet, value=value, n=sign)
        )
    elif sign < 0:
        connection.execute(delete(schema.facet_count).where(here & (c.n == 0)))
