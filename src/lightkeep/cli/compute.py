"""`run`: a technique on a dataset. Its options are the fields of the technique's `Params`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar, cast

import click

from lightkeep.cli.app import Command, Group
from lightkeep.cli.output import count, emit, facts, progress, say, size, state, table
from lightkeep.cli.session import Session, Work
from lightkeep.model.errors import InvalidInput, NotFound, RunCancelled, RunFailed
from lightkeep.model.runs import Run, RunState

if TYPE_CHECKING:
    from pydantic import TypeAdapter
    from pydantic.fields import FieldInfo

_PERIOD_S = 0.1
_PARTS = ("wait_s", "transfer_s", "compute_s", "total_s")
_SWITCH = ""


class Techniques(Group):
    """One command per installed technique; its module is imported when it is asked for."""

    verb: ClassVar[str] = "run"
    contents = "technique"

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the techniques' names without importing them."""
        from lightkeep import techniques

        return list(techniques.names())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Build the command of one technique."""
        from lightkeep import techniques

        if cmd_name not in self.list_commands(ctx):
            return None
        return self.command_of(cmd_name, techniques.get(cmd_name))

    def command_of(self, name: str, technique: Any) -> click.Command:
        """Return the command of a technique."""
        return command_of(name, technique)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the techniques' names: their help is one `--help` further."""
        with formatter.section("Techniques"):
            formatter.write_text(", ".join(self.list_commands(ctx)))
            formatter.write_paragraph()
            formatter.write_text(f"`lightkeep {self.verb} TECHNIQUE --help` lists the parameters.")


@click.group(
    cls=Techniques,
    short_help="Compute a dataset with a technique.",
    subcommand_metavar="TECHNIQUE DATASET [PARAMETERS]",
    examples=("lightkeep run tomography tooth", "lightkeep run tomography tooth --center 295.5"),
)
def run() -> None:
    """Compute a dataset with a technique, and keep the result as a dataset."""


def command_of(name: str, technique: Any) -> click.Command:
    """Return the command of a technique: one option per parameter, with its help, unit and default."""
    fields: dict[str, FieldInfo] = technique.Params.model_fields

    def callback(
        dataset: str,
        experiment: str | None,
        engine: str,
        no_wait: bool,
        estimate: bool,
        **given: str | bool | None,
    ) -> None:
        params = parameters(fields, given)
        session: Session = click.get_current_context().obj
        if estimate:
            show_estimate(session, name, dataset, params, experiment=experiment)
            return
        start(session, name, dataset, params, experiment=experiment, engine=engine, waits=not no_wait)

    options: list[click.Parameter] = [
        click.Argument(["dataset"]),
        *options_of(fields),
        click.Option(["-e", "--experiment"], help="Where the dataset belongs, when it is given by name."),
        click.Option(["--engine"], default="", help="Where to compute; `auto`: where it ends first."),
        click.Option(["--no-wait"], is_flag=True, help="Only queue the run: a running `lightkeep serve` does it."),
        click.Option(["--estimate"], is_flag=True, help="Only say how long it would take, and where."),
    ]
    summary = (technique.__doc__ or name).strip()
    return Command(
        name, params=options, callback=callback, help=summary, examples=(f"lightkeep run {name} tooth",)
    )


def parameters(fields: Mapping[str, FieldInfo], given: Mapping[str, str | bool | None]) -> dict[str, Any]:
    """Return the values of the options that were given."""
    return {
        key: value if isinstance(value, bool) else parsed(key, fields[key], value)
        for key, value in given.items()
        if value is not None
    }


def options_of(fields: Mapping[str, FieldInfo]) -> list[click.Parameter]:
    """Return one option per parameter of a technique."""
    return [_option(key, field) for key, field in fields.items()]


def _option(key: str, field: FieldInfo) -> click.Option:
    from pydantic_core import PydanticUndefined

    name, metavar = key.replace("_", "-"), _metavar(_adapter(field).json_schema())
    known = field.default not in (None, PydanticUndefined)
    if metavar == _SWITCH:
        default = f" [default: {'yes' if field.default else 'no'}]" if known else ""
        return click.Option(
            [f"--{name}/--no-{name}", key], default=None, help=f"{field.description or ''}{default}"
        )
    default = f" [default: {field.default}]" if known else ""
    return click.Option(
        [f"--{name}", key],
        help=f"{field.description or ''}{default}",
        metavar=metavar,
        required=field.is_required(),
    )


def _adapter(field: FieldInfo) -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(cast("Any", field.annotation))


def _metavar(schema: Mapping[str, Any]) -> str:
    """Return what an option's value looks like, from its JSON schema."""
    kinds = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
    schema = kinds[0] if kinds else schema
    if "enum" in schema:
        return "|".join(map(str, schema["enum"]))
    names = {"number": "NUMBER", "integer": "INTEGER", "boolean": _SWITCH, "array": "A,B,..."}
    return names.get(schema.get("type", ""), "TEXT")


