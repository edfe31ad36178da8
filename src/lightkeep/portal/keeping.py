"""Where something is, until when and why; holding it, and asking for more time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Form
from fastapi.responses import RedirectResponse, Response

from lightkeep.lifecycle import experiments, holds
from lightkeep.lifecycle.explain import Explanation, explain
from lightkeep.model.errors import InvalidInput
from lightkeep.model.people import Verb
from lightkeep.model.retention import HoldKind, HoldScope
from lightkeep.portal.page import Here, Name, Visit

router = APIRouter()
MORE = timedelta(days=90)
"""What one press of "Extend" asks for."""
Reason = Annotated[str, Form(max_length=2000)]
Day = Annotated[str, Form(max_length=10)]


@router.post("/datasets/{dataset_id}/hold")
def hold_dataset(here: Here, dataset_id: Name, reason: Reason = "", until: Day = "") -> Response:
    """Hold a dataset until a day, or until somebody releases it."""
    holds.add(
        here.facility,
        HoldScope.DATASET,
        dataset_id,
        reason=reason,
        principal=here.principal,
        kind=HoldKind.EXTENSION if until else HoldKind.USER,
        until=_end_of(until),
    )
    return RedirectResponse(f"/datasets/{dataset_id}/safety", 303)


@router.post("/datasets/{dataset_id}/extend")
def extend_dataset(here: Here, dataset_id: Name) -> Response:
    """Keep a dataset 90 days more, in one press."""
    holds.add(
        here.facility,
        HoldScope.DATASET,
        dataset_id,
        reason="more time was asked for in the portal",
        principal=here.principal,
        kind=HoldKind.EXTENSION,
        until=here.facility.clock.now() + MORE,
    )
    return RedirectResponse(f"/datasets/{dataset_id}/safety", 303)


@router.post("/experiments/{experiment_id}/extend")
def extend_experiment(here: Here, experiment_id: Name) -> Response:
    """Keep everything of an experiment 90 days more, in one press."""
    until = here.facility.clock.now() + MORE
    reason = "more time was asked for in the portal"
    experiments.extend(here.facility, experiment_id, until=until, reason=reason, principal=here.principal)
    return RedirectResponse(f"/experiments/{experiment_id}/keeping", 303)


@router.post("/holds/{hold_id}/release")
def release(here: Here, hold_id: Name, back: Annotated[str, Form(max_length=300)] = "") -> Response:
    """End a hold; what it held is announced anew before anything of it goes."""
    holds.release(here.facility, hold_id, principal=here.principal)
    is_ours = back.startswith(("/datasets/", "/experiments/")) and "//" not in back and "\\" not in back
    return RedirectResponse(back if is_ours else "/", 303)


@router.get("/experiments/{experiment_id}/keeping")
def keeping(here: Here, experiment_id: Name) -> Response:
    """An experiment's life: its clock, its policy, what was announced, and what holds it."""
    found = here.view.experiment(experiment_id)
    return here.render(
        "experiment.html",
        experiment=found,
        tab="keeping",
        holds=here.view.holds(scope=HoldScope.EXPERIMENT, scope_id=experiment_id).items,
        notices=here.view.notices(experiment_id=experiment_id, limit=20).items,
        may_extend=bool(here.view.can(Verb.WRITE, experiment_id=experiment_id)),
        more=MORE.days,
    )


def context(here: Visit, dataset_id: str) -> dict[str, Any]:
    """Return what the Safety tab shows of a dataset."""
    found = explain(here.facility, dataset_id, principal=here.principal)
    experiment_id = found.experiment_id
    may = here.view.can(Verb.WRITE, experiment_id=experiment_id)
    return {
        "keeping": found,
        "until": _until(found),
        "holds": here.view.holds_over(dataset_id),
        "may_extend": bool(may),
        "more": MORE.days,
    }


def _until(found: Explanation) -> dict[str, datetime | None]:
    """Return store -> the earliest day on which something of the dataset may leave it."""
    return {
        place.store_id: min((a.stays_until for a in place.answers if a.stays_until), default=None)
        for place in found.places
    }


def _end_of(day: str) -> datetime | None:
    """Return the end of a day that was typed, in UTC; None when nothing was."""
    if not day:
        return None
    try:
        return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
    except ValueError as error:
        raise InvalidInput(f"{day!r} is not a day", remedy="write it as 2027-01-31") from error
