"""Averaging runs whose mean, errors and culprits are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lightkeep.analysis.xpcs.average import average_results
from lightkeep.analysis.xpcs.result import UNITS, MultiTauResult

TAU = np.array([1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64])
Q = np.array([0.01, 0.02, 0.03])
TRUTH = 1 + 0.2 * np.exp(-2 * TAU[:, None] / np.array([4.0, 6.0, 8.0]))


def run(*, error: float = 0.002, seed: int = 0, frames: int = 100, level: float = 2.0) -> MultiTauResult:
    rng = np.random.default_rng(seed)
    return MultiTauResult(
        tau=TAU * 0.01,
        tau_frames=TAU,
        pairs=frames - TAU,
        g2=TRUTH + error * rng.normal(size=TRUTH.shape),
        g2_err=np.full(TRUTH.shape, error),
        g2_partial=np.ones((TAU.size, 6)),
        saxs_2d=np.full((4, 5), level),
        saxs_1d=np.full(6, level),
        saxs_1d_segments=np.full((10, 6), level),
        intensity=np.full(frames, level),
        intensity_q=np.full((frames, Q.size), level),
        q=Q,
        static_q=np.linspace(0.01, 0.03, 6),
        frames=frames,
        frame_time_s=0.01,
        begin=0,
        stride=1,
        average=1,
        scheme="aps",
        dpl=4,
        normalisation="partition",
        units=UNITS,
    )


def test_the_mean_of_runs_with_known_errors_is_the_truth_within_the_error_it_states() -> None:
    errors = np.repeat([0.001, 0.002, 0.005], 20)
    found = average_results([run(error=error, seed=seed) for seed, error in enumerate(errors)])
    assert found.rejected == ()
    expected = 1 / np.sqrt((1 / errors**2).sum())
    assert found.propagated == pytest.approx(np.full(TRUTH.shape, expected))
    deviation = (found.result.g2 - TRUTH) / found.result.g2_err
    assert np.abs(deviation).max() < 4.5  # 36 normal deviates
    assert deviation.std() == pytest.approx(1, abs=0.4)
    assert found.scatter.mean() == pytest.approx(expected, rel=0.1)
    assert found.birge == pytest.approx(1, abs=0.15)


def test_errors_grow_where_runs_differ_by_more_than_theirs() -> None:
    rng = np.random.default_rng(3)
    runs = [
        replace(one, g2=one.g2 + 0.01 * rng.normal(size=(1, Q.size)))
        for one in (run(error=0.002, seed=seed) for seed in range(60))
    ]
    found = average_results(runs, outliers=None)
    assert found.birge == pytest.approx(np.hypot(0.01, 0.002) / 0.002, rel=0.3)
    assert found.result.g2_err == pytest.approx(found.propagated * found.birge)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"intensity": np.full(100, 1.5)}, "mean intensity 1.5"),
        ({"g2": TRUTH + 0.05}, "baseline"),
        ({"g2": 1 + 0.5 * (TRUTH - 1)}, "contrast"),
        ({"g2": np.full_like(TRUTH, np.nan)}, "baseline nan"),
    ],
)
def test_a_run_that_does_not_belong_is_left_out_and_the_reason_is_said(
    change: dict[str, np.ndarray], reason: str
) -> None:
    runs = [run(seed=seed) for seed in range(7)]
    clean = average_results(runs)
    found = average_results([*runs[:3], replace(run(seed=9), **change), *runs[3:]])
    assert [rejection.run for rejection in found.rejected] == [3]
    assert reason in found.rejected[0].reason
    assert found.used == (0, 1, 2, 4, 5, 6, 7)
    assert found.result.g2.tobytes() == clean.result.g2.tobytes()
    assert any(flag.startswith("Run 3 was left out: ") for flag in found.result.flags)


def test_chi_square_finds_a_run_whose_curve_has_another_shape() -> None:
    slower = 1 + 0.2 * np.exp(-2 * TAU[:, None] / np.array([6.0, 9.0, 12.0]))
    runs = [*(run(seed=seed) for seed in range(6)), replace(run(seed=8), g2=slower)]
    found = average_results(runs, outliers="chi-square")
    assert [rejection.run for rejection in found.rejected] == [6]
    assert "chi-square" in found.rejected[0].reason
    assert found.chi_square[:6] == pytest.approx(1, abs=0.8)


def test_runs_that_only_scatter_by_their_errors_are_all_kept() -> None:
    for seed in range(50):
        runs = [run(seed=100 * seed + number) for number in range(6)]
        for outliers in ("robust", "chi-square"):
            assert average_results(runs, outliers=outliers).rejected == ()


def test_two_runs_are_averaged_however_they_differ() -> None:
    found = average_results([run(), run(level=9.0)])
    assert found.rejected == ()
    assert found.result.intensity == pytest.approx(np.full(100, 5.5))


def test_one_run_is_its_own_mean() -> None:
    found = average_results([run()])
    assert found.result.g2 == pytest.approx(run().g2)
    assert found.result.g2_err == pytest.approx(run().g2_err)
    assert np.isnan(found.scatter).all()


def test_the_order_of_runs_does_not_matter() -> None:
    runs = [run(seed=seed, error=0.001 * (1 + seed)) for seed in range(5)]
    assert average_results(runs[::-1]).result.g2 == pytest.approx(average_results(runs).result.g2, rel=1e-12)


def test_points_that_one_run_does_not_have_come_from_the_others() -> None:
    holed = run(seed=1)
    holed.g2[3, 1] = holed.g2_err[3, 1] = np.nan
    found = average_results([run(seed=0), holed])
    assert found.result.g2[3, 1] == pytest.approx(run(seed=0).g2[3, 1])
    assert np.isfinite(found.result.g2).all()


def test_static_outputs_are_means_over_all_frames() -> None:
    found = average_results([run(frames=100, level=1.0), run(frames=300, level=2.0)]).result
    assert found.saxs_2d == pytest.approx(np.full((4, 5), 1.75))
    assert found.frames == found.intensity.size == 100
    assert found.pairs == pytest.approx(400 - 2 * TAU)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tau": TAU * 0.02}, "differ in tau"),
        ({"q": 2 * Q}, "differ in q"),
        ({"scheme": "hadoop"}, "differ in scheme"),
        ({"saxs_2d": np.zeros((5, 4))}, "detectors of"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValueError, match=f"run 1 cannot be averaged with run 0: .*{complaint}"):
        average_results([run(), replace(run(), **change)])


def test_no_run_and_unknown_ways_are_refused() -> None:
    with pytest.raises(ValueError, match="no run"):
        average_results([])
    with pytest.raises(ValueError, match="outliers must be one of"):
        average_results([run()], outliers="sigma")  # type: ignore[arg-type]
