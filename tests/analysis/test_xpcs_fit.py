"""Fits find the truth, know how well they do, and say when not to be believed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lightkeep.analysis.xpcs import fit_g2, fit_power_law, levels

TAU = np.array([lag << level for level, lag in levels(20_000)]) * 1e-3
NOISE = 2e-3 * (1 + TAU / TAU.max())
CURVES = 100
TRUTHS = {
    "single": {"contrast": 0.15, "tau_c": 0.08, "baseline": 1.0},
    "stretched": {"contrast": 0.15, "tau_c": 0.08, "baseline": 1.02, "stretch": 0.7},
    "double": {"contrast": 0.2, "tau_c": 0.02, "baseline": 1.0, "slow_ratio": 40.0, "fraction": 0.5},
}


def exact(model: str, tau: NDArray[np.float64]) -> NDArray[np.float64]:
    """The formulas of the field, written down once more."""
    truth = TRUTHS[model]
    x = tau / truth["tau_c"]
    if model == "single":
        field = np.exp(-x)
    elif model == "stretched":
        field = np.exp(-(x ** truth["stretch"]))
    else:
        field = truth["fraction"] * np.exp(-x) + (1 - truth["fraction"]) * np.exp(-x / truth["slow_ratio"])
    return truth["baseline"] + truth["contrast"] * field**2


def noisy(model: str, seed: int = 7) -> NDArray[np.float64]:
    """(n_tau, CURVES) measurements of the same curve."""
    rng = np.random.default_rng(seed)
    return exact(model, TAU)[:, None] + NOISE[:, None] * rng.normal(size=(TAU.size, CURVES))


ERRORS = np.repeat(NOISE[:, None], CURVES, axis=1)


@pytest.mark.parametrize("model", TRUTHS)
def test_a_curve_without_noise_gives_its_parameters_back(model: str) -> None:
    fit = fit_g2((TAU, exact(model, TAU), NOISE), model=model)  # type: ignore[arg-type]
    assert fit.is_good.tolist() == [True]
    for name, truth in TRUTHS[model].items():
        assert fit.values[name][0] == pytest.approx(truth, rel=1e-4)
    np.testing.assert_allclose(fit.curve(TAU)[:, 0], exact(model, TAU), atol=1e-6)
    assert fit.curve([0.0])[0, 0] == pytest.approx(TRUTHS[model]["baseline"] + TRUTHS[model]["contrast"], rel=1e-4)


@pytest.mark.parametrize("model", TRUTHS)
def test_the_error_bars_cover_the_truth_as_often_as_they_promise(model: str) -> None:
    fit = fit_g2((TAU, noisy(model), ERRORS), model=model)  # type: ignore[arg-type]
    assert fit.is_good.all()
    assert fit.chi2.mean() == pytest.approx(1, abs=5 * np.sqrt(2 / (TAU.size - 5) / CURVES))
    for name, truth in TRUTHS[model].items():
        pull = (fit.values[name] - truth) / fit.errors[name]
        # Of 100 pulls with unit width, the mean is within 0.1 and the width within 0.07: four times that.
        assert abs(pull.mean()) < 0.4, name
        assert abs(pull.std() - 1) < 0.28, name


def test_without_errors_the_scatter_of_the_points_gives_them() -> None:
    flat = exact("single", TAU)[:, None] + 2e-3 * np.random.default_rng(3).normal(size=(TAU.size, CURVES))
    fit = fit_g2((TAU, flat, None))
    pull = (fit.values["tau_c"] - TRUTHS["single"]["tau_c"]) / fit.errors["tau_c"]
    assert abs(pull.std() - 1) < 0.28
    assert (fit.chi2 == 1).all()


def test_errors_that_are_too_small_are_widened_by_the_misfit() -> None:
    honest = fit_g2((TAU, noisy("single"), ERRORS))
    boasting = fit_g2((TAU, noisy("single"), ERRORS / 10))
    ratio = boasting.errors["tau_c"] / honest.errors["tau_c"]
    np.testing.assert_allclose(ratio, np.sqrt(honest.chi2 / np.maximum(honest.chi2, 1)), rtol=1e-3)


@pytest.mark.parametrize("decades", [-2, 0, 3])
def test_the_unit_of_tau_does_not_matter(decades: int) -> None:
    unit = 10.0**decades
    fit = fit_g2((TAU * unit, noisy("stretched")[:, :5], ERRORS[:, :5]), model="stretched")
    there = fit_g2((TAU, noisy("stretched")[:, :5], ERRORS[:, :5]), model="stretched")
    np.testing.assert_allclose(fit.values["tau_c"], unit * there.values["tau_c"], rtol=1e-4)
    np.testing.assert_allclose(fit.errors["tau_c"], unit * there.errors["tau_c"], rtol=1e-2)


@pytest.mark.parametrize("tau_c", [3e-3, 0.03, 0.3, 3.0])
def test_a_decay_is_found_anywhere_among_the_delays(tau_c: float) -> None:
    curve = 1 + 0.1 * np.exp(-2 * (TAU / tau_c) ** 1.3)
    fit = fit_g2((TAU, curve + NOISE * np.random.default_rng(1).normal(size=TAU.size), NOISE), model="stretched")
    assert fit.is_good[0], fit.reason
    assert abs(fit.values["tau_c"][0] - tau_c) < 5 * fit.errors["tau_c"][0]


def test_what_is_known_can_be_fixed() -> None:
    free = fit_g2((TAU, noisy("single"), ERRORS))
    fixed = fit_g2((TAU, noisy("single"), ERRORS), fixed={"baseline": 1.0})
    assert (fixed.values["baseline"] == 1).all()
    assert (fixed.errors["baseline"] == 0).all()
    assert fixed.errors["contrast"].mean() < free.errors["contrast"].mean()
    with pytest.raises(ValueError, match="has no parameter stretch"):
        fit_g2((TAU, noisy("single"), ERRORS), fixed={"stretch": 1.0})
    for nothing in ({"tau_c": 0.0}, {"tau_c": 1.0, "contrast": 0.1, "baseline": 1.0}):
        with pytest.raises(ValueError, match="must be free"):
            fit_g2((TAU, noisy("single"), ERRORS), fixed=nothing)


def test_points_without_a_value_or_an_error_and_the_shot_noise_are_left_out() -> None:
    tau = np.concatenate([[0.0], TAU])
    curve = np.concatenate([[50.0], exact("single", TAU)])
    error = np.concatenate([[1e-9], NOISE])
    curve[5], error[9], error[11] = np.nan, 0.0, np.nan
    fit = fit_g2((tau, curve, error))
    assert fit.values["tau_c"][0] == pytest.approx(0.08, rel=1e-4)


def test_a_range_of_delays_can_be_chosen() -> None:
    curve = np.where(TAU > 1, 5.0, exact("single", TAU))
    assert fit_g2((TAU, curve, NOISE), tau_range=(0, 1)).values["tau_c"][0] == pytest.approx(0.08, rel=1e-4)


def reason(curve: NDArray[np.float64], **options: object) -> str:
    fit = fit_g2((TAU, curve, np.full(TAU.size, 1e-4)), **options)  # type: ignore[arg-type]
    assert not fit.is_good[0]
    return fit.reason[0]


def test_noise_alone_is_never_a_good_fit() -> None:
    rng = np.random.default_rng(11)
    fit = fit_g2((TAU, 1 + NOISE[:, None] * rng.normal(size=(TAU.size, 50)), ERRORS[:, :50]))
    assert not fit.is_good.any()
    assert all(fit.reason)


def test_a_fit_that_should_not_be_used_says_why() -> None:
    rng = np.random.default_rng(5)
    scatter = 1e-4 * rng.normal(size=TAU.size)
    assert "outside of the measured delays" in reason(1 + 0.1 * np.exp(-2 * TAU / 400.0) + scatter)
    assert "0 points for 3 parameters" in reason(np.full(TAU.size, np.nan))
    few = fit_g2((TAU[:3], exact("single", TAU[:3]), NOISE[:3]))
    assert few.reason == ("3 points for 3 parameters",)
    assert np.isnan(few.values["tau_c"]).all()
    step = np.where(TAU < 0.1, 1.2, 1.0)
    assert "stretch" in reason(step + scatter, model="stretched")
    assert reason(np.ones(TAU.size))


def test_models_and_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="single, stretched, double"):
        fit_g2((TAU, TAU, TAU), model="triple")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fit together"):
        fit_g2((TAU, TAU[:-1], None))
    with pytest.raises(ValueError, match="fit together"):
        fit_g2((TAU, noisy("single"), NOISE))


Q = np.geomspace(2e-3, 2e-2, 12)


def test_diffusion_is_found_with_honest_errors() -> None:
    rng = np.random.default_rng(2)
    pulls = []
    for _ in range(300):
        times = 3e-6 * Q**-2 * np.exp(0.1 * rng.normal(size=Q.size))
        law = fit_power_law(Q, times, 0.1 * times)
        relative = law.prefactor_err / law.prefactor
        pulls.append(((law.exponent - 2) / law.exponent_err, np.log(law.prefactor / 3e-6) / relative))
    assert np.abs(np.mean(pulls, axis=0)).max() < 0.3
    np.testing.assert_allclose(np.std(pulls, axis=0), 1, atol=0.2)


def test_an_exact_power_law_is_given_back_and_bad_points_are_left_out() -> None:
    times = 0.5 * Q**-1.0
    error = 0.05 * times
    times[3], times[4], error[5] = np.nan, -1.0, np.inf
    law = fit_power_law(Q, times, error)
    assert (law.exponent, law.prefactor) == pytest.approx((1.0, 0.5))
    np.testing.assert_allclose(law.curve(Q), 0.5 / Q)


def test_the_power_law_without_errors_takes_them_from_the_scatter() -> None:
    rng = np.random.default_rng(9)
    laws = [fit_power_law(Q, Q**-2 * np.exp(0.2 * rng.normal(size=Q.size))) for _ in range(300)]
    pull = [(law.exponent - 2) / law.exponent_err for law in laws]
    assert np.std(pull) == pytest.approx(1, abs=0.25)  # a t distribution of 10 degrees of freedom: 1.12
    assert np.isnan(fit_power_law(Q[:2], Q[:2] ** -2.0).exponent_err)
    with pytest.raises(ValueError, match="two different q"):
        fit_power_law([0.1, 0.1], [1.0, 2.0])
