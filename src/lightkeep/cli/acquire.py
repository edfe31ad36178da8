"""`acquire`: data that come in while they are measured."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

import click

from lightkeep.cli.app import Command, Group
from lightkeep.cli.output import ago, count, emit, facts, say, size, state, table
from lightkeep.cli.session import Session, Work
from lightkeep.model.acquisition import Acquisition, SourceKind
from lightkeep.model.errors import NotFound

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_KIND_HELP = {
    SourceKind.FOLDER: "A folder into which others write.",
    SourceKind.PVACCESS: "An EPICS PVAccess channel of type NTNDArray.",
    SourceKind.ZEROMQ: "A ZeroMQ stream of frames.",
    SourceKind.BLUESKY: "The files of bluesky runs, by their documents.",
    SourceKind.REPLAY: "A file's frames once more, at a rate.",
}
_PATHS = ("path", "spool", "file", "below")
_EXAMPLES = {
    SourceKind.FOLDER: "lightkeep acquire add folder scans --path /data/2-BM/incoming --done DONE",
    SourceKind.PVACCESS: "lightkeep acquire add pvaccess camera --channel 2bmbSP1:Pva1:Image",
    SourceKind.ZEROMQ: "lightkeep acquire add zeromq eiger --address tcp://eiger:9999",
    SourceKind.BLUESKY: "lightkeep acquire add bluesky runs --path /data/2-BM/documents",
    SourceKind.REPLAY: "lightkeep acquire add replay again --file /data/old.h5 --rate 100",
}


@click.group(
    cls=Group,
    short_help="Take data in while they are measured.",
    examples=(
        "lightkeep acquire add folder scans --path /data/2-BM/incoming",
        "lightkeep acquire start scans",
        "lightkeep acquire show scans",
    ),
)
def acquire() -> None:
    """Folders, detectors and bluesky runs whose data come in by themselves; a worker keeps them going."""


class _Kinds(Group):
    """One command for each kind of source; its options are the kind's."""

    contents = "kind of source"

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the kinds."""
        return [each.value for each in SourceKind]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command that defines a source of one kind."""
        if cmd_name not in self.list_commands(ctx):
            return None
        from lightkeep.acquisition.options import KINDS

        kind = SourceKind(cmd_name)
        fields = KINDS[kind].model_fields
        params: list[click.Parameter] = [
            click.Argument(["name"]),
            click.Option(["-e", "--experiment"], help="Where the data belong; the only open one otherwise."),
            click.Option(["--host"], default="", help="Only workers on this host run it."),
            *(_option(name, field) for name, field in fields.items()),
        ]
        return Command(
            cmd_name,
            params=params,
            callback=_adder(kind),
            help=_KIND_HELP[kind] + " It does not run before `lightkeep acquire start NAME`.",
            examples=(_EXAMPLES[kind],),
        )


@acquire.group("add", cls=_Kinds, examples=tuple(_EXAMPLES.values()), subcommand_metavar="KIND NAME [OPTIONS]")
def add() -> None:
    """Define a source of an experiment's data."""


def _option(name: str, field: FieldInfo) -> click.Option:
    """Return the command line option of a field."""
    kind = field.annotation
    flag = f"--{name.removesuffix('_s').replace('_', '-')}"
    about: dict[str, Any] = {"help": field.description, "required": field.is_required()}
    if get_origin(kind) is Literal:
        about["type"] = click.Choice(get_args(kind))
    elif get_origin(kind) in (tuple, dict):
        about["multiple"] = True
        about["metavar"] = "NAME=VALUE" if get_origin(kind) is dict else "TEXT"
    elif kind is bool:
        about["is_flag"] = True
    elif kind in (int, float):
        about["type"] = kind
    if not field.is_required() and isinstance(field.default, int | float) and kind is not bool:
        about["help"] = f"{field.description} [{field.default}]"
    return click.Option([flag, name], **about)


def _adder(kind: SourceKind) -> Callable[..., None]:
    def callback(name: str, *, experiment: str | None, host: str, **given: Any) -> None:
        from lightkeep.acquisition.options import KINDS
        from lightkeep.lifecycle.acquisitions import acquire as lifecycle

        session: Session = click.get_current_context().obj
        fields = KINDS[kind].model_fields
        options = {
            key: _value(key, value, fields[key])
            for key, value in given.items()
            if value not in (None, (), "", False)
        }
        with session.opened() as work:
            made = lifecycle.define(
                work.facility,
                name,
                experiment_id=work.experiment(experiment),
                kind=kind,
                options=options,
                principal=work.principal,
                host=host,
            )
        command = f"lightkeep acquire start {made.name}" + (f" -e {made.experiment_id}" if experiment else "")
        emit(session, made, lambda: say(f"{made.id}  {made.name}\nNext: {command}"))

    return callback


