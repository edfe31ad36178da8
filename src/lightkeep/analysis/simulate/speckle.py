"""Speckle of a moving sample, photon by photon, whose correlations are known exactly."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import gammainccinv

from lightkeep.analysis.simulate import speckle_kernel as kernel
from lightkeep.analysis.simulate import speckle_truth as truth
from lightkeep.analysis.xpcs.blocks import Block, EventBlock, FrameBlock

Float64 = NDArray[np.float64]

BRIGHTEST = 1e-7
"""How rarely a speckle is brighter than is allowed for where frames are passed over: the loss of photons."""
HOT = 10.0
"""Photons that a hot pixel counts in a frame by itself."""
_UNCORRELATED = 1e6
_FEW = 0.02
"""Photons per pixel and frame below which a run is written as events."""
_DENSE_BYTES, _EVENT_FRAMES, _EVENTS = 16 * 2**20, 4096, 2**21
"""Size of a block: bytes of frames; frames and (expected) events."""


@dataclass(frozen=True, eq=False)
class Speckle:
    """A run of frames with known truth; any function that takes a run's frames takes it, by `shape` and `blocks`.

    In each pixel the field is a sum of `modes` independent complex Ornstein-Uhlenbeck processes, so that
    g2(tau) = 1 + contrast * exp(-2 Gamma tau) exactly, and photons are counted with Poisson noise, which changes
    g2 at tau = 0 only. Every pixel is an independent speckle.

    Raises
    ------
    ValueError: shapes disagree, a label without a rate, or a value out of range.
    """

    labels: NDArray[np.int32]
    """(H, W) dynamic bin of a pixel from 1; 0: light (but for the static share) that is new in every frame."""
    rates: Float64
    """(bins,) decay rate of the field, Gamma, per frame."""
    mean: Float64
    """(H, W) photons per pixel and frame while `beam` is 1."""
    n_frames: int
    modes: int = 1
    """Independent speckle patterns that add up; the contrast is 1 / modes."""
    static: float = 0.0
    """Share x of the intensity that comes from what does not move: g1 = (1 - x) exp(-Gamma tau) + x."""
    ageing: Float64 | None = None
    """(n_frames,) factor on all rates on the way to each frame; None: 1."""
    beam: Float64 | None = None
    """(n_frames,) relative intensity; None: 1."""
    dropped: Sequence[int] = ()
    """Frames that the detector lost: nothing is counted."""
    dead: Sequence[int] = ()
    """Pixels (row * W + column) that count nothing."""
    hot: Sequence[int] = ()
    """Pixels that count `HOT` photons more, which forget themselves after one frame."""
    saturated: Sequence[int] = ()
    """Pixels that show `most` in every frame."""
    most: int = 65535
    """What a saturated pixel shows; counts end there, or at 65,535. At most 65,535 in events."""
    events: bool | None = None
    """Whether blocks hold events; None: when there is less than one photon in 50 pixels."""
    seed: int = 0
    """Decides field and noise; nothing else does, neither the size of the blocks nor the number of threads."""

    def __post_init__(self) -> None:
        for name, kind in (("labels", np.int32), ("rates", float), ("mean", float)):
            object.__setattr__(self, name, np.ascontiguousarray(getattr(self, name), kind))
        for name in ("ageing", "beam"):
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, np.asarray(given, float))
                _require(
                    np.shape(given) == (self.n_frames,), f"{name} has {np.shape(given)} values, not one per frame"
                )
                _require(np.min(given) >= 0, f"{name} is below 0")
        _require(
            self.labels.ndim == 2 and self.labels.shape == self.mean.shape, "labels and mean are not of one (H, W)"
        )
        _require(
            bool(self.labels.min() >= 0 and self.labels.max() <= self.rates.size),
            "labels are outside 0 .. number of rates",
        )
        _require(bool(np.all(self.rates >= 0)) and bool(np.all(self.mean >= 0)), "a rate or a mean is below 0")
        _require(0 < self.n_frames < 2**30, "the number of frames is outside 1 .. 2^30 - 1")
        _require(self.modes >= 1, "there must be a mode")
        _require(0 <= self.seed < 2**64, "the seed is outside 0 .. 2^64 - 1")
        for pixels in (self.dead, self.hot, self.saturated):
            _require(_inside(pixels, self.labels.size), "a bad pixel is outside the detector")
        _require(_inside(self.dropped, self.n_frames), "a lost frame is outside the run")
        _require(0 <= self.static <= 1, "the static share is outside 0 .. 1")
        _require(
            0 < self.most < (2**16 if self.has_events else 2**32),
            "the greatest count is outside 1 .. 2^32 - 1 (2^16 - 1 for events)",
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(frames, H, W)."""
        return self.n_frames, self.labels.shape[0], self.labels.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of dense frames: the narrowest for the greatest count."""
        return np.min_scalar_type(self.most)

    @property
    def contrast(self) -> float:
        """g2(0) - 1 without photon noise."""
        return 1 / self.modes

    @property
    def works(self) -> NDArray[np.bool_]:
        """(H, W) True where a pixel is neither dead nor hot nor saturated."""
        good = np.ones(self.labels.size, bool)
        for some in (self.dead, self.hot, self.saturated):
            good[np.asarray(some, int)] = False
        return good.reshape(self.labels.shape)

    @property
    def has_events(self) -> bool:
        """True when blocks hold events, False when they hold frames."""
        return float(self.mean.mean()) < _FEW if self.events is None else self.events

    def blocks(
        self, begin: int = 0, end: int | None = None, *, size: int | None = None, threads: int | None = None
    ) -> Iterator[Block]:
        """Frames begin .. end, block after block; every block is new memory.

        Parameters
        ----------
        begin, end: the field has to be followed from frame 0 all the same.
        size: frames of a block; chosen by memory otherwise. threads: of the machine's cores, all by default.

        Raises
        ------
        ValueError: begin and end are not inside the run, or size is below 1.
        """
        stop = self.n_frames if end is None else end
        _require(0 <= begin <= stop <= self.n_frames, f"frames {begin} to {stop} are not inside the run")
        step = self._block_length() if size is None else size
        _require(step >= 1, "a block needs at least one frame")
        measurement = _Measurement(self, threads or os.cpu_count() or 1)
        with ThreadPoolExecutor(measurement.threads) as pool:
            for first in range(0, begin, step):
                measurement.block(first, min(first + step, begin), pool)
            for first in range(begin, stop, step):
                yield measurement.block(first, min(first + step, stop), pool)

    def frames(self, begin: int = 0, end: int | None = None) -> NDArray[Any]:
        """(end - begin, H, W) counts of all these frames at once, dense, in `dtype`."""
        found = [
            block.frames if isinstance(block, FrameBlock) else block.dense(self.dtype)
            for block in self.blocks(begin, end)
        ]
        return np.concatenate(found) if found else np.zeros((0, *self.labels.shape), self.dtype)

    def expected_g2(self, delays: Sequence[tuple[int, int]], *, static: ArrayLike | None = None) -> Float64:
        """See `speckle_truth.expected_g2`: (delay, bin), with drift, ageing, lost frames and level averaging."""
        light, labels = self._counting(static)
        decays = truth.Decay(self.rates, self._clock(), self.contrast, self.static)
        return truth.expected_g2(delays, self._beam(), decays, truth.spread(light, labels, self.labels))

    def expected_c2(
        self, label: int, *, begin: int = 0, end: int | None = None, static: ArrayLike | None = None
    ) -> Float64:
        """See `speckle_truth.expected_c2`: (t1, t2) of frames begin .. end in one bin."""
        light, labels = self._counting(static)
        frames = slice(begin, self.n_frames if end is None else end)
        decay = truth.Decay(self.rates[label - 1 : label], self._clock(), self.contrast, self.static)
        spread = truth.spread(light, np.where(self.labels == label, labels, 0), np.minimum(self.labels, 1))
        return truth.expected_c2(frames, self._beam(), decay, spread)

    def expected_saxs_1d(self, static: ArrayLike) -> Float64:
        """(partitions,) mean photons per pixel and frame over the whole run in each static partition, from 1."""
        light, labels = self._counting(static)
        sums = np.bincount(labels.ravel(), light.ravel())[1:]
        return np.asarray(sums / np.bincount(labels.ravel())[1:] * self._beam().mean())

    def expected_intensity(self) -> Float64:
        """(n_frames,) photons per pixel in each frame, over the pixels that work and have a bin."""
        light, labels = self._counting(None)
        return float(light[labels > 0].mean()) * self._beam()

    def _beam(self) -> Float64:
        beam = np.ones(self.n_frames) if self.beam is None else self.beam.copy()
        beam[np.asarray(self.dropped, int)] = 0.0
        return beam

    def _clock(self) -> Float64:
        """(n_frames,) how much Gamma t has grown since frame 0, for a rate of 1."""
        if self.ageing is None:
            return np.arange(self.n_frames, dtype=float)
        clock: Float64 = np.cumsum(self.ageing)
        return np.asarray(clock - clock[0])

    def _counting(self, static: ArrayLike | None) -> tuple[Float64, NDArray[np.int64]]:
        """(H, W) light that arrives and is counted, and the partitions: by default every bin is one."""
        labels = np.where(self.works, self.labels, 0) if static is None else np.asarray(static)
        light = self.mean.copy().ravel()
        light[np.asarray(self.dead, int)] = 0
        wrong = np.asarray([*self.hot, *self.saturated], int)
        _require(not labels.ravel()[wrong].any(), "hot and saturated pixels cannot be in a partition")
        return light.reshape(self.mean.shape), labels.astype(np.int64)

    def _block_length(self) -> int:
        pixels = self.labels.size
        if not self.has_events:
            return max(1, _DENSE_BYTES // (pixels * self.dtype.itemsize))
        per_frame = float(self.mean.sum()) + HOT * len(self.hot) + len(self.saturated)
        return int(np.clip(_EVENTS / max(per_frame, 1.0), 1, _EVENT_FRAMES))


class _Measurement:
    """The state of a run between two blocks: where the field of each pixel is, and when it is looked at next."""

    def __init__(self, speckle: Speckle, threads: int) -> None:
        self.speckle, self.threads = speckle, threads
        pixels = speckle.labels.size
        groups = -(-pixels // kernel.LANES)
        beam = speckle._beam()
        mean, rate = _lit(speckle)
        brightest = gammainccinv(speckle.modes, BRIGHTEST) / speckle.modes  # the light is Gamma-distributed
        cover = -np.expm1(-mean * brightest * beam.max())
        cover[cover > 0.25] = 1.0
        with np.errstate(divide="ignore"):
            gap = np.where(cover > 0, 1 / np.log1p(-cover), 0.0)  # 0 where every frame is looked at
        self.optics = tuple(_grouped(each, groups) for each in (rate, mean, cover, gap))
        still_modes = speckle.modes if speckle.static else 0
        moving = np.zeros((groups, speckle.modes, 2, kernel.LANES), np.float32)
        still = np.zeros((groups if still_modes else 1, still_modes, 2, kernel.LANES), np.float32)
        key = np.zeros((groups, kernel.LANES), np.uint64)
        due = np.where(self.optics[2] > 0, 0, kernel.NEVER).astype(np.int32)
        self.normals = kernel.normal_table()
        kernel.begin_fields(np.uint64(speckle.seed), self.normals, self.optics[3], key, due, moving, still)
        self.state = key, np.zeros_like(due), due, moving, still
        clock = np.zeros(0) if speckle.ageing is None else speckle._clock()
        self.law = beam.astype(np.float32), clock
        self.amplitudes = np.float32(np.sqrt(1 - speckle.static)), np.float32(np.sqrt(speckle.static))
        edges = np.linspace(0, groups, min(threads, groups) + 1).astype(int)
        self.parts = list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))
        self.per_frame = [
            float((mean * beam.max())[a * kernel.LANES : b * kernel.LANES].sum()) for a, b in self.parts
        ]

    def block(self, begin: int, end: int, pool: ThreadPoolExecutor) -> Block:
        """Measure the next frames."""
        speckle = self.speckle
        shape = (speckle.labels.shape[0], speckle.labels.shape[1])
        if not speckle.has_events:
            counts = np.zeros((end - begin, speckle.labels.size), np.uint16)
            list(pool.map(lambda part: self._count(part, begin, end, counts, _room(0)), self.parts))
            stack = counts.astype(speckle.dtype, copy=False)
            stack[:, np.asarray(speckle.saturated, int)] = speckle.most
            return FrameBlock(begin, stack.reshape(end - begin, *shape))
        found = [
            each
            for some in pool.map(lambda n: self._events(n, begin, end), range(len(self.parts)))
            for each in some
        ]
        when, where, value = _by_frame(found, begin, end)
        if len(speckle.saturated):
            when, where, value = _with_stuck(when, where, value, speckle, begin, end)
        return EventBlock(begin, end - begin, shape, when, where, value)

    def _events(self, part: int, begin: int, end: int) -> list[tuple[NDArray[Any], ...]]:
        """Events of a part of the pixels, pixel by pixel; another buffer is taken when one is full."""
        first, last = self.parts[part]
        expected, found = self.per_frame[part] * (end - begin), []
        while first < last:
            room = _room(int(expected / 4) + 2 * kernel.LANES * (end - begin))
            used, first = self._count((first, last), begin, end, np.zeros((0, 0), np.uint16), room)
            found.append(tuple(each[:used] for each in room))
        return found

    def _count(
        self, part: tuple[int, int], begin: int, end: int, stack: NDArray[Any], events: tuple[NDArray[Any], ...]
    ) -> tuple[int, int]:
        found: tuple[int, int] = kernel.measure(
            *part, begin, end, self.optics, self.state, self.law, self.normals, self.amplitudes,
            min(self.speckle.most, 65535), stack, events,
        )  # fmt: skip
        return found


def _lit(speckle: Speckle) -> tuple[Float64, Float64]:
    """(pixel,) photons per frame and decay rates, with the defects."""
    mean = speckle.mean.ravel().copy()
    rate = np.concatenate([[_UNCORRELATED], speckle.rates])[speckle.labels.ravel()]
    hot, dark = np.asarray(speckle.hot, int), np.asarray([*speckle.dead, *speckle.saturated], int)
    mean[hot] += HOT
    rate[hot] = _UNCORRELATED
    mean[dark] = 0
    return mean, rate


def _grouped(values: Float64, groups: int) -> NDArray[np.float32]:
    padded = np.zeros(groups * kernel.LANES, np.float32)
    padded[: values.size] = values
    return padded.reshape(groups, kernel.LANES)


def _room(count: int) -> tuple[NDArray[Any], ...]:
    return np.empty(count, np.uint32), np.empty(count, np.uint32), np.empty(count, np.uint16)


def _by_frame(found: list[tuple[NDArray[Any], ...]], begin: int, end: int) -> tuple[NDArray[Any], ...]:
    """Merge lists of events that each ascend by pixel; the result ascends by frame, then by pixel."""
    counts = sum(
        (np.bincount(when - begin, minlength=end - begin) for when, _, _ in found), np.zeros(end - begin, int)
    )
    places = np.cumsum(counts) - counts
    out = _room(int(counts.sum()))
    for each in found:
        kernel.by_frame(begin, each, places, out)
    return out


def _with_stuck(
    when: NDArray[Any], where: NDArray[Any], value: NDArray[Any], speckle: Speckle, begin: int, end: int
) -> tuple[NDArray[Any], ...]:
    """Add the events of the saturated pixels, one in every frame; ordered by frame and pixel again."""
    stuck = np.asarray(speckle.saturated, np.uint32)
    when = np.append(when, np.repeat(np.arange(begin, end, dtype=np.uint32), stuck.size))
    where = np.append(where, np.tile(stuck, end - begin))
    value = np.append(value, np.full(stuck.size * (end - begin), speckle.most, np.uint16))
    order = np.lexsort((where, when))
    return when[order], where[order], value[order]


def _inside(numbers: Sequence[int], count: int) -> bool:
    return all(0 <= each < count for each in numbers)


def _require(claim: bool, otherwise: str) -> None:
    if not claim:
        raise ValueError(otherwise)
