"""Multi-tau correlation of a run: in one go, or block by block while it is measured."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from lightkeep.analysis.xpcs.blocks import Block, Blocks, FrameBlock, iterate
from lightkeep.analysis.xpcs.cell_work import CellWork
from lightkeep.analysis.xpcs.chunks import KINDS, Chunks
from lightkeep.analysis.xpcs.event_work import EventWork, joined, one_chunk
from lightkeep.analysis.xpcs.kernels.layout import layout_of
from lightkeep.analysis.xpcs.kernels.state import (
    CHUNK,
    MAX_LEVELS,
    STATE_BYTES,
    Delays,
    Int64,
    delays_of,
    empty_state,
)
from lightkeep.analysis.xpcs.kernels.work import INVALID, NEGATIVE, SATURATED, Gain, Options, Piece, gain_of
from lightkeep.analysis.xpcs.normalise import result_of
from lightkeep.analysis.xpcs.qmap import QMap
from lightkeep.analysis.xpcs.result import MultiTauResult, Normalisation
from lightkeep.analysis.xpcs.schemes import Scheme, levels
from lightkeep.analysis.xpcs.sums import ExactSum, MultiTauSums, carried, interval_length, segment_length

if TYPE_CHECKING:  # with numba, which is slow to import: when it is needed
    from lightkeep.analysis.xpcs.kernels.sweep import Bins
    from lightkeep.analysis.xpcs.plain_work import PlainWork

    Worker = PlainWork | CellWork | EventWork

Kernel = Literal["auto", "simd", "plain"]
SWITCH: Final = "LIGHTKEEP_XPCS_SIMD"
"""Set to 0 in the environment, the SIMD kernels are not used."""
_WAITING: Final = 16
"""Events per pixel that wait before a state is made of them."""
_MOST_STATE: Final = 2 << 30
"""Bytes of a state that is made before it has to be."""
_SHARES: Final = 8
"""Ranges of blocks per thread: the last ones to end wait for less."""


def multitau(
    blocks: Blocks,
    qmap: QMap,
    *,
    dpl: int = 4,
    scheme: Scheme = "aps",
    normalise: Normalisation = "partition",
    begin: int = 0,
    end: int | None = None,
    stride: int = 1,
    average: int = 1,
    bad_frames: Iterable[int] = (),
    frame_time_s: float | None = None,
    threads: int | None = None,
    kernel: Kernel = "auto",
) -> MultiTauResult:
    """Correlation curves of every dynamic bin, their errors, and the static outputs of a run.

    The same bytes come out for any number of threads, and as from `MultiTau`, however blocks and shards are cut.

    Parameters
    ----------
    blocks: (N, H, W) counts, any real dtype; or an iterable of blocks, or anything with `.shape` and `.blocks`.
    qmap: bins of the pixels, of the same (H, W).
    dpl: delays per level.
    scheme: which delays, see `levels`.
    normalise: how sums over pixels become g2, see `result_of`.
    begin, end: first detector frame, and the one after the last; None: to the end of the run.
    stride: take every stride-th frame.
    average: then take the mean of so many frames as one; frames that remain at the end are dropped.
    bad_frames: detector frames without a valid picture; a sample that contains one makes no pair.
    frame_time_s: time from one detector frame to the next, s; delays are in frames without it.
    threads: None: as many as there are processors.
    kernel: `simd` where it can (4 delays per level, no bad frames), else `plain` numba, which is a third as
      fast and takes long to compile; `auto` chooses, with LIGHTKEEP_XPCS_SIMD=0 in the environment `plain`.

    Returns
    -------
    : curves and what to know about them, in `flags`: pixels that reached the highest count of an unsigned dtype
      (saturated, or marked dead) are left out and said so there, as are counts that are not finite.

    Raises
    ------
    ValueError: a qmap of another shape, fewer than two frames, frames beyond the run, options out of range.
    """
    work = MultiTau(
        qmap,
        dpl=dpl,
        scheme=scheme,
        normalise=normalise,
        begin=begin,
        end=end,
        stride=stride,
        average=average,
        bad_frames=bad_frames,
        frame_time_s=frame_time_s,
        threads=threads,
        kernel=kernel,
    )
    return work._all(blocks)


class MultiTau:
    """Multi-tau correlation while the frames come.

        push -> push -> ... -> finish
                  \\-> snapshot, any time, which changes nothing

    Whole chunks of 512 frames go into the pixels' state, what is left of a chunk waits: finish takes it in, at the
    speed of a whole run. A *shard* is one of several of these, each with its own `pixels` (see `shards`) of the
    same run; `merge` puts them together.

    Raises
    ------
    ValueError: options out of range, or pixels that are not whole blocks.
    """

    def __init__(
        self,
        qmap: QMap,
        *,
        dpl: int = 4,
        scheme: Scheme = "aps",
        normalise: Normalisation = "partition",
        begin: int = 0,
        end: int | None = None,
        stride: int = 1,
        average: int = 1,
        bad_frames: Iterable[int] = (),
        frame_time_s: float | None = None,
        threads: int | None = None,
        kernel: Kernel = "auto",
        pixels: tuple[int, int] | None = None,
    ) -> None:
        levels(0, dpl=dpl, scheme=scheme)
        if begin < 0 or (end is not None and end <= begin) or stride < 1 or average < 1:
            raise ValueError(
                f"begin {begin}, end {end}, stride {stride}, average {average}: no frames are like that"
            )
        self._qmap, self._dpl, self._scheme, self._normalise = qmap, dpl, scheme, normalise
        self._begin, self._end, self._stride, self._average = begin, end, stride, average
        self._frame_time_s = frame_time_s
        self._threads = threads or len(os.sched_getaffinity(0))
        self._layout = layout_of(qmap, pixels)
        self._chunks = Chunks(self._layout, begin=begin, end=end, stride=stride, average=average)
        self._bad = _frames_of(bad_frames, begin, stride, average)
        self._simd = self._is_simd(kernel)
        self._state = empty_state(0, dpl=dpl, levels=1, has_bad=False)
        self._saxs = np.zeros(qmap.static.size)
        self._intensity: list[Int64] = []
        self._segments = ExactSum.zeros(0, qmap.n_static)
        self._segment_frames = 1
        self._others: list[MultiTauSums] = []
        self._waiting: list[Piece] = []  # whole chunks of events that are in no state yet

    @cached_property
    def _bins(self) -> Bins:
        from lightkeep.analysis.xpcs.kernels.sweep import bins_of

        return bins_of(self._layout)

    @property
    def frames(self) -> int:
        """Frames taken so far, after stride and average."""
        return self._chunks.frames

    def push(self, block: Block) -> None:
        """Take the next block of the run.

        Raises
        ------
        ValueError: a block of another shape than the qmap, of another kind than before, or that leaves a gap.
        """
        self._qmap.require(block.shape)
        for piece in self._chunks.push(block):
            if self._simd and piece.event_ptr.size:
                self._wait(piece)
                continue
            for chunk in range(piece.n // CHUNK):
                self._advance(one_chunk(piece, chunk))

    def _wait(self, piece: Piece) -> None:
        """Keep events, which are worked on together: what a state costs does not grow with them."""
        self._waiting.append(piece)
        if sum(each.events.size for each in self._waiting) > _WAITING * (self._layout.end - self._layout.begin):
            self._take_waiting()

    def _take_waiting(self) -> None:
        if self._waiting:
            self._advance(joined(self._waiting))
            self._waiting.clear()

    def idle(self) -> None:
        """Use the time until the next frames come: events that wait become a state, where it fits into memory.

        In all it is more work, but there is less of it after the last frame.
        """
        if len(self._layout.group) * STATE_BYTES <= _MOST_STATE:
            self._take_waiting()

    def snapshot(self) -> MultiTauResult:
        """The result if the run ended now."""
        return self._result(self.sums())

    def finish(self) -> MultiTauResult:
        """The result of the run, with the shards that were merged.

        Raises
        ------
        ValueError: fewer than two frames, the run ended before frame `end`, or pixels are in no shard.
        """
        reached = self._chunks.expected or 0
        if self._end is not None and reached < self._end:
            raise ValueError(
                f"frames {self._begin} to {self._end} were asked for, the run ended at frame {reached}"
            )
        return self.snapshot()

    def merge(self, other: MultiTau | MultiTauSums) -> None:
        """Add another shard of the same run, at the end of it."""
        self._others.append(other.sums() if isinstance(other, MultiTau) else other)

    def sums(self) -> MultiTauSums:
        """The message of this shard: what `merge` needs of it, and of those merged into it."""
        if self._state.total.size:
            self._take_waiting()
        rest = self._chunks.rest() if self._chunks.dtype is not None else None
        sums = self._sums(joined([*self._waiting, rest]) if self._waiting and rest else rest)
        for other in self._others:
            sums = sums + other
        return sums

    def _all(self, blocks: Blocks) -> MultiTauResult:
        if isinstance(blocks, np.ndarray) and blocks.ndim == 3:
            return self._whole(blocks)
        for block in iterate(blocks, begin=self._begin, end=self._end):
            self.push(block)
        return self.finish()

    def _whole(self, frames: NDArray[Any]) -> MultiTauResult:
        """All of a run from memory: pixels in the outer loop, so that only a tile's state is kept at a time."""
        self._qmap.require((frames.shape[1], frames.shape[2]))
        end = len(frames) if self._end is None else self._end
        if not self._begin <= end <= len(frames):
            raise ValueError(f"frames {self._begin} to {end} are not inside a run of {len(frames)} frames")
        block = FrameBlock(0, frames[:end])
        if self._average == 1 and frames.dtype.name in KINDS:
            return self._result(self._sums(self._chunks.whole(block)))
        for part in iterate(block.frames):
            self.push(part)
        return self.finish()

    def _result(self, sums: MultiTauSums) -> MultiTauResult:
        return result_of(
            sums,
            self._qmap,
            normalise=self._normalise,
            scheme=self._scheme,
            dpl=self._dpl,
            frame_time_s=self._frame_time_s,
        )

    def _is_simd(self, kernel: Kernel) -> bool:
        if kernel not in get_args(Kernel):
            raise ValueError(f"kernel must be one of {', '.join(get_args(Kernel))}, not {kernel!r}")
        fits = self._dpl == 4 and not self._bad.size
        if kernel == "simd" and not fits:
            raise ValueError("the SIMD kernels have 4 delays per level and no bad frames: choose kernel 'auto'")
        return fits and (kernel == "simd" or (kernel == "auto" and os.environ.get(SWITCH) != "0"))

    def _options(self) -> Options:
        base = self._dpl if self._scheme == "aps" else self._dpl - 1
        lowest = int(self._scheme != "sutton")
        return Options(self._dpl, base, lowest, self._chunks.limit, self._chunks.is_float, self._bad)

    def _advance(self, piece: Piece) -> None:
        """Take whole chunks into the state: one, or several of events."""
        if not self._state.total.size:
            self._state = empty_state(
                len(self._layout.group), dpl=self._dpl, levels=MAX_LEVELS, has_bad=self._bad.size > 0
            )
        first = (piece.first_chunk + 1) * CHUNK
        last = first + piece.n - CHUNK
        if last > 1 << (MAX_LEVELS - 1):
            raise ValueError(
                f"runs of more than {1 << (MAX_LEVELS - 1)} frames are not correlated: average or cut"
            )
        segment = min(CHUNK, segment_length(first))
        nothing = delays_of(0, self._bad, dpl=self._dpl, scheme=self._scheme)
        remark = np.zeros((0, 0), np.uint8)

        def work(worker: Worker, begin: int, end: int) -> None:
            worker.advance(begin, end, self._state, segment)

        gain = self._run(work, piece, 1, nothing, piece.n // segment, self._saxs, remark)
        self._intensity.append(gain.intensity)
        rows = CHUNK // segment
        for chunk, frames in enumerate(range(first, last + 1, CHUNK)):
            part = (each[chunk * rows : (chunk + 1) * rows] for each in (gain.segment_whole, gain.segment_part))
            self._take_segments(ExactSum(*carried(*part)), segment, frames)

    def _take_segments(self, rows: ExactSum, length: int, frames: int) -> None:
        """Append a chunk's segments, of `length` frames each, to those of the run so far, now of `frames`
        frames."""
        wanted = segment_length(frames)
        kept = _joined_rows(self._segments, wanted // self._segment_frames)
        begin = (frames - CHUNK) // wanted
        joined = ExactSum.zeros(-(-frames // wanted), self._qmap.n_static)
        joined.whole[: kept.shape[0]], joined.part[: kept.shape[0]] = kept.whole, kept.part
        new = _joined_rows(rows, max(1, min(wanted, CHUNK) // length))
        at = slice(begin, begin + new.shape[0])
        whole, part = carried(joined.whole[at] + new.whole, joined.part[at] + new.part)
        joined.whole[at], joined.part[at] = whole, part
        self._segments, self._segment_frames = joined, wanted

    def _sums(self, piece: Piece | None) -> MultiTauSums:
        """Sums with the last frames, which are in no state yet."""
        frames = 0 if piece is None else piece.first_chunk * CHUNK + piece.n
        if piece is None or frames < 2:
            raise ValueError(f"a correlation needs two frames at least, the run has {frames}")
        delays = delays_of(frames, self._bad, dpl=self._dpl, scheme=self._scheme)
        segment = segment_length(frames)
        chunks = -(-piece.n // CHUNK)
        ends = (piece.first_chunk + 1 + np.arange(chunks)) * CHUNK
        pieces = np.array([min(CHUNK, segment_length(min(end, frames))) for end in ends.tolist()], np.int64)
        remark = np.zeros(self._layout.static.shape, np.uint8)
        saxs = self._saxs.copy()

        def work(worker: Worker, begin: int, end: int) -> None:
            worker.finish(begin, end, self._state, frames, segment, pieces)

        top = 1 + int(delays.level.max())
        gain = self._run(work, piece, top, delays, frames // segment, saxs, remark)
        return self._message(frames, delays, gain, saxs, remark)

    def _message(
        self, frames: int, delays: Delays, gain: Gain, saxs: NDArray[np.float64], remark: NDArray[np.uint8]
    ) -> MultiTauSums:
        sums = ExactSum(*(np.ascontiguousarray(each.transpose(1, 2, 0)) for each in (gain.whole, gain.part)))
        G2, IP, IF, g, gg, n = (ExactSum(whole, part) for whole, part in zip(sums.whole, sums.part, strict=True))
        owner, bins = self._qmap.static_to_dynamic, self._qmap.n_dynamic
        segment = segment_length(frames)
        kept = _joined_rows(self._segments, segment // self._segment_frames)
        segments = ExactSum(gain.segment_whole, gain.segment_part)
        rows = min(kept.shape[0], segments.shape[0])
        whole, part = carried(segments.whole[:rows] + kept.whole[:rows], segments.part[:rows] + kept.part[:rows])
        segments.whole[:rows], segments.part[:rows] = whole, part
        intensity = np.concatenate([*self._intensity, gain.intensity])
        needs_all = self._normalise == "ratio_of_sums"
        light_frames = interval_length(frames, 2)  # every frame of runs up to 100,000
        intensity_frames = 1 if needs_all else interval_length(frames, bins)
        good = np.ones(frames, np.bool_)
        good[self._bad[self._bad < frames]] = False
        group, i = np.nonzero((remark > 0) & (self._layout.static >= 0))
        remarks, pixels = remark[group, i], self._layout.group[group] + i
        place = pixels[remarks & SATURATED > 0]
        dead = np.zeros(self._qmap.static.size, np.bool_)
        dead[place] = True
        return MultiTauSums(
            level=delays.level,
            lag=delays.lag,
            pairs=delays.pairs,
            G2=G2,
            IP=IP,
            IF=IF,
            g=g.grouped(owner, bins),
            gg=gg.grouped(owner, bins),
            n=n.grouped(owner, bins).whole,
            light=_joined_frames(intensity.sum(axis=1), light_frames),
            intensity=_joined_frames(intensity, intensity_frames),
            good=good,
            saxs_2d=saxs.reshape(self._qmap.shape),
            segments=segments,
            segment_frames=segment,
            excluded=np.bincount(self._qmap.static.ravel()[place], minlength=self._qmap.n_static + 1)[1:],
            dead=dead.reshape(self._qmap.shape),
            pixels=((self._layout.begin, self._layout.end),),
            begin=self._begin,
            stride=self._stride,
            average=self._average,
            light_frames=light_frames,
            intensity_frames=intensity_frames,
            counters={
                name: int(np.count_nonzero(remarks & bit))
                for name, bit in (("negative", NEGATIVE), ("invalid", INVALID))
            },
        )

    def _run(
        self,
        work: Callable[[Worker, int, int], None],
        piece: Piece,
        levels: int,
        delays: Delays,
        segments: int,
        saxs: NDArray[np.float64],
        remark: NDArray[np.uint8],
    ) -> Gain:
        """Work on all blocks in threads; add up what they gained."""
        if not self._simd and piece.frames.dtype not in (np.uint8, np.float32):
            piece = piece._replace(frames=piece.frames.astype(np.float32))  # plain numba is slow to compile
        blocks, threads = self._layout.blocks, min(self._threads, self._layout.blocks)
        step = -(-blocks // (threads * _SHARES))
        ranges = iter([(begin, min(begin + step, blocks)) for begin in range(0, blocks, step)])

        def one(_: int) -> Gain:
            bins = {"n_static": self._qmap.n_static, "n_dynamic": self._qmap.n_dynamic}
            gain = gain_of(len(delays.level), segments=segments, frames=piece.n, **bins)
            own = (piece, self._layout, self._options(), gain, saxs, delays, remark, levels)
            worker: Worker
            if not self._simd:
                from lightkeep.analysis.xpcs.plain_work import PlainWork

                worker = PlainWork(self._bins, *own)
            elif piece.event_ptr.size:
                worker = EventWork(*own, is_whole=self._chunks.is_whole)
            else:
                worker = CellWork(*own)
            for begin, end in ranges:  # the next free thread takes the next range
                work(worker, begin, end)
            return gain

        if threads == 1:
            return one(0)
        with ThreadPoolExecutor(threads) as pool:
            gains = list(pool.map(one, range(threads)))
        return _added(gains)


def _added(gains: list[Gain]) -> Gain:
    first = gains[0]
    for other in gains[1:]:
        whole, part = carried(first.whole + other.whole, first.part + other.part)
        segments = carried(first.segment_whole + other.segment_whole, first.segment_part + other.segment_part)
        first = Gain(whole, part, *segments, first.intensity + other.intensity)
    return first


def _joined_frames(series: Int64, count: int) -> Int64:
    """Sums of every `count` frames; the last may be of fewer."""
    return series if count == 1 else np.add.reduceat(series, np.arange(0, len(series), count), axis=0)


def _joined_rows(rows: ExactSum, count: int) -> ExactSum:
    """Sums of every `count` rows; the last may be of fewer."""
    if count == 1 or not rows.shape[0]:
        return rows
    at = np.arange(0, rows.shape[0], count)
    return ExactSum(*carried(np.add.reduceat(rows.whole, at), np.add.reduceat(rows.part, at)))


def _frames_of(bad: Iterable[int], begin: int, stride: int, average: int) -> Int64:
    """Frames, after stride and average, that contain a bad detector frame."""
    frames = np.unique(np.asarray(list(bad), np.int64)) - begin
    frames = frames[(frames >= 0) & (frames % stride == 0)]
    return np.unique(frames // stride // average)
