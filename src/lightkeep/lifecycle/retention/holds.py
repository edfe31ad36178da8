"""Hold what must stay, and let it go again.

    extension     the principal investigator, and the station's staff: more time, with an end
    user, review, publication    the station's staff
    legal         facility administrators; only they release it

A hold on a whole station needs its staff; one on a store or on the facility an administrator.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from lightkeep.model.errors import InvalidInput
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.retention import Hold, HoldKind, HoldScope

if TYPE_CHECKING:
    from lightkeep.catalog import View
    from lightkeep.facility import Facility

_LONGEST: Final = 2000
"""Characters of a reason."""


def add(
    facility: Facility,
    scope: HoldScope,
    scope_id: str = "",
    *,
    reason: str,
    principal: Principal,
    kind: HoldKind = HoldKind.USER,
    until: datetime | None = None,
) -> Hold:
    """Hold a thing and everything under it; return the hold.

    What was announced about it is void: before anything of it goes, people are told anew.

    Parameters
    ----------
    scope_id: id of the station, store, experiment, dataset or file; empty for the facility.
    until: it ends by itself then; None: when it is released.

    Raises
    ------
    NotFound: the thing does not exist, or the principal may not see it. Forbidden: see the module.
    InvalidInput: there is no reason, an extension has no end, or the end has passed.
    """
    reason = " ".join(reason.split())
    if not reason or len(reason) > _LONGEST:
        raise InvalidInput(
            f"a hold needs a reason of 1 to {_LONGEST} characters", remedy="say in one sentence who needs it"
        )
    if kind is HoldKind.EXTENSION and until is None:
        raise InvalidInput("an extension needs an end", remedy="say until when")
    view = facility.catalog.view(principal)
    _require(view, scope, scope_id, kind)
    with facility.catalog.change(principal) as tx:
        return tx.add_hold(Hold(facility.ids.new("hold"), scope, scope_id, kind, reason, until))


def extend(
    facility: Facility, experiment_id: str, *, until: datetime, principal: Principal, reason: str = ""
) -> Hold:
    """Keep all of an experiment until a day; see `add`."""
    return add(
        facility,
        HoldScope.EXPERIMENT,
        experiment_id,
        reason=reason or "more time was asked for",
        principal=principal,
        kind=HoldKind.EXTENSION,
        until=until,
    )


def release(facility: Facility, hold_id: str, *, principal: Principal, reason: str = "") -> Hold:
    """End a hold now: whoever may set one of its kind there may. Nothing goes before people were told anew.

    Parameters
    ----------
    reason: one sentence for the audit trail.

    Raises
    ------
    NotFound: it does not exist, or holds what the principal may not see. Conflict: it has ended.
    """
    view = facility.catalog.view(principal)
    hold = view.hold(hold_id)
    _require(view, hold.scope, hold.scope_id, hold.kind)
    with facility.catalog.change(principal) as tx:
        tx.release_hold(hold_id, reason=reason)
    return facility.catalog.view(SERVICE).hold(hold_id)


def _require(view: View, scope: HoldScope, scope_id: str, kind: HoldKind) -> None:
    if scope in (HoldScope.FACILITY, HoldScope.STORE):
        view.require(Verb.MANAGE)
    elif scope is HoldScope.STATION:
        view.require(Verb.WRITE, station_id=scope_id)
    else:
        experiment_id = _experiment_of(view, scope, scope_id)
        view.require(Verb.WRITE, experiment_id=experiment_id)
        if kind is not HoldKind.EXTENSION:
            view.require(Verb.WRITE, station_id=view.experiment(experiment_id).station_id)
    if kind is HoldKind.LEGAL:
        view.require(Verb.MANAGE)


def _experiment_of(view: View, scope: HoldScope, scope_id: str) -> str:
    if scope is HoldScope.EXPERIMENT:
        return view.experiment(scope_id).id
    if scope is HoldScope.DATASET:
        return view.dataset(scope_id).experiment_id
    return view.dataset_of_file(scope_id).experiment_id
