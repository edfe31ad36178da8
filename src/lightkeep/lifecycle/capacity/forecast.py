"""When is which store full, and what would another policy, archive or link change? From the real catalogue.

The present is what lies on each store, with the day on which the policy lets it go; the future is what each
station produced in the last year, or what somebody set with `lightkeep usage growth set`. `policy.forecast` runs
both forward. A scenario is the same with something else assumed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from lightkeep.lifecycle.retention.retain import reaches
from lightkeep.model.datasets import DatasetKind
from lightkeep.model.errors import ConfigError, StorageError
from lightkeep.model.experiments import Experiment, ExperimentState
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.stores import StoreRecord
from lightkeep.model.usage import Growth
from lightkeep.policy import forecast as ahead
from lightkeep.policy.placement import place
from lightkeep.policy.retention import ClockFacts, Facts, Keep, Policy, applicable, expiry

if TYPE_CHECKING:
    from lightkeep.catalog.usage import Amount, Arrived, Group
    from lightkeep.facility import Facility

_MEASURED: Final = timedelta(days=365)
_MOST_NOTICES: Final = 100_000
_CLOSING_DAYS: Final = (
    7  # where no experiment was closed in the last year: a beam time of some days, and a weekend
)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is assumed otherwise. Empty: what is known."""

    name: str = "as it is"
    policies: tuple[Policy, ...] | None = None
    """In place of those that were adopted."""
    growth: Mapping[str, Growth] = field(default_factory=dict)
    """Station (a glob) -> `bytes_per_day` (0: as measured), `per_year` and `steps` in place of what is known."""
    factor: float = 1.0
    """Times as much of everything."""
    stores: tuple[StoreRecord, ...] = ()
    """Stores that are new, or have another capacity."""
    upgrades: Mapping[str, tuple[tuple[date, int], ...]] = field(default_factory=dict)
    """Store -> (day, capacity from then on)."""
    links: tuple[ahead.Link, ...] = ()
    archive: str = ""
    """Store that gets the copies, whatever the rules name."""
    closing_days: int | None = None
    """From when data are written until their experiment is closed; as measured when None."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What becomes of every store under one scenario."""

    scenario: Scenario
    paths: tuple[ahead.Path, ...]
    bytes_per_day: float
    """What all stations produce at the beginning."""
    notes: tuple[str, ...]
    """What the forecast had to assume, one sentence each."""


def outlooks(
    facility: Facility, scenarios: Sequence[Scenario] = (), *, principal: Principal, days: int = 730
) -> list[Outlook]:
    """Return how the stores fill as things are, then under each scenario. Needs `read` on the whole facility."""
    facility.catalog.view(principal).require(Verb.READ)
    facts = _Known(facility)
    return [_Work(facts, each).outlook(days) for each in (Scenario(), *scenarios)]


class _Known:
    """What the catalogue says, read once for all scenarios."""

    def __init__(self, facility: Facility) -> None:
        view = facility.catalog.view(SERVICE)
        self.now = facility.clock.now()
        self.ingest_store = facility.config.ingest.store
        self.stores: dict[str, StoreRecord] = {each.id: each for each in view.stores()}
        self.experiments: dict[str, Experiment] = {each.id: each for each in view.usage_experiments()}
        self.usage: Mapping[Group, Amount] = view.usage()
        self.newest_raw = view.newest_raw()
        self.policies = tuple(view.policies())
        self.growth = view.growth()
        self.arrived = view.arrived(self.now - _MEASURED)
        self.stations = [each.id for each in view.stations()]
        self.told: dict[tuple[str, str], datetime] = {}
        """(experiment, store) -> until when people were told that its files stay."""
        for notice in view.notices(live=True, limit=_MOST_NOTICES).items:
            key = (notice.experiment_id, notice.store_id)
            self.told[key] = max(notice.expires_at, self.told.get(key, notice.expires_at))
        self.holds = list(view.holds(standing=True, limit=10_000))
        self.room = {each: self._room(facility, each) for each in self.stores}

    def _room(self, facility: Facility, store_id: str) -> int:
        """Return what a store may hold: as it is set, else what is on it and free on its medium; 0: not known."""
        record = self.stores[store_id]
        if record.capacity or not record.is_managed:
            return record.capacity
        try:
            free = facility.stores[store_id].free_bytes()
        except (StorageError, ConfigError):
            return 0
        used = sum(amount.size for group, amount in self.usage.items() if group.store_id == store_id)
        return free + used if free is not None else 0

    def clock(self, experiment: Experiment) -> ClockFacts:
        """Return the clock of an experiment; one that is not closed is taken to be closed when its window ends."""
        newest = self.newest_raw.get(experiment.id)
        if experiment.state in (ExperimentState.PLANNED, ExperimentState.OPEN):
            closed = max(self.now, experiment.ends_at or self.now)
            return ClockFacts(ExperimentState.CLOSED, experiment.ends_at, closed, newest)
        return ClockFacts(experiment.state, experiment.ends_at, experiment.closed_at, newest)

    def closing_days(self) -> int:
        """Return how long data wait on the mean until their experiment is closed, from those of the last year."""
        spans = [
            (clock.started_at - each.created_at) / 2
            for each in self.experiments.values()
            if each.closed_at and each.created_at and each.closed_at >= self.now - _MEASURED and each.datasets
            if (clock := self.clock(each)).started_at
        ]
        return round(sum(spans, timedelta()) / len(spans) / timedelta(days=1)) if spans else _CLOSING_DAYS


