"""Acquisitions: what data come from, who runs it now, and how it goes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, ForeignKey, Index, RowMapping, Select, Table, UniqueConstraint, select

from lightkeep.catalog import schema, transitions
from lightkeep.catalog.columns import Instant, Words
from lightkeep.catalog.conditions import allowed
from lightkeep.catalog.page import Page
from lightkeep.catalog.text import to_json
from lightkeep.catalog.transaction import Transaction
from lightkeep.catalog.view_base import ViewBase
from lightkeep.model.acquisition import Acquisition, AcquisitionState, SourceKind, Statistics
from lightkeep.model.datasets import File
from lightkeep.model.errors import Conflict
from lightkeep.model.people import Verb
from lightkeep.policy import access

acquisition = Table(
    "acquisition",
    schema.tables,
    Column("id", Words, primary_key=True),
    Column("experiment_id", Words, ForeignKey("experiment.id"), nullable=False),
    Column("name", Words, nullable=False),
    Column("kind", Words, nullable=False),
    Column("options", Words, nullable=False),
    Column("host", Words, nullable=False),
    Column("state", Words, nullable=False),
    Column("error", Words, nullable=False),
    Column("statistics", Words, nullable=False),
    Column("holder", Words, nullable=False),
    Column("token", BigInteger, nullable=False),
    Column("lease_until", Instant),
    Column("created_by", Words, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    UniqueConstraint("experiment_id", "name", name="uq_acquisition_name"),
    Index("ix_acquisition_state", "state"),
)
_a, _e = acquisition.c, schema.experiment


class AcquisitionChanges(Transaction):
    """The part of `Change` about acquisitions."""

    def add_acquisition(self, new: Acquisition) -> Acquisition:
        """Define one. NotFound: no such experiment. Conflict: its id or name is taken there."""
        self._row(schema.experiment, new.experiment_id, "experiment")
        self._must_be_new(acquisition, new.id, "acquisition")
        same = select(_a.id).where(_a.experiment_id == new.experiment_id, _a.name == new.name)
        if self._connection.execute(same).first() is not None:
            raise Conflict(
                f"experiment {new.experiment_id} has an acquisition {new.name!r} already",
                remedy="give another name: --name",
            )
        made = Acquisition(
            new.id,
            new.experiment_id,
            new.name,
            new.kind,
            new.options,
            new.host,
            created_by=self._principal.id,
            created_at=self._clock.now(),
        )
        values = {column: getattr(made, column) for column in _a.keys()}  # noqa: SIM118
        texts = {
            "kind": made.kind.value,
            "state": made.state.value,
            "options": to_json(dict(made.options)),
            "statistics": json.dumps(asdict(made.statistics)),
        }
        self._insert(acquisition, **{**values, **texts})
        self._record("acquisition.defined", made.id, made.experiment_id, {"name": made.name, "kind": made.kind})
        return made

    def set_acquisition_state(self, id: str, state: AcquisitionState, *, error: str = "") -> None:  # noqa: A002
        """Start, stop or fail one; the state that it has already: nothing.

        Raises
        ------
        NotFound. Conflict: the state may not follow the present one.
        """
        row = self._row(acquisition, id, "acquisition")
        now = AcquisitionState(row["state"])
        if state is now:
            return
        transitions.check(transitions.ACQUISITION, f"acquisition {id}", now=now, then=state)
        time = "started_at" if state is AcquisitionState.RUNNING else "ended_at"
        self._set(acquisition, id, state=state.value, error=error, **{time: self._clock.now()})
        self._record(f"acquisition.{state}", id, row["experiment_id"], {"from": now, "error": error})

    def lease_acquisition(self, id: str, *, holder: str, until: datetime) -> int:  # noqa: A002
        """Take one over that no process has; return the token to show with each change. Each take is an event.

        Raises
        ------
        Conflict: it is not to run, or another process has it.
        """
        row = self._row(acquisition, id, "acquisition")
        if row["state"] != AcquisitionState.RUNNING.value:
            raise Conflict(f"acquisition {id} is {row['state']}", remedy=f"lightkeep acquire start {id}")
        if row["lease_until"] is not None and row["lease_until"] > self._clock.now():
            raise Conflict(
                f"acquisition {id} is run by {row['holder']}",
                remedy="stop it there; a dead one is replaced in seconds",
            )
        token = int(row["token"]) + 1
        self._set(acquisition, id, holder=holder, token=token, lease_until=until)
        self._record("acquisition.taken", id, row["experiment_id"], {"by": holder, "token": token})
        return token

    def hold_acquisition(
        self,
        id: str,  # noqa: A002
        token: int,
        *,
        until: datetime | None = None,
        statistics: Statistics | None = None,
    ) -> AcquisitionState:
        """Check that a token is the newest, keep the lease until a time, note how it goes; return what is wanted.

        Raises
        ------
        Conflict: another process has taken it over. What this change did is undone with it.
        """
        row = self._row(acquisition, id, "acquisition")
        if row["token"] != token:
            raise Conflict(f"acquisition {id} was taken over by {row['holder']}", state="taken over")
        values: dict[str, Any] = {} if until is None else {"lease_until": until}
        if statistics is not None:
            values["statistics"] = json.dumps(asdict(statistics))
        if values:
            self._set(acquisition, id, **values)
        return AcquisitionState(row["state"])

    def note_spool_removed(self, id: str, file: File) -> None:  # noqa: A002
        """Record that the spool's file is about to be removed from which this entry of a manifest was made."""
        row = self._row(acquisition, id, "acquisition")
        about = {"file": file.id, "dataset": file.dataset_id, "size": file.size, "sha256": file.sha256}
        self._record("acquisition.spool_removed", id, row["experiment_id"], about)

    def free_acquisition(self, id: str, token: int) -> None:  # noqa: A002
        """Give the lease back; a token that is not the newest: nothing."""
        row = self._row(acquisition, id, "acquisition")
        if row["token"] == token:
            self._set(acquisition, id, holder="", lease_until=None)


