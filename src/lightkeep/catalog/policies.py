"""Retention policies: every version that was ever adopted. A text never changes; a new text is a new version."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from sqlalchemy import Connection, RowMapping, func, select

from lightkeep.catalog import schema
from lightkeep.catalog.page import Page
from lightkeep.catalog.transaction import Transaction
from lightkeep.catalog.view_base import ViewBase
from lightkeep.model.errors import Conflict
from lightkeep.model.retention import PolicyVersion
from lightkeep.policy import document
from lightkeep.policy.retention import Policy

_p = schema.policy.c


class PolicyChanges(Transaction):
    """The part of `Change` about policies."""

    def adopt_policy(self, text: str) -> PolicyVersion:
        """Adopt a text as the next version of the policy that it names. The newest version's own text: nothing.

        Raises
        ------
        InvalidInput: the text is no policy.
        """
        policy = document.parse(text)
        newest = next((each for each in _newest(self._connection) if each.id == policy.id), None)
        if newest is not None and newest.text == text:
            return newest
        version = PolicyVersion(
            policy.id, newest.version + 1 if newest else 1, text, self._principal.id, self._clock.now()
        )
        self._insert(
            schema.policy,
            id=version.id,
            version=version.version,
            text=text,
            author=version.author,
            created_at=version.created_at,
        )
        self._record("policy.adopted", version.stamp, "", {"text": text})
        return version

    def assign_policy(self, experiment_id: str, policy_id: str) -> None:
        """Give an experiment a policy of its own; empty: the one that its station follows.

        Raises
        ------
        NotFound: no such experiment. Conflict: no such policy was adopted.
        """
        row = self._row(schema.experiment, experiment_id, "experiment")
        known = select(_p.id).where(_p.id == policy_id).limit(1)
        if policy_id and self._connection.execute(known).first() is None:
            raise Conflict(f"no policy {policy_id} was adopted", remedy="`lightkeep policy list` shows them")
        if row["policy_id"] == policy_id:
            return
        self._set(schema.experiment, experiment_id, policy_id=policy_id)
        self._record(
            "experiment.policy_assigned",
            experiment_id,
            experiment_id,
            {"policy": policy_id, "from": row["policy_id"]},
        )


class PolicyViews(ViewBase):
    """The part of `View` about policies: who is signed in may read all of them."""

    def policy_versions(self, policy_id: str = "", *, limit: int = 100, offset: int = 0) -> Page[PolicyVersion]:
        """Versions by policy, the newest first; of one policy, or of all."""
        found = select(schema.policy)
        if self._principal.is_anonymous:
            found = found.where(_p.version < 0)
        if policy_id:
            found = found.where(_p.id == policy_id)
        return self._page(found, (_p.id, _p.version.desc()), _version_of, limit, offset)

    def policy_version(self, policy_id: str, version: int = 0) -> PolicyVersion:
        """One version of a policy; 0 means the newest. NotFound."""
        found = select(schema.policy).where(_p.id == policy_id)
        if self._principal.is_anonymous:
            found = found.where(_p.version < 0)
        if version:
            found = found.where(_p.version == version)
        named = f"policy {policy_id!r}" if not version else f"version {version} of policy {policy_id!r}"
        return self._one(found.order_by(_p.version.desc()).limit(1), _version_of, named)

    def policies(self) -> list[Policy]:
        """The newest version of each policy, as it is applied."""
        with self._read() as connection:
            return newest_policies(connection)


def newest_policies(connection: Connection) -> list[Policy]:
    """Return the newest version of each policy, as it is applied."""
    return [_adopted(version) for version in _newest(connection)]


def _newest(connection: Connection) -> Sequence[PolicyVersion]:
    last = select(_p.id, func.max(_p.version).label("version")).group_by(_p.id).subquery()
    found = select(schema.policy).join(last, (last.c.id == _p.id) & (last.c.version == _p.version)).order_by(_p.id)
    return [_version_of(row) for row in connection.execute(found).mappings()]


def _version_of(row: RowMapping) -> PolicyVersion:
    return PolicyVersion(**row)


@lru_cache(maxsize=64)
def _adopted(version: PolicyVersion) -> Policy:
    return document.adopted(version)
