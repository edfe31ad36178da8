"""The audit trail: events appended in the transaction of the change, each sealed with the hash of the last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final

from sqlalchemy import Connection, RowMapping, select

from lightkeep.catalog import columns, manifest, rows, schema
from lightkeep.catalog.dialect import Dialect
from lightkeep.catalog.text import clean, json_safe, to_json
from lightkeep.model.events import Event, event_hash

GENESIS = "0" * 64
"""What stands for the hash before the first event."""
_COLUMNS: Final = [field.name for field in fields(Event)]
_APPEND: Final = f"INSERT INTO event ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
_MOVE_HEAD: Final = "UPDATE chain_head SET seq = ?, hash = ?"


class Chain:
    """The end of the chain during one change; nobody else appends until the change is over."""

    def __init__(self, connection: Connection, dialect: Dialect, seq: int, last: str) -> None:
        self._connection = connection
        self._dialect = dialect
        self.seq = seq
        """Number of the last event."""
        self._last = last

    def append(
        self, verb: str, subject: str, *, at: datetime, actor: str, experiment_id: str, detail: Mapping[str, Any]
    ) -> Event:
        """Write one event after the last, and move the head to it."""
        event = Event(
            seq=self.seq + 1,
            at=at.astimezone(UTC),
            actor=clean(actor),
            verb=clean(verb),
            subject=clean(subject),
            experiment_id=clean(experiment_id),
            detail=json_safe(detail),
            previous=self._last,
        )
        event = replace(event, hash=event_hash(event))
        values = [getattr(event, name) for name in _COLUMNS]
        values[_COLUMNS.index("at")] = columns.to_microseconds(event.at)
        values[_COLUMNS.index("detail")] = to_json(event.detail)
        self._dialect.run(self._connection, _APPEND, values)
        self._dialect.run(self._connection, _MOVE_HEAD, (event.seq, event.hash))
        self.seq, self._last = event.seq, event.hash
        return event


def problems(connection: Connection, *, anchor: tuple[int, str] | None = None) -> list[str]:
    """Return what is wrong with the trail, one line for each finding; nothing when it is whole.

    Finds any row that was changed, removed, swapped or put in, a tail that was cut off, and any file's entry that
    differs from the event that registered it.
    """
    found: list[str] = []
    last, expected, digests = GENESIS, 1, {}
    stream = connection.execution_options(yield_per=2_000)
    for row in stream.execute(select(schema.event).order_by(schema.event.c.seq)).mappings():
        event = rows.event_of(row)
        if event.seq != expected:
            found.append(f"event {expected} is missing (next is {event.seq})")
        elif event.previous != last:
            found.append(f"event {event.seq} does not follow the event before it")
        if event_hash(event) != event.hash:
            found.append(f"event {event.seq} ({event.verb}) was changed after it was written")
        if anchor is not None and event.seq == anchor[0] and event.hash != anchor[1]:
            found.append(f"event {event.seq} differs from the anchor kept elsewhere")
        if event.verb == FILES_ADDED:
            digests[event.seq] = str(event.detail.get("digest"))
        last, expected = event.hash, event.seq + 1
    head = connection.execute(select(schema.chain_head)).mappings().first()
    if head is None or (head["seq"], head["hash"]) != (expected - 1, last):
        kept = "nothing" if head is None else head["seq"]
        found.append(f"the trail ends at event {expected - 1}, its head says {kept}")
    if anchor is not None and anchor[0] >= expected:
        found.append(f"the trail ends at event {expected - 1}, before the anchor at {anchor[0]}")
    return found + list(_manifest_problems(connection, digests))


FILES_ADDED = "dataset.files_added"


def _manifest_problems(connection: Connection, digests: dict[int, str]) -> Iterator[str]:
    c = schema.file.c
    columns = select(c.event_seq, c.path, c.sha256, c.size, c.version).order_by(c.event_seq, c.path)
    stream = connection.execution_options(yield_per=10_000).execute(columns)
    waiting = dict(digests)
    for seq, group in groupby(stream, key=lambda row: row.event_seq):
        digest = manifest.digest((bytes(r.path), bytes(r.sha256), r.size, r.version) for r in group)
        if waiting.pop(seq, None) != digest:
            yield f"the files registered by event {seq} differ from what it recorded"
    for seq in waiting:
        yield f"the files registered by event {seq} are gone"


def head_of(row: RowMapping) -> tuple[int, str]:
    """Return number and hash of the last event: what an anchor keeps elsewhere."""
    return row["seq"], row["hash"]