class AcquisitionViews(ViewBase):
    """The part of `View` about acquisitions."""

    def acquisitions(
        self,
        *,
        experiment_id: str = "",
        state: AcquisitionState | None = None,
        limit: int = 100,
        offset: int = 0,
    ) -> Page[Acquisition]:
        """Acquisitions of experiments on whose team one is, newest first."""
        found = self._acquisitions()
        if experiment_id:
            found = found.where(_a.experiment_id == experiment_id)
        if state is not None:
            found = found.where(_a.state == state.value)
        return self._page(found, (_a.created_at.desc(), _a.id.desc()), acquisition_of, limit, offset)

    def acquisition(self, id: str) -> Acquisition:  # noqa: A002
        """One acquisition. NotFound."""
        return self._one(self._acquisitions().where(_a.id == id), acquisition_of, f"acquisition {id!r}")

    def acquisition_named(self, experiment_id: str, name: str) -> Acquisition | None:
        """The acquisition of a name in an experiment, or None."""
        found = self._acquisitions().where(_a.experiment_id == experiment_id, _a.name == name)
        return next(iter(self._all(found, acquisition_of)), None)

    def _acquisitions(self) -> Select[Any]:
        """Return those of experiments on whose team one is: they name folders and hosts, which is not for all."""
        team = allowed(access.granted(self._principal, Verb.SEE))
        return select(acquisition).join_from(acquisition, _e, _e.c.id == _a.experiment_id).where(team)


def acquisition_of(row: RowMapping | Mapping[str, Any]) -> Acquisition:
    """Return the acquisition of a row."""
    kept = Statistics(**json.loads(row["statistics"]))
    made = Acquisition(**{name: row[name] for name in row if name not in ("statistics", "options")})
    return replace(
        made,
        kind=SourceKind(row["kind"]),
        state=AcquisitionState(row["state"]),
        options=json.loads(row["options"]),
        statistics=kept,
    )
