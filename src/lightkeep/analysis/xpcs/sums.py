"""What the multi-tau kernels hand over: exact sums that add up to the same bytes in any order.

Floating-point addition depends on the order; integer addition does not. A kernel sums the pixels of one block
(always the same pixels, in the same order), turns that sum into an integer once, and from there on only integers
are added: across blocks, threads, shards and machines.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]

FRACTION_BITS = 48
"""Bits behind the point of an `ExactSum`: 2**-49 is lost once per block at most, and 2**15 fractions add up in one
word before their carry has to be taken (`carried`)."""
INTENSITY_BITS = 20
"""Bits behind the point of `MultiTauSums.intensity`; in front of it remain 43: 8.8e12 counts per frame and bin."""
INTENSITY_VALUES = 200_000
"""Most values of an intensity over time in a message. Photons are noise, which no packing makes small: a byte and
more each."""


def carried(whole: Int64, part: Int64) -> tuple[Int64, Int64]:
    """The two words with the fraction brought into [0, 2**FRACTION_BITS): the one way to write their value."""
    return whole + (part >> FRACTION_BITS), part & ((1 << FRACTION_BITS) - 1)


@dataclass(frozen=True, eq=False, slots=True)
class ExactSum:
    """Array of numbers whole + part / 2**FRACTION_BITS that add exactly, whatever the order."""

    whole: Int64
    """Integer part, rounded down."""
    part: Int64
    """Fraction, 0 <= part < 2**FRACTION_BITS."""

    @classmethod
    def zeros(cls, *shape: int) -> ExactSum:
        """Zeros."""
        return cls(np.zeros(shape, np.int64), np.zeros(shape, np.int64))

    @classmethod
    def of(cls, values: ArrayLike) -> ExactSum:
        """The nearest representable numbers to float64 `values`.

        Raises
        ------
        ValueError: a value is not finite, or its size is 2**62 and more.
        """
        exact = np.asarray(values, np.float64)
        if not (np.abs(exact) < 2.0**62).all():
            raise ValueError("sums of counts must be finite and below 4.6e18: mask saturated and invalid pixels")
        whole = np.floor(exact)
        part = np.rint((exact - whole) * 2.0**FRACTION_BITS)
        return cls(*carried(whole.astype(np.int64), part.astype(np.int64)))

    def __add__(self, other: ExactSum) -> ExactSum:
        whole, part = carried(self.whole + other.whole, self.part + other.part)
        same_sign = (self.whole < 0) == (other.whole < 0)
        if (same_sign & ((whole < 0) != (self.whole < 0)) & (np.abs(whole) > 2**61)).any():
            raise ValueError("sums of counts overflow: mask saturated and invalid pixels")
        return ExactSum(whole, part)

    def grouped(self, owner: Int64, n: int) -> ExactSum:
        """(..., n) sums of the last axis' entries by their `owner`, 1 .. n."""
        whole, part = np.zeros((2, n, *self.shape[:-1]), np.int64)
        np.add.at(whole, owner - 1, np.moveaxis(self.whole, -1, 0))
        np.add.at(part, owner - 1, np.moveaxis(self.part, -1, 0))
        return ExactSum(*carried(np.moveaxis(whole, 0, -1), np.moveaxis(part, 0, -1)))

    @property
    def value(self) -> Float64:
        """float64 nearest to the sum."""
        nearest: Float64 = self.whole + self.part * 2.0**-FRACTION_BITS
        return nearest

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return self.whole.shape


_OF_THE_RUN = ("segment_frames", "light_frames", "intensity_frames", "begin", "stride", "average")


