"""What ingest has taken already: how a source file looked when it was read."""

from __future__ import annotations

from typing import NamedTuple


class SourceKey(NamedTuple):
    """A source file as it was when its content was taken. Equal keys mean: nothing to do."""

    dataset_id: str
    root: str
    """The folder (or file) that was ingested, absolute, as `os.fsdecode` gives it."""
    path: str
    """Below root, with `/`; as `os.fsdecode` gives it."""
    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    file_id: str
    """The entry in the dataset's manifest."""
