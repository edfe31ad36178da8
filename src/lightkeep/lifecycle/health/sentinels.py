"""Sentinels: one small known object on every managed store. When one goes, somebody else is deleting.

A sentinel is no dataset and belongs to no plan: nothing of ours may ever remove it. `tick` looks at all of them
each minute; a missing or changed one suspends purges and tells the administrators by mail.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from lightkeep.lifecycle import outbox
from lightkeep.lifecycle.health.findings import Finding, Severity
from lightkeep.model.errors import Conflict, LightkeepError, NotFound
from lightkeep.model.people import SERVICE
from lightkeep.model.stores import Store

if TYPE_CHECKING:
    from lightkeep.facility import Facility

FOLDER: Final = "lightkeep-sentinel/"
_FACT: Final = "sentinel."
ALARM: Final = "sentinel.alarm"


def tick(facility: Facility) -> int:
    """Plant sentinels where there are none yet, and look at those that stand; return how many are not right."""
    alarms = 0
    view = facility.catalog.view(SERVICE)
    for store_id in facility.stores:
        try:
            store = facility.stores[store_id]
            if not store.record.is_managed:
                continue
            store.check_identity()
            if view.fact(_FACT + store_id) is None:
                _plant(facility, store)
            elif problem := _problem(facility, store):
                alarms += 1
                _alarm(facility, store_id, problem)
        except LightkeepError:  # away or busy: not a sign of deletion
            continue
    return alarms


def missing(facility: Facility, stores: Mapping[str, Store]) -> Iterator[Finding]:
    """Find sentinels that are not what they were; reads only."""
    for store_id, store in stores.items():
        if store.record.is_managed and (problem := _problem(facility, store)):
            yield Finding(
                Severity.ERROR,
                store_id,
                f"the sentinel of store {store_id} {problem}: something deletes or changes files there",
                "stop what it is; then run: lightkeep doctor --full",
            )


def key_of(store: Store) -> str:
    """Return where the sentinel of a store stands."""
    return f"{FOLDER}{store.record.uuid}"


def _content(store: Store) -> bytes:
    text = f"Lightkeep watches this file on store {store.record.uuid}. When it goes, purges stop.\n"
    return text.encode()


def _plant(facility: Facility, store: Store) -> None:
    content = _content(store)
    try:
        with store.stage() as staging:
            staging.write(key_of(store), io.BytesIO(content), size=len(content))
            staging.sync()
            staging.verify()
            staging.publish()
    except Conflict:  # somebody writes there now: next minute
        return
    with facility.catalog.change(SERVICE) as tx:
        tx.set_fact(_FACT + store.record.id, hashlib.sha256(content).hexdigest(), verb="sentinel.planted")


def _problem(facility: Facility, store: Store) -> str:
    """Return what is wrong with a sentinel that was planted; empty: nothing."""
    planted = facility.catalog.view(SERVICE).fact(_FACT + store.record.id)
    if planted is None:
        return ""
    try:
        return "" if store.verify(key_of(store)).sha256 == planted else "was changed"
    except NotFound:
        return "is gone"


def _alarm(facility: Facility, store_id: str, problem: str) -> None:
    """Suspend purges until somebody has looked; once for each alarm."""
    text = f"the sentinel of store {store_id} {problem}"
    with facility.catalog.change(SERVICE) as tx:
        if tx.fact(ALARM) == text:
            return
        tx.set_fact(ALARM, text, verb=ALARM)
    outbox.tell_admins(
        facility,
        f"{ALARM}.{store_id}.{facility.clock.now():%Y-%m-%d}",
        subject=f"Lightkeep: something deletes files on store {store_id}",
        text=f"{text[0].upper()}{text[1:]}. Something other than Lightkeep deletes or changes files there.\n"
        "Purges are suspended. Find out what it is, then run: lightkeep doctor --full\n",
    )
