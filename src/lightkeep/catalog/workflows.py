"""Workflows, every version that was ever adopted, and their flows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import lru_cache

from sqlalchemy import Connection, RowMapping, Select, func, select

from lightkeep.catalog import rows, schema
from lightkeep.catalog.page import Page
from lightkeep.catalog.transaction import Transaction
from lightkeep.catalog.view_base import ViewBase
from lightkeep.model.errors import Conflict
from lightkeep.model.runs import Run, RunState
from lightkeep.model.workflows import Flow, FlowState, Workflow, WorkflowVersion
from lightkeep.policy import workflow_document

_w, _f, _r = schema.workflow.c, schema.flow.c, schema.run.c


class WorkflowChanges(Transaction):
    """The part of `Change` about workflows."""

    def adopt_workflow(self, text: str) -> WorkflowVersion:
        """Adopt a text as the next version of the workflow that it names. The newest version's own text: nothing.

        Raises
        ------
        InvalidInput: the text is no workflow.
        """
        workflow = workflow_document.parse(text)
        newest = next((each for each in _newest(self._connection) if each.id == workflow.id), None)
        if newest is not None and newest.text == text:
            return newest
        number = newest.version + 1 if newest else 1
        version = WorkflowVersion(workflow.id, number, text, self._principal.id, self._clock.now())
        self._insert(schema.workflow, **asdict(version))
        self._record("workflow.adopted", version.stamp, "", {"text": text})
        return version

    def begin_flow(self, flow: Flow) -> bool:
        """Begin a flow; False when one began by itself on this dataset before, and this one would too."""
        known = (_f.workflow_id == flow.workflow_id) & (_f.dataset_id == flow.dataset_id)
        if not flow.trigger.startswith("hand:"):
            known &= ~_f.trigger.startswith("hand:")
            if self._connection.execute(select(_f.id).where(known)).first():
                return False
        self._insert(schema.flow, **{**asdict(flow), "created_at": self._clock.now()})
        detail = {"workflow": f"{flow.workflow_id}@{flow.version}", "dataset": flow.dataset_id}
        self._record("flow.running", flow.id, flow.experiment_id, {**detail, "trigger": flow.trigger})
        return True

    def update_flow(self, flow_id: str, state: FlowState, message: str) -> bool:
        """Write down how a flow goes; True when its state changed. What is done or cancelled stays so.

        Raises
        ------
        Conflict: it is done or cancelled.
        """
        row = self._row(schema.flow, flow_id, "flow")
        now = FlowState(row["state"])
        if state is now:
            if row["message"] != message:
                self._set(schema.flow, flow_id, message=message)
            return False
        if now is not FlowState.RUNNING and not (now is FlowState.FAILED and state is FlowState.RUNNING):
            raise Conflict(f"flow {flow_id} is {now} and cannot become {state}")
        ended = None if state is FlowState.RUNNING else self._clock.now()
        self._set(schema.flow, flow_id, state=state.value, message=message, ended_at=ended)
        self._record(f"flow.{state}", flow_id, row["experiment_id"], {"from": now, "message": message})
        return True


class WorkflowViews(ViewBase):
    """The part of `View` about workflows: who is signed in may read all; a flow who may see its experiment."""

    def workflow_versions(
        self, workflow_id: str = "", *, limit: int = 100, offset: int = 0
    ) -> Page[WorkflowVersion]:
        """Versions by workflow, the newest first; of one workflow, or of all."""
        found = self._versions(workflow_id)
        return self._page(found, (_w.id, _w.version.desc()), _version_of, limit, offset)

    def workflow_version(self, workflow_id: str, version: int = 0) -> WorkflowVersion:
        """One version of a workflow; 0 means the newest. NotFound."""
        found = self._versions("").where(_w.id == workflow_id)
        if version:
            found = found.where(_w.version == version)
        named = f"workflow {workflow_id!r}" if not version else f"version {version} of workflow {workflow_id!r}"
        return self._one(found.order_by(_w.version.desc()).limit(1), _version_of, named)

    def workflows(self) -> list[Workflow]:
        """The newest version of each workflow."""
        with self._read() as connection:
            return [_adopted(version) for version in _newest(connection)]

    def flows(
        self,
        *,
        workflow_id: str = "",
        dataset_id: str = "",
        state: FlowState | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> Page[Flow]:
        """Flows, newest first."""
        found = self._flows()
        if workflow_id:
            found = found.where(_f.workflow_id == workflow_id)
        if dataset_id:
            found = found.where(_f.dataset_id == dataset_id)
        if state is not None:
            found = found.where(_f.state == state.value)
        return self._page(found, (_f.created_at.desc(), _f.id.desc()), _flow_of, limit, offset)

    def flow(self, flow_id: str) -> Flow:
        """One flow. NotFound."""
        return self._one(self._flows().where(_f.id == flow_id), _flow_of, f"flow {flow_id!r}")

    def flow_runs(self, flow_id: str) -> list[Run]:
        """The runs of a flow, the oldest first."""
        e = schema.experiment
        joined = select(schema.run).join_from(schema.run, e, e.c.id == _r.experiment_id).where(self._see)
        return self._all(joined.where(_r.flow_id == flow_id).order_by(_r.created_at, _r.id), rows.run_of)

    def idle_flows(self, *, limit: int = 100) -> list[Flow]:
        """Flows that are running while none of their runs is queued or running, the oldest first."""
        at_work = _r.state.in_((RunState.QUEUED.value, RunState.RUNNING.value))
        busy = select(_r.id).where(_r.flow_id == _f.id, at_work).exists()
        found = select(schema.flow).where(_f.state == FlowState.RUNNING.value, ~busy)
        return self._all(found.order_by(_f.created_at).limit(limit), _flow_of)

    def timed_runs(self) -> list[Run]:
        """The runs of flows that are running now."""
        found = select(schema.run).where(_r.state == RunState.RUNNING.value, _r.flow_id != "")
        return self._all(found, rows.run_of)

    def _versions(self, workflow_id: str) -> Select[tuple[object, ...]]:
        found = select(schema.workflow)
        if self._principal.is_anonymous:
            found = found.where(_w.version < 0)
        return found.where(_w.id == workflow_id) if workflow_id else found

    def _flows(self) -> Select[tuple[object, ...]]:
        e = schema.experiment
        return select(schema.flow).join_from(schema.flow, e, e.c.id == _f.experiment_id).where(self._see)


def _newest(connection: Connection) -> Sequence[WorkflowVersion]:
    last = select(_w.id, func.max(_w.version).label("version")).group_by(_w.id).subquery()
    joined = select(schema.workflow).join(last, (last.c.id == _w.id) & (last.c.version == _w.version))
    return [_version_of(row) for row in connection.execute(joined.order_by(_w.id)).mappings()]


def _version_of(row: RowMapping) -> WorkflowVersion:
    return WorkflowVersion(**row)


def _flow_of(row: RowMapping) -> Flow:
    return Flow(**{**row, "state": FlowState(row["state"])})


@lru_cache(maxsize=64)
def _adopted(version: WorkflowVersion) -> Workflow:
    return workflow_document.adopted(version)
