"""Set up what data are measured under: stations, stores, people and what each may do.

Each verb asks `policy.access` first, on behalf of the principal, and leaves one event.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lightkeep.lifecycle.replicas import records
from lightkeep.model.errors import Conflict, InvalidInput
from lightkeep.model.experiments import Station
from lightkeep.model.people import Grant, Person, Principal, Scope, Verb
from lightkeep.model.stores import StoreRecord, Tier
from lightkeep.policy import access

if TYPE_CHECKING:
    from lightkeep.facility import Facility

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_RESERVED = ("anonymous", "lightkeep")


def check_name(name: str, noun: str) -> None:
    """Raise InvalidInput when a name cannot stand in an address, a folder and a command line."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"`{name}` is not a name for {noun}",
            remedy="use up to 64 letters, digits, `.`, `-` and `_`, beginning with a letter or a digit",
        )


def add_station(facility: Facility, station: Station, *, principal: Principal) -> None:
    """Register a station. Needs `manage` on the facility; Conflict when it exists."""
    check_name(station.id, "a station")
    facility.catalog.view(principal).require(Verb.MANAGE)
    with facility.catalog.change(principal) as tx:
        tx.add_station(station)


def add_store(
    facility: Facility,
    store_id: str,
    location: Path | str,
    *,
    principal: Principal,
    kind: str = "posix",
    is_managed: bool = True,
    tier: Tier | None = None,
    failure_domain: str = "",
    is_durable: bool = False,
    capacity: int = 0,
) -> StoreRecord:
    """Register a folder, or a tape archive, as a store and return its record.

    Needs `manage` on the facility; Conflict when it exists.

    Parameters
    ----------
    location: a folder; for kind `hpss` a path on the archive with options, `/home/beam/lightkeep?sessions=8`.
    is_managed: False for a station's own disk: files are registered where they are, nothing is written there.
    tier: None: hot for a folder, tape for an archive.
    failure_domain: what fails together with it; empty: what lies on the same filesystem, or archive.
    is_durable: its medium is kept for years; always so for an archive.
    capacity: bytes that may be used; 0: all that the medium has.
    """
    check_name(store_id, "a store")
    view = facility.catalog.view(principal)
    view.require(Verb.MANAGE)
    if any(each.id == store_id for each in view.stores()):
        raise Conflict(f"store {store_id} exists already", remedy="choose another name")
    made = _initialise(facility, store_id, location, kind=kind, is_managed=is_managed)
    record = replace(
        made,
        tier=tier or made.tier,
        failure_domain=failure_domain or made.failure_domain,
        is_durable=is_durable or made.is_durable,
        capacity=capacity,
    )
    _check_room(record)
    with facility.catalog.change(principal) as tx:
        tx.add_store(record)
    records.anchor(facility)  # it begins with all that the others know
    return record


def _initialise(
    facility: Facility, store_id: str, location: Path | str, *, kind: str, is_managed: bool
) -> StoreRecord:
    if kind == "posix":
        from lightkeep.storage.posix import PosixStore

        return PosixStore.initialise(location, store_id, ids=facility.ids, is_managed=is_managed)
    if kind == "hpss" and is_managed:
        from lightkeep.storage.hpss import HpssStore

        return HpssStore.initialise(str(location), store_id, ids=facility.ids)
    raise InvalidInput(
        f"a store of kind `{kind}` cannot be added so", remedy="choose posix or hpss; only posix can be in place"
    )


def together(facility: Facility, record: StoreRecord, *, principal: Principal) -> list[str]:
    """Return the ids of the other stores that fail together with a store: copies on them are no safer."""
    stores = facility.catalog.view(principal).stores()
    return [each.id for each in stores if each.failure_domain == record.failure_domain and each.id != record.id]


def set_store(facility: Facility, record: StoreRecord, *, principal: Principal) -> None:
    """Change what is said of a store: tier, failure domain, durability, room. Needs `manage` on the facility."""
    facility.catalog.view(principal).require(Verb.MANAGE)
    _check_room(record)
    with facility.catalog.change(principal) as tx:
        tx.set_store(record)


def _check_room(record: StoreRecord) -> None:
    if record.capacity < 0 or not 0 < record.low < record.high <= 1:
        raise InvalidInput(
            f"store {record.id} needs a capacity of 0 or more and 0 < low < high <= 1",
            remedy="e.g. a high watermark of 0.9 and a low one of 0.8",
        )


def add_person(facility: Facility, person: Person, *, principal: Principal, password_hash: str = "") -> None:
    """Make an account. Needs `manage` on the facility; Conflict when it exists."""
    check_name(person.id, "a person")
    if person.id != person.id.lower() or person.id in _RESERVED:
        raise InvalidInput(
            f"`{person.id}` cannot be a user name",
            remedy="use lower case, and neither of: " + ", ".join(_RESERVED),
        )
    facility.catalog.view(principal).require(Verb.MANAGE)
    with facility.catalog.change(principal) as tx:
        tx.add_person(person, password_hash=password_hash)


def grant(facility: Facility, made: Grant, *, principal: Principal, remove: bool = False) -> None:
    """Give a role, or take it back. Idempotent.

    Needs `share` there, and every verb that the role includes: nobody gives away what they do not have.
    """
    view = facility.catalog.view(principal)
    where = {
        Scope.FACILITY: {},
        Scope.STATION: {"station_id": made.scope_id},
        Scope.EXPERIMENT: {"experiment_id": made.scope_id},
    }[made.scope]
    for verb in (Verb.SHARE, *sorted(access.verbs(made.role) - {Verb.SHARE})):
        view.require(verb, **where)
    view.person(made.person_id)
    with facility.catalog.change(principal) as tx:
        if remove:
            tx.remove_grant(made)
        else:
            tx.add_grant(made)
