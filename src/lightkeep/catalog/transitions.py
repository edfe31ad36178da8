"""Which state may follow which. The drawings are in the docstrings of the states."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

from lightkeep.model.acquisition import AcquisitionState as Ac
from lightkeep.model.datasets import DatasetState
from lightkeep.model.errors import Conflict
from lightkeep.model.experiments import ExperimentState as Ex
from lightkeep.model.retention import RestoreState
from lightkeep.model.runs import RunState
from lightkeep.model.stores import ReplicaState as Re

S = TypeVar("S", bound=StrEnum)

EXPERIMENT: Mapping[Ex, frozenset[Ex]] = {
    Ex.PLANNED: frozenset({Ex.OPEN}),
    Ex.OPEN: frozenset({Ex.CLOSED}),
    Ex.CLOSED: frozenset({Ex.RETAINED, Ex.OPEN}),  # opened again: for what came late
    Ex.RETAINED: frozenset({Ex.EXPIRING, Ex.OPEN}),
    Ex.EXPIRING: frozenset({Ex.RETAINED, Ex.EXPIRED, Ex.OPEN}),
    Ex.EXPIRED: frozenset(),
}

DATASET: Mapping[DatasetState, frozenset[DatasetState]] = {
    DatasetState.RECEIVING: frozenset({DatasetState.COMPLETE}),
    DatasetState.COMPLETE: frozenset({DatasetState.WITHDRAWN}),
    DatasetState.WITHDRAWN: frozenset(),
}

REPLICA: Mapping[Re, frozenset[Re]] = {
    Re.PLANNED: frozenset({Re.COPYING}),
    Re.COPYING: frozenset({Re.PRESENT}),
    Re.PRESENT: frozenset({Re.VERIFIED, Re.SUSPECT}),
    Re.VERIFIED: frozenset({Re.VERIFIED, Re.SUSPECT, Re.DELETE_PENDING}),  # verified again, later
    Re.SUSPECT: frozenset({Re.VERIFIED, Re.CORRUPT}),
    Re.CORRUPT: frozenset(),
    Re.DELETE_PENDING: frozenset({Re.VERIFIED, Re.DELETED}),
    Re.DELETED: frozenset(),
}

RUN: Mapping[RunState, frozenset[RunState]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.CANCELLED, RunState.FAILED}),
    RunState.RUNNING: frozenset({RunState.DONE, RunState.FAILED, RunState.CANCELLED, RunState.STOPPED_EARLY}),
    RunState.DONE: frozenset(),
    RunState.FAILED: frozenset(),
    RunState.CANCELLED: frozenset(),
    RunState.STOPPED_EARLY: frozenset(),
}

RESTORE: Mapping[RestoreState, frozenset[RestoreState]] = {
    RestoreState.QUEUED: frozenset({RestoreState.RUNNING, RestoreState.FAILED}),
    RestoreState.RUNNING: frozenset({RestoreState.DONE, RestoreState.FAILED}),
    RestoreState.DONE: frozenset(),
    RestoreState.FAILED: frozenset(),
}

ACQUISITION: Mapping[Ac, frozenset[Ac]] = {
    Ac.DEFINED: frozenset({Ac.RUNNING}),
    Ac.RUNNING: frozenset({Ac.STOPPED, Ac.FAILED}),
    Ac.STOPPED: frozenset({Ac.RUNNING}),
    Ac.FAILED: frozenset({Ac.RUNNING}),
}


def check(table: Mapping[S, frozenset[S]], what: str, *, now: S, then: S) -> None:
    """Raise Conflict, naming the thing and both states, when `then` may not follow `now`."""
    if then not in table[now]:
        follow = ", ".join(sorted(table[now])) or "nothing"
        raise Conflict(f"{what} is {now} and cannot become {then}; after {now} comes {follow}", state=now.value)
