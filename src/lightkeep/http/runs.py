"""Runs: ask for one, follow it, cancel it; and the techniques that there are."""

from __future__ import annotations

import math
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from lightkeep import techniques
from lightkeep.http.desk import AtDesk, Limit, Name, Offset, Seen, Who, Word, view_of
from lightkeep.http.shapes import (
    DatasetShape,
    EstimateShape,
    EventShape,
    LiveShape,
    LogShape,
    PageOf,
    RetryRequest,
    RunRequest,
    RunShape,
    TechniqueShape,
)
from lightkeep.http.streams import Message, stream
from lightkeep.lifecycle.acquisitions import live
from lightkeep.lifecycle.processing import process, run_log
from lightkeep.lifecycle.processing.foreseen import foresee
from lightkeep.model.errors import InvalidInput, NotFound
from lightkeep.model.runs import RunState

router = APIRouter(tags=["runs"])

_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "As it happens."}
}


@router.get("/techniques")
def all_techniques() -> list[TechniqueShape]:
    """Every technique, with the JSON Schema of its parameters."""
    return [_technique(name) for name in techniques.names()]


@router.get("/techniques/{name}")
def technique(name: Name) -> TechniqueShape:
    """One technique."""
    return _technique(name)


@router.get("/datasets/{dataset_id}/techniques")
def accepting(view: Seen, dataset_id: Name) -> list[str]:
    """Names of the techniques that can work on a dataset."""
    return process.accepting(view.dataset(dataset_id))


@router.post("/datasets/{dataset_id}/runs", status_code=202)
def request_run(desk: AtDesk, who: Who, dataset_id: Name, asked: RunRequest, response: Response) -> RunShape:
    """Ask for a run of a technique on a dataset; it is queued, and begins when a worker is free."""
    check_finite(asked.params)
    run = process.request(
        desk.facility, dataset_id, asked.technique, asked.params, principal=who, engine=asked.engine
    )
    desk.orchestrator.submit_run(run.id)
    response.headers["Location"] = f"/api/v1/runs/{run.id}"
    return RunShape.model_validate(run)


@router.post("/datasets/{dataset_id}/estimates")
def estimate(desk: AtDesk, who: Who, dataset_id: Name, asked: RunRequest) -> list[EstimateShape]:
    """When a run would end at each place, the earliest first; nothing is queued."""
    check_finite(asked.params)
    found = foresee(desk.facility, dataset_id, asked.technique, asked.params, principal=who)
    return [EstimateShape.model_validate(each) for each in found]


@router.get("/runs")
def runs(
    view: Seen,
    experiment: Word = "",
    dataset: Word = "",
    state: RunState | None = None,
    limit: Limit = 50,
    offset: Offset = 0,
) -> PageOf[RunShape]:
    """Runs, newest first."""
    page = view.runs(experiment_id=experiment, dataset_id=dataset, state=state, limit=limit, offset=offset)
    return PageOf[RunShape].model_validate(page)


@router.get("/runs/{run_id}")
def run(view: Seen, run_id: Name) -> RunShape:
    """One run."""
    return RunShape.model_validate(view.run(run_id))


@router.get("/runs/{run_id}/result")
def result(view: Seen, run_id: Name) -> DatasetShape:
    """The dataset that a run made; 404 until it is there."""
    return DatasetShape.model_validate(view.dataset(view.run(run_id).result_id))


@router.get("/runs/{run_id}/live")
def look_live(desk: AtDesk, who: Who, run_id: Name) -> LiveShape:
    """How a live run goes: frames, rate, latency, and its curves so far; `outputs` is null for any other run."""
    return LiveShape.model_validate(live.snapshot(desk.facility, run_id, principal=who))


@router.get("/runs/{run_id}/log")
def log(desk: AtDesk, who: Who, run_id: Name) -> list[LogShape]:
    """What the tasks of a run said, in the order of time; for who may process its data."""
    return [LogShape.model_validate(each) for each in run_log.read(desk.facility, run_id, principal=who)]


@router.post("/runs/{run_id}/stop")
def stop(desk: AtDesk, who: Who, run_id: Name) -> RunShape:
    """End a live run with the frames that it has; over already: no change."""
    return RunShape.model_validate(live.stop(desk.facility, run_id, principal=who))


@router.post("/runs/{run_id}/cancel")
def cancel(desk: AtDesk, who: Who, run_id: Name) -> RunShape:
    """Cancel a run; over already: no change."""
    return RunShape.model_validate(desk.orchestrator.cancel(run_id, principal=who))


@router.post("/runs/{run_id}/retry", status_code=202)
def retry(desk: AtDesk, who: Who, run_id: Name, asked: RetryRequest | None = None) -> RunShape:
    """Ask for the same again, perhaps with other values; returns the new run. A flow that it failed goes on."""
    changes = asked.params if asked else {}
    check_finite(changes)
    again = process.retry(desk.facility, run_id, principal=who, changes=changes)
    desk.orchestrator.submit_run(again.id)
    return RunShape.model_validate(again)


@router.get("/runs/{run_id}/events", response_class=StreamingResponse, responses=_EVENTS)
def follow_run(request: Request, view: Seen, run_id: Name) -> StreamingResponse:
    """A run as it goes: an event `run` at each change of state, progress or message, until it is over."""
    view.run(run_id)

    def look(last: str) -> tuple[list[Message], bool]:
        found = view_of(request).run(run_id)
        now = f"{found.state}-{found.progress:.4f}-{found.message}".encode("ascii", "xmlcharrefreplace").decode()
        now = now.replace("\n", " ").replace("\r", " ")[:100]
        shape = RunShape.model_validate(found).model_dump(mode="json")
        return ([] if now == last else [Message(now, "run", shape)]), not found.state.is_over

    return stream(request, look)


@router.get("/events", responses=_EVENTS)
def events(
    request: Request, view: Seen, experiment: Word = "", subject: Word = "", after: Offset = 0, limit: Limit = 100
) -> Any:
    """The audit trail of one's experiments, oldest first; with `Accept: text/event-stream`, as it is written."""
    if "text/event-stream" not in request.headers.get("accept", ""):
        found = view.events(experiment_id=experiment, subject=subject, after=after, limit=limit)
        return [EventShape.model_validate(each) for each in found]

    def look(last: str) -> tuple[list[Message], bool]:
        since = int(last) if last.isdecimal() and len(last) < 19 else after
        found = view_of(request).events(experiment_id=experiment, subject=subject, after=since, limit=100)
        return [
            Message(str(e.seq), "event", EventShape.model_validate(e).model_dump(mode="json")) for e in found
        ], True

    return stream(request, look)


def _technique(name: str) -> TechniqueShape:
    if name not in techniques.names():
        raise NotFound(f"no technique is called {name!r}", remedy="GET /techniques lists them")
    module = techniques.get(name)
    return TechniqueShape(
        name=name,
        summary=(module.__doc__ or "").strip().partition("\n")[0],
        split=module.SPLIT,
        results=list(module.RESULTS),
        params=module.Params.model_json_schema(),
        outputs={
            key: {"axes": list(spec.axes), "unit": spec.unit, "label": spec.label, "view": spec.view}
            for key, spec in module.OUTPUTS.items()
        },
    )


def check_finite(value: Any) -> None:
    """Raise InvalidInput for NaN and infinity: Python's JSON reader takes them, JSON does not have them."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidInput("a parameter is not a finite number", remedy="leave it out to use the default")
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        check_finite(each)
