"""`ls` and `find`: what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from lightkeep.cli.app import Command
from lightkeep.cli.output import ago, count, emit, facts, say, size, state, table
from lightkeep.cli.session import Session, Work

if TYPE_CHECKING:
    from lightkeep.catalog import Page
    from lightkeep.model.datasets import Dataset, File

_LIMIT = click.option(
    "--limit", default=50, type=click.IntRange(1, 1000), show_default=True, help="At most so many."
)


@click.command(
    cls=Command, short_help="List datasets, or the files of one.", examples=("lightkeep ls", "lightkeep ls tooth")
)
@click.argument("dataset", required=False)
@click.option("-e", "--experiment", help="Only this experiment.")
@_LIMIT
@click.pass_obj
def ls(session: Session, dataset: str | None, experiment: str | None, limit: int) -> None:
    """List datasets, newest first; with DATASET (an id or a name), show it and its files."""
    with session.opened() as work:
        if dataset is not None:
            _show(session, work, work.dataset(dataset, experiment), limit)
            return
        experiment_id = work.view.experiment(experiment).id if experiment else ""
        page = work.view.datasets(experiment_id=experiment_id, limit=limit)
    emit(session, page, lambda: _list(page, "No dataset yet: lightkeep ingest FILE"))


@click.command(
    cls=Command,
    short_help="Search datasets by words, fields and units.",
    examples=(
        "lightkeep find technique:tomography energy:20..30keV",
        'lightkeep find sample:"gold wire" kind:raw',
    ),
)
@click.argument("words", nargs=-1, required=True, metavar="QUERY...")
@click.option("-e", "--experiment", help="Only this experiment.")
@_LIMIT
@click.pass_obj
def find(session: Session, words: tuple[str, ...], experiment: str | None, limit: int) -> None:
    """Search datasets by words and by FIELD:VALUE, with units and ranges."""
    from lightkeep.catalog import query

    text = " ".join(_requoted(word) for word in words)
    parsed = query.parse(text)
    with session.opened() as work:
        experiment_id = work.view.experiment(experiment).id if experiment else ""
        page = work.view.datasets(parsed, experiment_id=experiment_id, limit=limit)
    emit(session, page, lambda: _list(page, f"Nothing matches {text}"))


def _requoted(word: str) -> str:
    """Give back the quotes that the shell took from `sample:"gold wire"`."""
    head, colon, value = word.partition(":")
    if " " not in word or '"' in word:
        return word
    return f'{head}:"{value}"' if colon else f'"{word}"'


def _list(page: Page[Dataset], nothing: str) -> None:
    if not page.total:
        say(nothing)
        return
    rows = [(d.id, d.name, d.technique or d.format, size(d.size), ago(d.created_at)) for d in page.items]
    table(["dataset!", "name", "technique!", "size>!", "made>!"], rows)
    if page.total > len(page.items):
        say(f"{len(page.items)} of {page.total}; --limit shows more")


def _show(session: Session, work: Work, found: Dataset, limit: int) -> None:
    page: Page[File] = work.view.files(found.id, limit=limit)
    children = work.view.children(found.id)
    skipped = work.view.skipped(found.id)
    answer = {"dataset": found, "files": page.items, "total": page.total, "results": children, "skipped": skipped}
    metadata = {name: str(value) for name, value in {**found.metadata.texts, **found.metadata.quantities}.items()}

    def human() -> None:
        facts(
            {
                "dataset": found.id,
                "name": found.name,
                "state": state(found.state),
                "experiment": found.experiment_id,
                "kind": found.kind,
                "technique": found.technique,
                "format": found.format,
                "made": ago(found.created_at),
                "made from": ", ".join(found.parents),
                "by run": found.run_id,
                **metadata,
            }
        )
        for child in children:
            say(f"result  {child.id}  {child.name}")
        say()
        table(["size>!", "file!", "sha256"], [(size(f.size), f.path, f.sha256[:16]) for f in page.items])
        if page.total > len(page.items):
            say(f"{len(page.items)} of {page.total} files; --limit shows more")
        if skipped:
            say(f"{count(len(skipped), 'name')} recorded but not kept (--json lists them)")

    emit(session, answer, human)
