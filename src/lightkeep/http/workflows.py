"""Workflows, their flows, and reprocessing what a search finds."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from lightkeep.http.desk import AtDesk, Limit, Name, Offset, Seen, Who, Word, view_of
from lightkeep.http.runs import check_finite
from lightkeep.http.shapes import PageOf, RunShape, Shape, Shown
from lightkeep.http.streams import Message, stream
from lightkeep.lifecycle.processing import flows
from lightkeep.lifecycle.processing.reprocess import reprocess as reprocessing
from lightkeep.model.errors import SignInRequired
from lightkeep.model.workflows import FlowState

router = APIRouter(tags=["workflows"])

_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "As it happens."}
}


class WorkflowShape(Shape):
    """One version of a workflow."""

    id: Shown
    version: int
    stamp: Shown
    text: Shown
    author: Shown
    created_at: datetime | None


class WorkflowRequest(BaseModel):
    """The text of a workflow."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(max_length=200_000, description="A TOML document.")


class StageShape(BaseModel):
    """One stage of a workflow that was checked."""

    name: Shown
    technique: Shown
    command: list[Shown]
    needs: list[Shown]


class CheckedWorkflowShape(BaseModel):
    """What a text says."""

    workflow: Shown
    stages: list[StageShape]


class FlowShape(Shape):
    """One dataset on its way through a workflow."""

    id: str
    workflow_id: Shown
    version: int
    experiment_id: Shown
    dataset_id: str
    trigger: Shown
    state: str
    message: Shown
    created_by: Shown
    created_at: datetime | None
    ended_at: datetime | None


class FlowRunsShape(BaseModel):
    """A flow with its runs, the oldest first."""

    flow: FlowShape
    runs: list[RunShape]


class FlowRequest(BaseModel):
    """Which workflow to begin."""

    model_config = ConfigDict(extra="forbid")

    workflow: str = Field(max_length=100)


class ReprocessRequest(BaseModel):
    """What to compute again."""

    model_config = ConfigDict(extra="forbid")

    find: str = Field(max_length=2_000, description="As in a search; raw datasets only, unless it names a kind.")
    technique: str = Field(max_length=100)
    params: dict[str, Any] = Field(default_factory=dict, max_length=200)
    engine: str = Field("", max_length=100)
    dry_run: bool = Field(False, description="Only say how many, and how long it would take.")


class ReprocessedShape(Shape):
    """What was, or would be, asked for."""

    datasets: int
    size: int
    left_out: int
    seconds: float | None
    far: int
    far_size: int
    runs: list[str]
    refused: dict[str, Shown]


@router.get("/workflows")
def versions(view: Seen, workflow: Word = "", limit: Limit = 50, offset: Offset = 0) -> PageOf[WorkflowShape]:
    """Versions of the workflows, the newest of each first; none for who is not signed in."""
    page = view.workflow_versions(workflow, limit=limit, offset=offset)
    return PageOf[WorkflowShape].model_validate(page)


@router.post("/workflows")
def adopt(desk: AtDesk, who: Who, asked: WorkflowRequest) -> WorkflowShape:
    """Adopt a text as the next version of the workflow that it names. From now on it begins by its triggers."""
    return WorkflowShape.model_validate(flows.adopt(desk.facility, asked.text, principal=who))


@router.post("/workflows/check")
def check(who: Who, asked: WorkflowRequest) -> CheckedWorkflowShape:
    """Read a workflow and say what is wrong with it, with the line. Nothing is adopted."""
    if who.is_anonymous:
        raise SignInRequired("only somebody signed in may check a workflow", remedy="sign in")
    found = flows.check(asked.text)
    stages = [
        StageShape(name=s.name, technique=s.technique, command=list(s.command), needs=list(s.needs))
        for s in found.stages
    ]
    return CheckedWorkflowShape(workflow=found.id, stages=stages)


@router.get("/flows")
def all_flows(
    view: Seen,
    workflow: Word = "",
    dataset: Word = "",
    state: FlowState | None = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> PageOf[FlowShape]:
    """Flows, newest first."""
    page = view.flows(workflow_id=workflow, dataset_id=dataset, state=state, limit=limit, offset=offset)
    return PageOf[FlowShape].model_validate(page)


@router.get("/flows/{flow_id}")
def flow(view: Seen, flow_id: Name) -> FlowRunsShape:
    """One flow, with the runs of its stages."""
    found = FlowShape.model_validate(view.flow(flow_id))
    return FlowRunsShape(flow=found, runs=[RunShape.model_validate(each) for each in view.flow_runs(flow_id)])


@router.get("/flows/{flow_id}/events", response_class=StreamingResponse, responses=_EVENTS)
def follow(request: Request, view: Seen, flow_id: Name) -> StreamingResponse:
    """A flow as it goes: an event `flow`, with its runs, at each change of one of them, until it is over."""
    view.flow(flow_id)

    def look(last: str) -> tuple[list[Message], bool]:
        seen = view_of(request)
        found, runs = seen.flow(flow_id), seen.flow_runs(flow_id)
        states = repr(
            (found.state, found.message, [(each.id, each.state, each.progress, each.message) for each in runs])
        )
        now = sha256(states.encode("utf-8", "replace")).hexdigest()[:16]
        shape = FlowRunsShape(
            flow=FlowShape.model_validate(found), runs=[RunShape.model_validate(each) for each in runs]
        ).model_dump(mode="json")
        return ([] if now == last else [Message(now, "flow", shape)]), found.state is FlowState.RUNNING

    return stream(request, look)


@router.post("/datasets/{dataset_id}/flows", status_code=202)
def start(desk: AtDesk, who: Who, dataset_id: Name, asked: FlowRequest) -> FlowShape:
    """Begin a workflow on a dataset by hand."""
    return FlowShape.model_validate(flows.start(desk.facility, asked.workflow, dataset_id, principal=who))


@router.post("/flows/{flow_id}/cancel")
def cancel(desk: AtDesk, who: Who, flow_id: Name) -> FlowShape:
    """End a flow and what runs of it; over already: no change."""
    return FlowShape.model_validate(flows.cancel(desk.facility, flow_id, principal=who))


@router.post("/reprocess", status_code=202)
def reprocess(desk: AtDesk, who: Who, asked: ReprocessRequest) -> ReprocessedShape:
    """Compute everything that a search finds again, behind all other work; what one may not do is left out."""
    if who.is_anonymous:
        raise SignInRequired("only somebody signed in may reprocess", remedy="sign in")
    check_finite(asked.params)
    found = reprocessing(
        desk.facility,
        asked.find,
        asked.technique,
        asked.params,
        principal=who,
        engine=asked.engine,
        dry_run=asked.dry_run,
    )
    for run_id in found.runs:
        desk.orchestrator.submit_run(run_id)
    return ReprocessedShape.model_validate(found)
