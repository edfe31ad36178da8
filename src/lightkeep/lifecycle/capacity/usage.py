"""Who uses how much of which store: live, over time, and against quotas. Only of what the principal may see."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Final

from lightkeep.model.errors import Conflict, InvalidInput, NotFound, SignInRequired, StoreFull
from lightkeep.model.experiments import Experiment
from lightkeep.model.people import SERVICE, Principal, Role, Scope, Verb
from lightkeep.model.quantity import bytes_in_words
from lightkeep.model.usage import Growth, Quota

if TYPE_CHECKING:
    from lightkeep.catalog import View
    from lightkeep.catalog.usage import Group
    from lightkeep.facility import Facility

BY: Final = ("station", "store", "tier", "experiment", "technique", "kind")
"""What usage is shown by."""
_SIGNED_IN: Final = ("store", "tier")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the usage table."""

    key: str
    """Station, store, tier, experiment, technique or kind."""
    size: int
    """Bytes on stores: every copy that takes room now, also what waits in a trash."""
    copies: int
    """Files of these; two copies of one file are two."""
    experiments: int
    """Experiments that have something there; by station: all of the station's."""
    measured: int | None = None
    """Bytes of complete datasets, each once, also where the bytes are gone; by station and experiment only."""
    datasets: int | None = None
    newest_at: datetime | None = None
    """When its newest dataset was begun."""


@dataclass(frozen=True, slots=True)
class Series:
    """How much lay there at the end of each day on which something changed."""

    key: str
    days: tuple[datetime, ...]
    sizes: tuple[int, ...]
    """Bytes."""


@dataclass(frozen=True, slots=True)
class Filling:
    """How far a quota is used."""

    quota: Quota
    used: int
    """Bytes of all copies on managed stores."""
    people: tuple[str, ...]
    """Who can do something about it: the experiment's PI, the station's staff."""

    @property
    def fraction(self) -> float:
        """Used over allowed."""
        return self.used / self.quota.size if self.quota.size else float("inf")

    @property
    def is_warning(self) -> bool:
        """True from the fraction on at which people are warned."""
        return self.fraction >= self.quota.warn_at


def table(facility: Facility, by: str = "station", *, principal: Principal, station_id: str = "") -> list[Row]:
    """Return the usage table, largest first; by station also the stations that have nothing yet.

    Raises
    ------
    InvalidInput: `by` is not among `BY`. SignInRequired: stores are not for strangers.
    """
    if by not in BY:
        raise InvalidInput(f"usage is shown by {', '.join(BY)}, not by {by}")
    if by in _SIGNED_IN and principal.is_anonymous:
        raise SignInRequired("how full stores are is for people who are signed in", remedy="sign in")
    view = facility.catalog.view(principal)
    if station_id:
        view.station(station_id)
    seen = [each for each in view.usage_experiments() if station_id in ("", each.station_id)]
    keys = _Keys(view, by, seen)
    stored: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    owners: dict[str, set[str]] = defaultdict(set)
    for group, amount in view.usage(station_id=station_id).items():
        key = keys.of(group)
        stored[key][0] += amount.size
        stored[key][1] += amount.files
        owners[key].add(group.experiment_id)
    if by in ("station", "experiment"):
        rows = _with_counters(view, by, seen, stored, station_id)
    else:
        rows = [Row(key, size, files, len(owners[key])) for key, (size, files) in stored.items()]
    return sorted(rows, key=lambda row: (-row.size, row.key))


class _Keys:
    """Which line of the table a group belongs to."""

    def __init__(self, view: View, by: str, experiments: Iterable[Experiment]) -> None:
        self._by = by
        self._stations = {each.id: each.station_id for each in experiments}
        self._tiers = {each.id: str(each.tier) for each in view.stores()} if by == "tier" else {}

    def of(self, group: Group) -> str:
        if self._by == "station":
            return self._stations[group.experiment_id]
        if self._by == "tier":
            return self._tiers[group.store_id]
        return str(getattr(group, self._by if hasattr(group, self._by) else f"{self._by}_id"))


