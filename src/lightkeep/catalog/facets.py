"""How many datasets there are of each kind of thing, for the boxes beside a list."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, Select, func, literal, select, union_all

from lightkeep.catalog import schema
from lightkeep.catalog.conditions import allowed, matches
from lightkeep.catalog.dialect import Dialect
from lightkeep.catalog.query import Query
from lightkeep.policy.access import Predicate

FACETS = ("station", "technique", "kind", "format", "month")
Facets = dict[str, list[tuple[str, int]]]

_d, _e, _n = schema.dataset, schema.experiment, schema.facet_count


def kept(connection: Connection, predicate: Predicate, experiment_id: str) -> Facets:
    """Return the facets of all complete datasets, from the counts that are kept: no dataset is read."""
    total = func.sum(_n.c.n).label("n")
    counted = select(_n.c.facet, _n.c.value, total).join_from(_e, _n, _n.c.experiment_id == _e.c.id)
    stations = select(literal("station"), _e.c.station_id, func.sum(_e.c.datasets)).where(_e.c.datasets > 0)
    statements: list[Select[Any]] = [
        counted.where(allowed(predicate)).group_by(_n.c.facet, _n.c.value),
        stations.where(allowed(predicate)).group_by(_e.c.station_id),
    ]
    if experiment_id:
        statements = [statement.where(_e.c.id == experiment_id) for statement in statements]
    return _sorted(connection.execute(union_all(*statements)))


def grouped(
    connection: Connection, query: Query, predicate: Predicate, *, dialect: Dialect, experiment_id: str
) -> Facets:
    """Return the facets of the datasets that a query finds, by one GROUP BY over what it found."""
    columns = (_e.c.station_id.label("station"), _d.c.technique, _d.c.kind, _d.c.format, _d.c.created_at)
    found = select(*columns).join_from(_d, _e, _e.c.id == _d.c.experiment_id)
    found = found.where(allowed(predicate), matches(query, dialect))
    if experiment_id:
        found = found.where(_d.c.experiment_id == experiment_id)
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


def _sorted(rows: Iterable[Sequence[Any]]) -> Facets:
    """Return every facet, values by falling count and then by name."""
    facets: Facets = {name: [] for name in FACETS}
    for facet, value, n in sorted(rows, key=lambda row: (-row[2], row[1])):
        facets[facet].append((value, int(n)))
    return facets
