"""An archive unit as a stream: files in, a BagIt-conformant tar out, each file read once.

    <unit>/bagit.txt  bag-info.txt
    <unit>/data/<dataset>/<path>      the files, sorted
    <unit>/manifest-sha256.txt        after them: their hashes are known once they were read
    <unit>/lightkeep-index.json       offset, size, hash and catalogue id of each
    <unit>/tagmanifest-sha256.txt

Its length is known before the first byte is read, so that a store can be told. docs/reference/archive-unit.md
is the specification.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tarfile
import unicodedata
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import BinaryIO, Final, cast

from lightkeep.model.datasets import File
from lightkeep.model.errors import InvalidInput, LightkeepError, SourceError
from lightkeep.model.stores import GivesFiles, Readable
from lightkeep.storage.unit_index import INDEX_NAME, PATH_MARK, UnitIndex, UnitMember, check_unit_id

_BLOCK: Final = 512
_END: Final = 4096
"""The tar's length is a multiple of it: it is written past the cache to its last block."""
_SMALL: Final = 1 << 20
_AHEAD: Final = 16
"""Shares of small files read before they are due: a cold file costs a seek, and seeks can overlap."""
_WAITING: Final = 4
"""Threads for each one that reads: they wait for the disk more than for each other."""
_TOGETHER: Final = 64
_LONG: Final = 900
"""Bytes of a path from which on not every tool could unpack it below a folder."""
_HEADER: Final = struct.Struct("100s8s8s8s12s12s8sc100s6s2s32s32s8s8s155s12x")
"""name mode uid gid size mtime checksum type link magic version user group major minor prefix"""
_NOBODY: Final = b"0000000"
_LARGEST: Final = 1 << 33
"""What eleven octal digits can hold, and one more."""
_NO_HASH: Final = "0" * 64
_BAGIT: Final = b"BagIt-Version: 1.0\nTag-File-Character-Encoding: UTF-8\n"


@dataclass(frozen=True, slots=True)
class UnitSource:
    """One file that goes into a unit, and where its bytes come from."""

    file: File
    open: Callable[[], BinaryIO]
    """Called in any thread, and twice when a sample is taken; for example `partial(store.open, replica.key)`."""
    store: GivesFiles | None = None
    """Reads it together with other small ones; None: it is opened."""
    key: str = ""
    """Its name there."""


