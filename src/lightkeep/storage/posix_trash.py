"""The trash of a POSIX store: objects on their way out, in `.trash/<bin>/<key>` of the same folder.

Nothing here follows a symlink or leaves the folder: every name is opened below the one before, with O_NOFOLLOW.
A move is one rename that never replaces; when a call returns, its effect survives a power cut.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import Final

from lightkeep.model.errors import Conflict, NotFound
from lightkeep.storage.folders import Folders, writable
from lightkeep.storage.keys import TRASH
from lightkeep.storage.readback import buffer_for, read_back
from lightkeep.storage.syscalls import rename_new

_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
Names = tuple[str, ...]


def trash(root: int, names: Names, target: Names, *, size: int) -> None:
    """Move an object into the trash; again: only made durable again. Raises NotFound, Conflict or OSError."""
    with suppress(FileExistsError):
        os.mkdir(TRASH, 0o700, dir_fd=root)
        os.fsync(root)
    standing, moved = _status(root, names), _status(root, target)
    if standing is None and moved is None:
        raise NotFound(f"no object {'/'.join(names)!r} to move to the trash", remedy="run `lightkeep doctor`")
    for each in (standing, moved):
        if each is not None and each.st_size != size:
            raise Conflict(
                f"{'/'.join(names)!r} has {each.st_size} bytes, not {size}: it was not moved to the trash",
                remedy="run `lightkeep verify` on its dataset",
            )
    _move(root, names, target, standing=standing, moved=moved)


def recover(root: int, source: Names, names: Names) -> None:
    """Move an object of the trash to its key; again: no change. Raises NotFound, Conflict or OSError."""
    trashed, standing = _status(root, source), _status(root, names)
    if trashed is None and standing is None:
        raise NotFound(f"no object {'/'.join(source)!r} in the trash", remedy="run `lightkeep doctor`")
    if trashed is not None and standing is not None and not os.path.samestat(trashed, standing):
        if trashed.st_size == standing.st_size and _sha256(root, source) == _sha256(root, names):
            return  # the same content was kept anew meanwhile: the key has what it should have
        raise Conflict(
            f"other content stands at {'/'.join(names)!r}: nothing was moved back",
            remedy="run `lightkeep doctor`; the trashed object is where it was",
        )
    _move(root, source, names, standing=trashed, moved=standing)


def destroy(root: int, names: Names) -> None:
    """Remove an object of the trash, and the folders of its bin that are empty then. Raises OSError."""
    with Folders(root) as folders:
        try:
            folder = folders.open(names[:-1])
            with writable(folder):
                os.unlink(names[-1], dir_fd=folder)
        except OSError as error:
            if error.errno not in (*_ABSENT, errno.EISDIR):
                raise
        else:
            os.fsync(folder)
        with suppress(OSError):
            for depth in range(len(names) - 1, 1, -1):
                above = folders.open(names[: depth - 1])
                with writable(above):
                    os.rmdir(names[depth - 1], dir_fd=above)


def _move(
    root: int, source: Names, target: Names, *, standing: os.stat_result | None, moved: os.stat_result | None
) -> None:
    """Rename, or finish a rename that was interrupted, and make both folders durable."""
    with Folders(root) as sources, Folders(root) as targets:
        folder = _target_folder(targets, target)
        if standing is not None:
            old = sources.open(source[:-1])
            with writable(old), writable(folder):  # a closed experiment's folders are read-only
                if moved is not None and os.path.samestat(standing, moved):
                    os.unlink(source[-1], dir_fd=old)  # killed between link and unlink, where rename cannot do it
                else:
                    _rename(source, target, old, folder)
        os.fsync(folder)
        for changed in targets.changed.values():  # a journal keeps the order of those that were made before
            os.fsync(changed)
        if moved is not None:
            for depth in range(len(target) - 2, -1, -1):
                os.fsync(targets.open(target[:depth]))
        with suppress(FileNotFoundError, NotADirectoryError):
            os.fsync(sources.open(source[:-1]))


def _target_folder(folders: Folders, target: Names) -> int:
    try:
        return folders.open(target[:-1], make=True)
    except NotADirectoryError as error:
        raise Conflict(
            f"the path to {'/'.join(target)!r} leads through a file or a link: nothing was moved",
            remedy="run `lightkeep doctor`",
        ) from error


def _rename(source: Names, target: Names, old: int, new: int) -> None:
    try:
        rename_new(source[-1], target[-1], source_folder=old, target_folder=new)
    except FileExistsError as error:
        raise Conflict(
            f"{'/'.join(target)!r} is taken: {'/'.join(source)!r} was not moved", remedy="run `lightkeep doctor`"
        ) from error


def _status(root: int, names: Names) -> os.stat_result | None:
    """Return what the system says of a regular file, None when there is none."""
    with Folders(root) as folders:
        try:
            status = os.stat(names[-1], dir_fd=folders.open(names[:-1]), follow_symlinks=False)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise
        return status if stat.S_ISREG(status.st_mode) else None


def _sha256(root: int, names: Names) -> str:
    with Folders(root) as folders:
        folder = folders.open(names[:-1])
        size = os.stat(names[-1], dir_fd=folder, follow_symlinks=False).st_size
        return read_back(names[-1], folder=folder, buffer=buffer_for(size)).sha256
