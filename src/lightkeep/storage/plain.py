"""Plain files, many in one go: copied and hashed, read back, given their names. `calls` says how, and why.

Only what goes as expected is done here. A file of which anything is not is left to the caller, as if it had never
been tried: there is one place for rules and errors, and it is not this one.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import struct
from collections.abc import Sequence
from typing import Any, Final

from lightkeep.model.stores import Seen
from lightkeep.storage.calls import ANYTHING, FAILED, Call, Machine, Register

MOST: Final = (1 << 20) - 1
"""Bytes of the largest plain file: it is read at once, with room to see that it ends there."""
MANY: Final = 64
"""Files that a thread takes at once: enough to pay for it, few enough to share out evenly."""
MANY_BYTES: Final = 4 << 20
"""Most bytes of them."""
WAITING: Final = 2
"""Threads for each one that Python's way would take: they wait for the disk, and for nobody's lock."""

_PAGE: Final = 4096
_PART: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BACK: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOATIME
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_RENAME_NOREPLACE: Final = 1
_AT_SYMLINK_NOFOLLOW: Final = 0x100
_AT_EMPTY_PATH: Final = 0x1000
_STATX_BASIC_STATS: Final = 0x7FF
_STATX: Final = struct.Struct("=32x2Q48xqI4xqI12x2I112x")  # ino, size, ctime, mtime, device: on every machine
_HASH: Final = 32


class Memory:
    """One thread's room for the content of a file, aligned for O_DIRECT."""

    def __init__(self) -> None:
        self._room = mmap.mmap(-1, MOST + 1 + _PAGE)
        self.address = _address(self._room)
        self.no_name = self.address + MOST + 1
        """Where an empty C string is."""


