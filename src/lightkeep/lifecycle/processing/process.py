"""Process: run a technique on a dataset, and keep what it made as a derived dataset.

    request ──> queued ──process──> running ──> done          process again: the same derived dataset
                   │                   ├──────> failed        retry: a new run with the same parameters
                   └──────cancel───────┴──────> cancelled

`process` may be killed at any instruction and called again: finished pieces are not computed twice (see
`lifecycle.processing.scratch`) and one run makes one dataset.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import socket
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightkeep import engines, telemetry
from lightkeep.facility import Facility
from lightkeep.lifecycle.processing import awaited, inputs, placing, run_log
from lightkeep.lifecycle.processing.results import SOFTWARE, keep_result, write_result
from lightkeep.lifecycle.processing.watch import Watch
from lightkeep.lifecycle.replicas import locate
from lightkeep.model.datasets import Dataset, DatasetState
from lightkeep.model.engines import Cancel, FarEngine, Task
from lightkeep.model.errors import (
    CatalogUnavailable,
    Conflict,
    InvalidInput,
    LightkeepError,
    NotFound,
    RunCancelled,
    RunFailed,
)
from lightkeep.model.experiments import ExperimentState
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.runs import LIVE, Priority, Run, RunState
from lightkeep.model.techniques import Preflight, Report
from lightkeep.model.workflows import COMMAND, FlowState

if TYPE_CHECKING:
    from lightkeep.lifecycle.processing.pieces import Job
    from lightkeep.lifecycle.processing.scratch import Scratch

_LOG = logging.getLogger(__name__)
_JOBS = "jobs"
"""Folder in a run's scratch folder for an engine whose jobs outlive this process."""
MAX_PIECES = 32
"""Pieces of a run whose technique does not say how large they should be. Not the number of workers: every
engine cuts in the same places, so that every engine gives the same values to the last bit."""
PIECE_S = 0.05
"""Seconds of work below which it is not worth opening the files once more for a piece of its own."""


AUTO = "auto"
"""The engine of a run that named none, until its preflight has said how much work it is."""
PLACED = "earliest"
"""The engine of a run that asked for `auto` by name, until its preflight has said where it would end first."""
WORTH_S = 2.0
"""Seconds of work on one core below which starting other processes costs more than they save: a worker needs about
a second to load the numerics."""


def request(
    facility: Facility,
    dataset_id: str,
    technique: str,
    params: Mapping[str, Any] | None = None,
    *,
    principal: Principal,
    engine: str = "",
    run_id: str = "",
    usual: Priority = Priority.ASKED,
) -> Run:
    """Ask for a run; return it, queued. On archived data it waits; see `lifecycle.processing.awaited`.

    Parameters
    ----------
    params: values for the technique's `Params`; what is absent is derived from the data.
    engine: name of an engine; empty: the configured one, or `inline` when it is not worth starting processes;
        `auto`: the one where the run would end first, see `lifecycle.processing.placing`.
    run_id: for a caller that may repeat the request: the same id gives the same run.
    usual: its priority while the experiment has no beam.

    Raises
    ------
    As `prepared` does. Archived: its data are in the archive only, and the principal may not have them back.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.PROCESS, dataset_id=dataset_id)
    experiment_id = view.dataset(dataset_id).experiment_id
    wanted = Run(
        id=run_id or facility.ids.new("run"),
        experiment_id=experiment_id,
        dataset_id=dataset_id,
        technique=technique,
        params=params or {},
        engine=PLACED if engine == AUTO else engine or AUTO,
        software=SOFTWARE,
        created_by=principal.id,
        created_at=facility.clock.now(),
        priority=priority(facility, experiment_id, usual=usual),
    )
    run = prepared(facility, wanted, principal=principal)
    run = awaited.ask(facility, run, principal=principal)
    try:
        with facility.catalog.change(principal) as tx:
            tx.add_run(run)
    except Conflict:
        if not run_id:
            raise
    return view.run(run.id)


def prepared(facility: Facility, run: Run, *, principal: Principal) -> Run:
    """Return a run that may be asked for, with the datasets that its parameters name.

    Raises
    ------
    NotFound, Forbidden, SignInRequired: the principal may not see or not process the dataset, or not read another
        one that a parameter names; see `lifecycle.processing.inputs`.
    InvalidInput: there is no such technique or engine, it cannot work on this dataset, or a parameter is wrong.
    Conflict: the dataset is not complete.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.PROCESS, dataset_id=run.dataset_id)
    dataset = view.dataset(run.dataset_id)
    _check(dataset, run.technique, run.params)
    known = inputs.identified(
        facility, run.technique, run.params, experiment_id=dataset.experiment_id, principal=principal
    )
    if run.engine not in (AUTO, PLACED, *facility.engine_names()):
        names = ", ".join(facility.engine_names())
        raise InvalidInput(f"there is no engine {run.engine!r}", remedy=f"choose one of: {names}")
    return replace(run, params=known)


