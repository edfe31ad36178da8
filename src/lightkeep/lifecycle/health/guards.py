"""Is the facility in a state to delete at all? The clock, the catalogue, the switch (P8, P10, P14).

A doubt, once seen, stays until a person has looked and confirmed: the next look may find nothing strange any more
(a clock that jumped and came back), and the dates that were decided meanwhile are wrong all the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from lightkeep.lifecycle.health import drill
from lightkeep.lifecycle.health.sentinels import ALARM
from lightkeep.lifecycle.replicas import records
from lightkeep.model.errors import Conflict, Forbidden, LightkeepError
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.policy.case import Guards

if TYPE_CHECKING:
    from lightkeep.catalog.changes import Change
    from lightkeep.facility import Facility

SKEW: Final = timedelta(minutes=10)
"""How far the clocks of two servers may be apart: less is no jump backward."""
JUMP: Final = timedelta(hours=1)
"""Longer than this between two looks at the clock is a jump forward: upkeep looks every minute."""
_STEP: Final = timedelta(minutes=1)
"""The high water is written down no more often than this."""
_CLOCK, _CLOCK_DOUBT = "clock.high", "clock.doubt"
_CATALOG_DOUBT, _SEEN = "catalog.doubt", "catalog.seen"
_EPOCH, _EPOCH_KNOWN = "epoch", "purge.epoch"
_SWITCH = "purge.off"


@dataclass(frozen=True, slots=True)
class Status:
    """Whether purges may run now."""

    is_enabled: bool
    """False: switched off, by the configuration or by a person."""
    switch: str
    """Who switched it off, and why; empty when it is on."""
    clock_doubt: str
    catalog_doubt: str
    store_doubt: str
    """A sentinel is missing, or the last drill of a restore failed."""
    high_water: datetime | None
    """The latest time that was trusted."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why nothing is deleted now, one sentence each; empty: purges may run."""
        doubts = (self.switch, self.clock_doubt, self.catalog_doubt, self.store_doubt)
        return tuple(each for each in doubts if each)


def time(facility: Facility, tx: Change) -> tuple[datetime, Guards]:
    """Return the time that a deletion may be decided by, and what stands against deleting.

    Called in the transaction that decides. The time never runs backward: it is the latest that was trusted, or the
    machine's own. A clock that jumped leaves its doubt behind with this transaction.
    """
    now = facility.clock.now()
    high = _time(tx.fact(_CLOCK))
    doubt = tx.fact(_CLOCK_DOUBT) or _strange(now, high)
    if doubt:
        tx.set_fact(_CLOCK_DOUBT, doubt, verb="purge.suspended")
    elif high is None or now >= high + _STEP:
        tx.set_fact(_CLOCK, now.isoformat())
    trusted = now if high is None or doubt else max(now, high)
    switch = _switched_off(facility, tx.fact(_SWITCH))
    catalog_doubt = tx.fact(_CATALOG_DOUBT) or _other_epoch(tx.fact(_EPOCH), tx.fact(_EPOCH_KNOWN))
    catalog_doubt = catalog_doubt or tx.fact(ALARM) or ""
    return trusted, Guards(not switch, None if doubt else high, doubt, catalog_doubt)


def look(facility: Facility) -> Status:
    """Look at the clock and at what the stores say of the catalogue; write down what is strange. Then `status`."""
    anchors = _anchors(facility)
    strange = _older_catalog(facility, anchors)
    with facility.catalog.change(SERVICE) as tx:
        time(facility, tx)
        if not strange:
            seen = json.loads(tx.fact(_SEEN) or "{}")
            tx.set_fact(_SEEN, json.dumps({**seen, **{name: each["seq"] for name, each in anchors.items()}}))
        if strange and not tx.fact(_CATALOG_DOUBT):
            tx.set_fact(_CATALOG_DOUBT, strange, verb="purge.suspended")
    return status(facility)


def status(facility: Facility) -> Status:
    """Return whether purges may run; reads only."""
    view = facility.catalog.view(SERVICE)
    switch = _switched_off(facility, view.fact(_SWITCH))
    high = _time(view.fact(_CLOCK))
    clock_doubt = view.fact(_CLOCK_DOUBT) or _strange(facility.clock.now(), high)
    catalog_doubt = view.fact(_CATALOG_DOUBT) or _other_epoch(view.fact(_EPOCH), view.fact(_EPOCH_KNOWN))
    tried = drill.last(facility)
    failed = "" if tried is None or tried.passed else "the last drill of a restore failed"
    store_doubt = view.fact(ALARM) or failed
    return Status(not switch, switch, clock_doubt, catalog_doubt, store_doubt, high)


def facts(state: Status) -> Guards:
    """Return what the decision wants to know of a status."""
    return Guards(state.is_enabled, None, state.clock_doubt, state.catalog_doubt or state.store_doubt)


