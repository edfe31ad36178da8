"""How much of each dataset lies on which store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import case, func, select

from lightkeep.catalog import schema
from lightkeep.catalog.holds import hold_of
from lightkeep.catalog.view_base import ViewBase
from lightkeep.model.datasets import DatasetKind, DatasetState
from lightkeep.model.experiments import ExperimentState
from lightkeep.model.retention import Hold
from lightkeep.model.stores import ReplicaState
from lightkeep.policy.retention import ClockFacts, Facts

_d, _e, _f, _r = schema.dataset.c, schema.experiment.c, schema.file.c, schema.replica.c
_NEVER_THERE = (ReplicaState.PLANNED.value, ReplicaState.COPYING.value)
_GOING = (ReplicaState.DELETE_PENDING.value, ReplicaState.DELETED.value)


class Share(NamedTuple):
    """What of a dataset lies on one store."""

    store_id: str
    files: int
    """Replicas whose bytes are there, good or not."""
    size: int
    """Bytes of these."""
    verified: int
    """Replicas among them that were read back and found equal."""
    trashed: int
    """Replicas that are on their way out and can be taken back."""
    deleted: int
    """Replicas that were here once."""
    oldest: datetime | None
    """When the one that was read back longest ago was."""


@dataclass(frozen=True, slots=True)
class Lying:
    """A dataset, what a policy looks at, and where it lies."""

    dataset_id: str
    experiment_id: str
    policy_id: str
    """The experiment's own; empty: that of its station."""
    files: int
    """In its manifest, every version counted."""
    facts: Facts
    clock: ClockFacts
    shares: tuple[Share, ...]
    """By store."""


class WhereaboutsViews(ViewBase):
    """The part of `View` that says where datasets lie."""

    def lying(self, *, dataset_id: str = "", experiment_id: str = "") -> list[Lying]:
        """Return every dataset that one may see, or one of them, with where it lies; three statements."""
        found = (
            select(
                _d.number, _d.id, _d.experiment_id, _d.kind, _d.technique, _d.size, _d.files, _e.station_id,
                _e.policy_id, _e.state, _e.ends_at, _e.closed_at,
            )
            .join_from(schema.dataset, schema.experiment, _e.id == _d.experiment_id)
            .where(_d.state != DatasetState.RECEIVING.value, self._see)
            .order_by(_d.number)
        )  # fmt: skip
        newest = select(_d.experiment_id, func.max(_d.completed_at)).where(_d.kind == DatasetKind.RAW.value)
        shares = _shares()
        if dataset_id:
            found = found.where(_d.id == dataset_id)
            number = select(_d.number).where(_d.id == dataset_id).scalar_subquery()
            shares = shares.where(_f.dataset_number == number)
        elif experiment_id:
            found = found.where(_d.experiment_id == experiment_id)
            shares = shares.where(
                _f.dataset_number.in_(select(_d.number).where(_d.experiment_id == experiment_id))
            )
        with self._read() as connection:
            datasets = connection.execute(found).all()
            if dataset_id or experiment_id:
                newest = newest.where(_d.experiment_id.in_({row.experiment_id for row in datasets}))
            last = {row[0]: row[1] for row in connection.execute(newest.group_by(_d.experiment_id))}
            by_number: dict[int, list[Share]] = {}
            for row in connection.execute(shares):
                by_number.setdefault(row[0], []).append(Share(*row[1:]))
        return [_lying(row, last.get(row.experiment_id), by_number.get(row.number, [])) for row in datasets]

    def holds_standing(self, at: datetime) -> list[Hold]:
        """Return every hold that stands at a time, on whatever: for the service, which simulates."""
        c = schema.hold.c
        found = select(schema.hold).where(c.released_at.is_(None))
        return [hold for hold in self._all(found, hold_of) if hold.stands(at)]


def _shares() -> Any:
    state = _r.state
    there = state.not_in([*_NEVER_THERE, *_GOING])
    return (
        select(
            _f.dataset_number,
            _r.store_id,
            func.sum(case((there, 1), else_=0)),
            func.sum(case((there, _f.size), else_=0)),
            func.sum(case((state == ReplicaState.VERIFIED.value, 1), else_=0)),
            func.sum(case((state == ReplicaState.DELETE_PENDING.value, 1), else_=0)),
            func.sum(case((state == ReplicaState.DELETED.value, 1), else_=0)),
            func.min(case((there, _r.verified_at), else_=None)),
        )
        .join_from(schema.replica, schema.file, _f.id == _r.file_id)
        .group_by(_f.dataset_number, _r.store_id)
        .order_by(_f.dataset_number, _r.store_id)
    )


def _lying(row: Any, newest_raw_at: datetime | None, shares: list[Share]) -> Lying:
    return Lying(
        row.id,
        row.experiment_id,
        row.policy_id,
        row.files,
        Facts(row.station_id, row.technique, DatasetKind(row.kind), row.size),
        ClockFacts(ExperimentState(row.state), row.ends_at, row.closed_at, newest_raw_at),
        tuple(
            Share(s.store_id, int(s.files), int(s.size), int(s.verified), int(s.trashed), int(s.deleted), s.oldest)
            for s in shares
        ),
    )
