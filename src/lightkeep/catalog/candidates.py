"""What may have to go from a store, found by sets: datasets by their dates, then their replicas page by page.

Nothing here decides: it only leaves out what `policy.purge.may_delete` would refuse anyhow.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import and_, func, select, tuple_

from lightkeep.catalog import schema
from lightkeep.catalog.policies import newest_policies
from lightkeep.catalog.text import encode_path
from lightkeep.catalog.view_base import ViewBase
from lightkeep.model.datasets import DatasetKind, DatasetState
from lightkeep.model.experiments import ExperimentState
from lightkeep.model.stores import ReplicaState, Tier
from lightkeep.policy.retention import RUNNING, ClockFacts, Expiry, Facts, Policy, Rule, applicable, expiry

_d, _e, _f, _r = schema.dataset.c, schema.experiment.c, schema.file.c, schema.replica.c
_PAGE: Final = 1_000


@dataclass(frozen=True, slots=True)
class Expiring:
    """A dataset with a date after which its replicas on stores of a tier may go."""

    number: int
    dataset_id: str
    experiment_id: str
    facts: Facts
    policy: Policy
    rule: Rule
    expiry: Expiry
    is_rerunnable: bool
    """True: a run made it from datasets that are kept, and can again."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A verified replica on the store."""

    replica_id: str
    file_id: str
    key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Member:
    """A replica in an archive unit."""

    candidate: Candidate
    state: ReplicaState
    name: str
    """Path and dataset, for a person."""


class CandidateViews(ViewBase):
    """The part of `View` for planners; see all: for the service only."""

    def expiring(self, tier: Tier) -> list[Expiring]:
        """Every dataset that some rule gives a date on stores of a tier, in no order."""
        columns = (
            _d.number, _d.id, _d.experiment_id, _d.technique, _d.kind, _d.size, _d.run_id,
            _e.station_id, _e.policy_id, _e.state, _e.ends_at, _e.closed_at,
        )  # fmt: skip
        running = _e.state.in_([state.value for state in RUNNING])
        found = select(*columns).join_from(schema.dataset, schema.experiment, _e.id == _d.experiment_id)
        newest = select(_d.experiment_id, func.max(_d.completed_at)).where(_d.kind == DatasetKind.RAW.value)
        with self._read() as connection:
            policies = newest_policies(connection)
            if not policies:
                return []
            last = {row[0]: row[1] for row in connection.execute(newest.group_by(_d.experiment_id))}
            rows = connection.execute(found.where(_d.state != DatasetState.RECEIVING.value, running))
            made = (_expiring(row, policies, last.get(row.experiment_id), tier) for row in rows)
            return [each for each in made if each is not None]

    def candidates(self, number: int, store_id: str, *, need_copy: bool) -> Iterator[list[Candidate]]:
        """Yield a dataset's verified replicas on a store page by page, by path.

        Parameters
        ----------
        number: of the dataset.
        need_copy: leave out those of which no other store has a verified copy.
        """
        other = schema.replica.alias("other")
        copy = select(other.c.id).where(
            other.c.file_id == _f.id, other.c.store_id != store_id, other.c.state == ReplicaState.VERIFIED.value
        )
        found = (
            select(_f.path, _f.version, _r.id, _r.file_id, _r.key, _f.size, _f.sha256)
            .join_from(schema.file, schema.replica, _r.file_id == _f.id)
            .where(_f.dataset_number == number, _r.store_id == store_id, _r.state == ReplicaState.VERIFIED.value)
            .order_by(_f.path, _f.version, _r.id)
            .limit(_PAGE)
        )
        if need_copy:
            found = found.where(copy.exists())
        last: tuple[Any, ...] | None = None
        while True:
            after = found if last is None else found.where(tuple_(_f.path, _f.version, _r.id) > last)
            with self._read() as connection:
                rows = connection.execute(after).all()
            if not rows:
                return
            yield [
                Candidate(row.id, row.file_id, os.fsdecode(row.key), row.size, bytes(row.sha256).hex())
                for row in rows
            ]
            last = tuple(rows[-1][:3])

    def members(self, store_id: str, key: str) -> list[Member]:
        """Every replica in an archive unit that is not deleted, in the order of dataset and path.

        Parameters
        ----------
        key: of the unit's tar. One that the catalogue does not know has none.

        Notes: only those of experiments that one may see.
        """
        unit, first = schema.archive_unit.c, encode_path(f"{key}!")
        inside = and_(_r.key >= first, _r.key < first[:-1] + b'"', _r.state != ReplicaState.DELETED.value)
        found = (
            select(_r.id, _r.file_id, _r.key, _r.state, _f.size, _f.sha256, _f.path, _d.name)
            .join_from(schema.archive_unit, schema.experiment, _e.id == unit.experiment_id)
            .join(schema.dataset, _d.experiment_id == _e.id)
            .join(schema.file, _f.dataset_number == _d.number)
            .join(schema.replica, and_(_r.file_id == _f.id, _r.store_id == store_id))
            .where(unit.store_id == store_id, unit.key == encode_path(key), inside, self._see)
            .order_by(_d.id, _f.path, _f.version, _r.id)
        )
        with self._read() as connection:
            rows = connection.execute(found).all()
        return [
            Member(
                Candidate(row.id, row.file_id, os.fsdecode(row.key), row.size, bytes(row.sha256).hex()),
                ReplicaState(row.state),
                f"{os.fsdecode(row.path)} of {row.name}",
            )
            for row in rows
        ]

    def bytes_held(self, store_id: str) -> int:
        """Return the bytes that a store holds by the catalogue; what is in the trash counts as gone."""
        gone = [ReplicaState.PLANNED.value, ReplicaState.DELETE_PENDING.value, ReplicaState.DELETED.value]
        held = select(func.coalesce(func.sum(_f.size), 0)).join_from(
            schema.replica, schema.file, _f.id == _r.file_id
        )
        with self._read() as connection:
            found = connection.execute(held.where(_r.store_id == store_id, _r.state.not_in(gone)))
            return int(found.scalar_one())


def _expiring(row: Any, policies: list[Policy], newest_raw_at: Any, tier: Tier) -> Expiring | None:
    policy = applicable(policies, policy_id=row.policy_id, station_id=row.station_id)
    if policy is None:
        return None
    facts = Facts(row.station_id, row.technique, DatasetKind(row.kind), row.size)
    clock = ClockFacts(ExperimentState(row.state), row.ends_at, row.closed_at, newest_raw_at)
    limit = expiry(policy, clock, facts, tier=tier)
    rule = policy.rule_for(facts)
    if limit.at is None or rule is None:
        return None
    is_rerunnable = facts.kind is DatasetKind.DERIVED and bool(row.run_id)
    return Expiring(row.number, row.id, row.experiment_id, facts, policy, rule, limit, is_rerunnable)
