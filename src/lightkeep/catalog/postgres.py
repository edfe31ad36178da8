"""PostgreSQL 15 or later: snapshots for readers, one row as the lock of the chain, tsvector."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg.errors import _WaitTimeout
from sqlalchemy import ColumnElement, Connection, Engine, Text, create_engine, event, literal_column

from lightkeep.catalog.dialect import AGAIN, first_line, leave_to_the_parent
from lightkeep.catalog.manifest import Known
from lightkeep.model.errors import (
    CatalogUnavailable,
    Conflict,
    Corrupt,
    InvalidInput,
    LightkeepError,
    StoreFull,
)

_WAIT_MS = 20_000
LINK = "-c tcp_keepalives_idle=3 -c tcp_keepalives_interval=1 -c tcp_keepalives_count=4 -c tcp_user_timeout=7000"
"""What a session asks of the server, so that it ends, and frees its locks, about 7 s after its host was cut off;
left to itself a server waits for two hours."""
PATIENCE_S: Final = 120.0
"""Longest wait for a server's answer; a lock is given up much earlier. A server that was stopped, or whose disk
hangs, keeps its links alive, so nothing else ends the wait."""
_SCHEMA_LOCK = 0x6C69676874  # any number that is ours: "light"
_LAST_POSITION = 16_383  # a tsvector counts words to here


class Patient(psycopg.Connection[Any]):
    """A connection that waits for each answer `patience_s` seconds at most, and is closed then."""

    patience_s: float = PATIENCE_S

    def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:
        """Wait as psycopg does. OperationalError: the server gave no answer."""
        try:
            return super().wait(gen, interval, self.patience_s if timeout is None else timeout)
        except _WaitTimeout as error:
            self.close()  # the answer may still come, and would be taken for that of another question
            raise psycopg.OperationalError(f"no answer within {self.patience_s:.0f} s") from error


class Postgres:
    """The catalogue on a server."""

    name = "postgresql"
    driver_error: type[Exception] = psycopg.Error

    def create_engine(self, url: str) -> Engine:
        """Return the engine; nothing is connected yet."""
        engine = create_engine(
            url,
            isolation_level="REPEATABLE READ",
            pool_size=8,
            max_overflow=24,
            pool_timeout=_WAIT_MS / 1000,
            pool_pre_ping=True,
            connect_args={
                "options": f"-c lock_timeout={_WAIT_MS} -c timezone=UTC {LINK}",
                "connect_timeout": 10,
                "tcp_user_timeout": 15_000,  # ms; a link that was cut is an error then, not a wait of minutes
                "keepalives_idle": 10,
            },
        )
        event.listen(engine, "do_connect", lambda _d, _r, args, named: Patient.connect(*args, **named))
        leave_to_the_parent(engine)
        return engine

    def writer(self, engine: Engine) -> Engine:
        """Return the engine that sees, after the lock of the chain, all that was committed before."""
        return engine.execution_options(isolation_level="READ COMMITTED")

    def lock_schema(self, connection: Connection) -> None:
        """Take the advisory lock of this database; an upgrade of many rows takes as long as it takes."""
        driver: Any = connection.connection.driver_connection
        driver.patience_s = math.inf
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (_SCHEMA_LOCK,))

    def lock_chain(self, connection: Connection) -> tuple[int, str]:
        """Lock the one row of chain_head."""
        ((seq, last),) = self.run(connection, "SELECT seq, hash FROM chain_head FOR UPDATE")
        return seq, last

    def run(self, connection: Connection, statement: str, values: Sequence[Any] = ()) -> Sequence[tuple[Any, ...]]:
        """Run it on psycopg's connection."""
        driver: Any = connection.connection.driver_connection
        done = driver.execute(statement.replace("?", "%s"), values)
        return done.fetchall() if done.description else ()

    def insert(
        self, connection: Connection, table: str, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
    ) -> None:
        """Insert through COPY."""
        if not rows:
            return
        driver: Any = connection.connection.driver_connection
        statement = f"COPY {table} ({', '.join(columns)}) FROM STDIN"
        with driver.cursor() as cursor, cursor.copy(statement) as copy:
            for row in rows:
                copy.write_row(row)

    def files_at(self, connection: Connection, number: int, paths: Sequence[bytes]) -> list[Known]:
        """Look the paths up by the table's own key."""
        sql = "SELECT path, version, id, size, sha256 FROM file WHERE dataset_number = %s AND path = ANY(%s)"
        return [Known(*row) for row in connection.exec_driver_sql(sql, (number, list(paths)))]

    def index_words(self, connection: Connection, rows: Sequence[tuple[int, Sequence[str]]]) -> None:
        """Insert lexemes with their positions; the words hold letters and digits only, so quotes are enough."""
        self.insert(
            connection,
            "dataset_words",
            ("number", "words"),
            [(n, " ".join(f"'{w}':{i}" for i, w in enumerate(words[:_LAST_POSITION], 1))) for n, words in rows],
        )

    def match(self, words: Sequence[str], *, is_prefix: bool) -> tuple[str, str]:
        """Return a tsquery of words that follow each other."""
        query = " <-> ".join(f"'{word}'" for word in words) + (":*" if is_prefix else "")
        sql = "SELECT dataset_words.number FROM dataset_words WHERE dataset_words.words @@ CAST(:words AS tsquery)"
        return sql, query

    def month(self, column: str) -> ColumnElement[str]:
        """Return it by to_char; the session's time zone is UTC."""
        return literal_column(f"to_char(to_timestamp({column} / 1000000), 'YYYY-MM')", Text)

    def is_duplicate(self, error: object) -> bool:
        """Read the SQLSTATE."""
        return isinstance(error, psycopg.errors.UniqueViolation)

    def translate(self, error: BaseException) -> LightkeepError | None:
        """Return our error for the SQLSTATE."""
        state = getattr(error, "sqlstate", None) or ""
        if state.startswith("23"):
            return Conflict(f"the catalogue refused the change: {first_line(error)}")
        if state in ("55P03", "40001", "40P01"):
            return Conflict("another process is changing the catalogue and did not finish in time", remedy=AGAIN)
        if state == "53100":
            return StoreFull(
                "no room for the catalogue on its server", remedy="free space there; nothing was changed"
            )
        if state.startswith("XX"):
            return Corrupt(f"the catalogue's server found damage: {error}", remedy="restore it from a backup")
        if state.startswith("22"):
            return InvalidInput(f"the catalogue cannot hold a value: {error}")
        if not state or state.startswith(("08", "57P", "53", "28", "3D")):
            return CatalogUnavailable(
                f"the catalogue's server cannot be used: {first_line(error)}",
                remedy="check that it runs and that catalog_url is right",
            )
        return None
