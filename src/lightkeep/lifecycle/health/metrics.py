"""How the facility is doing, as numbers for a monitoring system."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightkeep.lifecycle.capacity import usage
from lightkeep.lifecycle.health import guards, silence
from lightkeep.lifecycle.replicas import scrub
from lightkeep.model.errors import SignInRequired
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.retention import RestoreState
from lightkeep.model.runs import RunState

if TYPE_CHECKING:
    from lightkeep.catalog import View
    from lightkeep.facility import Facility


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number now, for each combination of labels."""

    name: str
    """In Prometheus's form: `lightkeep_<what>_<unit>`."""
    help: str
    labels: tuple[str, ...]
    values: Mapping[tuple[str, ...], float]


def measure(facility: Facility, *, principal: Principal) -> list[Gauge]:
    """Return every gauge; counts of data and runs are of what the principal may see.

    Raises
    ------
    SignInRequired: these are not for strangers.
    """
    if principal.is_anonymous:
        raise SignInRequired(
            "metrics are for who is signed in", remedy="send a token: lightkeep person token <user>"
        )
    view = facility.catalog.view(principal)
    return [*_stores(facility, view, principal), *_work(view), *_keeping(facility)]


def _stores(facility: Facility, view: View, principal: Principal) -> Iterator[Gauge]:
    by_store = {row.key: float(row.size) for row in usage.table(facility, "store", principal=principal)}
    stations = usage.table(facility, "station", principal=principal)
    stores = view.stores()
    yield Gauge(
        "lightkeep_store_bytes",
        "Bytes of all copies on a store.",
        ("store", "tier"),
        {(each.id, each.tier.value): by_store.get(each.id, 0.0) for each in stores},
    )
    yield Gauge(
        "lightkeep_store_capacity_bytes",
        "Bytes that Lightkeep may use on a store that has a bound.",
        ("store",),
        {(each.id,): float(each.capacity) for each in stores if each.capacity},
    )
    silent = silence.seen(facility)
    yield Gauge(
        "lightkeep_store_answers",
        "0 while a store's medium gives no answer, as a mount whose server is down.",
        ("store",),
        {(each.id,): float(each.id not in silent) for each in stores},
    )
    fresh = scrub.freshness(facility)
    yield Gauge(
        "lightkeep_copies",
        "Copies on a store.",
        ("store",),
        {(key,): each.replicas for key, each in fresh.items()},
    )
    yield Gauge(
        "lightkeep_copies_overdue",
        "Copies on a store that were not read back for longer than the configured days.",
        ("store",),
        {(key,): each.overdue for key, each in fresh.items()},
    )
    yield Gauge(
        "lightkeep_copies_corrupt",
        "Copies on a store that differ from what was measured and wait for repair.",
        ("store",),
        {(key,): each.corrupt for key, each in fresh.items()},
    )
    yield Gauge(
        "lightkeep_station_bytes",
        "Bytes of all copies of a station's datasets.",
        ("station",),
        {(row.key,): row.size for row in stations},
    )
    yield Gauge(
        "lightkeep_station_datasets",
        "Complete datasets of a station.",
        ("station",),
        {(row.key,): row.datasets or 0 for row in stations},
    )


def _work(view: View) -> Iterator[Gauge]:
    yield Gauge(
        "lightkeep_runs",
        "Runs by state.",
        ("state",),
        {(state.value,): view.runs(state=state, limit=0).total for state in RunState},
    )
    yield Gauge(
        "lightkeep_restores",
        "Restores from the archive by state.",
        ("state",),
        {(state.value,): view.restores(states=[state], limit=0).total for state in RestoreState},
    )


def _keeping(facility: Facility) -> Iterator[Gauge]:
    yield Gauge(
        "lightkeep_purge_suspended",
        "1 while nothing may be deleted, for whatever reason; `lightkeep purge status` says which.",
        (),
        {(): float(bool(guards.status(facility).reasons))},
    )
    waiting = facility.catalog.view(SERVICE).mail_waiting(limit=10_000)
    yield Gauge("lightkeep_mails_waiting", "Notices that are not sent yet.", (), {(): float(len(waiting))})
