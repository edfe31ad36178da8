"""The door to the durable workflows; DBOS stays behind it.

Work is queued in the workflow database by any process. In SQLite one process does it: the one that holds
`worker.lock` in the facility's root. `lightkeep serve` holds it while it runs; a command that finds it free holds
it for as long as the command takes. In PostgreSQL any number of workers, on any number of hosts, share it. What a
worker leaves when it dies the others do; see `workflow.heart`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any

from dbos import DBOS, DBOSClient, DBOSConfig, EnqueueOptions, WorkflowStatus
from sqlalchemy import make_url
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lightkeep import telemetry
from lightkeep.catalog.postgres import LINK
from lightkeep.facility import Facility
from lightkeep.lifecycle.acquisitions import live
from lightkeep.lifecycle.processing import awaited, flows
from lightkeep.lifecycle.processing import process as processing
from lightkeep.model.errors import CatalogUnavailable, Conflict, LightkeepError, NotFound, RunFailed
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.retention import RestoreState
from lightkeep.model.runs import LIVE, Run, RunState, Worker
from lightkeep.workflow import presence
from lightkeep.workflow.apart import WorkerApart
from lightkeep.workflow.chain import INGEST, PROCESS, Chain, IngestRequest, Stop
from lightkeep.workflow.heart import Heart
from lightkeep.workflow.presence import Presence

# DBOS's own handler would keep hold of the stderr that it first met. What happens is told by runs and errors.
_LOG = logging.getLogger("dbos")
_LOG.handlers, _LOG.propagate = [logging.NullHandler()], False

_APPLICATION = "lightkeep"
_VERSION = "1"
"""Version of the chain's steps: raised by hand when their order changes, or an upgrade would strand what runs."""
_HERE = Lock()
"""Held while this process works for a facility. DBOS has one state per process; one more facility that is opened
in it, in tests say, gets its worker apart."""
_POLL_S = 0.2
"""How often queues and jobs are looked at: 0.1 s costs a tenth of a core while nothing happens."""
_SOON_S = 0.02
_LATE = 0.1
"""Who waits for a job hears of its end later by at most this share of the wait."""
_STOP_S = 10.0
_MANY = 500
_RESTORED = tuple(f"restore.{state}" for state in (RestoreState.DONE, RestoreState.FAILED))
_MAX_RESCUES = 20
"""How often one piece of work is given to another worker: what takes each of them down must not do so for ever."""
_OVER = {"SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"}


@dataclass(frozen=True, slots=True)
class Job:
    """What became of a submitted ingest or run."""

    id: str
    dataset_id: str
    """What was ingested, or the input of the run."""
    runs: tuple[Run, ...] = ()
    """Each with its state, message and `result_id`."""


def open_workflow(
    facility: Facility, *, work: bool = True, apart: bool = False, always: bool = False
) -> Orchestrator:
    """Open the facility's workflows.

    Parameters
    ----------
    work: become the facility's worker when there is none; False: only queue, look and cancel.
    apart: keep the worker in a process of its own; for servers.
    always: be a worker beside others where that can be; for processes whose only purpose it is.
    """
    orchestrator = Orchestrator(facility, may_work=work, apart=apart, always=always)
    orchestrator.work()
    return orchestrator


@contextmanager
def _answering() -> Iterator[None]:
    """Map the errors of a database of the queue that is away: of those alone DBOS maps none."""
    try:
        yield
    except (InterfaceError, OperationalError, PoolTimeout) as error:
        raise CatalogUnavailable(
            f"the database of the queue does not answer: {str(error).partition(chr(10))[0]}",
            remedy="start it, or correct workflow_url",
        ) from error


