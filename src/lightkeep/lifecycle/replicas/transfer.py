"""Groups of source files on their way to a store: copied and published, or hashed where they lie."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

from lightkeep.lifecycle.replicas.walk import Found, OpenSource, SourceReader, SourceTree, parts
from lightkeep.model.errors import SourceError
from lightkeep.model.stores import Proof, Seen, Staging, Store, TakesFiles
from lightkeep.storage.plain import MANY, MANY_BYTES, MOST, WAITING
from lightkeep.storage.syscalls import sync_filesystem
from lightkeep.storage.threads import batches, share

_REPLACED: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
_WAIT_S: Final = 600.0  # how long another writer may hold the store
_TURN: Final = 8  # groups that a writer copies before others may have the store


@dataclass(frozen=True, slots=True)
class Pace:
    """How much is made durable, and known, at once. More costs more work when it is interrupted."""

    files: int = 1000
    """Most files in a group; from 100 on the catalogue's share is small, the disk's barriers want more."""
    size: int = 64 << 20
    """Most bytes in a group; a larger file is a group of its own."""
    many: int = 1000
    """From so many files on they are copied without Python's lock; to make that ready takes 0.1 s."""
    threads: int = 2
    """Files that are read at once; 1 -> 2 gains x1.5 (waiting for the disk), 2 -> 8 little on two cores."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One file that is now on the store."""

    found: Found
    key: str
    sha256: str
    proof: Proof


def split(files: Sequence[Found], pace: Pace) -> Iterator[list[Found]]:
    """Cut into groups."""
    return batches(files, lambda found: found.key.size, most=pace.files, total=pace.size)


@dataclass(frozen=True)
class Transfer:
    """Moves groups of a source's files to a store: copies them, or registers them where they lie.

    Yields for each group what is on the store, durable and read back. A file that is not what its key says, before
    or after it was read, is left out (invariant I2).

    Raises SourceError when a file cannot be read; StorageError when the store fails: nothing of the group is kept.
    """

    store: Store
    tree: SourceTree
    prefix: str
    """Goes before each path to make its key on the store."""
    pace: Pace
    read: Callable[[int], None]
    """Called with the bytes read since the last call, from any thread; for a large file as they are read."""

    def copy(self, groups: Sequence[Sequence[Found]]) -> Generator[list[Kept]]:
        """Copy groups to the store.

        While one group is made durable, read back and given its names, the next one is copied: the disk's waiting
        hides behind the processor's work. With one thread they follow one another.
        """
        is_many = sum(map(len, groups)) >= self.pace.many
        for begin in range(0, len(groups), _TURN):
            yield from self._copy_turn(groups[begin : begin + _TURN], is_many=is_many)

    def register(self, groups: Sequence[Sequence[Found]]) -> Generator[list[Kept]]:
        """Hash groups where they lie, on a store that is not managed; as `copy`, but nothing is written."""
        for group in groups:
            yield self._register_group(group)

    def _copy_turn(self, groups: Sequence[Sequence[Found]], *, is_many: bool) -> Generator[list[Kept]]:
        """Copy some groups, holding the store meanwhile."""
        finishing: Future[list[Kept]] | None = None
        with ExitStack() as held, ThreadPoolExecutor(1) as finisher:
            staging = held.enter_context(self.store.stage(wait_s=_WAIT_S))
            for group in groups:
                copied = self._copy_group(staging, group, is_many=is_many)
                following = held.enter_context(staging.beside()) if group is not groups[-1] else staging
                if self.pace.threads == 1:
                    yield self._finish(staging, copied)
                else:
                    if finishing is not None:
                        yield finishing.result()
                    finishing = finisher.submit(self._finish, staging, copied)
                staging = following
            if finishing is not None:
                yield finishing.result()

    def _copy_group(self, staging: Staging, group: Sequence[Found], *, is_many: bool) -> list[Found]:
        copied: list[Found] = []

        def copy(source: OpenSource, found: Found) -> None:
            key = self.prefix + found.key.path
            try:
                if found.key.size <= self.pace.size:
                    staging.write(key, source, size=found.key.size)
                    self.read(found.key.size)
                else:
                    staging.write(key, _Counted(source, self.read), size=found.key.size)
            except SourceError as error:
                if source.is_unchanged():
                    raise _unreadable(self.tree, found, error.message) from error
                return
            if source.is_unchanged():
                copied.append(found)
            else:
                staging.discard(key)

        by_many, threads = None, self.pace.threads
        if is_many and isinstance(staging, TakesFiles):
            by_many = partial(self._copy_plain, staging, copied)
            threads = threads if threads == 1 else threads * WAITING
        _for_each(self.tree, group, copy, threads=threads, by_many=by_many)
        return copied

    def _copy_plain(
        self, staging: TakesFiles, copied: list[Found], reader: SourceReader, files: Sequence[Found]
    ) -> Sequence[Found]:
        """Copy the plain ones of some files of one folder at once; return the others."""
        plain = [found for found in files if found.key.size <= MOST]
        if not plain:
            return files
        try:
            folder = reader.folder(plain[0].key)
        except OSError:
            return files  # each of them says why
        written = staging.write_files(
            [self.prefix + found.key.path for found in plain],
            [parts(found.key.path)[-1] for found in plain],
            [Seen(*found.key[1:]) for found in plain],
            folder=folder,
            flags=self.tree.flags,
        )
        done = list(itertools.compress(plain, written))
        copied.extend(done)
        self.read(sum(found.key.size for found in done))
        kept = {found.key.path for found in done}
        return [found for found in files if found.key.path not in kept]

    def _finish(self, staging: Staging, copied: Sequence[Found]) -> list[Kept]:
        """Make a group durable, read it back, give it its names."""
        if not copied:
            return []
        staging.sync()
        staging.verify()
        by_key = {replicated.asked: replicated for replicated in staging.publish()}
        kept = ((found, by_key[self.prefix + found.key.path]) for found in copied)
        return [Kept(found, on_store.key, on_store.sha256, on_store.proof) for found, on_store in kept]

    def _register_group(self, group: Sequence[Found]) -> list[Kept]:
        kept: list[Kept] = []
        sync_filesystem(self.tree.descriptor)  # what the catalogue says must be there after a power cut

        def register(source: OpenSource, found: Found) -> None:
            key = self.prefix + found.key.path
            content = self.store.verify(key)
            self.read(content.size)
            if source.is_unchanged() and content.size == found.key.size:
                kept.append(Kept(found, key, content.sha256, content.proof))

        _for_each(self.tree, group, register, threads=self.pace.threads)
        return kept


