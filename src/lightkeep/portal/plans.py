"""Purge plans: what would go and why, who must agree, and the way back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query
from fastapi.responses import RedirectResponse, Response

from lightkeep.catalog.plans import PlanPart
from lightkeep.lifecycle.health import guards
from lightkeep.lifecycle.retention import plan_approval, purge, purge_destroy, purge_plan
from lightkeep.lifecycle.retention.explain import explain
from lightkeep.model.errors import Conflict, InvalidInput, LightkeepError, NotFound
from lightkeep.model.people import SERVICE, Verb
from lightkeep.model.retention import ItemState, Notice, PlanReason, PlanState, PurgeItem, PurgePlan
from lightkeep.portal import words
from lightkeep.portal.page import PAGE_SIZE, Here, Name, Number, Visit, pages

router = APIRouter()
_FILES = 200
Word = Annotated[str, Form(max_length=200)]
Said = Annotated[str, Form(max_length=2000)]


# ---- the list


@router.get("/storage/plans")
def plans(here: Here, page: Number = 1) -> Response:
    """Every plan, newest first, and whether purges may run at all."""
    return _list(here, page=page)


@router.post("/storage/plans")
def make(here: Here, store: Word = "", reason: Word = PlanReason.EXPIRY.value) -> Response:
    """Freeze a list of what may go from a store. Nothing is deleted."""
    if reason not in list(PlanReason):
        raise InvalidInput(f"{reason!r} is no reason for a purge", remedy="expiry, pressure or emergency")
    try:
        made = purge_plan.plan(here.facility, store, principal=here.principal, reason=PlanReason(reason))
    except Conflict as error:
        return _list(here, problem=error)
    return _to(made.id)


@router.post("/storage/purges")
def switch(here: Here, on: Word = "", why: Said = "") -> Response:
    """Switch purges off for the whole facility, or on again."""
    guards.switch(here.facility, on=on == "yes", principal=here.principal, why=why)
    return RedirectResponse("/storage/plans", 303)


@router.post("/storage/clock")
def confirm_clock(here: Here) -> Response:
    """Say that the machine's clock is right, after a look at it."""
    guards.confirm_clock(here.facility, principal=here.principal)
    return RedirectResponse("/storage/plans", 303)


def _list(here: Visit, *, page: int = 1, problem: LightkeepError | None = None) -> Response:
    _must_review(here)
    found = here.view.plans(limit=PAGE_SIZE, offset=(page - 1) * PAGE_SIZE)
    status = guards.status(here.facility)
    may_manage = bool(here.view.can(Verb.MANAGE))
    stores = [each for each in here.view.stores() if each.is_managed]
    return here.render(
        "storage.html",
        status=409 if problem else 200,
        tab="plans",
        answer=_waiting(here, status),
        hue="waiting" if status.reasons else "good",
        is_staff=True,
        may_forecast=bool(here.view.can(Verb.READ)),
        doubts=(),
        purges=status,
        can_switch=here.facility.config.purge.enabled,
        plans=found,
        turner=pages(found.total, page, keep={}),
        stores=stores,
        trash=[(each.id, here.view.trash_of(each.id)) for each in stores] if may_manage else [],
        may_manage=may_manage,
        problem=problem,
    )


def _waiting(here: Visit, status: guards.Status) -> str:
    if status.reasons:
        return "Purges are suspended: nothing is deleted, whatever was approved."
    counts = {state: here.view.plans(state=state, limit=1).total for state in PlanState}
    waits = counts[PlanState.FROZEN]
    ready = counts[PlanState.APPROVED] + counts[PlanState.RUNNING]
    if not waits and not ready:
        return "No plan waits for anybody."
    parts = []
    if waits:
        parts.append(f"{waits} {'plan waits' if waits == 1 else 'plans wait'} for approval")
    if ready:
        parts.append(f"{ready} may run")
    return ", ".join(parts) + "."


def _must_review(here: Visit) -> None:
    if not here.view.may_review():
        raise NotFound("there are no plans that you may see")


# ---- one plan


@dataclass
class Row:
    """A dataset on a plan."""

    experiment_id: str
    dataset_id: str
    name: str
    policy: str
    files: int = 0
    size: int = 0
    """Bytes."""
    packed: int = 0
    """How many of the files lie in archive units."""
    states: dict[str, int] = field(default_factory=dict)
    """State -> files."""
    notices: list[Notice] = field(default_factory=list)

    @property
    def due_at(self) -> datetime | None:
        """Since when its files may go, as people were told."""
        return min((each.expires_at for each in self.notices), default=None)


@dataclass(frozen=True)
class Amount:
    """Some files of a plan."""

    files: int = 0
    size: int = 0
    """Bytes."""

    @property
    def read(self) -> str:
        """What a form sends back of what its reader was told."""
        return f"{self.files} files, {self.size} bytes"


