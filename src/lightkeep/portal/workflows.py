"""Workflows and their flows: what is declared, each dataset on its way through it, stage by stage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query
from fastapi.responses import RedirectResponse, Response

from lightkeep.catalog.query import parse as parse_query
from lightkeep.lifecycle.processing import flows
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import InvalidInput, NotFound, SignInRequired
from lightkeep.model.people import Verb
from lightkeep.model.runs import Run
from lightkeep.model.workflows import Flow, FlowState, Stage, Trigger, TriggerKind, Workflow, WorkflowVersion
from lightkeep.policy import workflow_document
from lightkeep.portal.graph import START, graph
from lightkeep.portal.page import PAGE_SIZE, Here, Name, Number, Text, Visit, pages

router = APIRouter()
_LATEST = 8
_OFFERED = 8
_ENABLED = re.compile(r"^enabled[ \t]*=.*$", re.MULTILINE)
_ID = re.compile(r"^id[ \t]*=.*$", re.MULTILINE)
_TRIGGERS = {"auto": "by itself", "schedule": "by its schedule"}


@dataclass(frozen=True)
class Shown:
    """A workflow in the list."""

    workflow: Workflow
    begins: tuple[str, ...]
    """What begins it, in words."""
    latest: Sequence[Flow]
    flows: int


@dataclass(frozen=True)
class Part:
    """A stage, or the dataset that it begins with, as it stands."""

    name: str
    what: str
    state: str
    """A word of `words.mark`; empty where nothing has begun."""
    stage: Stage | None = None
    runs: Sequence[Run] = ()
    dataset: Dataset | None = None
    """What it made, where there is a picture of it."""

    @property
    def run(self) -> Run | None:
        """The last attempt."""
        return self.runs[-1] if self.runs else None


@router.get("/workflows")
def workflows(here: Here) -> Response:
    """Every workflow: whether it is on, what begins it, and how its last flows went."""
    _signed_in(here)
    found = []
    for workflow in here.view.workflows():
        page = here.view.flows(workflow_id=workflow.id, limit=_LATEST)
        found.append(Shown(workflow, _begins(workflow), page.items, page.total))
    return here.render("workflows.html", workflows=found)


@router.get("/workflows/{workflow_id}")
def workflow(
    here: Here, workflow_id: Name, version: Annotated[int, Query(ge=0, le=10**6)] = 0, find: Text = ""
) -> Response:
    """One workflow: its stages as a picture, its text, its versions; datasets to begin it on."""
    _signed_in(here)
    return _workflow(here, workflow_id, version=version, find=find)


@router.post("/workflows/{workflow_id}/switch")
def switch(here: Here, workflow_id: Name, on: Annotated[bool, Form()] = False) -> Response:
    """Let it begin by itself, or not: a new version with the same stages."""
    version = here.view.workflow_version(workflow_id)
    flows.adopt(here.facility, _switched(version, on), principal=here.principal)
    return RedirectResponse(f"/workflows/{workflow_id}", 303)


@router.post("/workflows/{workflow_id}/text")
def adopt(here: Here, workflow_id: Name, text: Annotated[str, Form(max_length=200_000)] = "") -> Response:
    """Adopt a changed text as the next version."""
    here.view.workflow_version(workflow_id)
    text = text.replace("\r\n", "\n")
    try:
        if (found := flows.check(text)).id != workflow_id:
            raise InvalidInput(f"the text is of workflow {found.id!r}", remedy=f"keep its id {workflow_id!r}")
        flows.adopt(here.facility, text, principal=here.principal)
    except InvalidInput as error:
        return _workflow(here, workflow_id, error=error, typed=text)
    return RedirectResponse(f"/workflows/{workflow_id}", 303)


@router.post("/workflows/{workflow_id}/start")
def start(here: Here, workflow_id: Name, dataset: Annotated[str, Form(max_length=200)] = "") -> Response:
    """Begin it on a dataset, and go to the flow."""
    flow = flows.start(here.facility, workflow_id, dataset, principal=here.principal)
    flows.advance(here.facility, flow.id, submit=here.house.orchestrator.submit_run)
    return RedirectResponse(f"/flows/{flow.id}", 303)


@router.get("/flows")
def all_flows(here: Here, workflow: Text = "", state: FlowState | None = None, page: Number = 1) -> Response:
    """Datasets on their way, newest first."""
    _signed_in(here)
    found = here.view.flows(workflow_id=workflow, state=state, limit=PAGE_SIZE, offset=(page - 1) * PAGE_SIZE)
    return here.render(
        "flows.html",
        flows=found,
        names=_names(here, found.items),
        workflow=workflow,
        state=state,
        states=[str(each) for each in FlowState],
        turner=pages(found.total, page, keep={"workflow": workflow, "state": str(state) if state else ""}),
    )


@router.get("/flows/{flow_id}")
def flow(here: Here, flow_id: Name) -> Response:
    """One flow, stage by stage."""
    return here.render("flow.html", **_flow(here, flow_id))


@router.get("/flows/{flow_id}/live")
def live(here: Here, flow_id: Name) -> Response:
    """The part of a flow's page that changes; asked for again when a stage begins or ends."""
    return here.render("parts/flow.html", **_flow(here, flow_id))


@router.post("/flows/{flow_id}/cancel")
def cancel(here: Here, flow_id: Name) -> Response:
    """End a flow and its runs."""
    flows.cancel(here.facility, flow_id, principal=here.principal)
    return RedirectResponse(f"/flows/{flow_id}", 303)


def _signed_in(here: Visit) -> None:
    if here.principal.is_anonymous:
        raise SignInRequired("workflows are for who is signed in", remedy="sign in")


