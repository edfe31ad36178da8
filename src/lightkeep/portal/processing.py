"""Asking for a run: the technique's form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from lightkeep import techniques
from lightkeep.catalog.query import parse
from lightkeep.lifecycle.processing import process
from lightkeep.lifecycle.processing.foreseen import foresee
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import BadFile, InvalidInput, LightkeepError, NotFound, RunFailed
from lightkeep.model.people import Verb
from lightkeep.portal import forms, words
from lightkeep.portal.page import Here, Name, Visit

router = APIRouter()
_ENGINE = "engine"
"""The form's field that is not a parameter."""


@router.get("/datasets/{dataset_id}/process/{technique}")
def form(here: Here, dataset_id: Name, technique: Name) -> Response:
    """The technique's form for a dataset."""
    here.view.require(Verb.PROCESS, dataset_id=dataset_id)
    return _form(here, dataset_id, technique, {}, None)


@router.post("/datasets/{dataset_id}/process/{technique}")
async def run(here: Here, request: Request, dataset_id: Name, technique: Name) -> Response:
    """Queue the run, and go to its page."""
    typed = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
    return await to_thread.run_sync(_request, here, dataset_id, technique, typed)


@router.post("/datasets/{dataset_id}/process/{technique}/estimate")
async def estimate(here: Here, request: Request, dataset_id: Name, technique: Name) -> Response:
    """The form, with when the run would end at each place; nothing is queued."""
    typed = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
    return await to_thread.run_sync(_estimate, here, dataset_id, technique, typed)


def _estimate(here: Visit, dataset_id: str, technique: str, typed: dict[str, str]) -> Response:
    here.view.require(Verb.PROCESS, dataset_id=dataset_id)
    try:
        params = forms.values(forms.fields(_technique(technique).Params.model_json_schema()), typed)
        found = foresee(here.facility, dataset_id, technique, params, principal=here.principal)
    except (InvalidInput, RunFailed, BadFile) as error:
        return _form(here, dataset_id, technique, typed, error)
    return _form(here, dataset_id, technique, typed, None, estimates=found)


def _request(here: Visit, dataset_id: str, technique: str, typed: dict[str, str]) -> Response:
    here.view.require(Verb.PROCESS, dataset_id=dataset_id)
    try:
        params = forms.values(forms.fields(_technique(technique).Params.model_json_schema()), typed)
        engine = typed.get(_ENGINE, "")
        made = process.request(
            here.facility, dataset_id, technique, params, principal=here.principal, engine=engine
        )
    except InvalidInput as error:
        return _form(here, dataset_id, technique, typed, error)
    here.house.orchestrator.submit_run(made.id)
    return RedirectResponse(f"/runs/{made.id}", 303)


def _technique(name: str) -> Any:
    """Return a technique's module. NotFound when there is none of that name."""
    if name not in techniques.names():
        raise NotFound(f"no technique is called {name!r}")
    return techniques.get(name)


def _form(
    here: Visit,
    dataset_id: str,
    technique: str,
    typed: dict[str, str],
    error: LightkeepError | None,
    *,
    estimates: Sequence[Mapping[str, Any]] = (),
) -> Response:
    module = _technique(technique)
    dataset = here.view.dataset(dataset_id)
    return here.render(
        "process.html",
        status=422 if error else 200,
        dataset=dataset,
        technique=technique,
        summary=(module.__doc__ or "").strip().partition("\n")[0],
        verb=words.verb(technique),
        fields=fields_for(here, dataset, technique),
        engines=here.facility.config.engines,
        engine=typed.get(_ENGINE, ""),
        typed=typed,
        error=error,
        placement={"estimates": estimates},
    )


def fields_for(here: Visit, dataset: Dataset, technique: str) -> list[forms.Field]:
    """Return what a technique can be told about a dataset. NotFound: there is no such technique."""
    known = forms.fields(_technique(technique).Params.model_json_schema())
    return [_with_datasets(here, dataset, each) for each in known if each.reads in ("", dataset.format)]


def _with_datasets(here: Visit, dataset: Dataset, field: forms.Field) -> forms.Field:
    """Return the field with what may be chosen: the experiment's datasets of its format, newest first."""
    if not field.input:
        return field
    found = here.view.datasets(
        parse(f"format:{field.input}"), experiment_id=dataset.experiment_id, limit=200
    ).items
    return replace(field, datasets=tuple((each.id, each.name) for each in found))
