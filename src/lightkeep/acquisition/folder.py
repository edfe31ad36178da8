"""Which files of a folder have settled: nothing half-written is ever named.

A file has settled when two looks, at least the quiet time apart by our own clock, found it the same; the clock of
a file server does not count. Looking is what decides, on any filesystem. Notifications of the kernel, where they
come, only say where to look first.
"""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final, NamedTuple

from lightkeep.model.errors import SourceError

_POLL_S: Final = 0.2
_SHARE: Final = 0.1
"""Of the time that looking through the whole folder may take."""
_TOLD: Final = 5
"""So many times rarer it is looked through while the kernel tells where to look."""
_RECHECKED: Final = 200
"""Files that are in already and are looked at again with each look: were they changed?"""
_CONFIRM_S: Final = 0.1
"""Between the two looks at a file whose writer has said that it is done."""


class Stamp(NamedTuple):
    """What must be equal for a file to count as unchanged."""

    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int


@dataclass(frozen=True, slots=True)
class Rules:
    """Which files, and when."""

    include: tuple[str, ...] = ()
    """Patterns of names or of paths below the folder; empty: all."""
    exclude: tuple[str, ...] = ()
    """Patterns of what is left out, e.g. `*.tmp`."""
    done: str = ""
    """Name of the mark that a writer leaves: `{name}.done` beside a file or folder, or `DONE` inside a folder."""
    quiet_s: float = 2.0
    """How long a file must rest."""
    is_whole: bool = False
    """True: all of the folder is one entry; False: each file and folder directly in it is."""

    def takes(self, path: str) -> bool:
        """True when a file of this path is data."""
        name = path.rpartition("/")[2]

        def hits(patterns: tuple[str, ...]) -> bool:
            return any(fnmatchcase(name, each) or fnmatchcase(path, each) for each in patterns)

        return (not self.include or hits(self.include)) and not hits(self.exclude)

    def entry_of(self, path: str) -> str:
        """Return the entry that a path belongs to; empty: the folder itself."""
        return "" if self.is_whole else path.partition("/")[0]

    def marks(self, path: str) -> str | None:
        """Return the entry that a file of this path says is done; None when it is no mark."""
        if not self.done:
            return None
        above, _, name = path.rpartition("/")
        if "{name}" not in self.done:
            return self.entry_of(path) if name == self.done and (above or self.is_whole) else None
        head, _, tail = self.done.partition("{name}")
        is_mark = not above and len(name) > len(head) + len(tail) and name.startswith(head) and name.endswith(tail)
        return name[len(head) : len(name) - len(tail)] if is_mark else None


@dataclass(slots=True)
class _Pending:
    stamp: Stamp
    due: float


class _Hint(NamedTuple):
    """A look at a file when the kernel told of it."""

    status: os.stat_result
    at: float


