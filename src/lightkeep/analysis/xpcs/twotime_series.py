"""The counts of the pixels that a two-time correlation needs, gathered while a run streams by.

Pixels are put into one order, their *rank*: by dynamic bin, static partition, and place on the detector. What
comes in is kept, block by block, in the form that takes less memory: the used pixels of every frame, or only those
that counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.xpcs import twotime_kernels as kernels
from lightkeep.analysis.xpcs.blocks import Block, EventBlock, FrameBlock
from lightkeep.analysis.xpcs.qmap import QMap

Int32 = NDArray[np.int32]
UInt32 = NDArray[np.uint32]
Int64 = NDArray[np.int64]
Float64 = NDArray[np.float64]
Floats = NDArray[np.float32] | Float64

T = TypeVar("T")

LANES: Final = 32
"""Columns of a partition come in multiples of this, see `twotime_dot`."""
ROWS: Final = 96
"""Frames come in multiples of this."""
_SORTERS: Final = 4
"""More threads than this do not sort events faster: each reads all of them."""
_SPARSE: Final = 1 / 12
"""Below this share of pixels that counted a block is kept as events: 12 bytes each, against 1 per pixel."""


@dataclass(frozen=True, eq=False)
class PixelOrder:
    """The pixels of some static partitions by rank; a bin's, and a partition's, lie side by side."""

    pixel: Int64
    """(P,) row * W + column of each rank."""
    rank: Int32
    """(H * W,) rank of each pixel; -1: not needed."""
    shape: tuple[int, int]
    """(H, W) of the detector."""
    bins: tuple[int, ...]
    """Dynamic bins, ascending."""
    bin_ranks: Int64
    """(n_bins + 1,) where each bin begins."""
    partitions: tuple[tuple[int, ...], ...]
    """Static partitions of each bin, ascending."""
    partition_ranks: tuple[Int64, ...]
    """For each bin, where each of its partitions begins, and the end."""

    @classmethod
    def of(cls, qmap: QMap, *, bins: Sequence[int] | None, partitions: Sequence[int] | None) -> PixelOrder:
        """The order for the given dynamic bins and static partitions; None: all.

        Raises
        ------
        ValueError: a bin or partition that the qmap does not have, or none at all.
        """
        wanted_bins = _chosen(bins, qmap.n_dynamic, "dynamic bin")
        wanted = _chosen(partitions, qmap.n_static, "static partition")
        dynamic, static = qmap.dynamic.ravel(), qmap.static.ravel()
        used = np.flatnonzero(np.isin(dynamic, wanted_bins) & np.isin(static, wanted))
        pixel = used[np.lexsort((used, static[used], dynamic[used]))]
        rank = np.full(dynamic.size, -1, np.int32)
        rank[pixel] = np.arange(pixel.size, dtype=np.int32)
        found = [int(label) for label in np.unique(dynamic[pixel])]
        if not found:
            raise ValueError("none of these static partitions lies in one of these dynamic bins")
        begins = np.searchsorted(dynamic[pixel], [*found, found[-1] + 1]).astype(np.int64)
        members, edges = [], []
        for first, last in pairwise(begins.tolist()):
            labels, where = np.unique(static[pixel[first:last]], return_index=True)
            members.append(tuple(int(label) for label in labels))
            edges.append(np.append(where, last - first).astype(np.int64) + first)
        return cls(pixel, rank, qmap.shape, tuple(found), begins, tuple(members), tuple(edges))


def _chosen(labels: Sequence[int] | None, highest: int, what: str) -> list[int]:
    if labels is None:
        return list(range(1, highest + 1))
    chosen = sorted({int(label) for label in labels})
    if not chosen or chosen[0] < 1 or chosen[-1] > highest:
        raise ValueError(f"{what} must be from 1 to {highest}, not {labels!r}")
    return chosen


@dataclass(frozen=True)
class Selection:
    """Which detector frames make up the series: `average` of them, every `stride`-th, are summed into a frame.

    Raises
    ------
    ValueError: begin below 0, end before begin, stride or average below 1.
    """

    begin: int = 0
    end: int | None = None
    """None: all there are."""
    stride: int = 1
    average: int = 1
    bad: tuple[int, ...] = ()
    """Detector frames that are not used; they make the frame they belong to bad."""

    def __post_init__(self) -> None:
        if self.begin < 0 or (self.end is not None and self.end < self.begin):
            raise ValueError(f"frames {self.begin} to {self.end} are no range")
        if self.stride < 1 or self.average < 1:
            raise ValueError(f"stride and average must be at least 1, not {self.stride} and {self.average}")

    def frame_of(self, detector_frame: NDArray[Any]) -> Int64:
        """Frame that each detector frame goes into; -1: into none."""
        taken = np.asarray(detector_frame, np.int64) - self.begin
        index = taken // (self.stride * self.average)
        index[(taken < 0) | (taken % self.stride != 0)] = -1
        if self.end is not None:
            index[taken >= self.end - self.begin] = -1
        return index

    def whole(self, seen: int) -> int:
        """Number of frames that are complete when `seen` detector frames of the run have passed."""
        last = seen if self.end is None else min(seen, self.end)
        taken = max(0, -(-(last - self.begin) // self.stride))
        return taken // self.average

    def bad_frames(self, frames: int) -> Int64:
        """The frames that a bad detector frame went into."""
        index = np.unique(self.frame_of(np.array(self.bad, np.int64)))
        return index[(index >= 0) & (index < frames)]


@dataclass(frozen=True, eq=False)
class Events:
    """What counted: (frame, rank, value), in the order of frames; values of a pair that occurs again add up."""

    frame: UInt32
    rank: Int32
    value: Floats

    def between(self, begin: int, end: int) -> Events:
        """Those of the ranks begin .. end, counted from begin."""
        mine = (self.rank >= begin) & (self.rank < end)
        return Events(self.frame[mine], self.rank[mine] - np.int32(begin), self.value[mine])


@dataclass(frozen=True, eq=False)
class PixelEvents:
    """What counted, pixel by pixel, in the order of frames; each frame once."""

    first: Int64
    """(P,) where the events of each pixel begin."""
    end: Int64
    """(P,) where they end."""
    frame: UInt32
    value: Floats

    def of(self, begin: int, end: int) -> PixelEvents:
        """Those of the pixels begin .. end."""
        return PixelEvents(self.first[begin:end], self.end[begin:end], self.frame, self.value)


@dataclass(frozen=True, eq=False)
class PixelCounts:
    """Counts of a bin's pixels, a column each, partition by partition, with 0 between and below.

    Every partition has a whole multiple of `LANES` columns, and there is a whole multiple of `ROWS` frames.
    """

    counts: NDArray[Any]
    """(N', P') in the narrowest dtype."""
    columns: Int64
    """(n_partitions, 2) where each partition's columns begin and end."""


