"""`upkeep`: what has to be done now and then."""

from __future__ import annotations

import click

from lightkeep.cli.app import Command
from lightkeep.cli.output import emit, progress, say
from lightkeep.cli.session import Session
from lightkeep.model.people import Verb

_FAILED = 1


@click.command(
    cls=Command,
    short_help="Do what has to be done now and then.",
    examples=("lightkeep upkeep", "*/5 * * * *  lightkeep upkeep      a line for cron"),
)
@click.pass_context
def upkeep(ctx: click.Context) -> None:
    """Send notices, read copies back, empty the trash, take the day's sample: whatever is due.

    `lightkeep serve` does it each minute. Safe to run at any time and as often as one likes. The exit code is 1
    when a part could not be done.
    """
    from lightkeep.lifecycle import upkeep as lifecycle

    session: Session = ctx.obj
    with session.opened() as work:
        work.view.require(Verb.MANAGE)
        with progress(session, "Upkeep") as report:
            done = lifecycle.upkeep(work.facility, report)

    def human() -> None:
        for name, number in done.done.items():
            say(f"✓ {name:<10} {number}")
        for name, why in done.failed.items():
            say(f"✕ {name:<10} {why}")
        if not done.done and not done.failed:
            say("✓ nothing was due")

    emit(session, done, human)
    if done.failed:
        ctx.exit(_FAILED)
