"""Each way of reconstruction against exactly known samples, against each other, and against exact sums."""

from __future__ import annotations

from typing import Any

import finufft
import numpy as np
import pytest
from numpy.typing import NDArray

from lightkeep.analysis import simulate
from lightkeep.analysis.simd.width import LANES
from lightkeep.analysis.tomography import angular_weights, reconstruct, working_memory
from lightkeep.analysis.tomography.by_finufft import reconstruct_by_finufft
from lightkeep.analysis.tomography.iterative import Operator
from lightkeep.analysis.tomography.nufft import geometry

Array = NDArray[np.float64]
SIZE, ANGLES = 96, 150
MIDDLE = (SIZE - 1) / 2
GOLDEN = simulate.golden_angles(ANGLES)
BATCH = 2 * LANES
METHODS = ["nufft", "fbp", "cgls", "tv"]


def circle(size: int, share: float = 0.95) -> NDArray[np.bool_]:
    axis = np.arange(size) - (size - 1) / 2
    return np.asarray(np.hypot(axis[:, None], axis) < share * size / 2)


def difference(image: Array, reference: Array) -> float:
    """Relative L2 difference inside the circle."""
    inside = circle(reference.shape[-1])
    return float(np.linalg.norm((image - reference)[..., inside]) / np.linalg.norm(reference[..., inside]))


