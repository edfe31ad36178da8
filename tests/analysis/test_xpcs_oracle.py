"""Multi-tau correlation equals its definition, and the truth of a simulated run."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lightkeep.analysis.simulate import Speckle
from lightkeep.analysis.xpcs import FrameBlock, MultiTau, QMap, fit_g2, levels, multitau
from lightkeep.testing.xpcs_oracle import brute_force

SHAPE = (13, 17)
SCHEMES = ("aps", "hadoop", "sutton")
NORMALISATIONS = ("partition", "pooled", "ratio_of_sums")
LENGTHS = (2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 127, 128, 129, 211, 512, 513, 1031)
"""Odd, prime, 2**k and its neighbours, fewer frames than a level has delays, and more than one chunk of 512."""


def bins(seed: int = 0) -> QMap:
    """Four bins of two or three partitions, scattered over the detector, a quarter of the pixels unused."""
    static = np.random.default_rng(seed).integers(0, 12, SHAPE)
    return QMap.from_labels(np.where(static > 9, 0, static // 3 + 1), np.where(static > 9, 0, static + 1))


def counts(n: int, *, mean: float = 0.4, dtype: str = "uint16", seed: int = 1) -> np.ndarray:
    """(n, H, W) photons of light that varies from pixel to pixel and drifts in time."""
    rng = np.random.default_rng(seed)
    light = mean * rng.gamma(3, 1 / 3, SHAPE) * (1 + 0.3 * np.sin(np.arange(n) / 9))[:, None, None]
    return rng.poisson(light * rng.exponential(size=(n // 3 + 1, *SHAPE)).repeat(3, axis=0)[:n]).astype(dtype)


def assert_equal(frames: np.ndarray, qmap: QMap, **options: Any) -> None:
    found, wanted = multitau(frames, qmap, **options), brute_force(frames, qmap, **options)
    np.testing.assert_array_equal(found.tau_frames, wanted.tau_frames)
    np.testing.assert_array_equal(found.pairs, wanted.pairs)
    for name in ("g2", "g2_partial", "saxs_2d", "saxs_1d", "intensity"):
        given, judged = getattr(found, name), getattr(wanted, name)
        np.testing.assert_allclose(given, judged, rtol=1e-6, atol=1e-6, err_msg=name)
    # A scatter is a difference of two squares: where all pixels agree, its root is of the order of their rounding.
    np.testing.assert_allclose(found.g2_err, wanted.g2_err, rtol=1e-6, atol=1e-6, err_msg="g2_err")


@pytest.mark.parametrize("normalise", NORMALISATIONS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_and_normalisation_is_its_definition(scheme: str, normalise: str) -> None:
    for n in (16, 211, 600):
        assert_equal(counts(n), bins(), scheme=scheme, normalise=normalise)


@pytest.mark.parametrize("n", LENGTHS)
def test_it_is_the_definition_for_every_number_of_frames(n: int) -> None:
    assert_equal(counts(n, seed=n), bins(n))
    assert_equal(counts(n, seed=n), bins(n), scheme="sutton", normalise="ratio_of_sums")


@pytest.mark.parametrize("dpl", [1, 2, 3, 8, 16])
def test_it_is_the_definition_for_every_number_of_delays_per_level(dpl: int) -> None:
    for scheme in SCHEMES:
        assert_equal(counts(300), bins(), dpl=dpl, scheme=scheme)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int32", "float32", "float64"])
def test_it_is_the_definition_for_every_kind_of_counts(dtype: str) -> None:
    assert_equal(counts(150, mean=5.0, dtype=dtype), bins())


@pytest.mark.parametrize("mean", [0.003, 0.05, 1.0, 30.0, 3000.0])
def test_it_is_the_definition_from_few_photons_to_many(mean: float) -> None:
    assert_equal(counts(700, mean=mean), bins())


@pytest.mark.parametrize(
    "options",
    [
        {"begin": 3},
        {"end": 100},
        {"begin": 17, "end": 188},
        {"stride": 2},
        {"average": 3},
        {"begin": 5, "end": 190, "stride": 3, "average": 2},
        {"bad_frames": (0,)},
        {"bad_frames": (4, 5, 90, 199)},
        {"begin": 10, "stride": 2, "average": 2, "bad_frames": (12, 15, 44)},
        {"bad_frames": tuple(range(0, 200, 7)), "normalise": "ratio_of_sums"},
    ],
    ids=str,
)
def test_it_is_the_definition_on_a_selection_of_frames(options: dict[str, Any]) -> None:
    assert_equal(counts(200), bins(), **options)


def test_dead_dark_and_saturated_pixels_are_as_the_definition_has_them() -> None:
    frames = counts(150)
    frames[:, 2, 3] = 0
    frames[:, bins().static == 4] = 0
    frames[7, 5, 5] = 65535
    frames[:, 8, 9] = 65535
    for normalise in NORMALISATIONS:
        assert_equal(frames, bins(), normalise=normalise)


@pytest.mark.parametrize("n", [1025, 2049, 3073])
@pytest.mark.parametrize("size", [8, 128, 700])
def test_the_longest_delays_do_not_depend_on_how_the_run_was_cut(n: int, size: int) -> None:
    """Lengths and sizes at which boost-corr's queue loses the tail of a level."""
    frames, qmap = counts(n), bins()
    work = MultiTau(qmap)
    for begin in range(0, n, size):
        work.push(FrameBlock(begin, frames[begin : begin + size]))
    np.testing.assert_allclose(work.finish().g2, brute_force(frames, qmap).g2, rtol=1e-6)


@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_simulated_speckle_has_the_g2_it_was_made_with(normalise: str) -> None:
    rates = np.array([0.1, 0.03])
    labels = np.repeat([[1, 2]], 64, axis=0).repeat(32, axis=1)
    speckle = Speckle(labels, rates, np.full(labels.shape, 0.5), 4001, modes=2, seed=8)
    static = (np.arange(64)[:, None] // 16) * 2 + labels
    result = multitau(speckle.frames(), QMap.from_labels(labels, static), normalise=normalise)  # type: ignore[arg-type]
    expected = speckle.expected_g2(levels(4001), static=static)
    # Gamma N is above 100; where fewer than 100 decay times are left to pair, the ratio of means is biased.
    enough = result.pairs[:, None] * (1 << np.array([level for level, _ in levels(4001)]))[:, None] * rates > 100
    deviation = np.abs(result.g2 - expected)[enough] / result.g2_err[enough]
    assert enough.sum() > 60
    assert deviation.max() < 5
    assert np.abs(result.g2 - expected)[enough].max() < 0.03


def test_error_bars_are_as_large_as_the_scatter_among_64_like_bins() -> None:
    rows, columns = np.mgrid[:128, :128] // 16
    labels, tau_c = rows * 8 + columns + 1, 20.0
    speckle = Speckle(labels, np.full(64, 1 / tau_c), np.full(labels.shape, 0.05), 2000, seed=3, events=False)
    result = multitau(speckle.frames(), QMap.from_labels(labels))
    short = result.tau_frames < 200
    pull = ((result.g2 - speckle.expected_g2(levels(2000))) / result.g2_err)[short]
    # The width of 64 pulls is known to 9 %, their mean to 0.125.
    assert abs(pull.std(axis=1) - 1).max() < 0.4
    assert abs(pull.mean(axis=1)).max() < 0.6
    fit = fit_g2(result, tau_range=(0, 200))
    times = (fit.values["tau_c"] - tau_c) / fit.errors["tau_c"]
    assert fit.is_good.mean() > 0.9
    assert 0.7 < times[fit.is_good].std() < 1.4
    assert abs(np.median(times)) < 0.5
