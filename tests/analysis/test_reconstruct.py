"""Reconstruction against exactly known samples, and against the textbook's way."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lightkeep.analysis import simulate
from lightkeep.analysis.tomography import reconstruct

Array = NDArray[np.float64]
SIZE, ANGLES = 128, 180
MIDDLE = (SIZE - 1) / 2
EVEN = np.arange(ANGLES) * 180 / ANGLES


def textbook(sinogram: Array, theta_deg: Array, center: float) -> Array:
    """The oracle in fbp.py, beside this file."""
    spec = importlib.util.spec_from_file_location("fbp", Path(__file__).with_name("fbp.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return np.asarray(module.fbp(sinogram, theta_deg, center))


def circle(size: int, share: float = 0.95) -> NDArray[np.bool_]:
    axis = np.arange(size) - (size - 1) / 2
    return np.asarray(np.hypot(axis[:, None], axis) < share * size / 2)


def error(image: Array, truth: Array) -> float:
    """RMSE inside 0.95 of the circle."""
    return float(np.sqrt(np.mean((image - truth)[circle(len(truth))] ** 2)))


def difference(image: Array, reference: Array) -> float:
    """Relative L2 difference inside the circle."""
    inside = circle(len(reference))
    return float(np.linalg.norm((image - reference)[inside]) / np.linalg.norm(reference[inside]))


def noise(rows: int, *, seed: int = 0, columns: int = SIZE) -> Array:
    return np.random.default_rng(seed).normal(size=(rows, ANGLES, columns)).astype(np.float32)


def head(theta_deg: Array, *, size: int = SIZE, center: float | None = None) -> Array:
    """(1, angles, columns) exact line integrals of a head that is not symmetric about anything."""
    return simulate.shepp_logan().projections(theta_deg, columns=size, center=center)[:, 0][None]


TRUTH = simulate.shepp_logan().slices(SIZE)[0]


def test_the_head_at_512_from_720_angles_is_as_exact_as_the_best_peer_and_its_scale_is_right() -> None:
    theta = np.arange(720) * 0.25
    truth = simulate.shepp_logan().slices(512)[0]
    image = reconstruct(head(theta, size=512), theta, 255.5)[0]
    inside = circle(512)
    assert error(image, truth) <= 0.0150
    scale = np.sum(image[inside] * truth[inside]) / np.sum(truth[inside] ** 2)
    assert scale == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("size", [SIZE, SIZE + 1])
def test_it_agrees_with_the_textbook(size: int) -> None:
    center = size / 2 + 3.3
    # Blurred by 2 pixels; what is left is what the oracle's linear interpolation blurs.
    sinogram = scipy.ndimage.gaussian_filter1d(head(EVEN, size=size, center=center).astype(float), 2, axis=2)
    assert difference(reconstruct(sinogram, EVEN, center)[0], textbook(sinogram[0], EVEN, center)) < 0.05


@pytest.mark.parametrize(
    "theta",
    [
        simulate.golden_angles(ANGLES),
        np.arange(2 * ANGLES) * 360 / (2 * ANGLES),
        np.arange(ANGLES) * 360 / ANGLES + 0.25,
        np.concatenate([EVEN, EVEN[::3]]),
        np.delete(EVEN, [17, 60, 61, 120]),
        EVEN + 90,
        EVEN - 1000,
    ],
    ids=["golden", "360", "360-interleaved", "repeated", "missing", "from-90", "negative"],
)
def test_any_set_of_angles_that_covers_half_a_turn_gives_the_sample(theta: Array) -> None:
    even = error(reconstruct(head(EVEN), EVEN, MIDDLE)[0], TRUTH)
    assert error(reconstruct(head(theta), theta, MIDDLE)[0], TRUTH) < 1.3 * even


def test_the_order_of_the_angles_does_not_matter() -> None:
    order = np.random.default_rng(3).permutation(ANGLES)
    sinogram = noise(2)
    shuffled = reconstruct(sinogram[:, order], EVEN[order], MIDDLE)
    # single precision sums in another order
    assert difference(shuffled[0], reconstruct(sinogram, EVEN, MIDDLE)[0]) < 1e-5


@pytest.mark.parametrize("center", [MIDDLE - 20.3, MIDDLE - 1, MIDDLE, MIDDLE + 0.25, MIDDLE + 11])
def test_the_axis_may_be_anywhere_and_the_sample_stays_in_the_middle(center: float) -> None:
    core = simulate.Phantom.of([[0.1, -0.2, 0]], [[0.3, 0.2, np.inf]], [1.0], [np.eye(3)])
    truth = core.slices(SIZE)[0]
    sinogram = core.projections(EVEN, columns=SIZE, center=center)[:, 0][None]
    assert error(reconstruct(sinogram, EVEN, center)[0], truth) < 0.05


def test_a_point_comes_out_where_it_is() -> None:
    for x, y in ((0.5, 0.0), (0.0, 0.5), (-0.3, 0.6)):
        dot = simulate.Phantom.of([[x, y, 0]], [[0.05, 0.05, np.inf]], [1.0], [np.eye(3)])
        image = reconstruct(dot.projections(EVEN, columns=SIZE)[:, 0][None], EVEN, MIDDLE)[0]
        rows, columns = np.mgrid[:SIZE, :SIZE]
        weight = np.where(image > 0.3, image, 0)
        assert np.sum(weight * columns) / weight.sum() == pytest.approx(MIDDLE + x * SIZE / 2, abs=0.1)
        assert np.sum(weight * rows) / weight.sum() == pytest.approx(MIDDLE + y * SIZE / 2, abs=0.1)


def test_mass_is_conserved() -> None:
    image = reconstruct(head(EVEN), EVEN, MIDDLE)[0]
    # What the ramp spreads outside the circle is missing: under 1 %.
    assert image.sum() == pytest.approx(head(EVEN)[0].sum(axis=1).mean(), rel=0.01)


@settings(max_examples=10, deadline=None)
@given(st.floats(-3, 3), st.floats(-3, 3), st.integers(0, 100))
def test_it_is_linear(a: float, b: float, seed: int) -> None:
    first, second = noise(2, seed=seed)[:, None]
    both = reconstruct(a * first + b * second, EVEN, MIDDLE)
    apart = a * reconstruct(first, EVEN, MIDDLE) + b * reconstruct(second, EVEN, MIDDLE)
    assert np.abs(both - apart).max() < 1e-5 * (1 + abs(a) + abs(b))


@pytest.mark.parametrize("columns", [SIZE, SIZE - 1])
@pytest.mark.parametrize("mask", [True, False])
def test_the_slices_of_a_pair_do_not_leak_into_each_other(columns: int, mask: bool) -> None:
    rows = noise(2, columns=columns)
    together = reconstruct(rows, EVEN, columns / 2 - 4.7, mask=mask)
    for index in range(2):
        alone = reconstruct(rows[index : index + 1], EVEN, columns / 2 - 4.7, mask=mask)
        # The transform's kernel is mirror-symmetric to 5e-4; a sample of the Nyquist frequency would leak 3 %.
        assert np.linalg.norm(together[index] - alone[0]) < 1e-3 * np.linalg.norm(alone)


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_threads_and_pieces_of_whole_pairs_give_the_same_bytes(rows: int) -> None:
    sinograms = noise(rows)
    whole = reconstruct(sinograms, EVEN, 61.3)
    assert reconstruct(sinograms, EVEN, 61.3, threads=2).tobytes() == whole.tobytes()
    assert reconstruct(sinograms, EVEN, 61.3, threads=5).tobytes() == whole.tobytes()
    pieces = [reconstruct(sinograms[begin : begin + 4], EVEN, 61.3) for begin in range(0, rows, 4)]
    assert np.concatenate(pieces).tobytes() == whole.tobytes()


def test_the_corners_are_zero_unless_they_are_asked_for() -> None:
    masked = reconstruct(noise(1), EVEN, MIDDLE)[0]
    full = reconstruct(noise(1), EVEN, MIDDLE, mask=False)[0]
    assert not masked[~circle(SIZE, 1.01)].any()
    assert full[~circle(SIZE, 1.01)].all()
    core = head(EVEN)
    assert difference(
        reconstruct(core, EVEN, MIDDLE)[0], reconstruct(core, EVEN, MIDDLE, mask=False)[0]
    ) < 0.01  # fmt: skip


def test_it_writes_where_it_is_told() -> None:
    out = np.full((2, SIZE, SIZE), np.nan, np.float32)
    assert reconstruct(noise(2), EVEN, MIDDLE, out=out) is out
    assert np.isfinite(out).all()


def test_a_smoother_window_leaves_less_noise() -> None:
    spread = [
        float(reconstruct(noise(1), EVEN, MIDDLE, window=window).std())
        for window in ("ramp", "shepp-logan", "hann")
    ]
    assert spread[0] > spread[1] > spread[2]


@pytest.mark.parametrize(
    ("shape", "angles", "center", "window"),
    [
        ((ANGLES, SIZE), ANGLES, MIDDLE, "ramp"),
        ((1, ANGLES, SIZE), ANGLES - 1, MIDDLE, "ramp"),
        ((1, ANGLES, SIZE), ANGLES, np.nan, "ramp"),
        ((1, ANGLES, SIZE), ANGLES, SIZE + 0.0, "ramp"),
        ((1, ANGLES, SIZE), ANGLES, MIDDLE, "hat"),
    ],
)
def test_what_does_not_fit_is_refused(shape: tuple[int, ...], angles: int, center: float, window: str) -> None:
    with pytest.raises(ValueError, match=r"sinograms|centre|window"):
        reconstruct(np.zeros(shape), EVEN[:angles], center, window=window)  # type: ignore[arg-type]


def test_no_rows_give_no_slices() -> None:
    assert reconstruct(np.zeros((0, ANGLES, SIZE)), EVEN, MIDDLE).shape == (0, SIZE, SIZE)
