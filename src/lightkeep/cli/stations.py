"""`station`: where experiments take place."""

from __future__ import annotations

import click

from lightkeep.cli.app import Group
from lightkeep.cli.output import ago, emit, facts, say, table
from lightkeep.cli.session import Session
from lightkeep.model.experiments import Station


@click.group(cls=Group, examples=('lightkeep station add 2-BM --name "Micro-tomography" --technique tomography',))
def station() -> None:
    """Register and show stations."""


@station.command("add", examples=('lightkeep station add 2-BM --name "Micro-tomography" --technique tomography',))
@click.argument("station_id", metavar="STATION")
@click.option("--name", default="", help="What is done there.")
@click.option("--technique", "techniques", multiple=True, help="A technique offered there; may be repeated.")
@click.pass_obj
def add(session: Session, station_id: str, name: str, techniques: tuple[str, ...]) -> None:
    """Register a station under the name that the facility uses, e.g. 2-BM-A."""
    from lightkeep.lifecycle.people import set_up

    with session.opened() as work:
        set_up.add_station(work.facility, Station(station_id, name, techniques), principal=work.principal)
    emit(session, {"id": station_id}, lambda: say(f"Added station {station_id}"))


@station.command("list", examples=("lightkeep station list",))
@click.pass_obj
def show_all(session: Session) -> None:
    """List the stations."""
    with session.opened() as work:
        stations = work.view.stations()

    def human() -> None:
        table(["station!", "name", "techniques"], [(s.id, s.name, ", ".join(s.techniques)) for s in stations])
        if not stations:
            say("No station yet: lightkeep station add 2-BM")

    emit(session, {"items": stations, "total": len(stations)}, human)


@station.command("show", examples=("lightkeep station show 2-BM",))
@click.argument("station_id", metavar="STATION")
@click.pass_obj
def show(session: Session, station_id: str) -> None:
    """Show one station and its experiments."""
    with session.opened() as work:
        found = work.view.station(station_id)
        page = work.view.experiments(station_id=station_id, limit=20)

    def human() -> None:
        known = {"station": found.id, "name": found.name, "techniques": ", ".join(found.techniques)}
        facts(known | {"added": ago(found.created_at), "experiments": page.total})
        for each in page.items:
            say(f"  {each.id}")

    emit(session, {"station": found, "experiments": page.items, "total": page.total}, human)
