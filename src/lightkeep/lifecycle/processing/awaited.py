"""Runs on data that are in the archive only: they wait for the data to come back, then begin.

    asked for ──> queued, "waits for ..." ── the restore ends ──> queued ──> running ──> ...

What a run waits for is not kept with it: it follows from where its data are and from the restores that are under
way. So a worker that starts anew, and a restore that somebody else asked for, need nothing more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from lightkeep.lifecycle.processing import inputs
from lightkeep.lifecycle.replicas import restore
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import Archived, Conflict, NotFound, RunFailed, StorageError
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.retention import Restore, RestoreState
from lightkeep.model.runs import LIVE, Run
from lightkeep.model.workflows import COMMAND

if TYPE_CHECKING:
    from lightkeep.facility import Facility

_UNDER_WAY: Final = (RestoreState.QUEUED, RestoreState.RUNNING)


def ask(facility: Facility, run: Run, *, principal: Principal) -> Run:
    """Ask for what a run works on to be near; return the run, with what it waits for in its message.

    All near: nothing is asked for, and the run is as it was.

    Raises
    ------
    Archived: it is far, and the principal may not have it back.
    """
    for dataset_id, far in list(_far(facility, run)):
        try:
            restore.request(facility, principal=principal, dataset_id=dataset_id)
        except Conflict as error:  # it came back just now; or it is where nothing here can open it
            if any(each == dataset_id for each, _ in _far(facility, run)):
                raise far from error
    waits = under_way(facility, run)
    names = [facility.catalog.view(SERVICE).dataset(each.dataset_id).name for each in waits]
    return replace(run, message=f"waits until {', '.join(names)} is back from the archive") if names else run


def far(facility: Facility, datasets: Iterable[Dataset]) -> list[Dataset]:
    """Return the datasets on which a run would have to wait, because they are in the archive only."""
    return [each for each in datasets if _archived(facility, each) is not None]


def under_way(facility: Facility, run: Run) -> list[Restore]:
    """Return the restores that a run waits for, one for each dataset that is far and on its way back."""
    view = facility.catalog.view(SERVICE)
    asked = [
        found[0]
        for dataset_id in _datasets(run)
        if (found := view.restores(dataset_id=dataset_id, states=_UNDER_WAY, limit=1).items)
    ]
    far = {dataset_id for dataset_id, _ in _far(facility, run)} if asked else set()
    return [each for each in asked if each.dataset_id in far]


def check(facility: Facility, run: Run) -> None:
    """Raise RunFailed naming why something that a run needs could not be brought back."""
    for dataset_id, far in _far(facility, run):
        last = facility.catalog.view(SERVICE).restores(dataset_id=dataset_id, limit=1).items
        if last and last[0].state is RestoreState.FAILED:
            raise RunFailed(f"{far.message}, and could not be restored: {last[0].error}", remedy=far.remedy)


def _datasets(run: Run) -> list[str]:
    """Return the ids of the datasets that a run reads."""
    if run.engine == LIVE:
        return []
    given = {} if run.technique == COMMAND else inputs.formats_of(run.technique)
    return [run.dataset_id, *(str(run.params[name]) for name in given if run.params.get(name))]


def _far(facility: Facility, run: Run) -> Iterator[tuple[str, Archived]]:
    """Return the datasets of a run that are in the archive only, each with what to say of it."""
    view = facility.catalog.view(SERVICE)
    for dataset_id in _datasets(run):
        error = _archived(facility, view.dataset(dataset_id))
        if error is not None:
            yield dataset_id, error


def _archived(facility: Facility, dataset: Dataset) -> Archived | None:
    """Return what to say of a dataset that is in the archive only, else None."""
    try:
        with suppress(NotFound, StorageError):  # that it cannot be read now is the run's own failure
            local_path(facility, dataset.id, dataset.main_file)
    except Archived as error:
        return error
    return None
