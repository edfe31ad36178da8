"""Counters and facets, kept in the transaction that completes or withdraws a dataset: no page ever scans."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC

from sqlalchemy import Connection, Table, delete, func, insert, select, update

from lightkeep.catalog import schema
from lightkeep.model.datasets import Dataset


def facet_values(dataset: Dataset) -> Mapping[str, str]:
    """Return the value of each facet of a dataset; a facet without a value is left out.

    `station` is not among them: it follows from the counters of the experiments.

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
    number = connection.execute(select(c.number).where(c.id == dataset.experiment_id)).scalar_one()
    for facet, value in facet_values(dataset).items():
        _count_value(connection, number, _value_number(connection, facet, value), sign)


def next_number(connection: Connection, table: Table) -> int:
    """Return one more than the greatest number in a table; inside a change nobody else takes it."""
    return int(connection.execute(select(func.coalesce(func.max(table.c.number), 0) + 1)).scalar_one())


def _value_number(connection: Connection, facet: str, value: str) -> int:
    c = schema.facet_value.c
    known = connection.execute(select(c.number).where((c.facet == facet) & (c.value == value))).scalar()
    if known is not None:
        return int(known)
    number = next_number(connection, schema.facet_value)
    connection.execute(insert(schema.facet_value).values(number=number, facet=facet, value=value))
    return number


def _count_value(connection: Connection, experiment_number: int, value_number: int, sign: int) -> None:
    c = schema.facet_count.c
    here = (c.experiment_number == experiment_number) & (c.value_number == value_number)
    changed = connection.execute(update(schema.facet_count).where(here).values(n=c.n + sign))
    if not changed.rowcount:
        row = {"experiment_number": experiment_number, "value_number": value_number, "n": sign}
        connection.execute(insert(schema.facet_count).values(**row))
    elif sign < 0:
        connection.execute(delete(schema.facet_count).where(here & (c.n == 0)))