class _Work:
    """One scenario."""

    def __init__(self, known: _Known, scenario: Scenario) -> None:
        self._known = known
        self._scenario = scenario
        self._policies = known.policies if scenario.policies is None else scenario.policies
        self._stores = known.stores | {each.id: each for each in scenario.stores}
        days = scenario.closing_days
        self._closing_days = known.closing_days() if days is None else days
        self._notes: dict[str, None] = {}

    def outlook(self, days: int) -> Outlook:
        """Run it."""
        lots, streams = tuple(self._lots()), tuple(self._streams())
        situation = ahead.Situation(
            self._known.now.date(), tuple(self._depots()), lots, streams, tuple(self._scenario.links)
        )
        rate = sum(stream.growth.bytes_per_day for stream in streams)
        return Outlook(self._scenario, _run(situation, days), rate, tuple(self._notes))

    def _depots(self) -> Iterable[ahead.Depot]:
        for store in self._stores.values():
            upgrades = self._scenario.upgrades.get(store.id, ())
            capacity = store.capacity or self._known.room.get(store.id, 0)
            yield ahead.Depot(store.id, capacity, store.high, store.low, tuple(upgrades))
            if store.is_managed and not capacity and not upgrades:
                self._note(f"how much store {store.id} may hold is not known: it is never full here")

    # ---- what lies there

    def _lots(self) -> Iterable[ahead.Lot]:
        for group, amount in self._known.usage.items():
            yield from self._lots_of(group, amount.size)

    def _lots_of(self, group: Group, size: int) -> Iterable[ahead.Lot]:
        experiment = self._known.experiments[group.experiment_id]
        store = self._stores[group.store_id]
        facts = Facts(experiment.station_id, group.technique, DatasetKind(group.kind))
        policy = applicable(self._policies, policy_id=experiment.policy_id, station_id=experiment.station_id)
        clock = self._known.clock(experiment)
        until = expiry(policy, clock, facts, tier=store.tier)
        limits = self._held(experiment, store, until.at, until.pressure_at)
        limits = self._announced(experiment, store, *limits, days=_notice_days(policy, facts))
        leaves_on, early_on = _dates(*limits, trash=timedelta(days=_undo_days(policy, facts)))
        if not store.is_managed or leaves_on is None:
            yield ahead.Lot(store.id, size)
            return
        keep = self._keep(policy, facts, store)
        copied = min(size, self._elsewhere(group, durable=keep.durable))
        if copied or keep.last_copy:
            yield ahead.Lot(store.id, size if keep.last_copy else copied, leaves_on, early_on)
        if copied == size or keep.last_copy:
            return
        target = self._target(facts, policy, present=(store.id,), durable=keep.durable)
        if target is None:
            self._note(
                f"data on {store.id} without a second copy stay: no store takes the copies that rules ask for"
            )
            yield ahead.Lot(store.id, size - copied)
            return
        at = expiry(policy, clock, facts, tier=target.tier).at
        stay = ahead.Stay(target.id)
        copy_leaves = ahead.first_day_after(at) if at else None
        yield ahead.Lot(store.id, size - copied, leaves_on, early_on, stay, copy_leaves)

    def _held(
        self, experiment: Experiment, store: StoreRecord, at: datetime | None, early: datetime | None
    ) -> tuple[datetime | None, datetime | None]:
        """Return when it may leave, and under pressure, with the holds on all of it."""
        if at is None:
            return None, None
        for hold in self._known.holds:
            if not reaches(hold, experiment, store):
                continue
            if hold.until is None:
                return None, None
            at, early = max(at, hold.until), max(early or at, hold.until)
        return at, early

    def _announced(
        self, experiment: Experiment, store: StoreRecord, at: datetime | None, early: datetime | None, *, days: int
    ) -> tuple[datetime | None, datetime | None]:
        """Return the same with the notices: those that were sent, or else the first one that will be."""
        if at is None or not days:
            return at, early
        told = self._known.told.get((experiment.id, store.id))
        if told is None:
            begin = max(self._known.now, self._known.clock(experiment).started_at or self._known.now)
            told = max(begin + timedelta(days), early or at)
        return max(at, told), max(early, told) if early else None

    def _elsewhere(self, group: Group, *, durable: bool) -> int:
        """Return how many bytes of a group have a copy on another store that counts."""
        return max(
            (
                amount.size
                for store in self._stores.values()
                if store.id != group.store_id and (store.is_durable or not durable)
                if (amount := self._known.usage.get(group._replace(store_id=store.id)))
            ),
            default=0,
        )

    def _keep(self, policy: Policy | None, facts: Facts, store: StoreRecord) -> Keep:
        rule = policy.rule_for(facts) if policy else None
        return (rule.keep.get(store.tier) if rule else None) or Keep()

    def _target(
        self, facts: Facts, policy: Policy | None, *, present: Sequence[str], durable: bool
    ) -> StoreRecord | None:
        """Return the store that gets the copy which lets data leave."""
        if self._scenario.archive and self._scenario.archive not in present:
            return self._stores[self._scenario.archive]
        wanted = place(facts, policy, self._stores.values(), present=present)
        found = [self._stores[each.store_id] for each in wanted if each.store_id]
        return next((each for each in found if each.is_durable or not durable), None)

    # ---- what will come

    def _streams(self) -> Iterable[ahead.Stream]:
        store = self._stores[self._known.ingest_store]
        for (station, technique, kind), growth in sorted(self._rates().items()):
            facts = Facts(station, technique, DatasetKind(kind))
            policy = applicable(self._policies, policy_id="", station_id=station)
            keep = self._keep(policy, facts, store)
            target = self._target(facts, policy, present=(store.id,), durable=keep.durable) if policy else None
            may_leave = keep.span is not None and (keep.last_copy or target is not None)
            if keep.span is not None and not may_leave:
                self._note(f"new data on {store.id} stay: no store takes the copies that the rules ask for")
            first = ahead.Stay(
                store.id,
                keep.span if may_leave else None,
                keep.pressure if may_leave else None,
                _undo_days(policy, facts),
                notice_days=_notice_days(policy, facts),
                needs_copy=not keep.last_copy,
            )
            copy = ahead.Stay(target.id, self._keep(policy, facts, target).span) if target else None
            yield ahead.Stream(growth, first, copy, self._closing_days)

    def _rates(self) -> dict[tuple[str, str, str], Growth]:
        """Return how fast each station grows, by technique and kind: as measured, as set, as assumed."""
        rates = {key: Growth(key[0], key[1], rate) for key, rate in self._measured().items()}
        for growth in self._known.growth:
            self._impose(rates, growth, [growth.station_id])
        for glob, growth in self._scenario.growth.items():
            self._impose(rates, growth, [each for each in self._known.stations if fnmatchcase(each, glob)])
        factor = self._scenario.factor
        return {key: replace(growth, bytes_per_day=growth.bytes_per_day * factor) for key, growth in rates.items()}

    def _measured(self) -> dict[tuple[str, str, str], float]:
        first: dict[str, datetime] = {}
        for each in self._known.arrived:
            first[each.station_id] = min(first.get(each.station_id, self._known.now), each.first_at)
        rates: dict[tuple[str, str, str], float] = defaultdict(float)
        for each in self._known.arrived:
            rates[each.station_id, each.technique, str(each.kind)] += each.size / self._days(first, each)
        return rates

    def _days(self, first: Mapping[str, datetime], each: Arrived) -> float:
        """Return over how many days a station's data came: the last year, or less for a new station."""
        hour = self._known.now.replace(minute=0, second=0, microsecond=0)  # else no two forecasts were the same
        return max(1.0, (hour - first[each.station_id]) / timedelta(days=1))

    def _impose(self, rates: dict[tuple[str, str, str], Growth], given: Growth, stations: Iterable[str]) -> None:
        """Give stations another growth: raw data as it says, results in the proportion that was measured."""
        for station in stations:
            mine = [key for key in rates if key[0] == station and given.technique in ("", key[1])]
            raw = sum(rates[key].bytes_per_day for key in mine if key[2] == DatasetKind.RAW)
            if not raw and given.bytes_per_day:
                technique = given.technique
                key = (station, technique, str(DatasetKind.RAW))
                rates[key] = replace(given, station_id=station)
                continue
            factor = given.bytes_per_day / raw if given.bytes_per_day else 1.0
            for key in mine:
                rate = rates[key].bytes_per_day * factor
                rates[key] = Growth(station, key[1], rate, given.per_year, given.steps)

    def _note(self, text: str) -> None:
        self._notes[text] = None


def _undo_days(policy: Policy | None, facts: Facts) -> int:
    """Return how long bytes lie in the trash before they are destroyed: they take room until then."""
    rule = policy.rule_for(facts) if policy else None
    return rule.undo_days if rule else 0


def _notice_days(policy: Policy | None, facts: Facts) -> int:
    """Return how long before people are told."""
    rule = policy.rule_for(facts) if policy else None
    return max(rule.notice_days, default=0) if rule else 0


def _dates(at: datetime | None, early: datetime | None, *, trash: timedelta) -> tuple[date | None, date | None]:
    """Return the days on which it has left its store, the trash included."""
    if at is None:
        return None, None
    leaves_on = ahead.first_day_after(at) + trash
    early_on = ahead.first_day_after(early) + trash if early else None
    return leaves_on, early_on if early_on and early_on < leaves_on else None


@lru_cache(maxsize=32)
def _run(situation: ahead.Situation, days: int) -> tuple[ahead.Path, ...]:
    """Run what was not run already: a page asks for the same again until the day, or what it rests on, changes."""
    return ahead.run(situation, days=days)