@dataclass(frozen=True, slots=True)
class _Counted:
    """A source that tells how much of it was read."""

    source: OpenSource
    read: Callable[[int], None]

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer; 0 at the end."""
        count = self.source.readinto(buffer)
        self.read(count)
        return count


def _for_each(
    tree: SourceTree,
    group: Sequence[Found],
    work: Callable[[OpenSource, Found], None],
    *,
    threads: int,
    by_many: Callable[[SourceReader, Sequence[Found]], Sequence[Found]] | None = None,
) -> None:
    """Open each file and call `work`; the first error is raised.

    `by_many` gets files of one folder first, and returns those that `work` is for.
    """

    def run(waiting: Iterator[Sequence[Found]]) -> None:
        with SourceReader(tree) as reader:
            for files in waiting:
                for found in by_many(reader, files) if by_many else files:
                    try:
                        with reader.open(found.key) as source:
                            work(source, found)
                    except OSError as error:
                        if error.errno in _REPLACED:
                            continue  # gone, or something else now: the next walk tells
                        raise _unreadable(tree, found, error.strerror or str(error)) from error

    share(list(_together(group) if by_many else ([found] for found in group)), run, threads=threads)


def _together(group: Sequence[Found]) -> Iterator[list[Found]]:
    """Cut a group into files of one folder, a few at once."""
    for _, files in itertools.groupby(group, key=lambda found: found.key.path.rpartition("/")[0]):
        yield from batches(files, lambda found: found.key.size, most=MANY, total=MANY_BYTES)


def _unreadable(tree: SourceTree, found: Found, why: str) -> SourceError:
    shown = os.fsencode(found.key.path).decode(errors="backslashreplace")
    return SourceError(
        f"cannot read {shown} of {tree.source}: {why}",
        remedy="make it readable for the account that ingests, or leave it out, then ingest again",
    )
