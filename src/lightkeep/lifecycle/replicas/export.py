"""Get: a verified copy out of the stores, into a folder of the person's own.

What is returned hashes to the manifest, or an error is raised (invariant R1). An interrupted copy leaves a hidden
part beside its file and goes on from there; a file that stands there with other content is never overwritten.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from lightkeep.lifecycle.replicas.copies import archived, is_near, sources_of
from lightkeep.lifecycle.replicas.leases import leased
from lightkeep.lifecycle.retention.purge_destroy import gone
from lightkeep.model.datasets import DatasetState, File
from lightkeep.model.errors import Conflict, Corrupt, NotFound, SourceError, StorageError, StoreFull
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.retention import LeaseKind
from lightkeep.model.stores import Replica
from lightkeep.model.techniques import Report
from lightkeep.storage.folders import Folders
from lightkeep.storage.syscalls import rename_new

if TYPE_CHECKING:
    from lightkeep.facility import Facility

_BLOCK: Final = 4 << 20
_PAGE: Final = 1000
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def get(
    facility: Facility,
    dataset_id: str,
    folder: Path,
    *,
    principal: Principal,
    paths: Sequence[str] | None = None,
    report: Report | None = None,
) -> list[Path]:
    """Copy a dataset's files below a folder and return where they are now, in the order of the manifest.

    Parameters
    ----------
    folder: made when it is not there.
    paths: only these files; all when it is None.
    report: called after each block of 4 MiB.

    Raises
    ------
    NotFound, Forbidden: the principal may not see or not read the dataset; a path is not in it.
    Conflict: the dataset is not complete, its files were deleted from every store that is near, or a file with
        other content stands in the way: it stays as it is.
    Archived: the bytes are on tape only: `lightkeep.lifecycle.replicas.restore` brings them near.
    StorageError: no replica can be read whole. StoreFull: no room in the folder; what was copied stays, to go on.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.READ, dataset_id=dataset_id)
    dataset = view.dataset(dataset_id)
    if dataset.state is not DatasetState.COMPLETE:
        raise Conflict(f"dataset {dataset.name} is {dataset.state}", remedy="only a complete dataset can be got")
    files = list(_manifest(facility, dataset_id, principal, paths))
    total = sum(each.size for each in files) or 1
    copied = 0

    with leased(facility, dataset_id, LeaseKind.DOWNLOAD, holder=principal.id) as lease:

        def advance(count: int) -> None:
            nonlocal copied
            copied += count
            lease.renew()
            if report is not None:
                report(copied / total, "")

        with _local_errors(folder), _opened(folder) as root, Folders(root) as folders:
            for each in files:
                _one(facility, each, folders, advance)
    return [folder / each.path for each in files]


def _manifest(
    facility: Facility, dataset_id: str, principal: Principal, paths: Sequence[str] | None
) -> Iterator[File]:
    view = facility.catalog.view(principal)
    if paths is not None:
        yield from (view.file(dataset_id, path) for path in dict.fromkeys(paths))
        return
    offset = 0
    while page := view.files(dataset_id, limit=_PAGE, offset=offset).items:
        yield from page
        offset += len(page)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    folder.mkdir(parents=True, exist_ok=True)
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield root
    finally:
        os.close(root)


@contextmanager
def _local_errors(folder: Path) -> Iterator[None]:
    """Map what the person's own folder can do wrong."""
    try:
        yield
    except OSError as error:
        reason = f"{folder}: {error.strerror}"
        if error.errno in _NO_ROOM:
            raise StoreFull(reason, remedy="free some room there, then run it again: it goes on") from error
        raise SourceError(
            f"cannot write to {reason}", remedy="name another folder with --to, or correct its permissions"
        ) from error