def priority(facility: Facility, experiment_id: str, *, usual: Priority) -> Priority:
    """Return the priority of a run of an experiment: above all others while it has beam."""
    experiment = facility.catalog.view(SERVICE).experiment(experiment_id)
    begin, end = experiment.starts_at, experiment.ends_at
    if experiment.state is not ExperimentState.OPEN or begin is None or end is None:
        return usual
    return Priority.BEAM if begin <= facility.clock.now() < end else usual


def _check(dataset: Dataset, name: str, params: Mapping[str, Any]) -> None:
    from lightkeep import techniques

    check_params(name, params)
    if dataset.state is not DatasetState.COMPLETE:
        raise Conflict(f"dataset {dataset.name} is {dataset.state}: only a complete dataset can be processed")
    if not techniques.get(name).accepts(dataset):
        raise InvalidInput(
            f"{name} cannot work on dataset {dataset.name} (format {dataset.format or 'unknown'})",
            remedy=f"choose one of: {', '.join(accepting(dataset)) or 'no technique here accepts it'}",
        )
    inputs.reading(name, params, dataset.format)


def check_params(technique: str, params: Mapping[str, Any]) -> None:
    """Raise InvalidInput when there is no such technique, or naming the first parameter that is wrong."""
    from pydantic import ValidationError

    from lightkeep import techniques

    try:
        techniques.get(technique).Params(**params)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or technique
        raise InvalidInput(f"{technique}: parameter `{field}`: {first['msg']}", field=field) from error


def accepting(dataset: Dataset) -> list[str]:
    """Return the names of the techniques that accept a dataset."""
    from lightkeep import techniques

    return [name for name in techniques.names() if techniques.get(name).accepts(dataset)]


def retry(
    facility: Facility, run_id: str, *, principal: Principal, changes: Mapping[str, Any] | None = None
) -> Run:
    """Ask again for what a run that is over was asked for; return the new run. A flow that lacks it goes on.

    Parameters
    ----------
    changes: parameters that get other values; None: the default again.

    Raises
    ------
    Conflict: the run is not over, or it is the command of a flow that did not fail. InvalidInput: a wrong value.
    """
    view = facility.catalog.view(principal)
    run = view.run(run_id)
    if not run.state.is_over:
        raise Conflict(f"run {run.id} is {run.state}", remedy="cancel it first")
    params = {**run.params, **(changes or {})}
    params = {name: value for name, value in params.items() if value is not None}
    if run.flow_id and (run.technique == COMMAND or _is_lacking(run, view.flow(run.flow_id).state)):
        from lightkeep.lifecycle.processing import flows

        return flows.retry(facility, run, params, principal=principal)
    engine = "" if run.engine == LIVE else run.engine
    return request(facility, run.dataset_id, run.technique, params, principal=principal, engine=engine)


def _is_lacking(run: Run, flow: FlowState) -> bool:
    """Return whether a flow is to have the result of a run that is begun again."""
    is_without = run.state in (RunState.FAILED, RunState.CANCELLED)
    return flow is FlowState.FAILED or (flow is FlowState.RUNNING and is_without)


