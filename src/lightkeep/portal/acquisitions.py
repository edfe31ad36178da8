"""The Acquisition tab of an experiment: what comes in by itself, how it goes, start and stop; and new sources."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response

from lightkeep import techniques
from lightkeep.acquisition.options import KINDS
from lightkeep.lifecycle.acquisitions import acquire
from lightkeep.model.acquisition import SourceKind
from lightkeep.model.errors import Conflict, InvalidInput
from lightkeep.model.experiments import ExperimentState
from lightkeep.model.people import Verb
from lightkeep.portal import forms
from lightkeep.portal.page import Here, Name, Visit

router = APIRouter()
_NAMES: Final = {
    SourceKind.FOLDER: "Folder",
    SourceKind.PVACCESS: "EPICS PVAccess",
    SourceKind.ZEROMQ: "ZeroMQ",
    SourceKind.BLUESKY: "bluesky",
    SourceKind.REPLAY: "Replay",
}
_FIRST: Final = ("path", "channel", "address", "file", "acquire", "rate", "datasets", "include", "done", "live")
"""What most people set, in this order; the rest is folded."""


@router.get("/experiments/{experiment_id}/acquisition")
def acquisition(here: Here, experiment_id: Name) -> Response:
    """Sources of an experiment's data."""
    found = here.view.experiment(experiment_id)
    return here.render(
        "experiment.html",
        experiment=found,
        tab="acquisition",
        acquisitions=here.view.acquisitions(experiment_id=found.id, limit=100).items,
        may_start=bool(here.view.can(Verb.WRITE, experiment_id=found.id)),
        may_define=bool(here.view.can(Verb.MANAGE, station_id=found.station_id)),
    )


@router.get("/experiments/{experiment_id}/acquisition/{kind}")
def form(here: Here, experiment_id: Name, kind: SourceKind) -> Response:
    """What defines a source of one kind."""
    return _form(here, experiment_id, kind, {}, None)


@router.post("/experiments/{experiment_id}/acquisition/{kind}")
async def define(here: Here, request: Request, experiment_id: Name, kind: SourceKind) -> Response:
    """Define the source, start it where that was asked for, and go to the list."""
    typed = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
    return await to_thread.run_sync(_define, here, experiment_id, kind, typed)


def _define(here: Visit, experiment_id: str, kind: SourceKind, typed: dict[str, str]) -> Response:
    try:
        made = acquire.define(
            here.facility,
            typed.get("_name", "").strip(),
            experiment_id=experiment_id,
            kind=kind,
            options=forms.values(_fields(kind), typed),
            principal=here.principal,
            host=typed.get("_host", "").strip(),
        )
    except (InvalidInput, Conflict) as error:
        return _form(here, experiment_id, kind, typed, error)
    if "_start" in typed:
        acquire.start(here.facility, made.id, principal=here.principal)
    return RedirectResponse(f"/experiments/{made.experiment_id}/acquisition", 303)


def _form(
    here: Visit, experiment_id: str, kind: SourceKind, typed: dict[str, str], error: InvalidInput | Conflict | None
) -> Response:
    found = here.view.experiment(experiment_id)
    here.view.require(Verb.MANAGE, station_id=found.station_id)
    fields = {each.name: each for each in _fields(kind)}
    first = [fields.pop(name) for name in _FIRST if name in fields]
    rest = [replace(each, group="More") for each in fields.values()]
    return here.render(
        "acquisition_new.html",
        status=422 if error else 200,
        experiment=found,
        kind=kind,
        kinds=_NAMES,
        about=(KINDS[kind].__doc__ or "").strip(),
        fields=[*first, *rest],
        is_open=found.state is ExperimentState.OPEN,
        typed=typed,
        error=error,
    )


def _fields(kind: SourceKind) -> list[forms.Field]:
    """Return what a kind can be told."""
    followers = ("", *techniques.live_names())
    fields = forms.fields(KINDS[kind].model_json_schema())
    return [replace(each, kind="choice", choices=followers) if each.name == "live" else each for each in fields]


@router.post("/acquisitions/{acquisition_id}/start")
def start(here: Here, acquisition_id: Name) -> Response:
    """Have one run."""
    done = acquire.start(here.facility, acquisition_id, principal=here.principal)
    return RedirectResponse(f"/experiments/{done.experiment_id}/acquisition", 303)


@router.post("/acquisitions/{acquisition_id}/stop")
def stop(here: Here, acquisition_id: Name) -> Response:
    """Have one end."""
    done = acquire.stop(here.facility, acquisition_id, principal=here.principal)
    return RedirectResponse(f"/experiments/{done.experiment_id}/acquisition", 303)
