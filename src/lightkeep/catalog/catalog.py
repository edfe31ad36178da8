"""The catalogue's front door."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy

from sqlalchemy import Connection, Engine, make_url, select
from sqlalchemy.exc import ArgumentError

from lightkeep.catalog import audit, migrate, rows, schema, snapshot, workers
from lightkeep.catalog.changes import Change
from lightkeep.catalog.dialect import Dialect, errors_of
from lightkeep.catalog.sources import SourceKey
from lightkeep.catalog.sqlite import Sqlite
from lightkeep.catalog.text import encode_path
from lightkeep.catalog.view import View
from lightkeep.model.clock import Clock, Ids
from lightkeep.model.errors import ConfigError
from lightkeep.model.people import Person, Principal


class Catalog:
    """What exists, who may see it, and the audit trail.

    One object serves all threads of a process; any number of processes may open the same catalogue::

        with catalog.change(principal) as tx:
            tx.add_experiment(experiment)
        catalog.view(principal).experiments()
    """

    def __init__(self, engine: Engine, *, dialect: Dialect, clock: Clock, ids: Ids) -> None:
        self.engine = engine
        self.dialect = dialect
        self.ids = ids
        self.clock = clock
        self.writer = dialect.writer(engine)
        self.worker_id = ""
        """The worker whose work this is; empty: nobody's who could be taken for dead."""

    @classmethod
    def open(cls, url: str, *, clock: Clock, ids: Ids) -> Catalog:
        """Open a catalogue; make its tables when the database is empty.

        Parameters
        ----------
        url: `sqlite:////absolute/path/catalog.db` or `postgresql+psycopg://user@host/name`.

        Raises
        ------
        ConfigError: the address cannot be used, or the tables are of an older or newer Lightkeep.
        StoreUnavailable: the server does not answer.
        """
        dialect = dialect_of(url)
        catalog = cls(dialect.create_engine(url), dialect=dialect, clock=clock, ids=ids)
        try:
            with errors_of(dialect):
                migrate.prepare(catalog.engine, dialect)
        except BaseException:
            catalog.close()
            raise
        return catalog

    def close(self) -> None:
        """Give all connections back. A view or change that is still used opens new ones."""
        self.engine.dispose()

    @contextmanager
    def change(self, principal: Principal) -> Iterator[Change]:
        """Begin a change; it commits when the block ends and leaves no trace when the block raises.

        One change at a time, in the whole facility: do the slow work before, and only write inside.

        Raises
        ------
        Conflict: others kept the catalogue busy for too long.
        StoreFull: no room; nothing was changed.
        """
        with errors_of(self.dialect), self.writer.begin() as connection:
            chain = audit.Chain(connection, self.dialect, *self.dialect.lock_chain(connection))
            if self.worker_id:
                workers.check(connection, self.worker_id)
            yield Change(connection, dialect=self.dialect, chain=chain, principal=principal, clock=self.clock)

    def fenced(self, worker_id: str) -> Catalog:
        """Return this catalogue for a worker: once it was taken for dead, `change` raises `workers.Fenced`."""
        fenced = copy(self)
        fenced.worker_id = worker_id
        return fenced

    def beat(self, worker_id: str) -> None:
        """Give a worker's sign of life. Waits for no change that is under way. Fenced: it was taken for dead."""
        with errors_of(self.dialect), self.writer.begin() as connection:
            workers.beat(connection, worker_id, values={"seen_at": self.clock.now()})

    def view(self, principal: Principal) -> View:
        """Return what this principal sees."""
        return View(self._read, dialect=self.dialect, principal=principal, now=self.clock.now())

    def person_by_token(self, token_hash: str) -> Person | None:
        """Return whom a token signs in, or None when it is unknown, over, or its person may not sign in."""
        t, p = schema.token, schema.person
        valid = (t.c.token_hash == token_hash) & p.c.is_active
        valid &= t.c.expires_at.is_(None) | (t.c.expires_at > self.clock.now())
        with self._read() as connection:
            row = (
                connection.execute(select(p).join_from(t, p, p.c.id == t.c.person_id).where(valid))
                .mappings()
                .first()
            )
        return None if row is None else rows.person_of(row)

    def password_hash(self, person_id: str) -> str | None:
        """Return the hash to check a password against, or None when this person cannot sign in with one."""
        c = schema.person.c
        with self._read() as connection:
            found = connection.execute(select(c.password_hash).where((c.id == person_id) & c.is_active)).scalar()
        return found or None

    def known_sources(self, root: str, *, dataset_id: str = "") -> dict[str, SourceKey]:
        """Return how the files below a source folder looked when they were taken, by path below root.

        Parameters
        ----------
        root: as it was given to `Change.remember_sources`.
        dataset_id: only what went into this dataset. Without it, the key that was taken last stands.
        """
        c = schema.source_key.c
        found = select(schema.source_key).where(c.root == encode_path(root)).order_by(c.file_id)
        if dataset_id:
            found = found.where(c.dataset_id == dataset_id)
        with self._read() as connection:
            keys = [rows.source_of(row) for row in connection.execute(found).mappings()]
        return {key.path: key for key in keys}

    def head(self) -> tuple[int, str]:
        """Return number and hash of the last event: keep it elsewhere, as an anchor for `verify_events`."""
        with self._read() as connection:
            return audit.head_of(connection.execute(select(schema.chain_head)).mappings().one())

    def state_snapshot(self) -> Iterator[bytes]:
        """Yield the small tables as a document, without secrets; see `catalog.snapshot`."""
        with self._read() as connection:
            yield from snapshot.state_lines(connection)

    def event_snapshot(self, after: int) -> Iterator[bytes]:
        """Yield the events after a number as a document."""
        with self._read() as connection:
            yield from snapshot.event_lines(connection, after=after)

    def verify_events(self, *, anchor: tuple[int, str] | None = None) -> list[str]:
        """Read the whole audit trail; return what is wrong with it, one line each. Empty: it is whole.

        Parameters
        ----------
        anchor: what `head` answered earlier; then a trail that was cut and closed again is found as well.
        """
        with self._read() as connection:
            return audit.problems(connection, anchor=anchor)

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with errors_of(self.dialect), self.engine.connect() as connection:
            yield connection


def dialect_of(url: str) -> Dialect:
    """Return the dialect of an address. ConfigError when there is none, or its driver is not installed."""
    try:
        backend = make_url(url).get_backend_name()
    except ArgumentError as error:
        raise ConfigError(f"{url!r} is not the address of a catalogue", remedy="write sqlite:////path") from error
    if backend == "sqlite":
        return Sqlite()
    if backend != "postgresql":
        raise ConfigError(f"a catalogue cannot be kept in {backend}", remedy="use sqlite or postgresql+psycopg")
    try:
        from lightkeep.catalog.postgres import Postgres
    except ModuleNotFoundError as error:
        raise ConfigError(
            "PostgreSQL needs a driver that is not installed", remedy="pip install 'lightkeep[postgres]'"
        ) from error
    return Postgres()