def cancel(facility: Facility, run_id: str, *, principal: Principal) -> Run:
    """Cancel a run, from any process: the catalogue tells the one that works on it. Over already: no change.

    Raises
    ------
    NotFound, Forbidden, SignInRequired: the principal may not see or not process it.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.PROCESS, run_id=run_id)
    with suppress(Conflict), facility.catalog.change(principal) as tx:
        tx.update_run(run_id, state=RunState.CANCELLED, message=f"cancelled by {principal.id}")
    return view.run(run_id)


def process(
    facility: Facility,
    run_id: str,
    *,
    principal: Principal = SERVICE,
    report: Report | None = None,
    cancel: Cancel | None = None,
) -> Dataset:
    """Compute a run; return the derived dataset. Called again, it goes on where it was stopped.

    The run's state, progress and message are kept in the catalogue, at most four times a second.

    Raises
    ------
    RunCancelled: the run was cancelled, in the catalogue or by `cancel`.
    RunFailed, InvalidInput, StorageError, SourceError: why the run failed; the run keeps code and message.
    Conflict: another process works on this run.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.PROCESS, run_id=run_id)
    run = view.run(run_id)
    if run.state in (RunState.DONE, RunState.STOPPED_EARLY):
        return view.dataset(run.result_id)
    if run.state.is_over:
        kind = RunCancelled if run.state is RunState.CANCELLED else RunFailed
        raise kind(run.message, remedy="start it again as a new run")
    with _own_scratch(facility, run) as scratch:
        watch = Watch(facility, run, scratch, report=report, cancel=cancel)
        try:
            watch.change(state=RunState.RUNNING)
            dataset = _make(facility, run, scratch, watch)
            _finish(scratch, dataset, watch)
        except RunCancelled as error:
            watch.change(state=RunState.CANCELLED, message=error.message)
            _discard(facility, run)
            raise
        except CatalogUnavailable:
            raise  # nothing has failed but the writing down: the same call goes on from here
        except Exception as error:  # whatever it is, a run does not stay running for ever
            code = error.code if isinstance(error, LightkeepError) else "internal"
            message = error.message if isinstance(error, LightkeepError) else f"{type(error).__name__}: {error}"
            _tell(scratch.folder, error, message)
            watch.change(state=RunState.FAILED, message=message, error=code)
            _discard(facility, run)
            raise
        run_log.keep(facility, run.id, scratch.folder)
        scratch.remove()
    return dataset


@contextmanager
def _own_scratch(facility: Facility, run: Run) -> Iterator[Scratch]:
    """Open the run's folder: the one that was begun on this host, or a new one.

    A new one where the old one cannot be trusted to lie still: a worker that was taken for dead but only sleeps
    holds its lock, and one on another host may go on writing there when it is back.

    Raises
    ------
    Conflict: somebody works on the run who was not taken for dead.
    """
    from lightkeep.lifecycle.processing.scratch import Scratch

    folder, host = folder_of(facility, run.id), socket.gethostname()
    with ExitStack() as stack:
        try:
            scratch = stack.enter_context(Scratch(folder))
            is_ours = (scratch.read("host") or host) == host
        except Conflict:
            holder = Scratch(folder).read("worker")
            if not holder or holder in {each.id for each in facility.catalog.view(SERVICE).workers()}:
                raise
            is_ours = False
        if not is_ours:
            stack.pop_all().close()
            scratch = stack.enter_context(Scratch(folder.with_name(f"{run.id}.{facility.ids.new('try')}")))
        scratch.show("host", host.encode())
        scratch.show("worker", facility.catalog.worker_id.encode())
        yield scratch


def sweep(facility: Facility) -> None:
    """Clear up after runs that are over but whose process died before it could."""
    view = facility.catalog.view(SERVICE)
    folder = _runs(facility)
    for name in os.listdir(folder) if folder.is_dir() else ():
        with suppress(NotFound):  # a run of another catalogue, restored from a backup perhaps: not ours to delete
            run = view.run(name.partition(".")[0])
            if run.state in (RunState.DONE, RunState.STOPPED_EARLY):
                run_log.keep(facility, run.id, folder / name)
                shutil.rmtree(folder / name, ignore_errors=True)
            elif run.state.is_over:
                _discard(facility, run)


