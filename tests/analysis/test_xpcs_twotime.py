"""Two-time correlation against its definition in float64, and against itself along every other way."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from lightkeep.analysis.xpcs import EventBlock, FrameBlock, QMap
from lightkeep.analysis.xpcs.twotime import TwoTime, twotime
from lightkeep.analysis.xpcs.twotime_result import Method, Smooth, TwoTimeResult, correct_diagonal, cut_at_age

Counts = NDArray[np.uint8]
Float64 = NDArray[np.float64]
SMOOTH: tuple[Smooth | None, ...] = ("static", "average", "dynamic", None)
METHODS: tuple[Method, ...] = ("gemm", "events")


def qmap(height: int = 24, width: int = 29) -> QMap:
    """3 dynamic bins of 4, 4 and 3 static partitions, with pixels that nobody uses."""
    static = np.kron(np.arange(1, 13).reshape(3, 4), np.ones((8, 8), int))[:height, :width]
    static[static == 12] = 0
    static[0, :3] = static[:, 7] = 0
    return QMap.from_labels((static + 3) // 4, static)


QMAP = qmap()


def run(frames: int = 40, *, mean: float = 0.7, seed: int = 0) -> Counts:
    rng = np.random.default_rng(seed)
    brightness = mean * (1 + 0.5 * np.sin(np.arange(frames)))[:, None, None]
    return rng.poisson(brightness * rng.exponential(size=(frames, *QMAP.shape))).astype(np.uint8)


def brute_force(counts: NDArray[np.generic], number: int, smooth: Smooth | None) -> Float64:
    """(N, N) by the definition."""
    values = counts.reshape(len(counts), -1).astype(np.float64)
    static, mine = QMAP.static.ravel(), QMAP.dynamic.ravel() == number
    for partition in np.unique(static[mine]):
        part = values[:, static == partition]
        if smooth == "static":
            part = part / part.mean(axis=1, keepdims=True)
        elif smooth == "average":
            part = part / part.mean()
        values[:, static == partition] = part
    x = values[:, mine]
    mean = x.mean(axis=1)
    return np.asarray((x @ x.T) / x.shape[1] / np.outer(mean, mean))


def events(counts: NDArray[np.generic], begin: int = 0) -> EventBlock:
    frame, row, column = np.nonzero(counts)
    pixel = row * counts.shape[2] + column
    value = counts[frame, row, column].astype(np.uint16)
    shape = counts.shape[1], counts.shape[2]
    return EventBlock(begin, len(counts), shape, (frame + begin).astype(np.uint32), pixel.astype(np.uint32), value)


def same(one: TwoTimeResult, other: TwoTimeResult) -> bool:
    return one.bins == other.bins and all(
        left.tobytes() == right.tobytes()
        for left, right in (
            *((one.c2[number], other.c2[number]) for number in one.bins),
            (one.g2, other.g2),
            (one.g2_segments, other.g2_segments),
            (one.intensity, other.intensity),
        )
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("smooth", SMOOTH)
@pytest.mark.parametrize("frames", [1, 2, 15, 64, 97])
def test_it_is_the_definition_in_float64(frames: int, smooth: Smooth | None, method: Method) -> None:
    counts = run(frames)
    result = twotime(counts, QMAP, smooth=smooth, method=method)
    assert set(result.method.values()) == {method}
    for number in (1, 2, 3):
        assert result.c2[number] == pytest.approx(brute_force(counts, number, smooth), rel=3e-7)  # float32


@pytest.mark.parametrize("scale", [1, 200, 60_000, 2_000_000_000])
@pytest.mark.parametrize("method", METHODS)
def test_counts_of_any_size_are_summed_exactly(scale: int, method: Method) -> None:
    counts = np.random.default_rng(2).integers(scale // 2, scale + 2, (20, *QMAP.shape), dtype=np.uint32)
    result = twotime(counts, QMAP, method=method)
    assert result.c2[2] == pytest.approx(brute_force(counts, 2, "static"), rel=3e-7)


def test_fractions_and_negative_values_are_correlated_and_flagged() -> None:
    values = np.random.default_rng(3).normal(2, 1, (30, *QMAP.shape))
    result = twotime(values, QMAP)
    assert result.c2[1] == pytest.approx(brute_force(values, 1, "static"), rel=3e-7)
    assert f"{np.count_nonzero(values[:, QMAP.dynamic > 0] < 0)} counts are negative." in result.flags


@pytest.mark.parametrize("smooth", SMOOTH)
def test_sparse_is_dense(smooth: Smooth | None) -> None:
    counts = run(mean=0.02, frames=60)
    counts[:, 0] = 1  # no frame without a count
    dense = twotime(counts, QMAP, smooth=smooth, method="gemm")
    sparse = twotime([events(counts)], QMAP, smooth=smooth, method="events")
    for number in dense.bins:
        assert sparse.c2[number] == pytest.approx(dense.c2[number], rel=3e-7)
    assert same(dense, twotime([events(counts)], QMAP, smooth=smooth, method="gemm"))
    assert same(sparse, twotime(counts, QMAP, smooth=smooth, method="events"))


def test_events_of_a_frame_and_pixel_that_occur_again_add_up() -> None:
    counts = run()
    whole = events(counts)
    twice = EventBlock(
        0, whole.count, whole.shape, *(np.repeat(c, 2) for c in (whole.frame, whole.pixel, whole.value))
    )
    for method in METHODS:
        assert same(twotime([twice], QMAP, method=method), twotime(2 * counts, QMAP, method=method))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("average", [1, 3])
def test_neither_blocks_nor_threads_change_a_byte(average: int, method: Method) -> None:
    counts = run(101)
    whole = twotime(counts, QMAP, method=method, average=average, stride=2, begin=3, threads=1)
    cuts = np.sort(np.random.default_rng(1).choice(np.arange(1, 101), 17, replace=False)).tolist()
    pieces = list(pairwise([0, *cuts, 101]))

    def mixed() -> Iterator[FrameBlock | EventBlock]:
        for place, (begin, end) in enumerate(pieces):
            yield events(counts[begin:end], begin) if place % 3 else FrameBlock(begin, counts[begin:end])

    for threads in (2, 5):
        frames = (FrameBlock(begin, counts[begin:end]) for begin, end in pieces)
        options = {"method": method, "average": average, "stride": 2, "begin": 3, "threads": threads}
        assert same(whole, twotime(frames, QMAP, **options))
        assert same(whole, twotime(mixed(), QMAP, **options))


def test_frames_that_come_in_pieces_of_either_kind_do_not_overflow() -> None:
    counts = np.random.default_rng(4).integers(150, 250, (20, *QMAP.shape), np.uint8)
    pieces = [(begin, begin + 1) for begin in range(20)]
    mixed = [
        FrameBlock(begin, counts[begin:end]) if begin % 3 else events(counts[begin:end], begin)
        for begin, end in pieces
    ]
    assert same(twotime(mixed, QMAP, average=4, method="gemm"), twotime(counts, QMAP, average=4, method="gemm"))


@pytest.mark.parametrize("dtype", [np.int32, ">u2", np.float32, bool])
def test_whole_numbers_of_any_dtype_give_the_same_bytes(dtype: str) -> None:
    counts = run().clip(0, 1)
    assert same(twotime(counts.astype(dtype), QMAP, method="gemm"), twotime(counts, QMAP, method="gemm"))


def test_the_order_of_pixels_does_not_matter() -> None:
    counts = run()
    to = np.random.default_rng(5).permutation(QMAP.static.size)

    def moved(values: NDArray[np.generic]) -> NDArray[np.generic]:
        return values.reshape(*values.shape[:-2], -1)[..., to].reshape(values.shape)

    other = QMap.from_labels(moved(QMAP.dynamic), moved(QMAP.static))
    assert same(twotime(counts, QMAP), twotime(moved(counts), other))


def test_average_and_stride_are_those_of_the_frames() -> None:
    counts = run(50)
    summed = counts[3:48:2][:22].reshape(11, 2, *QMAP.shape).sum(axis=1)
    result = twotime(counts, QMAP, begin=3, end=48, stride=2, average=2, frame_time_s=0.01)
    assert result.time == pytest.approx(0.04 * np.arange(11))
    assert result.c2[1].tobytes() == twotime(summed, QMAP).c2[1].tobytes()
    assert result.intensity[:, 0] == pytest.approx(summed[:, QMAP.dynamic == 1].mean(axis=1) / 2)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("smooth", SMOOTH)
def test_shards_of_bins_and_of_partitions_add_up_to_the_whole(smooth: Smooth | None, method: Method) -> None:
    counts = run()

    def shard(**part: list[int]) -> TwoTime:
        correlator = TwoTime(QMAP, smooth=smooth, method=method, bad_frames=[4], **part)
        correlator.push(FrameBlock(0, counts))
        return correlator

    whole = shard().finish()
    by_bin = [shard(bins=[1, 3]).sums(), shard(bins=[2]).sums()]
    by_partition = [shard(partitions=list(range(first, 12, 3))).sums() for first in (3, 1, 2)]
    for parts in (by_bin, by_bin[::-1], by_partition, by_partition[::-1]):
        joined = pickle.loads(pickle.dumps(parts[0]))
        for part in parts[1:]:
            joined = joined + part
        assert same(whole, joined.result())
        assert joined.flags == joined.result().flags == whole.flags
    with pytest.raises(ValueError, match="static partition 1 is in both"):
        by_bin[0] + by_partition[1]


def test_live_results_are_those_of_the_frames_so_far() -> None:
    counts = run(40)
    correlator = TwoTime(QMAP, average=3)
    for begin in range(0, 40, 10):
        correlator.push(FrameBlock(begin, counts[begin : begin + 10]))
        assert same(correlator.finish(), twotime(counts[: begin + 10], QMAP, average=3))


@pytest.mark.parametrize("method", METHODS)
def test_empty_and_bad_frames_are_flagged_zero_and_in_no_cut(method: Method) -> None:
    counts = run(30)
    counts[7] = 0
    counts[11, QMAP.dynamic == 2] = 0
    result = twotime(counts, QMAP, method=method, bad_frames=[20])
    assert {number: empty.tolist() for number, empty in result.empty.items()} == {
        1: [7, 20],
        2: [7, 11, 20],
        3: [7, 20],
    }
    assert "1 bad frames have no two-time correlation: 20." in result.flags
    assert "Bin 2 has no count in 2 frames, no two-time correlation there: 7, 11." in result.flags
    c2 = result.c2[2]
    assert np.isfinite(c2).all()
    assert not c2[[7, 11, 20]].any()
    assert not c2[:, [7, 11, 20]].any()
    lit = np.setdiff1d(np.arange(30), [7, 11, 20])
    truth = brute_force(counts[lit], 2, "static")
    assert c2[np.ix_(lit, lit)] == pytest.approx(truth, rel=3e-7)
    delay = np.subtract.outer(lit, lit)
    assert result.g2[3, 1] == pytest.approx(truth[delay == 3].mean(), rel=1e-6)


def test_a_dark_partition_is_flagged() -> None:
    counts = run(30)
    counts[5:8, QMAP.static == 2] = 0
    assert any(flag.startswith("3 times a static partition has no count") for flag in twotime(counts, QMAP).flags)
    assert twotime(counts, QMAP, smooth="average").flags == ()


def test_an_all_zero_run_has_no_correlation_and_says_so() -> None:
    result = twotime(np.zeros((10, *QMAP.shape), np.uint8), QMAP)
    assert not any(c2.any() for c2 in result.c2.values())
    assert np.isnan(result.g2).all()
    assert sum("no count in 10 frames" in flag for flag in result.flags) == 3


@pytest.mark.parametrize("method", METHODS)
def test_saturated_pixels_are_left_out(method: Method) -> None:
    counts = run().astype(np.uint16)
    row, column = np.argwhere(QMAP.static == 5)[3]
    dead = counts.copy()
    dead[:, row, column] = 65535
    static = QMAP.static.copy()
    static[row, column] = 0
    without = QMap.from_labels(np.where(static > 0, QMAP.dynamic, 0), static)
    result = twotime(dead, QMAP, method=method)
    assert result.c2[2].tobytes() == twotime(counts, without, method=method).c2[2].tobytes()
    assert "1 pixels reached the highest value of their type and were left out." in result.flags


def test_one_time_cuts_are_means_along_diagonals_or_ratios_of_sums() -> None:
    counts = run(41)
    values = counts[:, QMAP.dynamic == 1].astype(np.float64)
    c2 = brute_force(counts, 1, None)
    products, means = values @ values.T / values.shape[1], values.mean(axis=1)
    diagonal = twotime(counts, QMAP, smooth=None)
    ratio = twotime(counts, QMAP, smooth=None, cut="ratio")
    assert (diagonal.cut, ratio.cut) == ("diagonal", "ratio")
    for delay in range(41):
        assert diagonal.g2[delay, 0] == pytest.approx(np.diagonal(c2, delay).mean(), rel=1e-6)
        norm = (means[: 41 - delay] * means[delay:]).sum()
        assert ratio.g2[delay, 0] == pytest.approx(np.diagonal(products, delay).sum() / norm, rel=1e-6)
    assert diagonal.g2_segments.shape == (5, 8, 3)
    assert diagonal.g2_segments[3, 2, 0] == pytest.approx(np.diagonal(c2[24:32, 24:32], 2).mean(), rel=1e-6)


def test_the_diagonal_stays_raw_and_is_replaced_by_its_neighbours_on_demand() -> None:
    counts = run(20)
    result = twotime(counts, QMAP, bad_frames=[6])
    raw, corrected = result.c2[1], result.corrected(1)
    assert np.diagonal(raw)[3] == pytest.approx(brute_force(counts, 1, "static")[3, 3], rel=1e-6)
    assert corrected[3, 3] == pytest.approx((raw[2, 3] + raw[3, 4]) / 2)
    assert corrected[0, 0] == raw[0, 1]
    assert corrected[7, 7] == raw[7, 8]
    assert corrected[6, 6] == 0
    beside = ~np.eye(20, dtype=bool)
    assert (corrected[beside] == raw[beside]).all()
    assert correct_diagonal(np.ones((1, 1), np.float32)).tolist() == [[0]]


def test_a_cut_at_an_age_takes_the_pairs_of_that_age() -> None:
    t = np.arange(30)
    mean_age = ((t[:, None] + t) / 2).astype(np.float32)
    assert cut_at_age(mean_age, 12, width=2)[:20] == pytest.approx(12, abs=0.5)
    assert np.isnan(cut_at_age(mean_age, 12, width=2)[26:]).all()  # (t1 + t2)/2 = 12 reaches t1 = 0 at delay 24
    first = np.minimum.outer(t, t).astype(np.float32)
    assert cut_at_age(first, 12, width=1, kind="waiting")[:18] == pytest.approx(12)
    assert np.isnan(cut_at_age(first, 12, width=1, kind="waiting")[18:]).all()
    assert cut_at_age(first, 12, width=3, kind="waiting", empty=[13])[0] == pytest.approx((11 + 12) / 2)


def test_g2_at_an_age_is_asked_for_in_seconds() -> None:
    result = twotime(run(30), QMAP, frame_time_s=0.5)
    assert result.units["tau"] == "s"
    expected = cut_at_age(result.c2[1], 10, width=4)
    assert result.at_age(1, 5.0, width=2.0).tobytes() == expected.tobytes()


def test_auto_takes_events_where_few_pixels_count() -> None:
    counts = run(200, mean=0.01)
    counts[:, QMAP.dynamic == 2] = 1
    assert twotime(counts, QMAP, smooth=None).method == {1: "events", 2: "gemm", 3: "events"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"smooth": "sqmap"}, "smooth must be one of"),
        ({"method": "fft"}, "method must be one of"),
        ({"cut": "mean"}, "cut must be one of"),
        ({"bins": [4]}, "dynamic bin must be from 1 to 3"),
        ({"bins": []}, "dynamic bin must be from 1 to 3"),
        ({"begin": 10, "end": 10}, "not one complete frame"),
        ({"begin": 5, "end": 3}, "frames 5 to 3"),
        ({"average": 0}, "stride and average"),
        ({"max_frames": 30}, "average more frames"),
    ],
)
def test_what_cannot_be_correlated_is_refused(options: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        twotime(run(40), QMAP, **options)  # type: ignore[arg-type]


def test_frames_of_another_detector_and_missing_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="not of one detector"):
        twotime(np.zeros((5, 29, 24), np.uint8), QMAP)
    correlator = TwoTime(QMAP)
    correlator.push(FrameBlock(0, run(5)))
    with pytest.raises(ValueError, match="frame 5 should come next"):
        correlator.push(FrameBlock(6, run(5)))
