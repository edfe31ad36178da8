"""Simulated speckle has the correlations, the photon noise and the defects that it says it has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from lightkeep.analysis.simulate import Speckle
from lightkeep.analysis.simulate.speckle_kernel import normal_table
from lightkeep.analysis.xpcs.blocks import EventBlock, FrameBlock

Array = NDArray[Any]
DELAYS = [(0, 1), (0, 2), (0, 7), (1, 3), (2, 4), (3, 5)]
SEEDS = 16


def speckle(**changes: Any) -> Speckle:
    """24 x 64 pixels in stripes: no bin, and bins 1 to 3 with dynamics of 50, 10 and 3 frames."""
    labels = np.repeat(np.arange(4), 16)[None, :].repeat(24, axis=0)
    values = {"labels": labels, "rates": [0.02, 0.1, 0.3], "mean": np.full(labels.shape, 0.4), "n_frames": 300}
    return Speckle(**(values | {"events": False} | changes))


def correlated(frames: Array, labels: Array, delays: Sequence[tuple[int, int]]) -> Array:
    """(delay, bin) g2 by the book: means over pixels of the per-pixel means, then the ratio."""
    found = []
    for level, lag in delays:
        m = 1 << level
        n = len(frames) // m
        means = frames[: n * m].reshape(n, m, *labels.shape).mean(axis=1)
        parts = means[: n - lag] * means[lag:], means[: n - lag], means[lag:]
        both, first, second = (part.mean(axis=0) for part in parts)
        found.append(
            [
                both[labels == label].mean() / first[labels == label].mean() / second[labels == label].mean()
                for label in range(1, labels.max() + 1)
            ]
        )
    return np.array(found)


def deviation(samples: Array, expected: Array) -> Array:
    """How many standard errors the mean of the samples is off; samples along axis 0."""
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    return np.asarray((samples.mean(axis=0) - expected) / error)


slowing = 1 / (1 + np.arange(300) / 60)
drifting = 1 - 0.5 * np.sin(np.arange(300) / 100)
CASES = {
    "plain": {},
    "three modes and a static field": {"modes": 3, "static": 0.3},
    "ageing, drift and lost frames": {
        "ageing": slowing,
        "beam": drifting,
        "dropped": (5, 6, 100, 298),
        "modes": 2,
        "static": 0.1,
    },
    "few photons": {"mean": np.full((24, 64), 0.015), "modes": 2, "events": True, "n_frames": 2000},
    "few photons, ageing": {"mean": np.full((24, 64), 0.02), "ageing": slowing, "beam": drifting},
}


@pytest.mark.parametrize("case", CASES)
def test_g2_is_the_truth_within_five_standard_errors(case: str) -> None:
    run = speckle(**CASES[case])
    samples = [correlated(replace(run, seed=n).frames().astype(float), run.labels, DELAYS) for n in range(SEEDS)]
    expected = run.expected_g2(DELAYS)
    off = deviation(np.array(samples), expected)
    assert np.abs(off).max() < 5
    assert np.sqrt(np.mean(off**2)) < 2  # 1 is what noise alone gives
    assert np.ptp(expected) > 0.2 * run.contrast  # there was something to see


def test_two_times_correlate_as_the_truth_says_also_when_the_sample_ages() -> None:
    run = speckle(ageing=slowing[:60], n_frames=60, dropped=(7,), mean=np.full((24, 64), 2.0))
    samples = []
    for seed in range(SEEDS):
        pixels = replace(run, seed=seed).frames()[:, run.labels == 2].astype(float)
        mean = pixels.mean(axis=1)
        with np.errstate(invalid="ignore"):
            samples.append(pixels @ pixels.T / pixels.shape[1] / (mean[:, None] * mean[None, :]))
    expected = run.expected_c2(2)
    assert np.isnan(expected[7]).all()
    seen = np.arange(60) != 7
    off = deviation(np.array(samples)[:, seen][:, :, seen], expected[seen][:, seen])
    assert np.abs(off).max() < 6.5  # the greatest of 1770, with 15 degrees of freedom
    assert np.sqrt(np.mean(off**2)) < 1.5
    np.testing.assert_allclose(np.diag(expected)[seen], 2 + 1 / 2.0)


def test_the_truth_is_the_expectation_of_the_definition_summed_by_brute_force() -> None:
    rng = np.random.default_rng(3)
    run = speckle(
        n_frames=53,
        ageing=rng.uniform(0, 3, 53),
        beam=rng.uniform(0.2, 1, 53),
        dropped=(11,),
        static=0.25,
        modes=2,
    )
    clock = np.cumsum(run.ageing)
    beam = np.where(np.arange(53) == 11, 0, run.beam)
    delays = [(0, 1), (0, 9), (1, 2), (1, 25), (2, 5), (3, 2), (4, 1)]
    expected = run.expected_g2(delays)
    for (level, lag), found in zip(delays, expected, strict=True):
        m = 1 << level
        n = 53 // m
        for rate, value in zip(run.rates, found, strict=True):
            g1 = 0.75 * np.exp(-rate * np.abs(clock[:, None] - clock[None, :])) + 0.25
            both = np.outer(beam, beam) * (1 + 0.5 * g1**2)
            pairs = [
                both[i * m : i * m + m, j * m : j * m + m].mean()
                for i, j in zip(range(n - lag), range(lag, n), strict=True)
            ]
            means = beam[: n * m].reshape(n, m).mean(axis=1)
            assert value == pytest.approx(np.mean(pairs) / means[: n - lag].mean() / means[lag:].mean(), rel=1e-12)


def test_a_steady_run_has_the_triangular_average_of_its_decay() -> None:
    run = speckle(n_frames=4096)
    found = run.expected_g2([(3, 5)])[0, 1]
    weight = [(8 - abs(d)) / 64 * np.exp(-2 * 0.1 * (40 + d)) for d in range(-7, 8)]
    assert found == pytest.approx(1 + sum(weight), rel=1e-12)
    np.testing.assert_allclose(found, replace(run, beam=1 + 1e-12 * np.arange(4096)).expected_g2([(3, 5)])[0, 1])


def test_unequal_pixels_and_partitions_are_in_the_truth() -> None:
    mean = np.full((24, 64), 0.5) * np.linspace(0.2, 1.8, 24)[:, None]
    run = speckle(mean=mean, dead=(40, 90, 200))
    fine = np.where(run.labels > 0, run.labels * 24 + np.arange(24)[:, None], 0)
    fine = np.unique(fine, return_inverse=True)[1].reshape(fine.shape)
    samples, saxs = [], []
    for seed in range(SEEDS):
        frames = replace(run, seed=seed).frames().astype(float)
        samples.append(correlated(frames, fine, [(0, 3)])[0].reshape(3, 24).mean(axis=1))
        saxs.append(np.bincount(fine.ravel(), frames.mean(axis=0).ravel())[1:] / np.bincount(fine.ravel())[1:])
    off = deviation(np.array(samples), run.expected_g2([(0, 3)], static=fine)[0])
    assert np.abs(off).max() < 5
    assert np.abs(deviation(np.array(saxs), run.expected_saxs_1d(fine))).max() < 5
    pooled = run.expected_g2([(0, 3)])[0]
    assert (pooled > run.expected_g2([(0, 3)], static=fine)[0] + 0.2).all()


def test_at_delay_zero_the_photon_noise_is_seen_and_nowhere_else() -> None:
    run = speckle(mean=np.full((24, 64), 0.25), modes=4)
    np.testing.assert_allclose(run.expected_g2([(0, 0)])[0], 1 + 0.25 + 1 / 0.25)
    samples = [correlated(replace(run, seed=n).frames().astype(float), run.labels, [(0, 0)]) for n in range(SEEDS)]
    assert np.abs(deviation(np.array(samples), run.expected_g2([(0, 0)]))).max() < 5


def test_the_intensity_follows_the_beam() -> None:
    run = speckle(beam=drifting, dropped=(20, 21), mean=np.full((24, 64), 3.0))
    samples = np.array([replace(run, seed=n).frames()[:, run.labels > 0].mean(axis=1) for n in range(SEEDS)])
    expected = run.expected_intensity()
    assert not samples[:, 20:22].any()
    assert not expected[20:22].any()
    seen = expected > 0
    assert np.abs(deviation(samples[:, seen], expected[seen])).max() < 6


@pytest.mark.parametrize(("mean", "modes"), [(0.01, 1), (0.08, 2), (0.7, 1), (5.0, 3), (80.0, 4)])
def test_counts_have_the_distribution_of_thermal_light(mean: float, modes: int) -> None:
    """Poisson counts of Gamma-distributed light are negative binomial (Goodman, Statistical Optics, 9.2)."""
    run = speckle(mean=np.full((24, 64), mean), rates=[20.0, 20.0, 20.0], modes=modes)
    counts = run.frames().ravel()  # one correlation time per frame: independent
    law = stats.nbinom(modes, modes / (modes + mean))
    assert abs(counts.mean() - mean) < 5 * law.std() / np.sqrt(counts.size)
    edges = np.unique(np.concatenate([[-1], law.ppf(np.linspace(0.02, 0.98, 25)), [law.ppf(1 - 1e-4), np.inf]]))
    seen = np.histogram(counts, np.append(edges[:-1] + 0.5, np.inf))[0]
    expected = np.diff(law.cdf(edges)) * counts.size
    assert stats.chisquare(seen, expected * counts.size / expected.sum()).pvalue > 1e-3


def test_neighbours_and_other_seeds_are_strangers() -> None:
    run = speckle(mean=np.full((24, 64), 5.0), rates=[1.0, 1.0, 1.0])
    pixels = run.frames().reshape(300, -1).astype(float)
    other = replace(run, seed=1).frames().reshape(300, -1).astype(float)
    pixels, other = pixels - pixels.mean(axis=0), other - other.mean(axis=0)
    error = 1 / np.sqrt(pixels.size)
    for step in (1, 2, 64, 128):
        assert abs((pixels[:, step:] * pixels[:, :-step]).mean() / pixels.var()) < 5 * error
    assert abs((pixels * other).mean() / pixels.var()) < 5 * error
    assert abs((pixels[1:] * other[:-1]).mean() / pixels.var()) < 5 * error


@pytest.mark.parametrize(
    "case", ["three modes and a static field", "ageing, drift and lost frames", "few photons"]
)
def test_blocks_threads_and_events_or_frames_make_no_difference(case: str) -> None:
    run = speckle(**(CASES[case] | {"hot": (3,), "saturated": (70, 5), "dead": (9,), "most": 255}))
    whole = replace(run, events=False).frames()
    assert whole.dtype == np.uint8
    for size, threads, events in ((7, 1, False), (64, 3, False), (61, 2, True), (run.n_frames, 1, True)):
        found, at = [], 0
        for block in replace(run, events=events).blocks(size=size, threads=threads):
            assert isinstance(block, EventBlock if events else FrameBlock)
            assert block.begin == at
            if isinstance(block, EventBlock):
                place = block.frame.astype(np.int64) * whole[0].size + block.pixel
                assert (np.diff(place) > 0).all()
                found.append(block.dense(np.uint8))
            else:
                found.append(block.frames)
            at += block.count
        np.testing.assert_array_equal(np.concatenate(found), whole)
    np.testing.assert_array_equal(run.frames(41, 52), whole[41:52])
    assert run.frames(5, 5).shape == (0, 24, 64)


def test_bad_pixels_and_lost_frames_are_where_they_were_put() -> None:
    run = speckle(dead=(0, 77), hot=(5,), saturated=(1000,), dropped=(4, 299))
    pixels = run.frames().reshape(300, -1)
    assert not pixels[:, [0, 77]].any()
    assert (pixels[:, 1000] == 65535).all()
    lit = np.delete(np.arange(300), [4, 299])
    assert 8 < pixels[lit, 5].mean() < 13
    good = run.works.ravel()
    assert (~good).sum() == 4
    assert not pixels[[4, 299]][:, good].any()
    with pytest.raises(ValueError, match="hot and saturated"):
        run.expected_g2(DELAYS, static=np.ones((24, 64), int))


def test_counts_end_at_the_greatest_that_the_detector_can_say() -> None:
    assert speckle(mean=np.full((24, 64), 50.0), most=63).frames().max() == 63


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mean": np.ones((3, 3))}, "not of one"),
        ({"rates": [0.1]}, "outside 0"),
        ({"rates": [0.1, -1, 0]}, "below 0"),
        ({"ageing": np.ones(7)}, "one per frame"),
        ({"beam": np.full(300, -1.0)}, "below 0"),
        ({"static": 1.5}, "static share"),
        ({"n_frames": 0}, "frame"),
        ({"most": 2**33}, "greatest count"),
        ({"seed": -1}, "seed"),
        ({"dropped": (300,)}, "lost frame"),
        ({"dead": (24 * 64,)}, "pixel"),
    ],
)
def test_what_cannot_be_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        speckle(**changes)


def test_a_delay_that_the_run_does_not_hold_is_refused() -> None:
    run = speckle()
    for delay in ((0, 300), (5, 9), (1, 0)):
        with pytest.raises(ValueError, match="no pair"):
            run.expected_g2([delay])
    with pytest.raises(ValueError, match="not inside"):
        next(run.blocks(5, 301))


def test_the_table_of_normal_deviates_has_the_moments_that_g2_depends_on() -> None:
    table = normal_table().astype(float)
    assert abs(table.mean()) < 1e-6
    assert np.mean(table**2) == pytest.approx(1, abs=1e-6)
    assert np.mean(table**4) == pytest.approx(3, abs=1e-5)
    assert stats.kstest(table, "norm").statistic < 2e-3
