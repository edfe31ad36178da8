"""What came back from tape: ranges of objects, and the one unit that is kept while its members are asked for."""

from __future__ import annotations

import io
import os
import tempfile
import threading
from collections.abc import Iterable
from typing import BinaryIO, Final, cast

from lightkeep.model.errors import StorageError
from lightkeep.storage.hpss_commands import Entry, Hpss, spool

_KEPT_S: Final = 1800.0
"""How long a unit is kept: a verification of its members is to be one of the tape, not of the spool."""


class Recalls:
    """Recalls for one store. A unit of which several members are expected comes as a whole, once.

    Of another one the first member comes alone, and with the second one the unit. To reach a member, the archive
    sends its unit from the start: one by one, the members of a unit would cost its length squared.
    """

    def __init__(self, hpss: Hpss) -> None:
        self._hpss = hpss
        self._mutex = threading.RLock()
        self._expected: set[str] = set()
        """Paths of units of which several members will be asked for."""
        self._asked = ""
        """Path of the unit whose member was recalled last."""
        self._kept: BinaryIO | None = None
        self._timer: threading.Timer | None = None

    def whole(self, entry: Entry) -> BinaryIO:
        """Return an object in a file of its own, without a name: it goes when it is closed."""
        return self.range(entry, start=0, size=entry.size)

    def range(self, entry: Entry, *, start: int, size: int) -> BinaryIO:
        """Return a range of an object in a file of its own. Raises NotFound or StorageError."""
        file = tempfile.TemporaryFile(dir=spool(self._hpss.place))  # noqa: SIM115
        try:
            self._hpss.get(entry.path, file.write, start=start, size=size)
            file.seek(0)
        except OSError as error:
            file.close()
            raise StorageError(
                f"cannot keep {size} recalled bytes of {entry.path!r}: {error.strerror}",
                remedy="free space there, or set ?spool= in the store's location to a larger folder",
            ) from error
        except BaseException:
            file.close()
            raise
        return cast(BinaryIO, file)

    def expect(self, paths: Iterable[str]) -> None:
        """Bring these units as a whole when the first of their members is asked for."""
        with self._mutex:
            self._expected |= {path for path in paths if self._kept is None or path != self._asked}

    def is_expected(self, path: str) -> bool:
        """Return whether a unit comes, or is here, as a whole."""
        with self._mutex:
            return path in self._expected or (self._kept is not None and path == self._asked)

    def unit(self, entry: Entry, *, must: bool) -> io.RawIOBase | None:
        """Return a unit that is here, or is worth a recall as a whole; None when the member alone is.

        Parameters
        ----------
        must: the member cannot be had alone.
        """
        with self._mutex:
            is_known = self._asked == entry.path
            if not is_known:
                self.drop()
            is_known = is_known or entry.path in self._expected
            self._asked = entry.path
            self._expected.discard(entry.path)
            if self._kept is None and (must or (is_known and self._has_room(entry.size))):
                self._kept = self.whole(entry)
                self._timer = threading.Timer(_KEPT_S, self.drop)
                self._timer.daemon = True
                self._timer.start()
            return None if self._kept is None else _Shared(self._kept.fileno())

    def drop(self) -> None:
        """Give the spool's room free."""
        with self._mutex:
            if self._timer is not None:
                self._timer.cancel()
            if self._kept is not None:
                self._kept.close()
            self._asked, self._kept, self._timer = "", None, None

    def _has_room(self, size: int) -> bool:
        status = os.statvfs(spool(self._hpss.place))
        return status.f_bavail * status.f_frsize > 2 * size


class _Shared(io.RawIOBase):
    """A file that others read at the same time, each at its own place."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        if whence == os.SEEK_END:
            offset += os.fstat(self._descriptor).st_size
        self._at = max(0, offset + (self._at if whence == os.SEEK_CUR else 0))
        return self._at

    def readinto(self, buffer: object) -> int:
        count = os.preadv(self._descriptor, [cast(bytearray, buffer)], self._at)
        self._at += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._descriptor)
        super().close()
