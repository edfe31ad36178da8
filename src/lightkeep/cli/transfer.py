"""`get` and `verify`: take data out, and prove that they are still whole."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from lightkeep.cli.app import Command
from lightkeep.cli.output import count, emit, printable, progress, say, size
from lightkeep.cli.session import Session
from lightkeep.model.errors import Corrupt, StorageError, StoreUnavailable

if TYPE_CHECKING:
    from lightkeep.lifecycle.verify import VerifyReport


@click.command(
    cls=Command,
    short_help="Copy a dataset's files out.",
    examples=("lightkeep get tooth", "lightkeep get tooth tooth.h5 --to /scratch/me"),
)
@click.argument("dataset")
@click.argument("paths", nargs=-1, metavar="[FILE]...")
@click.option("-e", "--experiment", help="Where the dataset belongs, when it is given by name.")
@click.option(
    "--to",
    "folder",
    type=click.Path(readable=False, path_type=Path),
    help="Folder to copy into; a new one otherwise.",
)
@click.pass_obj
def get(
    session: Session, dataset: str, paths: tuple[str, ...], experiment: str | None, folder: Path | None
) -> None:
    """Copy a dataset's files out, verified by their checksums, into a folder with its name.

    An interrupted copy goes on where it stopped. A file that is there with other content is never overwritten.
    """
    from lightkeep.lifecycle import export

    with session.opened() as work:
        found = work.dataset(dataset, experiment)
        with progress(session, f"Getting {found.name}", total_bytes=found.size) as report:
            written = export.get(
                work.facility,
                found.id,
                folder or Path(found.name),
                principal=work.principal,
                paths=paths or None,
                report=report,
            )
    emit(
        session,
        {"dataset": found.id, "files": written},
        lambda: say("\n".join(printable(str(each)) for each in written)),
    )


@click.command(
    cls=Command, short_help="Read datasets back and compare checksums.", examples=("lightkeep verify tooth",)
)
@click.argument("datasets", nargs=-1, required=True, metavar="DATASET...")
@click.option("-e", "--experiment", help="Where the datasets belong, when they are given by name.")
@click.pass_obj
def verify(session: Session, datasets: tuple[str, ...], experiment: str | None) -> None:
    """Read every byte of datasets back from the store and compare checksums."""
    from lightkeep.lifecycle import verify as lifecycle

    answers = []
    with session.opened() as work:
        for asked in datasets:
            found = work.dataset(asked, experiment)
            with progress(session, f"Verifying {found.name}", total_bytes=found.size) as report:
                done = lifecycle.verify(work.facility, found.id, principal=work.principal, report=report)
            answers.append({"dataset": found.id, "name": found.name, "report": done})
            check_report(found.name, done)
            if not session.as_json:
                whole = f"{count(done.checked, 'file')} read back, whole"
                say(f"{found.id}  {found.name}  {whole} ({size(found.size)})")
    emit(session, {"items": answers, "total": len(answers)}, lambda: None)


def check_report(name: str, done: VerifyReport) -> None:
    """Raise what a verification found wrong: Corrupt, StorageError or StoreUnavailable."""
    if done.corrupt:
        raise Corrupt(
            f"dataset {name}: {len(done.corrupt)} files are corrupt: {done.corrupt[0]}",
            remedy="do not delete the source; restore the file from another copy",
        )
    if done.suspect:
        raise StorageError(
            f"dataset {name}: {len(done.suspect)} files could not be read this time: {done.suspect[0]}",
            remedy="look at the disk, then verify again",
        )
    if done.unavailable:
        raise StoreUnavailable(
            f"dataset {name}: store {done.unavailable[0]} cannot be reached", remedy="mount it, then verify again"
        )
