"""What a decay says: relaxation times from g2, and how they depend on q."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares

Float64 = NDArray[np.float64]
Model = Literal["single", "stretched", "double"]

PARAMETERS: Mapping[Model, tuple[str, ...]] = MappingProxyType(
    {
        "single": ("contrast", "tau_c", "baseline"),
        "stretched": ("contrast", "tau_c", "baseline", "stretch"),
        "double": ("contrast", "tau_c", "baseline", "slow_ratio", "fraction"),
    }
)
_BOUNDS = {"stretch": (0.1, 3.0), "slow_ratio": (1.5, 1e5), "fraction": (0.0, 1.0)}
_LOGARITHMIC = ("tau_c", "slow_ratio")
"""Parameters that are fitted as logarithms: they are positive, and their errors are relative."""
_REACH = 100.0
"""A decay time is looked for so far outside the measured delays, to tell that it is outside."""
_DECIDED = 3.0
"""A contrast is believed above so many of its errors."""


class Curves(Protocol):
    """Correlation curves with errors, such as a `MultiTauResult`."""

    @property
    def tau(self) -> Float64:
        """(n_tau,)."""

    @property
    def g2(self) -> Float64:
        """(n_tau, n_q)."""

    @property
    def g2_err(self) -> Float64:
        """(n_tau, n_q)."""


@dataclass(frozen=True, eq=False)
class G2Fit:
    """Fits of a model to every curve; NaN where there was nothing to fit."""

    model: Model
    """single: baseline + contrast exp(-2 tau / tau_c);
    stretched: baseline + contrast exp(-2 (tau / tau_c)**stretch);
    double: baseline + contrast (fraction exp(-tau / tau_c) + (1 - fraction) exp(-tau / (slow_ratio tau_c)))**2."""
    values: Mapping[str, Float64]
    """(n_q,) of each parameter; tau_c in the unit of tau."""
    errors: Mapping[str, Float64]
    """(n_q,) standard errors; 0 for what was fixed."""
    chi2: Float64
    """(n_q,) sum of squared deviations over the errors, per degree of freedom; over their own scatter (1) when the
    curves came without errors."""
    is_good: NDArray[np.bool_]
    """(n_q,) False where the parameters should not be used."""
    reason: tuple[str, ...]
    """Why not; empty where they are good."""

    def curve(self, tau: ArrayLike) -> Float64:
        """(n_tau, n_q) the fitted curves at any delays."""
        delays = np.asarray(tau, float)
        columns = np.array([self.values[name] for name in PARAMETERS[self.model]]).T
        return np.array([_model(self.model, row, delays) for row in columns]).T.reshape(delays.size, -1)


@dataclass(frozen=True)
class PowerLaw:
    """tau_c = prefactor * q**-exponent."""

    exponent: float
    """2 for diffusion, 1 for ballistic motion."""
    exponent_err: float
    """Standard error."""
    prefactor: float
    """Decay time at q = 1, in the units of tau_c and q; of diffusion, the inverse of the diffusion coefficient."""
    prefactor_err: float
    """Standard error; it includes that of the exponent, hence it is large where q = 1 is far away."""
    chi2: float
    """Per degree of freedom; NaN for two points."""

    def curve(self, q: ArrayLike) -> Float64:
        """Decay times at any q."""
        times: Float64 = self.prefactor * np.asarray(q, float) ** -self.exponent
        return times


def fit_g2(
    data: Curves | tuple[ArrayLike, ArrayLike, ArrayLike | None],
    *,
    model: Model = "single",
    tau_range: tuple[float, float] = (0.0, np.inf),
    fixed: Mapping[str, float] | None = None,
) -> G2Fit:
    """Weighted least squares of each curve, from the best of a grid of first guesses.

    The errors come from the covariance at the minimum, times sqrt(chi2) where chi2 is above 1. They take the
    points as independent. Points at tau = 0 (shot noise), and those that are not finite or have no error, are
    left out.

    Parameters
    ----------
    data: a result, or (tau (n_tau,), g2 (n_tau, n_q) or (n_tau,), g2_err of that shape or None for equal weights).
    model: see `G2Fit.model`.
    tau_range: lowest and highest delay to use.
    fixed: parameters that are known, by name, e.g. {"baseline": 1.0}.

    Raises
    ------
    ValueError: unknown model or parameter, nothing left to fit, or shapes that disagree.
    """
    if model not in get_args(Model):
        raise ValueError(f"model must be one of {', '.join(get_args(Model))}, not {model!r}")
    known = dict(fixed or {})
    strange = sorted(set(known) - set(PARAMETERS[model]))
    if strange:
        raise ValueError(f"{model} has no parameter {', '.join(strange)}: it has {', '.join(PARAMETERS[model])}")
    if len(known) == len(PARAMETERS[model]) or any(known.get(name, 1.0) <= 0 for name in _LOGARITHMIC):
        raise ValueError("one parameter at least must be free, and a fixed decay time must be above 0")
    tau, g2, error = _columns(data)
    inside = (tau > 0) & (tau >= tau_range[0]) & (tau <= tau_range[1])
    fits = []
    for y, sigma in zip(g2.T, np.ones_like(g2.T) if error is None else error.T, strict=True):
        use = inside & np.isfinite(y) & np.isfinite(sigma) & (sigma > 0)
        fits.append(_fit_one(_Problem(model, tau[use], y[use], sigma[use], known), weighted=error is not None))
    values, errors, chi2, reasons = zip(*fits, strict=True)
    names = PARAMETERS[model]
    return G2Fit(
        model=model,
        values=dict(zip(names, np.array(values).T, strict=True)),
        errors=dict(zip(names, np.array(errors).T, strict=True)),
        chi2=np.array(chi2),
        is_good=np.array([not reason for reason in reasons]),
        reason=reasons,
    )


def fit_power_law(q: ArrayLike, tau_c: ArrayLike, error: ArrayLike | None = None) -> PowerLaw:
    """How decay times depend on q: a straight line through their logarithms, weighted by relative errors.

    Points that are not finite or not positive are left out, also those whose error is so. Without errors all weigh
    the same and their scatter gives the errors; with errors chi2 above 1 widens them by its root.

    Parameters
    ----------
    q: (n,) momentum transfers.
    tau_c: (n,) decay times.
    error: (n,) their standard errors.

    Raises
    ------
    ValueError: fewer than two different q that can be used.
    """
    momenta, times = np.asarray(q, float), np.asarray(tau_c, float)
    sigma = np.ones_like(times) if error is None else np.asarray(error, float)
    use = (
        np.isfinite(momenta) & np.isfinite(times) & np.isfinite(sigma) & (momenta > 0) & (times > 0) & (sigma > 0)
    )
    if np.unique(momenta[use]).size < 2:
        raise ValueError("a power law needs decay times at two different q or more")
    x, y = np.log(momenta[use]), np.log(times[use])
    relative = sigma[use] / times[use] if error is not None else np.ones(x.size)
    design = np.stack([np.ones(x.size), -x], axis=1) / relative[:, None]
    covariance = np.linalg.inv(design.T @ design)
    intercept, exponent = covariance @ (design.T @ (y / relative))
    freedom = x.size - 2
    chi2 = float((((y - intercept + exponent * x) / relative) ** 2).sum() / freedom) if freedom else np.nan
    if freedom:
        covariance = covariance * (max(1.0, chi2) if error is not None else chi2)
    elif error is None:
        covariance = np.full((2, 2), np.nan)
    prefactor = float(np.exp(intercept))
    return PowerLaw(
        exponent=float(exponent),
        exponent_err=float(np.sqrt(covariance[1, 1])),
        prefactor=prefactor,
        prefactor_err=prefactor * float(np.sqrt(covariance[0, 0])),
        chi2=chi2,
    )


def _columns(data: Any) -> tuple[Float64, Float64, Float64 | None]:
    given = data if isinstance(data, tuple) else (data.tau, data.g2, data.g2_err)
    tau, g2 = np.asarray(given[0], float), np.asarray(given[1], float)
    error = None if given[2] is None else np.asarray(given[2], float)
    if tau.ndim != 1 or g2.shape[:1] != tau.shape or (error is not None and error.shape != g2.shape):
        raise ValueError(f"tau {tau.shape}, g2 {g2.shape} and its error do not fit together")
    columns = (tau.size, -1)
    return tau, g2.reshape(columns), None if error is None else error.reshape(columns)


def _model(model: Model, parameters: ArrayLike, tau: Float64) -> Float64:
    contrast, tau_c, baseline, *shape = np.asarray(parameters, float)
    curve: Float64 = baseline + contrast * _decay(model, tau, tau_c, *shape)
    return curve


def _decay(model: Model, tau: Any, tau_c: Any, first: Any = 1.0, second: Any = 1.0) -> Any:
    """From 1 to 0: what contrast and baseline are put on."""
    if model == "double":
        return (second * np.exp(-tau / tau_c) + (1 - second) * np.exp(-tau / (first * tau_c))) ** 2
    return np.exp(-2 * (tau / tau_c) ** first)


@dataclass(frozen=True, eq=False)
class _Problem:
    """One curve to be fitted. Inside, positive parameters are logarithms."""

    model: Model
    tau: Float64
    y: Float64
    sigma: Float64
    fixed: Mapping[str, float]

    @cached_property
    def names(self) -> tuple[str, ...]:
        return PARAMETERS[self.model]

    @cached_property
    def free(self) -> list[int]:
        return [i for i, name in enumerate(self.names) if name not in self.fixed]

    @cached_property
    def logarithmic(self) -> NDArray[np.bool_]:
        return np.array([name in _LOGARITHMIC for name in self.names])

    @cached_property
    def limits(self) -> tuple[Float64, Float64]:
        size = float(np.ptp(self.y)) or 1.0
        bounds = {
            "contrast": (0.0, 10 * size + 1),
            "tau_c": (self.tau.min() / _REACH, self.tau.max() * _REACH),
            "baseline": (self.y.min() - 10 * size, self.y.max() + 10 * size),
            **_BOUNDS,
        }
        low, high = np.array([bounds[name] for name in self.names], float).T
        return self.inner(low), self.inner(high)

    def inner(self, physical: Float64) -> Float64:
        return np.where(self.logarithmic, np.log(np.where(self.logarithmic, physical, 1.0)), physical)

    def physical(self, inner: Float64) -> Float64:
        return np.where(self.logarithmic, np.exp(np.where(self.logarithmic, inner, 0.0)), inner)

    def deviation(self, x: Float64, inner: Float64) -> Float64:
        whole = inner.copy()
        whole[self.free] = x
        return (_model(self.model, self.physical(whole), self.tau) - self.y) / self.sigma

    def guesses(self) -> list[Float64]:
        """The best of a grid of shapes, and the best with another decay time; contrast and baseline are linear."""
        times = np.geomspace(self.tau.min() / 2, self.tau.max() * 2, 24)
        axes: list[Float64] = [times]
        if self.model == "stretched":
            axes.append(np.array([0.4, 0.7, 1.0, 1.5, 2.0]))
        elif self.model == "double":
            axes += [np.geomspace(3, 1000, 8), np.array([0.2, 0.5, 0.8])]
        shapes = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")])
        decays = _decay(self.model, self.tau, *shapes[:, :, None])
        weight = self.sigma**-2
        mean_decay, mean = decays @ weight / weight.sum(), float(self.y @ weight / weight.sum())
        spread = ((decays - mean_decay[:, None]) ** 2) @ weight
        covariance = (decays - mean_decay[:, None]) @ (weight * (self.y - mean))
        contrast = np.maximum(covariance / np.maximum(spread, 1e-300), 1e-6)
        baseline = mean - contrast * mean_decay
        misfit = ((baseline[:, None] + contrast[:, None] * decays - self.y) ** 2) @ weight
        first = int(np.argmin(misfit))
        elsewhere = np.abs(np.log(shapes[0] / shapes[0, first])) > 1
        second = int(np.argmin(np.where(elsewhere, misfit, np.inf)))
        return [np.array([contrast[i], shapes[0, i], baseline[i], *shapes[1:, i]]) for i in (first, second)]

    def doubt(self, values: Float64, errors: Float64, x: Float64) -> str:
        """Why the parameters should not be used; empty where they are good."""
        low, high = (limit[self.free] for limit in self.limits)
        value, error = dict(zip(self.names, values, strict=True)), dict(zip(self.names, errors, strict=True))
        if not np.isfinite(errors).all():
            return "the curve does not determine all parameters"
        slowest = value["tau_c"] * value.get("slow_ratio", 1.0)
        if value["tau_c"] < self.tau.min() / 2 or slowest > self.tau.max() * 2:
            return "the decay is outside of the measured delays"
        if "contrast" not in self.fixed and value["contrast"] < _DECIDED * error["contrast"]:
            return f"contrast {value['contrast']:.2g} is below {_DECIDED:g} of its errors"
        if error["tau_c"] > value["tau_c"]:
            return "the error of the decay time is above its value"
        margin = 1e-4 * np.minimum(high - low, 1.0)
        stuck = [
            self.names[i]
            for i, hit in zip(self.free, (x < low + margin) | (x > high - margin), strict=True)
            if hit
        ]
        return f"at the limit of what is allowed: {', '.join(stuck)}" if stuck else ""


def _fit_one(problem: _Problem, *, weighted: bool) -> tuple[Float64, Float64, float, str]:
    """Values, errors, chi2 per degree of freedom, and why they should not be used."""
    names, free = problem.names, problem.free
    freedom = problem.tau.size - len(free)
    if freedom < 1:
        nothing = np.full(len(names), np.nan)
        return nothing, nothing, np.nan, f"{problem.tau.size} points for {len(free)} parameters"
    low, high = problem.limits
    tries = []
    for guess in problem.guesses():
        known = np.array([problem.fixed.get(name, value) for name, value in zip(names, guess, strict=True)])
        inner = problem.inner(known)
        x = np.clip(inner[free], low[free] + 1e-9, high[free] - 1e-9)
        bounds = low[free], high[free]
        found = least_squares(problem.deviation, x, jac="2-point", bounds=bounds, x_scale="jac", args=(inner,))
        inner[free] = found.x
        tries.append((found.cost, found, problem.physical(inner)))
    cost, found, values = min(tries, key=lambda one: one[0])
    chi2 = 2 * cost / freedom
    errors = np.zeros(len(names))
    errors[free] = _errors(found.jac) * np.sqrt(max(1.0, chi2) if weighted else chi2)
    errors *= np.where(problem.logarithmic, values, 1.0)
    return values, errors, chi2 if weighted else 1.0, problem.doubt(values, errors, found.x)


def _errors(jacobian: Float64) -> Float64:
    """Roots of the diagonal of the covariance; infinite where the curve does not determine the parameters."""
    _, singular, turned = np.linalg.svd(jacobian, full_matrices=False)
    if singular[-1] <= 1e-12 * singular[0]:
        return np.full(jacobian.shape[1], np.inf)
    roots: Float64 = np.sqrt(((turned / singular[:, None]) ** 2).sum(axis=0))
    return roots
