"""Restore: what is in the archive only comes back near, for a while.

    request ──> queued ──run_queue──> running ──> done       a mail says that it is there, and until when
                                         └──────> failed     a mail says why

The queue is worked off by unit and offset, so that a tape is mounted once and read forward, whoever asked first.
What comes back are new replicas, hashed against the manifest while they are read and read back from the store; the
archive keeps its own. `cache_until` is until when policies leave them alone; see `policy.case`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from lightkeep.lifecycle.outbox import is_address
from lightkeep.lifecycle.replicas.copies import Copying, Sought, by_file, expect, keep_document, seek, split
from lightkeep.lifecycle.replicas.leases import leased
from lightkeep.lifecycle.replicas.manifest import all_files, complete_datasets
from lightkeep.lifecycle.replicas.transfer import Pace
from lightkeep.model.datasets import Dataset, DatasetState, File
from lightkeep.model.errors import Conflict, InvalidInput, NotFound, SignInRequired, StorageError, StoreUnavailable
from lightkeep.model.mail import Mail
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.retention import LeaseKind, Restore, RestoreState
from lightkeep.model.stores import Tier
from lightkeep.model.techniques import Report
from lightkeep.storage.units import recall_order

if TYPE_CHECKING:
    from lightkeep.facility import Facility

_WAITING: Final = (RestoreState.QUEUED, RestoreState.RUNNING)
_QUEUE: Final = 1000
_MOST_DAYS: Final = 366
_WORTH: Final = timedelta(hours=1)
"""By how much longer a request must be asked for to be kept longer: many runs on one dataset ask one by one."""


def request(
    facility: Facility,
    *,
    principal: Principal,
    dataset_id: str = "",
    experiment_id: str = "",
    paths: Sequence[str] = (),
    store_id: str = "",
    days: int | None = None,
) -> list[Restore]:
    """Ask for archived data to be near again; return the requests, one for each dataset that is not near.

    Asked again before it is done: the same request, kept for the longer of the two.

    Parameters
    ----------
    dataset_id, experiment_id: one of the two; of an experiment every complete dataset.
    paths: only these files of the dataset; all when empty.
    store_id: where to; the store of new datasets when empty.
    days: how long it stays; the configured number when None.

    Raises
    ------
    NotFound, Forbidden, SignInRequired: the principal may not see or read it; a path or the store is not there.
    Conflict: the dataset is not complete, or all of it is on that store.
    InvalidInput: the store is not managed or is tape, or the days are not 1 to 366.
    """
    view = facility.catalog.view(principal)
    if experiment_id and paths:
        raise InvalidInput("files are named of one dataset, not of an experiment", field="paths")
    if principal.is_anonymous:
        raise SignInRequired("only somebody signed in may restore data", remedy="sign in")
    view.require(Verb.READ, dataset_id=dataset_id, experiment_id=experiment_id)
    days = facility.config.archive.restore_days if days is None else days
    if not 1 <= days <= _MOST_DAYS:
        raise InvalidInput(f"data are restored for 1 to {_MOST_DAYS} days, not {days}", field="days")
    target = facility.stores[store_id or facility.config.ingest.store].record
    if not target.is_managed or target.tier is Tier.TAPE:
        raise InvalidInput(f"nothing can be restored to store {target.id}", remedy="name a managed store on disk")
    datasets = [view.dataset(dataset_id)] if dataset_id else list(complete_datasets(facility, experiment_id))
    until = facility.clock.now() + timedelta(days=days)
    wanted = []
    for dataset in datasets:
        if dataset.state is not DatasetState.COMPLETE:
            raise Conflict(f"dataset {dataset.name} is {dataset.state}", remedy="only a complete one comes back")
        files = [view.file(dataset.id, path) for path in dict.fromkeys(paths)]
        if _sought(facility, dataset, files or None, target.id):
            asked = tuple(file.path for file in files)
            wanted.append(Restore("", dataset.id, target.id, cache_until=until, paths=asked))
    if not wanted:
        what = f"dataset {datasets[0].name}" if dataset_id else f"experiment {experiment_id}"
        raise Conflict(
            f"all of {what} is on store {target.id}",
            remedy="nothing to do; to keep it longer: lightkeep experiment extend",
        )
    return _queue(facility, principal, wanted)


def request_many(facility: Facility, dataset_ids: Sequence[str], *, principal: Principal) -> list[Restore]:
    """Ask for datasets to be near again, all at once: one recall, in the order in which they lie, has them all.

    As `request` of each, to the store of new datasets; those that cannot be asked for, or are there, are left out.
    """
    view = facility.catalog.view(principal)
    target = facility.stores[facility.config.ingest.store].record
    if principal.is_anonymous or not target.is_managed or target.tier is Tier.TAPE:
        return []
    until = facility.clock.now() + timedelta(days=facility.config.archive.restore_days)
    asked = [view.dataset(each) for each in dict.fromkeys(dataset_ids) if view.can(Verb.READ, dataset_id=each)]
    wanted = [
        Restore("", dataset.id, target.id, cache_until=until)
        for dataset in asked
        if dataset.state is DatasetState.COMPLETE and _sought(facility, dataset, None, target.id)
    ]
    return _queue(facility, principal, wanted)


def _queue(facility: Facility, principal: Principal, wanted: Sequence[Restore]) -> list[Restore]:
    """Queue requests in one transaction, or lengthen those that ask for the same."""
    view = facility.catalog.view(SERVICE)
    ids = []
    with facility.catalog.change(principal) as tx:
        for each in wanted:
            waiting = view.restores(dataset_id=each.dataset_id, states=_WAITING).items
            same = (known for known in waiting if (known.target_id, known.paths) == (each.target_id, each.paths))
            known = next(same, None) or tx.add_restore(replace(each, id=facility.ids.new("restore")))
            if known.cache_until + _WORTH < each.cache_until:
                tx.update_restore(known.id, cache_until=each.cache_until)
            ids.append(known.id)
    return [facility.catalog.view(SERVICE).restore(each) for each in ids]


@dataclass(slots=True)
class _Asked:
    """A request that is worked on."""

    restore: Restore
    dataset: Dataset
    files: list[File]
    sought: list[Sought]


def run_queue(
    facility: Facility,
    *,
    restore_ids: Sequence[str] = (),
    principal: Principal = SERVICE,
    report: Report | None = None,
    pace: Pace = Pace(),  # noqa: B008 (frozen)
) -> list[Restore]:
    """Bring back what was asked for; return the requests that ended, done or failed. Idempotent.

    Parameters
    ----------
    restore_ids: only these requests; the whole queue when empty.

    A request whose store or archive is not there now stays in the queue.
    """
    view = facility.catalog.view(SERVICE)
    queue = view.restores(states=_WAITING, limit=_QUEUE, newest_first=False).items
    queue = [each for each in queue if not restore_ids or each.id in restore_ids]
    ended: list[Restore] = []
    for target_id in sorted({each.target_id for each in queue}):
        mine = [each for each in queue if each.target_id == target_id]
        ended += _Recall(facility, principal, target_id, pace, report).run(mine)
    return ended


def tick(facility: Facility) -> int:
    """Work off the queue; return how many requests ended."""
    return len(run_queue(facility))


class _Recall:
    """Everything that one store shall get back."""

    def __init__(
        self, facility: Facility, principal: Principal, target_id: str, pace: Pace, report: Report | None
    ) -> None:
        self.facility = facility
        self.principal = principal
        self.target_id = target_id
        self.pace = pace
        self.report = report

    def run(self, restores: Sequence[Restore]) -> list[Restore]:
        """Copy in the order of the tapes, then end each request that has all of its files."""
        self._begin(restores)
        asked = [self._asked(each) for each in restores]
        sought = sorted(
            {each.file.id: each for one in asked for each in one.sought}.values(), key=self._recall_order
        )
        total = sum(each.file.size for each in sought) or 1
        read = 0
        why = ""
        with ExitStack() as held:
            leases = [
                held.enter_context(leased(self.facility, dataset_id, LeaseKind.RESTORE, holder=self.principal.id))
                for dataset_id in sorted({one.dataset.id for one in asked})
            ]

            def advance(count: int) -> None:
                nonlocal read
                read += count
                for lease in leases:
                    lease.renew()
                if self.report is not None:
                    self.report(min(1.0, read / total), "")

            target = self.facility.stores[self.target_id]
            copying = Copying(
                self.facility, target, principal=self.principal, pace=self._pace(sought), read=advance
            )
            try:
                target.check_identity()
                expect((each.sources[0] for each in sought if each.sources), stores=self.facility.stores)
                for group in split(sought, self.pace):
                    copying.run(group)
                    self._count(asked, copying)
            except (StoreUnavailable, Conflict):
                return []  # the queue keeps them
            except StorageError as error:
                why = error.message
            return [done for one in asked if (done := self._end(one, copying, why)) is not None]

    def _begin(self, restores: Sequence[Restore]) -> None:
        queued = [each for each in restores if each.state is RestoreState.QUEUED]
        if queued:
            with self.facility.catalog.change(self.principal) as tx:
                for each in queued:
                    tx.update_restore(each.id, state=RestoreState.RUNNING)

    def _asked(self, restore: Restore) -> _Asked:
        view = self.facility.catalog.view(SERVICE)
        dataset = view.dataset(restore.dataset_id)
        files = [view.file(dataset.id, path) for path in restore.paths] or list(all_files(view, dataset.id))
        return _Asked(restore, dataset, files, _sought(self.facility, dataset, files, self.target_id))

    def _recall_order(self, sought: Sought) -> tuple[str, str, int]:
        if not sought.sources:
            return ("", "", 0)
        first = sought.sources[0]
        return (first.store_id, *recall_order(first.key))

    def _pace(self, sought: Sequence[Sought]) -> Pace:
        """One file after the other where a tape is read: it runs forward only once."""
        stores = {each.sources[0].store_id for each in sought if each.sources}
        is_tape = any(self.facility.stores[each].record.tier is Tier.TAPE for each in stores)
        return replace(self.pace, threads=1) if is_tape else self.pace

    def _count(self, asked: Sequence[_Asked], copying: Copying) -> None:
        with self.facility.catalog.change(self.principal) as tx:
            for one in asked:
                near = len(one.files) - sum(each.file.id not in copying.copied for each in one.sought)
                tx.update_restore(one.restore.id, files_done=near)

    def _end(self, asked: _Asked, copying: Copying, why: str) -> Restore | None:
        """Say that a request is done, or has failed, and tell who asked; None: it goes on later."""
        missing = [each.file for each in asked.sought if each.file.id not in copying.copied]
        if not why and any(file.path in copying.done.unavailable for file in missing):
            return None
        reasons = [copying.done.failed[file.path] for file in missing if file.path in copying.done.failed]
        error = why or "; ".join(f"{file.path}: {text}" for file, text in zip(missing[:3], reasons, strict=False))
        state = RestoreState.FAILED if missing else RestoreState.DONE
        if not missing and not asked.restore.paths:
            target = self.facility.stores[self.target_id]
            is_news = bool(asked.sought)
            keep_document(self.facility, asked.dataset, target, principal=self.principal, is_news=is_news)
        with self.facility.catalog.change(self.principal) as tx:
            tx.update_restore(
                asked.restore.id,
                state=state,
                files_done=len(asked.files) - len(missing),
                error=error if missing else "",
            )
            if mail := _mail(self.facility, asked, error if missing else ""):
                tx.queue_mail(mail)
        return self.facility.catalog.view(SERVICE).restore(asked.restore.id)


def _sought(facility: Facility, dataset: Dataset, files: Sequence[File] | None, target_id: str) -> list[Sought]:
    view = facility.catalog.view(SERVICE)
    station_id = view.experiment(dataset.experiment_id).station_id
    files = list(all_files(view, dataset.id)) if files is None else files
    replicas = by_file(view.replicas([file.id for file in files]))
    return seek(dataset, station_id, files, replicas, stores=facility.stores, target_id=target_id)


def _mail(facility: Facility, asked: _Asked, error: str) -> Mail | None:
    """Return what who asked is told; None when there is no address."""
    try:
        person = facility.catalog.view(SERVICE).person(asked.restore.created_by)
    except NotFound:
        return None
    if not is_address(person.email):
        return None
    name, restore = asked.dataset.name, asked.restore
    if error:
        subject = f"{name} could not be restored"
        text = f"Dataset {name} ({asked.dataset.id}) could not be restored.\n\n{error}\n"
    else:
        subject = f"{name} is back until {restore.cache_until:%Y-%m-%d}"
        text = (
            f"Dataset {name} ({asked.dataset.id}) is on store {restore.target_id} again, "
            f"{len(asked.files)} files, until {restore.cache_until:%Y-%m-%d} UTC.\n\n"
            f"To copy it to you: lightkeep get {asked.dataset.id}\n\n"
            "After that day it is in the archive only; it can be restored again.\n"
        )
    return Mail(f"restore-{restore.id}", (person.email,), subject, text)
