"""Events correlated as events are the bytes of the same frames, however few or many they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lightkeep.analysis.xpcs import EventBlock, MultiTau, MultiTauResult, QMap, multitau
from lightkeep.testing.xpcs_oracle import brute_force

SHAPE = (67, 71)
"""Two blocks of 4096 pixels, the second with few; groups, tiles and cells that are not full."""
ARRAYS = ["tau", "pairs", "g2", "g2_err", "g2_partial", "saxs_2d", "saxs_1d", "saxs_1d_segments", "intensity_q"]
SCHEMES = ("aps", "hadoop", "sutton")


def a_map() -> QMap:
    """Small partitions beside each other, a masked corner, a partition in both blocks."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    static = 1 + (x // 9) % 5 + 5 * (y > 40)
    return QMap.from_labels(np.where(x + y < 20, 0, (static + 1) // 2), np.where(x + y < 20, 0, static))


QMAP = a_map()


def counts(n: int, occupancy: float, *, dtype: Any = np.uint16, seed: int = 3) -> NDArray[Any]:
    """(n, H, W) photons, some pixels with many more than others, and some twice in a frame."""
    rng = np.random.default_rng(seed)
    return rng.poisson(occupancy * rng.gamma(0.5, 2, SHAPE), (n, *SHAPE)).astype(dtype)


def events_of(run: NDArray[Any], begin: int = 0, *, dtype: Any = np.uint16) -> EventBlock:
    """The same as single photons: a count of 2 is two events."""
    frame, y, x = np.nonzero(run)
    times = np.where(run[frame, y, x] < 10, run[frame, y, x], 1).astype(np.int64)
    value = np.where(times > 1, 1, run[frame, y, x]).astype(dtype)
    columns = (frame + begin).astype(np.uint32), (y * SHAPE[1] + x).astype(np.uint32), value
    return EventBlock(begin, len(run), SHAPE, *(np.repeat(each, times) for each in columns))


def followed(run: NDArray[Any], step: int, *, is_idle: bool = False, **options: Any) -> MultiTauResult:
    live = MultiTau(QMAP, **options)
    for number, begin in enumerate(range(0, len(run), step)):
        live.push(events_of(run[begin : begin + step], begin))
        if number % 3 == 2 and live.frames > 1:
            live.snapshot()
        if is_idle:
            live.idle()
    return live.finish()


def assert_same_bytes(one: MultiTauResult, other: MultiTauResult) -> None:
    for name in ARRAYS:
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
    assert one.flags == other.flags


@pytest.mark.parametrize("n", [2, 7, 13, 15, 251, 512, 1031, 1500])
@pytest.mark.parametrize("occupancy", [0.0, 1e-4, 2e-3, 0.1])
def test_events_are_frames_byte_for_byte(occupancy: float, n: int) -> None:
    run = counts(n, occupancy)
    for scheme in SCHEMES:
        assert_same_bytes(multitau([events_of(run)], QMAP, scheme=scheme), multitau(run, QMAP, scheme=scheme))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("n", [13, 251, 1031])
def test_events_are_the_definition(n: int, scheme: Any) -> None:
    run = counts(n, 5e-3)
    found, wanted = multitau([events_of(run)], QMAP, scheme=scheme), brute_force(run, QMAP, scheme=scheme)
    for name in ("g2", "g2_err", "saxs_2d", "intensity"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(
    "options",
    [
        {"begin": 5, "end": 1290},
        {"stride": 3},
        {"average": 2, "scheme": "sutton"},
        {"begin": 4, "end": 1201, "stride": 2, "average": 3, "scheme": "hadoop"},
        {"bad_frames": (0, 3, 511, 512, 600)},
        {"dpl": 8},
        {"dpl": 3, "bad_frames": (40, 41), "stride": 2},
    ],
    ids=str,
)
@pytest.mark.parametrize("occupancy", [2e-3, 0.05])
def test_events_are_selected_as_frames_are(occupancy: float, options: dict[str, Any]) -> None:
    run = counts(1300, occupancy)
    right = multitau(run, QMAP, **options)
    assert_same_bytes(multitau([events_of(run)], QMAP, **options), right)
    assert_same_bytes(followed(run, 97, **options), right)


@pytest.mark.parametrize("step", [61, 512, 2000])
def test_a_followed_run_that_outgrows_its_waiting_events_is_the_whole_one(step: int) -> None:
    """Beyond 16 events per pixel they go into a state, and what comes later finds its partners there."""
    run = counts(5203, 8e-3)
    for scheme in SCHEMES:
        right = multitau(run, QMAP, scheme=scheme)
        assert_same_bytes(followed(run, step, scheme=scheme), right)
        assert_same_bytes(followed(run, step, scheme=scheme, is_idle=True), right)


@pytest.mark.parametrize("from_frame", [0, 4000])
def test_a_hot_pixel_changes_nothing_for_the_others(from_frame: int) -> None:
    """Its block is worked on as frames, before or after some of its events went into a state as events."""
    run = counts(5000, 6e-3)
    run[from_frame:, 33, 40] = 300
    right = multitau(run, QMAP)
    assert_same_bytes(multitau([events_of(run)], QMAP), right)
    assert_same_bytes(followed(run, 700), right)
    assert_same_bytes(followed(run, 700, is_idle=True), right)


def test_a_saturated_event_leaves_its_pixel_out() -> None:
    run = counts(5000, 6e-3)
    run[3000, 33, 40] = 65535
    right = multitau(run, QMAP)
    assert_same_bytes(multitau([events_of(run)], QMAP), right)
    assert_same_bytes(followed(run, 700), right)
    assert any("highest possible count" in flag for flag in right.flags)


@pytest.mark.parametrize("factor", [1.0, 0.25, -1.0])
def test_events_need_not_be_whole_or_positive(factor: float) -> None:
    run = counts(700, 4e-3, dtype=np.float32) * np.float32(factor)
    frame, y, x = np.nonzero(run)
    columns = frame.astype(np.uint32), (y * SHAPE[1] + x).astype(np.uint32), run[frame, y, x]
    assert_same_bytes(multitau([EventBlock(0, 700, SHAPE, *columns)], QMAP), multitau(run, QMAP))


def test_shards_of_events_are_the_whole_whatever_the_threads() -> None:
    run = counts(900, 3e-3)
    one, two = (MultiTau(QMAP, pixels=cut) for cut in ((0, 4096), (4096, SHAPE[0] * SHAPE[1])))
    for part in (one, two):
        part.push(events_of(run))
    two.merge(one)
    for threads in (1, 2, 5):
        assert_same_bytes(two.finish(), multitau([events_of(run)], QMAP, threads=threads))


def test_what_waits_is_not_the_memory_of_the_block() -> None:
    run = counts(300, 3e-3)
    block = events_of(run)
    live = MultiTau(QMAP)
    live.push(block)
    block.frame[:], block.pixel[:], block.value[:] = 0, 0, 9
    assert_same_bytes(live.finish(), multitau(run, QMAP))
