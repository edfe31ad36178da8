"""SQLite: WAL, every commit on the disk, one writer at a time, FTS5."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Text, create_engine, event, literal_column, make_url

from lightkeep.catalog.dialect import AGAIN, first_line, leave_to_the_parent
from lightkeep.catalog.manifest import Known
from lightkeep.model.errors import ConfigError, Conflict, Corrupt, LightkeepError, StorageError, StoreFull

_WAIT_MS = 20_000  # a change of 1 000 files takes about 20 ms: this is many hundred writers waiting their turn
_AT_ONCE = 1_000  # parameters per statement; SQLite allows 32 766

_ROWS = 100  # per INSERT

_PRAGMAS = (
    f"busy_timeout = {_WAIT_MS}",
    "journal_mode = WAL",
    "synchronous = FULL",
    "foreign_keys = ON",
    "recursive_triggers = ON",  # so that INSERT OR REPLACE meets the trigger that guards the audit trail
    "temp_store = MEMORY",
    "cache_size = -65536",
)


class Sqlite:
    """The catalogue in one file, for a laptop and for a facility's first years."""

    name = "sqlite"
    driver_error: type[Exception] = sqlite3.Error

    def create_engine(self, url: str) -> Engine:
        """Return the engine; ConfigError when the file cannot be there."""
        database = make_url(url).database
        if not database or database == ":memory:" or database.startswith("file:"):
            raise ConfigError(
                f"catalogue address {url!r} names no file", remedy="write sqlite:////absolute/path/catalog.db"
            )
        if not Path(database).parent.is_dir():
            raise ConfigError(
                f"the catalogue cannot be at {database}: its folder does not exist",
                remedy="create the folder, or correct catalog_url",
            )
        engine = create_engine(url, pool_size=8, max_overflow=24, pool_timeout=_WAIT_MS / 1000)
        event.listen(engine, "connect", _prepare)
        leave_to_the_parent(engine)
        event.listen(engine, "begin", _begin)
        return engine

    def writer(self, engine: Engine) -> Engine:
        """Return the engine whose transactions begin as a writer, so that none fails half-way on a lock."""
        return engine.execution_options(lightkeep_begin="BEGIN IMMEDIATE")

    def lock_schema(self, connection: Connection) -> None:
        """Nothing more to do: a writer is alone from its BEGIN IMMEDIATE."""

    def lock_chain(self, connection: Connection) -> tuple[int, str]:
        """Return the chain's end; a writer is alone from its BEGIN IMMEDIATE."""
        ((seq, last),) = self.run(connection, "SELECT seq, hash FROM chain_head")
        return seq, last

    def run(self, connection: Connection, statement: str, values: Sequence[Any] = ()) -> Sequence[tuple[Any, ...]]:
        """Run it on the driver's connection, which keeps the statements that it prepared."""
        driver: Any = connection.connection.driver_connection
        rows: list[tuple[Any, ...]] = driver.execute(statement, values).fetchall()
        return rows

    def insert(
        self, connection: Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Insert a hundred rows with each statement: faster than the driver's executemany (decision 2)."""
        one = f"({', '.join('?' * len(columns))})"
        into = f"INSERT INTO {table} ({', '.join(columns)}) VALUES "  # noqa: S608 (names are ours)
        whole = len(rows) - len(rows) % _ROWS
        many = into + ", ".join([one] * _ROWS)
        for start in range(0, whole, _ROWS):
            self.run(connection, many, tuple(chain.from_iterable(rows[start : start + _ROWS])))
        driver: Any = connection.connection.driver_connection
        driver.executemany(into + one, rows[whole:])

    def files_at(self, connection: Connection, number: int, paths: Sequence[bytes]) -> list[Known]:
        """Look the paths up by the table's own key."""
        found: list[Known] = []
        for start in range(0, len(paths), _AT_ONCE):
            part = paths[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(part))
            sql = (
                f"SELECT path, version, id, size, sha256 FROM file WHERE dataset_number = ? AND path IN ({marks})"  # noqa: S608
            )
            found.extend(Known(*row) for row in connection.exec_driver_sql(sql, (number, *part)))
        return found

    def index_words(self, connection: Connection, rows: Sequence[tuple[int, Sequence[str]]]) -> None:
        """Insert into the FTS5 table; its row number is the dataset's."""
        self.insert(connection, "dataset_words", ("rowid", "words"), [(n, " ".join(words)) for n, words in rows])

    def match(self, words: Sequence[str], *, is_prefix: bool) -> tuple[str, str]:
        """Return an FTS5 phrase; the words hold letters and digits only, so that nothing can leave the quotes."""
        phrase = f'"{" ".join(words)}"' + ("*" if is_prefix else "")
        sql = "SELECT rowid FROM dataset_words WHERE dataset_words MATCH :words"
        return sql, phrase

    def month(self, column: str) -> ColumnElement[str]:
        """Return it by strftime."""
        return literal_column(f"strftime('%Y-%m', {column} / 1000000, 'unixepoch')", Text)

    def is_duplicate(self, error: object) -> bool:
        """Read the result code."""
        return str(getattr(error, "sqlite_errorname", "")).startswith("SQLITE_CONSTRAINT")

    def translate(self, error: BaseException) -> LightkeepError | None:
        """Return our error for SQLite's result code."""
        name = getattr(error, "sqlite_errorname", "") or ""
        if name.startswith("SQLITE_CONSTRAINT"):
            return Conflict(f"the catalogue refused the change: {first_line(error)}")
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            return Conflict("another process is changing the catalogue and did not finish in time", remedy=AGAIN)
        if name == "SQLITE_FULL" or name == "SQLITE_IOERR_WRITE":
            return StoreFull(
                "no room for the catalogue's file", remedy="free space on its disk; nothing was changed"
            )
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            return Corrupt(f"the catalogue's file is damaged: {error}", remedy="restore it from a backup")
        if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_AUTH")):
            return ConfigError(
                f"the catalogue's file cannot be written: {error}", remedy="check the rights on it and its folder"
            )
        if name.startswith("SQLITE_IOERR"):
            return StorageError(
                f"the disk under the catalogue failed: {error}", remedy="look at the disk's health"
            )
        return None


def _prepare(connection: sqlite3.Connection, record: Any) -> None:
    del record
    connection.isolation_level = None  # BEGIN is ours: the driver would start a transaction late, and as a reader
    for pragma in _PRAGMAS:
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql(connection.get_execution_options().get("lightkeep_begin", "BEGIN"))
