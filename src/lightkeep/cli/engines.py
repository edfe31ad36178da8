"""`engines`: where runs can be computed."""

from __future__ import annotations

import click

from lightkeep.cli.app import Command
from lightkeep.cli.output import emit, table
from lightkeep.cli.session import Session


@click.command(cls=Command, short_help="List where runs can be computed.", examples=("lightkeep engines",))
@click.pass_obj
def engines(session: Session) -> None:
    """List where runs can be computed, and whether it can be reached now.

    Engines of the facility's own are tables of lightkeep.toml, e.g. [engines.realtime] with kind = "slurm".
    """
    from lightkeep.lifecycle.processing.engines import engines as look

    with session.opened() as work:
        found = look(work.facility)
    rows = [
        (each.name, each.kind, "default" if each.is_default else ", ".join(each.runs_for), each.state)
        for each in found
    ]
    emit(session, found, lambda: table(["name", "kind", "for", "state"], rows))
