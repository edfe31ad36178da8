"""`init`, `config` and `catalog`: a facility's folder, its settings and its database."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from lightkeep import config as configuration
from lightkeep.cli.app import Command, Group
from lightkeep.cli.output import emit, facts, say, table
from lightkeep.cli.session import Session, os_person
from lightkeep.model.errors import ConfigError
from lightkeep.model.people import Verb


@click.command(
    cls=Command, short_help="Make a facility in a folder.", examples=("lightkeep init /data/lightkeep",)
)
@click.argument("folder", type=click.Path(readable=False, path_type=Path), default=".")
@click.pass_obj
def init(session: Session, folder: Path) -> None:
    """Make a facility in FOLDER: settings, catalogue, one store, and you as its administrator."""
    from lightkeep.facility import create_facility

    is_new = write_starter(folder)
    settings = configuration.load(folder / configuration.FILE_NAME)
    admin = os_person()
    with create_facility(settings, admin=admin) as facility:
        stores = {store_id: facility.stores[store_id].record.location for store_id in facility.stores}

    def human() -> None:
        say(f"{'Made' if is_new else 'Kept'} the facility in {settings.root}")
        facts(
            {"settings": settings.file, "administrator": admin.id} | {f"store {k}": v for k, v in stores.items()}
        )
        say("Next: lightkeep station add 2-BM")

    answer = {"root": settings.root, "file": settings.file, "admin": admin.id, "stores": stores, "created": is_new}
    emit(session, answer, human)


def write_starter(folder: Path) -> bool:
    """Write a first lightkeep.toml where there is none; return whether it was written."""
    path = folder / configuration.FILE_NAME
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            return False
        path.write_text(configuration.starter(), "utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot make a facility in {folder}: {error.strerror}", remedy="choose a folder that you may write"
        ) from error
    return True


@click.group(cls=Group, examples=("lightkeep config show",))
def config() -> None:
    """Show the settings in force."""


@config.command("show", examples=("lightkeep config show",))
@click.pass_obj
def show(session: Session) -> None:
    """Print every setting, its value, and where it came from."""
    found = session.load()
    rows = []
    for each in configuration.settings():
        value: Any = found
        for name in each.key.split("."):
            value = getattr(value, name)
        origin = found.origins.get(each.key, "default")
        rows.append({"key": each.key, "value": without_password(value), "origin": origin, "help": each.help})
    emit(
        session,
        {"file": found.file, "settings": rows},
        lambda: table(["setting!", "value", "from"], [(r["key"], r["value"], r["origin"]) for r in rows]),
    )


def without_password(value: Any) -> Any:
    """Return a database address with its password hidden; other values as they are."""
    if isinstance(value, str):
        return re.sub(r"(://[^:/@]*:)[^@]*@", r"\1***@", value)
    return str(value) if isinstance(value, Path) else value


@click.group(cls=Group, examples=("lightkeep catalog move postgresql+psycopg://db/lightkeep",))
def catalog() -> None:
    """Look after the catalogue's database."""


@catalog.command("move", examples=("lightkeep catalog move postgresql+psycopg://lightkeep@db/lightkeep",))
@click.argument("url")
@click.pass_obj
def move(session: Session, url: str) -> None:
    """Copy the whole catalogue into the empty database at URL, and say how to switch to it.

    The old database stays as it is. Stop `lightkeep serve` first.
    """
    from lightkeep.facility import move_catalog

    with session.opened() as work:
        work.view.require(Verb.MANAGE)
        rows = move_catalog(work.facility, url)
    line = f'catalog_url = "{without_password(url)}"'
    emit(
        session,
        {"url": without_password(url), "rows": rows},
        lambda: say(f"Copied {rows} rows, and verified the audit trail. Now write into lightkeep.toml:\n{line}"),
    )


@catalog.command("upgrade", examples=("lightkeep catalog upgrade",))
@click.pass_obj
def upgrade(session: Session) -> None:
    """Bring the tables of an older Lightkeep to this version. Back the database up first."""
    from lightkeep.facility import upgrade_catalog

    found = session.load()
    upgrade_catalog(found)
    url = without_password(found.catalog_url)
    emit(session, {"url": url}, lambda: say(f"{url} is of this version"))
