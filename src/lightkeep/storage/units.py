"""Archive units: many files of one experiment in one write-once tar on a store.

for files in cut(manifest, target=100 * GB, cap=500 * GB):
    with store.stage() as staging:
        index = write_unit(staging, unit_id, [UnitSource(file, open) for ...], ...)
        staging.sync(); staging.verify(); staging.publish()
    index.key_of(member)                     the key under which the store gives a member

read_index(store, key)                       from the sidecar, or from the tar when that is lost
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import groupby
from typing import BinaryIO, Final, cast

from lightkeep.model.datasets import File
from lightkeep.model.errors import Corrupt, NotFound
from lightkeep.model.stores import Staging, Store, split_member
from lightkeep.storage.seekable_zstd import COMPRESSED, CompressedStream, SeekableReader, ratio
from lightkeep.storage.unit_index import UnitIndex, UnitMember, index_key, index_of, unit_key
from lightkeep.storage.unit_stream import UnitSource, UnitStream, head

__all__ = [
    "UnitIndex", "UnitMember", "UnitSource", "cut", "index_key", "open_tar", "read_index",
    "recall_order", "saving", "unit_key", "write_unit",
]  # fmt: skip

GB: Final = 1_000_000_000
TARGET: Final = 100 * GB
CAP: Final = 500 * GB
"""NERSC's advice for HPSS: about 500 GB is best, more than 1 TB is awkward."""
MOST: Final = 100_000
PAYS: Final = 0.1
"""Saving from which on a unit is compressed."""
_SAMPLED: Final = 32
_HEAD: Final = 256 << 10


def cut(files: Iterable[File], *, target: int = TARGET, cap: int = CAP, most: int = MOST) -> Iterator[list[File]]:
    """Share files out among units.

    A dataset stays together where it fits: a unit ends with the first dataset at which it reaches the target, and
    only a dataset of more than `cap` bytes or `most` files is cut, into units of about the target.

    Parameters
    ----------
    files: of one experiment and one retention class, those of a dataset next to each other.
    target: bytes from which on a unit is complete.
    cap: bytes that a unit may have; a single larger file is a unit of its own.
    most: files that a unit may have.
    """
    unit: list[File] = []
    size = 0
    for _, dataset in groupby(files, key=lambda file: file.dataset_id):
        together = list(dataset)
        total = sum(file.size for file in together)
        is_cut = total > cap or len(together) > most
        for part in [[file] for file in together] if is_cut else [together]:
            more = sum(file.size for file in part)
            if unit and (size + more > (target if is_cut else cap) or len(unit) + len(part) > most):
                yield unit
                unit, size = [], 0
            unit += part
            size += more
            if size >= target:
                yield unit
                unit, size = [], 0
    if unit:
        yield unit


def write_unit(
    staging: Staging,
    unit_id: str,
    sources: Sequence[UnitSource],
    *,
    experiment_id: str,
    created_at: datetime,
    threads: int = 2,
    compress: bool | None = None,
    read: Callable[[int], None] | None = None,
) -> UnitIndex:
    """Write a unit and its sidecar as two parts of a group, each source read once; return what it holds.

    The caller goes on with `sync`, `verify` and `publish`. Members are in the order of dataset and path.

    Parameters
    ----------
    threads: how many read small files ahead, and compress; 1 for a run that must be the same each time.
    read: told, in any thread, how many bytes were read of files that were not opened.
    compress: None: where a sample of the members becomes smaller by at least 10 %.

    Raises
    ------
    SourceError: a file cannot be read or is not what its manifest says; `data["file_id"]` names it.
    StorageError, StoreFull: the store's side failed. Nothing of the unit is kept.
    """
    is_compressed = saving(sources) >= PAYS if compress is None else compress
    key = unit_key(unit_id, is_compressed=is_compressed)
    stream = UnitStream(
        sources,
        unit_id=unit_id,
        key=key,
        experiment_id=experiment_id,
        created_at=created_at,
        threads=threads,
        read=read,
    )
    if is_compressed:
        written = staging.write(key, CompressedStream(stream, threads=threads), size=None)
    else:
        written = staging.write(key, stream, size=stream.size)
    index = replace(stream.index(), size=written.size, sha256=written.sha256)
    sidecar = index.to_json()
    staging.write(index_key(key), io.BytesIO(sidecar), size=len(sidecar))
    return index


def saving(sources: Sequence[UnitSource]) -> float:
    """Return the part of the members' bytes that compression would save, 0 to 1, by a sample of at most 8 MiB.

    The sample is the first 256 KiB of 32 files, evenly spread. Raises SourceError when one cannot be read.
    """
    count = min(_SAMPLED, len(sources))
    chosen = [sources[number * len(sources) // count] for number in range(count)]
    sample = b"".join(head(each, _HEAD) for each in chosen)
    return max(0.0, 1.0 - ratio(sample))


def read_index(store: Store, key: str) -> UnitIndex:
    """Return what a unit holds: from its sidecar, or from its tar when the sidecar is lost or damaged.

    Raises
    ------
    NotFound: there is no such unit. Corrupt: the tar is none of ours either.
    """
    try:
        with store.open(index_key(key)) as file:
            return UnitIndex.from_json(file.read())
    except (NotFound, Corrupt):
        with open_tar(store, key) as tar:
            return replace(index_of(tar, key), size=store.stat(key).size)


def open_tar(store: Store, key: str) -> BinaryIO:
    """Open the tar of a unit, uncompressed. Raises NotFound, or Corrupt when a compressed one is damaged."""
    file = store.open(key)
    if not key.endswith(COMPRESSED):
        return file
    try:
        return cast(BinaryIO, io.BufferedReader(SeekableReader(file)))
    except Corrupt:
        file.close()
        raise


def recall_order(key: str) -> tuple[str, int]:
    """Return what sorts keys as a tape gives them fastest: by unit, then by where they begin.

    >>> sorted(["units/b.tar!512+1", "units/a.tar!9000+1", "units/a.tar!512+9"], key=recall_order)
    ['units/a.tar!512+9', 'units/a.tar!9000+1', 'units/b.tar!512+1']
    """
    unit, offset, _ = split_member(key) or (key, 0, 0)
    return unit, offset