class Plain:
    """Plain files of one group of parts.

    Parameters
    ----------
    machine: what makes the calls.
    group: descriptor of the parts' folder.
    """

    def __init__(self, machine: Machine, group: int) -> None:
        self._machine = machine
        self._group = group

    def copy(
        self,
        names: Sequence[str],
        seen: Sequence[Seen],
        parts: Sequence[str],
        *,
        folder: int,
        flags: int,
        memory: Memory,
    ) -> list[str]:
        """Copy files of one folder to new parts; return the SHA-256 of each, "" for one that is not plain.

        A hash means: the part holds as many bytes as the source had when it was found, and after it was read both
        the open source and what stands under its name still were what was found (invariant I2). Otherwise nothing
        is left of the part.

        Parameters
        ----------
        names, seen, parts: (n,); what is larger than MOST is not plain.
        folder, flags: where the sources are, and how to open them: nothing may be followed.
        """
        name, part, size, digest, named, opened, source, target, count, other = map(Register, range(1, 11))
        program = [
            Call("openat", (folder, name, flags), into=source),
            Call("read", (source, memory.address, MOST + 1), into=count, least=size),
            Call("SHA256", (memory.address, size, digest), into=other, least=ANYTHING),
            Call("openat", (self._group, part, _PART, 0o644), into=target),
            Call("write", (target, memory.address, size), into=other, least=size),
            Call("statx", (folder, name, _AT_SYMLINK_NOFOLLOW, _STATX_BASIC_STATS, named), into=other),
            Call("statx", (source, memory.no_name, _AT_EMPTY_PATH, _STATX_BASIC_STATS, opened), into=other),
            Call("close", (target,), into=other, cleans_up=True),
            Call("close", (source,), into=other, cleans_up=True),
        ]
        sizes = [each.size for each in seen]
        from_, to = _Names(names), _Names(parts)
        hashes, by_name, by_source = (_Rows(len(names), room) for room in (_HASH, _STATX.size, _STATX.size))
        columns = [from_.addresses, to.addresses, sizes, hashes.addresses, by_name.addresses, by_source.addresses]
        ran = self._machine.run(program, columns)
        found: list[str] = []
        for at, was in enumerate(seen):
            is_whole = not ran[FAILED][at] and ran[count.index][at] == was.size <= MOST
            if is_whole and _seen(by_name.row(at)) == was == _seen(by_source.row(at)):
                found.append(hashes.row(at).hex())
                continue
            found.append("")
            if ran[target.index][at] >= 0:
                os.unlink(parts[at], dir_fd=self._group)
        return found

    def read_back(self, parts: Sequence[str], sizes: Sequence[int], *, memory: Memory) -> list[str]:
        """Read parts through fresh descriptors past the cache; return the SHA-256 of each, "" where that failed.

        A hash is of as many bytes as `sizes` says, and of all that the part has.
        """
        part, size, most, digest, opened, count, other = map(Register, range(1, 8))
        program = [
            Call("openat", (self._group, part, _BACK | os.O_DIRECT), into=opened),
            Call("read", (opened, memory.address, most), into=count, least=size),
            Call("SHA256", (memory.address, size, digest), into=other, least=ANYTHING),
            Call("close", (opened,), into=other, cleans_up=True),
        ]
        named, hashes = _Names(parts), _Rows(len(parts), _HASH)
        whole_pages = [(each // _PAGE + 1) * _PAGE for each in sizes]  # pinning more than is read costs time
        ran = self._machine.run(program, [named.addresses, sizes, whole_pages, hashes.addresses])
        return [
            hashes.row(at).hex() if not failed and got == wanted else ""
            for at, (failed, got, wanted) in enumerate(zip(ran[FAILED], ran[count.index], sizes, strict=True))
        ]

    def rename(self, parts: Sequence[str], names: Sequence[str], *, folder: int) -> list[bool]:
        """Give parts their names in one folder without replacing anything; False for those that stay parts."""
        part, name, other = map(Register, range(1, 4))
        program = [Call("renameat2", (self._group, part, folder, name, _RENAME_NOREPLACE), into=other)]
        from_, to = _Names(parts), _Names(names)
        ran = self._machine.run(program, [from_.addresses, to.addresses])
        return [not failed for failed in ran[FAILED]]


def read_files(
    machine: Machine,
    names: Sequence[str],
    sizes: Sequence[int],
    *,
    folder: int,
    into: bytearray,
    at: Sequence[int],
) -> list[str]:
    """Read files of one folder into memory; return the SHA-256 of each, "" for one that could not be read so.

    Parameters
    ----------
    names, sizes, at: (n,); of each file its name, how many bytes are wanted, and where in `into` they go.
    folder: descriptor; nothing is followed from there.
    """
    if any(begin < 0 or begin + size > len(into) for begin, size in zip(at, sizes, strict=True)):
        raise ValueError("there is no room for a file")
    name, size, room, digest, opened, count, other = map(Register, range(1, 8))
    program = [
        Call("openat", (folder, name, _READ), into=opened),
        Call("read", (opened, room, size), into=count, least=size),
        Call("SHA256", (room, size, digest), into=other, least=ANYTHING),
        Call("close", (opened,), into=other, cleans_up=True),
    ]
    named, hashes, begin = _Names(names), _Rows(len(names), _HASH), _address(into)
    ran = machine.run(program, [named.addresses, sizes, [begin + each for each in at], hashes.addresses])
    return ["" if failed else hashes.row(number).hex() for number, failed in enumerate(ran[FAILED])]


class _Names:
    """Names as C wants them."""

    def __init__(self, names: Sequence[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._kept = bytearray(b"\0".join([*encoded, b""]))
        begins = itertools.accumulate((len(each) + 1 for each in encoded[:-1]), initial=_address(self._kept))
        self.addresses = list(begins)


class _Rows:
    """Room of one length for each file."""

    def __init__(self, count: int, length: int) -> None:
        self._kept = bytearray(count * length)
        self._length = length
        begin = _address(self._kept)
        self.addresses = range(begin, begin + count * length, length)

    def row(self, at: int) -> bytes:
        """Return what was written into the room of a file."""
        return bytes(self._kept[at * self._length : (at + 1) * self._length])


def _address(room: Any) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(room))


def _seen(status: bytes) -> Seen:
    ino, size, c_s, c_ns, m_s, m_ns, major, minor = _STATX.unpack(status)
    return Seen(os.makedev(major, minor), ino, size, m_s * 10**9 + m_ns, c_s * 10**9 + c_ns)