@router.get("/storage/plans/{plan_id}")
def plan(here: Here, plan_id: Name) -> Response:
    """What would go, by whose rule, what must be done next, and the way back."""
    return _page(here, plan_id)


@router.get("/storage/plans/{plan_id}/datasets/{dataset_id}")
def part(here: Here, plan_id: Name, dataset_id: Name, after: Annotated[int, Query(ge=-1)] = -1) -> Response:
    """Why a dataset is on a plan: each condition with its evidence, and its files."""
    made = here.view.plan(plan_id)
    dataset = here.view.dataset(dataset_id)
    items = here.view.plan_items(plan_id, dataset_id=dataset_id, after=after, limit=_FILES + 1)
    if not items:
        raise NotFound(f"plan {plan_id} names nothing more of dataset {dataset_id}")
    found = explain(here.facility, dataset_id, principal=here.principal)
    decided = next((each for each in items if "conditions" in each.evidence), None)
    return here.render(
        "plan_part.html",
        plan=made,
        dataset=dataset,
        items=items[:_FILES],
        next_after=items[_FILES - 1].position if len(items) > _FILES else None,
        place=next((each for each in found.places if each.store_id == made.store_id), None),
        decided=decided,
        conditions=_conditions(decided) if decided else [],
    )


def _conditions(item: PurgeItem) -> list[tuple[str, Any]]:
    """Return what was decided on, in the order of the conditions' numbers."""
    return sorted(item.evidence["conditions"].items(), key=lambda each: int(each[0][1:]))


@router.post("/storage/plans/{plan_id}/approve")
def approve(here: Here, plan_id: Name) -> Response:
    """Approve a plan after looking at it."""
    return _done(here, plan_id, lambda: purge_plan.approve(here.facility, plan_id, principal=here.principal))


@router.post("/storage/plans/{plan_id}/cancel")
def cancel(here: Here, plan_id: Name) -> Response:
    """Give a plan up before it runs."""
    return _done(here, plan_id, lambda: purge_plan.cancel(here.facility, plan_id, principal=here.principal))


@router.post("/storage/plans/{plan_id}/run")
def run(here: Here, plan_id: Name, read: Word = "") -> Response:
    """Move what an approved plan names to the trash; an emergency's trash is emptied at once."""
    made = here.view.plan(plan_id)
    if made.reason is PlanReason.EMERGENCY:
        _must_have_read(read, Amount(made.files, made.size))
    return _done(here, plan_id, lambda: purge.run(here.facility, plan_id, principal=here.principal))


@router.post("/storage/plans/{plan_id}/undo")
def undo(here: Here, plan_id: Name) -> Response:
    """Give everything of a plan that is in the trash its place back."""
    return _done(here, plan_id, lambda: purge.undo(here.facility, plan_id, principal=here.principal))


@router.post("/storage/plans/{plan_id}/destroy")
def destroy(here: Here, plan_id: Name, read: Word = "") -> Response:
    """Remove for good what is due. The one button without a way back."""
    _must_have_read(read, _amount(_due(here.view.plan_parts(plan_id), here.view.plan(plan_id))))
    return _done(
        here, plan_id, lambda: purge_destroy.destroy(here.facility, principal=here.principal, plan_id=plan_id)
    )


def _must_have_read(read: str, amount: Amount) -> None:
    """Refuse what has no way back unless the form says just what goes now: more may be due than was read."""
    if read != amount.read:
        raise InvalidInput(
            f"{amount.read} would be removed for good, and that is not what was read",
            remedy="open the plan again, read what is removed, and tick that you have",
        )


def _done(here: Visit, plan_id: str, act: Any) -> Response:
    here.view.plan(plan_id)
    try:
        act()
    except Conflict as error:
        return _page(here, plan_id, problem=error)
    return _to(plan_id)


def _to(plan_id: str) -> Response:
    return RedirectResponse(f"/storage/plans/{plan_id}", 303)


def _page(here: Visit, plan_id: str, *, problem: LightkeepError | None = None) -> Response:
    made = here.view.plan(plan_id)
    parts = here.view.plan_parts(plan_id)
    counts = {ItemState(key): Amount(*value) for key, value in here.view.item_counts(plan_id).items()}
    rows = _rows(here, parts)
    lacking = purge_plan.lacking(here.facility, made, made.approvals) if made.state is PlanState.FROZEN else ""
    by_policy = plan_approval.decide(here.facility, made) if made.state is PlanState.FROZEN else None
    due = _due(parts, made)
    status = guards.status(here.facility)
    return here.render(
        "plan.html",
        status=409 if problem else 200,
        plan=made,
        rows=rows,
        counts=counts,
        next=_next(made, counts, lacking),
        by_policy=by_policy.reason if by_policy is not None else "",
        due=_amount(due),
        all_names=list(dict.fromkeys((row.name, row.experiment_id) for row in rows)),
        due_names=list(dict.fromkeys((each.name, each.experiment_id) for each in due)),
        until=min((each.destroy_after for each in parts if each.state is ItemState.TRASHED), default=None),
        copies=_elsewhere(here, made, rows),
        doubts=status.reasons,
        problem=problem,
        **_rights(here, made, counts),
    )


