"""The life of an experiment."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from lightkeep.http.desk import AtDesk, Name, Seen, Who
from lightkeep.http.shapes import ExperimentShape, GrantShape, Shape, Shown
from lightkeep.lifecycle.people import experiments, proposals
from lightkeep.lifecycle.retention import retain
from lightkeep.model.experiments import Experiment, ExperimentState

router = APIRouter(prefix="/experiments", tags=["experiments"])


class ExperimentRequest(BaseModel):
    """A new experiment."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(max_length=64)
    station_id: str = Field(max_length=64)
    title: str = Field("", max_length=1000)
    planned: bool = False
    starts_at: AwareDatetime | None = None
    ends_at: AwareDatetime | None = None


class CloseRequest(BaseModel):
    """How to close it."""

    model_config = ConfigDict(extra="forbid")

    anyway: bool = Field(False, description="Also while raw data are still coming in.")


class ExtendRequest(BaseModel):
    """Until when it is still needed, and why."""

    model_config = ConfigDict(extra="forbid")

    until: AwareDatetime
    reason: str = Field(min_length=1, max_length=1000)


class ReleaseRequest(BaseModel):
    """From when on it is public."""

    model_config = ConfigDict(extra="forbid")

    at: AwareDatetime | None = Field(None, description="Not before then (an embargo); now when it is left out.")


class SyncRequest(BaseModel):
    """What to bring up to date, from the facility's own source of proposals."""

    model_config = ConfigDict(extra="forbid")

    dry_run: bool = Field(True, description="Only say what would be done.")


class ClosedShape(Shape):
    """What was done on the stores."""

    experiment: ExperimentShape
    files: int
    skipped: tuple[Shown, ...] = Field(description="Why a store was left out.")


class ExtendedShape(BaseModel):
    """A hold of kind extension."""

    id: str
    until: datetime | None


class PlaceShape(Shape):
    """What lies on one store, until when, and why."""

    store_id: Shown
    technique: Shown
    kind: str
    copies: int
    size: int
    leaves_at: datetime | None
    why: Shown


class ReportShape(Shape):
    """An experiment on one page."""

    experiment: ExperimentShape
    places: tuple[PlaceShape, ...]
    people: tuple[GrantShape, ...]
    changes: int


class StepShape(Shape):
    """One thing that a synchronisation does, or did."""

    act: str
    subject: Shown
    text: Shown


class SyncedShape(Shape):
    """What a synchronisation found to do."""

    experiment_id: Shown
    steps: tuple[StepShape, ...]
    is_done: bool


@router.post("", status_code=201)
def create(desk: AtDesk, who: Who, view: Seen, asked: ExperimentRequest) -> ExperimentShape:
    """Make an experiment at a station where one may write."""
    state = ExperimentState.PLANNED if asked.planned else ExperimentState.OPEN
    made = Experiment(asked.id, asked.station_id, asked.title, state, asked.starts_at, asked.ends_at)
    experiments.create(desk.facility, made, principal=who)
    return ExperimentShape.model_validate(view.experiment(made.id))


@router.post("/{experiment_id}/open")
def open_(desk: AtDesk, who: Who, experiment_id: Name) -> ClosedShape:
    """Let it take raw data; a closed one again: the clock of its policy stops."""
    return ClosedShape.model_validate(experiments.open_(desk.facility, experiment_id, principal=who))


@router.post("/{experiment_id}/close")
def close(desk: AtDesk, who: Who, experiment_id: Name, asked: CloseRequest) -> ClosedShape:
    """Its raw data are complete and become read-only; the clock of its policy starts."""
    done = experiments.close(desk.facility, experiment_id, principal=who, anyway=asked.anyway)
    return ClosedShape.model_validate(done)


@router.post("/{experiment_id}/extend", status_code=201)
def extend(desk: AtDesk, who: Who, experiment_id: Name, asked: ExtendRequest) -> ExtendedShape:
    """Keep everything of it until a time."""
    hold = experiments.extend(desk.facility, experiment_id, until=asked.until, reason=asked.reason, principal=who)
    return ExtendedShape(id=hold.id, until=hold.until)


@router.post("/{experiment_id}/release")
def release(desk: AtDesk, who: Who, experiment_id: Name, asked: ReleaseRequest) -> ExperimentShape:
    """Let everybody see and read it, now or from a time on."""
    return ExperimentShape.model_validate(
        experiments.release(desk.facility, experiment_id, principal=who, at=asked.at)
    )


@router.post("/{experiment_id}/withdraw-release")
def withdraw_release(desk: AtDesk, who: Who, experiment_id: Name) -> ExperimentShape:
    """Show it only to those with a role on it again."""
    return ExperimentShape.model_validate(
        experiments.withdraw_release(desk.facility, experiment_id, principal=who)
    )


@router.post("/{experiment_id}/sync")
def sync(desk: AtDesk, who: Who, experiment_id: Name, asked: SyncRequest) -> list[SyncedShape]:
    """Bring it and its people up to date with its proposal."""
    done = proposals.from_source(desk.facility, principal=who, experiment_id=experiment_id, dry_run=asked.dry_run)
    return [SyncedShape.model_validate(each) for each in done]


@router.get("/{experiment_id}/report")
def report(desk: AtDesk, who: Who, experiment_id: Name) -> ReportShape:
    """What it has where, until when and why, and who may do what."""
    return ReportShape.model_validate(retain.report(desk.facility, experiment_id, principal=who))
