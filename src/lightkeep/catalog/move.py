"""From SQLite to PostgreSQL, or back: every row, and the audit trail with its hashes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Table, delete, func, select

from lightkeep.catalog import audit, columns, rows, schema
from lightkeep.catalog.catalog import Catalog
from lightkeep.catalog.dialect import errors_of
from lightkeep.model.datasets import DatasetState
from lightkeep.model.errors import Conflict, Corrupt

_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Moved:
    """What was copied."""

    rows: int
    """In all tables."""
    head: tuple[int, str]
    """Number and hash of the last event: the same on both sides."""


def copy_to(source: Catalog, target: Catalog) -> Moved:
    """Copy a whole catalogue into an empty one, verify the copy, and only then commit it.

    Nobody can change the source meanwhile. Full text is indexed again; everything else is copied as it is. The
    source stays as it was: point `catalog_url` at the target afterwards.

    Raises
    ------
    Conflict: the target is not empty; nothing was changed.
    Corrupt: the source's audit trail is damaged, or a copy differs; nothing was changed.
    """
    with (
        errors_of(source.dialect),
        source.writer.begin() as reading,  # as a writer: so that nothing is added while we copy
        errors_of(target.dialect),
        target.writer.begin() as writing,
    ):
        source.dialect.lock_chain(reading)
        if target.dialect.lock_chain(writing)[0]:
            raise Conflict("the target holds a catalogue already", remedy="give an address with an empty database")
        _refuse_damage("source", audit.problems(reading))
        writing.execute(delete(schema.chain_head))
        counts = {table.name: _copy(table, reading, target, writing) for table in schema.tables.sorted_tables}
        target.dialect.index_words(writing, list(_words(writing)))
        _refuse_damage("copy", audit.problems(writing))
        for table in schema.tables.sorted_tables:
            found = writing.execute(select(func.count()).select_from(table)).scalar_one()
            if found != counts[table.name]:
                raise Corrupt(f"table {table.name} has {counts[table.name]} rows, its copy {found}")
        head = writing.execute(select(schema.chain_head)).mappings().one()
        return Moved(sum(counts.values()), audit.head_of(head))


def _copy(table: Table, reading: Connection, target: Catalog, writing: Connection) -> int:
    names = [column.name for column in table.columns]
    count = 0
    stream = reading.execution_options(yield_per=_AT_ONCE).execute(select(table))
    for part in stream.partitions():
        values = [tuple(columns.to_microseconds(v) if isinstance(v, datetime) else v for v in row) for row in part]
        target.dialect.insert(writing, table.name, names, values)
        count += len(values)
    return count


def _words(connection: Connection) -> Iterator[tuple[int, Sequence[str]]]:
    d, e = schema.dataset, schema.experiment
    experiments = {row["id"]: rows.experiment_of(row) for row in connection.execute(select(e)).mappings()}
    kept = select(d).where(d.c.state != DatasetState.RECEIVING.value)
    for row in connection.execution_options(yield_per=_AT_ONCE).execute(kept).mappings():
        dataset = rows.dataset_of(row, ())
        yield row["number"], rows.dataset_words(dataset, experiments[dataset.experiment_id])


def _refuse_damage(what: str, problems: list[str]) -> None:
    if problems:
        raise Corrupt(f"the audit trail of the {what} is not whole: {problems[0]}", problems=problems)
