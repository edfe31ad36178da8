"""`ingest`: keep measured files."""

from __future__ import annotations

from pathlib import Path

import click

from lightkeep.cli.app import Command
from lightkeep.cli.errors import exit_code, hint_for, print_error
from lightkeep.cli.output import count, emit, plain, progress, say, size
from lightkeep.cli.session import Session
from lightkeep.model.datasets import DatasetKind
from lightkeep.model.errors import (
    BadFile,
    Conflict,
    InvalidInput,
    LightkeepError,
    NotFound,
    SourceError,
    UnsafeFile,
)

_OF_ONE_SOURCE = (BadFile, Conflict, InvalidInput, NotFound, SourceError, UnsafeFile)
"""What is wrong with one source and need not be with the next."""


@click.command(
    cls=Command,
    short_help="Keep measured files, verified and catalogued.",
    examples=(
        "lightkeep ingest tooth.h5",
        "lightkeep ingest --in-place /data/2026-11/scan_0042",
        "lightkeep ingest -- -rf.h5",
    ),
)
@click.argument(
    "sources", nargs=-1, required=True, type=click.Path(readable=False, path_type=Path), metavar="SOURCE..."
)
@click.option("-e", "--experiment", help="Where it belongs; not needed while only one experiment is open.")
@click.option("--name", default="", help="Name of the dataset; the source's own name otherwise.")
@click.option(
    "--kind",
    type=click.Choice(["raw", "calibration"]),
    default="raw",
    show_default=True,
    help="What it is.",
)
@click.option("--technique", default="", help="What it is a measurement of, where the file does not say.")
@click.option("--store", default="", help="Store to copy to; the configured one otherwise.")
@click.option("--in-place", is_flag=True, help="Register the files where they are, without copying them.")
@click.option("--quiet", "quiet_s", type=click.FloatRange(0), help="Seconds that files must have been unchanged.")
@click.pass_obj
def ingest(
    session: Session,
    sources: tuple[Path, ...],
    experiment: str | None,
    name: str,
    kind: str,
    technique: str,
    store: str,
    in_place: bool,
    quiet_s: float | None,
) -> None:
    """Copy files or folders into the store, verified, and catalogue each as one dataset.

    The sources are never changed. Running it again adds only what is new. A source that cannot be kept does not
    keep the others back; the exit code is that of the first one.
    """
    from lightkeep.lifecycle.intake import ingest as lifecycle

    if name and len(sources) > 1:
        raise InvalidInput("one name for several sources", remedy="leave out --name, or take them in one by one")
    answers, failed = [], []
    with session.opened() as work:
        experiment_id = work.experiment(experiment)
        quiet = work.facility.config.ingest.quiet_s if quiet_s is None else quiet_s
        for source in sources:
            try:
                with progress(session, f"Ingesting {source.name}", total_bytes=_bytes(source)) as report:
                    done = lifecycle.ingest(
                        work.facility,
                        source,
                        experiment_id=experiment_id,
                        principal=work.principal,
                        name=name,
                        kind=DatasetKind(kind),
                        store_id=store,
                        technique=technique,
                        in_place=in_place,
                        quiet_s=quiet,
                        report=report,
                    )
            except _OF_ONE_SOURCE as error:
                if len(sources) == 1:
                    raise
                failed.append((source, error))
                if not session.as_json:
                    print_error(error.code, error.message, error.remedy or hint_for(error), as_json=False)
                continue
            answers.append(done)
            if not session.as_json:
                found = done.dataset
                fresh = "already known" if done.was_known else f"{count(done.added, 'file')} added"
                left_out = f", {count(done.skipped, 'name')} recorded but not kept" if done.skipped else ""
                say(f"{found.id}  {found.name}  {size(found.size)}, {fresh}{left_out}")
    shown = {"items": [plain(each) for each in answers], "total": len(answers)}
    if failed:
        shown["failed"] = [_said(source, error) for source, error in failed]
    emit(session, shown, lambda: None)
    if failed:
        raise click.exceptions.Exit(exit_code(failed[0][1]))


def _said(source: Path, error: LightkeepError) -> dict[str, str]:
    hint = error.remedy or hint_for(error)
    return {"source": str(source), "code": error.code, "message": error.message, "hint": hint}


def _bytes(source: Path) -> int:
    """Return what a bar counts to: the size of a file; 0 for a folder, whose size is not known beforehand."""
    try:
        return source.stat().st_size if source.is_file() else 0
    except OSError:
        return 0
