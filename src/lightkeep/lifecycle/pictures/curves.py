"""Correlation curves of result datasets: read in the killable process, fitted and averaged here."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from lightkeep.formats import sandbox
from lightkeep.lifecycle.pictures.curve_arrays import Packed
from lightkeep.lifecycle.pictures.preview import main_file, shown_as
from lightkeep.lifecycle.processing.results import SOFTWARE
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import InvalidInput
from lightkeep.model.formats import Result

if TYPE_CHECKING:
    from lightkeep.analysis.xpcs import MultiTauResult
    from lightkeep.analysis.xpcs.average import Average, Outliers
    from lightkeep.analysis.xpcs.fit import G2Fit, Model
    from lightkeep.facility import Facility

FORMAT = "aps-8id"
LONGEST = 384
"""Pixels of the longer side of pictures."""
_FIT_POINTS = 120
"""Delays at which a fitted curve is drawn."""
_TIMEOUT_S = 30.0
_MEMORY = 2 << 30
"""A two-time correlation of 8,900 frames, twice, and its cuts."""


@dataclass(frozen=True)
class Curves:
    """All of a result but its pictures. What is not defined is NaN; what the file does not have is empty."""

    frame_time_s: float | None
    """From one frame to the next, s; None: not known, times are in frames."""
    time_unit: str
    """Of tau, time and the inverse of frequency: `s` or `frames`."""
    bins: list[int]
    """Dynamic bins, from 1."""
    q: list[float | None]
    """Of each bin, 1/angstrom."""
    phi: list[float | None]
    """Of each bin, degrees."""
    tau: list[float]
    g2: list[list[float]]
    """For each bin, at each tau."""
    g2_err: list[list[float]]
    saxs_q: list[float | None]
    """Of each ring, 1/angstrom."""
    saxs_1d: list[float]
    """Mean of each ring, counts/pixel/frame."""
    saxs_1d_segments: list[list[float]]
    """The same in equal pieces of the run."""
    frames: int
    """Behind `intensity`."""
    together: int
    """So many of them are one value of `intensity`."""
    time: list[float]
    intensity: list[float]
    """Mean over the used pixels, counts/pixel/frame."""
    frequency: list[float]
    amplitude: list[float]
    """Of a swing of the intensity, in parts of its mean; the largest of neighbours where there are many."""
    two_time_bins: list[int]
    """Bins with a two-time correlation."""
    flags: list[str]
    """What the reader has to know."""
    units: dict[str, str]


@dataclass(frozen=True)
class Picture:
    """The mean image, reduced by `factor`."""

    rows: int
    columns: int
    """Of the detector."""
    factor: int
    low: float
    high: float
    """Contrast: the 1 and 99.7 percentiles of the pixels that work and saw something."""
    values: Packed
    """counts/pixel/frame; NaN where the mask is."""
    bins: Packed
    """Dynamic bin of each pixel; 0: none."""
    q: Packed | None
    """1/angstrom; None where the geometry is not known."""
    phi: Packed | None
    beam: tuple[float, float] | None
    """Column and row of the direct beam."""


@dataclass(frozen=True)
class TwoTimeMap:
    """The two-time correlation of a bin, reduced by `factor`, and g2 cut from it at full resolution."""

    bin: int
    frames: int
    factor: int
    step: float
    """Time from one frame to the next."""
    low: float
    high: float
    values: Packed
    """Its diagonal holds the mean of its neighbours, not shot noise; NaN for frames without correlation."""
    tau: list[float]
    g2: list[float]
    segment_tau: list[float]
    segments: list[list[float]]
    """g2 of equal pieces of the run."""


@dataclass(frozen=True)
class AgeCut:
    """g2 at one age of the sample."""

    age: float
    tau: list[float]
    g2: list[float]


@dataclass(frozen=True)
class Law:
    """tau_c = prefactor * q**-exponent."""

    exponent: float
    exponent_err: float
    prefactor: float
    prefactor_err: float
    chi2: float
    q: list[float]
    tau_c: list[float]
    """The line, where the points are."""


@dataclass(frozen=True)
class Fitted:
    """A model fitted to every curve."""

    model: str
    values: dict[str, list[float]]
    """Parameter -> value of each bin."""
    errors: dict[str, list[float]]
    chi2: list[float]
    is_good: list[bool]
    reason: list[str]
    """Why a fit is not good."""
    tau: list[float]
    curve: list[list[float]]
    """For each bin, at each tau."""
    law: Law | None
    no_law: str
    """Why there is no law."""


@dataclass(frozen=True)
class AveragedRun:
    """One of the results that were to be averaged."""

    dataset_id: str
    name: str
    is_used: bool
    reason: str
    """Why not; empty where it was used."""
    chi_square: float
    """Against the median of all, reduced; NaN where errors are not known."""
    g2: list[list[float]]
    """For each bin, at each tau."""


@dataclass(frozen=True)
class Averaged:
    """The mean of several results."""

    mean: Curves
    """Without what is not averaged: static curves, intensity, two times."""
    runs: list[AveragedRun]
    birge: list[float]
    """Of each bin: how much more the runs differ than their errors explain, at least 1. The errors are enlarged
    by it."""


def curves(facility: Facility, dataset: Dataset) -> Curves:
    """Return the curves of a result.

    Raises
    ------
    NotFound: it is no correlation result. BadFile: it cannot be read.
    """
    return Curves(**_call("describe", facility, dataset))


def picture(facility: Facility, dataset: Dataset, *, longest: int = LONGEST) -> Picture:
    """Return the mean image. NotFound where there is none."""
    return Picture(**_call("image", facility, dataset, longest=longest))


def two_time(facility: Facility, dataset: Dataset, number: int, *, longest: int = LONGEST) -> TwoTimeMap:
    """Return the two-time correlation of a bin. NotFound where there is none."""
    return TwoTimeMap(**_call("two_time", facility, dataset, number=number, longest=longest))


def cuts(
    facility: Facility, dataset: Dataset, number: int, *, ages: Sequence[float], width: float, kind: str = "mean"
) -> list[AgeCut]:
    """Return g2 of a bin at ages of the sample; age and width in the unit of its times.

    Parameters
    ----------
    kind: `mean`: the age of a pair of frames is (t1 + t2)/2; `waiting`: it is t1.
    """
    found = _call("cuts", facility, dataset, number=number, ages=list(ages), width=width, kind=kind)
    return [AgeCut(**each) for each in found]


def table(facility: Facility, dataset: Dataset, kind: str) -> str:
    """Return `g2`, `g2_twotime`, `saxs_1d` or `intensity` as CSV. NotFound where the result does not have it."""
    return cast(str, _call("table", facility, dataset, kind=kind))


def fit(
    shown: Curves,
    *,
    model: Model = "single",
    baseline: float | None = None,
    q_range: tuple[float, float] = (0.0, np.inf),
) -> Fitted:
    """Fit a model to every curve, and a power law of q to the decay times of the good fits.

    Parameters
    ----------
    baseline: fixed, e.g. at 1; None: fitted.
    q_range: lowest and highest q that the law is fitted to, 1/angstrom.
    """
    from lightkeep.analysis.xpcs import fit_g2

    tau, g2, error = (np.array(each, float) for each in (shown.tau, shown.g2, shown.g2_err))
    known = {} if baseline is None else {"baseline": baseline}
    weights = error.T if np.isfinite(error).any() else None
    found = fit_g2((tau, g2.reshape(-1, tau.size).T, weights), model=model, fixed=known)
    later = tau[tau > 0]
    fine = np.geomspace(later.min(), later.max(), _FIT_POINTS) if later.size else later
    law, why = _law(shown, found, q_range)
    return Fitted(
        model=found.model,
        values={name: values.tolist() for name, values in found.values.items()},
        errors={name: values.tolist() for name, values in found.errors.items()},
        chi2=found.chi2.tolist(),
        is_good=found.is_good.tolist(),
        reason=list(found.reason),
        tau=fine.tolist(),
        curve=found.curve(fine).T.tolist(),
        law=law,
        no_law=why,
    )


def _law(shown: Curves, found: G2Fit, q_range: tuple[float, float]) -> tuple[Law | None, str]:
    from lightkeep.analysis.xpcs import fit_power_law

    q = np.array([np.nan if each is None else each for each in shown.q], float)
    use = found.is_good & (q >= q_range[0]) & (q <= q_range[1])
    if not np.isfinite(q).any():
        return None, "the q of the bins is not known"
    try:
        law = fit_power_law(q[use], found.values["tau_c"][use], found.errors["tau_c"][use])
    except ValueError:
        return None, f"{int(use.sum())} of {q.size} fits can be used, a power law needs two different q"
    ends = np.geomspace(q[use].min(), q[use].max(), 32)
    return (
        Law(
            law.exponent,
            law.exponent_err,
            law.prefactor,
            law.prefactor_err,
            law.chi2,
            ends.tolist(),
            law.curve(ends).tolist(),
        ),
        "",
    )


def average(facility: Facility, datasets: Sequence[Dataset], *, outliers: Outliers | None = "robust") -> Averaged:
    """Return the mean of results of one sample, without those that do not belong.

    Raises
    ------
    NotFound: one holds no g2. InvalidInput: they have different delays, bins or reductions.
    """
    shown = curves(facility, datasets[0])
    results, found = _average(facility, datasets, outliers)
    reasons = {each.run: each.reason for each in found.rejected}
    runs = [
        AveragedRun(
            each.id,
            each.name,
            at not in reasons,
            reasons.get(at, ""),
            float(found.chi_square[at]),
            result.g2.T.tolist(),
        )
        for at, (each, result) in enumerate(zip(datasets, results, strict=True))
    ]
    gone = (
        "saxs_q",
        "saxs_1d",
        "saxs_1d_segments",
        "time",
        "intensity",
        "frequency",
        "amplitude",
        "two_time_bins",
    )
    nothing: dict[str, Any] = {name: [] for name in gone}
    mean = replace(
        shown,
        tau=found.result.tau.tolist(),
        g2=found.result.g2.T.tolist(),
        g2_err=found.result.g2_err.T.tolist(),
        frames=0,
        flags=[],
        **nothing,
    )
    return Averaged(mean, runs, found.birge.tolist())


def average_file(
    facility: Facility, datasets: Sequence[Dataset], folder: Path, *, outliers: Outliers | None = "robust"
) -> Path:
    """Write the mean of results below a folder, as a result file of beamline 8-ID; return it.

    Everything that a multi-tau result has is in it, over the runs that were used; the file names them, and the
    others with the reason. Raises as `average` does.
    """
    from lightkeep import formats
    from lightkeep.analysis.xpcs import describe, qmap_of
    from lightkeep.techniques.xpcs import multi_tau_outputs

    _, found = _average(facility, datasets, outliers)
    used = [datasets[at] for at in found.used]
    maps, words, metadata = _call("maps", facility, used[0])
    qmap = qmap_of({name: unpacked(each) for name, each in maps.items()}, words.get("qmap", {}))
    mean = replace(found.result, saxs_2d=_mean_image(facility, used))
    result = Result(
        technique="xpcs",
        title=f"Mean of {', '.join(each.name for each in used)}",
        outputs=multi_tau_outputs(qmap, mean),
        default="g2",
        params={**words.get("params", {}), "mode": "multitau", "outliers": outliers or "none"},
        software=SOFTWARE,
        inputs={each.id: each.name for each in used},
        facts={
            "qmap": describe(qmap),
            "flags": [_with_names(flag, datasets) for flag in mean.flags],
            "birge": found.birge.tolist(),
        },
        metadata=metadata,
    )
    return formats.get(FORMAT).write(folder, result)[0]


def average_table(facility: Facility, datasets: Sequence[Dataset], *, outliers: Outliers | None = "robust") -> str:
    """Return the mean g2 of results and its errors as CSV. Raises as `average` does."""
    from lightkeep import formats
    from lightkeep.formats.xpcs_csv import csv_of

    with tempfile.TemporaryDirectory(prefix="average-") as folder:
        path = average_file(facility, datasets, Path(folder), outliers=outliers)
        with formats.get(FORMAT).open(path) as source:
            return csv_of(source)["g2.csv"]


def _average(
    facility: Facility, datasets: Sequence[Dataset], outliers: Outliers | None
) -> tuple[list[MultiTauResult], Average]:
    from lightkeep.analysis.xpcs import average_results

    results = [_result(facility, each) for each in datasets]
    try:
        return results, average_results(results, outliers=outliers)
    except ValueError as error:
        text = _with_names(str(error), datasets)
        raise InvalidInput(text, remedy="choose results that were reduced in the same way") from error


def _with_names(text: str, datasets: Sequence[Dataset]) -> str:
    """Return a sentence about runs by number as one about datasets by name."""
    return re.sub(r"\b[Rr]un (\d+)", lambda match: datasets[int(match[1])].name, text)


def _mean_image(facility: Facility, datasets: Sequence[Dataset]) -> NDArray[np.float64]:
    """Return the mean of the mean images, each with the weight of its frames; one is in memory at a time."""
    total, weight = np.zeros(()), np.zeros(())
    for each in datasets:
        image, frames = _call("mean_image", facility, each)
        values = unpacked(image).astype(np.float64)
        is_known = np.isfinite(values)
        total = total + frames * np.where(is_known, values, 0)
        weight = weight + frames * is_known
    mean: NDArray[np.float64] = np.divide(total, weight, out=np.full(total.shape, np.nan), where=weight > 0)
    return mean


def _result(facility: Facility, dataset: Dataset) -> MultiTauResult:
    from lightkeep.analysis.xpcs.result_arrays import multitau_result_of

    arrays, words = _call("parts", facility, dataset)
    return multitau_result_of({name: unpacked(each) for name, each in arrays.items()}, words)


def unpacked(given: Packed) -> NDArray[Any]:
    """Return an array as it was before it travelled."""
    dtype, shape, content = given
    return np.frombuffer(content, f"<{dtype}").reshape(shape)


def _call(name: str, facility: Facility, dataset: Dataset, **options: Any) -> Any:
    path = main_file(facility, dataset)
    with shown_as(path, dataset):
        function = f"lightkeep.lifecycle.pictures.curve_arrays:{name}"
        return sandbox.call(function, path, dataset.format, timeout_s=_TIMEOUT_S, memory_bytes=_MEMORY, **options)
