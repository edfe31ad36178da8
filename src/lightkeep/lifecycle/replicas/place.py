"""Placement: every complete dataset gets the copies that its policy asks for.

`policy.placement.place` says what is missing and where it should go; this makes it: a copy on disk, or a unit
on tape. Units wait until their experiment is closed or enough of it is there: small ones wear tapes out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from lightkeep.lifecycle.replicas.archive import archive
from lightkeep.lifecycle.replicas.copies import GOOD, by_file
from lightkeep.lifecycle.replicas.manifest import complete_datasets
from lightkeep.lifecycle.replicas.replicate import replicate
from lightkeep.lifecycle.replicas.transfer import Pace
from lightkeep.model.datasets import Dataset, DatasetState
from lightkeep.model.errors import LightkeepError, NotFound
from lightkeep.model.experiments import ExperimentState
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.stores import Replica, Tier
from lightkeep.policy.placement import Wanted
from lightkeep.policy.placement import place as wanted_copies
from lightkeep.policy.retention import Facts, applicable

if TYPE_CHECKING:
    from lightkeep.catalog import View
    from lightkeep.facility import Facility

_PAGE: Final = 1000
_FACT: Final = "place"
_AGAIN: Final = timedelta(days=1)
"""How often everything is looked at, whatever has changed: a store may have been away."""
_CHANGES_ALL: Final = ("policy.", "store.", "experiment.")


@dataclass(slots=True)
class Placed:
    """What a placement did."""

    copied: list[tuple[str, str]] = field(default_factory=list)
    """(dataset, store) of the copies that were made."""
    archived: list[tuple[str, str]] = field(default_factory=list)
    """(experiment, store) of the archives that got units."""
    lacking: dict[str, str] = field(default_factory=dict)
    """Dataset or experiment -> why a copy that it should have is not there."""


def lacks(facility: Facility, dataset: Dataset) -> tuple[Wanted, ...]:
    """Return the copies that a dataset should have and has not; none while it is not complete."""
    if dataset.state is not DatasetState.COMPLETE:
        return ()
    view = facility.catalog.view(SERVICE)
    experiment = view.experiment(dataset.experiment_id)
    policy = applicable(view.policies(), policy_id=experiment.policy_id, station_id=experiment.station_id)
    facts = Facts(experiment.station_id, dataset.technique, dataset.kind, dataset.size)
    if policy is None or policy.rule_for(facts) is None:
        return ()
    return wanted_copies(
        facts, policy, view.stores(), present=_present(by_file(view.replicas(dataset.id)).values())
    )


def place(
    facility: Facility,
    *,
    principal: Principal = SERVICE,
    dataset_ids: Iterable[str] | None = None,
    pace: Pace = Pace(),  # noqa: B008 (frozen)
) -> Placed:
    """Make the copies that datasets lack. Idempotent; what fails for one does not keep the others.

    Parameters
    ----------
    dataset_ids: only these; every complete dataset when None.

    Raises
    ------
    Forbidden: the principal may not manage the facility.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.MANAGE)
    done = Placed()
    units: dict[tuple[str, str], list[Dataset]] = {}
    for dataset in _all(facility) if dataset_ids is None else _known(view, dataset_ids):
        for wanted in lacks(facility, dataset):
            if not wanted.store_id:
                done.lacking[dataset.id] = wanted.text
            elif facility.stores[wanted.store_id].record.tier is Tier.TAPE:
                units.setdefault((dataset.experiment_id, wanted.store_id), []).append(dataset)
            else:
                _copy(facility, dataset, wanted.store_id, done, principal=principal, pace=pace)
    for (experiment_id, store_id), datasets in units.items():
        if _is_time(facility, experiment_id, datasets, everything=dataset_ids is None):
            _pack(facility, experiment_id, store_id, done, principal=principal, pace=pace)
    return done


def tick(facility: Facility) -> int:
    """Make the copies that the changes since the last tick ask for; return how many were made.

    Looks at the datasets that the audit trail names since then, and at all of them when policies, stores or
    experiments changed, and once a day.
    """
    view = facility.catalog.view(SERVICE)
    kept = json.loads(view.fact(_FACT) or "{}")
    head = facility.catalog.head()[0]
    now = facility.clock.now()
    is_late = "all_at" not in kept or now >= datetime.fromisoformat(kept["all_at"]) + _AGAIN
    if not is_late and head == kept["seq"]:
        return 0
    changed = None if is_late else _changed(view, kept["seq"])
    if changed is not None and not changed:
        return 0
    done = place(facility, dataset_ids=changed)
    all_at = now.isoformat() if changed is None else kept["all_at"]
    with facility.catalog.change(SERVICE) as tx:
        tx.set_fact(_FACT, json.dumps({"seq": head, "all_at": all_at}))
    return len(done.copied) + len(done.archived)


def _changed(view: View, after: int) -> list[str] | None:
    """Return the datasets that events after a number name; None when everything may have changed."""
    found: dict[str, None] = {}
    while events := view.events(after=after, limit=_PAGE):
        for event in events:
            if event.verb.startswith(_CHANGES_ALL):
                return None
            if event.subject.startswith("ds_") and event.verb.startswith(("dataset.", "replica.")):
                found[event.subject] = None
        after = events[-1].seq
    return list(found)


def _copy(
    facility: Facility, dataset: Dataset, store_id: str, done: Placed, *, principal: Principal, pace: Pace
) -> None:
    try:
        copied = replicate(facility, dataset.id, principal=principal, store_id=store_id, pace=pace)
    except LightkeepError as error:
        done.lacking[dataset.id] = error.message
        return
    done.copied.append((dataset.id, store_id))
    if copied.failed:
        done.lacking[dataset.id] = f"{copied.failed[0]} has no copy that can be read"


def _pack(
    facility: Facility, experiment_id: str, store_id: str, done: Placed, *, principal: Principal, pace: Pace
) -> None:
    try:
        packed = archive(facility, principal=principal, store_id=store_id, experiment_id=experiment_id, pace=pace)
    except LightkeepError as error:
        done.lacking[experiment_id] = error.message
        return
    if packed.units:
        done.archived.append((experiment_id, store_id))
    for path, why in list(packed.failed.items())[:1]:
        done.lacking[experiment_id] = f"{path}: {why}"


def _is_time(facility: Facility, experiment_id: str, datasets: Sequence[Dataset], *, everything: bool) -> bool:
    """Return whether units are made now: the experiment is over, or what lacks its copy fills one."""
    view = facility.catalog.view(SERVICE)
    if view.experiment(experiment_id).state is not ExperimentState.OPEN:
        return True
    found = datasets if everything else complete_datasets(facility, experiment_id)
    lacking = (each.size for each in found if everything or lacks(facility, each))
    return sum(lacking) >= facility.config.archive.target


def _present(replicas: Iterable[Sequence[Replica]]) -> set[str]:
    """Return the stores with a good copy of every file."""
    stores = [{each.store_id for each in of if each.state in GOOD} for of in replicas]
    return set.intersection(*stores) if stores else set()


def _all(facility: Facility) -> Iterator[Dataset]:
    view = facility.catalog.view(SERVICE)
    offset = 0
    while page := view.datasets(limit=_PAGE, offset=offset, order="completed_at").items:
        yield from page
        offset += len(page)


def _known(view: View, dataset_ids: Iterable[str]) -> Iterator[Dataset]:
    for each in dataset_ids:
        try:
            yield view.dataset(each)
        except NotFound:  # named by the trail of a catalogue that was rebuilt, perhaps
            continue
