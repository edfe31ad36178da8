"""Correlation results as data: curves, pictures, fits, cuts, averages. What the portal draws comes from here."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Response
from fastapi import Path as InPath
from pydantic import BeforeValidator

from lightkeep.http.desk import AtDesk, Name, Seen
from lightkeep.http.shapes import Shape, Shown, json_safe
from lightkeep.lifecycle.pictures import curves
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import NotFound
from lightkeep.model.people import Verb

router = APIRouter(tags=["correlation"])

_KEEP = "private, max-age=600"
"""A complete dataset never changes."""

_CSV: dict[int | str, dict[str, Any]] = {200: {"content": {"text/csv": {}}, "description": "The table."}}
_HDF: dict[int | str, dict[str, Any]] = {200: {"content": {"application/x-hdf5": {}}, "description": "The file."}}

Number = Annotated[float | None, BeforeValidator(json_safe)]
Numbers = Annotated[list[float | None], BeforeValidator(json_safe)]
Rows = Annotated[list[list[float | None]], BeforeValidator(json_safe)]
Table = Annotated[dict[str, list[float | None]], BeforeValidator(json_safe)]
Bin = Annotated[int, InPath(ge=1, le=10**6, description="Dynamic bin, from 1.")]
Model = Literal["single", "stretched", "double"]


def _array(value: Any) -> Any:
    if not isinstance(value, tuple):
        return value
    dtype, shape, content = value
    return {"dtype": dtype, "shape": list(shape), "bdata": base64.b64encode(content).decode()}


class ArrayShape(Shape):
    """An array of two axes."""

    dtype: Literal["f4", "u2"]
    """Little-endian float32, or unsigned 16-bit integers."""
    shape: list[int]
    bdata: str
    """Base64, row by row."""


Packed = Annotated[ArrayShape, BeforeValidator(_array)]


class CurvesShape(Shape):
    """All of a result but its pictures; null is not defined, empty is not there."""

    frame_time_s: float | None
    time_unit: str
    bins: list[int]
    q: Numbers
    phi: Numbers
    tau: Numbers
    g2: Rows
    g2_err: Rows
    saxs_q: Numbers
    saxs_1d: Numbers
    saxs_1d_segments: Rows
    frames: int
    together: int
    time: Numbers
    intensity: Numbers
    frequency: Numbers
    amplitude: Numbers
    two_time_bins: list[int]
    flags: list[Shown]
    units: dict[str, Shown]


class PictureShape(Shape):
    """The mean image, reduced by `factor`; bins, q and azimuth of its pixels."""

    rows: int
    columns: int
    factor: int
    low: float
    high: float
    values: Packed
    bins: Packed
    q: Packed | None
    phi: Packed | None
    beam: tuple[float, float] | None


class TwoTimeShape(Shape):
    """The two-time correlation of a bin, reduced by `factor`, and g2 cut from it."""

    bin: int
    frames: int
    factor: int
    step: float
    low: float
    high: float
    values: Packed
    tau: Numbers
    g2: Numbers
    segment_tau: Numbers
    segments: Rows


class AgeCutShape(Shape):
    """g2 at one age of the sample."""

    age: float
    tau: Numbers
    g2: Numbers


class LawShape(Shape):
    """tau_c = prefactor * q**-exponent."""

    exponent: Number
    exponent_err: Number
    prefactor: Number
    prefactor_err: Number
    chi2: Number
    q: Numbers
    tau_c: Numbers


class FitShape(Shape):
    """A model fitted to every curve, and the law of its decay times."""

    model: Model
    values: Table
    errors: Table
    chi2: Numbers
    is_good: list[bool]
    reason: list[str]
    tau: Numbers
    curve: Rows
    law: LawShape | None
    no_law: str


class AveragedRunShape(Shape):
    """One of the results that were to be averaged."""

    dataset_id: str
    name: Shown
    is_used: bool
    reason: Shown
    chi_square: Number
    g2: Rows


class AveragedShape(Shape):
    """The mean of several results, which of them were left out and why, and the fit of the mean."""

    mean: CurvesShape
    runs: list[AveragedRunShape]
    birge: Numbers
    fit: FitShape


@router.get("/datasets/{dataset_id}/xpcs")
def curves_of(desk: AtDesk, view: Seen, response: Response, dataset_id: Name) -> CurvesShape:
    """The curves of a correlation result, and what to know about them."""
    view.require(Verb.READ, dataset_id=dataset_id)
    response.headers["Cache-Control"] = _KEEP
    return CurvesShape.model_validate(curves.curves(desk.facility, view.dataset(dataset_id)))


@router.get("/datasets/{dataset_id}/xpcs/image")
def image(desk: AtDesk, view: Seen, response: Response, dataset_id: Name) -> PictureShape:
    """The mean image with its bins."""
    view.require(Verb.READ, dataset_id=dataset_id)
    response.headers["Cache-Control"] = _KEEP
    return PictureShape.model_validate(curves.picture(desk.facility, view.dataset(dataset_id)))


@router.get("/datasets/{dataset_id}/xpcs/fit")
def fit(
    desk: AtDesk,
    view: Seen,
    response: Response,
    dataset_id: Name,
    model: Model = "single",
    baseline: Annotated[float | None, Query(ge=0, le=10, description="Fixed; fitted where not given.")] = None,
    q_low: Annotated[float, Query(ge=0, allow_inf_nan=False)] = 0.0,
    q_high: Annotated[float, Query(gt=0, allow_inf_nan=False)] = 1e9,
) -> FitShape:
    """Every curve fitted, and the power law of the decay times; `q_low` to `q_high` bound the law."""
    view.require(Verb.READ, dataset_id=dataset_id)
    response.headers["Cache-Control"] = _KEEP
    shown = curves.curves(desk.facility, view.dataset(dataset_id))
    return FitShape.model_validate(curves.fit(shown, model=model, baseline=baseline, q_range=(q_low, q_high)))


@router.get("/datasets/{dataset_id}/xpcs/two-time/{number}")
def two_time(desk: AtDesk, view: Seen, response: Response, dataset_id: Name, number: Bin) -> TwoTimeShape:
    """The two-time correlation of a bin."""
    view.require(Verb.READ, dataset_id=dataset_id)
    response.headers["Cache-Control"] = _KEEP
    return TwoTimeShape.model_validate(curves.two_time(desk.facility, view.dataset(dataset_id), number))


@router.get("/datasets/{dataset_id}/xpcs/two-time/{number}/cuts")
def cuts(
    desk: AtDesk,
    view: Seen,
    response: Response,
    dataset_id: Name,
    number: Bin,
    age: Annotated[list[float], Query(min_length=1, max_length=12, description="In the unit of its times.")],
    width: Annotated[float, Query(gt=0, allow_inf_nan=False, description="Of the ages that count.")],
    kind: Annotated[
        Literal["mean", "waiting"], Query(description="Age of a pair: the mean of both times, or the first.")
    ] = "mean",
) -> list[AgeCutShape]:
    """g2 of a bin at ages of the sample."""
    view.require(Verb.READ, dataset_id=dataset_id)
    response.headers["Cache-Control"] = _KEEP
    ages = [each for each in age if abs(each) < 1e300]
    found = curves.cuts(desk.facility, view.dataset(dataset_id), number, ages=ages, width=width, kind=kind)
    return [AgeCutShape.model_validate(each) for each in found]


@router.get("/datasets/{dataset_id}/xpcs/{table}.csv", response_class=Response, responses=_CSV)
def table(
    desk: AtDesk, view: Seen, dataset_id: Name, table: Literal["g2", "g2_twotime", "saxs_1d", "intensity"]
) -> Response:
    """One kind of curve as a table, complete."""
    view.require(Verb.READ, dataset_id=dataset_id)
    dataset = view.dataset(dataset_id)
    return _download(curves.table(desk.facility, dataset, table), f"{dataset.name}-{table}.csv", "text/csv")


Results = Annotated[list[str], Query(min_length=1, max_length=50, description="Ids of results.")]
LeftOut = Annotated[
    Literal["robust", "chi-square", "none"], Query(description="How results that do not belong are found.")
]


@router.get("/experiments/{experiment_id}/xpcs/average")
def average(
    desk: AtDesk,
    view: Seen,
    experiment_id: Name,
    result: Results,
    outliers: LeftOut = "robust",
    model: Model = "single",
) -> AveragedShape:
    """The mean g2 of several results of an experiment, without those that do not belong."""
    chosen = _chosen(view, experiment_id, result)
    found = curves.average(desk.facility, chosen, outliers=None if outliers == "none" else outliers)
    return AveragedShape(
        mean=CurvesShape.model_validate(found.mean),
        runs=[AveragedRunShape.model_validate(each) for each in found.runs],
        birge=found.birge,
        fit=FitShape.model_validate(curves.fit(found.mean, model=model)),
    )


@router.get("/experiments/{experiment_id}/xpcs/average.hdf", response_class=Response, responses=_HDF)
def average_file(
    desk: AtDesk, view: Seen, experiment_id: Name, result: Results, outliers: LeftOut = "robust"
) -> Response:
    """The mean as a result file of beamline 8-ID, which its programs open."""
    chosen = _chosen(view, experiment_id, result)
    with tempfile.TemporaryDirectory(prefix="average-") as folder:
        how = None if outliers == "none" else outliers
        content = curves.average_file(desk.facility, chosen, Path(folder), outliers=how).read_bytes()
    return _download(content, f"{chosen[0].name}-average_results.hdf", "application/x-hdf5")


@router.get("/experiments/{experiment_id}/xpcs/average.csv", response_class=Response, responses=_CSV)
def average_table(
    desk: AtDesk, view: Seen, experiment_id: Name, result: Results, outliers: LeftOut = "robust"
) -> Response:
    """The mean g2 and its errors as a table."""
    chosen = _chosen(view, experiment_id, result)
    text = curves.average_table(desk.facility, chosen, outliers=None if outliers == "none" else outliers)
    return _download(text, f"{chosen[0].name}-average-g2.csv", "text/csv")


def _chosen(view: Seen, experiment_id: str, ids: list[str]) -> list[Dataset]:
    """Return results of an experiment that the principal may read."""
    view.experiment(experiment_id)
    chosen = [view.dataset(each) for each in dict.fromkeys(ids)]
    for each in chosen:
        view.require(Verb.READ, dataset_id=each.id)
        if each.experiment_id != experiment_id:
            raise NotFound(f"{each.name} is not of experiment {experiment_id}")
    return chosen


def _download(content: bytes | str, name: str, media_type: str) -> Response:
    headers = {
        "Cache-Control": _KEEP,
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, errors='replace')}",
    }
    return Response(content, media_type=media_type, headers=headers)
