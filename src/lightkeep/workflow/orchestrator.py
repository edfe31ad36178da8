"""The door to the durable workflows; DBOS stays behind it.

Work is queued in the workflow database by any process, and done by one: the process that holds `worker.lock` in
the facility's root. `lightkeep serve` holds it while it runs; a command that finds it free holds it for as long as
the command takes. When that process dies, its lock is free, and the next one goes on with what it left.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any

from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions, WorkflowStatus

from lightkeep.facility import Facility
from lightkeep.lifecycle import live
from lightkeep.lifecycle import process as processing
from lightkeep.model.errors import LightkeepError, NotFound, RunFailed
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.runs import LIVE, Run, RunState
from lightkeep.workflow.apart import WorkerApart
from lightkeep.workflow.chain import INGEST, PROCESS, Chain, IngestRequest, Stop

# DBOS's own handler would keep hold of the stderr that it first met. What happens is told by runs and errors.
_LOG = logging.getLogger("dbos")
_LOG.handlers, _LOG.propagate = [logging.NullHandler()], False

_APPLICATION = "lightkeep"
_VERSION = "1"
"""Version of the chain's steps: raised by hand when their order changes, or an upgrade would strand what runs."""
_EXECUTOR = "worker"
"""The same for every process: the lock sees to it that there is one at a time, and that it finds what the one
before it left."""
_HERE = Lock()
"""Held while this process works for a facility. DBOS has one state per process; one more facility that is opened
in it, in tests say, gets its worker apart."""
_POLL_S = 0.2
"""How often queues and jobs are looked at: 0.1 s costs a tenth of a core while nothing happens."""
_STOP_S = 10.0
_OVER = {"SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"}


@dataclass(frozen=True, slots=True)
class Job:
    """What became of a submitted ingest or run."""

    id: str
    dataset_id: str
    """What was ingested, or the input of the run."""
    runs: tuple[Run, ...] = ()
    """Each with its state, message and `result_id`."""


def open_workflow(facility: Facility, *, work: bool = True, apart: bool = False) -> Orchestrator:
    """Open the facility's workflows.

    Parameters
    ----------
    work: become the facility's worker when there is none; False: only queue, look and cancel.
    apart: keep the worker in a process of its own; for servers.
    """
    orchestrator = Orchestrator(facility, may_work=work, apart=apart)
    orchestrator.work()
    return orchestrator


