"""Where something is, until when and why; holding it, and asking for more time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Form
from fastapi.responses import RedirectResponse, Response
from markupsafe import Markup

from lightkeep.lifecycle.people import experiments
from lightkeep.lifecycle.replicas import asked_copies, restore
from lightkeep.lifecycle.retention import holds, purge, retain
from lightkeep.lifecycle.retention.explain import Explanation, explain
from lightkeep.model.datasets import Dataset, DatasetState
from lightkeep.model.errors import Conflict, InvalidInput
from lightkeep.model.people import SERVICE, Verb
from lightkeep.model.retention import HoldKind, HoldScope, ItemState, PurgeItem, Restore, RestoreState
from lightkeep.model.stores import Tier
from lightkeep.portal import words
from lightkeep.portal.page import Here, Name, Visit

router = APIRouter()
MORE = timedelta(days=90)
"""What one press of "Extend" asks for."""
_FEW = 500
"""Files that are decided one by one, 80 us each, to say it at a glance; the Safety tab looks at more."""
_NEAR = (Tier.HOT, Tier.WARM)
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


@router.post("/datasets/{dataset_id}/restore")
def restore_dataset(here: Here, dataset_id: Name) -> Response:
    """Ask for an archived dataset to be near again; its page then says how far it is."""
    restore.request(here.facility, principal=here.principal, dataset_id=dataset_id)
    return RedirectResponse(f"/datasets/{dataset_id}", 303)


@router.post("/datasets/{dataset_id}/copy")
def copy_dataset(
    here: Here,
    dataset_id: Name,
    store: Annotated[str, Form(max_length=200)] = "",
    units: Annotated[bool, Form()] = False,
) -> Response:
    """Ask for a copy on another store, file by file or as archive units; the next upkeep makes it."""
    asked_copies.ask(
        here.facility, principal=here.principal, dataset_id=dataset_id, store_id=store, as_units=units
    )
    return RedirectResponse(f"/datasets/{dataset_id}/safety", 303)


@router.post("/datasets/{dataset_id}/undo")
def undo_dataset(here: Here, dataset_id: Name) -> Response:
    """Give what is in the trash of a dataset its place back."""
    here.view.require(Verb.WRITE, dataset_id=dataset_id)
    by_plan: dict[str, list[str]] = {}
    for stone in _trashed(here, dataset_id):
        by_plan.setdefault(stone.plan_id, []).append(stone.replica_id)
    if not by_plan:
        raise Conflict("nothing of it is in the trash", remedy="its Safety tab says where it is")
    left = [
        done.why_left
        for plan_id, replicas in by_plan.items()
        if (done := purge.undo(here.facility, plan_id, principal=here.principal, replica_ids=replicas)).left
    ]
    if left:
        raise Conflict(f"not everything came back: {left[0]}", remedy="ask the facility's staff")
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
    is_team = bool(here.view.mine([experiment_id]))
    report = retain.report(here.facility, experiment_id, principal=here.principal) if is_team else None
    return here.render(
        "experiment.html",
        experiment=found,
        tab="keeping",
        is_team=is_team,
        places=report.places if report else (),
        holds=here.view.holds(scope=HoldScope.EXPERIMENT, scope_id=experiment_id).items if is_team else [],
        notices=here.view.notices(experiment_id=experiment_id, limit=20).items if is_team else [],
        may_extend=bool(here.view.can(Verb.WRITE, experiment_id=experiment_id)),
        more=MORE.days,
    )


def context(here: Visit, dataset_id: str) -> dict[str, Any]:
    """Return what the Safety tab shows of a dataset."""
    found = explain(here.facility, dataset_id, principal=here.principal)
    experiment_id = found.experiment_id
    may = here.view.can(Verb.WRITE, experiment_id=experiment_id)
    is_manager = here.view.can(Verb.MANAGE, experiment_id=experiment_id)
    waiting = asked_copies.waiting(here.facility, principal=here.principal) if is_manager else []
    stores = here.facility.catalog.view(SERVICE).stores() if is_manager else []
    return {
        "keeping": found,
        "leaving": _leaving(found),
        "holds": here.view.holds_over(dataset_id) if here.view.mine([experiment_id]) else [],
        "may_extend": bool(may),
        "more": MORE.days,
        "waiting": [
            each for each in waiting if each.experiment_id == experiment_id and each.dataset_id in ("", dataset_id)
        ],
        "targets": [each.id for each in stores if each.is_managed],
    }


def leaving(here: Visit, dataset: Dataset) -> Markup:
    """Return from when on something of it may leave a store, in one sentence; empty where that costs too much."""
    if dataset.files > _FEW:
        return Markup("")
    return _leaving(explain(here.facility, dataset.id, principal=here.principal))


@dataclass(frozen=True)
class Far:
    """A dataset that cannot be opened now, because no whole copy of it is near."""

    text: str
    """Where it is, in one sentence."""
    restore: Restore | None = None
    """Its way back, when somebody asked for it."""
    may_restore: bool = False
    may_undo: bool = False


def far(here: Visit, dataset: Dataset) -> Far | None:
    """Return where a complete dataset is when it is not near; None when it is, or is not complete."""
    if dataset.state is not DatasetState.COMPLETE or not dataset.files:
        return None
    tiers = {each.id: each.tier for each in here.facility.catalog.view(SERVICE).stores()}
    shares = [share for lying in here.view.lying(dataset_id=dataset.id) for share in lying.shares]
    if any(tiers[each.store_id] in _NEAR and each.files >= dataset.files for each in shares):
        return None
    archived = [each.store_id for each in shares if tiers[each.store_id] not in _NEAR and each.files]
    trashed = [each.store_id for each in shares if each.trashed]
    asked = here.view.restores(dataset_id=dataset.id, states=[RestoreState.QUEUED, RestoreState.RUNNING]).items
    may_read = not here.principal.is_anonymous and here.view.can(Verb.READ, dataset_id=dataset.id)
    return Far(
        _whereabouts(archived, trashed),
        asked[0] if asked else None,
        bool(archived and may_read and not asked),
        bool(trashed and here.view.can(Verb.WRITE, dataset_id=dataset.id)),
    )


def _whereabouts(archived: Sequence[str], trashed: Sequence[str]) -> str:
    if archived and trashed:
        return f"It is in the archive, on {words.listed(archived)}; what was near is in the trash."
    if archived:
        return f"It is in the archive, on {words.listed(archived)}."
    if trashed:
        return f"It is in the trash of {words.listed(trashed)}."
    return "No whole copy of it is near."


def _trashed(here: Visit, dataset_id: str) -> Iterator[PurgeItem]:
    offset = 0
    while page := here.view.tombstones(dataset_id, offset=offset):
        yield from (each for each in page if each.state is ItemState.TRASHED)
        offset += len(page)


def _leaving(found: Explanation) -> Markup:
    """Return from when on something of a dataset may leave a store, in one sentence; empty for who is not told."""
    answers = [(place.store_id, answer) for place in found.places for answer in place.answers]
    dated = [(answer.stays_until, store_id) for store_id, answer in answers if answer.stays_until]
    if not answers:
        return Markup("")
    if not dated:
        return Markup("Nothing lets any of it go.")
    at, store_id = min(dated)
    if at <= found.at:
        return Markup("It may leave {} as soon as a plan for it is approved.").format(store_id)
    return Markup("Nothing of it leaves {} before {}.").format(store_id, words.day(at))


def _end_of(day: str) -> datetime | None:
    """Return the end of a day that was typed, in UTC; None when nothing was."""
    if not day:
        return None
    try:
        return datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
    except ValueError as error:
        raise InvalidInput(f"{day!r} is not a day", remedy="write it as 2027-01-31") from error
