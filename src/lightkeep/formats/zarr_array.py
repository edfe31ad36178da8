"""Arrays as Zarr v3 files: many chunks in each file (sharding), compressed on all cores.

Only what results need is written: float32, three axes, slab by slab along the first. A chunk of nothing but zeros
takes no room. Blosc (LZ4 on shuffled bytes) is a codec of the Zarr v3 core that every reader has; here it is the
one that hdf5plugin ships for HDF5. The index of a shard is the offset and size of each chunk as little-endian
uint64, and a CRC-32C: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
from collections.abc import Sequence
from concurrent.futures import Executor
from math import isqrt, prod
from pathlib import Path
from typing import Any, Final

import hdf5plugin
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Shape = tuple[int, int, int]

_CHUNK_VALUES: Final = 1 << 18
"""1 MiB of float32: one look at a slice or a block in a browser loads few of them, and each soon."""
_DEPTH: Final = 64
"""Slices of a chunk, and of a shard."""
_SHARD_SIDE: Final = 1024
"""Pixels of a shard's sides: 256 MiB before compression, so that 2048 slices of 2048 x 2048 are 128 files."""
_LEVEL, _SHUFFLE, _OVERHEAD = 5, 1, 16
_EMPTY: Final = 2**64 - 1


class ArrayWriter:
    """Writer of one float32 array.

    Parameters
    ----------
    folder: of the array; it is made.
    shape: its length along z, y and x.
    pool: what compresses.
    """

    def __init__(self, folder: Path, shape: Shape, *, pool: Executor) -> None:
        self.folder, self.shape, self._pool = folder, shape, pool
        self.chunk = chunk_shape(shape)
        self.shard = (self.chunk[0], *(_shard_side(n, c) for n, c in zip(shape[1:], self.chunk[1:], strict=True)))
        folder.mkdir(parents=True, exist_ok=True)
        self.files = [folder / "zarr.json"]
        self.files[0].write_text(json.dumps(self._metadata(), indent=1), "utf-8")

    @property
    def depth(self) -> int:
        """How many slices `put` takes at once."""
        return self.chunk[0]

    def put(self, begin: int, slices: Float32) -> None:
        """Write `depth` slices from `begin` on, a multiple of it; fewer only where the array ends."""
        _, height, width = self.shard
        for y in range(-(-self.shape[1] // height)):
            for x in range(-(-self.shape[2] // width)):
                path = self.folder / "c" / str(begin // self.depth) / str(y) / str(x)
                self._put_shard(path, slices[:, y * height : (y + 1) * height, x * width : (x + 1) * width])

    def _put_shard(self, path: Path, values: Float32) -> None:
        _, height, width = self.chunk
        corners = [(y, x) for y in range(0, self.shard[1], height) for x in range(0, self.shard[2], width)]
        encode = functools.partial(_encoded, values, self.chunk)
        index = np.full((len(corners), 2), _EMPTY, "<u8")
        path.parent.mkdir(parents=True, exist_ok=True)
        at = 0
        with path.open("wb") as file:
            for number, content in enumerate(self._pool.map(encode, corners)):
                if content:
                    index[number] = at, len(content)
                    at += file.write(content)
            table = index.tobytes()
            file.write(table + crc32c(table).to_bytes(4, "little"))
        self.files.append(path)

    def _metadata(self) -> dict[str, Any]:
        little = {"name": "bytes", "configuration": {"endian": "little"}}
        blosc = {"cname": "lz4", "clevel": _LEVEL, "shuffle": "shuffle", "typesize": 4, "blocksize": 0}
        sharding = {
            "chunk_shape": self.chunk,
            "codecs": [little, {"name": "blosc", "configuration": blosc}],
            "index_codecs": [little, {"name": "crc32c"}],
            "index_location": "end",
        }
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": self.shape,
            "data_type": "float32",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": self.shard}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
            "fill_value": 0.0,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
            "attributes": {},
            "dimension_names": ["z", "y", "x"],
        }


def chunk_shape(shape: Shape) -> Shape:
    """Return the chunks of an array: cubes, and flat ones for few slices.

    >>> chunk_shape((2048, 2048, 2048)), chunk_shape((2, 640, 640)), chunk_shape((3, 40, 40))
    ((64, 64, 64), (2, 256, 256), (3, 40, 40))
    """
    depth = min(_DEPTH, shape[0])
    side = 1 << (isqrt(_CHUNK_VALUES // depth).bit_length() - 1)
    return depth, min(side, shape[1]), min(side, shape[2])


def _shard_side(length: int, chunk: int) -> int:
    """A whole number of chunks that is at most `_SHARD_SIDE`, or what the array needs."""
    return chunk * min(-(-length // chunk), max(1, _SHARD_SIDE // chunk))


def _encoded(values: Float32, chunk: Shape, corner: tuple[int, int]) -> bytes:
    """Return the compressed chunk at a corner (y, x) of a shard; nothing when all of it is zero."""
    y, x = corner
    part = values[:, y : y + chunk[1], x : x + chunk[2]]
    if not part.any():
        return b""
    if part.shape == chunk:
        return compressed(np.ascontiguousarray(part, "<f4"))
    whole = np.zeros(chunk, "<f4")  # over the array's end: readers want whole chunks
    whole[tuple(slice(0, length) for length in part.shape)] = part
    return compressed(whole)


def compressed(values: NDArray[Any]) -> bytes:
    """Return a contiguous array's bytes in Blosc's frame."""
    room = values.nbytes + _OVERHEAD
    out = ctypes.create_string_buffer(room)
    used = _library().blosc_compress_ctx(
        _LEVEL, _SHUFFLE, values.itemsize, values.nbytes, values.ctypes.data, out, room, b"lz4", 0, 1
    )
    if used <= 0:
        raise ValueError(f"blosc answered {used} for {prod(values.shape)} values")
    return ctypes.string_at(out, used)


@functools.cache
def _library() -> Any:
    """The library of hdf5plugin's Blosc filter. Calls into it hold no lock of Python's."""
    library = ctypes.CDLL(os.path.join(hdf5plugin.PLUGIN_PATH, "libh5blosc.so"))
    integer, size, pointer = ctypes.c_int, ctypes.c_size_t, ctypes.c_void_p
    library.blosc_compress_ctx.restype = integer
    library.blosc_compress_ctx.argtypes = [
        *(integer, integer, size, size, pointer, pointer, size, ctypes.c_char_p, size, integer)
    ]
    return library


def crc32c(content: bytes) -> int:
    """Return the CRC-32C (Castagnoli) of a few bytes.

    >>> hex(crc32c(b"123456789"))
    '0xe3069283'
    """
    value = 0xFFFFFFFF
    table = _table()
    for byte in content:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


@functools.cache
def _table() -> Sequence[int]:
    def entry(value: int) -> int:
        for _ in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        return value

    return tuple(entry(byte) for byte in range(256))
