"""What the API answers: the nouns as JSON. Texts that are no UTF-8 are shown with `\\xNN`; ids are exact."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, computed_field

from lightkeep.http.problem import shown

T = TypeVar("T")

Shown = Annotated[str, BeforeValidator(shown)]


def json_safe(value: Any) -> Any:
    """Return JSON without NaN, infinity or odd text: they become null and `\\xNN`."""
    if isinstance(value, str):
        return shown(value)
    if isinstance(value, float) and not -1.8e308 < value < 1.8e308:
        return None
    if isinstance(value, Mapping):
        return {shown(str(key)): json_safe(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_safe(each) for each in value]
    return value


Facts = Annotated[dict[str, Any], BeforeValidator(json_safe)]


class Shape(BaseModel):
    """Made from a noun of the house by its attributes."""

    model_config = ConfigDict(from_attributes=True)


class PageOf(Shape, Generic[T]):
    """Some of the items, and how many there are in all."""

    items: list[T]
    total: int


class QuantityShape(Shape):
    """A number in the unit it was given in, and in SI."""

    value: Annotated[float | None, BeforeValidator(json_safe)]
    unit: Shown
    value_si: Annotated[float | None, BeforeValidator(json_safe)]
    unit_si: Shown


class MetadataShape(Shape):
    """What the format found in the main file."""

    quantities: dict[str, QuantityShape]
    texts: Facts
    rest: Facts


class StationShape(Shape):
    """An end station."""

    id: Shown
    name: Shown
    techniques: tuple[str, ...]


class ExperimentShape(Shape):
    """A group's beam time; the unit of access."""

    id: Shown
    station_id: Shown
    title: Shown
    state: str
    starts_at: datetime | None
    ends_at: datetime | None
    identifiers: Facts
    policy_id: Shown
    created_at: datetime | None
    closed_at: datetime | None
    released_at: datetime | None = Field(description="From then on public; later than now: an embargo.")
    datasets: int
    files: int
    size: int = Field(description="Bytes.")


class DatasetShape(Shape):
    """Files measured or computed together."""

    id: str
    experiment_id: Shown
    name: Shown
    kind: str
    technique: Shown
    state: str
    format: Shown
    main_file: Shown
    files: int
    size: int = Field(description="Bytes.")
    parents: tuple[str, ...]
    run_id: str
    metadata: MetadataShape
    created_at: datetime | None
    completed_at: datetime | None
    created_by: Shown


class FileShape(Shape):
    """One entry of a manifest."""

    id: str
    path: Shown
    size: int = Field(description="Bytes.")
    sha256: str
    mtime_ns: int
    version: int

    @computed_field(description="Whole seconds since 1970 of the source's last change.")  # type: ignore[prop-decorator]
    @property
    def mtime_s(self) -> int:
        """Seconds; nanoseconds do not fit a JavaScript number."""
        return self.mtime_ns // 1_000_000_000


class ReplicaShape(Shape):
    """A file's bytes on one store."""

    file_id: str
    store_id: Shown
    state: str
    verified_at: datetime | None
    proof: str


class StoreShape(Shape):
    """A place that keeps bytes."""

    id: Shown
    kind: Shown
    tier: str
    failure_domain: Shown
    is_managed: bool


class RunShape(Shape):
    """One execution of a technique."""

    id: str
    experiment_id: Shown
    dataset_id: str
    technique: Shown
    params: Facts
    resolved: Facts
    engine: Shown
    state: str
    progress: float
    message: Shown
    error: Shown
    result_id: str
    software: Shown
    created_by: Shown
    created_at: datetime | None
    started_at: datetime | None
    ended_at: datetime | None
    priority: int
    flow_id: str
    stage: Shown
    placement: Facts


class EstimateShape(Shape):
    """When a run would end at a place, in seconds from now."""

    place: str
    wait_s: float
    transfer_s: float
    compute_s: float
    total_s: float
    reason: Shown
    is_possible: bool


class LiveShape(Shape):
    """A run at this moment, with what its technique shows while it follows a measurement."""

    run_id: str
    state: str
    message: Shown
    result_id: str
    frames: int
    planned: int | None
    rate_hz: float
    latency_s: float
    at: str
    outputs: dict[str, Any] | None


class LogShape(Shape):
    """One thing that a task of a run said."""

    at: str
    task: str
    level: str
    message: Shown


class EventShape(Shape):
    """One link of the audit trail."""

    seq: int
    at: datetime
    actor: Shown
    verb: Shown
    subject: Shown
    experiment_id: Shown
    detail: Facts
    hash: str


class PersonShape(Shape):
    """Somebody with an account."""

    id: Shown
    name: Shown


class GrantShape(Shape):
    """A role on an experiment."""

    person_id: Shown
    role: str
    scope: str
    scope_id: Shown


class MeShape(Shape):
    """Who asks."""

    id: Shown
    name: Shown
    is_anonymous: bool


class TechniqueShape(Shape):
    """A technique, with the JSON Schema of its parameters."""

    name: str
    summary: str
    split: str | None
    results: list[str]
    params: dict[str, Any]
    outputs: dict[str, Any]


class FacetsShape(Shape):
    """How many datasets have each value of each facet."""

    facets: dict[str, list[tuple[str, int]]]


class RunRequest(BaseModel):
    """What to compute."""

    model_config = ConfigDict(extra="forbid")

    technique: str = Field(max_length=100)
    params: dict[str, Any] = Field(default_factory=dict, max_length=200)
    engine: str = Field("", max_length=100)


class RetryRequest(BaseModel):
    """What to change when a run is started again."""

    model_config = ConfigDict(extra="forbid")

    params: dict[str, Any] = Field(default_factory=dict, max_length=200, description="null: the default again.")


class SignInRequest(BaseModel):
    """User name and password."""

    model_config = ConfigDict(extra="forbid")

    user: str = Field(max_length=200)
    password: str = Field(max_length=1024)


class TokenRequest(BaseModel):
    """What a new API token is for."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field("script", max_length=100)
    days: int = Field(90, ge=1, le=3650)


class TokenShape(Shape):
    """A secret: shown once."""

    token: str