def _discard(facility: Facility, run: Run) -> None:
    """Withdraw what a run that did not end well has stored, then delete what it has in the scratch folder."""
    for child in facility.catalog.view(SERVICE).children(run.dataset_id, run_id=run.id):
        if child.state is DatasetState.COMPLETE:
            with facility.catalog.change(SERVICE) as tx:
                tx.withdraw_dataset(child.id)
    for folder in run_log.folders(facility, run.id):
        if _abandon(facility, run.id, folder):
            run_log.keep(facility, run.id, folder)
            shutil.rmtree(folder, ignore_errors=True)


def _tell(folder: Path, error: Exception, message: str) -> None:
    """Write down what is known of a failure: where it was raised, and the end of what a batch job printed."""
    data = error.data if isinstance(error, LightkeepError) else {"traceback": traceback.format_exc()}
    run_log.say(folder, "run", "error", message)
    if data.get("traceback"):
        run_log.say(folder, "run", "error", str(data["traceback"]))
    if data.get("log_file"):
        with suppress(OSError):
            run_log.say(folder, "run", "error", Path(str(data["log_file"])).read_text("utf-8", "replace"))


def _abandon(facility: Facility, run_id: str, folder: Path) -> bool:
    """Stop the jobs that were submitted for a run from a folder; False: they may still run, and write there."""
    if not (folder / _JOBS).is_dir():
        return True
    name = facility.catalog.view(SERVICE).run(run_id).engine
    try:
        facility.engine(name).abandon(key=_key(folder), folder=folder / _JOBS)
    except LightkeepError as error:  # the folder stays, so that the next sweep tries again
        _LOG.warning("run %s: %s", run_id, error.message, extra={"about": {"engine": name}})
        return False
    return True


def folder_of(facility: Facility, run_id: str) -> Path:
    """Return where a run keeps what it needs to go on after a kill; see `lifecycle.processing.scratch`."""
    return _runs(facility) / run_id


def _key(folder: Path) -> str:
    """Return what the jobs of a run's computing step are called, whoever submits them from its folder."""
    return f"{folder.name}-compute"


def _runs(facility: Facility) -> Path:
    return facility.scratch / "runs"


def _finish(scratch: Scratch, dataset: Dataset, watch: Watch) -> None:
    plan, state, end = scratch.saved_plan(), RunState.DONE, "done"
    if plan.is_partial:
        state, end = RunState.STOPPED_EARLY, "stopped early; the raw data wait for `lightkeep ingest`"
    message = "; ".join([end, *plan.warnings, *scratch.flags()])
    if not watch.change(state=state, progress=1.0, message=message, result_id=dataset.id):
        raise RunCancelled("cancelled as it ended: its result was withdrawn")


def _make(facility: Facility, run: Run, scratch: Scratch, watch: Watch) -> Dataset:
    if run.engine == LIVE:
        from lightkeep.lifecycle.acquisitions import following

        return following.make(facility, run, scratch, watch)
    awaited.check(facility, run)
    if run.technique == COMMAND:
        from lightkeep.lifecycle.processing import command

        return command.make(facility, run, scratch, watch)
    job, source, given = job_of(facility, run, scratch.folder)
    if not scratch.is_planned():
        with telemetry.span("plan", run=run.id):
            _plan(facility, run, scratch, job, watch)
    plan = scratch.saved_plan()
    watch.note(resolved=plan.params, engine=plan.engine)
    sources = [source, *given.values()]
    if not scratch.result.is_dir():
        with telemetry.span("compute", run=run.id, engine=plan.engine, pieces=len(plan.cuts)):
            _compute(facility, run, sources, scratch, job, watch)
            run_log.trace(scratch.folder)
    watch.begin("storing the result", 0.9, 1.0)
    with telemetry.span("store result", run=run.id):
        return keep_result(facility, run, sources, scratch)


