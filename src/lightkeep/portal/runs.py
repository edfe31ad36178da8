"""Runs: the list, and one as it goes."""

from __future__ import annotations

import json
from typing import Annotated, Any

from anyio import to_thread
from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from lightkeep import techniques
from lightkeep.lifecycle.acquisitions import live as following
from lightkeep.lifecycle.pictures.preview import Stack
from lightkeep.lifecycle.processing import process, run_log
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import Conflict, InvalidInput, LightkeepError, NotFound, SignInRequired
from lightkeep.model.people import Verb
from lightkeep.model.runs import LIVE, Run, RunState
from lightkeep.portal import forms
from lightkeep.portal.page import PAGE_SIZE, Here, Name, Number, Visit, pages
from lightkeep.portal.parameters import parameters
from lightkeep.portal.processing import fields_for

router = APIRouter()
_FOLLOWED = ("xpcs", "tomography-live")
_WITH_VALUES = "with_values"
"""The field of the form with other values that is no parameter."""
_LINES = 200
"""Of one task's log."""


@router.get("/runs")
def runs(here: Here, state: RunState | None = None, page: Number = 1) -> Response:
    """The runs that one may see, newest first."""
    found = here.view.runs(state=state, limit=PAGE_SIZE, offset=(page - 1) * PAGE_SIZE)
    names = {run.dataset_id: here.view.dataset(run.dataset_id).name for run in found}
    again = []
    if state in (RunState.FAILED, RunState.CANCELLED):
        again = [run.id for run in found if here.view.can(Verb.PROCESS, run_id=run.id)]
    turner = pages(found.total, page, keep={"state": str(state) if state else ""})
    states = [str(each) for each in RunState]
    return here.render(
        "runs.html", runs=found, names=names, state=state, states=states, turner=turner, again=again
    )


@router.post("/runs/retry")
def retry_several(here: Here, run: Annotated[list[str], Form(max_length=PAGE_SIZE)] = []) -> Response:  # noqa: B006
    """Ask for several runs again, as they were; what cannot be asked for again is named."""
    if here.principal.is_anonymous:
        raise SignInRequired("only somebody signed in may process", remedy="sign in")
    if not run:
        raise InvalidInput("no run was chosen", remedy="tick those that should run again")
    refused = []
    for run_id in dict.fromkeys(run):
        try:
            again = process.retry(here.facility, run_id, principal=here.principal)
        except LightkeepError as error:
            refused.append(f"{run_id}: {error.message}")
        else:
            here.house.orchestrator.submit_run(again.id)
    if refused:
        raise Conflict("; ".join(refused), remedy="the others were asked for")
    return RedirectResponse("/runs", 303)


@router.get("/runs/{run_id}/log")
def log(here: Here, run_id: Name) -> Response:
    """What its tasks said; for who may process it, as it names folders of the machine."""
    found = here.view.run(run_id)
    return here.render("parts/run_log.html", run=found, log=_log(here, found))


@router.get("/runs/{run_id}")
def run(here: Here, run_id: Name) -> Response:
    """One run: where it stands, what it was asked, what it made."""
    return here.render("run.html", **_shown(here, here.view.run(run_id)))


@router.get("/runs/{run_id}/live")
def live(here: Here, run_id: Name) -> Response:
    """The part of a run's page that changes; asked for again when its state does."""
    return here.render("parts/run.html", **_shown(here, here.view.run(run_id)))


@router.post("/runs/{run_id}/stop")
def stop(here: Here, run_id: Name) -> Response:
    """End a live run with the frames that it has."""
    following.stop(here.facility, run_id, principal=here.principal)
    return RedirectResponse(f"/runs/{run_id}", 303)


@router.post("/runs/{run_id}/cancel")
def cancel(here: Here, run_id: Name) -> Response:
    """Cancel a run."""
    here.house.orchestrator.cancel(run_id, principal=here.principal)
    return RedirectResponse(f"/runs/{run_id}", 303)


