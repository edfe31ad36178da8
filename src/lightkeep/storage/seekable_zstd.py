"""Zstandard that can be read from anywhere: independent frames, and a table of them at the end.

The layout is that of zstd's contrib/seekable_format (version 0.1.0): frames of equal uncompressed length, then one
skippable frame with their lengths. Every zstd decompressor reads it from the start and passes over the table.

    skippable frame: 0x184D2A5E, length of what follows | per frame: compressed, uncompressed length (u32 each)
                     | number of frames (u32), descriptor (u8, 0: no checksums here), 0x8F92EAB1

Each frame ends with the checksum of its content, which is checked when it is read.
"""

from __future__ import annotations

import io
import os
import struct
import sys
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import accumulate
from typing import BinaryIO, Final, cast

from lightkeep.model.errors import Corrupt
from lightkeep.model.stores import Readable

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESSED: Final = ".zst"
"""How the key of such an object ends."""
FRAME: Final = 2 << 20
LEVEL: Final = 3
_TABLE: Final = 0x184D2A5E
_FOOTER: Final = struct.Struct("<IBI")
_HEAD: Final = struct.Struct("<II")
_ENTRY: Final = struct.Struct("<II")
_SEEKABLE: Final = 0x8F92EAB1
_REMEDY: Final = "verify the unit; where it is whole, `zstd -d` reads it from the start"


class CompressedStream:
    """What a source holds, compressed on the way; a `Readable` whose length is known only at its end.

    Parameters
    ----------
    threads: how many frames are compressed at once; 1: in the caller's thread. The result is the same.
    frame: uncompressed bytes in a frame; a read from anywhere decompresses at least one.
    """

    def __init__(self, source: Readable, *, threads: int = 2, frame: int = FRAME, level: int = LEVEL) -> None:
        self._source = source
        self._threads = threads
        self._frame = frame
        self._options: dict[int, int] = {
            zstd.CompressionParameter.compression_level: level,
            zstd.CompressionParameter.checksum_flag: 1,
        }
        self._pieces = self._run()
        self._left = memoryview(b"")

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the buffer; less than its length only at the end."""
        filled = 0
        while filled < len(buffer):
            if not self._left:
                piece = next(self._pieces, None)
                if piece is None:
                    break
                self._left = memoryview(piece)
            count = min(len(self._left), len(buffer) - filled)
            buffer[filled : filled + count] = self._left[:count]
            self._left = self._left[count:]
            filled += count
        return filled

    def _run(self) -> Iterator[bytes]:
        entries: list[bytes] = []
        frames = self._compressed_ahead() if self._threads > 1 else map(self._compress, self._blocks())
        for size, frame in frames:
            entries.append(_ENTRY.pack(len(frame), size))
            yield frame
        table = b"".join(entries) + _FOOTER.pack(len(entries), 0, _SEEKABLE)
        yield _HEAD.pack(_TABLE, len(table)) + table

    def _blocks(self) -> Iterator[bytes]:
        while True:
            block = bytearray(self._frame)
            view, filled = memoryview(block), 0
            while filled < self._frame and (count := self._source.readinto(view[filled:]) or 0):
                filled += count
            if filled:
                yield bytes(view[:filled])
            if filled < self._frame:
                return

    def _compress(self, block: bytes) -> tuple[int, bytes]:
        return len(block), zstd.compress(block, options=self._options)

    def _compressed_ahead(self) -> Iterator[tuple[int, bytes]]:
        coming: deque[Future[tuple[int, bytes]]] = deque()
        with ThreadPoolExecutor(self._threads) as pool:
            for block in self._blocks():
                coming.append(pool.submit(self._compress, block))
                if len(coming) > self._threads:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()


class SeekableReader(io.RawIOBase):
    """The uncompressed bytes of a seekable zstd file, from anywhere; closing it closes the file.

    Raises
    ------
    Corrupt: there is no table at the end, or a frame is damaged.
    """

    def __init__(self, file: BinaryIO | io.RawIOBase) -> None:
        self._file = file
        sizes = _table(file)
        self._starts = [0, *accumulate(size for size, _ in sizes)]
        self._contents = [0, *accumulate(size for _, size in sizes)]
        self._at = 0
        self._kept = (-1, b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; the end is that of the uncompressed content."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._contents[-1]}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: object) -> int:
        """Fill the buffer from the present frame; 0 at the end."""
        view = memoryview(cast(bytearray, buffer)).cast("B")
        if self._at >= self._contents[-1] or not view:
            return 0
        number = bisect_right(self._contents, self._at) - 1
        if self._kept[0] != number:
            self._kept = number, self._decompress(number)
        begin = self._at - self._contents[number]
        part = self._kept[1][begin : begin + len(view)]
        view[: len(part)] = part
        self._at += len(part)
        return len(part)

    def _decompress(self, number: int) -> bytes:
        begin, end = self._starts[number : number + 2]
        expected = self._contents[number + 1] - self._contents[number]
        frame = _read(self._file, begin, end - begin)
        try:
            info = zstd.get_frame_info(frame)
            if info.decompressed_size != expected:  # before it is decompressed: a bomb says what it is
                raise zstd.ZstdError(f"a frame of {info.decompressed_size} bytes, not {expected}")
            return zstd.decompress(frame)
        except zstd.ZstdError as error:
            raise Corrupt(f"frame {number} of a compressed unit is damaged: {error}", remedy=_REMEDY) from error

    def close(self) -> None:
        """Close the file too."""
        if not self.closed:
            self._file.close()
        super().close()


def _table(file: BinaryIO | io.RawIOBase) -> list[tuple[int, int]]:
    """Return (compressed, uncompressed) length of each frame."""
    end = file.seek(0, os.SEEK_END)
    footer = _read(file, max(0, end - _FOOTER.size), min(end, _FOOTER.size))
    if len(footer) == _FOOTER.size:
        count, descriptor, magic = _FOOTER.unpack(footer)
        size = _HEAD.size + count * _ENTRY.size + _FOOTER.size
        if magic == _SEEKABLE and descriptor == 0 and size <= end:
            table = _read(file, end - size, size)
            sizes = list(_ENTRY.iter_unpack(table[_HEAD.size : -_FOOTER.size]))
            if _HEAD.unpack_from(table) == (_TABLE, size - _HEAD.size) and sum(s for s, _ in sizes) == end - size:
                return sizes
    raise Corrupt("a compressed unit has no table of frames at its end", remedy=_REMEDY)


def _read(file: BinaryIO | io.RawIOBase, start: int, size: int) -> bytes:
    file.seek(start)
    block = bytearray(size)
    view, filled = memoryview(block), 0
    while filled < size and (count := cast(Readable, file).readinto(view[filled:]) or 0):
        filled += count
    return bytes(view[:filled])


def ratio(sample: bytes, *, level: int = LEVEL) -> float:
    """Return compressed over uncompressed length of a sample; 1 for an empty one.

    >>> ratio(b"")
    1.0
    """
    return len(zstd.compress(sample, level)) / len(sample) if sample else 1.0
