"""`get` and `verify`: take data out, and prove that they are still whole."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from lightkeep.cli.app import Command
from lightkeep.cli.output import ago, count, emit, printable, progress, say, size, table
from lightkeep.cli.session import Session
from lightkeep.model.errors import Corrupt, InvalidInput, StorageError, StoreUnavailable

if TYPE_CHECKING:
    from lightkeep.lifecycle.replicas.verify import VerifyReport


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
    from lightkeep.lifecycle.replicas import export

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
    cls=Command,
    short_help="Read datasets back and compare checksums.",
    examples=(
        "lightkeep verify tooth",
        "lightkeep verify tooth --repair",
        "lightkeep verify --due --limit-rate 200MB/s",
    ),
)
@click.argument("datasets", nargs=-1, metavar="[DATASET]...")
@click.option("-e", "--experiment", help="Where the datasets belong, when they are given by name.")
@click.option("--repair", is_flag=True, help="Replace what is corrupt by new copies of good ones.")
@click.option("--due", is_flag=True, help="Read back what waits longest, on every store, and repair it.")
@click.option("--limit-rate", "rate", help="With --due: bytes per second and store, e.g. 200MB/s.")
@click.pass_obj
def verify(
    session: Session, datasets: tuple[str, ...], experiment: str | None, repair: bool, due: bool, rate: str | None
) -> None:
    """Read every byte of datasets back from the stores and compare checksums."""
    from lightkeep.lifecycle.replicas import verify as lifecycle

    if due:
        _verify_due(session, rate)
        return
    if not datasets:
        raise InvalidInput("which dataset?", remedy="name one, or say --due")
    answers = []
    with session.opened() as work:
        for asked in datasets:
            found = work.dataset(asked, experiment)
            with progress(session, f"Verifying {found.name}", total_bytes=found.size) as report:
                done = lifecycle.verify(
                    work.facility, found.id, principal=work.principal, repair=repair, report=report
                )
            answers.append({"dataset": found.id, "name": found.name, "report": done})
            if repair and done.repaired and not session.as_json:
                say(f"{found.id}  {found.name}  {count(len(done.repaired), 'file')} repaired")
            check_report(found.name, done)
            if not session.as_json:
                whole = f"{count(done.checked, 'file')} read back, whole"
                say(f"{found.id}  {found.name}  {whole} ({size(found.size)})")
    emit(session, {"items": answers, "total": len(answers)}, lambda: None)


def _verify_due(session: Session, rate: str | None) -> None:
    """Scrub until nothing is due, and say how old the proofs are."""
    from lightkeep.lifecycle.replicas import scrub

    with session.opened() as work:
        done = scrub.scrub(
            work.facility,
            principal=work.principal,
            rate=None if rate is None else parse_rate(rate),
            wait=time.sleep,
        )
        fresh = scrub.freshness(work.facility)
    rows = [
        (each, str(f.replicas), f"{f.overdue_fraction:.1%}", str(f.corrupt), ago(f.oldest_at))
        for each, f in fresh.items()
    ]

    def show() -> None:
        say(f"{count(done.checked, 'replica')} read back, whole ({size(done.size)})")
        if done.repaired:
            say(f"{count(len(done.repaired), 'file')} repaired")
        table(["store!", "replicas>", "overdue>", "corrupt>", "oldest proof"], rows)

    emit(session, {"report": done, "stores": fresh}, show)
    for store_id, why in done.stopped.items():
        raise StoreUnavailable(f"store {store_id}: {why}", remedy="mount it, then verify again")
    if done.disputed:
        raise disputed(done.disputed[0])
    if done.failed:
        raise Corrupt(
            f"{len(done.failed)} files are corrupt and have no good copy: {done.failed[0]}",
            remedy="do not delete the source; ingest it again",
        )


def parse_rate(text: str) -> float:
    """Return bytes per second.

    >>> parse_rate("200MB/s"), parse_rate("1.5 GiB/s"), parse_rate("0")
    (200000000.0, 1610612736.0, 0.0)
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kMGT]?)(i?)B?(?:/s)?", text.strip())
    if not found:
        raise InvalidInput(f"not a rate: {text!r}", remedy="write bytes per second, such as 200MB/s")
    step = 1024.0 if found[3] else 1000.0
    return float(found[1]) * step ** int(" kMGT".index(found[2] or " "))


def disputed(path: str) -> Corrupt:
    """Return what to say of a file whose copies agree with each other and not with the catalogue."""
    return Corrupt(
        f"{path}: copies on several stores agree with each other, not with the catalogue; nothing was repaired",
        remedy="compare the catalogue with its records: lightkeep doctor --full",
    )


def check_report(name: str, done: VerifyReport) -> None:
    """Raise what a verification found wrong: Corrupt, StorageError or StoreUnavailable."""
    if done.disputed:
        raise disputed(done.disputed[0])
    if left := [path for path in done.corrupt if path not in done.repaired]:
        raise Corrupt(
            f"dataset {name}: {len(left)} files are corrupt: {left[0]}",
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
