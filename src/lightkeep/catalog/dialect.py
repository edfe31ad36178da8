"""What differs between the two databases, behind one interface."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from sqlalchemy import ColumnElement, Connection, Engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lightkeep.catalog.manifest import Known
from lightkeep.model.errors import Conflict, LightkeepError, StorageError

AGAIN = "try again in a moment; if it stays so, look for a process that holds the catalogue open"


class Dialect(Protocol):
    """One database. Everything else about the catalogue is the same on both."""

    name: str
    driver_error: type[Exception]
    """What the driver raises where SQLAlchemy does not stand between."""

    def create_engine(self, url: str) -> Engine:
        """Return an engine whose connections read one consistent state per transaction.

        MUST be usable from several threads, and from a process forked after it was made.
        """
        ...

    def writer(self, engine: Engine) -> Engine:
        """Return the engine for changes."""
        ...

    def lock_schema(self, connection: Connection) -> None:
        """Wait until no other process makes the schema; held to the end of the transaction."""
        ...

    def lock_chain(self, connection: Connection) -> tuple[int, str]:
        """Wait until no other change is under way; return number and hash of the last event."""
        ...

    def run(self, connection: Connection, statement: str, values: Sequence[Any] = ()) -> Sequence[tuple[Any, ...]]:
        """Run one statement past SQLAlchemy, which costs more than the statement; return the rows it gives.

        For what every group of files needs. Parameters are marked `?`, everywhere else there is none; values are
        raw, as for `insert`.
        """
        ...

    def insert(
        self, connection: Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Insert many rows of raw values (text already clean, instants in microseconds) as fast as it goes."""
        ...

    def files_at(self, connection: Connection, number: int, paths: Sequence[bytes]) -> list[Known]:
        """Return what the manifest of dataset `number` has at these paths, every version."""
        ...

    def index_words(self, connection: Connection, rows: Sequence[tuple[int, Sequence[str]]]) -> None:
        """Put (dataset number, words) into the full-text index."""
        ...

    def match(self, words: Sequence[str], *, is_prefix: bool) -> tuple[str, str]:
        """Return a SELECT of the numbers of datasets with these words in a row, and its parameter `words`.

        The last word is the beginning of a word when is_prefix.
        """
        ...

    def month(self, column: str) -> ColumnElement[str]:
        """Return the month, `2026-11` in UTC, of a column of microseconds."""
        ...

    def is_duplicate(self, error: object) -> bool:
        """True when the driver's error says that a key is taken."""
        ...

    def translate(self, error: BaseException) -> LightkeepError | None:
        """Return our error for one of the driver's, or None when it is not about the outside world."""
        ...


@contextmanager
def errors_of(dialect: Dialect) -> Iterator[None]:
    """Map the database's errors to ours: the only place where that happens."""
    try:
        yield
    except PoolTimeout as error:
        raise Conflict("every connection to the catalogue is in use", remedy=AGAIN) from error
    except (SQLAlchemyError, dialect.driver_error) as error:
        cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
        raise dialect.translate(cause) or StorageError(f"the catalogue failed: {first_line(cause)}") from error


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text."""
    return (str(error).splitlines() or [""])[0]


def leave_to_the_parent(engine: Engine) -> None:
    """Let a forked process open connections of its own: one used by two processes damages the database."""

    def remember(connection: Any, record: Any) -> None:
        del connection
        record.info["pid"] = os.getpid()

    def refuse(connection: Any, record: Any, proxy: Any) -> None:
        del connection
        if record.info["pid"] != os.getpid():
            record.dbapi_connection = proxy.dbapi_connection = None
            raise DisconnectionError("this connection belongs to the parent process")

    event.listen(engine, "connect", remember)
    event.listen(engine, "checkout", refuse)