@dataclass(frozen=True, eq=False)
class _Rows:
    first: int
    counts: NDArray[Any]
    """(n, P) counts of frames first .. first + n."""


class PixelSeries:
    """Counts of the pixels of an order, frame by frame. Values that are not finite count as 0."""

    def __init__(self, order: PixelOrder, selection: Selection, *, threads: int) -> None:
        self.order = order
        self.selection = selection
        self.is_saturated = np.zeros(order.pixel.size, np.bool_)
        """(P,) pixels that reached their dtype's highest value: dead or blinded, their counts mean nothing."""
        self.negative = 0
        """Number of values below 0."""
        self.invalid = 0
        """Number of values that are not finite."""
        self.is_integer = True
        """Whether all values are whole numbers."""
        self._threads = threads
        self._parts: list[_Rows | Events] = []
        self._events_too = False
        self._open: _Rows | None = None
        self._counted = np.zeros(len(order.bins), np.int64)
        self._sorted: PixelEvents | None = None
        self._next: int | None = None
        self._drained = 0

    @property
    def frames(self) -> int:
        """Number of complete frames so far."""
        return 0 if self._next is None else self.selection.whole(self._next)

    def push(self, block: Block) -> None:
        """Take the next block of the run.

        Raises
        ------
        ValueError: it is of another detector, or does not follow the block before.
        """
        if block.shape != self.order.shape:
            raise ValueError(f"frames are {block.shape}, the qmap is {self.order.shape}: not of one detector")
        if self._next is not None and block.begin != self._next:
            raise ValueError(f"frame {self._next} should come next, the block begins at frame {block.begin}")
        if self._next is None and block.begin > self.selection.begin:
            raise ValueError(f"the run should begin at frame {self.selection.begin}, not at {block.begin}")
        self._next = block.begin + block.count
        self._sorted = None
        if isinstance(block, EventBlock):
            self._push_events(block)
        else:
            self._push_frames(block)

    def counted(self) -> Int64:
        """(n_bins,) number of (frame, pixel) that counted."""
        events = self._by_pixel()
        lengths = np.append(0, np.cumsum(events.end - events.first))
        return self._counted + np.diff(lengths[self.order.bin_ranks])

    def drain(self, size: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Hand over the complete frames, and forget them: (first, (n, P) counts) of up to `size` frames each.

        A pixel is 0 from the piece on in which it was first seen saturated.
        """
        end = self.frames
        for first in range(self._drained, end, size):
            last = min(first + size, end)
            counts = np.zeros((last - first, self.order.pixel.size), np.float32)
            for part in self._parts:
                if isinstance(part, _Rows):
                    begin, stop = max(first, part.first), min(last, part.first + len(part.counts))
                    if begin < stop:
                        counts[begin - first : stop - first] += part.counts[begin - part.first : stop - part.first]
                else:
                    at, to = np.searchsorted(part.frame, [first, last])
                    kernels.scatter(part.frame[at:to], part.rank[at:to], part.value[at:to], first, counts)
            counts[:, self.is_saturated] = 0
            yield first, counts
        self._drained = end
        self._parts = [_from(part, end) for part in self._parts]

    def dense(self, place: int) -> PixelCounts:
        """Counts of the bin at this place; saturated pixels are 0."""
        begin, end = self.order.bin_ranks[place : place + 2]
        edges = self.order.partition_ranks[place]
        widths = -(-np.diff(edges) // LANES) * LANES
        ends = np.cumsum(widths)
        columns = np.stack([ends - widths, ends], axis=1)
        kept = [part for part in self._parts if isinstance(part, _Rows)]
        kinds = [rows.counts.dtype for rows in kept]
        events = self._by_pixel()
        if events.frame.size:
            kinds.append(_counts_dtype(events.value, is_integer=self.is_integer))
        if kept and self._events_too and self.selection.average > 1:
            kinds.append(np.dtype(np.uint32))  # a frame may come in pieces, each of which fits what is narrower
        dtype = np.result_type(*kinds) if kinds else np.dtype(np.uint8)
        counts = np.zeros((-(-self.frames // ROWS) * ROWS, int(ends[-1])), dtype)
        for rows in kept:
            part = rows.counts[: max(0, self.frames - rows.first)]
            kernels.lay(part, edges, columns, counts[rows.first : rows.first + len(part)])
        kernels.spread(events.first, events.end, events.frame, events.value, edges, columns, counts)
        for rank in np.flatnonzero(self.is_saturated[begin:end]) + begin:
            group = int(np.searchsorted(edges, rank, side="right")) - 1
            counts[:, columns[group, 0] + rank - edges[group]] = 0
        return PixelCounts(counts, columns)

    def events(self, place: int) -> PixelEvents:
        """What counted in the pixels of the bin at this place; saturated pixels have none."""
        begin, end = self.order.bin_ranks[place : place + 2]
        if any(isinstance(part, _Rows) for part in self._parts):
            parts = [
                part.between(begin, end) if isinstance(part, Events) else nonzero(part, begin, end)
                for part in self._parts
            ]
            events = _by_pixel([_until(part, self.frames) for part in parts], end - begin, threads=1)
        else:
            events = self._by_pixel().of(begin, end)
        is_dark = self.is_saturated[begin:end]
        return PixelEvents(events.first, np.where(is_dark, events.first, events.end), events.frame, events.value)

    def _by_pixel(self) -> PixelEvents:
        if self._sorted is None:
            kept = [_until(part, self.frames) for part in self._parts if isinstance(part, Events)]
            self._sorted = _by_pixel(kept, self.order.pixel.size, threads=self._threads)
        return self._sorted

    def _push_events(self, block: EventBlock) -> None:
        self._close()
        self._events_too = True
        frame = self.selection.frame_of(block.frame)
        rank = self.order.rank[block.pixel]
        mine = (rank >= 0) & (frame >= 0)
        rank, value = rank[mine], block.value[mine]
        if value.dtype.kind in "iu":
            self.is_saturated[rank[value == np.iinfo(value.dtype).max]] = True
        else:
            is_valid = np.isfinite(value)
            self.invalid += int(value.size - np.count_nonzero(is_valid))
            value = np.where(is_valid, value, 0)
            self.is_integer &= bool((np.floor(value) == value).all())
        self.negative += int(np.count_nonzero(value < 0))
        self._parts.append(Events(frame[mine].astype(np.uint32), rank, _as_float(value)))

    def _push_frames(self, block: FrameBlock) -> None:
        index = self.selection.frame_of(np.arange(block.begin, block.begin + block.count))
        taken = np.flatnonzero(index >= 0)
        if not taken.size:
            return
        first, last = int(index[taken[0]]), int(index[taken[-1]])
        source = _native(block.frames).reshape(block.count, -1)
        rows = np.zeros(
            (last - first + 1, self.order.pixel.size), _sum_dtype(source.dtype, self.selection.average)
        )
        if self._open is not None:
            if self._open.first == first:
                rows[0] = self._open.counts[0]
            else:
                self._close()
        self._open = None
        begins = np.searchsorted(index[taken], np.arange(first, last + 2))
        counted = self._gather(source, taken, begins, rows)
        if self.selection.whole(block.begin + block.count) <= last:
            self._open = _Rows(last, rows[-1:].copy())
            rows, counted = rows[:-1], counted[:-1]
        self._keep(_Rows(first, rows), counted)

    def _gather(self, source: NDArray[Any], taken: Int64, begins: Int64, rows: NDArray[Any]) -> Int64:
        """Fill rows, cut among the threads; return (rows, n_bins) pixels that counted."""
        numbers = np.zeros((len(rows), len(self.order.bins)), np.int64)
        pixel = self.order.pixel.astype(np.uint32)
        cuts = np.linspace(0, len(rows), min(self._threads, len(rows)) + 1).astype(int).tolist()

        def work(part: slice) -> tuple[int, int, int]:
            edges, mine = begins[part.start : part.stop + 1], rows[part]
            if source.dtype.kind == "f":
                found = kernels.gather_fractions(source, taken, edges, pixel, mine)
            else:
                top = source.dtype.type(np.iinfo(source.dtype).max)
                found = kernels.gather(source, taken, edges, pixel, top, mine, self.is_saturated), 0, 0
            kernels.counted(mine, self.order.bin_ranks, numbers[part])
            return int(found[0]), int(found[1]), int(found[2])

        for negative, invalid, broken in _in_threads(work, [slice(*cut) for cut in pairwise(cuts)]):
            self.negative += negative
            self.invalid += invalid
            self.is_integer &= not broken
        return numbers

    def _close(self) -> None:
        """Put the unfinished frame away as it is: what follows is added to it later."""
        if self._open is not None:
            rows, self._open = self._open, None
            is_counted = np.add.reduceat(rows.counts[0] != 0, self.order.bin_ranks[:-1], dtype=np.int64)
            self._keep(rows, is_counted[None])

    def _keep(self, rows: _Rows, counted: Int64) -> None:
        if not rows.counts.size:
            return
        if counted.sum() < _SPARSE * rows.counts.size:
            self._parts.append(nonzero(rows, 0, rows.counts.shape[1]))
            return
        self._counted += counted.sum(axis=0)
        self._parts.append(_Rows(rows.first, _narrow(rows.counts)))


def nonzero(rows: _Rows, begin: int, end: int) -> Events:
    """What counted in the ranks begin .. end, counted from begin."""
    counts = np.ascontiguousarray(rows.counts[:, begin:end])
    where = np.flatnonzero(counts != 0)
    frame, rank = np.divmod(where, end - begin)
    return Events((frame + rows.first).astype(np.uint32), rank.astype(np.int32), _as_float(counts.ravel()[where]))


def _by_pixel(blocks: Sequence[Events], pixels: int, *, threads: int) -> PixelEvents:
    """Events by pixel; each thread has pixels of its own, and reads all events."""
    counts = np.zeros(pixels, np.int64)
    cuts = np.linspace(0, pixels, min(threads, _SORTERS) + 1).astype(int).tolist()
    parts = [slice(*cut) for cut in pairwise(cuts)]

    def count(part: slice) -> None:
        for events in blocks:
            kernels.count(events.rank, part.start, part.stop, counts)

    _in_threads(count, parts)
    first = np.cumsum(counts) - counts
    end = first.copy()
    dtype = np.result_type(np.float32, *(events.value.dtype for events in blocks))
    frame, value = np.zeros(int(counts.sum()), np.uint32), np.zeros(int(counts.sum()), dtype)

    def place(part: slice) -> None:
        for events in blocks:
            columns = (events.frame, events.rank, events.value)
            kernels.place(*columns, part.start, part.stop, first, end, frame, value)

    _in_threads(place, parts)
    return PixelEvents(first, end, frame, value)


def _from(part: _Rows | Events, frame: int) -> _Rows | Events:
    if isinstance(part, _Rows):
        first = max(frame, part.first)
        return _Rows(first, part.counts[first - part.first :].copy())
    at = int(np.searchsorted(part.frame, frame))
    return Events(part.frame[at:], part.rank[at:], part.value[at:])


def _until(events: Events, frames: int) -> Events:
    keep = int(np.searchsorted(events.frame, frames))
    return Events(events.frame[:keep], events.rank[:keep], events.value[:keep])


def _in_threads(work: Callable[[slice], T], parts: Sequence[slice]) -> list[T]:
    if len(parts) == 1:
        return [work(parts[0])]
    with ThreadPoolExecutor(max(1, len(parts))) as pool:
        return list(pool.map(work, parts))


def _native(frames: NDArray[Any]) -> NDArray[Any]:
    """The frames in an order of bytes and a dtype that the kernels know."""
    if frames.dtype.kind not in "biuf":
        raise ValueError(f"frames must be counts, not {frames.dtype}")
    if frames.dtype.kind == "b":
        return frames.astype(np.uint8)
    wide = np.result_type(frames.dtype, np.float32) if frames.dtype.kind == "f" else frames.dtype
    return np.ascontiguousarray(frames, wide.newbyteorder("="))


def _sum_dtype(dtype: np.dtype[Any], average: int) -> np.dtype[Any]:
    """What holds the sum of `average` values exactly (floats: to 16 digits)."""
    if average == 1 and dtype.itemsize <= 4:
        return dtype
    if dtype.kind == "f":
        return np.dtype(np.float64)
    return np.dtype(np.uint64 if dtype.kind == "u" else np.int64)


def _narrow(counts: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers >= 0 in the narrowest dtype that holds them."""
    if counts.dtype == np.uint8 or counts.dtype.kind == "f" or counts.min() < 0:
        return counts
    return counts.astype(np.min_scalar_type(int(counts.max())), copy=False)


def _as_float(value: NDArray[Any]) -> Floats:
    """float32 where that holds every whole number that occurs, else float64."""
    is_exact = value.dtype.kind in "iu" and (value.dtype.itemsize <= 2 or np.abs(value).max(initial=0) <= 2**24)
    if is_exact or value.dtype == np.float32:
        return value.astype(np.float32, copy=False)
    return value.astype(np.float64, copy=False)


def _counts_dtype(value: Floats, *, is_integer: bool) -> np.dtype[Any]:
    if not is_integer or value.min(initial=0) < 0:
        return np.dtype(np.float64)
    return np.dtype(np.min_scalar_type(int(value.max(initial=0))))
