"""`runs`: what was computed, what is being computed, what failed."""

from __future__ import annotations

import click

from lightkeep.cli.app import Group
from lightkeep.cli.compute import cancelled_on_interrupt, perform
from lightkeep.cli.output import ago, emit, facts, say, state, table
from lightkeep.cli.session import Session
from lightkeep.model.runs import RunState

_STATES = click.Choice([each.value for each in RunState])


@click.group(cls=Group, examples=("lightkeep runs list --state failed",))
def runs() -> None:
    """List, show, stop, cancel and retry runs."""


@runs.command("list", examples=("lightkeep runs list --state failed",))
@click.option("-e", "--experiment", default="", help="Only this experiment.")
@click.option("--dataset", default="", help="Only runs on this dataset (its id).")
@click.option("--state", "wanted", type=_STATES, help="Only runs in this state.")
@click.option("--limit", default=50, type=click.IntRange(1, 1000), show_default=True, help="At most so many.")
@click.pass_obj
def show_all(session: Session, experiment: str, dataset: str, wanted: str | None, limit: int) -> None:
    """List the runs that you may see, newest first."""
    with session.opened() as work:
        page = work.view.runs(
            experiment_id=experiment,
            dataset_id=dataset,
            state=RunState(wanted) if wanted else None,
            limit=limit,
            offset=0,
        )

    def human() -> None:
        rows = [
            (r.id, state(r.state), r.technique, f"{r.progress:.0%}", ago(r.created_at), r.message)
            for r in page.items
        ]
        table(["run!", "state", "technique", "done>!", "asked>!", "message"], rows)
        if page.total > len(page.items):
            say(f"{len(page.items)} of {page.total}; --limit shows more")
        if not page.total:
            say("No run yet: lightkeep run TECHNIQUE DATASET")

    emit(session, page, human)


@runs.command("show", examples=("lightkeep runs show run_01kb3x5e9q7m2r4t",))
@click.argument("run_id", metavar="RUN")
@click.pass_obj
def show(session: Session, run_id: str) -> None:
    """Show one run: its inputs, its parameters, its end."""
    with session.opened() as work:
        found = work.view.run(run_id)

    def human() -> None:
        took = (
            f"{(found.ended_at - found.started_at).total_seconds():.1f} s"
            if found.ended_at and found.started_at
            else ""
        )
        facts(
            {
                "run": found.id,
                "state": state(found.state),
                "message": found.message,
                "technique": found.technique,
                "dataset": found.dataset_id,
                "result": found.result_id,
                "engine": found.engine,
                "software": found.software,
                "asked": f"{ago(found.created_at)} by {found.created_by}",
                "took": took,
            }
        )
        for name, value in (found.resolved or found.params).items():
            say(f"  --{name.replace('_', '-')} {value}")

    emit(session, found, human)


@runs.command("cancel", examples=("lightkeep runs cancel run_01kb3x5e9q7m2r4t",))
@click.argument("run_id", metavar="RUN")
@click.pass_obj
def cancel(session: Session, run_id: str) -> None:
    """Cancel a run that is queued or running."""
    from lightkeep.lifecycle import process

    with session.opened() as work:
        found = process.cancel(work.facility, run_id, principal=work.principal)
    emit(session, found, lambda: say(f"{found.id}  {state(found.state)}  {found.message}"))


@runs.command("stop", examples=("lightkeep runs stop run_01kb3x5e9q7m2r4t",))
@click.argument("run_id", metavar="RUN")
@click.pass_obj
def stop(session: Session, run_id: str) -> None:
    """End a live run early, with the frames that it has."""
    from lightkeep.lifecycle import live

    with session.opened() as work:
        found = live.stop(work.facility, run_id, principal=work.principal)
    emit(session, found, lambda: say(f"{found.id}  {state(found.state)}  {found.message}"))


@runs.command("retry", examples=("lightkeep runs retry run_01kb3x5e9q7m2r4t",))
@click.argument("run_id", metavar="RUN")
@click.option("--no-wait", is_flag=True, help="Only queue the run: a running `lightkeep serve` does it.")
@click.pass_obj
def retry(session: Session, run_id: str, no_wait: bool) -> None:
    """Start again what a run that is over was asked for, as a new run."""
    from lightkeep.lifecycle import process

    with session.opened() as work:
        queued = process.retry(work.facility, run_id, principal=work.principal)
        with cancelled_on_interrupt(work, queued.id):
            ended = perform(session, work, queued.id, waits=not no_wait)
    emit(session, ended, lambda: say(f"{ended.id}  {state(ended.state)}  {ended.message}"))