class Orchestrator:
    """Queues work, waits for it, cancels it. Use as a context manager; safe to share between threads."""

    def __init__(self, facility: Facility, *, may_work: bool = True, apart: bool = False) -> None:
        self._facility = facility
        self._may_work = may_work
        self._is_apart = apart
        self._url = facility.config.workflow_url
        self._worker: _Worker | WorkerApart | None = None
        self._starting = Lock()
        DBOS.migrate(self._url)
        self._client = DBOSClient(system_database_url=self._url, application_name=_APPLICATION)
        # Runs share the cores by their engine: one at a time. Ingests wait for disks: two.
        self._client.register_queue(INGEST, worker_concurrency=2, polling_interval_sec=_POLL_S)
        self._client.register_queue(PROCESS, worker_concurrency=1, polling_interval_sec=_POLL_S)

    def submit_ingest(
        self,
        source: Path,
        *,
        experiment_id: str,
        principal: Principal,
        name: str = "",
        in_place: bool = False,
        technique: str | None = None,
        params: Mapping[str, Any] | None = None,
        engine: str = "",
    ) -> str:
        """Queue a file or folder for ingest, verification and processing; return the job's id.

        Parameters
        ----------
        technique: None: every technique that accepts the dataset; "": none.

        Raises
        ------
        InvalidInput: there is no such technique, or a parameter is wrong.
        """
        if technique:
            processing.check_params(technique, params or {})
        request = IngestRequest(
            source=str(source.absolute()),
            experiment_id=experiment_id,
            principal_id=principal.id,
            is_service=principal.is_service,
            name=name,
            in_place=in_place,
            technique=technique,
            params=dict(params or {}),
            engine=engine,
        )
        job_id = self._facility.ids.new("job")
        self._enqueue(INGEST, job_id, request)
        return job_id

    def submit_run(self, run_id: str, *, priority: int = 0) -> str:
        """Queue a requested run; return its id, which is also the job's. Again: no change.

        Parameters
        ----------
        priority: runs with a lower number start first; those of one priority in the order of their requests.
        """
        self._enqueue(PROCESS, run_id, run_id, priority=priority)
        return run_id

    def _enqueue(self, workflow: str, job_id: str, argument: object, *, priority: int = 0) -> None:
        options: EnqueueOptions = {
            "workflow_name": workflow,
            "queue_name": workflow,
            "workflow_id": job_id,
            "app_version": _VERSION,
        }
        if priority:
            options["priority"] = priority
        self._client.enqueue(options, argument)

    def cancel(self, run_id: str, *, principal: Principal) -> Run:
        """Cancel a run, whichever process works on it; see `lifecycle.process.cancel`."""
        return processing.cancel(self._facility, run_id, principal=principal)

    def wait(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Wait until a job and the runs that it led to are over; become the worker if the present one dies.

        Raises
        ------
        NotFound: there is no such job.
        TimeoutError: it is not over yet.
        LightkeepError: what ended an ingest. A run that failed says so in its record, and raises nothing.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (job := self.look(job_id)) is None:
            self.work()
            if deadline is not None and time.monotonic() > deadline:
                raise TimeoutError(f"job {job_id} is not over after {timeout_s} s")
            time.sleep(_POLL_S)
        return job

    def look(self, job_id: str) -> Job | None:
        """Return what became of a job, or None while it is not over. Raises as `wait` does."""
        status = self._status(job_id)
        if status is None:
            raise NotFound(f"job {job_id} does not exist")
        if status.status not in _OVER:
            return None
        view = self._facility.catalog.view(SERVICE)
        if status.name == PROCESS:
            run = view.run(job_id)
            return Job(job_id, run.dataset_id, (run,))
        if status.error is not None:
            raise _ours(status.error)
        done: dict[str, Any] = status.output or {}
        runs = tuple(view.run(run_id) for run_id in done["run_ids"])
        return Job(job_id, done["dataset_id"], runs) if all(run.state.is_over for run in runs) else None

    def _status(self, job_id: str) -> WorkflowStatus | None:
        found = self._client.list_workflows(workflow_ids=[job_id])
        return found[0] if found else None

    def work(self) -> bool:
        """Become the worker if there is none; return whether this process, or its own worker apart, is it."""
        with self._starting:
            if self._worker is None and self._may_work:
                self._worker = self._start_apart() if self._is_apart else self._start_here()
        return self._worker is not None

    def _start_apart(self) -> WorkerApart:
        return WorkerApart(self._facility.config)

    def _start_here(self) -> _Worker | WorkerApart | None:
        lock = _take_lock(self._facility.config.root / "worker.lock")
        if lock is None:
            return None
        if not _HERE.acquire(blocking=False):
            os.close(lock)
            return self._start_apart()
        return _Worker(self._facility, self, lock)

    def settle(self) -> None:
        """Bring the catalogue and the queue together: no run may stay queued or running for ever.

        Called by a worker before it starts, while it alone holds the lock.
        """
        for state in (RunState.QUEUED, RunState.RUNNING):
            for run in self._facility.catalog.view(SERVICE).runs(state=state, limit=10_000).items:
                if run.engine == LIVE and live.is_followed(self._facility, run.id):
                    continue
                status = self._status(run.id)
                if status is None:
                    self.submit_run(run.id)
                elif status.status in _OVER:
                    message = f"given up: its workflow ended as {status.status.lower().replace('_', ' ')}"
                    with self._facility.catalog.change(SERVICE) as tx:
                        tx.update_run(run.id, state=RunState.FAILED, message=message, error=RunFailed.code)
        processing.sweep(self._facility)

    def close(self) -> None:
        """Stop working: what runs is left at its last finished piece, for the next worker."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        self._client.destroy()

    def __enter__(self) -> Orchestrator:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Worker:
    """DBOS in this process, as long as the lock is held. Whoever makes one holds `_HERE`, and passes it on."""

    def __init__(self, facility: Facility, orchestrator: Orchestrator, lock: int) -> None:
        self._lock = lock
        self._stop = Stop()
        settings: DBOSConfig = {
            "name": _APPLICATION,
            "system_database_url": facility.config.workflow_url,
            "application_version": _VERSION,
            "executor_id": _EXECUTOR,
            "log_level": "CRITICAL",  # what fails is in the catalogue, or raised by `wait`
            "notification_listener_polling_interval_sec": _POLL_S,  # else `close` waits a second for its thread
            "enable_otlp": False,
        }
        try:
            orchestrator.settle()
            DBOS(config=settings)
            Chain(facility, self._stop, orchestrator.submit_run).register()
            DBOS.launch()
        except BaseException:
            self._leave()
            raise

    def close(self) -> None:
        """Stop the running steps, then DBOS; free the lock."""
        self._stop.ask_and_wait(_STOP_S)
        self._leave()

    def _leave(self) -> None:
        DBOS.destroy(destroy_registry=True)
        _HERE.release()
        os.close(self._lock)


def _take_lock(path: Path) -> int | None:
    """Return the open lock, or None when another process (or another orchestrator of this one) holds it."""
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def _ours(error: BaseException) -> LightkeepError:
    if isinstance(error, LightkeepError):
        return error
    return RunFailed(f"{type(error).__name__}: {error}")
