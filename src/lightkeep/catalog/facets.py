"""How many datasets there are of each kind of thing, for the boxes beside a list."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Select, func, literal, select, union_all

from lightkeep.catalog import counts, schema
from lightkeep.catalog.conditions import allowed
from lightkeep.catalog.dialect import Dialect
from lightkeep.policy.access import Predicate

FACETS = ("station", "technique", "kind", "format", "month")
Facets = dict[str, list[tuple[str, int]]]

_d, _e, _v = schema.dataset, schema.experiment, schema.facet_value


def kept(connection: Connection, predicate: Predicate, experiment_id: str) -> Facets:
    """Return the facets of all complete datasets, from the counts that are kept: no dataset is read."""
    seen = select(_e.c.station_id, _e.c.datasets, _e.c.facets).where(allowed(predicate), _e.c.datasets > 0)
    if experiment_id:
        seen = seen.where(_e.c.id == experiment_id)
    rows = connection.execute(seen).all()  # by position: unpacking a row of SQLAlchemy costs as much as reading it
    stations: dict[str, int] = {}
    for row in rows:
        stations[row[0]] = stations.get(row[0], 0) + row[1]
    tally = counts.unpack([row[2] for row in rows])
    named = connection.execute(select(_v.c.number, _v.c.facet, _v.c.value)).all()
    return _sorted(
        [
            *(("station", station_id, n) for station_id, n in stations.items()),
            *((facet, value, tally[number]) for number, facet, value in named if tally[number]),
        ]
    )


def grouped(connection: Connection, found: Select[Any], dialect: Dialect) -> Facets:
    """Return the facets of what was found among datasets and their experiments, by one GROUP BY over it."""
    columns = (_e.c.station_id.label("station"), _d.c.technique, _d.c.kind, _d.c.format, _d.c.created_at)
    found = found.with_only_columns(*columns, maintain_column_froms=True)
    hits = found.cte("hits")
    month = dialect.month("hits.created_at")
    values = {"month": month, **{name: hits.c[name] for name in FACETS if name != "month"}}
    statements = [
        select(literal(name), value.label("value"), func.count())
        .select_from(hits)
        .where(value != "")
        .group_by(value)
        for name, value in values.items()
    ]
    return _sorted(connection.execute(union_all(*statements)))


def _sorted(rows: Iterable[Any]) -> Facets:
    """Return every facet, values by falling count and then by name."""
    facets: Facets = {name: [] for name in FACETS}
    for facet, value, n in sorted(rows, key=lambda row: (-row[2], row[1])):
        facets[facet].append((value, int(n)))
    return facets
