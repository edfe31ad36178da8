"""Sums add exactly; curves and static outputs are right, or the result says what is missing."""

from __future__ import annotations

import pickle
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lightkeep.analysis.xpcs import (
    ExactSum,
    FrameBlock,
    MultiTau,
    MultiTauResult,
    MultiTauSums,
    QMap,
    levels,
    multitau,
    result_of,
    segment_length,
    shards,
)
from lightkeep.analysis.xpcs.sums import interval_length

SHAPE = (48, 64)
ROWS, COLUMNS = np.mgrid[: SHAPE[0], : SHAPE[1]]
HALVES = QMap.from_labels(COLUMNS // 32 + 1, COLUMNS // 32 * 4 + ROWS // 12 + 1)
"""Two bins, left and right, of four partitions each."""


LARGE = QMap.from_labels(np.tile(HALVES.dynamic, (4, 1)), np.tile(HALVES.static, (4, 1)))
"""The same four times: three blocks of pixels, so that it can be cut into shards."""


def photons(n: int = 40, *, mean: float = 2.0, seed: int = 0) -> NDArray[np.uint16]:
    return np.random.default_rng(seed).poisson(mean, (n, *SHAPE)).astype(np.uint16)


def sums_of(frames: NDArray[Any], qmap: QMap = HALVES, *, pixels: tuple[int, int] | None = None) -> MultiTauSums:
    work = MultiTau(qmap, pixels=pixels)
    work.push(FrameBlock(0, frames))
    return work.sums()


def content(value: object) -> object:
    """A dataclass as nested dicts of its fields, which numpy can compare."""
    if hasattr(value, "__dataclass_fields__"):
        return {item.name: content(getattr(value, item.name)) for item in fields(value)}  # type: ignore[arg-type]
    return value


def has_flag(result: MultiTauResult, *words: str) -> bool:
    return any(all(word in flag for word in words) for flag in result.flags)


# -- exact sums


def test_exact_sums_do_not_depend_on_the_order_where_floats_do() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=1000) * 10.0 ** rng.integers(-9, 9, 1000)
    forward, backward = ExactSum.zeros(1), ExactSum.zeros(1)
    for value in values:
        forward = forward + ExactSum.of([value])
    for value in values[::-1]:
        backward = ExactSum.of([value]) + backward
    assert (forward.whole, forward.part) == (backward.whole, backward.part)
    assert sum(values.tolist()) != sum(values[::-1].tolist())
    assert forward.value[0] == pytest.approx(values.sum(), rel=1e-12)


def test_an_exact_sum_has_one_way_to_be_written() -> None:
    one = ExactSum.of([0.75]) + ExactSum.of([-1.5])
    assert (one.whole.tolist(), one.value.tolist()) == ([-1], [-0.75])
    assert 0 <= one.part[0] < 2**48


def test_groups_of_an_exact_sum_are_the_sums_of_their_members() -> None:
    values = np.random.default_rng(1).normal(size=(3, 40))
    owner = np.random.default_rng(2).integers(1, 5, 40)
    found = ExactSum.of(values).grouped(owner, 4).value
    wanted = [values[:, owner == label].sum(axis=1) for label in range(1, 5)]
    np.testing.assert_allclose(found.T, wanted, atol=1e-12)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e19, -1e19])
def test_what_does_not_fit_an_exact_sum_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="mask saturated"):
        ExactSum.of([value])


def test_an_exact_sum_that_overflows_is_refused() -> None:
    half = ExactSum.of([4e18])
    with pytest.raises(ValueError, match="overflow"):
        _ = half + half + half


def test_ip_is_of_the_earlier_frames_and_if_of_the_later_ones() -> None:
    frames = photons(64)
    sums = sums_of(frames)
    samples = frames.astype(float).reshape(8, 8, *SHAPE).mean(axis=1)  # level 3
    row = int(np.flatnonzero((sums.level == 3) & (sums.lag == 6))[0])
    for found, mean in ((sums.IP, samples[:2].mean(axis=0)), (sums.IF, samples[6:].mean(axis=0))):
        wanted = [mean[HALVES.static == label].sum() for label in range(1, 9)]
        np.testing.assert_allclose(found.value[row], wanted, rtol=1e-9)
    assert not np.allclose(sums.IP.value[row], sums.IF.value[row])


# -- messages of shards


def test_shards_join_to_the_same_bytes_in_any_order() -> None:
    frames = np.tile(photons(600, mean=0.3), (1, 4, 1))
    a, b, c = (sums_of(frames, LARGE, pixels=pixels) for pixels in shards(LARGE, 3))
    whole = sums_of(frames, LARGE)
    for joined in (a + b + c, c + (a + b), (b + c) + a, (c + a) + b):
        np.testing.assert_equal(content(joined), content(whole))
        np.testing.assert_equal(content(result_of(joined, LARGE)), content(multitau(frames, LARGE)))


