"""Documents of bluesky runs: kept as they come, and read for the files that the detectors wrote.

    from lightkeep.acquisition.documents import Documents
    RE.subscribe(Documents("/data/2026-11/documents"))

Nothing of Lightkeep has to run for that: the callback writes `<uid>.jsonl`, a line for each document, and
`<uid>.jsonl.done` when the run has stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TextIO
from urllib.parse import unquote, urlsplit

from lightkeep.acquisition.spool import finish
from lightkeep.model.errors import BadFile

_KEPT: Final[tuple[str, ...]] = (
    "plan_name",
    "scan_id",
    "sample",
    "sample_name",
    "motors",
    "detectors",
    "beamline_id",
)


class Documents:
    """A callback for a RunEngine. One object may see many runs, one inside the other as well.

    Parameters
    ----------
    folder: where the documents go; made when absent. Beside the detectors' files is a good place.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        self._folder.mkdir(parents=True, exist_ok=True)
        self._open: dict[str, TextIO] = {}
        self._run_of: dict[str, str] = {}

    def __call__(self, name: str, document: Mapping[str, Any]) -> None:
        """Write one document down."""
        run = self._run(name, document)
        if name == "start":
            self._open[run] = (self._folder / f"{run}.jsonl").open("x", encoding="utf-8")
        file = self._open.get(run)
        if file is None:
            return
        json.dump([name, document], file, default=_plain)
        file.write("\n")
        file.flush()
        if name == "stop":
            self._open.pop(run).close()
            finish(self._folder / f"{run}.jsonl")
            self._run_of = {key: each for key, each in self._run_of.items() if each != run}

    def _run(self, name: str, document: Mapping[str, Any]) -> str:
        """Return the run that a document belongs to; descriptors and resources are remembered for what follows."""
        if name == "start":
            return str(document["uid"])
        if "run_start" in document:
            run = str(document["run_start"])
            self._run_of[str(document.get("uid", ""))] = run
            return run
        for key in ("descriptor", "resource", "stream_resource"):
            if key in document:
                return self._run_of.get(str(document[key]), "")
        return ""


@dataclass(frozen=True)
class BlueskyRun:
    """What the documents of one run say."""

    uid: str
    name: str
    """For a dataset: the plan's name and the scan's number."""
    files: tuple[Path, ...]
    """What the detectors wrote, in the order of the documents."""
    exit_status: str = ""
    """`success`, `abort` or `fail`; empty: it has not stopped."""
    reason: str = ""
    """Why it ended as it did, where somebody said so."""
    texts: Mapping[str, str] = field(default_factory=dict)


def read(path: Path) -> BlueskyRun:
    """Read the documents of a run. BadFile when they are none."""
    start: dict[str, Any] = {}
    files: dict[Path, None] = {}
    status = reason = ""
    try:
        for line in path.read_text("utf-8").splitlines():
            name, document = json.loads(line)
            if name == "start":
                start = document
            elif name == "stop":
                status, reason = (str(document.get(key) or "") for key in ("exit_status", "reason"))
            elif (found := _file_of(name, document)) is not None:
                files.setdefault(found)
        uid = str(start["uid"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFile(
            f"{path}: not the documents of a run: {error!r}", remedy="write them with `Documents`"
        ) from error
    texts = {key: str(start[key]) for key in _KEPT if key in start}
    number = start.get("scan_id", uid[:8])
    return BlueskyRun(uid, f"{start.get('plan_name', 'run')}_{number}", tuple(files), status, reason, texts)


def _file_of(name: str, document: Mapping[str, Any]) -> Path | None:
    """Return the file that a (stream) resource names."""
    if name == "stream_resource" and "uri" in document:
        parts = urlsplit(str(document["uri"]))
        return Path(unquote(parts.path)) if parts.scheme == "file" else None
    if name in ("resource", "stream_resource") and "resource_path" in document:
        return Path(str(document.get("root", "/"))) / str(document["resource_path"])
    return None


def _plain(value: Any) -> Any:
    """Return numpy's values as JSON has them."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
