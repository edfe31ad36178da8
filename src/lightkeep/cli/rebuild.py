"""`rebuild`: a lost catalogue made again."""

from __future__ import annotations

from pathlib import Path

import click

from lightkeep.cli.app import Command
from lightkeep.cli.output import count, emit, facts, plain, progress, say
from lightkeep.cli.session import Session

INCOMPLETE = 1


@click.command(
    cls=Command,
    short_help="Make a lost catalogue again from what the stores hold.",
    examples=("lightkeep rebuild /data/central", "lightkeep rebuild /data/central /mnt/archive"),
)
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FOLDER...")
@click.pass_context
def rebuild(ctx: click.Context, folders: tuple[Path, ...]) -> None:
    """Fill the empty catalogue of this facility from its stores; FOLDER is where one of them lies.

    Stores are only read. What comes back counts as a copy when it was verified again; people come back without
    their passwords; no purge runs before somebody confirms the catalogue. The exit code is 1 when something is
    missing.
    """
    from lightkeep.facility import empty_facility
    from lightkeep.lifecycle.replicas import rebuild as verb

    session: Session = ctx.obj
    with empty_facility(session.load()) as facility, progress(session, "Rebuilding") as report:
        found = verb.rebuild(facility, folders, report=report)
    rebuilt = found.rebuilt
    inside = f"{count(rebuilt.files, 'file')}, {count(rebuilt.replicas, 'replica')}"
    problems = [
        *(f"store {each} was not read: {why}" for each, why in found.unread.items()),
        *(f"record {name} is damaged on every store" for name in found.damaged),
        *rebuilt.problems,
    ]
    if found.missing:
        problems.insert(0, f"{count(found.missing, 'object')} not on their stores any more")

    def human() -> None:
        facts(
            {
                "stores": ", ".join(found.stores),
                "datasets": f"{rebuilt.datasets} ({inside})",
                "audit trail": f"{count(rebuilt.events, 'event')}, {rebuilt.lost_events} lost",
            }
        )
        for each in problems:
            say(f"✗ {each}")
        say("Next: lightkeep verify --due, then lightkeep purge confirm-catalog")

    emit(session, {**plain(found), "problems": problems}, human)
    if problems:
        ctx.exit(INCOMPLETE)
