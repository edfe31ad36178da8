"""Who uses how much of which store, quotas, growth, and the forecast."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from lightkeep.http.desk import AtDesk, Name, Seen, Who, Word
from lightkeep.http.shapes import Shape, Shown
from lightkeep.lifecycle.capacity import forecast, scenarios
from lightkeep.lifecycle.capacity import usage as verbs
from lightkeep.model.people import Scope
from lightkeep.model.usage import Growth, Quota, Step

router = APIRouter(prefix="/usage", tags=["usage"])

By = Literal["station", "store", "tier", "experiment", "technique", "kind"]
Bounded = Literal["experiment", "station"]


class RowShape(Shape):
    """One line of the usage table."""

    key: Shown
    size: int = Field(description="Bytes of all copies that take room now.")
    copies: int
    experiments: int
    measured: int | None = Field(description="Bytes of complete datasets, each once; by station and experiment.")
    datasets: int | None
    newest_at: datetime | None


class QuotaShape(Shape):
    """A bound on what an experiment or a station may take."""

    scope: str
    scope_id: Shown
    size: int = Field(description="Bytes.")
    is_hard: bool
    warn_at: float


class FillingShape(Shape):
    """How far a quota is used."""

    quota: QuotaShape
    used: int
    fraction: float
    is_warning: bool
    people: tuple[Shown, ...] = Field(description="Who can do something about it.")


class UsageShape(BaseModel):
    """The usage table."""

    by: str
    items: list[RowShape]
    total: int = Field(description="Bytes in all.")
    warnings: list[FillingShape]


class SeriesShape(Shape):
    """How much lay there at the end of each day on which something changed."""

    key: Shown
    days: tuple[datetime, ...]
    sizes: tuple[int, ...]


class StepShape(Shape):
    """A planned upgrade."""

    model_config = ConfigDict(from_attributes=True, extra="forbid")

    at: date
    factor: float = Field(gt=0, lt=1e6)


class GrowthShape(Shape):
    """How fast a station will grow."""

    station_id: Shown
    technique: Shown
    bytes_per_day: float
    per_year: float
    steps: tuple[StepShape, ...]


class GrowthRequest(BaseModel):
    """How fast a station will grow."""

    model_config = ConfigDict(extra="forbid")

    bytes_per_day: float = Field(ge=0, lt=1e18)
    per_year: float = Field(1.0, gt=0, lt=1e6)
    steps: list[StepShape] = Field(default_factory=list, max_length=100)
    technique: str = Field("", max_length=100)


class QuotaRequest(BaseModel):
    """How much it may take."""

    model_config = ConfigDict(extra="forbid")

    size: int = Field(gt=0, lt=2**62)
    is_hard: bool = False
    warn_at: float = Field(0.8, gt=0, le=1)


class ForecastRequest(BaseModel):
    """How far ahead, and what to assume otherwise: as in a scenario file, with `policy_text` for a policy."""

    model_config = ConfigDict(extra="forbid")

    days: int = Field(730, ge=1, le=3660)
    scenario: list[dict[str, Any]] = Field(default_factory=list, max_length=10)


class PathShape(BaseModel):
    """How one store fills, at the end of each day."""

    store_id: Shown
    days: tuple[date, ...]
    used: tuple[int, ...]
    capacity: tuple[int, ...]
    waiting: tuple[int, ...] = Field(description="Bytes that are still to be copied elsewhere.")
    high: float
    low: float
    high_on: date | None
    full_on: date | None
    peak: int
    left: int
    squeezed: int


class OutlookShape(BaseModel):
    """What becomes of every store under one scenario."""

    name: Shown
    bytes_per_day: float
    notes: tuple[Shown, ...]
    stores: list[PathShape]


@router.get("")
def table(desk: AtDesk, who: Who, by: By = "station", station: Word = "") -> UsageShape:
    """How much lies where now; by store and tier for who is signed in."""
    rows = verbs.table(desk.facility, by, principal=who, station_id=station)
    full = [each for each in verbs.quotas(desk.facility, principal=who) if each.is_warning]
    return UsageShape(
        by=by,
        items=[RowShape.model_validate(row) for row in rows],
        total=sum(row.size for row in rows),
        warnings=[FillingShape.model_validate(each) for each in full],
    )


@router.get("/table.csv", response_class=Response, responses={200: {"content": {"text/csv": {}}}})
def table_csv(desk: AtDesk, who: Who, by: By = "station", station: Word = "") -> Response:
    """The same for a spreadsheet; no cell begins a formula."""
    rows = verbs.table(desk.facility, by, principal=who, station_id=station)
    names = [by, "bytes", "copies", "experiments", "measured_bytes", "datasets", "newest_at"]
    cells = [[r.key, r.size, r.copies, r.experiments, r.measured, r.datasets, r.newest_at] for r in rows]
    headers = {"Content-Disposition": f'attachment; filename="usage-by-{by}.csv"'}
    return Response(verbs.to_csv(names, cells), headers=headers, media_type="text/csv; charset=utf-8")


@router.get("/history")
def history(
    desk: AtDesk,
    who: Who,
    by: Literal["store", "station", "experiment", "technique", "kind"] = "store",
    days: Annotated[int, Query(ge=1, le=36_600)] = 730,
    station: Word = "",
) -> list[SeriesShape]:
    """How much lay where over time, from the daily samples."""
    found = verbs.history(desk.facility, by, principal=who, days=days, station_id=station)
    return [SeriesShape.model_validate(each) for each in found]


@router.get("/quotas")
def quotas(desk: AtDesk, who: Who) -> list[FillingShape]:
    """Quotas that concern what one sees, fullest first."""
    return [FillingShape.model_validate(each) for each in verbs.quotas(desk.facility, principal=who)]


@router.put("/quotas/{scope}/{scope_id}")
def set_quota(desk: AtDesk, who: Who, scope: Bounded, scope_id: Name, asked: QuotaRequest) -> QuotaShape:
    """Bound what an experiment or a station may take; never a reason to delete."""
    made = Quota(Scope(scope), scope_id, asked.size, asked.is_hard, asked.warn_at)
    verbs.set_quota(desk.facility, made, principal=who)
    return QuotaShape.model_validate(made)


@router.delete("/quotas/{scope}/{scope_id}", status_code=204)
def unset_quota(desk: AtDesk, who: Who, scope: Bounded, scope_id: Name) -> Response:
    """Take a bound away."""
    verbs.unset_quota(desk.facility, Scope(scope), scope_id, principal=who)
    return Response(status_code=204)


@router.get("/growth")
def growth(view: Seen) -> list[GrowthShape]:
    """What was set about the growth of stations."""
    return [GrowthShape.model_validate(each) for each in view.growth()]


@router.put("/growth/{station_id}")
def set_growth(desk: AtDesk, who: Who, station_id: Name, asked: GrowthRequest) -> GrowthShape:
    """Say how fast a station will grow, in place of what was measured."""
    steps = tuple(Step(step.at, step.factor) for step in asked.steps)
    made = Growth(station_id, asked.technique, asked.bytes_per_day, asked.per_year, steps)
    verbs.set_growth(desk.facility, made, principal=who)
    return GrowthShape.model_validate(made)


@router.delete("/growth/{station_id}", status_code=204)
def unset_growth(desk: AtDesk, who: Who, station_id: Name, technique: Word = "") -> Response:
    """Go back to what was measured."""
    verbs.unset_growth(desk.facility, station_id, principal=who, technique=technique)
    return Response(status_code=204)


@router.post("/forecast")
def ahead(desk: AtDesk, who: Who, view: Seen, asked: ForecastRequest) -> list[OutlookShape]:
    """When is which store full: as things are, then under each scenario. For who may read the whole facility."""
    given = scenarios.parse({"scenario": asked.scenario}, view.stores()) if asked.scenario else []
    found = forecast.outlooks(desk.facility, given, principal=who, days=asked.days)
    return [_outlook(each) for each in found]


def _outlook(outlook: forecast.Outlook) -> OutlookShape:
    return OutlookShape(
        name=outlook.scenario.name,
        bytes_per_day=outlook.bytes_per_day,
        notes=outlook.notes,
        stores=[
            PathShape(
                store_id=path.depot.id,
                days=path.days,
                used=path.used,
                capacity=path.capacity,
                waiting=path.waiting,
                high=path.depot.high,
                low=path.depot.low,
                high_on=path.high_on,
                full_on=path.full_on,
                peak=path.peak,
                left=path.left,
                squeezed=path.squeezed,
            )
            for path in outlook.paths
        ],
    )