class Orchestrator:
    """Queues work, waits for it, cancels it. Use as a context manager; safe to share between threads."""

    def __init__(
        self, facility: Facility, *, may_work: bool = True, apart: bool = False, always: bool = False
    ) -> None:
        self._facility = facility
        self._may_work = may_work
        self._is_apart = apart
        self._always = always
        self._url = _with_timeouts(facility.config.workflow_url)
        self._worker: _Worker | WorkerApart | None = None
        self._starting = Lock()
        self._heard: int | None = None
        """Number of the last event that was asked whether a restore ended."""
        DBOS.migrate(self._url)
        self._client = DBOSClient(
            system_database_url=self._url,
            application_name=_APPLICATION,
            retry_connection_errors=False,  # it would sleep for up to a minute and a half; who asks knows better
        )
        # Runs share the cores by their engine: one at a time unless told otherwise. Ingests wait for disks: two.
        runs = max(1, facility.config.worker.runs)
        self._client.register_queue(INGEST, worker_concurrency=2, polling_interval_sec=_POLL_S)
        self._client.register_queue(PROCESS, worker_concurrency=runs, polling_interval_sec=_POLL_S)

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

    def submit_run(self, run_id: str) -> str:
        """Queue a requested run by its priority; return its id, which is also the job's. Again: no change.

        Runs of one priority start in the order of their requests. One whose data are on their way back from the
        archive holds nobody up: `settle` queues it when they are there.
        """
        run = self._facility.catalog.view(SERVICE).run(run_id)
        if not run.state.is_over and not awaited.under_way(self._facility, run):
            self._enqueue(PROCESS, run_id, run_id, priority=run.priority)
        return run_id

    @_answering()
    def _enqueue(self, workflow: str, job_id: str, argument: object, *, priority: int = 0) -> None:
        options: EnqueueOptions = {
            "workflow_name": workflow,
            "queue_name": workflow,
            "workflow_id": job_id,
            "app_version": _VERSION,
        }
        if priority:
            options["priority"] = priority
        self._client.enqueue(options, argument, telemetry.carrier())

    def cancel(self, run_id: str, *, principal: Principal) -> Run:
        """Cancel a run, whichever process works on it; see `lifecycle.processing.process.cancel`."""
        return processing.cancel(self._facility, run_id, principal=principal)

    def wait(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """Wait until a job and the runs that it led to are over; become the worker if the present one dies.

        Raises
        ------
        NotFound: there is no such job.
        TimeoutError: it is not over yet.
        LightkeepError: what ended an ingest. A run that failed says so in its record, and raises nothing.
        """
        began = time.monotonic()
        while (job := self.look(job_id)) is None:
            self.work()
            waited = time.monotonic() - began
            if timeout_s is not None and waited > timeout_s:
                raise TimeoutError(f"job {job_id} is not over after {timeout_s} s")
            time.sleep(min(_POLL_S, max(_SOON_S, waited * _LATE)))
        return job

    def look(self, job_id: str) -> Job | None:
        """Return what became of a job, or None while it is not over. Raises as `wait` does."""
        status = self._status(job_id)
        view = self._facility.catalog.view(SERVICE)
        if status is None:
            return self._look_unqueued(job_id)
        if status.status not in _OVER:
            return None
        if status.name == PROCESS:
            run = view.run(job_id)
            return Job(job_id, run.dataset_id, (run,))
        if status.error is not None:
            raise _ours(status.error)
        done: dict[str, Any] = status.output or {}
        runs = tuple(view.run(run_id) for run_id in done["run_ids"])
        return Job(job_id, done["dataset_id"], runs) if all(run.state.is_over for run in runs) else None

    def _look_unqueued(self, run_id: str) -> Job | None:
        """Look after a run that waits for its data, or was cancelled while it did."""
        try:
            run = self._facility.catalog.view(SERVICE).run(run_id)
        except NotFound as error:
            raise NotFound(f"job {run_id} does not exist") from error
        return Job(run_id, run.dataset_id, (run,)) if run.state.is_over else None

    def is_queued(self, job_id: str) -> bool:
        """True when a worker has, had or will have this job; not for a run that is followed or waits for data."""
        return self._status(job_id) is not None

    @_answering()
    def _status(self, job_id: str) -> WorkflowStatus | None:
        found = self._client.list_workflows(workflow_ids=[job_id])
        return found[0] if found else None

    def work(self) -> bool:
        """Become a worker if one is wanted; return whether this process, or its own worker apart, is one.

        One that was taken for dead, after a pause of the machine say, begins a new life here.
        """
        with self._starting:
            if isinstance(self._worker, _Worker) and self._worker.is_lost:
                self._worker.close()
                self._worker = None
            if self._worker is None and self._may_work:
                self._worker = self._start_apart() if self._is_apart else self._start_here()
        return self._worker is not None

    def _start_apart(self) -> WorkerApart:
        return WorkerApart(self._facility.config)

    def _start_here(self) -> _Worker | WorkerApart | None:
        lock = -1
        if self.is_alone:
            lock = _take_lock(self._facility.config.root / "worker.lock")
            if lock < 0:
                return None
        elif not self._always and self._has_others():
            return None  # a command leaves the work to those who are there for it
        if not _HERE.acquire(blocking=False):
            _free(lock)
            return self._start_apart()
        return _Worker(self._facility, self, lock)

    def _has_others(self) -> bool:
        workers = self._facility.catalog.view(SERVICE).workers()
        return not all(presence.is_dead(self._facility, each) for each in workers)

    @property
    def is_alone(self) -> bool:
        """True where one process works at a time."""
        return self._url.startswith("sqlite")

    def settle(self) -> None:
        """Bring the catalogue and the queue together: no run may stay queued or running for ever."""
        view = self._facility.catalog.view(SERVICE)
        for state in (RunState.QUEUED, RunState.RUNNING):
            offset = 0
            while runs := view.runs(state=state, limit=_MANY, offset=offset).items:
                offset += len(runs)
                self._settle([run for run in runs if not self._is_followed(run)])
        processing.sweep(self._facility)

    @_answering()
    def _settle(self, runs: Sequence[Run]) -> None:
        found = self._client.list_workflows(
            workflow_ids=[run.id for run in runs] or [""], load_input=False, load_output=False
        )
        statuses = {each.workflow_id: each.status for each in found}
        for run in runs:
            status = statuses.get(run.id)
            if status is None:
                self.submit_run(run.id)
            elif status in _OVER:
                message = f"given up: its workflow ended as {status.lower().replace('_', ' ')}"
                with suppress(Conflict), self._facility.catalog.change(SERVICE) as tx:  # over since
                    tx.update_run(run.id, state=RunState.FAILED, message=message, error=RunFailed.code)

    def _is_followed(self, run: Run) -> bool:
        """True for a live run that a process here is at, or one on another host may be."""
        if run.engine != LIVE:
            return False
        is_elsewhere = not self.is_alone and not processing.folder_of(self._facility, run.id).is_dir()
        return is_elsewhere or live.is_followed(self._facility, run.id)

    @_answering()
    def rescue(self) -> int:
        """Queue again what workers had in hand that count no more; return how many pieces of work.

        DBOS does not do it by itself: what an executor had begun stays its own until one of that name starts.
        """
        if not self._stray({each.id for each in self._facility.catalog.view(SERVICE).workers()}):
            return 0
        with self._facility.catalog.change(SERVICE) as tx:  # one at a time: what was given away is not given twice
            stray = self._stray({each.id for each in tx.workers()})
            for status in stray:
                count = int(tx.fact(f"rescued.{status.workflow_id}") or 0) + 1
                if count > _MAX_RESCUES:
                    self._client.cancel_workflow(status.workflow_id)
                    continue
                tx.set_fact(f"rescued.{status.workflow_id}", str(count))
                self._client.resume_workflow(status.workflow_id, queue_name=status.queue_name or status.name)
        return len(stray)

    def tend(self, *, is_long: bool) -> None:
        """Do what a worker does beside its work, about once a second.

        Parameters
        ----------
        is_long: a lease has passed since this was last true.
        """
        self.rescue()
        if self._has_come_back() or is_long:
            self.settle()
        flows.tick(self._facility, submit=self.submit_run)

    def _has_come_back(self) -> bool:
        """Return whether a restore ended since this was last asked: runs may have waited for it."""
        if self._heard is None:
            self._heard = self._facility.catalog.head()[0]
            return True
        events = self._facility.catalog.view(SERVICE).events(after=self._heard, limit=_MANY)
        self._heard = events[-1].seq if events else self._heard
        return any(each.verb in _RESTORED for each in events)

    @_answering()
    def _stray(self, workers: set[str]) -> list[WorkflowStatus]:
        begun = self._client.list_workflows(status="PENDING", load_input=False, load_output=False)
        return [each for each in begun if each.executor_id not in workers]

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
    """DBOS in this process, under an id that no other life of a process has. Whoever makes one holds `_HERE`."""

    def __init__(self, facility: Facility, orchestrator: Orchestrator, lock: int) -> None:
        self._facility = facility
        self._lock = lock
        self._stop = Stop()
        self._heart: Heart | None = None
        self.id = facility.ids.new("worker")
        self._presence = Presence(facility, self.id)
        settings: DBOSConfig = {
            "name": _APPLICATION,
            "system_database_url": _with_timeouts(facility.config.workflow_url),
            "application_version": _VERSION,
            "executor_id": self.id,
            "log_level": "CRITICAL",  # what fails is in the catalogue, or raised by `wait`
            "notification_listener_polling_interval_sec": _POLL_S,  # else `close` waits a second for its thread
            "enable_otlp": False,
        }
        try:
            with facility.catalog.change(SERVICE) as tx:
                for other in tx.workers():
                    if orchestrator.is_alone or presence.is_dead(facility, other):  # who is alone held our lock
                        tx.lose(other)
                tx.join(Worker(self.id, socket.gethostname(), os.getpid()))
            presence.sweep(facility)
            orchestrator.rescue()
            orchestrator.settle()
            DBOS(config=settings)
            fenced = replace(facility, catalog=facility.catalog.fenced(self.id))
            Chain(fenced, self._stop, orchestrator.submit_run).register()
            self._heart = Heart(facility, self.id, on_lost=self._stop.ask, tend=orchestrator.tend)
            DBOS.launch()
        except BaseException:
            self._leave()
            raise

    @property
    def is_lost(self) -> bool:
        """True once the others took it for dead."""
        return self._heart is not None and self._heart.is_lost

    def close(self) -> None:
        """Stop the running steps, then DBOS; free the lock."""
        self._stop.ask_and_wait(_STOP_S)
        self._leave()

    def _leave(self) -> None:
        DBOS.destroy(destroy_registry=True)
        if self._heart is not None:
            self._heart.close()
        with suppress(LightkeepError), self._facility.catalog.change(SERVICE) as tx:  # else its lease runs out
            tx.leave(self.id)
        self._presence.close()
        _HERE.release()
        _free(self._lock)


def _take_lock(path: Path) -> int:
    """Return the open lock, or -1 when another process (or another orchestrator of this one) holds it."""
    lock = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return -1
    return lock


def _free(lock: int) -> None:
    if lock >= 0:
        os.close(lock)


def _with_timeouts(url: str) -> str:
    """Return an address whose connections notice that the link was cut, as the catalogue's do."""
    if not url.startswith("postgresql"):
        return url
    known = make_url(url)
    limits = {"connect_timeout": "10", "tcp_user_timeout": "15000", "keepalives_idle": "10", "options": LINK}
    return known.update_query_dict({**limits, **known.query}).render_as_string(hide_password=False)


def _ours(error: BaseException) -> LightkeepError:
    if isinstance(error, LightkeepError):
        return error
    return RunFailed(f"{type(error).__name__}: {error}")
