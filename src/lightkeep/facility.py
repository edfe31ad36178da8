"""The objects of one facility, composed once.

    with open_facility(config.load()) as facility:
        facility.catalog.view(principal).datasets()
        facility.stores["central"].stat(key)
        facility.engine().map(tasks)

Opening is cheap: the catalogue is connected; a store, an engine and the numerics behind them are loaded when
they are first asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from lightkeep.config import Config
from lightkeep.model.clock import Clock, Ids, SystemClock, SystemIds
from lightkeep.model.errors import ConfigError, NotFound
from lightkeep.model.people import SERVICE, Grant, Person, Role, Scope

if TYPE_CHECKING:
    from lightkeep.catalog import Catalog
    from lightkeep.model.engines import Engine
    from lightkeep.model.stores import Store

_CLOCK = SystemClock()
_IDS = SystemIds()


class Stores(Mapping[str, "Store"]):
    """The facility's stores by id, each opened when it is first asked for. An unknown id raises NotFound."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._open: dict[str, Store] = {}

    def __getitem__(self, store_id: str) -> Store:
        if store_id not in self._open:
            from lightkeep.storage import open_store

            try:
                record = self._catalog.view(SERVICE).store(store_id)
            except NotFound as error:
                known = ", ".join(self) or "none"
                raise NotFound(f"store `{store_id}` does not exist", remedy=f"stores here: {known}") from error
            self._open[store_id] = open_store(record)
        return self._open[store_id]

    def __iter__(self) -> Iterator[str]:
        return iter([record.id for record in self._catalog.view(SERVICE).stores()])

    def __len__(self) -> int:
        return len(self._catalog.view(SERVICE).stores())


@dataclass(frozen=True)
class Facility:
    """What every verb works with. Use as a context manager; `close` frees the catalogue."""

    config: Config
    catalog: Catalog
    clock: Clock = _CLOCK
    ids: Ids = _IDS
    stores: Mapping[str, Store] = field(default_factory=dict)

    def engine(self, name: str = "") -> Engine:
        """Return an engine by name; the configured one when the name is empty.

        Raises
        ------
        ConfigError: there is none of that name, or its table in lightkeep.toml cannot be used.
        """
        from lightkeep import engines

        name = name or self.config.engine.name
        options = dict(self.config.engines.get(name, {}))
        kind = options.pop("kind", name)
        for key in ("techniques", "stations"):
            options.pop(key, None)
        known = engines.options_of(kind)
        workers = self.config.engine.workers
        if name not in self.config.engines and workers and "workers" in known:
            options["workers"] = workers
        if "folder" in known:
            options["folder"] = str(self.config.root / options.get("folder", Path("engines", name)))
        return engines.get(kind, **options)

    def engine_names(self) -> list[str]:
        """Return the engines that a run may name: those of lightkeep.toml, and every kind with its defaults."""
        from lightkeep import engines

        return sorted({*engines.names(), *self.config.engines})

    def engine_for(self, technique: str, station_id: str) -> str:
        """Return the engine of a run that names none: the first whose lists name it, else the configured one."""
        for name, table in self.config.engines.items():
            given = [(table.get("techniques"), technique), (table.get("stations"), station_id)]
            asked = [value in names for names, value in given if names]
            if asked and all(asked):
                return name
        return self.config.engine.name

    @property
    def scratch(self) -> Path:
        """Folder for results on their way to a store; it exists, and anything in it may be lost."""
        self.config.scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.config.scratch

    def close(self) -> None:
        """Free the catalogue's connections."""
        self.catalog.close()

    def __enter__(self) -> Facility:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_facility(config: Config, *, clock: Clock = _CLOCK, ids: Ids = _IDS) -> Facility:
    """Open a facility that exists.

    Raises
    ------
    ConfigError: there is no facility at the configured root, or its catalogue is of another version.
    """
    _must_exist(config)
    return _connect(config, clock, ids)


def empty_facility(config: Config, *, clock: Clock = _CLOCK, ids: Ids = _IDS) -> Facility:
    """Open a facility whose catalogue is lost or not made yet: for `rebuild`, which fills it.

    Raises
    ------
    ConfigError: the root cannot be written, or its catalogue is of another version.
    """
    try:
        config.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        _reserve(config.catalog_url)
    except OSError as error:
        raise ConfigError(
            f"cannot make a catalogue in {config.root}: {error.strerror}",
            remedy="choose a folder that you may write",
        ) from error
    return _connect(config, clock, ids)