def parsed(key: str, field: FieldInfo, text: str) -> Any:
    """Return a parameter's value from the text of its option.

    Raises
    ------
    InvalidInput: naming the option.
    """
    from pydantic import ValidationError

    candidates: list[Any] = [text]
    if text[:1] in "([" or "," in text:
        candidates.append([part.strip() for part in text.strip("()[] ").split(",")])
    why = ""
    for candidate in candidates:
        try:
            return _adapter(field).validate_python(candidate)
        except ValidationError as error:
            why = error.errors()[0]["msg"]
    option = f"--{key.replace('_', '-')}"
    raise InvalidInput(f"{option} `{text}`: {why}", remedy=field.description or f"correct {option}")


def start(
    session: Session,
    technique: str,
    asked: str,
    params: dict[str, Any],
    *,
    experiment: str | None,
    engine: str,
    waits: bool,
) -> None:
    """Ask for a run, wait for its end unless told otherwise, and print it."""
    from lightkeep.lifecycle.processing import process

    with session.opened() as work:
        found = work.dataset(asked, experiment)
        run_id = work.facility.ids.new("run")
        with cancelled_on_interrupt(work, run_id):
            process.request(
                work.facility,
                found.id,
                technique,
                params,
                principal=work.principal,
                engine=engine,
                run_id=run_id,
            )
            ended = perform(session, work, run_id, waits=waits)
        result = work.view.dataset(ended.result_id) if ended.result_id else None
    answer = {"run": ended, "result": result}

    def human() -> None:
        said = "" if ended.message == "done" else f"  {ended.message}"
        facts({"run": ended.id, "state": f"{state(ended.state)}{said}"})
        if result is not None:
            facts(
                {
                    "result": result.id,
                    "name": result.name,
                    "size": f"{size(result.size)} in {count(result.files, 'file')}",
                }
            )
            show_placement(ended)
            say(f"Next: lightkeep get {result.id}")
        elif not ended.state.is_over:
            say(f"It {ended.message}" if ended.message else "It starts when `lightkeep serve` runs")
            say("`lightkeep runs list` shows it")

    emit(session, answer, human)


def show_estimate(
    session: Session, technique: str, asked: str, params: dict[str, Any], *, experiment: str | None
) -> None:
    """Print when a run would end at each place; ask for none."""
    from lightkeep.lifecycle.processing.foreseen import foresee

    with session.opened() as work:
        dataset_id = work.dataset(asked, experiment).id
        found = foresee(work.facility, dataset_id, technique, params, principal=work.principal)

    def human() -> None:
        _show_places(found)
        say(f"Nothing was queued. There it ends first with: lightkeep run {technique} {asked} --engine auto")

    emit(session, found, human)


def show_placement(run: Run) -> None:
    """Print what each place promised and, once it was computed, what it took."""
    promised, told = run.placement.get("estimates", ()), run.placement.get("truth")
    if promised:
        _show_places(promised, *([(f"{run.engine} took", *_times(told), "measured")] if told else []))


def _show_places(promised: Sequence[Mapping[str, Any]], *further: tuple[str, ...]) -> None:
    rows = [
        (each["place"], *(_times(each) if each["is_possible"] else "-" * len(_PARTS)), each["reason"])
        for each in promised
    ]
    table(["place!", "waits>!", "moves>!", "computes>!", "ends>!", "why"], [*rows, *further])


def _times(told: Mapping[str, Any]) -> list[str]:
    return [f"{told[key]:.1f} s" for key in _PARTS]


def perform(session: Session, work: Work, run_id: str, *, waits: bool = True) -> Run:
    """Give a queued run to the workflow and follow it to its end.

    Raises
    ------
    RunFailed, RunCancelled: how it ended, when it did not end well.
    """
    from lightkeep.lifecycle.processing import awaited
    from lightkeep.workflow import open_workflow

    run = work.view.run(run_id)
    if waits:
        _bring_near(session, work, run)
    with open_workflow(work.facility, work=waits) as orchestrator:
        orchestrator.submit_run(run_id)
        if not waits or awaited.under_way(work.facility, run):
            return work.view.run(run_id)
        with progress(session, run.technique) as report:
            while not (ended := work.view.run(run_id)).state.is_over:
                report(ended.progress, ended.message)
                orchestrator.work()  # should the worker die that was there, this process is the next
                time.sleep(_PERIOD_S)
    if ended.state in (RunState.FAILED, RunState.CANCELLED):
        kind = RunCancelled if ended.state is RunState.CANCELLED else RunFailed
        raise kind(f"run {ended.id}: {ended.message}", remedy=f"start it again: lightkeep runs retry {ended.id}")
    return ended


def _bring_near(session: Session, work: Work, run: Run) -> None:
    """Have here what a run waits for: somebody looks on, and a worker need not be there."""
    from lightkeep.lifecycle.processing import awaited
    from lightkeep.lifecycle.replicas import restore

    if asked := awaited.under_way(work.facility, run):
        with progress(session, "Restoring") as report:
            restore.run_queue(work.facility, restore_ids=[each.id for each in asked], report=report)


@contextmanager
def cancelled_on_interrupt(work: Work, run_id: str) -> Iterator[None]:
    """Cancel the run when Ctrl-C is pressed inside: who stops waiting for a run here does not want it."""
    from lightkeep.lifecycle.processing import process

    try:
        yield
    except KeyboardInterrupt:
        with suppress(NotFound):  # not even asked for yet
            process.cancel(work.facility, run_id, principal=work.principal)
        raise
