"""Upkeep: everything that has to be done now and then, in one idempotent tick.

`lightkeep serve` does it each minute, `lightkeep upkeep` once; any number of processes may, one after the other or
at once. Each part decides by the catalogue whether its time has come, so nothing is lost when nobody did it for a
week, and nothing is done twice. A part that fails is told and does not keep the others from their work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from lightkeep.lifecycle import outbox
from lightkeep.lifecycle.acquisitions import spooled
from lightkeep.lifecycle.capacity import usage
from lightkeep.lifecycle.health import drill, guards, sentinels, silence
from lightkeep.lifecycle.replicas import asked_copies, place, records, restore, scrub
from lightkeep.lifecycle.retention import notices, plan_approval, purge, purge_plan, retain
from lightkeep.lifecycle.retention.purge_destroy import destroy
from lightkeep.model.errors import LightkeepError, StorageError
from lightkeep.model.people import SERVICE
from lightkeep.model.techniques import Report

if TYPE_CHECKING:
    from lightkeep.facility import Facility

_HOUR: Final = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Upkept:
    """What one tick did."""

    done: Mapping[str, int] = field(default_factory=dict)
    """Part -> how many things it dealt with; parts that had nothing to do are absent."""
    failed: Mapping[str, str] = field(default_factory=dict)
    """Part -> why it could not."""


def upkeep(facility: Facility, report: Report | None = None) -> Upkept:
    """Do what is due now.

    Parameters
    ----------
    report: called after each part.
    """
    done: dict[str, int] = {}
    failed: dict[str, str] = {}
    for number, (name, part) in enumerate(PARTS.items()):
        try:
            count = part(facility)
        except LightkeepError as error:
            failed[name] = error.message
        else:
            if count:
                done[name] = count
        if report is not None:
            report((number + 1) / len(PARTS), name)
    return Upkept(done, failed)


def _guards(facility: Facility) -> int:
    return len(guards.look(facility).reasons)


def _leases(facility: Facility) -> int:
    with facility.catalog.change(SERVICE) as tx:
        return tx.clear_leases()


def _anchor(facility: Facility) -> int:
    """Tell the stores how far the trail is; raises StorageError naming the first that could not be told."""
    behind = records.anchor(facility)
    if behind:
        name, why = next(iter(sorted(behind.items())))
        raise StorageError(f"store {name} has not learned of the latest changes: {why}")
    return 0


def _trash(facility: Facility) -> int:
    """Empty what was in the trash for long enough, once an hour."""
    if guards.status(facility).reasons or not _is_due(facility, "upkeep.trash", _HOUR):
        return 0
    return sum(each.items for each in destroy(facility, principal=SERVICE))


def _states(facility: Facility) -> int:
    """Move experiments to the states that their policies mean, once an hour."""
    return retain.tick(facility) if _is_due(facility, "upkeep.states", _HOUR) else 0


def _spool(facility: Facility) -> int:
    """Remove the frames on their way that have arrived, once an hour."""
    return spooled.clear(facility) if _is_due(facility, "upkeep.spool", _HOUR) else 0


def _is_due(facility: Facility, name: str, span: timedelta) -> bool:
    """Return whether something was not done for a span; from now on it counts as done."""
    now = facility.clock.now()
    with facility.catalog.change(SERVICE) as tx:
        last = tx.fact(name)
        if last and timedelta(0) <= now - datetime.fromisoformat(last) < span:
            return False
        tx.set_fact(name, now.isoformat())
    return True


PARTS: Final[Mapping[str, Callable[[Facility], int]]] = {
    "stores": silence.tick,
    "guards": _guards,
    "sentinels": sentinels.tick,
    "leases": _leases,
    "notices": notices.tick,
    "mail": outbox.send_waiting,
    "plans": purge_plan.expire,
    "approvals": plan_approval.tick,
    "recovery": purge.recover,
    "trash": _trash,
    "restores": restore.tick,
    "asked copies": asked_copies.tick,
    "copies": place.tick,
    "scrub": scrub.tick,
    "usage": usage.tick,
    "states": _states,
    "spool": _spool,
    "anchor": _anchor,
    "drill": drill.tick,
}
"""In the order of a tick: what is quick and warns first, what reads many bytes last."""
