"""What commands print: JSON, tables, facts and progress."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from enum import Enum
from os import PathLike, fspath
from textwrap import fill
from typing import Any

import click

from lightkeep.cli.session import Session
from lightkeep.model.techniques import Report

# One word, one shape, one colour, as in the portal.
STATES = {
    "live": ("●", "magenta"), "receiving": ("●", "magenta"), "open": ("●", "green"), "planned": ("○", "dim"),
    "queued": ("○", "dim"), "running": ("▶", "blue"), "done": ("✓", "green"), "complete": ("✓", "green"),
    "failed": ("✕", "red"), "cancelled": ("-", "dim"), "stopped_early": ("■", "yellow"), "closed": ("■", "dim"),
    "retained": ("■", "green"), "expiring": ("▲", "yellow"), "expired": ("-", "dim"),
    "frozen": ("○", "yellow"), "approved": ("●", "green"), "skipped": ("■", "green"), "pending": ("▶", "blue"),
    "trashed": ("▲", "yellow"), "undone": ("✓", "green"), "destroyed": ("-", "dim"), "due": ("○", "dim"),
    "sent": ("✓", "green"), "acknowledged": ("✓", "green"), "bounced": ("✕", "red"), "void": ("-", "dim"),
    "withdrawn": ("-", "dim"), "error": ("✕", "red"), "warning": ("▲", "yellow"), "ok": ("✓", "green"),
    "defined": ("○", "dim"), "stopped": ("■", "dim"),
}  # fmt: skip


def plain(value: Any) -> Any:
    """Return the JSON-safe form of a noun: the names of its fields are the keys."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(inner) for inner in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    return fspath(value) if isinstance(value, PathLike) else value


def emit(session: Session, data: Any, human: Callable[[], None]) -> None:
    """Print a command's answer: the data as one JSON object, or what `human` prints."""
    if session.as_json:
        click.echo(json.dumps(plain(data), indent=2))
    else:
        human()


def say(text: str = "") -> None:
    """Print one line for a person."""
    click.echo(text)


def folded(text: str, *, hanging: int = 2) -> None:
    """Print a sentence for a person in the width of the terminal, or in 80; its further lines are set in."""
    width = max(shutil.get_terminal_size().columns, 40)
    inner = " " * hanging
    say(fill(printable(text), width, subsequent_indent=inner, break_long_words=False, break_on_hyphens=False))


def printable(text: str) -> str:
    """Return text with control characters and odd bytes escaped: a file's name cannot drive a terminal."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print rows below their columns in the width of the terminal, or in 80.

    A column's name ending in `>` puts it to the right, one ending in `!` is never shortened. Where there
    is too little room the widest of the others are shortened; when even that does not help, lines are longer: a
    number that was cut off would be another number.
    """
    if not rows:
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    texts = [[printable(str(cell)) for cell in row] for row in rows]
    console = Console(highlight=False)
    widths = _widths(columns, texts, room=console.width)
    grid = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for name, width in zip(columns, widths, strict=True):
        right = "right" if ">" in name else "left"
        grid.add_column(name.rstrip(">!"), justify=right, no_wrap=True, overflow="ellipsis", width=width)  # type: ignore[arg-type]
    for cells in texts:
        grid.add_row(*[Text(cell, style=_style(cell)) for cell in cells])
    console.width = max(console.width, sum(widths) + 2 * len(widths))
    with console.capture() as text:
        console.print(grid)
    say("\n".join(line.rstrip() for line in text.get().splitlines()))


def _widths(columns: Sequence[str], texts: Sequence[Sequence[str]], *, room: int) -> list[int]:
    """Return the width of each column: all it needs, or less where it may be shortened and has to be."""
    from rich.cells import cell_len

    labels = [name.rstrip(">!") for name in columns]
    full = [max(map(cell_len, cells)) for cells in zip(labels, *texts, strict=True)]
    fixed = ["!" in name or ">" in name or label == "state" for name, label in zip(columns, labels, strict=True)]
    least = [need if keeps else min(need, 7) for need, keeps in zip(full, fixed, strict=True)]
    widths = list(full)
    while sum(widths) + 2 * (len(widths) - 1) > room and widths != least:
        widest = max(range(len(widths)), key=lambda each: (widths[each] > least[each], widths[each]))
        widths[widest] -= 1
    return widths


def state(name: str) -> str:
    """Return a state's shape and word."""
    return f"{STATES.get(name, ('·', ''))[0]} {name.replace('_', ' ')}"


def _style(cell: str) -> str:
    shape, _, word = cell.partition(" ")
    found = STATES.get(word.replace(" ", "_"))
    return found[1] if found and found[0] == shape else ""


def facts(rows: Mapping[str, Any]) -> None:
    """Print names and values, one per line; those without a value are left out."""
    shown = {name: str(value) for name, value in rows.items() if value not in ("", None)}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        say(f"{name:<{width}}  {printable(value)}")


def size(count: float) -> str:
    """Return bytes with an SI prefix and three digits.

    >>> size(40_700_000), size(999), size(0)
    ('40.7 MB', '999 B', '0 B')
    """
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        count /= 1000
        if count < 999.5 or unit == "PB":
            break
    return f"{count:#.3g}".rstrip(".") + f" {unit}"


def count(number: int, noun: str) -> str:
    """Return a number with its noun.

    >>> count(1, "file"), count(0, "file")
    ('1 file', '0 files')
    """
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def ago(at: datetime | None) -> str:
    """Return how long ago something was, in one unit."""
    if at is None:
        return ""
    seconds = (datetime.now(UTC) - at).total_seconds()
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit} ago"
    return "just now"


@contextmanager
def progress(session: Session, label: str, *, total_bytes: int = 0) -> Iterator[Report]:
    """Yield a report that draws a bar with rate and remaining time; silent when piped or when JSON is wanted."""
    if session.as_json or not sys.stderr.isatty():
        yield lambda _fraction, _message: None
        return
    from rich import progress as bars
    from rich.console import Console

    rate = (
        (bars.DownloadColumn(), bars.TransferSpeedColumn())
        if total_bytes
        else (bars.TaskProgressColumn(show_speed=True),)
    )
    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(24), *rate, bars.TimeRemainingColumn())
    total = total_bytes or 100
    with bars.Progress(
        *columns, bars.TextColumn("[dim]{task.fields[note]}"), console=Console(stderr=True), transient=True
    ) as bar:
        task = bar.add_task(label, total=total, note="")
        yield lambda fraction, message: bar.update(
            task, completed=fraction * total, note="" if total_bytes else message
        )