def _with_counters(
    view: View, by: str, seen: Sequence[Experiment], stored: Mapping[str, Sequence[int]], station_id: str
) -> list[Row]:
    newest = view.newest()
    members: dict[str, list[Experiment]] = defaultdict(list)
    if by == "station":
        for station in view.stations():
            if station_id in ("", station.id):
                members[station.id] = []
    for each in seen:
        members[each.station_id if by == "station" else each.id].append(each)
    rows = []
    for key, group in members.items():
        size, copies = stored.get(key, (0, 0))
        times = [newest[each.id] for each in group if each.id in newest]
        measured, datasets = sum(each.size for each in group), sum(each.datasets for each in group)
        rows.append(Row(key, size, copies, len(group), measured, datasets, max(times, default=None)))
    return rows


def history(
    facility: Facility, by: str = "store", *, principal: Principal, days: int = 730, station_id: str = ""
) -> list[Series]:
    """Return how much lay where over time, from the daily samples: stores, stations, techniques or kinds.

    Every series has a point on each day on which any of them changed, within the last so many days.
    """
    if by not in BY or by == "tier":
        raise InvalidInput(f"usage over time is shown by {', '.join(each for each in BY if each != 'tier')}")
    if principal.is_anonymous:
        raise SignInRequired("usage over time is for people who are signed in", remedy="sign in")
    column = by if by in ("technique", "kind") else f"{by}_id"
    since = _midnight(facility.clock.now()) - timedelta(days=days)
    changes = facility.catalog.view(principal).usage_history(column, since=since, station_id=station_id)
    all_days = tuple(sorted({each.day for each in changes}))
    by_key: dict[str, dict[datetime, int]] = defaultdict(dict)
    for each in changes:
        by_key[each.key][each.day] = each.size
    return [Series(key, all_days, tuple(_running(steps, all_days))) for key, steps in sorted(by_key.items())]


def _running(steps: Mapping[datetime, int], days: Sequence[datetime]) -> Iterable[int]:
    total = 0
    for day in days:
        total += steps.get(day, 0)
        yield total


def tick(facility: Facility) -> int:
    """Take the sample of the day; return how many groups changed. Idempotent: nothing counts twice."""
    fresh = facility.catalog.view(SERVICE).fresh_usage()
    changed = sum(any(change) for change in fresh.changes.values())
    if fresh.before == fresh.upto or (fresh.before and not changed):
        return 0
    try:
        with facility.catalog.change(SERVICE) as tx:
            tx.add_samples(_midnight(facility.clock.now()), fresh)
    except Conflict:  # another process was faster, and its sample has it all
        return 0
    return changed


def set_growth(facility: Facility, growth: Growth, *, principal: Principal) -> None:
    """Say how fast a station will grow. Needs `manage` on the station.

    Raises
    ------
    InvalidInput: a number is negative or not finite, or steps are not in the order of their days.
    """
    facility.catalog.view(principal).require(Verb.MANAGE, station_id=growth.station_id)
    factors = [growth.per_year, *(step.factor for step in growth.steps)]
    if not 0 <= growth.bytes_per_day < 1e18 or not all(0 < factor < 1e6 for factor in factors):
        raise InvalidInput("growth needs bytes per day of 0 or more, and factors above 0")
    if [step.at for step in growth.steps] != sorted(step.at for step in growth.steps):
        raise InvalidInput("the steps of a growth follow the calendar", remedy="sort them by day")
    with facility.catalog.change(principal) as tx:
        tx.set_growth(growth)


def unset_growth(facility: Facility, station_id: str, *, principal: Principal, technique: str = "") -> None:
    """Go back to the growth that was measured. Needs `manage` on the station."""
    facility.catalog.view(principal).require(Verb.MANAGE, station_id=station_id)
    with facility.catalog.change(principal) as tx:
        tx.remove_growth(station_id, technique)


