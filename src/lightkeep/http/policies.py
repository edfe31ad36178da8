"""Retention policies, what they would do, and why a dataset is still here."""

from __future__ import annotations

from datetime import datetime, timedelta

from fastapi import APIRouter
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from lightkeep.http.desk import AtDesk, Limit, Name, Offset, Seen, Text, Who, Word
from lightkeep.http.shapes import Facts, PageOf, Shape, Shown
from lightkeep.lifecycle.retention import explain as explaining
from lightkeep.lifecycle.retention import policies
from lightkeep.model.errors import SignInRequired

router = APIRouter(tags=["retention"])


class PolicyShape(Shape):
    """One version of a policy."""

    id: Shown
    version: int
    stamp: Shown
    text: Shown
    author: Shown
    created_at: datetime | None


class PolicyRequest(BaseModel):
    """The text of a policy."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=200_000, description="A TOML document.")


class CheckedShape(BaseModel):
    """What there is to look at before a policy is adopted."""

    policy: Shown
    findings: list[Shown]


class SimulateRequest(BaseModel):
    """A day, and a policy that is not adopted yet."""

    model_config = ConfigDict(extra="forbid")

    at: AwareDatetime | None = Field(None, description="The day; tomorrow when it is left out.")
    text: str = Field("", max_length=200_000, description="In place of what was adopted.")


class EffectShape(Shape):
    """What becomes of the data of one experiment on one store."""

    store_id: Shown
    experiment_id: Shown
    policy: Shown
    rule: Shown
    files: int
    size: int
    goes: int
    under_pressure: int
    held: int
    lacks_copies: int
    last_copies: int


class SimulatedShape(BaseModel):
    """Bytes that would go by a day."""

    at: datetime
    stores: dict[str, dict[str, int]]
    effects: list[EffectShape]


class ConditionShape(Shape):
    """One of P1 to P17."""

    id: str
    name: str
    met: bool
    text: Shown
    evidence: Facts
    turns_true_at: datetime | None


class AnswerShape(Shape):
    """What holds for some files on a store."""

    files: int
    size: int
    text: Shown
    stays_until: datetime | None
    policy: Shown
    rule: Shown
    example: Shown
    conditions: list[ConditionShape]


class PlaceShape(Shape):
    """What of a dataset lies on one store."""

    store_id: Shown
    tier: str
    is_managed: bool
    is_durable: bool
    failure_domain: Shown
    files: int
    size: int
    verified: int
    verified_at: datetime | None
    trashed: int
    deleted: int
    destroy_after: datetime | None
    is_sampled: bool
    answers: list[AnswerShape]


class ExplanationShape(Shape):
    """Where a dataset is, until when, and why."""

    dataset_id: Shown
    name: Shown
    experiment_id: Shown
    at: datetime
    policy: Shown
    rule: Shown
    clock_at: datetime | None
    text: Shown
    places: list[PlaceShape]


@router.get("/policies")
def versions(view: Seen, policy: Word = "", limit: Limit = 50, offset: Offset = 0) -> PageOf[PolicyShape]:
    """Versions of the policies, the newest of each first; none for who is not signed in."""
    page = view.policy_versions(policy, limit=limit, offset=offset)
    return PageOf[PolicyShape].model_validate(page)


@router.post("/policies")
def adopt(desk: AtDesk, who: Who, asked: PolicyRequest) -> PolicyShape:
    """Adopt a text as the next version of the policy that it names. It decides from now on."""
    return PolicyShape.model_validate(policies.adopt(desk.facility, asked.text, principal=who))


@router.post("/policies/check")
def check(who: Who, asked: PolicyRequest) -> CheckedShape:
    """Read a policy and say what may not be meant. Nothing is adopted."""
    if who.is_anonymous:
        raise SignInRequired("only somebody signed in may check a policy", remedy="sign in")
    found = policies.check(asked.text)
    return CheckedShape(policy=found.policy.id, findings=list(found.findings))


@router.post("/policies/simulate")
def simulate(desk: AtDesk, who: Who, asked: SimulateRequest) -> SimulatedShape:
    """Bytes that would go from each store by a day, by experiment that one may see. Nothing is deleted."""
    given = [policies.check(asked.text).policy] if asked.text else None
    at = asked.at or desk.facility.clock.now() + timedelta(days=1)
    found = policies.simulate(desk.facility, at=at, principal=who, policies=given)
    effects = [EffectShape.model_validate(each) for each in found.effects]
    return SimulatedShape(at=found.at, stores=found.by_store(), effects=effects)


@router.get("/datasets/{dataset_id}/explain")
def explain(desk: AtDesk, who: Who, dataset_id: Name, path: Text = "") -> ExplanationShape:
    """Where a dataset is, until when, and why: each condition with its evidence and the date it turns true.

    Who has no role on a public experiment reads where it is, not what its team decided.
    """
    return ExplanationShape.model_validate(explaining.explain(desk.facility, dataset_id, principal=who, path=path))
