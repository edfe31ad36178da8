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

_MUCH = 1 << 16  # bytes: some 8 000 counts, which take the plain loop a millisecond
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
    joined = b"".join(packed)
    if len(joined) >= _MUCH:
        return _sum(joined)
    flat = array(_U32, joined)
    if sys.byteorder == "big":
        flat.byteswap()
    totals: Counter[int] = Counter()
    for number, n in zip(flat[::2], flat[1::2], strict=True):
        totals[number] += n
    return totals


def _sum(joined: bytes) -> Counter[int]:
    """As `unpack`, for those who see thousands of experiments: that pays for loading numpy (0.1 s)."""
    import numpy as np

    numbers, counts = np.frombuffer(joined, "<u4").reshape(-1, 2).T
    totals = np.bincount(numbers, weights=counts)  # exact: float64 holds integers to 2**53
    return Counter({int(number): int(totals[number]) for number in np.flatnonzero(totals)})


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
