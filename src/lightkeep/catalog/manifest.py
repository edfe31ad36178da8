"""What a group of files adds to a dataset's manifest: plain tuples, because this runs for every file ever kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from lightkeep.catalog import columns, schema
from lightkeep.catalog.text import encode_path
from lightkeep.model.datasets import File
from lightkeep.model.errors import InvalidInput
from lightkeep.model.stores import Replica

FILE_COLUMNS = tuple(schema.file.c.keys())
REPLICA_COLUMNS = tuple(schema.replica.c.keys())

FileRow = tuple[int, bytes, int, str, int, bytes, int, int, int]
ReplicaRow = tuple[str, str, str, bytes, str, int | None, str, int]
Pairs = Sequence[tuple[File, Replica]]


class Known(NamedTuple):
    """An entry that the manifest has already."""

    path: bytes
    version: int
    id: str
    size: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Group:
    """What a group adds."""

    files: list[File]
    """In the order given, as the catalogue will have them."""
    file_rows: list[FileRow]
    replica_rows: list[ReplicaRow]
    """Of all files of the group, those included that were there."""
    revisited: list[str]
    """Ids of files that were there."""
    more_files: int
    """Paths that were not in the manifest."""
    more_bytes: int
    """By how much the manifest grows."""


def new_group(pairs: Pairs, *, dataset_id: str, number: int, event_seq: int, now: datetime) -> Group:
    """Return the group as it is when no path is known: what nearly every group is.

    Parameters
    ----------
    number: of the dataset.
    event_seq: number of the event that will register the group.

    Raises
    ------
    InvalidInput: a file is of another dataset, a replica of another file, or a hash is not SHA-256.
    """
    file_rows: list[FileRow] = [
        (number, encode_path(f.path), 1, f.id, f.size, _content(f), f.mtime_ns, f.mode, event_seq)
        for f, _ in pairs
    ]
    for file, replica in pairs:
        if file.dataset_id != dataset_id or replica.file_id != file.id:
            raise InvalidInput(f"file {file.path!r} and its replica are not of dataset {dataset_id}")
    files = [f if f.version == 1 else replace(f, version=1) for f, _ in pairs]
    return Group(
        files, file_rows, replica_rows([r for _, r in pairs], now), [], len(pairs), sum(f.size for f in files)
    )


def mixed_group(group: Group, pairs: Pairs, *, known: Sequence[Known], now: datetime) -> Group:
    """Return the group as it is against what is known: old content keeps its id, new content gets its version.

    Parameters
    ----------
    group: of the same pairs, as `new_group` made it.
    known: what the manifest has at these paths, every version.
    """
    by_content = {(entry.path, entry.sha256): (entry.id, entry.version) for entry in known}
    newest: dict[bytes, tuple[int, int]] = {}
    for entry in known:
        newest[entry.path] = max(newest.get(entry.path, (0, 0)), (entry.version, entry.size))
    before = (len(newest), sum(size for _, size in newest.values()))
    mixed: list[tuple[File, Replica]] = []
    file_rows: list[FileRow] = []
    revisited: list[str] = []
    for (file, replica), row in zip(pairs, group.file_rows, strict=True):
        number, path, _, id_, size, sha256, mtime_ns, mode, seq = row
        old = by_content.get((path, sha256))
        if old is not None:
            revisited.append(old[0])
        else:
            old = (id_, newest.get(path, (0, 0))[0] + 1)
            newest[path], by_content[path, sha256] = (old[1], size), old
            file_rows.append((number, path, old[1], id_, size, sha256, mtime_ns, mode, seq))
        mixed.append((replace(file, id=old[0], version=old[1]), replace(replica, file_id=old[0])))
    more_files = len(newest) - before[0]
    more_bytes = sum(size for _, size in newest.values()) - before[1]
    return Group(
        [f for f, _ in mixed],
        file_rows,
        replica_rows([r for _, r in mixed], now),
        revisited,
        more_files,
        more_bytes,
    )


def digest(rows: Iterable[tuple[bytes, bytes, int, int]]) -> str:
    """Return SHA-256 over (path, sha256, size, version) of files in the order of path and version.

    The event of a group of files carries it: the hash of the chain so covers the manifest as well.
    """
    ordered = sorted(rows, key=lambda row: (row[0], row[3]))
    return hashlib.sha256(b"".join([b"%b\0%b%d %d\n" % row for row in ordered])).hexdigest()


def replica_rows(replicas: Sequence[Replica], now: datetime) -> list[ReplicaRow]:
    """Return replicas as they are inserted, in the order of REPLICA_COLUMNS."""
    created_at = columns.to_microseconds(now)
    instants: dict[datetime | None, int | None] = {None: None}
    for r in replicas:
        if r.verified_at not in instants and r.verified_at is not None:
            instants[r.verified_at] = columns.to_microseconds(r.verified_at)
    return [
        (
            r.file_id,
            r.id,
            r.store_id,
            encode_path(r.key),
            r.state._value_,  # the plain text: `value` and the enum itself cost a microsecond each
            instants[r.verified_at],
            r.proof._value_,
            created_at,
        )
        for r in replicas
    ]


def _content(file: File) -> bytes:
    try:
        sha256 = bytes.fromhex(file.sha256)
    except ValueError:
        sha256 = b""
    if len(sha256) != 32:
        raise InvalidInput(f"file {file.path!r} has no SHA-256: {file.sha256!r}")
    return sha256
