"""What a group of files adds to a dataset's manifest: plain tuples, because this runs for every file ever kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from lightkeep.catalog import schema
from lightkeep.catalog.text import encode_path, shown_path
from lightkeep.model.datasets import File
from lightkeep.model.errors import InvalidInput
from lightkeep.model.stores import Replica

FILE_COLUMNS = tuple(schema.file.c.keys())
REPLICA_COLUMNS = tuple(schema.replica.c.keys())


@dataclass(frozen=True, slots=True)
class Group:
    """The difference that a group makes."""

    files: list[File]
    """In the order given, as the catalogue will have them."""
    file_rows: list[tuple[Any, ...]]
    replica_rows: list[tuple[Any, ...]]
    """Those of files that are new, and those of files that were there, which may be known."""
    revisited: list[str]
    """Ids of files that were there."""
    more_files: int
    """Paths that were not in the manifest."""
    more_bytes: int
    """Change of the bytes in the manifest."""


def sort_group(
    dataset_id: str,
    pairs: Sequence[tuple[File, Replica]],
    *,
    known: Sequence[tuple[bytes, bytes, str, int, int]],
    event_seq: int,
    now: datetime,
) -> Group:
    """Tell new files from known ones and give each new content at a known path its version.

    Parameters
    ----------
    known: (path, sha256, id, version, size) of the manifest at these paths.
    event_seq: number of the event that will register the group.

    Raises
    ------
    InvalidInput: a file belongs to another dataset, a hash is not SHA-256, or a replica is of another file.
    """
    by_content = {(path, sha256): (id_, version) for path, sha256, id_, version, _ in known}
    newest: dict[bytes, tuple[int, int]] = {}
    for path, _, _, version, size in known:
        newest[path] = max(newest.get(path, (0, 0)), (version, size))
    before = (len(newest), sum(size for _, size in newest.values()))
    created_at = schema.to_microseconds(now)
    files: list[File] = []
    file_rows: list[tuple[Any, ...]] = []
    replica_rows: list[tuple[Any, ...]] = []
    revisited: list[str] = []
    for file, replica in pairs:
        path, sha256 = encode_path(file.path), _content(file, replica, dataset_id)
        old = by_content.get((path, sha256))
        if old is None:
            version = newest.get(path, (0, 0))[0] + 1
            if version != file.version:
                file = replace(file, version=version)  # noqa: PLW2901
            newest[path] = (version, file.size)
            by_content[path, sha256] = (file.id, version)
            shown = shown_path(file.path)
            file_rows.append(
                (file.id, dataset_id, path, shown, file.size, sha256, file.mtime_ns, file.mode, version, event_seq)
            )
        else:
            revisited.append(old[0])
            file = replace(file, id=old[0], version=old[1])  # noqa: PLW2901
        files.append(file)
        verified_at = None if replica.verified_at is None else schema.to_microseconds(replica.verified_at)
        key = encode_path(replica.key)
        state, proof = replica.state.value, replica.proof.value
        replica_rows.append((replica.id, file.id, replica.store_id, key, state, verified_at, proof, created_at))
    more_files = len(newest) - before[0]
    more_bytes = sum(size for _, size in newest.values()) - before[1]
    return Group(files, file_rows, replica_rows, revisited, more_files, more_bytes)


def _content(file: File, replica: Replica, dataset_id: str) -> bytes:
    if file.dataset_id != dataset_id or replica.file_id != file.id:
        raise InvalidInput(f"file {file.path!r} and its replica are not of dataset {dataset_id}")
    try:
        sha256 = bytes.fromhex(file.sha256)
    except ValueError:
        sha256 = b""
    if len(sha256) != 32:
        raise InvalidInput(f"file {file.path!r} has no SHA-256: {file.sha256!r}")
    return sha256
