"""HDF5 chunks decoded outside HDF5, by several threads.

HDF5 decodes under one lock, a chunk at a time. Here a chunk is read as it lies in the file, and decoded by the
bitshuffle and LZ4 functions of the same library that HDF5 would call (the one that hdf5plugin ships), in threads
that hold no lock. Datasets that are compressed in another way are read through HDF5.

The layouts: bitshuffle, Masui et al. (2015), Astronomy and Computing 12, 181, and the registered filters 32008 and
32004: size of the values in bytes (8 bytes, big-endian), size of a block (4 bytes, big-endian), then per block its
compressed size (4 bytes, big-endian) and content.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from lightkeep.model.errors import BadFile

_BITSHUFFLE, _LZ4 = 32008, 32004
_WITH = {2: "lz4", 3: "zstd"}
_BLOCK_BYTES = 8192
Decode = Callable[[bytes, NDArray[Any]], None]
"""Fills a contiguous array from a chunk's bytes; ValueError when they do not fit."""


def decoder(dataset: h5py.Dataset) -> Decode | None:
    """Return what decodes the chunks of a dataset, or None where only HDF5 can."""
    plist = dataset.id.get_create_plist()
    if dataset.chunks is None or plist.get_layout() != h5py.h5d.CHUNKED:
        return None
    filters = [plist.get_filter(index) for index in range(plist.get_nfilters())]
    if not filters:
        return _copy
    code, _flags, values, _name = filters[0]
    if len(filters) > 1 or dataset.dtype.kind not in "iuf":
        return None
    if code == _BITSHUFFLE and len(values) >= 5 and values[4] in _WITH:
        return functools.partial(_bitunshuffle, getattr(_library(), f"bshuf_decompress_{_WITH[values[4]]}"))
    if code == _LZ4:
        return _lz4
    return None


def read_chunk(path: Path, dataset: h5py.Dataset, offset: tuple[int, ...]) -> tuple[int, bytes]:
    """Return (filters that were skipped, bytes) of the chunk at an offset; BadFile when it has none."""
    try:
        skipped, content = dataset.id.read_direct_chunk(offset)
    except (OSError, RuntimeError, ValueError) as error:
        raise BadFile(
            f"{path}: frame {offset[0]} of {dataset.name} was never written, or is damaged",
            remedy="copy the file again from where it was measured, or end the run before that frame",
        ) from error
    return skipped, content


def decode_chunk(path: Path, at: int, decode: Decode, chunk: tuple[int, bytes], out: NDArray[Any]) -> None:
    """Decode a chunk into a contiguous array; BadFile naming its first frame when it does not fit."""
    skipped, content = chunk
    try:
        (_copy if skipped else decode)(content, out)
    except ValueError as error:
        raise BadFile(
            f"{path}: frame {at} cannot be decoded: {error}",
            remedy="copy the file again from where it was measured",
        ) from error


def encode(frame: NDArray[Any]) -> bytes:
    """Return the chunk of one frame, bitshuffled and compressed by LZ4."""
    values = np.ascontiguousarray(frame)
    block = _BLOCK_BYTES // values.itemsize
    bound = int(_library().bshuf_compress_lz4_bound(values.size, values.itemsize, block))
    room = bytearray(12 + bound)
    struct.pack_into(">QI", room, 0, values.nbytes, block * values.itemsize)
    target = (ctypes.c_char * bound).from_buffer(room, 12)
    used = _library().bshuf_compress_lz4(values.ctypes.data, target, values.size, values.itemsize, block)
    if used < 0:
        raise ValueError(f"bitshuffle answered {used}")
    return bytes(memoryview(room)[: 12 + used])


def _copy(content: bytes, out: NDArray[Any]) -> None:
    if len(content) != out.nbytes:
        raise ValueError(f"{len(content)} bytes, not {out.nbytes}")
    out.view(np.uint8).reshape(-1)[:] = np.frombuffer(content, np.uint8)


def _bitunshuffle(function: Any, content: bytes, out: NDArray[Any]) -> None:
    block_bytes = _check_header(content, out)
    if block_bytes % out.itemsize or (block_bytes // out.itemsize) % 8:
        raise ValueError(f"blocks of {block_bytes} bytes")
    block, rest = block_bytes // out.itemsize, out.size % (block_bytes // out.itemsize)
    count = out.size // block + (rest >= 8)
    _check_blocks(content, count, rest % 8 * out.itemsize)
    used = function(_address(content, 12), out.ctypes.data, out.size, out.itemsize, block)
    if used != len(content) - 12:
        raise ValueError(f"bitshuffle answered {used}")


def _lz4(content: bytes, out: NDArray[Any]) -> None:
    block_bytes = _check_header(content, out)
    count = -(-out.nbytes // block_bytes)
    _check_blocks(content, count, 0)
    at = 12
    for number in range(count):
        begin = number * block_bytes
        wanted = min(block_bytes, out.nbytes - begin)
        (packed,) = struct.unpack_from(">I", content, at)
        source, target = _address(content, at + 4), out.ctypes.data + begin
        if packed == wanted:  # stored as it is
            ctypes.memmove(target, source, wanted)
        elif _library().LZ4_decompress_safe(source, target, packed, wanted) != wanted:
            raise ValueError(f"block {number} is damaged")
        at += 4 + packed


def _check_header(content: bytes, out: NDArray[Any]) -> int:
    """Return the block size that a chunk announces; the library itself believes whatever stands there."""
    if len(content) < 12:
        raise ValueError(f"{len(content)} bytes")
    size, block_bytes = struct.unpack_from(">QI", content)
    if size != out.nbytes or block_bytes == 0:
        raise ValueError(f"it announces {size} bytes in blocks of {block_bytes}, not {out.nbytes}")
    return int(block_bytes)


def _check_blocks(content: bytes, count: int, after: int) -> None:
    """Walk the blocks' sizes, so that no decoder reads past the end: they fill the chunk, but the bytes `after`.

    A size that is cut off counts as less than it says, and the walk still ends beyond the chunk.
    """
    at = 12
    for _ in range(count):
        at += 4 + int.from_bytes(content[at : at + 4], "big")
    if at + after != len(content):
        raise ValueError(f"{len(content)} bytes do not hold {count} blocks")


def _address(content: bytes, offset: int) -> int:
    address = ctypes.cast(ctypes.c_char_p(content), ctypes.c_void_p).value
    assert address is not None  # noqa: S101 -- bytes have an address
    return address + offset


@functools.cache
def _library() -> Any:
    """The library of hdf5plugin's bitshuffle filter. Calls into it hold no lock of Python's."""
    library = ctypes.CDLL(os.path.join(hdf5plugin.PLUGIN_PATH, "libh5bshuf.so"))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    for name in ("bshuf_decompress_lz4", "bshuf_decompress_zstd", "bshuf_compress_lz4"):
        function = getattr(library, name)
        function.restype, function.argtypes = ctypes.c_int64, [pointer, pointer, size, size, size]
    library.bshuf_compress_lz4_bound.restype = ctypes.c_size_t
    library.bshuf_compress_lz4_bound.argtypes = [size, size, size]
    library.LZ4_decompress_safe.argtypes = [pointer, pointer, ctypes.c_int, ctypes.c_int]
    return library