def switch(facility: Facility, *, on: bool, principal: Principal, why: str = "") -> Status:
    """Switch purges off, or on again. Needs `manage` on the facility."""
    facility.catalog.view(principal).require(Verb.MANAGE)
    text = "" if on else f"purges were switched off by {principal.id}" + (f": {why}" if why else "")
    with facility.catalog.change(principal) as tx:
        tx.set_fact(_SWITCH, text, verb="purge.switched_on" if on else "purge.switched_off")
    return status(facility)


def confirm_clock(facility: Facility, *, principal: Principal) -> datetime:
    """Trust the machine's clock again, as a person who has looked at it; return the time that it says.

    Needs `manage` on the facility.
    """
    _must_be_person(principal)
    facility.catalog.view(principal).require(Verb.MANAGE)
    now = facility.clock.now()
    with facility.catalog.change(principal) as tx:
        tx.set_fact(_CLOCK, now.isoformat(), verb="purge.clock_confirmed")
        tx.set_fact(_CLOCK_DOUBT, "")
    return now


def confirm_catalog(facility: Facility, *, principal: Principal) -> None:
    """Trust the catalogue again, after a comparison of every byte with what it says.

    Needs `manage` on the facility.

    Raises
    ------
    Conflict: the comparison found an error; it must be dealt with first. A catalogue that is older than what the
        stores remember is one: put the newest backup back, or rebuild it.
    """
    from lightkeep.lifecycle.health.doctor import examine
    from lightkeep.lifecycle.health.findings import Severity

    _must_be_person(principal)
    view = facility.catalog.view(principal)
    view.require(Verb.MANAGE)
    errors = [each for each in examine(facility, full=True) if each.severity is Severity.ERROR]
    if errors:
        raise Conflict(
            f"the catalogue and the stores disagree: {errors[0].message}"
            + (f", and {len(errors) - 1} more" if len(errors) > 1 else ""),
            remedy="`lightkeep doctor --full` lists all; repair them, then confirm again",
        )
    anchors = _anchors(facility)
    with facility.catalog.change(principal) as tx:
        tx.set_fact(_SEEN, json.dumps({name: anchor["seq"] for name, anchor in anchors.items()}))
        tx.record("purge.catalog_confirmed", "catalog")
        tx.set_fact(_CATALOG_DOUBT, "")
        tx.set_fact(ALARM, "")
        tx.set_fact(_EPOCH_KNOWN, tx.fact(_EPOCH) or "")


def _must_be_person(principal: Principal) -> None:
    if principal.is_service or principal.is_anonymous:
        raise Forbidden("only a person can confirm this", remedy="sign in as an administrator of the facility")


def _switched_off(facility: Facility, said: str | None) -> str:
    if not facility.config.purge.enabled:
        return "purges are switched off in the configuration (purge.enabled)"
    return said or ""


def _strange(now: datetime, high: datetime | None) -> str:
    """Return what is strange about the clock; empty: nothing."""
    if high is None:
        return ""
    if now < high - SKEW:
        return f"the clock went back, from {_minute(high)} to {_minute(now)}"
    if now > high + JUMP:
        return f"the clock went from {_minute(high)} to {_minute(now)} while nobody looked at it"
    return ""


def _other_epoch(epoch: str | None, known: str | None) -> str:
    if (epoch or "") == (known or ""):
        return ""
    return "the catalogue was rebuilt, or restored from a backup"


def _anchors(facility: Facility) -> dict[str, Mapping[str, Any]]:
    """Return store id -> what the store says the end of the trail was, for stores that can be read."""
    found: dict[str, Mapping[str, Any]] = {}
    for store_id in facility.stores:
        try:
            store = facility.stores[store_id]
            anchor = records.read_anchor(store) if store.record.is_managed else None
        except LightkeepError:
            continue  # a store that is away says nothing; no copy on it counts, see `purge`
        if anchor is not None:
            found[store_id] = anchor
    return found


def _older_catalog(facility: Facility, anchors: Mapping[str, Mapping[str, Any]]) -> str:
    """Return why the catalogue, or a store, may be an older one that was put back; empty: it is not."""
    view = facility.catalog.view(SERVICE)
    seen = json.loads(view.fact(_SEEN) or "{}")
    for store_id, anchor in anchors.items():
        event = next(iter(view.events(after=anchor["seq"] - 1, limit=1)), None)
        if anchor["seq"] and (event is None or event.hash != anchor["hash"]):
            return f"store {store_id} knows a later state of the catalogue: it was restored from a backup"
        if anchor["seq"] < seen.get(store_id, 0):
            return f"store {store_id} is older than the catalogue: it was put back from a snapshot"
    return ""


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _minute(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
