"""Who works for the facility now, and the fence that keeps out who was taken for dead.

A worker has a row as long as it counts. Whoever finds it silent for the length of a lease deletes the row and
gives its work to others. A worker that was only asleep finds no row: every change it makes looks for the row
inside its own transaction (`Catalog.fenced`), so nothing of it is committed after its work was given away.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, select, update

from lightkeep.catalog import schema
from lightkeep.catalog.transaction import Transaction
from lightkeep.catalog.view_base import ViewBase
from lightkeep.model.runs import Worker

_w = schema.worker.c


class Fenced(BaseException):
    """This worker was taken for dead and its work was given away: nothing of it is committed any more.

    Not an Exception: nothing may take it for a failure of the work, which somebody else is doing now.
    """


class WorkerChanges(Transaction):
    """The part of `Change` about workers."""

    def join(self, worker: Worker) -> None:
        """Let a worker count from now on."""
        now = self._clock.now()
        self._insert(
            schema.worker, id=worker.id, host=worker.host, pid=worker.pid, beat=0, started_at=now, seen_at=now
        )

    def workers(self) -> list[Worker]:
        """Return the workers that count, as this transaction sees them."""
        return _all(self._connection)

    def lose(self, worker: Worker) -> bool:
        """Take a worker for dead; False when it gave a sign of life since, or is gone already."""
        silent = (_w.id == worker.id) & (_w.beat == worker.beat)
        if not self._connection.execute(delete(schema.worker).where(silent)).rowcount:
            return False
        self._record("worker.lost", worker.id, "", {"host": worker.host, "pid": worker.pid})
        return True

    def leave(self, worker_id: str) -> None:
        """Let a worker count no more: it has stopped."""
        self._connection.execute(delete(schema.worker).where(_w.id == worker_id))


class WorkerViews(ViewBase):
    """The part of `View` about workers; no secret to who is signed in."""

    def workers(self) -> list[Worker]:
        """The workers that count now, the oldest first."""
        if self._principal.is_anonymous:
            return []
        with self._read() as connection:
            return _all(connection)


def beat(connection: Connection, worker_id: str, *, values: Mapping[str, Any]) -> None:
    """Give a sign of life. Fenced: the row is gone."""
    counted = update(schema.worker).where(_w.id == worker_id).values(beat=_w.beat + 1, **values)
    if not connection.execute(counted).rowcount:
        raise Fenced(f"worker {worker_id} was taken for dead")


def check(connection: Connection, worker_id: str) -> None:
    """Return when a worker still counts. Fenced: it does not."""
    if connection.execute(select(_w.id).where(_w.id == worker_id)).first() is None:
        raise Fenced(f"worker {worker_id} was taken for dead")


def _all(connection: Connection) -> list[Worker]:
    found = connection.execute(select(schema.worker).order_by(_w.started_at, _w.id)).mappings()
    return [Worker(**row) for row in found]
