"""The catalogue as documents beside the bytes, and back: what a lost catalogue is rebuilt from.

A document is lines of JSON. A line `["columns", table, [names]]` says what the lines after it are: rows of that
table, one list each, bytes as `{"b": base64}`, instants as microseconds since 1970. The first line is the head of
the audit trail when it was written. Secrets (password hashes, tokens) stay out of it.
"""

from __future__ import annotations

import base64
import json
from binascii import b2a_base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sqlalchemy import BigInteger, ColumnElement, Connection, Table, and_, literal, select, type_coerce, update

from lightkeep.catalog import schema
from lightkeep.catalog.columns import Instant
from lightkeep.catalog.transaction import Transaction
from lightkeep.model.errors import BadFile

_SECRET: Final = {"person": {"password_hash": ""}, "notice": {"token_hash": ""}}
_COUNTED: Final = {"experiment": {"datasets": 0, "files": 0, "size": 0, "facets": b""}}
"""Counted again when the datasets are put back."""
_WITH_DATASETS: Final = (
    *("dataset", "dataset_parent", "dataset_field", "file", "replica", "skipped_file", "source_key"),
    *("event", "chain_head", "token", "facet_value", "lease", "outbox"),
)
"""Tables that are not in the document of the small tables."""


@dataclass(slots=True)
class Document:
    """What a document holds, by table: column names and rows in their order."""

    head: tuple[int, str]
    """Number and hash of the last event when it was written."""
    columns: dict[str, tuple[str, ...]] = field(default_factory=dict)
    rows: dict[str, list[tuple[Any, ...]]] = field(default_factory=dict)

    def dicts(self, table: str) -> list[dict[str, Any]]:
        """Return the rows of a table by column name."""
        names = self.columns.get(table, ())
        return [dict(zip(names, row, strict=True)) for row in self.rows.get(table, [])]


class DatasetSnapshot(Transaction):
    """The document of one dataset, as the running change will leave it."""

    def dataset_snapshot(self, dataset_id: str) -> Iterator[bytes]:
        """Yield lines of a dataset with its place, its files and replicas, and every event in no anchor yet."""
        row = self._row(schema.dataset, dataset_id, "dataset")
        d, e, f, r = schema.dataset.c, schema.experiment.c, schema.file.c, schema.replica.c
        station = select(e.station_id).where(e.id == row["experiment_id"]).scalar_subquery()
        files = select(f.id).where(f.dataset_number == row["number"])
        stores = select(r.store_id).where(r.file_id.in_(files))
        anchored = self._connection.execute(select(schema.fact.c.value).where(schema.fact.c.name == ANCHORED))
        parts: tuple[tuple[Table, ColumnElement[bool]], ...] = (
            (schema.station, schema.station.c.id == station),
            (schema.store, schema.store.c.id.in_(stores)),
            (schema.experiment, e.id == row["experiment_id"]),
            (schema.dataset, d.id == dataset_id),
            (schema.dataset_parent, schema.dataset_parent.c.dataset_id == dataset_id),
            (schema.skipped_file, schema.skipped_file.c.dataset_id == dataset_id),
            (schema.file, f.dataset_number == row["number"]),
            (schema.replica, r.file_id.in_(files)),
            (schema.event, schema.event.c.seq > int(anchored.scalar() or 0)),
        )
        yield from _lines(self._connection, parts)

    def set_anchored(self, seq: int) -> None:
        """Remember that every managed store has the trail up to this event. No event: nothing else would end."""
        c = schema.fact.c
        values = {"value": str(seq), "changed_at": self._clock.now()}
        known = self._connection.execute(update(schema.fact).where(c.name == ANCHORED).values(**values))
        if not known.rowcount:
            self._insert(schema.fact, name=ANCHORED, **values)


ANCHORED: Final = "anchored"
"""Fact: number of the last event that stands in an anchor on every store."""


def state_lines(connection: Connection) -> Iterator[bytes]:
    """Yield the small tables: places, people without their secrets, policies, holds, plans, runs ..."""
    tables = [table for table in schema.tables.sorted_tables if table.name not in _WITH_DATASETS]
    return _lines(connection, [(table, literal(True)) for table in tables])


def event_lines(connection: Connection, *, after: int) -> Iterator[bytes]:
    """Yield the events after a number."""
    return _lines(connection, [(schema.event, schema.event.c.seq > after)])


def read(lines: Iterable[bytes]) -> Document:
    """Parse a document.

    Raises
    ------
    BadFile: a line is not what a document holds.
    """
    source = iter(lines)
    try:
        word, seq, last = json.loads(next(source))
        document = Document((int(seq), str(last)))
        table = ""
        for line in source:
            values = json.loads(line)
            if values[0] == "columns":
                table = values[1]
                document.columns[table] = tuple(values[2])
                document.rows.setdefault(table, [])
            else:
                document.rows[table].append(tuple(_decoded(value) for value in values[1]))
    except (ValueError, KeyError, IndexError, TypeError, StopIteration) as error:
        raise BadFile("a record on a store is damaged", remedy="use the records of another store") from error
    if word != "head":
        raise BadFile("a record on a store is of another kind", remedy="use the records of another store")
    return document


def _lines(connection: Connection, parts: Sequence[tuple[Table, ColumnElement[bool]]]) -> Iterator[bytes]:
    head = connection.execute(select(schema.chain_head)).mappings().one()
    yield _line(("head", head["seq"], head["hash"]))
    for table, condition in parts:
        names = [column.name for column in table.columns]
        fixed = {**_SECRET.get(table.name, {}), **_COUNTED.get(table.name, {})}
        stored = [type_coerce(c, BigInteger) if isinstance(c.type, Instant) else c for c in table.columns]
        stream = connection.execution_options(yield_per=1_000).execute(
            select(*stored).where(and_(condition)).order_by(*table.primary_key.columns)
        )
        is_first = True
        for rows in stream.partitions():
            if is_first:
                yield _line(("columns", table.name, names))
                is_first = False
            if fixed:
                known = [tuple(fixed.get(n, v) for n, v in zip(names, row, strict=True)) for row in rows]
                yield _row_lines(known)
            else:
                yield _row_lines(rows)


def _bytes(value: Any) -> dict[str, str]:
    if not isinstance(value, bytes):
        raise TypeError(f"a column holds what no document does: {type(value).__name__}")
    return {"b": b2a_base64(value, newline=False).decode()}


_json: Final = json.JSONEncoder(separators=(",", ":"), default=_bytes, check_circular=False).encode


def _line(value: object) -> bytes:
    return (_json(value) + "\n").encode()


def _row_lines(rows: Sequence[Sequence[Any]]) -> bytes:
    """Encode many rows at once, which takes half the time of one by one, then cut between them.

    A quote inside a text is escaped, so that what is cut at is never a part of one.
    """
    text = _json([("row", tuple(row)) for row in rows])
    return (text[1:-1].replace(']],["row",[', ']]\n["row",[') + "\n").encode()


def _decoded(value: Any) -> Any:
    return base64.b64decode(value["b"]) if isinstance(value, dict) else value