class FolderWatch:
    """Looks at a folder, again and again. For one thread; use as a context manager.

    Parameters
    ----------
    known: called once for each entry that appears: path -> stamp of what is in the catalogue from it.
    """

    def __init__(
        self,
        root: Path,
        rules: Rules,
        *,
        known: Callable[[str], Mapping[str, Stamp]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = root
        self.rules = rules
        self.taken: dict[str, Stamp] = {}
        self.marked: set[str] = set()
        """Entries whose writer has said that it is done."""
        self.changed_at: dict[str, float] = {}
        """Entry -> when something of it was last seen to change, by the clock."""
        self._prefix = f"{root}/"
        self._known = known
        self._clock = clock
        self._pending: dict[str, _Pending] = {}
        self._handed: dict[str, Stamp] = {}
        self._next_scan = 0.0
        self._is_told = False
        self._round: Iterator[str] = iter(())
        self._hints: dict[str, _Hint] = {}
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._helper: threading.Thread | None = None

    def __enter__(self) -> FolderWatch:
        self._helper = threading.Thread(target=self._listen, name="lightkeep-notify", daemon=True)
        self._helper.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        if self._helper is not None:
            self._helper.join()

    @property
    def waiting(self) -> int:
        """Files that were seen and are not taken yet."""
        return len(self._pending) + len(self._handed)

    @property
    def settling(self) -> int:
        """Those of them that need nothing more from their writer: with marks, the marked ones."""
        if "{name}" not in self.rules.done:
            return self.waiting
        return len(self._handed) + sum(self.rules.entry_of(path) in self.marked for path in self._pending)

    def is_handed(self, path: str) -> bool:
        """True for a file that was returned by `look` and is neither taken nor to be named again."""
        return path in self._handed

    def pending_of(self, entry: str) -> int:
        """Files of an entry that were seen and are not taken yet."""
        return sum(self.rules.entry_of(path) == entry for path in (*self._pending, *self._handed))

    def look(self) -> dict[str, Stamp]:
        """Return the files that have settled; say of each `took` or `again`.

        Raises
        ------
        SourceError: the folder cannot be read.
        """
        now = self._clock()
        with self._lock:
            hints, self._hints = self._hints, {}
        for path, hint in hints.items():
            self._see(path, hint.at, hint.status)
        self._is_told |= bool(hints)
        if now >= self._next_scan:
            began = time.perf_counter()
            self._scan(now)
            pause = max(_POLL_S, (time.perf_counter() - began) / _SHARE)
            self._next_scan = now + pause * (_TOLD if self._is_told else 1)
            self._is_told = False
        self._recheck(now)
        return self._settled(now)

    def hurry(self) -> None:
        """Have the next look go through the whole folder."""
        self._next_scan = 0.0

    def took(self, path: str, stamp: Stamp) -> None:
        """Say that a file is in the catalogue, as it was at that stamp."""
        self._handed.pop(path, None)
        self.taken[path] = stamp

    def again(self, paths: Iterable[str], *, after_s: float = 0.0) -> None:
        """Name these once more, when they have settled and some time has passed."""
        due = self._clock() + max(after_s, self.rules.quiet_s)
        for path in paths:
            self._pending[path] = _Pending(self._handed.pop(path), due)

    def forget(self, entry: str) -> None:
        """Forget that an entry is marked or was looked up: what comes now begins it anew."""
        self.marked.discard(entry)
        self.changed_at.pop(entry, None)

    def _recheck(self, now: float) -> None:
        """Look at some of the files that are in already; forget those that are gone."""
        for _ in range(min(_RECHECKED, len(self.taken))):
            path = next(self._round, None)
            if path is None:
                self._round = iter(list(self.taken))
                return
            self._see(path, now)

    def _scan(self, now: float) -> None:
        """Look at every name, and at the files behind those that are not in yet."""
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            try:
                with os.scandir(self.root / prefix if prefix else self.root) as entries:
                    for each in entries:
                        path = prefix + each.name
                        if each.is_dir(follow_symlinks=False):
                            waiting.append(path + "/")
                        elif path not in self.taken and path not in self._pending:
                            self._see(path, now)
            except FileNotFoundError as error:
                if not prefix:
                    raise SourceError(
                        f"{self.root} does not exist", remedy="make the folder, or mount its disk"
                    ) from error
            except OSError as error:
                raise SourceError(
                    f"cannot read {self.root / prefix}: {error.strerror}",
                    remedy="make it readable for the account that runs the worker",
                ) from error

    def _see(self, path: str, now: float, status: os.stat_result | None = None) -> None:
        """Look at one file, or take up a look of before."""
        marked = self.rules.marks(path)
        if marked is None and not self.rules.takes(path):
            return
        if path in self._handed or (path in self._pending and status is None):
            return
        try:
            status = status or os.lstat(self._prefix + path)
        except OSError:
            self.taken.pop(path, None)
            return
        if stat.S_ISDIR(status.st_mode):
            self._next_scan = now  # it was moved in with what it holds
        if not stat.S_ISREG(status.st_mode):
            return
        if marked is not None:
            if marked not in self.marked:
                self.marked.add(marked)
                for each, pending in self._pending.items():
                    if self.rules.entry_of(each) == marked:
                        pending.due = min(pending.due, now + _CONFIRM_S)
            return
        entry = self.rules.entry_of(path)
        if entry not in self.changed_at:
            for each, known in self._known(entry).items():
                self.taken.setdefault(each, known)
            self.changed_at[entry] = now
        stamp, waiting = _stamp(status), self._pending.get(path)
        if stamp != (waiting.stamp if waiting else self.taken.get(path)):
            self.changed_at[entry] = now
            self._pending[path] = _Pending(stamp, now + self._rest(entry))

    def _rest(self, entry: str) -> float:
        return _CONFIRM_S if entry in self.marked else self.rules.quiet_s

    def _settled(self, now: float) -> dict[str, Stamp]:
        """Look again at what was given time to rest."""
        settled: dict[str, Stamp] = {}
        for path in [path for path, pending in self._pending.items() if pending.due <= now]:
            pending = self._pending[path]
            try:
                stamp = _stamp(os.lstat(self._prefix + path))
            except OSError:
                del self._pending[path]  # gone
                continue
            entry = self.rules.entry_of(path)
            if stamp != pending.stamp:
                self.changed_at[entry] = now
                self._pending[path] = _Pending(stamp, now + self._rest(entry))
            elif "{name}" in self.rules.done and entry not in self.marked:
                pending.due = now + _POLL_S  # its writer has not said that it is done
            else:
                del self._pending[path]
                self._handed[path] = settled[path] = stamp
        return settled

    def _listen(self) -> None:
        """Let the kernel say where to look; where it cannot, looking goes on as before."""
        import watchfiles

        prefix = len(str(self.root)) + 1
        try:
            for changes in watchfiles.watch(
                self.root, stop_event=self._closing, watch_filter=None, debounce=50, step=20, rust_timeout=500
            ):
                self._hear({path for _, path in changes if len(path) > prefix})
        except (OSError, RuntimeError):
            return

    def _hear(self, paths: Collection[str]) -> None:
        """Look at once: a file's rest begins now, however long the others take to be copied."""
        hints = {}
        for path in paths:
            with suppress(OSError):  # gone again
                hints[path[len(self._prefix) :]] = _Hint(os.lstat(path), self._clock())
        with self._lock:
            self._hints.update(hints)


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
