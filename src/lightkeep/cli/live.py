"""`live`: a technique on a measurement while it is written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lightkeep.cli.app import Command
from lightkeep.cli.compute import Techniques, cancelled_on_interrupt, options_of, parameters
from lightkeep.cli.output import emit, facts, progress, say, size, state
from lightkeep.cli.session import Session

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


class _Live(Techniques):
    """Only the techniques that can follow a measurement."""

    verb = "live"

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return their names."""
        from lightkeep import techniques

        return techniques.live_names()

    def command_of(self, name: str, technique: Any) -> click.Command:
        """Return the command that follows a measurement with one technique."""
        fields: dict[str, FieldInfo] = technique.Params.model_fields

        def callback(file: Path, *, experiment: str | None, name: str, **given: Any) -> None:
            how = {key: given.pop(key) for key in ("frames", "idle_s", "wait_s")}
            session: Session = click.get_current_context().obj
            _follow(
                session, technique_name, file, parameters(fields, given), experiment=experiment, name=name, **how
            )

        technique_name = name
        options: list[click.Parameter] = [
            click.Argument(["file"], type=click.Path(path_type=Path)),
            click.Option(["-e", "--experiment"], help="Where the measurement belongs."),
            click.Option(["--name"], default="", help="Name of the raw dataset; the file's otherwise."),
            click.Option(
                ["--frames"],
                type=click.IntRange(min=2),
                help="How many there will be; known from the metadata, or from the end of the file, otherwise.",
            ),
            click.Option(
                ["--idle", "idle_s"],
                type=click.FloatRange(min=0.1),
                default=5.0,
                show_default=True,
                help="Seconds without a new frame after which the measurement has ended.",
            ),
            click.Option(
                ["--wait", "wait_s"],
                type=click.FloatRange(min=0),
                default=60.0,
                show_default=True,
                help="Seconds to wait for the first frame.",
            ),
            *options_of(fields),
        ]
        return Command(
            name,
            params=options,
            callback=callback,
            help=(technique.__doc__ or name).strip(),
            examples=(f"lightkeep live {name} run_0001.bin --frames 100000",),
        )


@click.group(
    cls=_Live,
    short_help="Compute a measurement while it is written.",
    subcommand_metavar="TECHNIQUE FILE [PARAMETERS]",
    examples=("lightkeep live xpcs run_0001.bin --frames 100000 --qmap rings",),
)
def live() -> None:
    """Follow a file, or a folder in which it will appear, while it is measured.

    The curves are in the portal from the first second, the result within a second of the last frame; then the raw
    data are stored as `lightkeep ingest` does. Killed and called again, it begins at the first frame.
    """


def _follow(
    session: Session,
    technique: str,
    file: Path,
    params: dict[str, Any],
    *,
    experiment: str | None,
    name: str,
    frames: int | None,
    idle_s: float,
    wait_s: float,
) -> None:
    from lightkeep.lifecycle.acquisitions import live as following
    from lightkeep.lifecycle.processing.process import process

    with session.opened() as work:
        run = following.request(
            work.facility,
            file,
            technique,
            params,
            experiment_id=work.experiment(experiment),
            principal=work.principal,
            name=name,
            frames=frames,
            idle_s=idle_s,
            wait_s=wait_s,
        )
        if not session.as_json:
            say(f"Following {file} as {run.id}; Ctrl-C cancels, `lightkeep runs stop {run.id}` ends it early")
        with cancelled_on_interrupt(work, run.id), progress(session, technique) as report:
            result = process(work.facility, run.id, principal=work.principal, report=report)
        ended, raw = work.view.run(run.id), work.view.dataset(run.dataset_id)

    def human() -> None:
        facts(
            {
                "run": ended.id,
                "state": f"{state(ended.state)}  {ended.message}",
                "raw data": f"{raw.id}  {raw.name}  {state(raw.state)}  {size(raw.size)}",
                "result": f"{result.id}  {result.name}",
            }
        )
        say(f"Next: lightkeep get {result.id}")

    emit(session, {"run": ended, "raw": raw, "result": result}, human)
