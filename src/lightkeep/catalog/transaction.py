"""What every change does underneath: look a row up, write one, append the event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    Table,
    Update,
    and_,
    bindparam,
    func,
    insert,
    select,
    update,
)

from lightkeep.catalog import schema
from lightkeep.catalog.audit import Chain
from lightkeep.catalog.dialect import Dialect
from lightkeep.catalog.text import clean
from lightkeep.model.clock import Clock
from lightkeep.model.datasets import DatasetState
from lightkeep.model.errors import Conflict, InvalidInput, NotFound
from lightkeep.model.people import Grant, Principal, Scope
from lightkeep.model.stores import Replica, ReplicaState


class Transaction:
    """One transaction at the end of the chain, on behalf of a principal."""

    def __init__(
        self, connection: Connection, *, dialect: Dialect, chain: Chain, principal: Principal, clock: Clock
    ) -> None:
        self._connection = connection
        self._dialect = dialect
        self._chain = chain
        self._principal = principal
        self._clock = clock

    def _record(self, verb: str, subject: str, experiment_id: str, detail: Mapping[str, Any]) -> None:
        self._chain.append(
            verb,
            subject,
            at=self._clock.now(),
            actor=self._principal.id,
            experiment_id=experiment_id,
            detail=detail,
        )

    # ---- rows

    def _row(self, table: Table, id: str, what: str) -> RowMapping:  # noqa: A002
        row = self._connection.execute(_select_row(table), {"key": id}).mappings().first()
        if row is None:
            raise NotFound(f"{what} {id!r} does not exist")
        return row

    def _entry(self, table: str, id: str, names: Sequence[str]) -> dict[str, Any]:  # noqa: A002
        """Return some columns of a row, raw: for what every group of files looks up."""
        statement = f"SELECT {', '.join(names)} FROM {table} WHERE id = ?"  # noqa: S608 (names are ours)
        found = self._dialect.run(self._connection, statement, (clean(id),))
        if not found:
            raise NotFound(f"{table} {id!r} does not exist")
        return dict(zip(names, found[0], strict=True))

    def _must_be_new(self, table: Table, id: str, what: str) -> None:  # noqa: A002
        if not clean(id).strip():
            raise InvalidInput(f"a {what} needs an id")
        if self._connection.execute(select(table.c.id).where(table.c.id == id)).first() is not None:
            raise Conflict(f"{what} {id!r} exists already")

    def _insert(self, table: Table, **values: Any) -> None:
        self._connection.execute(insert(table).values(**values))

    def _set(self, table: Table, id: str, **values: Any) -> None:  # noqa: A002
        self._connection.execute(_update_row(table), {"key": id, **values})

    def _must_be_receiving(self, row: Mapping[str, Any] | RowMapping, verb: str) -> None:
        if row["state"] != DatasetState.RECEIVING:
            raise Conflict(
                f"dataset {row['id']} is {row['state']} and can no longer {verb}",
                remedy="make a new dataset",
                state=row["state"],
            )

    def _check_scope(self, grant: Grant) -> None:
        if grant.scope is Scope.FACILITY:
            if grant.scope_id:
                raise InvalidInput("a grant on the facility names no place")
        else:
            table = schema.station if grant.scope is Scope.STATION else schema.experiment
            self._row(table, grant.scope_id, grant.scope.value)

    def _origin_of(self, grant: Grant) -> str | None:
        """Return who takes care of a grant that was given; None when it was not."""
        found = self._connection.execute(select(schema.access_grant.c.origin).where(same_grant(grant))).first()
        return None if found is None else str(found.origin)

    def _replicas(self, replicas: Sequence[Replica]) -> list[RowMapping]:
        r, f, d = schema.replica, schema.file, schema.dataset
        columns = select(r.c.id, r.c.state, d.c.id.label("dataset_id"), d.c.experiment_id)
        joined = columns.join_from(r, f, f.c.id == r.c.file_id).join(d, d.c.number == f.c.dataset_number)
        return [
            row
            for part in parts(list({replica.id: replica for replica in replicas}.values()))
            for row in self._connection.execute(joined.where(among(part))).mappings()
        ]

    def _replicas_of(self, file_ids: Sequence[str]) -> set[tuple[str, str, bytes]]:
        c = schema.replica.c
        return {
            (row.file_id, row.store_id, bytes(row.key))
            for part in parts(file_ids)
            for row in self._connection.execute(
                select(c.file_id, c.store_id, c.key).where(c.file_id.in_(part) & (c.state != ReplicaState.DELETED))
            )
        }

    def _insert_all(self, table: str, columns: Sequence[str], found: Sequence[tuple[Any, ...]]) -> bool:
        """Insert rows that are all new; False, with nothing inserted, when a key is taken."""
        run = partial(self._dialect.run, self._connection)
        run("SAVEPOINT rows")
        try:
            self._dialect.insert(self._connection, table, columns, found)
        except self._dialect.driver_error as error:
            if not self._dialect.is_duplicate(error):
                raise
            run("ROLLBACK TO SAVEPOINT rows")
            return False
        run("RELEASE SAVEPOINT rows")
        return True


@cache
def _select_row(table: Table) -> Select[Any]:
    return select(table).where(table.c.id == bindparam("key"))


@cache
def _update_row(table: Table) -> Update:
    return update(table).where(table.c.id == bindparam("key"))


def parts(values: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Cut a list so that no statement has more parameters than a database takes."""
    for start in range(0, len(values), 1_000):
        yield values[start : start + 1_000]


def among(replicas: Sequence[Replica]) -> ColumnElement[bool]:
    """Return the condition on replica that it is one of these: by file, then by id among the few of a file.

    The second part is no bare column: SQLite would look up every file with every id, a million for a thousand.
    """
    c = schema.replica.c
    own = func.coalesce(c.id, "")
    return and_(c.file_id.in_([r.file_id for r in replicas]), own.in_([r.id for r in replicas]))


def same_grant(grant: Grant) -> ColumnElement[bool]:
    """Return the condition on access_grant that it is this grant."""
    c = schema.access_grant.c
    return and_(
        c.person_id == grant.person_id,
        c.role == grant.role.value,
        c.scope == grant.scope.value,
        c.scope_id == grant.scope_id,
    )