def set_quota(facility: Facility, quota: Quota, *, principal: Principal) -> None:
    """Bound what an experiment or a station may take. Needs `manage` on it; never a reason to delete."""
    if quota.scope not in (Scope.EXPERIMENT, Scope.STATION):
        raise InvalidInput("a quota is for an experiment or a station")
    if quota.size <= 0 or not 0 < quota.warn_at <= 1:
        raise InvalidInput("a quota has 1 byte or more, and warns at a fraction above 0 and up to 1")
    _require_manage(facility, quota.scope, quota.scope_id, principal)
    with facility.catalog.change(principal) as tx:
        tx.set_quota(quota)


def unset_quota(facility: Facility, scope: Scope, scope_id: str, *, principal: Principal) -> None:
    """Take a bound away. Needs `manage` on the experiment or station."""
    _require_manage(facility, scope, scope_id, principal)
    with facility.catalog.change(principal) as tx:
        tx.remove_quota(scope, scope_id)


def _require_manage(facility: Facility, scope: Scope, scope_id: str, principal: Principal) -> None:
    place = {"station_id": scope_id} if scope is Scope.STATION else {"experiment_id": scope_id}
    facility.catalog.view(principal).require(Verb.MANAGE, **place)


def quotas(facility: Facility, *, principal: Principal) -> list[Filling]:
    """Return how far each quota is used that concerns what the principal sees, fullest first.

    A station's needs that one may see all of the station: others would learn how much is hidden from them.
    """
    view = facility.catalog.view(principal)
    found = []
    for quota in view.quotas():
        is_station = quota.scope is Scope.STATION
        if is_station and not view.can(Verb.READ, station_id=quota.scope_id):
            continue
        found.append(_filling(facility, quota))
    return sorted(found, key=lambda filling: (-filling.fraction, filling.quota.scope_id))


def check_quota(facility: Facility, experiment: Experiment, *, more: int) -> None:
    """Raise StoreFull when an ingest of so many bytes would go beyond a hard quota. Never a reason to delete."""
    for quota in facility.catalog.view(SERVICE).quotas():
        if not quota.is_hard or quota.scope_id not in (experiment.id, experiment.station_id):
            continue
        filling = _filling(facility, quota)
        if filling.used + more > quota.size:
            names = ", ".join(filling.people) or "the facility's staff"
            raise StoreFull(
                f"{quota.scope} {quota.scope_id} may have {bytes_in_words(quota.size)} and has "
                f"{bytes_in_words(filling.used)}: {bytes_in_words(more)} more would be too much",
                remedy=f"ask {names} for a larger quota; nothing was taken in and nothing is deleted",
                used=filling.used,
                quota=quota.size,
            )


def _filling(facility: Facility, quota: Quota) -> Filling:
    view = facility.catalog.view(SERVICE)
    is_station = quota.scope is Scope.STATION
    place = {"station_id": quota.scope_id} if is_station else {"experiment_id": quota.scope_id}
    managed = {each.id for each in view.stores() if each.is_managed}
    used = sum(amount.size for group, amount in view.usage(**place).items() if group.store_id in managed)
    return Filling(quota, used, _responsible(view, quota))


def _responsible(view: View, quota: Quota) -> tuple[str, ...]:
    station = quota.scope_id
    if quota.scope is Scope.EXPERIMENT:
        try:
            station = view.experiment(quota.scope_id).station_id
        except NotFound:
            return ()
    wanted = {(Scope.EXPERIMENT, quota.scope_id, Role.PI), (Scope.STATION, station, Role.STATION_MANAGER)}
    names = {person.id: person.name for person in view.people() if person.is_active}
    who = {grant.person_id for grant in view.grants() if (grant.scope, grant.scope_id, grant.role) in wanted}
    return tuple(sorted(names[each] for each in who if each in names))


def to_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as CSV that a spreadsheet takes as data: no cell begins a formula.

    A text that begins with `=`, `+`, `-`, `@`, tab or carriage return gets an apostrophe before it (OWASP).
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_cell(each) for each in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, str):
        shown = value.encode("utf-8", "backslashreplace").decode()
        return f"'{shown}" if shown.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else shown
    return "" if value is None else value


def _midnight(at: datetime) -> datetime:
    return datetime.combine(at.astimezone(UTC).date(), time(), UTC)
