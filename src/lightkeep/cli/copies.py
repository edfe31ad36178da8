"""`replicate`, `archive` and `restore`: where else a dataset's bytes are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from lightkeep.cli.app import Command
from lightkeep.cli.output import ago, count, emit, plain, progress, say, size, state, table
from lightkeep.cli.session import Session, Work
from lightkeep.model.errors import InvalidInput, NotFound, StorageError

if TYPE_CHECKING:
    from lightkeep.model.retention import Restore


@click.command(
    cls=Command,
    short_help="Put a verified copy on another store.",
    examples=("lightkeep replicate tooth", "lightkeep replicate tooth --to archive"),
)
@click.argument("datasets", nargs=-1, required=True, metavar="DATASET...")
@click.option("-e", "--experiment", help="Where the datasets belong, when they are given by name.")
@click.option("--to", "store", default="", help="Store that gets the copy; one that fails apart otherwise.")
@click.pass_obj
def replicate(session: Session, datasets: tuple[str, ...], experiment: str | None, store: str) -> None:
    """Put a copy of every file of datasets on another store, hashed on the way and read back."""
    from lightkeep.lifecycle.replicas import replicate as lifecycle

    answers = []
    failed = ""
    with session.opened() as work:
        for asked in datasets:
            found = work.dataset(asked, experiment)
            with progress(session, f"Replicating {found.name}", total_bytes=found.size) as report:
                done = lifecycle.replicate(
                    work.facility, found.id, principal=work.principal, store_id=store, report=report
                )
            answers.append({"dataset": found.id, "name": found.name, "report": done})
            failed = failed or (f"{found.name}: {done.failed[0]}" if done.failed else "")
            if not session.as_json:
                known = f", {count(done.known, 'file')} there already" if done.known else ""
                say(f"{found.id}  {found.name}  {count(done.copied, 'file')} on {done.store_id}{known}")
    emit(session, {"items": answers, "total": len(answers)}, lambda: None)
    if failed:
        raise StorageError(
            f"{failed} has no copy that can be read whole", remedy="run `lightkeep verify` on the dataset"
        )


@click.command(
    cls=Command,
    short_help="Pack an experiment into archive units.",
    examples=("lightkeep archive 2026-11-lee-81234 --to tape", "lightkeep archive --dataset tooth --to tape"),
)
@click.argument("experiment", required=False)
@click.option("--dataset", help="Only this dataset.")
@click.option("--to", "store", required=True, help="Store that gets the units.")
@click.pass_obj
def archive(session: Session, experiment: str | None, dataset: str | None, store: str) -> None:
    """Pack the complete datasets of EXPERIMENT into archive units on a store.

    Only what the store lacks is packed. A unit is one tar with checksums, written once and read back.
    """
    from lightkeep.lifecycle.replicas import archive as lifecycle

    with session.opened() as work:
        what = work.dataset(dataset, experiment) if dataset else work.view.experiment(work.experiment(experiment))
        with progress(session, f"Archiving to {store}", total_bytes=what.size) as report:
            done = lifecycle.archive(
                work.facility,
                principal=work.principal,
                store_id=store,
                dataset_id=what.id if dataset else "",
                experiment_id="" if dataset else what.id,
                report=report,
            )
    answer = {
        "units": done.units,
        "files": done.files,
        "size": done.size,
        "known": done.known,
        "failed": done.failed,
    }
    emit(session, answer, lambda: _show_units(done))
    for path, why in done.failed.items():
        raise StorageError(f"{path} is in no unit: {why}", remedy="run `lightkeep verify` on its dataset")


def _show_units(done: Any) -> None:
    if not done.units:
        say(f"Nothing to do: all {count(done.known, 'file')} are there already")
        return
    rows = [(u.id, str(u.members), size(u.content_size), size(u.size)) for u in done.units]
    table(["unit!", "files>", "content>!", "on the store>!"], rows)


@click.command(
    cls=Command,
    short_help="Bring archived data near again.",
    examples=(
        "lightkeep restore tooth",
        "lightkeep restore tooth tooth.h5 --days 14",
        "lightkeep restore --experiment 2026-11-lee-81234",
        "lightkeep restore --list",
    ),
)
@click.argument("dataset", required=False)
@click.argument("paths", nargs=-1, metavar="[FILE]...")
@click.option("-e", "--experiment", help="Without DATASET: all of it; else where the dataset belongs.")
@click.option("--to", "store", default="", help="Store that gets the files; that of new datasets otherwise.")
@click.option("--days", type=int, help="How long they stay; 30 when not said otherwise.")
@click.option(
    "--queue", "is_queued", is_flag=True, help="Only ask: `lightkeep serve` brings it, and sends a mail."
)
@click.option("--list", "is_list", is_flag=True, help="Show what was asked for.")
@click.pass_obj
def restore(
    session: Session,
    dataset: str | None,
    paths: tuple[str, ...],
    experiment: str | None,
    store: str,
    days: int | None,
    is_queued: bool,
    is_list: bool,
) -> None:
    """Bring DATASET, some of its files, or all of an experiment back from the archive, for a while."""
    from lightkeep.lifecycle.replicas import restore as lifecycle

    with session.opened() as work:
        if is_list:
            _show(session, work, work.view.restores(limit=1000).items)
            return
        if not dataset and not experiment:
            raise InvalidInput("what shall come back?", remedy="name a dataset, or --experiment")
        asked = lifecycle.request(
            work.facility,
            principal=work.principal,
            dataset_id=work.dataset(dataset, experiment).id if dataset else "",
            experiment_id="" if dataset else work.experiment(experiment),
            paths=paths,
            store_id=store,
            days=days,
        )
        ids = [each.id for each in asked]
        if not is_queued:
            with progress(session, "Restoring") as report:
                lifecycle.run_queue(work.facility, restore_ids=ids, report=report)
        done = [work.view.restore(each) for each in ids]
        _show(session, work, done)
    for each in done:
        if each.error:
            raise StorageError(f"not all came back: {each.error}", remedy="run `lightkeep verify` on the dataset")


def _show(session: Session, work: Work, restores: list[Restore]) -> None:
    rows = []
    for each in restores:
        name = _name(work, each.dataset_id)
        rows.append(
            (
                each.id,
                name,
                state(each.state),
                str(each.files_done),
                f"{each.cache_until:%Y-%m-%d}",
                ago(each.created_at),
            )
        )

    def human() -> None:
        table(["restore!", "dataset", "state", "files>", "until!", "asked"], rows)
        if not rows:
            say("Nothing was asked for: lightkeep restore DATASET")

    emit(session, {"items": [plain(each) for each in restores], "total": len(restores)}, human)


def _name(work: Work, dataset_id: str) -> str:
    try:
        return work.view.dataset(dataset_id).name
    except NotFound:
        return dataset_id