def walk(rows: int, angles: int, columns: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Rows of random walks: all frequencies, which no phantom has."""
    steps = np.random.default_rng(seed).normal(size=(rows, angles, columns)).cumsum(axis=2)
    return (steps - steps.mean(axis=2, keepdims=True)).astype(np.float32)


def head(theta_deg: Array, *, size: int = SIZE, rows: int = 1) -> NDArray[np.float32]:
    """(rows, angles, columns) exact line integrals; every row another density."""
    one = simulate.shepp_logan().projections(theta_deg, columns=size)[:, 0]
    return (1 + 0.1 * np.arange(rows, dtype=np.float32))[:, None, None] * one


TRUTH = simulate.shepp_logan().slices(SIZE)[0]


def exact_sums(
    rows: NDArray[np.float32], theta_deg: Array, center: float, *, accuracy: Any = "standard", mask: bool = True
) -> Array:
    """Filtered back-projection by sums of the samples, as exact as float64 and finufft at 1e-10 make them."""
    columns = rows.shape[2]
    scan = geometry(theta_deg.tobytes(), columns, center, "ramp", mask, accuracy)
    frequency = scan.sampling.numbers / scan.sampling.length
    theta = np.deg2rad(theta_deg)[:, None]
    across, along = frequency * np.cos(theta), frequency * np.sin(theta)
    half, turn = (1 - columns % 2) / 2, 2 * np.pi
    weights = angular_weights(theta_deg)[:, None] * scan.sampling.weights
    factors = weights * np.exp(1j * turn * (frequency * center + half * (across + along)))
    samples = rows.astype(float) @ np.exp(-1j * turn * np.outer(np.arange(columns), frequency)) * factors
    return np.asarray(
        finufft.nufft2d1(
            turn * along.ravel(),
            turn * across.ravel(),
            samples.reshape(len(rows), -1),
            (columns, columns),
            eps=1e-10,
            isign=1,
        ).real
    )


@pytest.mark.parametrize(
    ("columns", "accuracy", "most"),
    [(512, "standard", 3.5e-3), (512, "precise", 1e-3), (512, "preview", 4e-2), (333, "standard", 3.5e-3)],
)
def test_gridding_errs_by_less_than_it_says_on_noise(columns: int, accuracy: Any, most: float) -> None:
    theta = np.random.default_rng(5).uniform(0, 360, 120)
    center = columns / 2 - 5.7
    rows = walk(2, 120, columns)
    image = reconstruct(rows, theta, center, accuracy=accuracy)
    assert difference(image, exact_sums(rows, theta, center, accuracy=accuracy)) < most


@pytest.mark.parametrize("columns", [SIZE, SIZE + 1])
def test_it_agrees_with_finufft(columns: int) -> None:
    center = columns / 2 + 2.4
    smooth = walk(3, ANGLES, columns)
    mine = reconstruct(smooth, GOLDEN, center, window="hann")
    theirs = reconstruct_by_finufft(smooth, GOLDEN, center, window="hann")
    assert difference(mine, theirs) < 0.03  # its tolerance is 1e-2, and its rows are cut before the last transform


@pytest.mark.parametrize(("method", "most"), [("nufft", 0.06), ("fbp", 0.06), ("cgls", 0.07), ("tv", 0.05)])
def test_every_method_finds_the_head(method: Any, most: float) -> None:
    image = reconstruct(head(GOLDEN), GOLDEN, MIDDLE, method=method)[0]
    assert np.sqrt(np.mean((image - TRUTH)[circle(SIZE)] ** 2)) < most


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("columns", [SIZE, 77])
def test_every_method_puts_a_point_where_it_is(method: Any, columns: int) -> None:
    dot = simulate.Phantom.of([[-0.3, 0.6, 0]], [[0.08, 0.08, np.inf]], [1.0], [np.eye(3)])
    center = columns / 2 + 1.3
    sinogram = dot.projections(GOLDEN, columns=columns, center=center)[:, 0][None]
    image = reconstruct(sinogram, GOLDEN, center, method=method)[0]
    rows, places = np.mgrid[:columns, :columns]
    weight = np.where(image > 0.3, image, 0)
    assert np.sum(weight * places) / weight.sum() == pytest.approx((columns - 1) / 2 - 0.15 * columns, abs=0.15)
    assert np.sum(weight * rows) / weight.sum() == pytest.approx((columns - 1) / 2 + 0.3 * columns, abs=0.15)


@pytest.mark.parametrize("method", METHODS)
def test_threads_and_pieces_of_whole_pairs_give_the_same_bytes(method: Any) -> None:
    count = 2 * BATCH + 3
    rows = head(GOLDEN[:40], size=32, rows=count) + 0.01 * walk(count, 40, 32)
    options: dict[str, Any] = {"method": method, "iterations": 3, "tv_weight": 0.01}
    whole = reconstruct(rows, GOLDEN[:40], 14.8, **options)
    assert reconstruct(rows, GOLDEN[:40], 14.8, threads=2, **options).tobytes() == whole.tobytes()
    assert reconstruct(rows, GOLDEN[:40], 14.8, threads=7, **options).tobytes() == whole.tobytes()
    pieces = [reconstruct(rows[begin : begin + 6], GOLDEN[:40], 14.8, **options) for begin in range(0, count, 6)]
    assert np.concatenate(pieces).tobytes() == whole.tobytes()


def test_the_lay_of_the_input_does_not_matter() -> None:
    rows = walk(BATCH, 30, 41)
    theta = GOLDEN[:30]
    whole = reconstruct(rows, theta, 20.0)
    projections = np.ascontiguousarray(rows.transpose(1, 0, 2))
    np.testing.assert_array_equal(reconstruct(projections.transpose(1, 0, 2), theta, 20.0), whole)
    np.testing.assert_array_equal(reconstruct(np.asfortranarray(rows), theta, 20.0), whole)
    np.testing.assert_array_equal(reconstruct(rows.astype(">f8"), theta, 20.0), whole)


def test_the_normal_operator_is_projection_and_back_projection() -> None:
    """<A x, A x> by lines through exact Fourier sums equals <x, A^T A x> by the convolution."""
    n, theta = 20, GOLDEN[:9]
    scan = geometry(theta.tobytes(), n, 9.5, None, True, "precise", whole=True)
    operator = Operator(scan)
    image = np.random.default_rng(1).normal(size=(n, n))
    padded = np.zeros((operator.size, operator.size))
    padded[:n, :n] = image
    spectrum = np.fft.fft2(padded) * operator.transfer.T * operator.size**2
    through = float(np.sum(image * np.fft.ifft2(spectrum).real[:n, :n]))
    length = scan.sampling.length
    frequency = np.arange(1 - length // 2, length // 2) / length
    y, x = np.mgrid[:n, :n]
    energy = 0.0
    for angle in np.deg2rad(theta):
        seen = (x * np.cos(angle) + y * np.sin(angle)).ravel()
        energy += np.sum(np.abs(np.exp(-2j * np.pi * np.outer(frequency, seen)) @ image.ravel()) ** 2)
    assert through == pytest.approx(energy / length, rel=1e-5)


def test_least_squares_are_those_of_plain_conjugate_gradients() -> None:
    """The same iterations with the operator applied by numpy's FFT in float64."""
    n, count = 48, 6
    theta = GOLDEN[:60]
    rows = head(theta, size=n, rows=3) + 0.05 * walk(3, 60, n)
    found = reconstruct(rows, theta, 23.1, method="cgls", iterations=count, mask=False)
    scan = geometry(theta.tobytes(), n, 23.1, None, False, "precise", whole=True)
    operator = Operator(scan)
    transfer = operator.transfer.T.astype(float) * operator.size**2

    def apply(image: Array) -> Array:
        return np.asarray(np.fft.ifft2(np.fft.fft2(image, transfer.shape) * transfer).real[:n, :n])

    length = scan.sampling.length
    frequency = np.arange(1 - length // 2, length // 2) / length
    middle = np.arange(n) - (n - 1) / 2
    for row, image in zip(rows.astype(float), found, strict=True):
        r = np.zeros((n, n))
        for line, angle in zip(row, np.deg2rad(theta), strict=True):
            spectrum = np.exp(-2j * np.pi * np.outer(frequency, np.arange(n) - 23.1)) @ line / length
            seen = np.add.outer(middle * np.sin(angle), middle * np.cos(angle)).ravel()
            r += (np.exp(2j * np.pi * np.outer(seen, frequency)) @ spectrum).real.reshape(n, n)
        x, p, squares = np.zeros((n, n)), r.copy(), np.sum(r * r)
        for _ in range(count):
            q = apply(p)
            step = squares / np.sum(p * q)
            x, r = x + step * p, r - step * q
            share = np.sum(r * r) / squares
            p, squares = r + share * p, share * squares
        assert difference(image, x) < 5e-3  # what gridding errs by, a few iterations on


def test_few_projections_are_better_served_by_least_squares_and_best_by_total_variation() -> None:
    theta = simulate.golden_angles(40)
    rng = np.random.default_rng(2)
    noisy = head(theta) + rng.normal(0, 0.2, (1, 40, SIZE)).astype(np.float32)
    inside = circle(SIZE)
    images = [
        reconstruct(noisy, theta, MIDDLE, **options)[0]
        for options in ({}, {"method": "cgls", "iterations": 8}, {"method": "tv", "tv_weight": 0.01})
    ]
    plain, squares, variation = (float(np.sqrt(np.mean((each - TRUTH)[inside] ** 2))) for each in images)
    assert variation < squares < plain
    assert images[2].min() >= 0


def test_total_variation_goes_down_the_more_it_weighs() -> None:
    rows = head(GOLDEN) + 0.05 * walk(1, ANGLES, SIZE)
    images = [reconstruct(rows, GOLDEN, MIDDLE, method="tv", tv_weight=weight)[0] for weight in (0, 0.01, 0.1)]
    sums = [float(sum(np.abs(np.diff(image, axis=axis)).sum() for axis in (0, 1))) for image in images]
    assert sums[0] > sums[1] > sums[2]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_refused_by_its_place(method: Any, value: float) -> None:
    rows = head(GOLDEN[:30], size=32, rows=BATCH + 4)
    rows[BATCH + 1, 7, 30] = value
    with pytest.raises(ValueError, match=f"1 values .* row {BATCH + 1}, angle 7, column 30"):
        reconstruct(rows, GOLDEN[:30], 15.5, method=method, iterations=1)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"method": "sirt"}, "no method 'sirt'"),
        ({"accuracy": "best"}, "no accuracy 'best'"),
        ({"method": "cgls", "iterations": 0}, "iterations"),
        ({"method": "tv", "tv_weight": -1}, "tv_weight"),
        ({"method": "tv", "tv_weight": np.nan}, "tv_weight"),
        ({"pad": 0}, "pad"),
        ({"out": np.zeros((1, SIZE, SIZE))}, "out must be"),
        ({"out": np.zeros((2, SIZE, SIZE), np.float32)}, "out must be"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        reconstruct(head(GOLDEN), GOLDEN, MIDDLE, **options)


@pytest.mark.parametrize("method", METHODS)
def test_an_angle_that_is_not_finite_is_refused(method: Any) -> None:
    theta = np.where(np.arange(ANGLES) == 3, np.nan, GOLDEN)
    with pytest.raises(ValueError, match="1 of 150 angles"):
        reconstruct(head(GOLDEN), theta, MIDDLE, method=method)


def test_nothing_to_reconstruct_is_said() -> None:
    with pytest.raises(ValueError, match="no angles"):
        reconstruct(np.zeros((1, 0, 16)), [], 7.5)


@pytest.mark.parametrize("method", METHODS)
def test_memory_grows_with_the_slice(method: Any) -> None:
    small, large = (working_memory(720, columns, method=method) for columns in (512, 1024))
    assert 512**2 < small < large < 6 * small


@pytest.mark.parametrize("columns", [1, 2, 3, 5, 8, 15, 17])
@pytest.mark.parametrize("method", METHODS)
def test_very_small_slices_come_out(method: Any, columns: int) -> None:
    image = reconstruct(np.ones((2, 12, columns)), GOLDEN[:12], (columns - 1) / 2, method=method)
    assert image.shape == (2, columns, columns)
    assert np.isfinite(image).all()


@pytest.mark.parametrize("columns", [*range(2, 34), 45, 75, 108, 250])
def test_slices_of_any_size_are_right_whatever_factors_the_lengths_of_their_transforms_have(columns: int) -> None:
    theta, rows = np.arange(9) * 20.0, walk(2, 9, columns)
    image = reconstruct(rows, theta, (columns - 1) / 2, accuracy="precise", mask=False)
    exact = exact_sums(rows, theta, (columns - 1) / 2, mask=False)
    assert np.linalg.norm(image - exact) < 2e-2 * np.linalg.norm(exact)
