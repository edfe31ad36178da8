"""Holds, notices and purges."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from lightkeep.http.desk import AtDesk, Desk, Limit, Name, Offset, Seen, Who, Word
from lightkeep.http.purge_shapes import (
    ExtensionShape,
    HoldRequest,
    HoldShape,
    ItemShape,
    NoticeShape,
    PlanRequest,
    PlanShape,
    PurgedShape,
    PurgeStatusShape,
)
from lightkeep.http.shapes import PageOf
from lightkeep.lifecycle.health import guards
from lightkeep.lifecycle.retention import holds, notices, plan_approval, purge, purge_plan
from lightkeep.model.people import Verb
from lightkeep.model.retention import ItemState, Notice, PlanState, PurgePlan

router = APIRouter(tags=["retention"])

Token = Annotated[str, Path(min_length=20, max_length=200, description="The secret in the mail's link.")]


@router.get("/holds")
def all_holds(view: Seen, standing: bool = True, limit: Limit = 50, offset: Offset = 0) -> PageOf[HoldShape]:
    """Holds on what one may see, newest first."""
    return PageOf[HoldShape].model_validate(view.holds(standing=standing, limit=limit, offset=offset))


@router.post("/holds", status_code=201)
def add_hold(desk: AtDesk, who: Who, asked: HoldRequest) -> HoldShape:
    """Hold a thing and everything under it."""
    made = holds.add(
        desk.facility,
        asked.scope,
        asked.scope_id,
        reason=asked.reason,
        principal=who,
        kind=asked.kind,
        until=asked.until,
    )
    return HoldShape.model_validate(made)


@router.post("/holds/{hold_id}/release")
def release_hold(desk: AtDesk, who: Who, hold_id: Name) -> HoldShape:
    """End a hold now."""
    return HoldShape.model_validate(holds.release(desk.facility, hold_id, principal=who))


@router.get("/notices")
def all_notices(
    view: Seen, experiment: Word = "", store: Word = "", limit: Limit = 50, offset: Offset = 0
) -> PageOf[NoticeShape]:
    """What people were told, newest first; the addresses stay inside."""
    page = view.notices(experiment_id=experiment, store_id=store, limit=limit, offset=offset)
    return PageOf[NoticeShape].model_validate(page)


@router.post("/notices/{notice_id}/acknowledge")
def acknowledge(desk: AtDesk, who: Who, notice_id: Name) -> NoticeShape:
    """Say that the files of a notice may go."""
    return NoticeShape.model_validate(notices.acknowledge(desk.facility, notice_id, principal=who))


@router.get("/extend/{token}")
def extension(desk: AtDesk, token: Token) -> ExtensionShape:
    """What the link of a mail is about; changes nothing."""
    return _extension(desk, notices.by_token(desk.facility, token))


@router.post("/extend/{token}")
def extend(desk: AtDesk, token: Token) -> ExtensionShape:
    """Keep everything of the experiment longer. Again: no change."""
    notices.extend_by_token(desk.facility, token)
    return _extension(desk, notices.by_token(desk.facility, token))


def _extension(desk: Desk, notice: Notice) -> ExtensionShape:
    return ExtensionShape(
        experiment_id=notice.experiment_id,
        store_id=notice.store_id,
        files=notice.files,
        size=notice.size,
        expires_at=notice.expires_at,
        state=notice.state,
        policy=notice.policy,
        days=notices.MORE.days,
        kept_until=notices.extended_until(desk.facility, notice),
    )


@router.get("/purge")
def status(desk: AtDesk, view: Seen) -> PurgeStatusShape:
    """Whether purges may run now, for who manages the facility."""
    view.require(Verb.MANAGE)
    return PurgeStatusShape.model_validate(guards.status(desk.facility))


@router.get("/purge/plans")
def plans(
    view: Seen, store: Word = "", state: PlanState | None = None, limit: Limit = 50, offset: Offset = 0
) -> PageOf[PlanShape]:
    """Plans, newest first, for managers; others see none."""
    return PageOf[PlanShape].model_validate(view.plans(store_id=store, state=state, limit=limit, offset=offset))


@router.post("/purge/plans", status_code=201)
def make_plan(desk: AtDesk, who: Who, asked: PlanRequest) -> PlanShape:
    """Freeze a list of what may go from a store. Nothing is deleted."""
    made = purge_plan.plan(
        desk.facility, asked.store, principal=who, reason=asked.reason, experiments=asked.experiments
    )
    return _plan(desk, made)


@router.get("/purge/plans/{plan_id}")
def plan(desk: AtDesk, view: Seen, plan_id: Name) -> PlanShape:
    """One plan."""
    return _plan(desk, view.plan(plan_id))


@router.get("/purge/plans/{plan_id}/items")
def items(
    view: Seen,
    plan_id: Name,
    state: ItemState | None = None,
    after: Annotated[int, Query(ge=-1, le=1_000_000_000, description="Position of the last item seen.")] = -1,
    limit: Limit = 100,
) -> list[ItemShape]:
    """What is on a plan, in order, and what became of it."""
    view.plan(plan_id)
    found = view.plan_items(plan_id, state=state, after=after, limit=limit)
    return [ItemShape.model_validate(each) for each in found]


@router.post("/purge/plans/{plan_id}/approve")
def approve(desk: AtDesk, who: Who, plan_id: Name) -> PlanShape:
    """Approve a plan after looking at it."""
    return _plan(desk, purge_plan.approve(desk.facility, plan_id, principal=who))


@router.post("/purge/plans/{plan_id}/cancel")
def cancel(desk: AtDesk, who: Who, plan_id: Name) -> PlanShape:
    """Give a plan up before it runs."""
    return _plan(desk, purge_plan.cancel(desk.facility, plan_id, principal=who))


@router.post("/purge/plans/{plan_id}/run")
def run(desk: AtDesk, who: Who, plan_id: Name) -> PurgedShape:
    """Move what an approved plan names to the trash; answers when it is done. Again: goes on."""
    return PurgedShape.model_validate(purge.run(desk.facility, plan_id, principal=who))


@router.post("/purge/plans/{plan_id}/undo")
def undo(desk: AtDesk, who: Who, plan_id: Name) -> PurgedShape:
    """Give what a plan put into the trash its place back, as far as one may."""
    return PurgedShape.model_validate(purge.undo(desk.facility, plan_id, principal=who))


def _plan(desk: Desk, made: PurgePlan) -> PlanShape:
    if made.state is not PlanState.FROZEN:
        return PlanShape.model_validate(made)
    said = {
        "waiting_for": purge_plan.lacking(desk.facility, made, made.approvals),
        "by_policy": plan_approval.decide(desk.facility, made).reason,
    }
    return PlanShape.model_validate(made).model_copy(update=said)
