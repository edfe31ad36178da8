"""A run of frames as a source: the stack, and what its own file and the metadata file beside it say."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from lightkeep.formats.frame_stack import FrameStack
from lightkeep.formats.metadata import Gathered
from lightkeep.formats.text import one_line
from lightkeep.model.errors import BadFile, SourceError, StorageError, StoreFull, UnsafeFile
from lightkeep.model.formats import Source
from lightkeep.model.quantity import Quantity

TECHNIQUE = "xpcs"
_POLL_S = 0.05


def run_source(
    path: Path,
    name: str,
    stack: FrameStack,
    found: Gathered,
    *,
    guesses: Mapping[str, Quantity] = MappingProxyType({}),
    is_live: bool = False,
) -> Source:
    """Return the source of a run; closing it closes the stack.

    `found` is what the file and its metadata file say; quantities in `guesses` are taken, with a note, where they
    give none.
    Frames that are not as many as the metadata promise are no error, because a run may be stopped: a note says it,
    and `rest["frames_differ"]` holds both counts, [promised, found]. Live runs are not complete yet.
    """
    for key in guesses.keys() - found.quantities.keys():
        found.quantities[key] = guesses[key]
        found.notes.append(f"{key} is taken from the records: {guesses[key]}")
    promised, measured = found.quantities.get("frames"), stack.shape[0]
    if promised is not None and promised.value != measured and not is_live:
        found.notes.append(f"the metadata promise {promised.value:g} frames, the file holds {measured}")
        found.rest["frames_differ"] = [promised.value, measured]
    return Source(path, name, TECHNIQUE, {"frames": stack}, found.metadata(), stack)


def wait_for(opened: Callable[[], Source], wait_s: float) -> Source:
    """Return what can be opened within a time, looking again and again; the last error when it cannot."""
    end = time.monotonic() + wait_s
    while True:
        try:
            return opened()
        except UnsafeFile:
            raise
        except (BadFile, SourceError):
            if time.monotonic() >= end:
                raise
        time.sleep(_POLL_S)


def open_to_read(path: Path) -> int:
    """Return a file descriptor; SourceError when the file is missing or unreadable, BadFile for a folder."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise SourceError(f"{path}: no such file", remedy="check the path") from error
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}", remedy="check its permissions") from error
    if os.path.isdir(path):
        os.close(fd)
        raise BadFile(f"{path}: is a folder, not a file", remedy="name the run's file inside it")
    return fd


def not_written(path: Path, error: OSError) -> StorageError:
    """Return the error for a file that could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"{path}: no room to write it", remedy="free space, or use another store")
    return StorageError(
        f"{path}: cannot be written: {error.strerror or one_line(error)[:200]}", remedy="check the folder"
    )
