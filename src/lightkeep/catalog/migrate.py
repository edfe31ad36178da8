"""Making the tables and bringing them up to date, by the migrations in this package."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect

from lightkeep.catalog import schema
from lightkeep.catalog.dialect import Dialect
from lightkeep.model.errors import ConfigError

FOLDER = Path(__file__).parent / "migrations"


def prepare(engine: Engine, dialect: Dialect) -> None:
    """Make the tables where there are none, in one transaction; accept a catalogue of this version.

    Raises
    ------
    ConfigError: the tables are of another version, or of another program.
    """
    with engine.connect() as connection:
        version = _version(connection)
    if version is None:
        with dialect.writer(engine).begin() as connection:
            dialect.lock_schema(connection)
            if _version(connection) is None:
                _upgrade(connection, schema.VERSION)
            version = _version(connection)
    if version == schema.VERSION:
        return
    if version is None or version > schema.VERSION:
        raise ConfigError(
            f"the catalogue has tables of version {version}, this Lightkeep knows {schema.VERSION}",
            remedy="use the newer Lightkeep that wrote it",
        )
    raise ConfigError(
        f"the catalogue has tables of version {version}, this Lightkeep needs {schema.VERSION}",
        remedy="back it up, then run: lightkeep catalog upgrade",
    )


def upgrade(engine: Engine, dialect: Dialect) -> None:
    """Bring the tables to this version, in one transaction."""
    with dialect.writer(engine).begin() as connection:
        dialect.lock_schema(connection)
        _upgrade(connection, schema.VERSION)


def _version(connection: Connection) -> str | None:
    names = inspect(connection).get_table_names()
    if "alembic_version" in names:
        found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
        return None if found is None else str(found)
    if names:
        raise ConfigError(
            "the database holds tables of another program", remedy="give the catalogue a database of its own"
        )
    return None


def _upgrade(connection: Connection, target: str) -> None:
    from alembic import command  # costs 0.1 s, and only the first start needs it
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    command.upgrade(config, target)
