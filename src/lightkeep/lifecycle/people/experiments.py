"""The life of an experiment: created, opened, closed, kept for as long as its policy says; released to the public.

    planned -> open -> closed -> retained <-> expiring -> expired          opened again: from any but expired
    released: from a time on everybody may see and read it, in any of these states

Each verb asks `policy.access` first, on behalf of the principal, and leaves one event. Records are never deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from lightkeep.catalog import query
from lightkeep.lifecycle.people.set_up import check_name
from lightkeep.model.datasets import Dataset, DatasetKind
from lightkeep.model.errors import Conflict, Forbidden, InvalidInput, StorageError
from lightkeep.model.experiments import Experiment, ExperimentState
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.retention import Hold

if TYPE_CHECKING:
    from lightkeep.facility import Facility
    from lightkeep.storage.posix import PosixStore

_PAGE = 1_000


@dataclass(frozen=True, slots=True)
class Closed:
    """What closing, or opening again, did on the stores."""

    experiment: Experiment
    files: int
    """Raw files on managed stores whose folders can no longer be written, or can again."""
    skipped: tuple[str, ...] = ()
    """Why a store was left out, one sentence each: do it again when the store is back."""


def create(facility: Facility, experiment: Experiment, *, principal: Principal) -> None:
    """Register an experiment. Needs `write` on its station; Conflict when it exists."""
    check_name(experiment.id, "an experiment")
    _check_window(experiment.id, experiment.starts_at, experiment.ends_at)
    view = facility.catalog.view(principal)
    view.station(experiment.station_id)
    view.require(Verb.WRITE, station_id=experiment.station_id)
    with facility.catalog.change(principal) as tx:
        tx.add_experiment(experiment)


def open_(facility: Facility, experiment_id: str, *, principal: Principal) -> Closed:
    """Let an experiment take raw data: a planned one for the first time, a closed one again. Idempotent.

    Needs `write` on it, and `manage` to open it again: the clock of its policy stops until it is closed anew.
    """
    from lightkeep.storage.posix_protect import unprotect

    view = facility.catalog.view(principal)
    state = view.experiment(experiment_id).state
    again = state not in (ExperimentState.PLANNED, ExperimentState.OPEN)
    view.require(Verb.MANAGE if again else Verb.WRITE, experiment_id=experiment_id)
    if state is not ExperimentState.OPEN:
        with facility.catalog.change(principal) as tx:
            tx.set_experiment_state(experiment_id, ExperimentState.OPEN)
    return _each_raw_folder(facility, experiment_id, principal, unprotect)


def close(facility: Facility, experiment_id: str, *, principal: Principal, anyway: bool = False) -> Closed:
    """Close an experiment: it takes no raw data any more, and the clock of its policy starts. Idempotent.

    The raw data's folders on managed stores become read-only; what was registered in place stays as it is.

    Parameters
    ----------
    anyway: also while raw data are still coming in; what is on its way then may still be completed.

    Raises
    ------
    Conflict: raw data are still coming in, or its state does not allow it.
    """
    from lightkeep.storage.posix_protect import protect

    view = facility.catalog.view(principal)
    view.require(Verb.WRITE, experiment_id=experiment_id)
    if view.experiment(experiment_id).state in (ExperimentState.OPEN, ExperimentState.PLANNED):
        waiting = view.datasets(query.parse("state:receiving kind:raw"), experiment_id=experiment_id, limit=3)
        if waiting.total and not anyway:
            raise Conflict(
                f"experiment {experiment_id} is still receiving {waiting.total} raw datasets, first of all "
                f"{waiting.items[0].name}",
                remedy="let the ingest end, or run it again; `--anyway` closes it all the same",
            )
        with facility.catalog.change(principal) as tx:
            tx.set_experiment_state(experiment_id, ExperimentState.CLOSED)
    return _each_raw_folder(facility, experiment_id, principal, protect)


def extend(facility: Facility, experiment_id: str, *, until: datetime, reason: str, principal: Principal) -> Hold:
    """Keep everything of an experiment at least until a time: a hold of kind extension. Needs `write` on it."""
    from lightkeep.lifecycle.retention import holds

    if until <= facility.clock.now():
        raise InvalidInput(f"{until:%Y-%m-%d} is not in the future", remedy="name a later day")
    return holds.extend(facility, experiment_id, until=until, reason=reason, principal=principal)


def release(
    facility: Facility, experiment_id: str, *, principal: Principal, at: datetime | None = None
) -> Experiment:
    """Let everybody see and read an experiment, from now on or from a later time: an embargo (S4: a logged act).

    Nothing else makes an experiment public; reads compare the time themselves. Needs `share` on it, and on every
    experiment that its results were made from and that is not public by then.

    Raises
    ------
    Conflict: it is not closed, so that more may come that nobody has looked at.
    Forbidden: a result in it was made from data that the principal may not share.
    """
    at = at or facility.clock.now()
    view = facility.catalog.view(principal)
    view.require(Verb.SHARE, experiment_id=experiment_id)
    state = view.experiment(experiment_id).state
    if state in (ExperimentState.PLANNED, ExperimentState.OPEN):
        raise Conflict(
            f"experiment {experiment_id} is {state}: it can be released when it is closed",
            remedy=f"lightkeep experiment close {experiment_id}",
        )
    for other in view.input_experiments(experiment_id):
        is_public = facility.catalog.view(SERVICE).experiment(other).is_public(at)
        if not is_public and not view.can(Verb.SHARE, experiment_id=other):
            raise Forbidden(
                f"results in {experiment_id} were made from data of another experiment that you may not share",
                remedy="ask the facility's staff to release it",
            )
    with facility.catalog.change(principal) as tx:
        tx.release_experiment(experiment_id, at=at)
    return facility.catalog.view(principal).experiment(experiment_id)


def withdraw_release(facility: Facility, experiment_id: str, *, principal: Principal) -> Experiment:
    """Show an experiment only to those with a role on it again, from the next request on. Needs `share` on it."""
    view = facility.catalog.view(principal)
    view.require(Verb.SHARE, experiment_id=experiment_id)
    with facility.catalog.change(principal) as tx:
        tx.release_experiment(experiment_id, at=None)
    return facility.catalog.view(principal).experiment(experiment_id)


def _check_window(experiment_id: str, starts_at: datetime | None, ends_at: datetime | None) -> None:
    if starts_at and ends_at and ends_at <= starts_at:
        raise InvalidInput(
            f"experiment {experiment_id} would end before it starts", remedy="exchange the two times"
        )


def _each_raw_folder(
    facility: Facility, experiment_id: str, principal: Principal, change: Callable[[PosixStore, str], int]
) -> Closed:
    """Change the raw datasets' folders on every managed POSIX store that can be reached."""
    from lightkeep.storage.posix import PosixStore

    view = facility.catalog.view(principal)
    experiment = view.experiment(experiment_id)
    raw = _raw_datasets(facility, experiment_id, principal)
    files, skipped = 0, []
    for record in view.stores():
        if record.kind != "posix" or not record.is_managed:
            continue
        store = facility.stores[record.id]
        if not isinstance(store, PosixStore):
            continue
        try:
            for dataset in raw:
                files += change(store, f"{experiment.station_id}/{experiment.id}/{dataset.name}")
        except StorageError as error:
            skipped.append(error.message)
    return Closed(experiment, files, tuple(skipped))


def _raw_datasets(facility: Facility, experiment_id: str, principal: Principal) -> Sequence[Dataset]:
    found: list[Dataset] = []
    view = facility.catalog.view(principal)
    while True:
        page = view.datasets(
            query.parse("state:any"),
            experiment_id=experiment_id,
            kind=DatasetKind.RAW,
            limit=_PAGE,
            offset=len(found),
            order="name",
        )
        found += page.items
        if not page.items:
            return found
