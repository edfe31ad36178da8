"""The commands `hsi` and `htar` of HPSS, run with a deadline each, and what their answers mean.

Only their documented face is used: exit codes, the error names they print, and `ls -l`. Names on the archive are
plain ASCII (`encode`), so that no quoting, pattern or line break can be misread.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import select
import shlex
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlsplit

from lightkeep.model.errors import (
    ConfigError,
    InvalidInput,
    NotFound,
    SourceError,
    StorageError,
    StoreFull,
    StoreUnavailable,
)
from lightkeep.model.stores import Readable

_BLOCK: Final = 1 << 20
_LONGEST: Final = 900
"""Bytes of an encoded path below the root: HPSS takes 1023 in all."""
_TRIES: Final = 4
_TEMPORARY: Final = (69, 75)
"""EX_UNAVAILABLE and EX_TEMPFAIL: no session was free, or a server was restarting."""
_ABSENT: Final = re.compile(r"HPSS_ENOENT|HPSS_ENOTDIR|No such file|Not a directory", re.IGNORECASE)
_BUSY: Final = re.compile(
    r"HPSS_EBUSY|HPSS_EAGAIN|too many (?:concurrent )?(?:sessions|connections)", re.IGNORECASE
)
_FULL: Final = re.compile(r"HPSS_ENOSPC|HPSS_EDQUOT|No space|Quota exceeded|HPSS_ENOSPACE", re.IGNORECASE)
_LINE: Final = re.compile(
    r"^([-dl])[-rwxsStT+.]{9,11}\s+\d+\s+\S.*?\s(\d+)\s+(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)\s+)?"
    r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)\s+\d{1,2}\s+[\d:]+(?:\s+\d{4})?\s+(\S+)$"
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store is and how it is reached; written as `/archive/path?hsi=...&sessions=8`."""

    root: str
    """Absolute path on the archive."""
    hsi: tuple[str, ...] = ("hsi", "-q", "-P")
    """Command with its options, e.g. `hsi -q -P -A keytab -k /etc/lightkeep.keytab -l beamline`."""
    htar: tuple[str, ...] = ()
    """Command that takes single members out of a tar, by an index that it makes when a unit is published, which
    reads the unit once more; empty: a member is reached by reading its unit up to it."""
    sessions: int = 8
    """How many run at once on this machine; NERSC allows 15 for each user."""
    deadline_s: float = 600.0
    """Longest wait for a command that moves no bytes."""
    stall_s: float = 7200.0
    """Longest wait for the next byte of a transfer: a tape may have to be mounted first."""
    pause_s: float = 5.0
    """Wait before the second try of a command that found no session; doubled each time."""
    spool: str = ""
    """Folder on this machine for recalled units; that of temporary files when empty."""

    @classmethod
    def parse(cls, location: str) -> Place:
        """Read a location. Raises ConfigError for an option that is not known."""
        parts = urlsplit(location)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        root = parts.path.rstrip("/")
        known = set(cls.__slots__) - {"root"}
        if not root.startswith("/") or parts.scheme or parts.netloc or set(options) - known:
            raise ConfigError(
                f"`{location}` is no place on HPSS",
                remedy=f"write /path/on/the/archive?option=value; options: {', '.join(sorted(known))}",
            )
        try:
            return cls(
                root,
                hsi=tuple(shlex.split(options.get("hsi", ""))) or cls.hsi_default(),
                htar=tuple(shlex.split(options.get("htar", ""))),
                sessions=int(options.get("sessions", 8)),
                deadline_s=float(options.get("deadline_s", 600)),
                stall_s=float(options.get("stall_s", 7200)),
                pause_s=float(options.get("pause_s", 5)),
                spool=options.get("spool", ""),
            )
        except ValueError as error:
            raise ConfigError(f"`{location}`: {error}", remedy="give numbers for sessions and seconds") from error

    @staticmethod
    def hsi_default() -> tuple[str, ...]:
        """Quiet, and without prompts."""
        return ("hsi", "-q", "-P")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a listing."""

    path: str
    """Below the root, encoded."""
    size: int
    is_folder: bool


def encode(key: str) -> str:
    """Return the path of a key on the archive. Raises InvalidInput when it is too long.

    >>> encode("units/u_1.tar"), encode("-rf/a b%")
    ('units/u_1.tar', '%2Drf/a%20b%25')
    """
    path = quote(os.fsencode(key), safe="/._-").replace("/-", "/%2D")
    path = f"%2D{path[1:]}" if path.startswith("-") else path.replace("~", "%7E")
    path = path.replace("~", "%7E")
    if len(path) > _LONGEST or any(len(name) > _LONGEST for name in path.split("/")):
        raise InvalidInput(
            f"{key[:80]!r}... is too long a name for HPSS",
            remedy="archive the file in a unit: `lightkeep archive`",
        )
    return path


def decode(path: str) -> str:
    """Return the key of a path on the archive."""
    return os.fsdecode(unquote_to_bytes(path))


class Hpss:
    """The commands, for one place. Safe to use from several threads."""

    def __init__(self, place: Place, store_id: str) -> None:
        self.place = place
        self._store_id = store_id

    # ---- commands that move no bytes

    def run(self, *commands: str) -> str:
        """Run commands in one session, one after the other, and return what they print.

        Each of them may be run again: it is asked for a state, not for a step. Raises NotFound, StoreFull,
        StoreUnavailable or StorageError.
        """
        for attempt in range(_TRIES):
            with self._session():
                try:
                    done = subprocess.run(  # noqa: S603
                        [*self.place.hsi, "; ".join(commands)],
                        stdin=subprocess.DEVNULL, capture_output=True, timeout=self.place.deadline_s, check=False,
                    )  # fmt: skip
                except subprocess.TimeoutExpired as error:
                    raise self._silent(self.place.deadline_s) from error
                except OSError as error:
                    raise self._missing(error) from error
            text = done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")
            if done.returncode == 0:
                return text
            if not _is_temporary(done.returncode, text) or attempt == _TRIES - 1:
                break
            time.sleep(self.place.pause_s * 2**attempt)
        raise self._failed(done.returncode, text, commands[-1])

    def ls(self, *paths: str, options: str) -> list[Entry]:
        """List paths below the root; those that are not there are left out."""
        commands = [f"ls {options} {self.full(path)}" for path in paths]
        try:
            text = self.run(*commands)
        except NotFound as error:
            text = str(error.data.get("output", ""))
        return self._entries(text, folder=f"{self.full(paths[0])}/" if paths else "")

    def _entries(self, text: str, *, folder: str = "") -> list[Entry]:
        entries, root = [], f"{self.place.root}/"
        for line in text.splitlines():
            if line.endswith(":") and " " not in line:
                folder = f"{line[:-1].rstrip('/')}/"
            elif found := _LINE.match(line.rstrip()):
                path = found[3].rstrip("/")
                path = path if path.startswith("/") else folder + path
                if path.startswith(root):
                    entries.append(Entry(path.removeprefix(root), int(found[2]), found[1] == "d"))
        return entries

    def make(self, folder: str) -> list[Entry]:
        """Make a folder and return all that is below the first one of its path."""
        return self._entries(
            self.run(f"mkdir -p {self.full(folder)}", f"ls -lR {self.full(folder.partition('/')[0])}")
        )

    def find(self, path: str) -> Entry | None:
        """Return what stands at a path below the root."""
        return next((entry for entry in self.ls(path, options="-ld") if entry.path == path), None)

    def move(self, moves: Sequence[tuple[str, str]]) -> None:
        """Rename objects, making the folders they need, and see that each stands where it should.

        The caller knows that nothing stands there yet. Raises StorageError when one does not.
        """
        folders = sorted({target.rpartition("/")[0] for _, target in moves} - {""})
        commands = [f"mkdir -p {self.full(folder)}" for folder in folders]
        commands += [f"mv {self.full(source)} {self.full(target)}" for source, target in moves]
        commands += [f"ls -ld {self.full(target)}" for _, target in moves]
        try:
            text = self.run(*commands)
        except NotFound as error:
            text = str(error.data.get("output", ""))
        there = {entry.path for entry in self._entries(text)}
        for source, target in moves:
            if target not in there:
                raise StorageError(
                    f"HPSS did not move {source!r} to {target!r} (store {self._store_id})",
                    remedy="repeat; what was not moved is where it was",
                )

    def full(self, path: str) -> str:
        """Return the absolute path on the archive."""
        return f"{self.place.root}/{path}" if path else self.place.root

    # ---- transfers

    def put(self, path: str, source: Readable) -> tuple[str, int]:
        """Store a source's bytes under a path; return (sha256, bytes). Raises SourceError or StorageError.

        Only as long as no more than the first block was read, the command is tried again.
        """
        first = memoryview(bytearray(_BLOCK))
        first = first[: _fill(source, first)]
        for attempt in range(_TRIES):
            with self._session(), self._process(f"put - : {self.full(path)}", stdin=subprocess.PIPE) as process:
                digest, size, rest = hashlib.sha256(first), len(first), memoryview(bytearray(_BLOCK))
                block, is_first = first, True
                with suppress(BrokenPipeError):
                    while len(block):
                        self._send(process, block)
                        count = _fill(source, rest) if len(first) == _BLOCK else 0
                        is_first = is_first and not count
                        block = rest[:count]
                        digest.update(block)
                        size += count
                code, text = self._end(process)
            if code == 0:
                return digest.hexdigest(), size
            if not is_first or not _is_temporary(code, text) or attempt == _TRIES - 1:
                break
            time.sleep(self.place.pause_s * 2**attempt)
        raise self._failed(code, text, f"put {path}")

    def get(self, path: str, sink: Callable[[memoryview], object], *, start: int = 0, size: int) -> None:
        """Give a range of an object's bytes to a sink, in order. Raises NotFound or StorageError.

        What lies before the range is read and dropped, what lies behind is not asked for. A transfer that found no
        session is tried again as long as it gave nothing.
        """
        for attempt in range(_TRIES):
            with self._session(), self._process(f"get - : {self.full(path)}", stdout=subprocess.PIPE) as process:
                given = self._receive(process, sink, start, size)
                if given == size and size:
                    process.kill()  # the rest of the object is not wanted
                    process.wait()
                    return
                code, text = self._end(process)
            if code == 0 and given == size:
                return
            if given or not _is_temporary(code, text) or attempt == _TRIES - 1:
                break
            time.sleep(self.place.pause_s * 2**attempt)
        if code == 0:
            raise StorageError(
                f"{path!r} on store {self._store_id} ended after {given} of {size} bytes",
                remedy="verify it again; when that repeats, ask the archive's operators about its tape",
            )
        raise self._failed(code, text, f"get {path}")

    def extract(self, path: str, member: str, folder: str) -> bool:
        """Take a member out of a tar with htar and its index, into a folder; False where that cannot be done."""
        if not self.place.htar or len(member) > _LONGEST:
            return False
        command = [*self.place.htar, "-xf", self.full(path), member]
        with self._session():
            try:
                done = subprocess.run(  # noqa: S603
                    command, cwd=folder, capture_output=True, timeout=self.place.stall_s, check=False
                )
            except subprocess.TimeoutExpired as error:
                raise self._silent(self.place.stall_s) from error
            except OSError:
                return False
        return done.returncode == 0

    def index(self, path: str) -> None:
        """Have htar make its index of a tar on the archive, which reads it whole. Raises StorageError."""
        with self._session():
            try:
                done = subprocess.run(  # noqa: S603
                    [*self.place.htar, "-Xf", self.full(path)],
                    capture_output=True,
                    timeout=self.place.stall_s,
                    check=False,
                )
            except subprocess.TimeoutExpired as error:
                raise self._silent(self.place.stall_s) from error
            except OSError as error:
                raise self._missing(error) from error
        if done.returncode:
            raise self._failed(done.returncode, done.stderr.decode(errors="replace"), f"htar -X {path}")

    def _receive(
        self, process: subprocess.Popen[bytes], sink: Callable[[memoryview], object], start: int, size: int
    ) -> int:
        assert process.stdout is not None  # noqa: S101
        buffer = memoryview(bytearray(_BLOCK))
        at = given = 0
        while given < size and (count := self._next(process, buffer)):
            block = buffer[max(0, start - at) : min(count, start + size - at)]
            at += count
            if len(block):
                sink(block)
                given += len(block)
        return given

    def _next(self, process: subprocess.Popen[bytes], buffer: memoryview) -> int:
        assert process.stdout is not None  # noqa: S101
        descriptor = process.stdout.fileno()
        if not select.select([descriptor], [], [], self.place.stall_s)[0]:
            raise self._silent(self.place.stall_s)
        return os.readv(descriptor, [buffer])

    def _send(self, process: subprocess.Popen[bytes], block: memoryview) -> None:
        assert process.stdin is not None  # noqa: S101
        descriptor = process.stdin.fileno()
        os.set_blocking(descriptor, False)
        while len(block):
            if not select.select([], [descriptor], [], self.place.stall_s)[1]:
                raise self._silent(self.place.stall_s)
            with suppress(BlockingIOError):
                block = block[os.write(descriptor, block) :]

    def _end(self, process: subprocess.Popen[bytes]) -> tuple[int, str]:
        if process.stdin is not None:
            with suppress(BrokenPipeError):
                process.stdin.close()
        try:
            code = process.wait(self.place.stall_s)
        except subprocess.TimeoutExpired as error:
            raise self._silent(self.place.stall_s) from error
        assert process.stderr is not None  # noqa: S101
        process.stderr.seek(0)
        return code, process.stderr.read().decode(errors="replace")

    @contextmanager
    def _process(
        self, command: str, *, stdin: int = subprocess.DEVNULL, stdout: int = subprocess.DEVNULL
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A running command; what it says of errors goes to a file. It does not outlive the block."""
        with tempfile.TemporaryFile() as errors:
            try:
                process = subprocess.Popen(  # noqa: S603
                    [*self.place.hsi, command], stdin=stdin, stdout=stdout, stderr=errors
                )
            except OSError as error:
                raise self._missing(error) from error
            process.stderr = errors
            try:
                yield process
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
                for pipe in (process.stdin, process.stdout):
                    if pipe is not None:
                        with suppress(BrokenPipeError):
                            pipe.close()

    @contextmanager
    def _session(self) -> Iterator[None]:
        """One of the machine's sessions: all processes of this user share them."""
        folder, until = spool(self.place), time.monotonic() + self.place.stall_s
        while True:
            for number in range(self.place.sessions):
                descriptor = os.open(folder / f"session-{number}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                    continue
                try:
                    yield
                finally:
                    os.close(descriptor)
                return
            if time.monotonic() > until:
                raise self._silent(self.place.stall_s)
            time.sleep(0.05)

    # ---- errors

    def _failed(self, code: int, text: str, command: str) -> Exception:
        lines = [line for line in text.splitlines() if line.startswith("***")] or text.splitlines()[-1:]
        what = f"HPSS refused `{command}` (store {self._store_id}, exit {code}): {' '.join(lines)[:300]}"
        if _FULL.search(text):
            return StoreFull(what, remedy="ask the archive's operators for room")
        if _is_temporary(code, text):
            return StoreUnavailable(what, remedy="wait until the archive answers, then repeat")
        if code == 72 or _ABSENT.search(text):
            return NotFound(what, output=text)
        return StorageError(what, remedy="repeat; when it fails again, ask the archive's operators")

    def _silent(self, seconds: float) -> StoreUnavailable:
        return StoreUnavailable(
            f"HPSS did not answer within {seconds:g} s (store {self._store_id})",
            remedy="look whether the archive is in maintenance, then repeat",
        )

    def _missing(self, error: OSError) -> StoreUnavailable:
        return StoreUnavailable(
            f"store {self._store_id}: cannot run `{self.place.hsi[0]}`: {error.strerror}",
            remedy="install the HPSS client, or name it in the store's location: ?hsi=/path/to/hsi",
        )


def spool(place: Place) -> Path:
    """Return the folder on this machine for locks and recalled bytes, for this user only. Raises StorageError."""
    folder = Path(place.spool or Path(tempfile.gettempdir(), f"lightkeep-hpss-{os.getuid()}"))
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = os.stat(folder, follow_symlinks=False)
    except OSError as error:
        raise StorageError(f"cannot use {folder}: {error.strerror}", remedy="set ?spool= to a folder") from error
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise StorageError(
            f"{folder} is somebody else's", remedy="set ?spool= in the store's location to a folder"
        )
    return folder


def _is_temporary(code: int, text: str) -> bool:
    return code in _TEMPORARY or _BUSY.search(text) is not None


def _fill(source: Readable, buffer: memoryview) -> int:
    filled = 0
    try:
        while filled < len(buffer) and (count := source.readinto(buffer[filled:]) or 0):
            filled += count
    except OSError as error:
        raise SourceError(f"the source cannot be read: {error.strerror or error}") from error
    return filled
