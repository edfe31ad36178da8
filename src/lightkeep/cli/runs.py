"""`runs`: what was computed, what is being computed, what failed."""

from __future__ import annotations

import json
from typing import Any

import click

from lightkeep.cli.app import Group
from lightkeep.cli.compute import cancelled_on_interrupt, perform, show_placement
from lightkeep.cli.output import ago, count, emit, facts, say, size, state, table
from lightkeep.cli.session import Session
from lightkeep.model.errors import InvalidInput
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
                "flow": f"{found.flow_id}, stage {found.stage}" if found.flow_id else "",
                "software": found.software,
                "asked": f"{ago(found.created_at)} by {found.created_by}",
                "took": took,
            }
        )
        for name, value in (found.resolved or found.params).items():
            flag = name.replace("_", "-")
            if isinstance(value, bool):
                say(f"  --{flag}" if value else f"  --no-{flag}")
            elif value is not None:
                say(f"  --{flag} {value}")
        show_placement(found)

    emit(session, found, human)


@runs.command("log", examples=("lightkeep runs log run_01kb3x5e9q7m2r4t",))
@click.argument("run_id", metavar="RUN")
@click.pass_obj
def log(session: Session, run_id: str) -> None:
    """Print what the tasks of a run said: where each ran, how long, and all of an error."""
    from lightkeep.lifecycle.processing import run_log

    with session.opened() as work:
        lines = run_log.read(work.facility, run_id, principal=work.principal)

    def human() -> None:
        for each in lines:
            say(f"{each.at[11:23]}  {each.task:<12} {each.level:<7} {each.message}")
        if not lines:
            say("Nothing was said yet")

    emit(session, lines, human)


@runs.command("cancel", examples=("lightkeep runs cancel run_01kb3x5e9q7m2r4t",))
@click.argument("run_id", metavar="RUN")
@click.pass_obj
def cancel(session: Session, run_id: str) -> None:
    """Cancel a run that is queued or running."""
    from lightkeep.lifecycle.processing import process

    with session.opened() as work:
        found = process.cancel(work.facility, run_id, principal=work.principal)
    emit(session, found, lambda: say(f"{found.id}  {state(found.state)}  {found.message}"))


@runs.command("stop", examples=("lightkeep runs stop run_01kb3x5e9q7m2r4t",))
@click.argument("run_id", metavar="RUN")
@click.pass_obj
def stop(session: Session, run_id: str) -> None:
    """End a live run early, with the frames that it has."""
    from lightkeep.lifecycle.acquisitions import live

    with session.opened() as work:
        found = live.stop(work.facility, run_id, principal=work.principal)
    emit(session, found, lambda: say(f"{found.id}  {state(found.state)}  {found.message}"))


@runs.command(
    "retry",
    examples=("lightkeep runs retry run_01kb3x5e9q7m2r4t", "lightkeep runs retry run_01kb3x5e --set center=295.5"),
)
@click.argument("run_id", metavar="RUN")
@click.option("--set", "changes", multiple=True, metavar="NAME=VALUE", help="Another value; empty: the default.")
@click.option("--no-wait", is_flag=True, help="Only queue the run: a running `lightkeep serve` does it.")
@click.pass_obj
def retry(session: Session, run_id: str, changes: tuple[str, ...], no_wait: bool) -> None:
    """Start again what a run that is over was asked for, as a new run. A workflow that it failed goes on."""
    from lightkeep.lifecycle.processing import process

    with session.opened() as work:
        edits = {name: value if value != "" else None for name, value in _values(changes).items()}
        queued = process.retry(work.facility, run_id, principal=work.principal, changes=edits)
        with cancelled_on_interrupt(work, queued.id):
            ended = perform(session, work, queued.id, waits=not no_wait)
    emit(session, ended, lambda: say(f"{ended.id}  {state(ended.state)}  {ended.message}"))


@runs.command("failed", examples=("lightkeep runs failed",))
@click.option("--limit", default=50, type=click.IntRange(1, 1000), show_default=True, help="At most so many.")
@click.pass_obj
def failed(session: Session, limit: int) -> None:
    """List the runs that failed, with the reason and the command that starts each again."""
    with session.opened() as work:
        page = work.view.runs(state=RunState.FAILED, limit=limit)

    def human() -> None:
        table(
            ["run!", "technique", "ended>!", "why"],
            [(r.id, r.stage or r.technique, ago(r.ended_at), r.message) for r in page.items],
        )
        if page.items:
            say(f"Again, with another value: lightkeep runs retry {page.items[0].id} --set NAME=VALUE")
        else:
            say("No run has failed")

    emit(session, page, human)


@runs.command(
    "reprocess",
    examples=(
        "lightkeep runs reprocess xpcs --find 'created:2026-11..' --dry-run",
        "lightkeep runs reprocess xpcs --find 'created:2026-11..' --set levels=6",
    ),
)
@click.argument("technique")
@click.option("--find", required=True, help="Datasets, as in `lightkeep find`; raw ones unless it names a kind.")
@click.option("--set", "values", multiple=True, metavar="NAME=VALUE", help="A parameter of the technique.")
@click.option("--engine", default="", help="Where to compute; the configured engine otherwise.")
@click.option("--dry-run", is_flag=True, help="Only say how many and how long.")
@click.pass_obj
def reprocess(
    session: Session, technique: str, find: str, values: tuple[str, ...], engine: str, dry_run: bool
) -> None:
    """Compute everything that a search finds again, behind all other work."""
    from lightkeep.lifecycle.processing.reprocess import reprocess as verb
    from lightkeep.workflow import open_workflow

    with session.opened() as work:
        found = verb(
            work.facility,
            find,
            technique,
            _values(values),
            principal=work.principal,
            engine=engine,
            dry_run=dry_run,
        )
        with open_workflow(work.facility, work=False) as orchestrator:
            for run_id in found.runs:
                orchestrator.submit_run(run_id)

    def human() -> None:
        time = "no past run tells how long it takes"
        if found.seconds is not None:
            time = f"about {found.seconds / 3600:.1f} h of computing, by the past runs here"
        say(f"{count(found.datasets, 'dataset')}, {size(found.size)}; {time}; {found.left_out} left out")
        if found.far:
            say(f"{count(found.far, 'dataset')}, {size(found.far_size)}, come back from the archive first")
        for dataset_id, why in found.refused.items():
            say(f"✕ {dataset_id}: {why}")
        say("Nothing was queued" if dry_run else f"{count(len(found.runs), 'run')} queued; a worker does them")

    emit(session, found, human)


def _values(given: tuple[str, ...]) -> dict[str, Any]:
    """Return name -> value of NAME=VALUE: JSON where it is that, else text."""
    found: dict[str, Any] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not equals or not name:
            raise InvalidInput(f"--set `{each}` is not NAME=VALUE", remedy="e.g. --set center=295.5")
        try:
            found[name.replace("-", "_")] = json.loads(text)
        except ValueError:
            found[name.replace("-", "_")] = text
    return found
