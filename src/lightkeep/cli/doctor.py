"""`doctor`: is everything as the catalogue says?"""

from __future__ import annotations

import click

from lightkeep.cli.app import Command
from lightkeep.cli.output import count, emit, progress, say, state
from lightkeep.cli.session import Session
from lightkeep.model.people import Verb

UNHEALTHY = 1


@click.command(
    cls=Command, short_help="Look for what is wrong.", examples=("lightkeep doctor", "lightkeep doctor --full")
)
@click.option("--full", is_flag=True, help="Also read every byte of every file and compare checksums.")
@click.pass_context
def doctor(ctx: click.Context, full: bool) -> None:
    """Look for what is wrong; change nothing. The exit code is 1 when there is an error."""
    from lightkeep.lifecycle.health.doctor import examine
    from lightkeep.lifecycle.health.findings import Severity

    session: Session = ctx.obj
    with session.opened() as work:
        work.view.require(Verb.MANAGE)
        with progress(session, "Examining") as report:
            findings = examine(work.facility, full=full, report=report)
    errors = sum(each.severity is Severity.ERROR for each in findings)

    def human() -> None:
        for each in findings:
            say(f"{state(each.severity)}  {each.message}")
            if each.remedy:
                say(f"   hint: {each.remedy}")
        warnings = len(findings) - errors
        say(
            f"{count(errors, 'error')}, {count(warnings, 'warning')}"
            if findings
            else "✓ everything is as the catalogue says"
        )

    emit(session, {"findings": findings, "errors": errors, "full": full}, human)
    if errors:
        ctx.exit(UNHEALTHY)