def _value(key: str, given: Any, field: FieldInfo) -> Any:
    """Return what a field takes of what was typed."""
    if get_origin(field.annotation) is dict:
        return {name: value for name, _, value in (each.partition("=") for each in given)}
    return os.path.abspath(given) if key in _PATHS else given


def _named(work: Work, asked: str, experiment: str | None) -> Acquisition:
    """Return the acquisition of an id, or of a name in an experiment."""
    if asked.startswith("acq_"):
        return work.view.acquisition(asked)
    place = work.experiment(experiment)
    found = work.view.acquisition_named(place, asked)
    if found is None:
        raise NotFound(
            f"experiment {place} has no acquisition `{asked}`", remedy="`lightkeep acquire list` shows them"
        )
    return found


_which = click.argument("which", metavar="NAME")
_experiment = click.option("-e", "--experiment", help="Its experiment; the only open one otherwise.")


@acquire.command("start", examples=("lightkeep acquire start scans",))
@_which
@_experiment
@click.pass_obj
def start(session: Session, which: str, experiment: str | None) -> None:
    """Have it run: a worker takes it up within seconds."""
    from lightkeep.lifecycle.acquisitions import acquire as lifecycle

    with session.opened() as work:
        done = lifecycle.start(work.facility, _named(work, which, experiment).id, principal=work.principal)
    emit(session, done, lambda: say(f"{state(done.state)}  {done.name}"))


@acquire.command("stop", examples=("lightkeep acquire stop scans",))
@_which
@_experiment
@click.pass_obj
def stop(session: Session, which: str, experiment: str | None) -> None:
    """Have it end: what is there is still taken in, and its datasets are completed."""
    from lightkeep.lifecycle.acquisitions import acquire as lifecycle

    with session.opened() as work:
        done = lifecycle.stop(work.facility, _named(work, which, experiment).id, principal=work.principal)
    emit(session, done, lambda: say(f"{state(done.state)}  {done.name}"))


@acquire.command("list", examples=("lightkeep acquire list --experiment 2026-11-lee-81234",))
@click.option("-e", "--experiment", default="", help="Only those of this experiment.")
@click.pass_obj
def show_all(session: Session, experiment: str) -> None:
    """List them, newest first."""
    with session.opened() as work:
        page = work.view.acquisitions(experiment_id=experiment, limit=1000)

    def human() -> None:
        rows = [
            (
                *(each.name, each.experiment_id, each.kind, state(each.state), f"{each.statistics.files:,}"),
                *(size(each.statistics.bytes), each.statistics.last_error or each.error),
            )
            for each in page.items
        ]
        table(["name!", "experiment", "kind", "state", "files>", "size>", "problem"], rows)
        if not rows:
            say("None yet: lightkeep acquire add folder NAME --path FOLDER")

    emit(session, {"items": page.items, "total": page.total}, human)


@acquire.command("show", examples=("lightkeep acquire show scans",))
@_which
@_experiment
@click.pass_obj
def show(session: Session, which: str, experiment: str | None) -> None:
    """Show one: its state, its options, and how it goes."""
    with session.opened() as work:
        found = _named(work, which, experiment)

    def human() -> None:
        went = found.statistics
        facts(
            {
                "acquisition": f"{found.id}  {found.name}",
                "state": state(found.state) + (f"  {found.error}" if found.error else ""),
                "kind": found.kind,
                **{name: str(value) for name, value in found.options.items()},
                "run by": found.holder,
                "started": ago(found.started_at),
                "frames": f"{went.frames:,}, {count(went.gaps, 'gap')}" if went.frames else "",
                "files": f"{went.files:,}, {size(went.bytes)}; {went.waiting:,} waiting",
                "lag": f"{went.lag_s:.2f} s" if went.files else "",
                "problem": went.last_error,
            }
        )

    emit(session, found, human)


@acquire.command("run", examples=("lightkeep acquire run scans",))
@_which
@_experiment
@click.pass_obj
def run(session: Session, which: str, experiment: str | None) -> None:
    """Run one here, until it is stopped or this is interrupted: for a beamline's own computer, without a worker.

    The process alone writes its data to disk, whatever else is away.
    """
    from lightkeep.lifecycle.acquisitions import acquire as lifecycle
    from lightkeep.lifecycle.acquisitions.acquire_run import run as run_here

    ending = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: ending.set())
    with session.opened() as work:
        found = lifecycle.start(work.facility, _named(work, which, experiment).id, principal=work.principal)
        if not session.as_json:
            say(f"Running {found.name}; Ctrl-C ends it here, `lightkeep acquire stop {found.name}` everywhere")
        run_here(work.facility, found.id, ending=ending)
        ended = work.view.acquisition(found.id)
    emit(session, ended, lambda: say(f"{state(ended.state)}  {ended.name}"))