@dataclass(frozen=True, eq=False)
class MultiTauSums:
    """Sums over a shard of the detector's pixels, whole runs in time.

    A *frame* here is the sum of `average` detector frames; there are N of them. A pixel is used when the qmap
    gives it a bin. `sums_a + sums_b` joins two shards; the order does not matter, and shards may not overlap. It
    pickles as `to_bytes`.

    Per pixel and delay, over the same `pairs` of samples of the level (means of 2**level frames):
    G2 = <I(t) I(t + lag)>, IP = <I(t)>, IF = <I(t + lag)>. A sample with a bad frame in it makes no pair.
    """

    level: Int64
    """(n_tau,) level of each delay."""
    lag: Int64
    """(n_tau,) delay in samples of its level."""
    pairs: Int64
    """(n_tau,) pairs of samples that each mean is over."""
    G2: ExactSum
    """(n_tau, n_static) sum over the partition's pixels of <I(t) I(t + lag)>, in counts^2."""
    IP: ExactSum
    """(n_tau, n_static) same of <I(t)>, in counts."""
    IF: ExactSum
    """(n_tau, n_static) same of <I(t + lag)>, in counts."""
    g: ExactSum
    """(n_tau, n_dynamic) sum over the bin's pixels with IP * IF > 0 of G2 / (IP * IF)."""
    gg: ExactSum
    """(n_tau, n_dynamic) same of (G2 / (IP * IF))**2."""
    n: Int64
    """(n_tau, n_dynamic) number of those pixels."""
    light: Int64
    """(n_intervals,) counts of the used pixels in each interval of `light_frames`, times 2**INTENSITY_BITS; bad
    frames are 0."""
    intensity: Int64
    """(n_intervals, n_dynamic) same of the bin's pixels in each interval of `intensity_frames`."""
    good: NDArray[np.bool_]
    """(N,) False where a frame is bad."""
    saxs_2d: Float64
    """(H, W) counts summed over the good frames, also of unused pixels; 0 outside the shard."""
    segments: ExactSum
    """(n_segments, n_static) counts of the partition's pixels, summed over the good frames of each segment."""
    segment_frames: int
    """Frames per segment, see `segment_length`."""
    excluded: Int64
    """(n_static,) used pixels that are left out of every sum, because they reached the dtype's highest value."""
    dead: NDArray[np.bool_]
    """(H, W) where those pixels are."""
    pixels: tuple[tuple[int, int], ...]
    """Ranges begin .. end of flat pixel indices (row * W + column) that the shard covers, ascending."""
    begin: int = 0
    """First detector frame."""
    stride: int = 1
    """Only every stride-th detector frame was taken."""
    average: int = 1
    """Number of taken detector frames in a frame."""
    light_frames: int = 1
    """Frames per interval, see `interval_length`."""
    intensity_frames: int = 1
    """Same; `ratio_of_sums` needs 1."""
    counters: Mapping[str, int] = field(default_factory=dict)
    """Numbers of used pixels with a remark, which add up: `negative`, `invalid` (not finite; taken as 0)."""

    def __add__(self, other: MultiTauSums) -> MultiTauSums:
        """Raises ValueError when the shards are of different runs, or overlap."""
        for name in (*_OF_THE_RUN, "level", "lag", "pairs", "good"):
            if not np.array_equal(getattr(self, name), getattr(other, name)):
                raise ValueError(f"these are not shards of one run: they differ in {name}")
        added = {
            name: getattr(self, name) + getattr(other, name)
            for name in ("G2", "IP", "IF", "g", "gg", "n", "light", "intensity", "saxs_2d", "segments", "excluded")
        }
        names = sorted({*self.counters, *other.counters})
        return MultiTauSums(
            level=self.level,
            lag=self.lag,
            pairs=self.pairs,
            good=self.good,
            dead=self.dead | other.dead,
            pixels=_joined(self.pixels, other.pixels),
            **{name: getattr(self, name) for name in _OF_THE_RUN},
            counters={name: self.counters.get(name, 0) + other.counters.get(name, 0) for name in names},
            **added,
        )

    def to_bytes(self) -> bytes:
        """The message of a shard, compressed: zeros, which are what its pixels did not contribute to, vanish."""
        arrays: dict[str, NDArray[Any]] = {}
        rest: dict[str, Any] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, ExactSum):
                arrays[f"{item.name}.whole"], arrays[f"{item.name}.part"] = value.whole, value.part
            elif isinstance(value, np.ndarray):
                arrays[item.name] = value
            else:
                rest[item.name] = dict(value) if isinstance(value, Mapping) else value
        packed = {name: _packed(array) for name, array in arrays.items()}
        described = [(name, array.dtype.str, array.shape, len(packed[name])) for name, array in arrays.items()]
        header = json.dumps({"rest": rest, "arrays": described}).encode()
        return b"".join([len(header).to_bytes(8, "little"), header, *packed.values()])

    @classmethod
    def from_bytes(cls, message: bytes) -> MultiTauSums:
        """What `to_bytes` wrote."""
        at = 8 + int.from_bytes(message[:8], "little")
        header = json.loads(message[8:at])
        values: dict[str, Any] = {**header["rest"]}
        values["pixels"] = tuple((begin, end) for begin, end in values["pixels"])
        words: dict[str, dict[str, Int64]] = {}
        for name, dtype, shape, size in header["arrays"]:
            array = _unpacked(message[at : at + size], dtype, shape)
            at += size
            whole, _, word = name.partition(".")
            if word:
                words.setdefault(whole, {})[word] = array
            else:
                values[name] = array
        values |= {name: ExactSum(**both) for name, both in words.items()}
        return cls(**values)

    def __reduce__(self) -> tuple[object, tuple[bytes]]:
        return MultiTauSums.from_bytes, (self.to_bytes(),)


def segment_length(n_frames: int) -> int:
    """Frames per time segment: the least power of two that leaves at most 16 whole segments (as boost-corr does).

    There are n_frames // length segments; the frames after the last whole one belong to none.

    >>> [(n // segment_length(n), segment_length(n)) for n in (1, 16, 17, 1000, 2048)]
    [(1, 1), (16, 1), (8, 2), (15, 64), (16, 128)]
    """
    length = 1
    while n_frames // length > 16:
        length *= 2
    return length


def interval_length(n_frames: int, n_series: int) -> int:
    """Frames per interval of so many intensities over time: the least power of two that makes them fit a message.

    >>> interval_length(5000, 36), interval_length(100_000, 36), interval_length(100_000, 2)
    (1, 32, 1)
    """
    length = 1
    while -(-n_frames // length) * n_series > INTENSITY_VALUES and length < n_frames:
        length *= 2
    return length


def _packed(array: NDArray[Any]) -> bytes:
    """Bytes of like weight beside each other: then most of them are alike, and a fast zlib does well."""
    flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return zlib.compress(np.ascontiguousarray(flat.reshape(-1, array.dtype.itemsize).T).tobytes(), 1)


def _unpacked(packed: bytes, dtype: str, shape: Sequence[int]) -> NDArray[Any]:
    planes = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(np.dtype(dtype).itemsize, -1)
    return np.ascontiguousarray(planes.T).reshape(-1).view(dtype).reshape(shape)


def _joined(one: tuple[tuple[int, int], ...], other: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    joined: list[tuple[int, int]] = []
    for begin, end in sorted((*one, *other)):
        if joined and begin < joined[-1][1]:
            raise ValueError(
                f"shards overlap at pixels {begin} to {min(end, joined[-1][1])}: they would count twice"
            )
        if joined and begin == joined[-1][1]:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((begin, end))
    return tuple(joined)