def job_of(facility: Facility, run: Run, folder: Path) -> tuple[Job, Dataset, dict[str, Dataset]]:
    """Return what the tasks of a run need, its dataset, and the others that its parameters name."""
    from lightkeep.lifecycle.processing.pieces import Job

    source = facility.catalog.view(SERVICE).dataset(run.dataset_id)
    path = locate.local_path(facility, source.id, source.main_file)
    given = inputs.readable(facility, run.technique, run.params, created_by=run.created_by)
    reading = inputs.reading(run.technique, run.params, source.format)
    beside = inputs.places(facility, given)
    return Job(str(path), source.format, run.technique, str(folder), reading=reading, inputs=beside), source, given


def _plan(facility: Facility, run: Run, scratch: Scratch, job: Job, watch: Watch) -> None:
    from lightkeep import techniques
    from lightkeep.lifecycle.processing.pieces import is_incremental
    from lightkeep.lifecycle.processing.scratch import Plan

    watch.begin("looking at the data", 0.0, 0.05)
    found: Preflight = _here(job.task("preflight", params=dict(run.params)))
    cuts = cut(found.length, found.piece, seconds=found.seconds)
    work = placing.work_of(run.technique, found, job, pieces=len(cuts))
    if run.engine == PLACED:
        engine, placement = placing.chosen(facility, work, files=job.files())
    else:
        engine, placement = _engine(facility, run, found.seconds), {"work": asdict(work)}
    watch.change(placement=placement)
    plan = Plan.of(found, cuts=cuts, engine=engine)
    scratch.save_plan(plan, with_arrays=not is_incremental(techniques.get(run.technique)))


def _engine(facility: Facility, run: Run, seconds: float) -> str:
    if run.engine != AUTO:
        return run.engine
    if seconds < WORTH_S:
        return "inline"
    station_id = facility.catalog.view(SERVICE).experiment(run.experiment_id).station_id
    return facility.engine_for(run.technique, station_id)


def _here(task: Task) -> Any:
    """Call a task in this process: what takes seconds is not worth starting another one."""
    return engines.get("inline").map([task])[0]


def cut(length: int, piece: int = 0, *, seconds: float = math.inf) -> list[tuple[int, int]]:
    """Return (begin, end) of the pieces that share out `length` indices, `piece` to each but the last.

    Parameters
    ----------
    seconds: of work in all; without a `piece`, no piece is worth less than `PIECE_S`.

    >>> cut(10, 4)
    [(0, 4), (4, 8), (8, 10)]
    >>> cut(10, seconds=0.12)
    [(0, 5), (5, 10)]
    """
    pieces = min(MAX_PIECES, max(1.0, seconds / PIECE_S))
    step = piece or -(-length // int(pieces))
    return [(begin, min(begin + step, length)) for begin in range(0, length, step)]


def _compute(
    facility: Facility, run: Run, sources: Sequence[Dataset], scratch: Scratch, job: Job, watch: Watch
) -> None:
    plan = scratch.saved_plan()
    watch.begin("computing", 0.05, 0.85)
    pieces = range(len(plan.cuts))
    if not all(map(scratch.is_finished, pieces)):  # all, since a key names one list: finished ones cost nothing
        for folder in run_log.folders(facility, run.id):
            if folder != scratch.folder:  # who had the run before does not commit any more
                _abandon(facility, run.id, folder)
        engine = facility.engine(plan.engine)
        if isinstance(engine, FarEngine):
            job = replace(job, beside=locate.others(facility, sources))
        tasks = [job.task("compute", index=index) for index in pieces]
        folder, begun = scratch.folder / _JOBS, time.monotonic()
        engine.map(tasks, cancel=watch, key=_key(scratch.folder), folder=folder)
        known = facility.catalog.view(SERVICE).run(run.id).placement
        watch.note(placement=placing.truth(known, engine, folder, elapsed_s=time.monotonic() - begun))
    watch.begin("writing the result", 0.85, 0.9)
    write_result(run, sources, plan, job)
