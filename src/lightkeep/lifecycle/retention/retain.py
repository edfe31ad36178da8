"""How long an experiment's data stay, as its policy says: for the states of its life, forecasts and reports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from lightkeep.model.datasets import DatasetKind
from lightkeep.model.errors import Conflict
from lightkeep.model.experiments import Experiment, ExperimentState
from lightkeep.model.people import SERVICE, Grant, Principal
from lightkeep.model.retention import Hold, HoldScope
from lightkeep.model.stores import StoreRecord
from lightkeep.policy.retention import ClockFacts, Facts, Policy, applicable, expiry

if TYPE_CHECKING:
    from lightkeep.catalog.usage import Amount, Group
    from lightkeep.facility import Facility

_ENDING = {ExperimentState.CLOSED, ExperimentState.RETAINED, ExperimentState.EXPIRING}
_NOTICE_DAYS = 30  # where no rule says when people are told first


@dataclass(frozen=True, slots=True)
class Place:
    """What an experiment has on one store, of one technique and kind."""

    store_id: str
    technique: str
    kind: str
    copies: int
    size: int
    """Bytes."""
    leaves_at: datetime | None
    """When the policy, with the holds on all of it, lets it go at the earliest; None: it stays."""
    why: str


@dataclass(frozen=True, slots=True)
class Report:
    """An experiment on one page."""

    experiment: Experiment
    places: tuple[Place, ...]
    people: tuple[Grant, ...]
    holds: tuple[Hold, ...]
    changes: int
    """Events about it, as far as the reader may see them."""


def report(facility: Facility, experiment_id: str, *, principal: Principal) -> Report:
    """Return what an experiment has, where, until when, and who may do what. NotFound."""
    view = facility.catalog.view(principal)
    experiment = view.experiment(experiment_id)
    stores = {each.id: each for each in view.stores()}
    holds = [each for each in view.holds(standing=True, limit=10_000) if _touches(each, experiment, stores)]
    groups = view.usage(experiment_id=experiment_id)
    newest = facility.catalog.view(SERVICE).newest_raw().get(experiment_id)
    policies = facility.catalog.view(SERVICE).policies()
    known = facility.catalog.view(SERVICE).stores()
    places = places_of(experiment, groups, {each.id: each for each in known}, policies, holds, newest)
    if principal.is_anonymous:  # what stores there are is not for strangers
        places = ()
    events = len(view.events(experiment_id=experiment_id, limit=10_000))
    return Report(experiment, places, tuple(view.grants(experiment_id)), tuple(holds), events)


def tick(facility: Facility) -> int:
    """Move every closed experiment to the state that its policy means now; return how many moved.

    retained: nothing of it goes soon; expiring: something does, within the days of the first notice; expired: no
    copy of any of its files is left anywhere. The state follows from the data: nothing is deleted because of it.
    """
    view = facility.catalog.view(SERVICE)
    now = facility.clock.now()
    ending = [each for each in view.usage_experiments() if each.state in _ENDING]
    if not ending:
        return 0
    groups: dict[str, dict[Group, Amount]] = defaultdict(dict)
    for group, amount in view.usage().items():
        groups[group.experiment_id][group] = amount
    stores, policies = {each.id: each for each in view.stores()}, view.policies()
    holds, newest = list(view.holds(standing=True, limit=10_000)), view.newest_raw()
    moved = 0
    for each in ending:
        found = places_of(each, groups[each.id], stores, policies, holds, newest.get(each.id))
        moved += _move(facility, each, _meant(each, found, policies, now))
    return moved


def _meant(
    experiment: Experiment, places: Sequence[Place], policies: Sequence[Policy], now: datetime
) -> ExperimentState:
    if not places and experiment.files:
        return ExperimentState.EXPIRED
    policy = applicable(policies, policy_id=experiment.policy_id, station_id=experiment.station_id)
    days = max((rule.notice_days[0] for rule in policy.rules), default=_NOTICE_DAYS) if policy else _NOTICE_DAYS
    soon = now + timedelta(days=days)
    is_ending = any(place.leaves_at is not None and place.leaves_at <= soon for place in places)
    return ExperimentState.EXPIRING if is_ending else ExperimentState.RETAINED


def _move(facility: Facility, experiment: Experiment, meant: ExperimentState) -> int:
    steps = {
        ExperimentState.RETAINED: [ExperimentState.RETAINED],
        ExperimentState.EXPIRING: [ExperimentState.RETAINED, ExperimentState.EXPIRING],
        ExperimentState.EXPIRED: [ExperimentState.RETAINED, ExperimentState.EXPIRING, ExperimentState.EXPIRED],
    }[meant]
    if experiment.state is ExperimentState.EXPIRING and meant is not ExperimentState.RETAINED:
        steps = steps[2:]
    elif experiment.state is ExperimentState.RETAINED:
        steps = steps[1:]
    for state in steps:
        try:
            with facility.catalog.change(SERVICE) as tx:
                tx.set_experiment_state(experiment.id, state)
        except Conflict:  # somebody opened it meanwhile
            return 0
    return bool(steps)


def places_of(
    experiment: Experiment,
    groups: Mapping[Group, Amount],
    stores: Mapping[str, StoreRecord],
    policies: Iterable[Policy],
    holds: Iterable[Hold],
    newest_raw_at: datetime | None,
) -> tuple[Place, ...]:
    """Return what an experiment has where, and until when; largest first."""
    clock = ClockFacts(experiment.state, experiment.ends_at, experiment.closed_at, newest_raw_at)
    policy = applicable(policies, policy_id=experiment.policy_id, station_id=experiment.station_id)
    holds, places = list(holds), []
    for group, amount in groups.items():
        store = stores[group.store_id]
        facts = Facts(experiment.station_id, group.technique, DatasetKind(group.kind))
        until = expiry(policy, clock, facts, tier=store.tier)
        at, why = until.at, until.text
        if not store.is_managed:
            at, why = None, "registered in place: Lightkeep never deletes there"
        for hold in holds:
            if at is not None and reaches(hold, experiment, store):
                at, why = held(at, hold), f"held: {hold.reason}"
        places.append(Place(store.id, group.technique, group.kind, amount.files, amount.size, at, why))
    return tuple(sorted(places, key=lambda place: (-place.size, place.store_id, place.kind, place.technique)))


def held(at: datetime, hold: Hold) -> datetime | None:
    """Return when something may go that a hold is on; None: not by itself."""
    return None if hold.until is None else max(at, hold.until)


def reaches(hold: Hold, experiment: Experiment, store: StoreRecord) -> bool:
    """Return whether a hold is on all that an experiment has on a store; a single dataset does not count."""
    places = {
        HoldScope.FACILITY: "",
        HoldScope.STATION: experiment.station_id,
        HoldScope.STORE: store.id,
        HoldScope.EXPERIMENT: experiment.id,
    }
    return hold.scope in places and hold.scope_id == places[hold.scope]


def _touches(hold: Hold, experiment: Experiment, stores: Mapping[str, StoreRecord]) -> bool:
    return any(reaches(hold, experiment, store) for store in stores.values())
