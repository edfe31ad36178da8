"""`drill`: does anything come back?"""

from __future__ import annotations

import click

from lightkeep.cli.app import Command
from lightkeep.cli.output import count, emit, facts, plain, progress, say, size
from lightkeep.cli.session import Session

FAILED = 1


@click.command(cls=Command, short_help="Restore something for a trial.", examples=("lightkeep drill",))
@click.pass_context
def drill(ctx: click.Context) -> None:
    """Read datasets back from every store and rebuild the catalogue beside; keep the result.

    Nothing is changed. `lightkeep serve` and `lightkeep upkeep` hold a drill every month. The exit code is 1 when
    anything did not come back.
    """
    from lightkeep.lifecycle.health import drill as verb

    session: Session = ctx.obj
    with session.opened() as work, progress(session, "Restoring") as report:
        done = verb.drill(work.facility, principal=work.principal, report=report)

    def human() -> None:
        inside = f"{count(done.files, 'file')}, {size(done.size)} in {done.seconds:.1f} s"
        rebuilt = f"{done.rebuilt_datasets} of {done.expected_datasets} datasets"
        facts(
            {
                "restored": f"{count(done.datasets, 'dataset')} ({inside})",
                "rebuilt": f"{rebuilt} in {done.rebuild_seconds:.1f} s",
            }
        )
        for each in done.failures:
            say(f"✗ {each}")
        if done.passed:
            say("✓ every byte and every dataset came back")

    emit(session, {**plain(done), "passed": done.passed}, human)
    if not done.passed:
        ctx.exit(FAILED)