class UnitStream:
    """The bytes of a unit's tar, in order; a `Readable` for `Staging.write`.

    Parameters
    ----------
    sources: the files, in any order; each (dataset, path, version) once.
    unit_id: letters, digits, `_` and `-`.
    key: name of the unit on its store.
    threads: how many read small files ahead; 1: none, everything happens in the caller's thread.
    read: told, in any thread, how many bytes were read of files that were not opened.

    Raises
    ------
    SourceError, when it is read: a file cannot be read, or is not what its manifest says; `data` has `file_id`.
    """

    def __init__(
        self,
        sources: Sequence[UnitSource],
        *,
        unit_id: str,
        key: str,
        experiment_id: str,
        created_at: datetime,
        threads: int = 2,
        read: Callable[[int], None] | None = None,
    ) -> None:
        check_unit_id(unit_id)
        self._threads = threads
        self._read = read
        self._sources = sorted(sources, key=lambda each: _order(each.file))
        self._headers, members, at = self._layout(unit_id)
        self._index = UnitIndex(
            unit_id, key, experiment_id, created_at.astimezone(UTC).isoformat(), tuple(members), plain_size=0
        )
        tail = sum(len(piece) for piece in self._tail(members))
        self.size = -(-(at + tail + 2 * _BLOCK) // _END) * _END
        """Bytes of the tar."""
        self._members: list[UnitMember] = []
        self._pieces = self._run()
        self._left = memoryview(b"")
        self._large: _Large | None = None

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer; less than its length only at the end."""
        filled = 0
        while filled < len(buffer) and (count := self._give(buffer[filled:])):
            filled += count
        return filled

    def index(self) -> UnitIndex:
        """What the tar holds, once all of it was read."""
        if len(self._members) != len(self._sources):
            raise ValueError("the unit was not read to its end")
        return replace(self._index, members=tuple(self._members), plain_size=self.size)

    def _give(self, buffer: memoryview) -> int:
        while True:
            if self._left:
                count = min(len(self._left), len(buffer))
                buffer[:count] = self._left[:count]
                self._left = self._left[count:]
                return count
            if self._large is not None:
                if count := self._large.readinto(buffer):
                    return count
                self._large = None
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            if isinstance(piece, _Large):
                self._large = piece
            else:
                self._left = memoryview(piece)

    def _layout(self, unit_id: str) -> tuple[list[bytes], list[UnitMember], int]:
        """Return every header, every member without its hash, and where the last one ends."""
        self._folder = unit_id
        at = sum(len(piece) for piece in self._head(unit_id))
        headers, members, names = [], [], set()
        for source in self._sources:
            file = source.file
            name = archive_name(file)
            if name in names:
                raise InvalidInput(f"unit {unit_id} would have {file.path!r} of {file.dataset_id} twice")
            names.add(name)
            headers.append(_header(f"{unit_id}/{name}", file))
            at += len(headers[-1])
            members.append(
                UnitMember(file.dataset_id, file.path, file.version, file.id, name, at, file.size, _NO_HASH)
            )
            at += _padded(file.size)
        return headers, members, at

    def _head(self, unit_id: str) -> list[bytes]:
        size = sum(source.file.size for source in self._sources)
        self._bag_info = (
            f"External-Identifier: {unit_id}\nPayload-Oxum: {size}.{len(self._sources)}\n"
            "Bag-Software-Agent: Lightkeep\n"
        ).encode()
        return [*self._tag("bagit.txt", _BAGIT), *self._tag("bag-info.txt", self._bag_info)]

    def _tail(self, members: list[UnitMember]) -> list[bytes]:
        manifest = "".join(f"{member.sha256}  {member.name}\n" for member in members).encode()
        index = replace(self._index, members=tuple(members)).to_json()
        tags = {
            "bag-info.txt": self._bag_info,
            "bagit.txt": _BAGIT,
            INDEX_NAME: index,
            "manifest-sha256.txt": manifest,
        }
        hashes = "".join(f"{hashlib.sha256(text).hexdigest()}  {name}\n" for name, text in tags.items()).encode()
        return [
            *self._tag("manifest-sha256.txt", manifest),
            *self._tag(INDEX_NAME, index),
            *self._tag("tagmanifest-sha256.txt", hashes),
        ]

    def _tag(self, name: str, content: bytes) -> list[bytes]:
        header = _header(f"{self._folder}/{name}", File("", "", name, len(content), ""))
        return [header, content, bytes(_padded(len(content)) - len(content))]

    def _run(self) -> Iterator[bytes | bytearray | _Large]:
        written = 0
        for piece in self._head(self._folder):
            written += len(piece)
            yield piece
        entries = list(zip(self._sources, self._headers, strict=True))
        for content in _Ahead(entries, self._threads, self._read) if self._threads > 1 else self._at_once(entries):
            member = self._index.members[len(self._members)]
            if isinstance(content, _Large):
                yield self._headers[len(self._members)]
                yield content
                hashes = [content.sha256()]
                yield bytes(_padded(member.size) - member.size)
            else:
                together, hashes = content
                yield together
            for sha256 in hashes:
                member = self._index.members[len(self._members)]
                self._members.append(replace(member, sha256=sha256))
            written = member.offset + _padded(member.size)
        for piece in self._tail(self._members):
            written += len(piece)
            yield piece
        yield bytes(self.size - written)

    def _at_once(self, entries: Sequence[_Entry]) -> Iterator[tuple[bytearray, list[str]] | _Large]:
        for share in _shares(entries):
            yield _Large(share[0][0]) if _is_large(share) else _read_share(share, self._read)


_Entry = tuple[UnitSource, bytes]
"""A file and its header."""


class _Large:
    """A file that is read while it is written."""

    def __init__(self, source: UnitSource) -> None:
        self._file = source.file
        self._source = _open(source)
        self._digest = hashlib.sha256()
        self._left = source.file.size

    def readinto(self, buffer: memoryview) -> int:
        """Fill the buffer; 0 at the end."""
        if not self._left:
            return 0
        try:
            count = cast(Readable, self._source).readinto(buffer[: self._left]) or 0
        except (OSError, LightkeepError) as error:
            raise _failed(self._file, "cannot be read") from error
        if not count:
            raise _failed(self._file, f"ends {self._left} bytes too early")
        self._digest.update(buffer[:count])
        self._left -= count
        return count

    def sha256(self) -> str:
        """Close the file and return its hash. Raises SourceError when it is not the manifest's."""
        self._source.close()
        return _checked(self._file, self._digest.hexdigest())


class _Ahead:
    """The files in order, the next small ones being read meanwhile, some at a time with their headers."""

    def __init__(self, entries: Sequence[_Entry], threads: int, read: Callable[[int], None] | None) -> None:
        self._waiting = _shares(entries)
        self._read = read
        self._pool = ThreadPoolExecutor(threads * _WAITING)
        self._coming: deque[Future[tuple[bytearray, list[str]]] | UnitSource] = deque()

    def __iter__(self) -> Iterator[tuple[bytearray, list[str]] | _Large]:
        try:
            self._fill()
            while self._coming:
                first = self._coming.popleft()
                self._fill()
                yield _Large(first) if isinstance(first, UnitSource) else first.result()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def _fill(self) -> None:
        while len(self._coming) < _AHEAD and (share := next(self._waiting, None)):
            large = share[0][0] if _is_large(share) else None
            self._coming.append(large or self._pool.submit(_read_share, share, self._read))


def _shares(entries: Sequence[_Entry]) -> Iterator[list[_Entry]]:
    """Cut into what one thread reads at once: a handover costs as much as a small file."""
    share: list[_Entry] = []
    size = 0
    for entry in entries:
        more = entry[0].file.size
        if share and (size + more > _SMALL or len(share) == _TOGETHER):
            yield share
            share, size = [], 0
        share.append(entry)
        size += more
    if share:
        yield share


def _is_large(share: Sequence[_Entry]) -> bool:
    return share[0][0].file.size > _SMALL


def _read_share(share: Sequence[_Entry], read: Callable[[int], None] | None) -> tuple[bytearray, list[str]]:
    """Return small files as they stand in the tar, headers and padding and all, and the hash of each."""
    begins, at = [], 0
    for source, header in share:
        begins.append(at + len(header))
        at += len(header) + _padded(source.file.size)
    content = bytearray(at)
    hashes = _read_together(share, content, begins, read)
    room = memoryview(content)
    for number, ((source, header), begin) in enumerate(zip(share, begins, strict=True)):
        room[begin - len(header) : begin] = header
        if not hashes[number] or (source.file.sha256 and hashes[number] != source.file.sha256):
            hashes[number] = _read_small(source, room[begin : begin + source.file.size])
    return content, hashes


def _read_together(
    share: Sequence[_Entry], content: bytearray, begins: Sequence[int], read: Callable[[int], None] | None
) -> list[str]:
    """Read what one call of a store can; return the hash of each, "" for the others."""
    hashes = [""] * len(share)
    store = share[0][0].store
    numbers = [number for number, (source, _) in enumerate(share) if store is not None and source.store is store]
    if store is None or not numbers:
        return hashes
    files = [share[number][0] for number in numbers]
    sizes, at = [each.file.size for each in files], [begins[number] for number in numbers]
    try:
        found = store.read_many([each.key for each in files], sizes, into=content, at=at)
    except LightkeepError:  # said when it is opened
        return hashes
    for number, sha256 in zip(numbers, found, strict=True):
        hashes[number] = sha256
    if read is not None:
        read(sum(size for size, sha256 in zip(sizes, found, strict=True) if sha256))
    return hashes


def _read_small(source: UnitSource, room: memoryview) -> str:
    large = _Large(source)
    at = 0
    while count := large.readinto(room[at:]):
        at += count
    return large.sha256()


def _open(source: UnitSource) -> BinaryIO:
    try:
        return source.open()
    except (OSError, LightkeepError) as error:
        raise _failed(source.file, "cannot be opened") from error


def head(source: UnitSource, size: int) -> bytes:
    """Return the first bytes of a file. Raises SourceError when it cannot be read."""
    file = _open(source)
    try:
        return file.read(size)
    except (OSError, LightkeepError) as error:
        raise _failed(source.file, "cannot be read") from error
    finally:
        file.close()


def _checked(file: File, sha256: str) -> str:
    if file.sha256 and sha256 != file.sha256:
        raise _failed(file, "is not what its manifest says")
    return sha256


def _failed(file: File, what: str) -> SourceError:
    return SourceError(
        f"{file.path!r} of {file.dataset_id} {what}",
        remedy="run `lightkeep verify` on its dataset; nothing of the unit was kept",
        file_id=file.id,
        dataset_id=file.dataset_id,
    )


def archive_name(file: File) -> str:
    """Return a file's name in the tar, below the bag's folder.

    A path that some tool would not unpack, or would write otherwise in a manifest (a line break, a percent sign,
    bytes that are no UTF-8, another normal form of Unicode, a trailing space, a very long path), gets a safe name;
    its own one is in the index, and in the tar's header.

    >>> archive_name(File("f", "ds_1", "scan/a.h5", 1, ""))
    'data/ds_1/scan/a.h5'
    >>> archive_name(File("f", "ds_1", "100%.h5", 1, ""))
    'data/ds_1+odd/8e279d32a1672a04-100_.h5'
    """
    version = f"+v{file.version}" if file.version > 1 else ""
    if _is_plain(file.path):
        return f"data/{file.dataset_id}{version}/{file.path}"
    digest = hashlib.sha256(os.fsencode(file.path)).hexdigest()[:16]
    last = file.path.rpartition("/")[2][-60:]
    safe = "".join(each if each.isascii() and (each.isalnum() or each in "._-") else "_" for each in last)
    return f"data/{file.dataset_id}+odd{file.version if version else ''}/{digest}-{safe}"


def _is_plain(path: str) -> bool:
    return (
        path.isprintable()  # no control characters, no lone surrogates, no space but the usual one
        and "%" not in path
        and not path.endswith(" ")
        and len(path.encode()) <= _LONG
        and unicodedata.is_normalized("NFC", path)
    )


def _header(name: str, file: File) -> bytes:
    """Return a member's header: a plain POSIX one where it suffices, which also is a third of tarfile's time."""
    mode, mtime = file.mode & 0o777, max(0, file.mtime_ns // 1_000_000_000)
    is_plain = _is_plain(file.path)
    split = _split(name) if is_plain and file.size < _LARGEST and mtime < _LARGEST else None
    if split is not None:
        return _plain_header(*split, mode, file.size, mtime)
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = file.size, mode, mtime
    if not is_plain:
        info.pax_headers = {"comment": PATH_MARK + os.fsencode(file.path).hex()}
    return info.tobuf(tarfile.PAX_FORMAT)


def _split(name: str) -> tuple[bytes, bytes] | None:
    """Return (prefix, name) as a POSIX header has them, None when they do not fit."""
    if not name.isascii():
        return None
    text = name.encode()
    if len(text) <= 100:
        return b"", text
    at = text.find(b"/", len(text) - 101)
    return (text[:at], text[at + 1 :]) if 0 < at <= 155 and at + 1 < len(text) else None


def _plain_header(prefix: bytes, name: bytes, mode: int, size: int, mtime: int) -> bytes:
    fields = [name, b"%07o" % mode, _NOBODY, _NOBODY, b"%011o" % size, b"%011o" % mtime, b" " * 8, b"0", b"",
              b"ustar", b"00", b"", b"", _NOBODY, _NOBODY, prefix]  # fmt: skip
    fields[6] = b"%06o\0 " % sum(_HEADER.pack(*fields))
    return _HEADER.pack(*fields)


def _order(file: File) -> tuple[str, bytes, int]:
    return file.dataset_id, os.fsencode(file.path), file.version


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
