"""The multi-tau two-time correlation is the two-time correlation of averaged frames, on its diagonals."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from lightkeep.analysis.xpcs import EventBlock, FrameBlock, QMap
from lightkeep.analysis.xpcs.twotime import twotime
from lightkeep.analysis.xpcs.twotime_multitau import MultiTauTwoTime, twotime_multitau

Counts = NDArray[np.uint8]
LABELS = np.kron(np.arange(1, 7).reshape(2, 3), np.ones((9, 8), int))
LABELS[4] = 0
QMAP = QMap.from_labels((LABELS + 1) // 2, LABELS)


def run(frames: int, *, mean: float = 0.6) -> Counts:
    rng = np.random.default_rng(frames)
    return rng.poisson(mean * rng.exponential(size=(frames, *QMAP.shape))).astype(np.uint8)


def events(counts: Counts, begin: int) -> EventBlock:
    frame, row, column = np.nonzero(counts)
    pixel = (row * counts.shape[2] + column).astype(np.uint32)
    value = counts[frame, row, column].astype(np.uint16)
    return EventBlock(begin, len(counts), QMAP.shape, (frame + begin).astype(np.uint32), pixel, value)


def same(one: MultiTauTwoTime, other: MultiTauTwoTime) -> bool:
    return len(one.levels) == len(other.levels) and all(
        left.c2.tobytes() == right.c2.tobytes() and (left.is_defined == right.is_defined).all()
        for left, right in zip(one.levels, other.levels, strict=True)
    )


@pytest.mark.parametrize("smooth", ["static", "dynamic", None])
@pytest.mark.parametrize("frames", [2, 9, 64, 65, 300])
def test_every_level_is_the_two_time_correlation_of_averaged_frames(frames: int, smooth: str | None) -> None:
    counts = run(frames)
    found = twotime_multitau(counts, QMAP, smooth=smooth, dpl=3, begin=1)
    assert found.tau_frames.tolist() == sorted(set(found.tau_frames.tolist()))
    for level in found.levels:
        whole = twotime(counts, QMAP, smooth=smooth, average=level.width, begin=1)
        for place, number in enumerate(found.bins):
            for at, lag in enumerate(level.lag):
                diagonal = np.diagonal(whole.c2[number], lag)
                assert level.is_defined[place, at].sum() == diagonal.size
                assert level.c2[place, at, : diagonal.size] == pytest.approx(diagonal, rel=3e-6)  # float32 sums
                assert not level.c2[place, at, diagonal.size :].any()


def test_g2_is_the_mean_over_ages() -> None:
    counts = run(120)
    found = twotime_multitau(counts, QMAP, dpl=4, frame_time_s=0.5)
    whole = twotime(counts, QMAP)
    first = found.levels[0].lag
    assert found.g2[: first.size] == pytest.approx(whole.g2[first], rel=1e-6)
    assert found.tau[: first.size] == pytest.approx(0.5 * first)


@pytest.mark.parametrize("average", [1, 3])
def test_blocks_threads_and_events_change_no_byte(average: int) -> None:
    counts = run(210, mean=0.1)
    whole = twotime_multitau(counts, QMAP, dpl=2, average=average, threads=1)
    cuts = [0, 1, 2, 17, 80, 81, 150, 210]
    frames = [FrameBlock(begin, counts[begin:end]) for begin, end in pairwise(cuts)]
    sparse = [events(counts[begin:end], begin) for begin, end in pairwise(cuts)]
    mixed = [pair[place % 2] for place, pair in enumerate(zip(frames, sparse, strict=True))]
    for blocks in (frames, sparse, mixed):
        assert same(whole, twotime_multitau(blocks, QMAP, dpl=2, average=average, threads=3))


def test_bad_and_empty_frames_are_nowhere_defined() -> None:
    counts = run(100)
    counts[40] = 0
    found = twotime_multitau(counts, QMAP, dpl=4, bad_frames=[71])
    assert "1 bad frames have no two-time correlation." in found.flags
    finest = found.levels[0]
    for at, lag in enumerate(finest.lag):
        gone = {40, 40 - lag, 71, 71 - lag, *range(100 - lag, 100)}
        assert set(np.flatnonzero(~finest.is_defined[0, at]).tolist()) == gone
    next_level = found.levels[1]
    assert not next_level.is_defined[:, :, 71 // 2].any()
    assert next_level.is_defined[:, :, 40 // 2].all()  # the frame beside has counts
    assert np.isfinite(found.g2).all()


def test_ageing_is_seen_at_its_age() -> None:
    """Speckle that decays four times as fast in the first half; C = 1 + exp(-2 Gamma |t2 - t1|)."""
    rng = np.random.default_rng(0)
    frames, pixels = 400, QMAP.shape
    rates = np.where(np.arange(frames) < frames // 2, 0.2, 0.05)
    field = rng.normal(size=(2, *pixels))
    values = np.empty((frames, *pixels))
    for frame, rate in enumerate(rates):
        values[frame] = (field**2).sum(axis=0)
        keep = np.exp(-rate)
        field = keep * field + np.sqrt(1 - keep**2) * rng.normal(size=field.shape)
    found = twotime_multitau(values, QMAP, smooth=None, dpl=8)
    lag = found.levels[0].lag
    for age, rate in ((100, 0.2), (300, 0.05)):
        g2 = found.at_age(age, width=160).mean(axis=1)[: lag.size]
        # 160 ages x 400 pixels are some 5000 independent speckles: 1.4 % each; 0.08 is five of that and more
        assert g2 == pytest.approx(1 + np.exp(-2 * rate * lag), abs=0.08)


def test_dead_pixels_are_left_out() -> None:
    counts = run(80)
    dead = counts.copy()
    dead[:, 0, 0] = 255
    static = LABELS.copy()
    static[0, 0] = 0
    without = QMap.from_labels((static + 1) // 2, static)
    assert same(twotime_multitau(dead, QMAP), twotime_multitau(counts, without))


def test_what_cannot_be_done_is_refused() -> None:
    with pytest.raises(ValueError, match="smooth must be static, dynamic or None"):
        twotime_multitau(run(10), QMAP, smooth="average")
    with pytest.raises(ValueError, match="dpl must be at least 1"):
        twotime_multitau(run(10), QMAP, dpl=0)
    with pytest.raises(ValueError, match="not one complete frame"):
        twotime_multitau(run(10), QMAP, average=11)