def create_facility(
    config: Config, *, admin: Person, password_hash: str = "", clock: Clock = _CLOCK, ids: Ids = _IDS
) -> Facility:
    """Make a facility's folders, catalogue and first store, with its first administrator, and open it.

    Idempotent: what exists stays as it is, and a later call only adds what a crash left out.

    Parameters
    ----------
    config: `root` need not exist.
    admin: gets the role facility-admin.
    password_hash: argon2 hash for the portal; empty means that the person cannot sign in there yet.

    Raises
    ------
    ConfigError: the root cannot be made or written.
    """
    try:
        config.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        config.scratch.mkdir(mode=0o700, exist_ok=True)
        _reserve(config.catalog_url)
    except OSError as error:
        raise ConfigError(
            f"cannot make a facility in {config.root}: {error.strerror}",
            remedy="choose a folder that you may write",
        ) from error
    facility = _connect(config, clock, ids)
    try:
        _first_person(facility, admin, password_hash)
        _first_store(facility)
    except BaseException:
        facility.close()
        raise
    return facility


def move_catalog(facility: Facility, url: str) -> int:
    """Copy the catalogue into the empty database at an address; return the number of rows.

    The facility goes on with the old one until its configuration names the new one.

    Raises
    ------
    ConfigError: the address cannot be used. Conflict: a catalogue is there. Corrupt: the audit trail is damaged.
    """
    from lightkeep.catalog import Catalog
    from lightkeep.catalog.move import copy_to

    _reserve(url)
    with closing(Catalog.open(url, clock=facility.clock, ids=facility.ids)) as target:
        return copy_to(facility.catalog, target).rows


def upgrade_catalog(config: Config) -> None:
    """Bring the catalogue of an older Lightkeep to this version; nothing happens to one that is.

    Raises
    ------
    ConfigError: there is no catalogue, or it is of a newer Lightkeep.
    """
    from lightkeep.catalog.catalog import dialect_of
    from lightkeep.catalog.migrate import upgrade

    _must_exist(config)
    dialect = dialect_of(config.catalog_url)
    engine = dialect.create_engine(config.catalog_url)
    try:
        upgrade(engine, dialect)
    finally:
        engine.dispose()


def _reserve(url: str) -> None:
    """Make SQLite's file before SQLite does: password hashes live in it, so it is for its owner only."""
    if url.startswith("sqlite"):
        os.close(os.open(_sqlite_file(url), os.O_CREAT | os.O_RDWR, 0o600))


def _must_exist(config: Config) -> None:
    if config.catalog_url.startswith("sqlite") and not _sqlite_file(config.catalog_url).is_file():
        raise ConfigError(
            f"{config.root} holds no facility: {_sqlite_file(config.catalog_url)} is missing",
            remedy="correct `root` in lightkeep.toml; a lost catalogue comes back with `lightkeep rebuild`, "
            "a new facility begins with `lightkeep init`",
        )


def _connect(config: Config, clock: Clock, ids: Ids) -> Facility:
    from lightkeep.catalog import Catalog

    catalog = Catalog.open(config.catalog_url, clock=clock, ids=ids)
    return Facility(config, catalog, clock, ids, Stores(catalog))


def _sqlite_file(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


def _first_person(facility: Facility, admin: Person, password_hash: str) -> None:
    if facility.catalog.view(SERVICE).people():
        return
    with facility.catalog.change(SERVICE) as tx:
        tx.add_person(admin, password_hash=password_hash)
        tx.add_grant(Grant(admin.id, Role.FACILITY_ADMIN, Scope.FACILITY))


def _first_store(facility: Facility) -> None:
    store_id = facility.config.ingest.store
    if any(record.id == store_id for record in facility.catalog.view(SERVICE).stores()):
        return
    from lightkeep.storage.posix import PosixStore

    location = facility.config.root / "stores" / store_id
    location.mkdir(parents=True, exist_ok=True)
    record = PosixStore.initialise(location, store_id, ids=facility.ids)
    with facility.catalog.change(SERVICE) as tx:
        tx.add_store(record)