def _one(facility: Facility, file: File, folders: Folders, advance: Callable[[int], None]) -> None:
    names = _safe(file.path)
    parent = folders.open(names[:-1], make=True)
    if _stands(file, names[-1], parent):
        advance(file.size)
        return
    part = f".{names[-1][:200]}.{file.sha256[:8]}.part"
    for attempt in (0, 1):
        _copy(facility, file, part, parent, advance if attempt == 0 else lambda _count: None)
        if _hash(part, parent) == file.sha256:
            break
        os.unlink(part, dir_fd=parent)  # a part of an older crash may hold what was never written
    else:
        raise Corrupt(
            f"{file.path}: the copy differs from its checksum, twice",
            remedy="`lightkeep verify` says whether the store or this folder is at fault",
        )
    os.chmod(part, file.mode & 0o777, dir_fd=parent)
    os.utime(part, ns=(file.mtime_ns, file.mtime_ns), dir_fd=parent)
    with _synced(part, parent):
        try:
            rename_new(part, names[-1], source_folder=parent, target_folder=parent)
        except FileExistsError as error:
            raise _in_the_way(file) from error


def _safe(path: str) -> tuple[str, ...]:
    """Return the names of a path of the manifest; none of them may lead upward."""
    names = tuple(path.split("/"))
    if any(name in ("", ".", "..") or "\0" in name for name in names):
        raise StorageError(
            f"the manifest names a path that leaves the folder: {path!r}", remedy="run `lightkeep doctor`"
        )
    return names


def _stands(file: File, name: str, parent: int) -> bool:
    """Return whether the file is there with its content; Conflict when something else is."""
    try:
        size = os.stat(name, dir_fd=parent, follow_symlinks=False).st_size
        same = size == file.size and _hash(name, parent) == file.sha256
    except FileNotFoundError:
        return False
    except OSError as error:  # a symlink, a folder, a FIFO
        raise _in_the_way(file) from error
    if not same:
        raise _in_the_way(file)
    return True


def _in_the_way(file: File) -> Conflict:
    return Conflict(
        f"{file.path} is there already, with other content; it was left as it is",
        remedy="move it away, or name another folder with --to",
    )


def _copy(facility: Facility, file: File, part: str, parent: int, advance: Callable[[int], None]) -> None:
    """Append to the part what it lacks, from the best replica that can be read."""
    failures: list[StorageError | NotFound] = []
    replicas = _replicas(facility, file)
    near = [each for each in replicas if is_near(each, facility.stores)]
    if replicas and not near:
        raise archived(file)
    for replica in near:
        try:
            _append(facility, file, replica, part, parent, advance)
        except (StorageError, NotFound) as error:
            failures.append(error)
        else:
            return
    if failures:
        raise StorageError(f"{file.path}: {failures[0].message}", remedy=failures[0].remedy) from failures[0]
    purged = gone(facility, file.dataset_id, file.path)
    if purged is not None:
        raise purged
    raise StorageError(f"{file.path} has no readable copy on any store", remedy="run `lightkeep doctor`")


def _replicas(facility: Facility, file: File) -> list[Replica]:
    return list(sources_of(facility.catalog.view(SERVICE).replicas([file.id]), stores=facility.stores))


def _append(
    facility: Facility, file: File, replica: Replica, part: str, parent: int, advance: Callable[[int], None]
) -> None:
    store = facility.stores[replica.store_id]
    store.check_identity()
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with store.open(replica.key) as source, open(os.open(part, flags, 0o600, dir_fd=parent), "wb") as target:
        begin = min(os.fstat(target.fileno()).st_size, file.size)
        target.truncate(begin)
        source.seek(begin)
        target.seek(begin)
        advance(begin)
        while block := _read(source, file):
            target.write(block)
            advance(len(block))


def _read(source: BinaryIO, file: File) -> bytes:
    try:
        return source.read(_BLOCK)
    except OSError as error:
        raise StorageError(
            f"{file.path} cannot be read from its store: {error.strerror}", remedy="run `lightkeep doctor`"
        ) from error


def _hash(name: str, parent: int) -> str:
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    with open(descriptor, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _synced(part: str, parent: int) -> Iterator[None]:
    """Make the part durable before, and its new name durable after, what happens inside."""
    descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    yield
    with suppress(OSError):  # some network filesystems cannot sync a folder
        os.fsync(parent)
