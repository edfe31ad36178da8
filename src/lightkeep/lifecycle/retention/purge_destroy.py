"""Empty the trash: the second pass, after the window in which everything could be undone.

Every condition is asked once more, in the transaction that makes the intent durable. What must stay, because a
hold came or a copy went bad meanwhile, stays in the trash until it is undone or nothing stands against it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from lightkeep.lifecycle.retention.purge_plan import must_not_be_suspended
from lightkeep.lifecycle.retention.purge_session import Piece, Purged, Session, all_items, evidence_of, pieces
from lightkeep.lifecycle.retention.purger import purger
from lightkeep.model.errors import Conflict, LightkeepError, NotFound
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.retention import ItemState, PlanReason, PurgeItem
from lightkeep.model.stores import split_member
from lightkeep.policy.case import Step

if TYPE_CHECKING:
    from lightkeep.facility import Facility

DESTROYING: Final = "destroying"
"""What the evidence of an item holds from the moment on when its bytes may be gone."""


def destroy(facility: Facility, *, principal: Principal, plan_id: str = "") -> list[Purged]:
    """Remove for good what was long enough in the trash; return what was done, plan by plan.

    Parameters
    ----------
    plan_id: only this plan; all when empty.

    Raises
    ------
    Forbidden: the principal may not destroy on the facility. Conflict: purges are suspended.
    """
    facility.catalog.view(principal).require(Verb.DESTROY)
    must_not_be_suspended(facility)
    now = facility.clock.now()
    done: list[Purged] = []
    for each in [plan_id] if plan_id else facility.catalog.view(SERVICE).plans_in_trash(until=now):
        try:
            done.append(_plan(facility, each, principal, now))
        except LightkeepError as error:
            if plan_id:
                raise
            done.append(Purged(each, why_left=error.message))
    return done


def _plan(facility: Facility, plan_id: str, principal: Principal, now: datetime) -> Purged:
    plan = facility.catalog.view(SERVICE).plan(plan_id)
    with purger(facility, plan.store_id, principal=principal) as fence:
        session = Session(facility, plan, fence, principal)
        present = {each.key for each in session.store.trashed(plan_id)}
        done = Purged(plan_id)
        is_emergency = plan.reason is PlanReason.EMERGENCY
        for piece in pieces(_due(facility, plan_id, now, is_emergency=is_emergency)):
            why = _one(session, piece, is_there=piece[0].trash_key in present)
            if why:
                done = replace(done, left=done.left + len(piece), why_left=why)
            else:
                size = sum(item.size for item in piece)
                done = replace(done, items=done.items + len(piece), size=done.size + size)
    return done


def _due(facility: Facility, plan_id: str, now: datetime, *, is_emergency: bool) -> Iterator[PurgeItem]:
    for item in all_items(facility, plan_id, ItemState.TRASHED):
        if is_emergency or (item.destroy_after is not None and item.destroy_after <= now):
            yield item


def _one(session: Session, piece: Piece, *, is_there: bool) -> str:
    """Destroy one object; return why it stays, or nothing."""
    if not is_there:
        return _absent(session, piece)
    with session.facility.catalog.change(session.principal) as tx:
        verdicts = session.decide(tx, piece, Step.DESTROY)
        if not all(verdicts):
            return next(each.reason for each in verdicts if not each)
        asked = evidence_of(piece, verdicts)
        tx.note_items(piece, {name: {**why, DESTROYING: True} for name, why in asked.items()}, DESTROYING)
    session.store.check_identity()
    session.store.destroy(piece[0].trash_key)
    _end(session, piece)
    return ""


def _absent(session: Session, piece: Piece) -> str:
    """Bring an item to its end whose bytes are not in the trash: a crash came between them and the catalogue."""
    unit = split_member(piece[0].key)
    try:
        found = session.store.stat(unit[0] if unit else piece[0].key)
        is_back = unit is not None or found.size == piece[0].size
    except NotFound:
        is_back = False
    with session.facility.catalog.change(session.principal) as tx:
        session.fence.check(tx)
        if is_back and not any(tx.twins(item) for item in piece):
            tx.move_items(piece, ItemState.UNDONE)  # an undo that did not get to its end
            return f"{piece[0].key} was undone"
    if all(item.evidence.get(DESTROYING) for item in piece):
        _end(session, piece)
        return ""
    return f"{piece[0].key} is not in the trash any more: run `lightkeep doctor`"


def _end(session: Session, piece: Piece) -> None:
    with session.facility.catalog.change(session.principal) as tx:
        tx.move_items(piece, ItemState.DESTROYED)


def gone(facility: Facility, dataset_id: str, path: str) -> Conflict | None:
    """Return what to answer for a file of which no copy is left to read; None when one is.

    Never says more than that the file was deleted, when, under which policy, and how it comes back.
    """
    service = facility.catalog.view(SERVICE)
    file = service.file(dataset_id, path)
    stones = [each for each in service.tombstones_of(file.id) if each.state is not ItemState.PENDING]
    if not stones:
        return None
    stone = stones[0]
    where = f"store {stone.store_id}"
    if stone.state is ItemState.TRASHED:
        until = f" until {stone.destroy_after:%Y-%m-%d}" if stone.destroy_after else ""
        return Conflict(
            f"{path} was taken from {where} on {stone.trashed_at:%Y-%m-%d} under policy {stone.policy}",
            remedy=f"it can come back{until}: lightkeep purge undo {stone.plan_id}",
            gone=True,
        )
    return Conflict(
        f"{path} was deleted from {where} on {stone.ended_at:%Y-%m-%d} under policy {stone.policy}",
        remedy="its record, its checksum and the reasons stay: lightkeep explain",
        gone=True,
    )
