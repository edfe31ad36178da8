"""The invariants of keeping and deleting, computed again from what is there. Reads only.

V2      every copy was read back lately
P5, P6  what the catalogue says is in the trash is there, and nothing else is
P8, P10 clock and catalogue can be trusted
A1      the anchors on the stores fit the audit trail
units   every archive unit is on its store, whole
drills  a restore was tried lately, and sentinels stand
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from lightkeep.lifecycle.health import drill, guards, sentinels
from lightkeep.lifecycle.health.findings import Finding, Severity
from lightkeep.lifecycle.replicas import records
from lightkeep.model.errors import LightkeepError, NotFound
from lightkeep.model.people import SERVICE
from lightkeep.model.retention import ArchiveUnit
from lightkeep.model.stores import ReplicaState, Store

if TYPE_CHECKING:
    from lightkeep.facility import Facility

VERIFY_DAYS: Final = 30
"""A copy that was not read back for so long does not count in a purge (P16)."""
_STALE: Final = timedelta(hours=1)
_MOST: Final = 100_000_000


def examine(facility: Facility, stores: Mapping[str, Store]) -> Iterator[Finding]:
    """Look at everything that keeps data from being lost.

    Parameters
    ----------
    stores: by id, those that answer.
    """
    for store_id, store in stores.items():
        yield from _anchor(facility, store)
        if store.record.is_managed:
            yield from _trash(facility, store)
            yield from _units(facility, store)
        yield from _freshness(facility, store_id)
        yield from _room(facility, store_id)
    yield from _unfinished(facility)
    for reason in guards.status(facility).reasons:
        yield Finding(Severity.WARNING, "purge", f"nothing is deleted: {reason}", "run: lightkeep purge status")
    yield from sentinels.missing(facility, stores)
    yield from drill.overdue(facility)


def _anchor(facility: Facility, store: Store) -> Iterator[Finding]:
    if not store.record.is_managed:
        return
    name = store.record.id
    seq, last = facility.catalog.head()
    kept = records.read_anchor(store)
    if kept is None:
        made = store.record.created_at
        if made is not None and facility.clock.now() - made > _STALE:
            message = f"store {name} carries no anchor of the audit trail"
            yield Finding(Severity.WARNING, name, message, "run: lightkeep upkeep")
    elif kept["seq"] > seq or (kept["seq"] == seq and kept["hash"] != last):
        yield Finding(
            Severity.ERROR,
            name,
            f"the audit trail ends at event {seq}, store {name} has seen event {kept['seq']}: "
            "the catalogue is older than its data, or was changed",
            "put the newest backup of the catalogue back, or rebuild it: lightkeep rebuild",
        )
    elif kept["seq"] < seq and facility.clock.now() - datetime.fromisoformat(kept["at"]) > _STALE:
        message = f"the anchor on store {name} is {seq - kept['seq']} events behind, since {kept['at'][:16]}"
        yield Finding(
            Severity.WARNING, name, message, "run `lightkeep upkeep` every few minutes, or `lightkeep serve`"
        )
    for problem in () if kept is None else facility.catalog.verify_events(anchor=(kept["seq"], kept["hash"])):
        if "anchor" in problem:
            yield Finding(
                Severity.ERROR, name, f"audit trail: {problem}", "compare with a backup of the catalogue"
            )


def _trash(facility: Facility, store: Store) -> Iterator[Finding]:
    name = store.record.id
    there = {each.key for each in store.trashed()}
    view = facility.catalog.view(SERVICE)
    expected = {item.trash_key for item in view.items_in_trash(store_id=name, limit=_MOST)}
    expected.update(item.trash_key for item in view.items_to_finish() if item.store_id == name)
    if gone := expected - there:
        message = f"store {name}: {len(gone)} objects are not in the trash any more, e.g. {min(gone)}"
        yield Finding(
            Severity.ERROR, name, message, "undo is no longer possible for them: look who emptied the trash"
        )
    if strange := there - expected:
        message = f"store {name}: {len(strange)} objects in the trash belong to no plan, e.g. {min(strange)}"
        yield Finding(
            Severity.WARNING, name, message, "Lightkeep never destroys them; move them back or look at them"
        )


def _units(facility: Facility, store: Store) -> Iterator[Finding]:
    name = store.record.id
    for unit in _all_units(facility, name):
        if unit.state is not ReplicaState.VERIFIED:  # in the trash, or gone
            continue
        try:
            size = store.stat(unit.key).size
            problem = "" if size == unit.size else f"has {size} bytes instead of {unit.size}"
        except NotFound:
            problem = "is missing"
        except LightkeepError as error:
            problem = error.message
        if problem:
            message = f"archive unit {unit.key} on store {name} {problem}"
            remedy = "run `lightkeep verify --due --repair`; do not delete other copies"
            yield Finding(Severity.ERROR, unit.id, message, remedy)


def _all_units(facility: Facility, store_id: str) -> Iterator[ArchiveUnit]:
    view, offset = facility.catalog.view(SERVICE), 0
    while page := view.units(store_id=store_id, limit=1000, offset=offset).items:
        yield from page
        offset += len(page)


def _freshness(facility: Facility, store_id: str) -> Iterator[Finding]:
    before = facility.clock.now() - timedelta(days=VERIFY_DAYS)
    fresh = facility.catalog.view(SERVICE).freshness(store_id, before=before)
    if fresh.overdue:
        waiting = f"{fresh.overdue} of {fresh.replicas} copies"
        message = f"store {store_id}: {waiting} were not read back within {VERIFY_DAYS} days"
        if fresh.oldest_at is None:
            message = f"store {store_id}: {waiting} were never read back, as after a rebuild"
        yield Finding(Severity.WARNING, store_id, message, "run: lightkeep verify --due")
    if fresh.corrupt:
        message = f"store {store_id}: {fresh.corrupt} copies are known to be bad"
        yield Finding(Severity.ERROR, store_id, message, "run: lightkeep verify DATASET --repair")


def _room(facility: Facility, store_id: str) -> Iterator[Finding]:
    view = facility.catalog.view(SERVICE)
    record, held = view.store(store_id), view.bytes_held(store_id)
    if record.capacity and held > record.high * record.capacity:
        message = (
            f"store {record.id} is {held / record.capacity:.0%} full, its high watermark is {record.high:.0%}"
        )
        yield Finding(Severity.WARNING, record.id, message, f"run: lightkeep purge plan {record.id} --pressure")


def _unfinished(facility: Facility) -> Iterator[Finding]:
    if items := facility.catalog.view(SERVICE).items_to_finish():
        message = f"{len(items)} files are between their place and the trash: a purge was interrupted"
        yield Finding(
            Severity.WARNING, items[0].plan_id, message, "run `lightkeep upkeep`: it finishes or reverts them"
        )
