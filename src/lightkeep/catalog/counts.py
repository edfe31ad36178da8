"""Counters and facets, kept in the transaction that completes or withdraws a dataset: no page ever scans."""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC

from sqlalchemy import Connection, Table, func, insert, select, update

from lightkeep.catalog import schema
from lightkeep.model.datasets import Dataset

_U32 = "I" if array("I").itemsize == 4 else "L"


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
    here = c.id == dataset.experiment_id
    tally = unpack([connection.execute(select(c.facets).where(here)).scalar_one()])
    for facet, value in facet_values(dataset).items():
        tally[_value_number(connection, facet, value)] += sign
    connection.execute(
        update(schema.experiment)
        .where(here)
        .values(
            datasets=c.datasets + sign,
            files=c.files + sign * dataset.files,
            size=c.size + sign * dataset.size,
            facets=pack(tally),
        )
    )


def pack(tally: Mapping[int, int]) -> bytes:
    """Return counts by number of facet value as they are kept in `experiment.facets`.

    Pairs of 32-bit numbers, little-endian: a page adds up those of thousands of experiments; a row for each count
    takes the database five times as long to read (docs/decisions/0002).

    >>> unpack([pack({1: 2, 7: 1}), pack({7: 4})])
    Counter({7: 5, 1: 2})
    """
    flat = array(_U32, [number for pair in sorted(tally.items()) if pair[1] for number in pair])
    if sys.byteorder == "big":
        flat.byteswap()
    return flat.tobytes()


def unpack(packed: Iterable[bytes]) -> Counter[int]:
    """Return the sum of the counts that `pack` packed, by number of facet value."""
    flat = array(_U32, b"".join(packed))
    if sys.byteorder == "big":
        flat.byteswap()
    totals = [0] * (max(flat[::2], default=-1) + 1)
    for number, n in zip(flat[::2], flat[1::2], strict=True):  # a list, because this loop is the page's whole cost
        totals[number] += n
    return Counter({number: n for number, n in enumerate(totals) if n})


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
