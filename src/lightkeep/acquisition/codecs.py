"""Frames that come compressed are kept compressed: their bytes become chunks of an HDF5 file as they are.

The detectors' codecs and the filters of HDF5 share their libraries; only what stands before the bytes differs:

    bslz4   bitshuffle and LZ4    8 bytes of size, 4 of block size, then blocks of 8192 bytes
    lz4     one LZ4 block         8 bytes of size, 4 of block size, 4 of compressed size, then the block
    blosc   Blosc                 nothing
    zlib    deflate               nothing

The sizes are big-endian. An Eiger sends the 12 bytes of bslz4 itself; EPICS areaDetector leaves them out. Sources:
SIMPLON API of DECTRIS, stream interface; ADCore, NDPluginCodec; the HDF5 filters 32008, 32004, 32001 and 1.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from math import prod
from typing import Any, Final

import hdf5plugin
import numpy as np

from lightkeep.model.acquisition import Packed
from lightkeep.model.errors import SourceError

_BITSHUFFLE_BLOCK: Final = 8192
_SCALARS: Final = {
    1: "<i1", 2: "<i2", 3: "<i4", 4: "<i8", 5: "<u1", 6: "<u2", 7: "<u4", 8: "<u8", 9: "<f4", 10: "<f8"
}  # fmt: skip
"""How pvData numbers the types of values; areaDetector's `codec.parameters` has the one before compression."""


FILTERS: Final[dict[str, tuple[int, dict[str, Any]]]] = {
    "bslz4": (32008, dict(hdf5plugin.Bitshuffle(cname="lz4"))),
    "lz4": (32004, dict(hdf5plugin.LZ4())),
    "blosc": (32001, dict(hdf5plugin.Blosc())),
    "zlib": (1, {"compression": "gzip"}),
}
"""Each codec: the number of its filter, and with what h5py makes a dataset of such chunks."""


def from_eiger(encoding: str, kind: np.dtype[Any], shape: Sequence[int], values: bytes) -> Packed:
    """Return an Eiger's compressed frame.

    Parameters
    ----------
    encoding: `bs8-lz4<`, `bs16-lz4<`, `bs32-lz4<` or `lz4<`.
    shape: rows, columns.

    Raises
    ------
    SourceError: another encoding, or the bytes are of another size.
    """
    size = kind.itemsize * prod(shape)
    if encoding == "lz4<":
        return _lz4(size, kind, shape, values)
    if encoding != f"bs{8 * kind.itemsize}-lz4<":
        raise SourceError(
            f"frames of {kind.name} come as {encoding!r}, which is not read",
            remedy="set the detector's compression to bslz4, lz4 or none",
        )
    told = struct.unpack(">QI", values[:12]) if len(values) > 12 else (0, 0)
    if told[0] != size or told[1] == 0 or told[1] % kind.itemsize:
        raise SourceError(
            f"a compressed frame of {size} bytes says that it has {told[0]}", remedy="correct its header"
        )
    return Packed(tuple(shape), kind, "bslz4", values)


def from_area_detector(codec: str, scalar: Any, shape: Sequence[int], values: bytes) -> Packed:
    """Return a compressed frame of an NTNDArray.

    Parameters
    ----------
    codec, scalar: `codec.name` and `codec.parameters`.
    shape: rows, columns.

    Raises
    ------
    SourceError: another codec, or no type of the values is told.
    """
    kind = np.dtype(_SCALARS.get(scalar if isinstance(scalar, int) else 0, "V1"))
    if codec not in FILTERS or kind.kind == "V":
        raise SourceError(
            f"frames come with the codec {codec!r} of type {scalar!r}, which is not read",
            remedy="set NDPluginCodec to BSLZ4, LZ4, Blosc or None",
        )
    size = kind.itemsize * prod(shape)
    if codec == "lz4":
        return _lz4(size, kind, shape, values)
    head = struct.pack(">QI", size, _BITSHUFFLE_BLOCK) if codec == "bslz4" else b""
    if codec == "blosc" and (len(values) < 16 or struct.unpack("<I", values[4:8])[0] != size):
        raise SourceError(f"a Blosc frame of {shape} {kind.name} has another size", remedy="check NDPluginCodec")
    return Packed(tuple(shape), kind, codec, head + values)


def _lz4(size: int, kind: np.dtype[Any], shape: Sequence[int], values: bytes) -> Packed:
    if not 0 < len(values) < 2**31 or len(values) == size:  # HDF5 would take a block of full size for plain bytes
        raise SourceError(f"an LZ4 frame of {size} bytes has {len(values)}", remedy="check the stream")
    return Packed(tuple(shape), kind, "lz4", struct.pack(">QII", size, size, len(values)) + values)