def _rights(here: Visit, made: PurgePlan, counts: dict[ItemState, Amount]) -> dict[str, bool]:
    may_manage, may_destroy = bool(here.view.can(Verb.MANAGE)), bool(here.view.can(Verb.DESTROY))
    is_live = made.state in (PlanState.FROZEN, PlanState.APPROVED) and here.facility.clock.now() < made.expires_at
    is_approved = made.state is PlanState.APPROVED
    is_mine = made.state is PlanState.FROZEN and (may_manage or _manages_all(here, made.id))
    has_trash = ItemState.TRASHED in counts
    return {
        "may_approve": is_live and is_mine and here.principal.id not in made.approvals,
        "may_cancel": is_live and may_manage,
        "may_run": may_destroy and (made.state is PlanState.RUNNING or (is_live and is_approved)),
        "may_undo": has_trash and _may_write_some(here, made.id),
        "may_destroy": has_trash and may_destroy,
    }


def _experiments(here: Visit, plan_id: str) -> list[str]:
    found: list[str] = here.facility.catalog.view(SERVICE).plan_experiments(plan_id)
    return found


def _manages_all(here: Visit, plan_id: str) -> bool:
    return all(here.view.can(Verb.MANAGE, experiment_id=each) for each in _experiments(here, plan_id))


def _may_write_some(here: Visit, plan_id: str) -> bool:
    return any(here.view.can(Verb.WRITE, experiment_id=each) for each in _experiments(here, plan_id))


def _rows(here: Visit, parts: Iterable[PlanPart]) -> list[Row]:
    rows: dict[tuple[str, str], Row] = {}
    notices: dict[str, Notice] = {}
    for each in parts:
        key = (each.dataset_id, each.policy)
        row = rows.setdefault(key, Row(each.experiment_id, each.dataset_id, each.name, each.policy))
        row.files += each.files
        row.size += each.size
        row.packed += each.packed
        row.states[each.state] = row.states.get(each.state, 0) + each.files
        if each.notice_id:
            if each.notice_id not in notices:
                notices[each.notice_id] = here.view.notice(each.notice_id)
            row.notices.append(notices[each.notice_id])
    return list(rows.values())


def _due(parts: Iterable[PlanPart], made: PurgePlan) -> list[PlanPart]:
    """Return what the second pass would remove for good now."""
    is_emergency = made.reason is PlanReason.EMERGENCY
    return [each for each in parts if each.is_due or (is_emergency and each.state is ItemState.TRASHED)]


def _amount(parts: Sequence[PlanPart]) -> Amount:
    return Amount(sum(each.files for each in parts), sum(each.size for each in parts))


def _elsewhere(here: Visit, made: PurgePlan, rows: Sequence[Row]) -> list[str]:
    """Return the stores on which whole verified copies of all that the plan names stay; empty: on none."""
    stores: set[str] | None = None
    for dataset_id in {row.dataset_id for row in rows}:
        for lying in here.view.lying(dataset_id=dataset_id):
            whole = {
                share.store_id
                for share in lying.shares
                if share.store_id != made.store_id and share.verified >= lying.files
            }
            stores = whole if stores is None else stores & whole
    return sorted(stores or ())


def _next(made: PurgePlan, counts: dict[ItemState, Amount], lacking: str) -> tuple[str, str]:
    """Return what must happen next in one sentence, and its hue."""
    gone, trash = counts.get(ItemState.DESTROYED), counts.get(ItemState.TRASHED)
    if made.state is PlanState.FROZEN:
        return f"Nothing is deleted yet: {lacking or 'one more person must approve it'}.", "waiting"
    if made.state is PlanState.APPROVED:
        return "It is approved and may run. What it names goes to the trash, and can be taken back.", "waiting"
    if made.state is PlanState.CANCELLED:
        return "It was given up. Nothing was deleted.", ""
    if made.state is PlanState.EXPIRED:
        return "It was not run within a day of being made. Nothing was deleted; make a new one.", ""
    if trash:
        left = counts.get(ItemState.PLANNED, Amount()).files
        more = f" {left} more wait: run it again." if left else ""
        return f"{_of(trash)} in the trash of {made.store_id}, and can be taken back.{more}", "waiting"
    if gone:
        return f"{_of(gone)} gone from {made.store_id} for good. Records, checksums and reasons stay.", ""
    if ItemState.UNDONE in counts:
        return "Everything is back in its place.", "good"
    return "It ran, and nothing had to go: what changed since it was made is said below.", "good"


def _of(amount: Amount) -> str:
    noun, verb = ("file", "is") if amount.files == 1 else ("files", "are")
    return f"{amount.files} {noun} ({' '.join(words.size_parts(amount.size))}) {verb}"
