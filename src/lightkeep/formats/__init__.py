"""One file per file format: reader, writer or both. Found by the entry points `lightkeep.formats`.

Nothing heavy is imported until a format is asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import cast

from lightkeep.model.datasets import Metadata
from lightkeep.model.errors import NotFound
from lightkeep.model.formats import Format

_GENERIC = "nexus"
"""Asked last, because files of more specific formats are NeXus too."""


@dataclass(frozen=True)
class Inspection:
    """What a look into a file from outside found."""

    format: str
    """Name of its format; empty when no reader knows it."""
    technique: str = ""
    metadata: Metadata = field(default_factory=Metadata)
    arrays: Mapping[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    """Role -> (shape, numpy dtype name)."""


@functools.cache
def _found() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group="lightkeep.formats")}


def names() -> list[str]:
    """Return the names of all formats."""
    return sorted(_found())


def get(name: str) -> Format:
    """Return a format by its name.

    Raises
    ------
    NotFound: no format has that name.
    """
    if name not in _found():
        raise NotFound(f"no format is called {name!r}", remedy=f"use one of: {', '.join(names())}")
    return cast(Format, _found()[name].load())


def detect(path: Path) -> str:
    """Return the name of the format that reads this file, or an empty string.

    It opens the file in this process: files from outside go through `inspect`.
    """
    for name in sorted(names(), key=lambda name: name == _GENERIC):
        found = get(name)
        if found.can_read and found.matches(path):
            return name
    return ""


def inspect(path: Path, *, within: Path | None = None, timeout_s: float = 30.0) -> Inspection:
    """Return what a file from outside holds, read by a process that can be killed.

    Parameters
    ----------
    path: the file.
    within: folder whose files it may lead to (external links, virtual datasets); None: only itself.
    timeout_s: when the reading process is killed.

    Raises
    ------
    SourceError: missing or unreadable.
    BadFile: cut short, damaged, not what its layout promises, too slow to read.
    UnsafeFile: it leads outside, or is built to exhaust the reader.
    """
    from lightkeep.formats import sandbox

    return cast(Inspection, sandbox.call("lightkeep.formats.inspection:look", path, within, timeout_s=timeout_s))
