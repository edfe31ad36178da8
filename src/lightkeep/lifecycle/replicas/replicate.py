"""Replicate: a verified copy of a dataset on another store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightkeep.lifecycle.replicas.copies import LIVE, Copying, by_file, expect, keep_document, seek
from lightkeep.lifecycle.replicas.leases import leased
from lightkeep.lifecycle.replicas.manifest import all_files
from lightkeep.lifecycle.replicas.transfer import Pace
from lightkeep.model.datasets import Dataset, DatasetState
from lightkeep.model.errors import Conflict, InvalidInput
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.retention import LeaseKind
from lightkeep.model.stores import Replica, Store, Tier
from lightkeep.model.techniques import Report

if TYPE_CHECKING:
    from lightkeep.facility import Facility


@dataclass(frozen=True, slots=True)
class Replication:
    """What a replication did."""

    dataset_id: str
    store_id: str
    copied: int
    """Files that the store got now."""
    size: int
    """Bytes of these."""
    known: int
    """Files that were there."""
    suspect: tuple[str, ...] = ()
    """Paths with a copy that turned out to be bad while it was read: it was marked, another one was taken."""
    failed: tuple[str, ...] = ()
    """Paths of which no copy could be read whole: the store lacks them."""


def replicate(
    facility: Facility,
    dataset_id: str,
    *,
    principal: Principal,
    store_id: str = "",
    report: Report | None = None,
    pace: Pace = Pace(),  # noqa: B008 (frozen)
) -> Replication:
    """Put a copy of every file of a dataset on a store, read back and hashed. Idempotent.

    Parameters
    ----------
    store_id: where to; empty: a store in a failure domain that has no copy of it yet.
    report: called with the fraction of the bytes done.

    Raises
    ------
    NotFound, Forbidden: the principal may not see or not manage the dataset; there is no such store.
    Conflict: the dataset is not complete, or no store is left for another copy.
    InvalidInput: the store is not managed.
    StoreFull, StoreUnavailable, Corrupt, StorageError: the store failed; what it got before counts.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.MANAGE, dataset_id=dataset_id)
    dataset = view.dataset(dataset_id)
    if dataset.state is not DatasetState.COMPLETE:
        raise Conflict(
            f"dataset {dataset.name} is {dataset.state}", remedy="only a complete dataset can be replicated"
        )
    target = target_of(facility, dataset, store_id)
    replicas = by_file(facility.catalog.view(SERVICE).replicas(dataset_id))
    experiment = facility.catalog.view(SERVICE).experiment(dataset.experiment_id)
    files = list(all_files(view, dataset_id))
    sought = seek(
        dataset, experiment.station_id, files, replicas, stores=facility.stores, target_id=target.record.id
    )
    total = sum(each.file.size for each in sought) or 1
    read = 0
    with leased(facility, dataset.id, LeaseKind.TRANSFER, holder=principal.id) as lease:

        def advance(count: int) -> None:
            nonlocal read
            read += count
            lease.renew()
            if report is not None:
                report(min(1.0, read / total), "")

        expect((each.sources[0] for each in sought if each.sources), stores=facility.stores)
        done = Copying(facility, target, principal=principal, pace=pace, read=advance).run(sought)
        if not done.failed:
            keep_document(facility, dataset, target, principal=principal, is_news=done.files > 0)
    return Replication(
        dataset.id,
        target.record.id,
        done.files,
        done.size,
        len(files) - len(sought),
        tuple(done.suspect),
        tuple(sorted(done.failed)),
    )


def target_of(facility: Facility, dataset: Dataset, store_id: str = "") -> Store:
    """Return a store that single files of a dataset may be written to, and that is there; chosen when not named.

    Raises NotFound, Conflict, InvalidInput and StoreUnavailable as `replicate` does.
    """
    if not store_id:
        replicas = by_file(facility.catalog.view(SERVICE).replicas(dataset.id))
        store_id = _another_store(facility, dataset, replicas)
    target = facility.stores[store_id]
    if not target.record.is_managed:
        raise InvalidInput(
            f"store {target.record.id} is registered in place: Lightkeep never writes there",
            remedy="name a managed store",
        )
    if target.record.tier is Tier.TAPE:
        raise InvalidInput(
            f"store {target.record.id} is tape: single files do not belong there",
            remedy=f"lightkeep archive --dataset {dataset.id} --to {target.record.id}",
        )
    target.check_identity()
    return target


def _another_store(facility: Facility, dataset: Dataset, replicas: dict[str, list[Replica]]) -> str:
    """Return the managed store without a whole copy that shares least with those that have one."""
    records = [
        each for each in facility.catalog.view(SERVICE).stores() if each.is_managed and each.tier is not Tier.TAPE
    ]
    live = [{each.store_id for each in of if each.state in LIVE} for of in replicas.values()]
    whole = {record.id for record in records if all(record.id in ids for ids in live)}
    domains = {record.failure_domain for record in records if record.id in whole}
    free = [record for record in records if record.id not in whole]
    if not free:
        raise Conflict(
            f"every store has a copy of dataset {dataset.name}",
            remedy="register another store: lightkeep store add archive /mnt/archive",
        )
    return min(free, key=lambda record: (record.failure_domain in domains, record.id)).id