def test_a_message_survives_its_journey() -> None:
    sums = replace(sums_of(photons()), counters={"negative": 3, "invalid": 0})
    for there in (MultiTauSums.from_bytes(sums.to_bytes()), pickle.loads(pickle.dumps(sums))):
        np.testing.assert_equal(content(there), content(sums))


@pytest.mark.parametrize("frames", [4000, 5555, 100_000, 200_000])
def test_the_message_of_a_shard_is_below_a_megabyte(frames: int) -> None:
    """A quarter of a 512k-pixel detector with 360 partitions in 36 bins."""
    rng = np.random.default_rng(0)
    delays = np.array(levels(frames))
    light, single = interval_length(frames, 2), interval_length(frames, 36)
    pixels, n_static, n_dynamic = 512 * 1024, 360, 36

    def noise(*shape: int) -> ExactSum:
        return ExactSum.of(rng.gamma(50, 1, (len(delays), *shape)))

    image = np.zeros(pixels)
    image[: pixels // 4] = rng.poisson(200, pixels // 4)
    sums = MultiTauSums(
        level=delays[:, 0],
        lag=delays[:, 1],
        pairs=np.full(len(delays), frames),
        G2=noise(n_static),
        IP=noise(n_static),
        IF=noise(n_static),
        g=noise(n_dynamic),
        gg=noise(n_dynamic),
        n=np.full((len(delays), n_dynamic), 3641),
        light=rng.poisson(6552 * light, -(-frames // light)) << 20,
        intensity=rng.poisson(182 * single, (-(-frames // single), n_dynamic)) << 20,
        good=np.ones(frames, bool),
        saxs_2d=image.reshape(512, 1024),
        segments=ExactSum.of(rng.poisson(7e4, (15, n_static))),
        segment_frames=256,
        excluded=np.zeros(n_static, np.int64),
        dead=np.zeros((512, 1024), bool),
        pixels=((0, pixels // 4),),
        light_frames=light,
        intensity_frames=single,
    )
    assert len(sums.to_bytes()) < 1e6


def test_in_long_runs_the_intensity_of_single_bins_is_a_mean_over_frames_and_nothing_else_changes() -> None:
    qmap = QMap.from_labels(1 + np.arange(60).reshape(6, 10))
    run = np.random.default_rng(6).poisson(0.3, (9001, 6, 10)).astype(np.uint8)
    found, followed = (
        multitau(run, qmap, bad_frames=[4, 5, 6, 7, 9000]),
        MultiTau(qmap, bad_frames=[4, 5, 6, 7, 9000]),
    )
    for begin in range(0, 9001, 700):
        followed.push(FrameBlock(begin, run[begin : begin + 700]))
    np.testing.assert_equal(content(followed.finish()), content(found))
    assert has_flag(found, "mean over 4 frames")
    good = np.ones(9001, bool)
    good[[4, 5, 6, 7, 9000]] = False
    np.testing.assert_allclose(found.intensity[good], run.mean(axis=(1, 2))[good])
    fours = run[:9000].reshape(2250, 4, 60).mean(axis=1).repeat(4, axis=0)
    np.testing.assert_allclose(found.intensity_q[:9000][good[:9000]], fours[good[:9000]])
    assert np.isnan(found.intensity_q[~good]).all()
    series = multitau(run, qmap, normalise="ratio_of_sums")
    assert not has_flag(series, "mean over")
    np.testing.assert_allclose(series.intensity_q, run.reshape(9001, 60))
    with pytest.raises(ValueError, match="needs the intensity of every frame"):
        result_of(followed.sums(), qmap, normalise="ratio_of_sums")


def test_shards_that_do_not_belong_together_are_refused() -> None:
    frames = np.tile(photons(), (1, 4, 1))
    first, second = (sums_of(frames, LARGE, pixels=pixels) for pixels in shards(LARGE, 2))
    with pytest.raises(ValueError, match="shards overlap"):
        _ = first + second + second
    with pytest.raises(ValueError, match="differ in"):
        _ = first + sums_of(frames[:-1], LARGE, pixels=shards(LARGE, 2)[1])
    with pytest.raises(ValueError, match="are in no shard"):
        result_of(first, LARGE)
    with pytest.raises(ValueError, match="another qmap"):
        result_of(first + second, QMap.from_labels(LARGE.static))
    with pytest.raises(ValueError, match="partition, pooled, ratio_of_sums"):
        result_of(first + second, LARGE, normalise="symmetric")  # type: ignore[arg-type]


# -- static outputs


@pytest.mark.parametrize("n", [5, 16, 17, 100, 600, 1030])
@pytest.mark.parametrize("average", [1, 2])
def test_a_steady_count_of_one_is_one_in_every_output(n: int, average: int) -> None:
    result = multitau(np.ones((n * average, *SHAPE), np.uint16), HALVES, average=average)
    for values in (result.g2, result.g2_partial, result.saxs_2d, result.saxs_1d, result.saxs_1d_segments):
        np.testing.assert_allclose(values, 1, atol=1e-12)
    for values in (result.intensity, result.intensity_q):
        np.testing.assert_allclose(values, 1, atol=1e-12)
    assert result.saxs_1d_segments.shape == (n // segment_length(n), 8)
    assert result.flags == ()


def test_segments_are_the_means_of_their_frames() -> None:
    frames = photons(205) * (1 + np.arange(205, dtype=np.uint16) // 40)[:, None, None]
    found = multitau(frames, HALVES, bad_frames=(3, 100))
    good = frames.astype(float)
    good[[3, 100]] = np.nan
    length = segment_length(205)
    for i in range(205 // length):
        mean = np.nanmean(good[i * length : (i + 1) * length], axis=0)
        wanted = [mean[HALVES.static == label].mean() for label in range(1, 9)]
        np.testing.assert_allclose(found.saxs_1d_segments[i], wanted, rtol=1e-9)


def test_intensity_is_that_of_the_used_pixels() -> None:
    labels = np.where(ROWS < 3, 0, 1)
    frames = photons()
    frames[:, labels == 0] = 1000
    found = multitau(frames, QMap.from_labels(labels))
    np.testing.assert_allclose(found.intensity, frames[:, labels == 1].mean(axis=1))
    np.testing.assert_allclose(found.intensity_q[:, 0], found.intensity)
    assert found.saxs_2d[0, 0] == 1000, "the picture is of all pixels"


def test_delays_are_in_seconds_when_the_frame_time_is_known() -> None:
    found = multitau(photons(60), HALVES, frame_time_s=0.01, stride=2, average=3)
    np.testing.assert_allclose(found.tau, found.tau_frames * 0.06)
    assert (found.units["tau"], found.frame_time_s, found.frames) == ("s", pytest.approx(0.06), 10)
    unknown = multitau(photons(60), HALVES)
    assert (unknown.units["tau"], unknown.frame_time_s) == ("frames", None)
    np.testing.assert_array_equal(unknown.tau, unknown.tau_frames)


# -- what differs between normalisations


def test_partitions_take_a_gradient_of_intensity_out_and_pooling_does_not() -> None:
    light = np.array([1.0, 2.0, 4.0, 8.0])[ROWS // 12]
    frames = np.random.default_rng(3).poisson(light, (300, *SHAPE)).astype(np.uint16)
    by_partition, pooled = (multitau(frames, HALVES, normalise=how).g2 for how in ("partition", "pooled"))  # type: ignore[arg-type]
    assert abs(by_partition[:8] - 1).max() < 0.01
    excess = (light**2).mean() / light.mean() ** 2
    assert abs(pooled[:8] / excess - 1).max() < 0.01


def test_the_ratio_of_sums_takes_a_drift_of_the_beam_out() -> None:
    drift = np.linspace(0.5, 1.5, 400)[:, None, None]
    frames = np.random.default_rng(3).poisson(4 * drift, (400, *SHAPE)).astype(np.uint16)
    plain, ratio = (multitau(frames, HALVES, normalise=how).g2 for how in ("partition", "ratio_of_sums"))  # type: ignore[arg-type]
    assert plain[0].min() > 1.05
    assert abs(ratio[:16] - 1).max() < 0.01


def test_the_brightness_does_not_matter_and_neither_does_the_order_of_pixels() -> None:
    frames = photons(100)
    found = multitau(frames, HALVES)
    np.testing.assert_allclose(multitau(frames * 3, HALVES).g2, found.g2, rtol=1e-6)
    order = np.random.default_rng(1).permutation(ROWS.size)
    turned = QMap.from_labels(*(each.ravel()[order].reshape(SHAPE) for each in (HALVES.dynamic, HALVES.static)))
    mixed = multitau(frames.reshape(100, -1)[:, order].reshape(frames.shape), turned)
    np.testing.assert_allclose(mixed.g2, found.g2, rtol=1e-6)
    np.testing.assert_allclose(mixed.g2_err, found.g2_err, rtol=1e-6)


# -- what is missing is said


def test_a_partition_without_counts_is_left_out_and_named() -> None:
    frames = photons()
    frames[:, HALVES.static == 3] = 0
    found = multitau(frames, HALVES)
    assert np.isnan(found.g2_partial[:, 2]).all()
    np.testing.assert_allclose(found.g2[:, 0], found.g2_partial[:, [0, 1, 3]].mean(axis=1))
    assert has_flag(found, "static partitions without counts", "3")
    np.testing.assert_array_equal(found.g2[:, 1], multitau(photons(), HALVES).g2[:, 1])


def test_a_bin_without_counts_is_not_a_number_and_named() -> None:
    frames = photons()
    frames[:, HALVES.dynamic == 2] = 0
    for how in ("partition", "pooled", "ratio_of_sums"):
        found = multitau(frames, HALVES, normalise=how)  # type: ignore[arg-type]
        assert np.isnan(found.g2[:, 1]).all()
        assert np.isnan(found.g2_err[:, 1]).all()
        assert not np.isnan(found.g2[:, 0]).any()
        assert has_flag(found, "fewer than 2 pixels", "2")
        assert found.saxs_1d[4:].tolist() == [0, 0, 0, 0]


def test_a_run_without_any_count_says_so() -> None:
    found = multitau(np.zeros((20, *SHAPE), np.uint16), HALVES)
    assert np.isnan(found.g2).all()
    assert found.flags == ("no used pixel counted in any frame: every curve is NaN",)


def test_silent_pixels_among_bright_ones_are_suspected_dead() -> None:
    frames = photons()
    frames[:, :3, :4] = 0
    found = multitau(frames, HALVES)
    assert has_flag(found, "12 used pixels never counted", "mask", "3.2 %", "partitions 1")
    # They stay in the mean as zeros, as in all programs; the error is of the others.
    live = multitau(frames, QMap.from_labels(*(np.where(frames.any(axis=0), each, 0) for each in maps())))
    np.testing.assert_allclose(found.g2_err, live.g2_err, rtol=1e-9)
    np.testing.assert_allclose(found.g2_partial[:, 0] / live.g2_partial[:, 0], 384 / 372, rtol=1e-9)


def maps() -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    return HALVES.dynamic, HALVES.static


def test_silent_pixels_in_a_sparse_run_are_honest() -> None:
    found = multitau(photons(50, mean=0.02), HALVES)
    assert has_flag(found, "used pixels never counted: the error is of the others")
    assert not has_flag(found, "dead")


def test_errors_from_too_few_counts_are_named() -> None:
    frames = photons(50, mean=0.2)
    frames[:40, HALVES.dynamic == 2] = 0
    found = multitau(frames, HALVES)
    assert has_flag(found, "fewer than 5 counts per pixel in the run", "too small: 2")
    assert not has_flag(multitau(photons(), HALVES), "counts per pixel")


def test_pixels_at_the_highest_count_are_left_out_and_counted() -> None:
    frames = photons()
    frames[:, 5, 5:8] = 65535
    found = multitau(frames, HALVES)
    assert has_flag(found, "3 used pixels reached the highest possible count")
    assert np.isnan(found.saxs_2d[5, 5:8]).all()
    without = np.ones(SHAPE, bool)
    without[5, 5:8] = False
    np.testing.assert_allclose(found.g2, multitau(frames, QMap.from_labels(*maps(), mask=without)).g2, rtol=1e-9)


def test_bad_frames_are_left_out_and_counted() -> None:
    frames = photons(100)
    frames[[5, 50]] = 40_000
    found = multitau(frames, HALVES, bad_frames=(5, 50))
    assert has_flag(found, "2 of 100 frames are bad")
    assert np.isnan(found.intensity[[5, 50]]).all()
    assert np.isnan(found.intensity).sum() == 2
    assert np.nanmax(abs(found.g2 - 1)) < 0.02
    assert found.saxs_2d.max() < 10
    assert found.pairs[0] == 99 - 4


def test_delays_whose_every_pair_has_a_bad_frame_are_not_numbers() -> None:
    found = multitau(photons(20), HALVES, bad_frames=range(1, 20, 2))
    odd = found.tau_frames % 2 == 1
    assert (found.pairs[odd] == 0).all()
    assert np.isnan(found.g2[odd]).all()
    assert has_flag(found, "delays have no pair of good samples")
    with pytest.raises(ValueError, match="every frame is bad"):
        multitau(photons(4), HALVES, bad_frames=range(4))


def test_a_delay_of_one_pair_has_no_error() -> None:
    found = multitau(photons(33), HALVES)
    np.testing.assert_array_equal(np.isnan(found.g2_err).all(axis=1), found.pairs == 1)
    assert found.pairs[-1] == 1
    assert not has_flag(found, "have no error")


def test_one_pixel_has_a_curve_but_no_error() -> None:
    labels = np.zeros(SHAPE, int)
    labels[2, 2], labels[3, 3:5] = 1, 2
    found = multitau(photons(), QMap.from_labels(labels))
    assert not np.isnan(found.g2).any()
    assert np.isnan(found.g2_err[:, 0]).all()
    assert not np.isnan(found.g2_err[found.pairs > 1, 1]).any()
    assert has_flag(found, "fewer than 2 pixels", "1")
