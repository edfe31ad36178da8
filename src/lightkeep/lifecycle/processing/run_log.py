"""What the tasks of a run have to say, kept for as long as the run's record.

    <scratch of the run>/log/<task>.jsonl     while it goes on; each task appends to its own
    <root>/logs/<run id>.jsonl                all of them by their time, once its scratch folder is cleared

A line is one JSON object: at (ISO 8601), task, level, message. A task that ended says from when to when it ran and
where. Whoever may process the data may read it: tracebacks name folders of this machine.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lightkeep import telemetry
from lightkeep.model.people import Principal, Verb

if TYPE_CHECKING:
    from lightkeep.facility import Facility

_MOST: Final = 20_000
"""Characters of one message; the end of a longer one counts."""


@dataclass(frozen=True, slots=True)
class LogLine:
    """One thing that was said."""

    at: str
    """ISO 8601, UTC."""
    task: str
    """`run`, `preflight`, `piece-00003`, `result` or `command`."""
    level: str
    message: str


@contextmanager
def task(folder: Path, name: str) -> Iterator[None]:
    """Write down what this thread logs meanwhile, and how the task ended.

    Parameters
    ----------
    folder: the run's scratch folder.
    """
    began, handler = time.time(), _Handler(folder, name)
    loggers = [logging.getLogger(), logging.getLogger("lightkeep")]
    for each in loggers:
        each.addHandler(handler)
    try:
        yield
    except Exception as error:
        say(folder, name, "error", f"{type(error).__name__}: {error}")
        raise
    else:
        where = {"host": socket.gethostname(), "process": os.getpid()}
        ended = time.time()
        text = f"done in {ended - began:.2f} s on {where['host']}, process {where['process']}"
        say(folder, name, "info", text, began=began, ended=ended, **where)
    finally:
        for each in loggers:
            each.removeHandler(handler)


def say(folder: Path, name: str, level: str, message: str, **about: Any) -> None:
    """Append a line. A log that cannot be written stops no work."""
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = {"at": now, "task": name, "level": level, "message": message[-_MOST:], **about}
    with suppress(OSError):
        (folder / "log").mkdir(parents=True, exist_ok=True)
        with (folder / "log" / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, ensure_ascii=True) + "\n")


class _Handler(logging.Handler):
    """Takes what one thread logs."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__()
        self._folder = folder
        self._task = name
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            say(self._folder, self._task, record.levelname.lower(), record.getMessage())


def keep(facility: Facility, run_id: str, folder: Path) -> None:
    """Keep what was said in a scratch folder that is about to be cleared. Again: no change."""
    new = list(_lines_in(folder))
    if not new:
        return
    path = _kept(facility, run_id)
    lines = dict.fromkeys([*_lines_of(path), *new])
    with suppress(OSError):
        path.parent.mkdir(mode=0o700, exist_ok=True)
        part = path.with_suffix(".part")
        part.write_text("".join(f"{line}\n" for line in sorted(lines, key=_time)), encoding="utf-8")
        part.rename(path)


def trace(folder: Path) -> None:
    """Make the tasks that ended in a run's scratch folder spans of the present trace."""
    for line in _lines_in(folder):
        about = json.loads(line)
        if "began" in about and str(about["task"]).startswith("piece-"):
            where = {"host": about["host"], "process": about["process"]}
            telemetry.past(about["task"], about["began"], about["ended"], **where)


def read(facility: Facility, run_id: str, *, principal: Principal) -> list[LogLine]:
    """Return what was said so far, in the order of time.

    Raises
    ------
    NotFound, Forbidden, SignInRequired: the principal may not see or not process the run.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.PROCESS, run_id=run_id)
    lines = dict.fromkeys(_lines_of(_kept(facility, view.run(run_id).id)))
    for folder in folders(facility, run_id):
        lines |= dict.fromkeys(_lines_in(folder))
    parsed: list[Mapping[str, str]] = [json.loads(line) for line in sorted(lines, key=_time)]
    return [LogLine(each["at"], each["task"], each["level"], each["message"]) for each in parsed]


def folders(facility: Facility, run_id: str) -> list[Path]:
    """Return the scratch folders of a run: one, and another for each time that it was taken over elsewhere."""
    root = facility.scratch / "runs"
    names = os.listdir(root) if root.is_dir() else []
    return [root / name for name in sorted(names) if name.partition(".")[0] == run_id]


def _kept(facility: Facility, run_id: str) -> Path:
    return facility.config.root / "logs" / f"{run_id}.jsonl"


def _lines_in(folder: Path) -> Iterator[str]:
    for path in sorted((folder / "log").glob("*.jsonl")):
        yield from _lines_of(path)


def _lines_of(path: Path) -> list[str]:
    """Return the whole lines of a file: the last one may be half written."""
    with suppress(FileNotFoundError):
        return [line for line in path.read_text("utf-8").splitlines(keepends=False) if line.endswith("}")]
    return []


def _time(line: str) -> str:
    return str(json.loads(line)["at"])
