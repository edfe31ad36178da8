"""Runs: asked for, how they go, how they end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightkeep.catalog import schema, transitions
from lightkeep.catalog.text import to_json
from lightkeep.catalog.transaction import Transaction
from lightkeep.model.runs import Run, RunState


class RunChanges(Transaction):
    """The part of `Change` about runs."""

    def add_run(self, run: Run) -> Run:
        """Queue a run. NotFound when the dataset or the experiment is not there."""
        self._row(schema.dataset, run.dataset_id, "dataset")
        self._row(schema.experiment, run.experiment_id, "experiment")
        self._must_be_new(schema.run, run.id, "run")
        run = replace(
            run,
            state=RunState.QUEUED,
            created_at=self._clock.now(),
            created_by=run.created_by or self._principal.id,
        )
        values = {column: getattr(run, column) for column in schema.run.c.keys()}  # noqa: SIM118
        values.update(params=to_json(run.params), resolved=to_json(run.resolved), state=run.state.value)
        values.update(placement=to_json(run.placement))
        self._insert(schema.run, **values)
        detail = {"technique": run.technique, "dataset": run.dataset_id, "engine": run.engine}
        self._record("run.queued", run.id, run.experiment_id, detail)
        return run

    def update_run(
        self,
        run_id: str,
        *,
        state: RunState | None = None,
        progress: float | None = None,
        message: str | None = None,
        resolved: Mapping[str, Any] | None = None,
        placement: Mapping[str, Any] | None = None,
        result_id: str | None = None,
        error: str | None = None,
        engine: str | None = None,
    ) -> None:
        """Write down how a run goes. A change of state is an event; progress alone is not.

        A run that is over stays as it is: being told the same state again, or late progress, does nothing.

        Raises
        ------
        Conflict: the state may not follow the present one.
        """
        row = self._row(schema.run, run_id, "run")
        now = RunState(row["state"])
        if state is not None and state is not now:
            transitions.check(transitions.RUN, f"run {run_id}", now=now, then=state)
        elif now.is_over:
            return
        given = {
            "progress": progress,
            "message": message,
            "result_id": result_id,
            "error": error,
            "engine": engine,
        }
        values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        if resolved is not None:
            values["resolved"] = to_json(resolved)
        if placement is not None:
            values["placement"] = to_json(placement)
        if state is not None and state is not now:
            values["state"] = state.value
            values["started_at" if state is RunState.RUNNING else "ended_at"] = self._clock.now()
        if values:
            self._set(schema.run, run_id, **values)
        if "state" in values:
            detail = {"from": now, "result": result_id or "", "error": error or "", "message": message or ""}
            self._record(f"run.{state}", run_id, row["experiment_id"], detail)
