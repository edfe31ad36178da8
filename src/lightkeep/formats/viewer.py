"""What a web viewer asks of an HDF5 file, answered in the sandbox. It imports no HDF5 library itself."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightkeep.formats import sandbox
from lightkeep.model.errors import InvalidInput

if TYPE_CHECKING:
    from lightkeep.formats.viewing import Answer, Stamp

Kind = Literal["meta", "data", "attr", "stats", "paths"]
KINDS: tuple[Kind, ...] = ("meta", "data", "attr", "stats", "paths")
_REMEMBERED = 1024


class _Verdicts:
    """Which files were found safe, with which others they lead to, until one of them changes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stamps: OrderedDict[tuple[str, ...], list[Stamp]] = OrderedDict()

    def is_safe(self, key: tuple[str, ...]) -> bool:
        """True when the file was checked with these allowed places, and nothing changed since."""
        with self._lock:
            stamps = self._stamps.get(key, [])
        return bool(stamps) and all(_unchanged(stamp) for stamp in stamps)

    def keep(self, key: tuple[str, ...], stamps: list[Stamp]) -> None:
        """Remember what a check found."""
        with self._lock:
            self._stamps[key] = stamps
            self._stamps.move_to_end(key)
            while len(self._stamps) > _REMEMBERED:
                self._stamps.popitem(last=False)


def _unchanged(stamp: Stamp) -> bool:
    try:
        found = os.stat(stamp[0])
    except OSError:
        return False
    return stamp[1:] == (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


_VERDICTS = _Verdicts()


def viewer_call(
    path: Path,
    allowed: Collection[Path],
    kind: Kind,
    h5path: str = "/",
    *,
    timeout_s: float = 20.0,
    **options: Any,
) -> Answer:
    """Return what h5grove answers for one object of a file, once the whole file was found safe.

    Parameters
    ----------
    path: the HDF5 file.
    allowed: files, or folders with all below them, that it may lead to.
    kind: the name of h5grove's route. h5path: the object inside the file.
    options: as in that route's query string: `resolve_links` (meta, paths), `attr_keys` (attr), `selection` (data,
        stats), `dtype`, `format` and `flatten` (data).

    Raises
    ------
    NotFound: no such object. InvalidInput: an option is wrong, or the answer too large.
    BadFile, UnsafeFile, SourceError: as `hdf5.open_safe`, and when it takes too long.
    """
    if kind not in KINDS:
        raise InvalidInput(f"no viewer answers {kind!r}", remedy=f"ask for one of: {', '.join(KINDS)}")
    key = (os.path.realpath(path), *sorted(os.path.realpath(each) for each in allowed))
    is_safe = _VERDICTS.is_safe(key)
    found, stamps = sandbox.call(
        "lightkeep.formats.viewing:answer",
        path,
        list(allowed),
        kind,
        h5path,
        options,
        is_safe=is_safe,
        timeout_s=timeout_s,
    )
    if stamps:
        _VERDICTS.keep(key, stamps)
    answer: Answer = found
    return answer
