"""Multi-tau correlation against the brute force, and against itself cut otherwise."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from lightkeep.analysis.xpcs import (
    EventBlock,
    FrameBlock,
    MultiTau,
    MultiTauResult,
    MultiTauSums,
    QMap,
    multitau,
    shards,
)
from lightkeep.analysis.xpcs import sums as sums_module
from lightkeep.analysis.xpcs.kernels import work as kernel_module
from lightkeep.testing.xpcs_oracle import brute_force

Array = NDArray[Any]
KERNELS = ["simd", "plain"]
H, W = 90, 101
ARRAYS = ["tau", "pairs", "g2", "g2_err", "g2_partial", "saxs_2d", "saxs_1d", "saxs_1d_segments", "intensity_q"]


def a_map() -> QMap:
    """Rings about a centre beside the middle, a masked stripe; groups, tiles and blocks that are not full."""
    y, x = np.mgrid[:H, :W]
    r = np.hypot(y - 40, x - 55)
    dynamic = np.where((r > 8) & (r < 50) & (x % 17 > 0), 1 + (r - 8) // 14, 0).astype(np.int32)
    static = np.where(dynamic > 0, 2 * dynamic - ((r - 8) % 14 < 7), 0).astype(np.int32)
    return QMap(dynamic=dynamic, static=static, mask=np.ones((H, W), bool))


QMAP = a_map()


def frames(count: int, *, mean: float = 0.3, dtype: Any = np.uint8, seed: int = 5) -> Array:
    """Counts that are correlated over a few frames, and brighter in the middle of the run."""
    rng = np.random.default_rng(seed)
    slow = np.repeat(rng.gamma(2, 0.5, (count // 5 + 1, H, W)), 5, axis=0)[:count]
    ramp = 1 + np.sin(np.pi * np.arange(count) / count)[:, None, None]
    return rng.poisson(mean * slow * ramp).astype(dtype)


@cache
def a_run() -> Array:
    return frames(1300)


def events_of(run: Array, *, begin: int = 0, dtype: Any = np.uint16) -> EventBlock:
    frame, y, x = np.nonzero(run)
    pixel = (y * run.shape[2] + x).astype(np.uint32)
    return EventBlock(
        begin, len(run), run.shape[1:], (frame + begin).astype(np.uint32), pixel, run[frame, y, x].astype(dtype)
    )


def blocks_of(run: Array, seed: int, *, events: bool = False) -> Iterator[FrameBlock | EventBlock]:
    """The run in blocks of random lengths."""
    rng = np.random.default_rng(seed)
    begin = 0
    while begin < len(run):
        part = run[begin : begin + int(rng.integers(1, 700))]
        yield events_of(part, begin=begin) if events else FrameBlock(begin, part)
        begin += len(part)


def assert_same_bytes(one: MultiTauResult, other: MultiTauResult) -> None:
    for name in ARRAYS:
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
    assert one.flags == other.flags


def assert_right(found: MultiTauResult, run: Array, tolerance: float = 1e-9, **options: Any) -> None:
    right = brute_force(run, QMAP, **options)
    for name in ("tau_frames", "pairs", "g2", "g2_err", "g2_partial", "saxs_2d", "saxs_1d", "intensity"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(right, name), rtol=tolerance, atol=tolerance, err_msg=name
        )


COUNTS = [2, 3, 5, 13, 15, 16, 17, 127, 257, 509, 511, 512, 513, 1023, 1025, 1291]


@pytest.mark.parametrize(
    ("kernel", "count"), [*(("simd", n) for n in COUNTS), *(("plain", n) for n in (2, 13, 512, 1025))]
)
def test_g2_is_the_brute_forces_for_any_number_of_frames(count: int, kernel: Any) -> None:
    assert_right(multitau(a_run()[:count], QMAP, kernel=kernel), a_run()[:count])


@pytest.mark.parametrize("normalise", ["partition", "pooled", "ratio_of_sums"])
@pytest.mark.parametrize("scheme", ["aps", "hadoop", "sutton"])
def test_every_scheme_and_normalisation_is_the_brute_forces(scheme: Any, normalise: Any) -> None:
    options: dict[str, Any] = {"scheme": scheme, "normalise": normalise}
    assert_right(multitau(a_run()[:577], QMAP, **options), a_run()[:577], **options)


@pytest.mark.parametrize(
    "options",
    [
        {"begin": 7, "end": 1200},
        {"stride": 2},
        {"average": 3},
        {"begin": 4, "end": 1111, "stride": 2, "average": 2},
        {"dpl": 3},
        {"dpl": 8, "scheme": "sutton"},
        {"bad_frames": [0, 1, 99, 511, 512, 513, 600, 1299]},
        {"bad_frames": list(range(300, 340)), "begin": 10, "stride": 3, "average": 2},
    ],
    ids=str,
)
def test_every_selection_of_frames_is_the_brute_forces(options: dict[str, Any]) -> None:
    found = multitau(a_run(), QMAP, **options)
    assert_right(found, a_run(), **options)
    live = MultiTau(QMAP, **options)
    for block in blocks_of(a_run(), seed=1):
        live.push(block)
    assert_same_bytes(live.finish(), found)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.float32, np.int16, np.float64])
def test_the_dtype_of_the_counts_does_not_matter(dtype: Any) -> None:
    assert_same_bytes(multitau(a_run().astype(dtype), QMAP), multitau(a_run(), QMAP))


@pytest.mark.parametrize(("dtype", "mean"), [(np.uint8, 60.0), (np.uint16, 5000.0), (np.float32, 0.01)])
def test_high_counts_and_fractions_stay_within_a_millionth(dtype: Any, mean: float) -> None:
    run = np.minimum(frames(1025, mean=mean, dtype=np.float64), 254 if dtype is np.uint8 else 65000)
    run = run * np.pi if dtype is np.float32 else run
    run = run.astype(dtype)
    assert_right(multitau(run, QMAP), run, 1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("seed", [1, 2])
def test_live_is_batch_byte_for_byte_whatever_the_blocks_and_threads(seed: int, kernel: Any) -> None:
    live = MultiTau(QMAP, kernel=kernel, threads=1 + seed)
    for block in blocks_of(a_run(), seed):
        live.push(block)
    assert_same_bytes(live.finish(), multitau(a_run(), QMAP, kernel=kernel, threads=1))


def test_live_is_batch_byte_for_byte_for_fractions_too() -> None:
    run = (frames(1100) * np.float32(0.1)).astype(np.float32)
    live = MultiTau(QMAP)
    for block in blocks_of(run, seed=3):
        live.push(block)
    assert_same_bytes(live.finish(), multitau(run, QMAP, threads=1))


@pytest.mark.parametrize("kernel", KERNELS)
def test_shards_merged_in_any_order_are_the_whole_byte_for_byte(kernel: Any) -> None:
    parts = []
    for cut in [(0, 4096), (4096, 8192), (8192, H * W)]:
        part = MultiTau(QMAP, pixels=cut, kernel=kernel)
        for block in blocks_of(a_run(), seed=4):
            part.push(block)
        parts.append(part)
    message = parts[2].sums().to_bytes()
    parts[1].merge(parts[0])
    parts[1].merge(MultiTauSums.from_bytes(message))
    assert_same_bytes(parts[1].finish(), multitau(a_run(), QMAP, kernel=kernel))


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_shards_are_whole_blocks_and_cover_the_detector(count: int) -> None:
    cuts = shards(QMAP, count)
    assert cuts[0][0] == 0
    assert cuts[-1][1] == H * W
    assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(cuts))
    assert all(begin % 4096 == 0 for begin, _ in cuts)
    assert len(cuts) <= count


def test_a_shard_alone_is_no_result() -> None:
    part = MultiTau(QMAP, pixels=shards(QMAP, 2)[0])
    part.push(FrameBlock(0, a_run()[:100]))
    with pytest.raises(ValueError, match="in no shard"):
        part.finish()


def test_the_message_of_a_shard_is_small() -> None:
    part = MultiTau(QMAP)
    part.push(FrameBlock(0, a_run()))
    assert len(part.sums().to_bytes()) < 1_000_000


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("mean", [0.002, 0.3])
def test_events_are_frames_byte_for_byte(mean: float, kernel: Any) -> None:
    run = frames(1200, mean=mean)
    live = MultiTau(QMAP, kernel=kernel)
    for block in blocks_of(run, seed=6, events=True):
        live.push(block)
    assert_same_bytes(live.finish(), multitau(run, QMAP, kernel=kernel))
    assert_same_bytes(multitau([events_of(run)], QMAP, kernel=kernel), multitau(run, QMAP, kernel=kernel))


def test_an_event_that_occurs_twice_counts_twice() -> None:
    once = events_of(a_run()[:100])
    twice = EventBlock(
        0, 100, (H, W), np.repeat(once.frame, 2), np.repeat(once.pixel, 2), np.repeat(once.value, 2)
    )
    assert_same_bytes(multitau([twice], QMAP), multitau(2 * a_run()[:100], QMAP))


@pytest.mark.parametrize("options", [{"begin": 7, "end": 1200}, {"begin": 4, "stride": 2, "average": 2}], ids=str)
def test_events_are_selected_as_frames_are(options: dict[str, Any]) -> None:
    live = MultiTau(QMAP, **options)
    for block in blocks_of(a_run(), seed=7, events=True):
        live.push(block)
    assert_same_bytes(live.finish(), multitau(a_run(), QMAP, **options))


def test_a_snapshot_is_the_result_so_far_and_changes_nothing() -> None:
    live = MultiTau(QMAP)
    for begin in range(0, 1300, 130):
        live.push(FrameBlock(begin, a_run()[begin : begin + 130]))
        assert_same_bytes(live.snapshot(), multitau(a_run()[: begin + 130], QMAP))
    assert live.frames == 1300


@pytest.mark.parametrize(
    ("most", "dtype", "within"), [(0, np.uint8, 1e-10), (254, np.uint8, 1e-6), (65_534, np.uint16, 1e-6)]
)
def test_plain_numba_and_simd_agree(most: int, dtype: type, within: float) -> None:
    run: Array = a_run().astype(dtype)
    if most:
        run[::7] = np.random.default_rng(9).integers(0, most + 1, run[::7].shape)
        run[:, :, 5] = most
    simd, plain = multitau(run, QMAP, kernel="simd"), multitau(run, QMAP, kernel="plain")
    np.testing.assert_array_equal(simd.intensity, plain.intensity)
    np.testing.assert_array_equal(simd.intensity_q, plain.intensity_q)
    for name in ARRAYS:
        np.testing.assert_allclose(getattr(simd, name), getattr(plain, name), rtol=within, err_msg=name)


def test_moving_the_pixels_moves_nothing_else() -> None:
    order = np.random.default_rng(8).permutation(H * W)

    def moved(image: Array) -> Array:
        return image.reshape(*image.shape[:-2], -1)[..., order].reshape(image.shape)

    other = QMap(dynamic=moved(QMAP.dynamic), static=moved(QMAP.static), mask=moved(QMAP.mask))
    one, two = multitau(a_run()[:600], QMAP), multitau(moved(a_run()[:600]), other)
    np.testing.assert_allclose(two.g2, one.g2, rtol=1e-12)
    np.testing.assert_allclose(two.g2_err, one.g2_err, rtol=1e-9)
    np.testing.assert_array_equal(two.saxs_2d, moved(one.saxs_2d))


def test_segments_are_the_means_of_equal_pieces() -> None:
    found = multitau(a_run(), QMAP).saxs_1d_segments  # 1300 frames: 10 pieces of 128
    pieces = a_run()[:1280].reshape(10, 128, H, W).mean(axis=1)
    right = [[piece[QMAP.static == s].mean() for s in range(1, QMAP.n_static + 1)] for piece in pieces]
    np.testing.assert_allclose(found, right, rtol=1e-12)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("first", [0, 600], ids=["dead", "saturated later"])
def test_a_pixel_that_reaches_the_highest_count_is_left_out_and_said_so(
    first: int, kernel: Literal["simd", "plain"]
) -> None:
    run = a_run().astype(np.uint16)
    run[first:, 40, 70] = 65535
    run[first, 45, 75] = 65535
    found = multitau(run, QMAP, kernel=kernel)
    right = brute_force(run, QMAP)
    np.testing.assert_allclose(found.g2, right.g2, rtol=1e-9)
    np.testing.assert_allclose(found.g2_err, right.g2_err, rtol=1e-9)
    assert any(flag.startswith("2 ") and "highest possible count" in flag for flag in found.flags), found.flags


def test_the_highest_count_is_seen_in_events_and_before_averaging() -> None:
    run = a_run()[:600].astype(np.uint16)
    run[5, 40, 70] = 65535
    for found in (multitau([events_of(run)], QMAP), multitau(run, QMAP, average=2)):
        assert any("highest possible count" in flag for flag in found.flags), found.flags
        assert np.nanmax(found.g2) < 10


def test_counts_that_are_negative_or_not_finite_are_said_so() -> None:
    run = a_run()[:600].astype(np.float32)
    run[3, 40, 70], run[4, 41, 70], run[9, 42, 70] = np.nan, np.inf, -1
    found = multitau(run, QMAP)
    cleaned = run.copy()
    cleaned[~np.isfinite(run)] = 0
    assert_right(found, cleaned)
    assert any(flag.startswith("2 ") and "not finite" in flag for flag in found.flags), found.flags
    assert any(flag.startswith("1 ") and "negative" in flag for flag in found.flags), found.flags


def test_a_run_without_counts_is_nan_and_says_why() -> None:
    found = multitau(np.zeros((40, H, W), np.uint8), QMAP)
    assert np.isnan(found.g2).all()
    assert any("no used pixel counted" in flag for flag in found.flags)


@pytest.mark.parametrize("transposed", [True, False])
def test_a_qmap_of_another_detector_is_refused(transposed: bool) -> None:
    run = a_run()[:20].transpose(0, 2, 1) if transposed else a_run()[:20, :, :-1]
    with pytest.raises(ValueError, match="90"):
        multitau(run, QMAP)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_frames_are_refused(count: int) -> None:
    with pytest.raises(ValueError, match="two frames"):
        multitau(a_run()[:count], QMAP)
    with pytest.raises(ValueError, match="two frames"):
        MultiTau(QMAP).finish()


def test_a_run_that_ends_too_early_is_refused() -> None:
    with pytest.raises(ValueError, match="not inside a run of 50"):
        multitau(a_run()[:50], QMAP, end=60)
    with pytest.raises(ValueError, match="ended at frame 50"):
        multitau([FrameBlock(0, a_run()[:50])], QMAP, end=60)


def test_blocks_that_leave_a_gap_or_are_of_another_kind_are_refused() -> None:
    live = MultiTau(QMAP)
    live.push(FrameBlock(0, a_run()[:50]))
    with pytest.raises(ValueError, match="frame 50 should come next"):
        live.push(FrameBlock(60, a_run()[60:70]))
    with pytest.raises(ValueError, match="one kind"):
        live.push(events_of(a_run()[50:60], begin=50))
    with pytest.raises(ValueError, match="one kind"):
        live.push(FrameBlock(50, a_run()[50:60].astype(np.uint16)))


def test_pixels_that_are_not_whole_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="whole blocks"):
        MultiTau(QMAP, pixels=(0, 100))


def test_the_simd_kernels_do_not_pretend_to_do_what_they_cannot() -> None:
    with pytest.raises(ValueError, match="4 delays per level"):
        multitau(a_run(), QMAP, dpl=3, kernel="simd")


def test_a_read_only_or_strided_run_is_the_same_run() -> None:
    locked = a_run()[:700].copy()
    locked.flags.writeable = False
    wide = np.zeros((700, H, W + 6), np.uint8)
    wide[:, :, 3:-3] = locked
    right = multitau(a_run()[:700], QMAP)
    assert_same_bytes(multitau(locked, QMAP), right)
    assert_same_bytes(multitau(wide[:, :, 3:-3], QMAP), right)


def test_the_kernels_count_in_the_units_of_the_sums() -> None:
    assert kernel_module.FRACTION_BITS == sums_module.FRACTION_BITS
    assert 2.0**sums_module.INTENSITY_BITS == kernel_module.INTENSITY_SCALE
