"""An experiment after it was registered: what changes, and what its data were made from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import select

from lightkeep.catalog import rows, schema
from lightkeep.catalog.text import to_json
from lightkeep.catalog.transaction import Transaction
from lightkeep.catalog.view_base import ViewBase
from lightkeep.model.errors import InvalidInput


class ExperimentChanges(Transaction):
    """The part of `Change` about an experiment's life beside its state."""

    def revise_experiment(
        self,
        experiment_id: str,
        *,
        title: str | None = None,
        starts_at: datetime | None = None,
        ends_at: datetime | None = None,
        identifiers: Mapping[str, str] | None = None,
    ) -> None:
        """Correct what is written about an experiment; what is None, or the same as before, stays.

        `identifiers` are added to those that it has. Nothing new: no event.
        """
        row = self._row(schema.experiment, experiment_id, "experiment")
        known = json.loads(row["identifiers"])
        given = {
            "title": title,
            "starts_at": starts_at,
            "ends_at": ends_at,
            "identifiers": to_json({**known, **identifiers}) if identifiers else None,
        }
        values = {name: value for name, value in given.items() if value is not None and value != row[name]}
        if not values:
            return
        searched = rows.experiment_searched(rows.experiment_of({**row, **values}))
        self._set(schema.experiment, experiment_id, **values, searched=searched)
        detail = {
            name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()
        }
        self._record("experiment.revised", experiment_id, experiment_id, detail)

    def release_experiment(self, experiment_id: str, *, at: datetime | None) -> None:
        """Let everybody see and read an experiment from a time on; None takes that back. Again: nothing."""
        row = self._row(schema.experiment, experiment_id, "experiment")
        if row["released_at"] == at:
            return
        if at is not None and at.tzinfo is None:
            raise InvalidInput("a release needs a time with its zone")
        self._set(schema.experiment, experiment_id, released_at=at)
        verb = "experiment.released" if at is not None else "experiment.release_withdrawn"
        before = row["released_at"]
        detail = {"from": at.isoformat() if at else "", "before": before.isoformat() if before else ""}
        self._record(verb, experiment_id, experiment_id, detail)


class ExperimentViews(ViewBase):
    """The part of `View` about where an experiment's data come from."""

    def input_experiments(self, experiment_id: str) -> list[str]:
        """Return other experiments whose data went into datasets of this one, seen or not: for who releases it."""
        d, parent = schema.dataset, schema.dataset.alias("parent")
        link = schema.dataset_parent.c
        found = (
            select(parent.c.experiment_id)
            .join_from(d, schema.dataset_parent, link.dataset_id == d.c.id)
            .join(parent, parent.c.id == link.parent_id)
            .where(d.c.experiment_id == experiment_id, parent.c.experiment_id != experiment_id)
            .distinct()
            .order_by(parent.c.experiment_id)
        )
        with self._read() as connection:
            return list(connection.scalars(found))
