"""`workflow`: what is done with a dataset, stage by stage."""

from __future__ import annotations

from pathlib import Path

import click

from lightkeep.cli.app import Group
from lightkeep.cli.output import ago, count, emit, facts, plain, say, state, table
from lightkeep.cli.session import Session
from lightkeep.model.errors import InvalidInput
from lightkeep.model.workflows import FlowState

_EXAMPLES = (
    "lightkeep workflow check nightly.toml     is it right?",
    "lightkeep workflow set nightly.toml       from now on its triggers begin it",
    "lightkeep workflow start nightly tooth    begin it by hand",
)
_STATES = click.Choice([each.value for each in FlowState])


@click.group(cls=Group, examples=_EXAMPLES)
def workflow() -> None:
    """Chains of techniques and commands, begun by data, by the clock or by hand."""


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise InvalidInput(f"cannot read {file}: {why}", remedy="name a text file") from error


_file = click.argument("file", type=click.Path(readable=False, path_type=Path))


@workflow.command("check", examples=("lightkeep workflow check nightly.toml",))
@_file
@click.pass_obj
def check(session: Session, file: Path) -> None:
    """Read FILE and say what is wrong with it, with the line. Nothing is adopted."""
    from lightkeep.lifecycle.processing import flows

    found = flows.check(_read(file))

    def human() -> None:
        rows = [
            (each.name, each.technique or each.command[0], ", ".join(each.needs), each.runs_if, each.retries)
            for each in found.stages
        ]
        table(["stage!", "does", "after", "if", "retries>"], rows)
        for trigger in found.triggers:
            when = trigger.daily_at or (f"every {trigger.every_s} s" if trigger.every_s else "")
            say(f"Begins: {trigger.on} {when} {trigger.find}".rstrip())

    emit(session, found, human)


@workflow.command("set", examples=("lightkeep workflow set nightly.toml",))
@_file
@click.pass_obj
def adopt(session: Session, file: Path) -> None:
    """Adopt FILE as the next version of its workflow. Flows that have begun keep the version they began with."""
    from lightkeep.lifecycle.processing import flows

    text = _read(file)
    with session.opened() as work:
        version = flows.adopt(work.facility, text, principal=work.principal)
    emit(session, {**plain(version), "stamp": version.stamp}, lambda: say(f"Adopted {version.stamp}"))


@workflow.command("list", examples=("lightkeep workflow list",))
@click.pass_obj
def show_all(session: Session) -> None:
    """List the workflows with all their versions, the newest first."""
    with session.opened() as work:
        page = work.view.workflow_versions(limit=1000)

    def human() -> None:
        rows = [(v.stamp, v.author, f"{v.created_at:%Y-%m-%d %H:%M}" if v.created_at else "") for v in page.items]
        table(["workflow!", "adopted by", "at"], rows)
        if not page.total:
            say("No workflow yet: lightkeep workflow set FILE adopts one")

    emit(session, page, human)


@workflow.command("show", examples=("lightkeep workflow show nightly", "lightkeep workflow show n --version 2"))
@click.argument("workflow_id", metavar="WORKFLOW")
@click.option("--version", default=0, type=click.IntRange(0), help="Not the newest version, but this one.")
@click.pass_obj
def show(session: Session, workflow_id: str, version: int) -> None:
    """Print the text of a workflow."""
    with session.opened() as work:
        found = work.view.workflow_version(workflow_id, version)
    emit(session, found, lambda: say(found.text))


@workflow.command("start", examples=("lightkeep workflow start nightly tooth",))
@click.argument("workflow_id", metavar="WORKFLOW")
@click.argument("dataset")
@click.pass_obj
def start(session: Session, workflow_id: str, dataset: str) -> None:
    """Begin a workflow on a dataset; a running `lightkeep serve` or `lightkeep worker` does it."""
    from lightkeep.lifecycle.processing import flows

    with session.opened() as work:
        found = work.dataset(dataset)
        flow = flows.start(work.facility, workflow_id, found.id, principal=work.principal)
    emit(session, flow, lambda: say(f"{flow.id}  {state(flow.state)}; lightkeep workflow flow {flow.id}"))


@workflow.command("flows", examples=("lightkeep workflow flows --state failed",))
@click.option("--workflow", "workflow_id", default="", help="Only of this workflow.")
@click.option("--state", "wanted", type=_STATES, help="Only in this state.")
@click.option("--limit", default=50, type=click.IntRange(1, 1000), show_default=True, help="At most so many.")
@click.pass_obj
def flows_of(session: Session, workflow_id: str, wanted: str | None, limit: int) -> None:
    """List the flows that you may see: datasets on their way through a workflow, newest first."""
    with session.opened() as work:
        page = work.view.flows(workflow_id=workflow_id, state=FlowState(wanted) if wanted else None, limit=limit)

    def human() -> None:
        rows = [
            (f.id, state(f.state), f"{f.workflow_id}@{f.version}", f.dataset_id, ago(f.created_at), f.message)
            for f in page.items
        ]
        table(["flow!", "state", "workflow", "dataset", "begun>!", "message"], rows)
        if not page.total:
            say("No flow yet: lightkeep workflow start WORKFLOW DATASET")

    emit(session, page, human)


@workflow.command("flow", examples=("lightkeep workflow flow flow_01kb3x5e9q7m2r4t",))
@click.argument("flow_id", metavar="FLOW")
@click.pass_obj
def flow(session: Session, flow_id: str) -> None:
    """Show one flow: where each of its stages stands."""
    with session.opened() as work:
        found = work.view.flow(flow_id)
        runs = work.view.flow_runs(flow_id)

    def human() -> None:
        facts(
            {
                "flow": found.id,
                "state": state(found.state),
                "message": found.message,
                "workflow": f"{found.workflow_id}@{found.version}",
                "dataset": found.dataset_id,
                "begun": f"{ago(found.created_at)} by {found.created_by} ({found.trigger.partition(':')[0]})",
            }
        )
        say()
        table(
            ["stage!", "run!", "state", "result", "message"],
            [(r.stage, r.id, state(r.state), r.result_id, r.message) for r in runs],
        )
        say(f"{count(len(runs), 'run')} so far")

    emit(session, {"flow": found, "runs": runs}, human)


@workflow.command("cancel", examples=("lightkeep workflow cancel flow_01kb3x5e9q7m2r4t",))
@click.argument("flow_id", metavar="FLOW")
@click.pass_obj
def cancel(session: Session, flow_id: str) -> None:
    """End a flow and what runs of it."""
    from lightkeep.lifecycle.processing import flows

    with session.opened() as work:
        found = flows.cancel(work.facility, flow_id, principal=work.principal)
    emit(session, found, lambda: say(f"{found.id}  {state(found.state)}  {found.message}"))