def _workflow(
    here: Visit,
    workflow_id: str,
    *,
    version: int = 0,
    find: str = "",
    error: InvalidInput | None = None,
    typed: str = "",
) -> Response:
    shown = here.view.workflow_version(workflow_id, version)
    versions = here.view.workflow_versions(workflow_id, limit=50)
    known = workflow_document.adopted(shown)
    latest = here.view.flows(workflow_id=workflow_id, limit=_LATEST)
    parts = _declared(known)
    return here.render(
        "workflow.html",
        status=422 if error else 200,
        workflow=known,
        shown=shown,
        newest=versions.items[0].version,
        versions=versions,
        begins=_begins(known),
        parts=parts,
        **_drawn(known),
        flows=latest,
        names=_names(here, latest.items),
        find=find,
        offered=_offered(here, known, find),
        error=error,
        typed=typed or shown.text,
        may_manage=bool(here.view.can(Verb.MANAGE)),
    )


def _drawn(workflow: Workflow) -> dict[str, Any]:
    """Return the picture of a workflow for wide pages, and the one for phones."""
    return {"wide": graph(workflow.stages), "down": graph(workflow.stages, is_down=True)}


def _declared(workflow: Workflow) -> dict[str, Part]:
    first = " or ".join(_begins(workflow)) or "a dataset"
    parts = {START: Part("Dataset", first, "")}
    return parts | {each.name: Part(each.name, _what(each), "", stage=each) for each in workflow.stages}


def _what(stage: Stage) -> str:
    return stage.technique or stage.command[0].rpartition("/")[2]


def _begins(workflow: Workflow) -> tuple[str, ...]:
    return tuple(_trigger(each) for each in workflow.triggers) if workflow.enabled else ()


def _trigger(trigger: Trigger) -> str:
    found = f" that matches {trigger.find}" if trigger.find else ""
    if trigger.on is TriggerKind.DATASET:
        return f"a new dataset{found}"
    when = f"every {trigger.every_s} s" if trigger.every_s else f"daily at {trigger.daily_at} UTC"
    return f"any dataset{found}, {when}"


def _switched(version: WorkflowVersion, on: bool) -> str:
    """Return the text with the switch set; its comments and its order stay where that is possible."""
    wanted = replace(workflow_document.adopted(version), enabled=on)
    line = f"enabled = {str(on).lower()}"
    text = version.text
    if _ENABLED.search(text):
        text = _ENABLED.sub(line, text, count=1)
    else:
        text = _ID.sub(lambda found: f"{found[0]}\n{line}", text, count=1)
    with suppress(InvalidInput):
        if workflow_document.parse(text, version=wanted.version, author=wanted.author) == wanted:
            return text
    return workflow_document.dump(wanted)


def _offered(here: Visit, workflow: Workflow, find: str) -> list[Dataset]:
    """Return datasets that it may be begun on: what was searched for, or what its trigger finds."""
    search = find or next((each.find for each in workflow.triggers if each.find), "kind:raw")
    try:
        found = here.view.datasets(parse_query(search), limit=3 * _OFFERED).items
    except InvalidInput:
        return []
    return [each for each in found if here.view.can(Verb.PROCESS, dataset_id=each.id)][:_OFFERED]


def _names(here: Visit, found: Sequence[Flow]) -> dict[str, str]:
    return {each.dataset_id: here.view.dataset(each.dataset_id).name for each in found}


def _flow(here: Visit, flow_id: str) -> dict[str, Any]:
    found = here.view.flow(flow_id)
    version = here.view.workflow_version(found.workflow_id, found.version)
    known = workflow_document.adopted(version)
    runs = here.view.flow_runs(flow_id)
    dataset = here.view.dataset(found.dataset_id)
    standing = flows.look(here.facility, found, known).standing
    parts = {START: Part(dataset.name, "began it", str(dataset.state), dataset=_pictured(here, dataset.id))}
    for stage in known.stages:
        tried = [each for each in runs if each.stage == stage.name]
        state = str(standing[stage.name])
        if state == "active":
            state = str(tried[-1].state)
        elif state == "skipped":
            state = "left_out"
        elif found.state is not FlowState.RUNNING and state in ("ready", "waiting"):
            state = "not_begun"
        made = _pictured(here, tried[-1].result_id) if tried else None
        parts[stage.name] = Part(stage.name, _what(stage), state, stage, tried, made)
    return {
        "flow": found,
        "workflow": known,
        "dataset": dataset,
        "parts": parts,
        "trigger": _TRIGGERS.get(found.trigger, "by hand"),
        "may_process": bool(here.view.can(Verb.PROCESS, dataset_id=dataset.id)),
        "bars": _bars(here, found, runs),
        **_drawn(known),
    }


def _pictured(here: Visit, dataset_id: str) -> Dataset | None:
    """Return a dataset of which there may be a picture."""
    if not dataset_id:
        return None
    with suppress(NotFound):
        found: Dataset = here.view.dataset(dataset_id)
        if found.main_file and found.format and here.view.can(Verb.READ, dataset_id=found.id):
            return found
    return None


def _bars(here: Visit, found: Flow, runs: Sequence[Run]) -> dict[str, tuple[float, float, float]]:
    """Return run -> (asked, begun, ended) in thousandths of the flow's time."""
    times = [each for each in (found.created_at, *(run.created_at for run in runs)) if each]
    now = found.ended_at or here.facility.clock.now()
    begin = min(times, default=now)
    end = max([now, *(run.ended_at for run in runs if run.ended_at)])
    whole = max((end - begin).total_seconds(), 1e-3)

    def at(time: datetime | None, default: datetime) -> float:
        return round(1000 * ((time or default) - begin).total_seconds() / whole, 1)

    return {run.id: (at(run.created_at, begin), at(run.started_at, run.ended_at or end), at(run.ended_at, end))
            for run in runs}  # fmt: skip