@router.post("/runs/{run_id}/retry")
async def retry(here: Here, request: Request, run_id: Name) -> Response:
    """Ask for the same again, perhaps with other values, and go to the new run."""
    typed = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
    return await to_thread.run_sync(_retry, here, run_id, typed)


def _retry(here: Visit, run_id: str, typed: dict[str, str]) -> Response:
    run = here.view.run(run_id)
    fields = _fields(here, run)
    asked = _asked_for(run, fields)
    known = {each.name: each for each in fields}
    if _WITH_VALUES in typed:  # browsers say nothing of a box that is not ticked
        typed = {**{each.name: "off" for each in fields if each.kind == "boolean"}, **typed}
    try:
        changes = {
            name: forms.values([known[name]], {name: text}).get(name)
            for name, text in typed.items()
            if name in known and text != asked.get(name, _usual(known[name]))
        }
        again = process.retry(here.facility, run_id, principal=here.principal, changes=changes)
    except InvalidInput as error:
        return here.render("run.html", status=422, **{**_shown(here, run), "typed": typed}, wrong=error)
    here.house.orchestrator.submit_run(again.id)
    return RedirectResponse(f"/runs/{again.id}", 303)


def _fields(here: Visit, run: Run) -> list[forms.Field]:
    """Return what of a run can be changed when it is started again."""
    if run.technique in techniques.names():
        return fields_for(here, here.view.dataset(run.dataset_id), run.technique)
    kinds = {bool: "boolean", int: "integer", float: "number"}
    values = {**run.resolved, **run.params}
    return [forms.field(name, {"type": kinds.get(type(value), "string")}) for name, value in values.items()]


def _usual(field: forms.Field) -> str:
    """Return what a form sends of a field that nobody touched."""
    if field.kind == "boolean":
        return "off"
    return "" if field.default is None else str(field.default)


def _asked_for(run: Run, fields: list[forms.Field]) -> dict[str, str]:
    """Return the values that a run was asked for, as the form takes them."""
    texts = {
        name: json.dumps(value) if isinstance(value, list | dict) else str(value)
        for name, value in run.params.items()
        if value is not None
    }
    for field in fields:
        if field.kind == "boolean" and not run.params.get(field.name, field.default):
            texts.pop(field.name, None)
        elif field.kind == "boolean":
            texts[field.name] = "on"
    return texts


def _shown(here: Visit, run: Run) -> dict[str, Any]:
    result: Dataset | None = None
    stack = None
    fields = _fields(here, run) if run.state in (RunState.FAILED, RunState.CANCELLED) else []
    if run.result_id:
        try:
            result = here.view.dataset(run.result_id)
            stack = _stack(here, result)
        except NotFound:
            result = None
    return {
        "run": run,
        "dataset": here.view.dataset(run.dataset_id),
        "result": result,
        "parameters": parameters(run, result, view=here.view),
        "stack": stack,
        "follows": _follows(here, run),
        "fields": fields,
        "typed": _asked_for(run, fields),
        "may_process": bool(here.view.can(Verb.PROCESS, run_id=run.id)),
    }


def _log(here: Visit, run: Run) -> dict[str, list[run_log.LogLine]]:
    """Return the last lines of each task."""
    found: dict[str, list[run_log.LogLine]] = {}
    for line in run_log.read(here.facility, run.id, principal=here.principal):
        found.setdefault(line.task, []).append(line)
    return {task: lines[-_LINES:] for task, lines in found.items()}


def _follows(here: Visit, run: Run) -> str:
    """Return the technique where there are curves to look at while they grow, otherwise nothing."""
    is_live = run.engine == LIVE and run.technique in _FOLLOWED and not run.state.is_over
    return run.technique if is_live and here.view.can(Verb.READ, dataset_id=run.dataset_id) else ""


def _stack(here: Visit, result: Any) -> Stack | None:
    if not here.view.can(Verb.READ, dataset_id=result.id):
        return None
    try:
        return here.house.previews.describe(here.facility, result)
    except LightkeepError:
        return None
