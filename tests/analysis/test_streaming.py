"""Images of what came so far are those of a reconstruction of it all at once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lightkeep.analysis import simulate
from lightkeep.analysis.tomography import reconstruct
from lightkeep.analysis.tomography.streaming import StreamingReconstruction

Array = NDArray[np.float32]
COLUMNS, CENTER = 64, 30.3
GOLDEN = simulate.golden_angles(96)


def noise(rows: int, angles: int, *, seed: int = 0) -> Array:
    """(angles, rows, columns): noise sees what a phantom forgives."""
    return np.random.default_rng(seed).normal(size=(angles, rows, COLUMNS)).astype(np.float32)


def batch(projections: Array, theta: NDArray[np.float64]) -> Array:
    return reconstruct(np.moveaxis(projections, 0, 1), theta, CENTER)


def difference(image: Array, reference: Array) -> float:
    return float(np.linalg.norm(image - reference) / np.linalg.norm(reference))


ORDERS = {
    "golden": GOLDEN,
    "sequential": np.arange(96) * 180 / 96,
    "interlaced": (np.arange(96) % 8 * 22.5 + np.arange(96) // 8 * 180 / 96),
    "360 degrees": np.arange(96) * 360 / 96,
    "some twice": np.concatenate([GOLDEN[:64], GOLDEN[:32]]),
}


@pytest.mark.parametrize("order", ORDERS)
def test_live_is_batch_when_all_projections_are_in(order: str) -> None:
    theta, projections = ORDERS[order], noise(3, 96)
    stream = StreamingReconstruction((3, COLUMNS), center=CENTER)
    for begin in range(0, 96, 16):
        stream.add(projections[begin : begin + 16], theta[begin : begin + 16])
        stream.step()
    assert difference(stream.step(), batch(projections, theta)) < 1e-5


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(1, 95), max_size=6, unique=True), steps=st.integers(0, 2**7 - 1))
def test_it_does_not_matter_how_projections_are_cut_and_when_images_are_made(cuts: list[int], steps: int) -> None:
    projections = noise(2, 96)
    stream = StreamingReconstruction((2, COLUMNS), center=CENTER)
    bounds = [0, *sorted(cuts), 96]
    for number, (begin, end) in enumerate(pairwise(bounds)):
        stream.add(projections[begin:end], GOLDEN[begin:end])
        if steps >> number & 1:
            stream.step()
    assert difference(stream.step(), batch(projections, GOLDEN)) < 1e-5


def test_old_projections_leave_the_window_without_a_trace_however_long_the_stream() -> None:
    stream = StreamingReconstruction((1, COLUMNS), center=CENTER, window=40)
    theta, projections = simulate.golden_angles(800), noise(1, 800)
    for begin in range(0, 800, 10):
        stream.add(projections[begin : begin + 10], theta[begin : begin + 10])
        stream.step()
    assert stream.projections == 40
    assert difference(stream.step(), batch(projections[-40:], theta[-40:])) < 1e-5


def test_more_rows_than_a_batch_and_any_threads_give_the_same_bytes() -> None:
    projections = noise(40, 48)
    found = []
    for threads in (1, 2):
        stream = StreamingReconstruction((40, COLUMNS), center=CENTER, threads=threads)
        for begin in (0, 24):
            stream.add(projections[begin : begin + 24], GOLDEN[begin : begin + 24])
            found.append(stream.step().copy())
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[1], found[3])
    assert difference(found[1], batch(projections, GOLDEN[:48])) < 1e-5


@pytest.mark.parametrize(
    ("projections", "theta", "named"),
    [
        (np.zeros((2, 3, COLUMNS + 1)), [0, 1], "first ones were"),
        (np.zeros((2, 3, COLUMNS)), [0], "2 projections have 1 angles"),
        (np.zeros((2, 3, COLUMNS)), [0, np.nan], "angles are not finite"),
        (np.where(np.arange(2)[:, None, None] == 1, np.nan, np.zeros((2, 3, COLUMNS))), [0, 7], "first at 7 degr"),
    ],
)
def test_what_cannot_be_taken_up_is_refused_and_leaves_no_trace(
    projections: Array, theta: list[float], named: str
) -> None:
    stream = StreamingReconstruction((3, COLUMNS), center=CENTER)
    good = noise(3, 32)
    stream.add(good, GOLDEN[:32])
    with pytest.raises(ValueError, match=named):
        stream.add(projections, theta)
    assert difference(stream.step(), batch(good, GOLDEN[:32])) < 1e-5


def test_quality_grows_with_projections_and_falls_with_noise() -> None:
    theta = simulate.golden_angles(240)
    exact = simulate.shepp_logan().projections(theta, columns=COLUMNS)
    rng = np.random.default_rng(3)
    means = {}
    for noise_level in (0.02, 10.0):
        stream = StreamingReconstruction((1, COLUMNS), center=(COLUMNS - 1) / 2)
        for begin, end in ((0, 16), (16, 64), (64, 240)):
            rows = exact[begin:end] + rng.normal(0, noise_level, exact[begin:end].shape)
            stream.add(rows, theta[begin:end])
            found = stream.quality()
            means[noise_level, end] = found.rings.mean(3)
    assert means[0.02, 16] < means[0.02, 64] < means[0.02, 240]
    assert means[10.0, 240] < means[0.02, 240] - 0.1
    assert means[0.02, 240] > 0.95


def test_nothing_is_said_about_the_quality_of_a_few_projections() -> None:
    stream = StreamingReconstruction((1, COLUMNS), center=CENTER)
    assert not stream.step().any()
    stream.add(noise(1, 5), GOLDEN[:5])
    with pytest.raises(ValueError, match="5 projections tell no quality"):
        stream.quality()
