"""The two durable workflows. Each step is one idempotent verb: a step that was killed is simply called again.

    ingest:  ingest ── verify ── choose ──┬─ request ── submit ──> process
                                          └─ request ── submit ──> process
    process: process

What is not the same at every call (new ids, the list of techniques that accept) happens inside a step, whose
answer is recorded; the code between the steps only passes answers on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Condition, Event
from typing import Any

from dbos import DBOS

from lightkeep import telemetry
from lightkeep.catalog.workers import Fenced
from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing import flows
from lightkeep.lifecycle.processing import process as processing
from lightkeep.lifecycle.replicas.verify import verify
from lightkeep.model.errors import CatalogUnavailable, Corrupt, LightkeepError
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.runs import RunState

INGEST = "ingest"
PROCESS = "process"
_AGAIN_S = 1.0
"""Pause before a step is tried again that could not reach the catalogue."""
_MAX_STARTS = 20
"""How often one workflow is started again after its process died. A run that takes the process down each time
must not do so for ever."""


@dataclass(frozen=True)
class IngestRequest:
    """What `submit_ingest` was asked for."""

    source: str
    experiment_id: str
    principal_id: str
    is_service: bool = False
    name: str = ""
    in_place: bool = False
    technique: str | None = None
    """None: every technique that accepts the dataset; empty: none."""
    params: dict[str, Any] = field(default_factory=dict)
    engine: str = ""

    @property
    def principal(self) -> Principal:
        """Who asked."""
        return Principal(self.principal_id, is_service=self.is_service)


class Stopped(BaseException):
    """The worker is being stopped. Not an Exception: nothing may take it for a failure of the work, which goes
    on from its last step when a worker starts again."""


class Stop:
    """Asks the steps that are running to leave; looks like a cancel to them, and like a report."""

    def __init__(self) -> None:
        self._event = Event()
        self._running = 0
        self._left = Condition()

    def is_set(self) -> bool:
        """Return False, or raise Stopped."""
        if self._event.is_set():
            raise Stopped
        return False

    def report(self, _fraction: float, _message: str) -> None:
        """Raise Stopped when it is time."""
        self.is_set()

    @contextmanager
    def step(self) -> Iterator[None]:
        """Surround a step."""
        self.is_set()
        with self._left:
            self._running += 1
        try:
            yield
        finally:
            with self._left:
                self._running -= 1
                self._left.notify_all()

    def ask(self) -> None:
        """Ask every step to leave."""
        self._event.set()

    def pause(self, seconds: float) -> None:
        """Wait; raise Stopped when it is time to leave."""
        self._event.wait(seconds)
        self.is_set()

    def ask_and_wait(self, timeout_s: float) -> None:
        """Ask every step to leave; return when they have, or after the timeout."""
        self.ask()
        with self._left:
            self._left.wait_for(lambda: self._running == 0, timeout_s)


class Chain:
    """The steps."""

    def __init__(self, facility: Facility, stop: Stop, submit: Callable[[str], object]) -> None:
        self._facility = facility
        self._stop = stop
        self._submit = submit

    def register(self) -> None:
        """Make the two workflows known to DBOS."""

        @DBOS.workflow(name=INGEST, max_recovery_attempts=_MAX_STARTS)
        def _ingest(request: IngestRequest, carrier: dict[str, str] | None = None) -> dict[str, Any]:
            with telemetry.span("ingest", carrier=carrier, source=request.source):
                return self._ingest(request)

        @DBOS.workflow(name=PROCESS, max_recovery_attempts=_MAX_STARTS)
        def _process(run_id: str, carrier: dict[str, str] | None = None) -> None:
            with telemetry.span("run", carrier=carrier, run=run_id):
                self._step("process", self._process, run_id)

    def _step(self, name: str, function: Callable[..., Any], *arguments: Any) -> Any:
        def run() -> Any:
            with self._stop.step():
                while True:
                    try:
                        return function(*arguments)
                    except Fenced as error:  # somebody else does it now
                        raise Stopped from error
                    except CatalogUnavailable:  # no failure of the work: each step may be done again
                        self._stop.pause(_AGAIN_S)

        return DBOS.run_step({"name": name}, run)

    def _ingest(self, request: IngestRequest) -> dict[str, Any]:
        dataset_id = self._step("ingest", self._take_in, request)
        self._step("verify", self._verify, dataset_id)
        chosen = self._step("choose", self._choose, request, dataset_id)
        for technique, run_id in chosen:
            self._step("request", self._request, request, dataset_id, technique, run_id)
            self._step("submit", self._submit, run_id)
        return {"dataset_id": dataset_id, "run_ids": [run_id for _, run_id in chosen]}

    def _take_in(self, request: IngestRequest) -> str:
        taken = ingest(
            self._facility,
            Path(request.source),
            experiment_id=request.experiment_id,
            principal=request.principal,
            name=request.name,
            technique=request.technique or "",
            in_place=request.in_place,
            report=self._stop.report,
        )
        return taken.dataset.id

    def _verify(self, dataset_id: str) -> None:
        found = verify(self._facility, dataset_id, principal=SERVICE, report=self._stop.report)
        if found.corrupt:
            raise Corrupt(
                f"dataset {dataset_id}: {len(found.corrupt)} of {found.checked} files differ from their checksums",
                remedy="check the store's disk, then ingest the source again",
            )

    def _choose(self, request: IngestRequest, dataset_id: str) -> list[tuple[str, str]]:
        """Return (technique, id of a new run). A dataset that was known already is not processed again unasked."""
        view = self._facility.catalog.view(SERVICE)
        if request.technique is not None:
            names = [request.technique] if request.technique else []
        else:
            runs = view.runs(dataset_id=dataset_id).items
            tried = {run.technique for run in runs if run.state not in (RunState.FAILED, RunState.CANCELLED)}
            names = [name for name in processing.accepting(view.dataset(dataset_id)) if name not in tried]
        return [(name, self._facility.ids.new("run")) for name in names]

    def _request(self, request: IngestRequest, dataset_id: str, technique: str, run_id: str) -> None:
        processing.request(
            self._facility,
            dataset_id,
            technique,
            request.params,
            principal=request.principal,
            engine=request.engine,
            run_id=run_id,
        )

    def _process(self, run_id: str) -> None:
        """Perform a run until it is over, however it ends: a catalogue that is away for a while ends nothing."""
        while True:
            with suppress(LightkeepError):  # the run's record says why
                processing.process(self._facility, run_id, cancel=self._stop)
            with suppress(CatalogUnavailable):
                run = self._facility.catalog.view(SERVICE).run(run_id)
                if run.state.is_over:
                    if run.flow_id:
                        flows.advance(self._facility, run.flow_id, submit=self._submit)
                    return
            self._stop.pause(_AGAIN_S)
