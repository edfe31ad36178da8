"""Tasks as Slurm jobs: one job, or a job array, per `map`.

    map ── tasks ──> folder ── sbatch ──> job, job, ...     each does its share, and writes answers to the folder
     │                 │                        │
     │ killed, called again with the same key:  │ preempted, node lost: Slurm queues it again, what is answered
     └ the job is found by id or name <─────────┘ stays; killed otherwise: one replacement for the tasks it had

The folder is the truth: a task is done when its answer is there, whatever Slurm says. Slurm is asked for what the
folder cannot tell: that a job waits, was lost, or was refused.
"""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from lightkeep.engines.exchange import Exchange
from lightkeep.engines.slurm_commands import Job, JobSpec, Runner, Slurm, local_runner
from lightkeep.model.engines import Cancel, Task
from lightkeep.model.errors import ConfigError, LightkeepError, RunCancelled, RunFailed

_LOG = logging.getLogger(__name__)
_LOOK_S = 0.1
"""Pause between two looks at the folder, as long as a task takes seconds; it grows to five times that."""
_LAG_S = 15.0
"""How long an answer may take to be seen here after its job ended: NFS remembers a folder for some seconds."""
_STOP_S = 5.0
"""How long a cancelled job is waited for."""
_PATIENCE_S = 900.0
"""How long Slurm may be silent before the run fails: a controller that is restarted is back by then."""
_RETRIES = {"NODE_FAIL": 10, "PREEMPTED": 10, "BOOT_FAIL": 10, "REVOKED": 10}
"""Replacements of a job that was lost through no fault of its own; any other gets one."""
_HOPELESS = {
    "AssocMaxWallDurationPerJobLimit",
    "BadConstraints",
    "DependencyNeverSatisfied",
    "InvalidAccount",
    "InvalidQOS",
    "PartitionNodeLimit",
    "PartitionTimeLimit",
    "QOSMaxWallDurationPerJobLimit",
    "launch_failed_requeued_held",
}
"""Reasons for waiting that no waiting mends."""


class SlurmEngine:
    """Runs tasks as jobs of a Slurm cluster that shares a folder with this machine.

    Parameters
    ----------
    folder: where jobs' logs are kept, on a file system that the nodes have too.
    partition, qos, account: as for sbatch; empty: the cluster's default.
    walltime: `minutes`, `hours:minutes:seconds`; empty: the partition's default.
    workers: jobs of an array at most.
    processes: tasks that one job does at once.
    cpus: cores of one job, shared by its processes; 0: one per process.
    memory_mb: of one job; 0: the partition's default.
    container: command that the job's Python is run by, e.g. `apptainer exec lightkeep.sif`.
    python: the Python to run on the nodes; empty: this one, by its path.
    setup: lines for the job's shell before that, e.g. `module load hdf5`.
    extra: further sbatch options, e.g. `--constraint=gpu`.
    poll_s: seconds between two questions to Slurm.
    runner: runs the commands.
    """

    name = "slurm"

    def __init__(
        self,
        *,
        folder: str = "",
        partition: str = "",
        qos: str = "",
        account: str = "",
        walltime: str = "",
        workers: int = 4,
        processes: int = 1,
        cpus: int = 0,
        memory_mb: int = 0,
        container: str = "",
        python: str = "",
        setup: Sequence[str] = (),
        extra: Sequence[str] = (),
        poll_s: float = 1.0,
        runner: Runner | None = None,
    ) -> None:
        self.folder = Path(folder).expanduser() if folder else Path.home() / ".cache" / "lightkeep" / "slurm"
        self.slurm = Slurm(runner or local_runner())
        self._workers, self._processes, self._poll_s = max(1, workers), max(1, processes), poll_s
        self._setup = tuple(setup)
        self._python = [*shlex.split(container), python or sys.executable]
        self._spec = JobSpec(
            name="lightkeep",
            log=str(self.folder / "logs" / "lightkeep"),
            partition=partition,
            qos=qos,
            account=account,
            walltime_s=seconds_of(walltime),
            cpus=cpus or self._processes,
            memory_mb=memory_mb,
            extra=tuple(extra),
        )

    def workers(self) -> int:
        """How many tasks run at once when the cluster has room."""
        return self._workers * self._processes

    def state(self) -> str:
        """Say in a line what the cluster has free for this engine.

        Raises
        ------
        LightkeepError: Slurm does not answer, or has no such partition.
        """
        found = self.slurm.partitions()
        wanted = self._spec.partition
        mine = [each for each in found if each.name == wanted or not wanted]
        if not mine:
            names = ", ".join(each.name for each in found)
            raise ConfigError(f"Slurm has no partition `{wanted}`", remedy=f"choose one of: {names}")
        return "; ".join(
            f"{each.name} {'up' if each.is_up else 'down'}, {each.idle_cpus} of {each.cpus} cores free"
            for each in mine
        )

    def expected_wait_s(self) -> float | None:
        """Return how long Slurm would let such a job wait, in seconds; None when it does not say.

        Raises
        ------
        RunFailed: it would refuse the job, or does not answer.
        """
        at = self.slurm.expected_start(self._spec)
        return None if at is None else max(0.0, (at - datetime.now()).total_seconds())  # noqa: DTZ005 -- as Slurm

    def spent(self, folder: Path) -> dict[str, float]:
        """Return how long the `map` of a folder waited for its first job, and computed after that."""
        try:
            shared, begun, ended = Exchange(folder).times()
        except FileNotFoundError:
            return {}
        return {"wait_s": max(0.0, begun - shared), "compute_s": max(0.0, ended - begun)}

    def map(
        self,
        tasks: Sequence[Task],
        *,
        done: Callable[[int, Any], None] | None = None,
        cancel: Cancel | None = None,
        key: str = "",
        folder: Path | None = None,
    ) -> list[Any]:
        """Run all tasks; see `model.engines.Engine.map`.

        With a key and a folder the jobs outlive this process: the next call finds them. Without, they are
        cancelled when this call ends, however it ends; only a kill -9 leaves them to their end.
        """
        if cancel is not None and cancel.is_set():
            raise RunCancelled("cancelled before the start")
        if not tasks:
            return []
        (self.folder / "logs").mkdir(mode=0o700, parents=True, exist_ok=True)
        if key and folder is not None:
            return self._attend(tasks, Exchange(folder), key, is_durable=True).run(done, cancel)
        own = Path(tempfile.mkdtemp(prefix="map-", dir=self.folder))
        try:
            return self._attend(tasks, Exchange(own), own.name, is_durable=False).run(done, cancel)
        finally:
            shutil.rmtree(own, ignore_errors=True)

    def abandon(self, *, key: str, folder: Path) -> None:
        """Cancel the jobs of a key that its caller left behind."""
        exchange = Exchange(folder)
        if exchange.submissions():
            self._attend([], exchange, key, is_durable=True).stop()

    def submit(self, exchange: Exchange, key: str, number: int) -> str:
        """Hand a submission in unless that was done; return its id.

        Raises
        ------
        RunFailed: refused, in sbatch's words.
        """
        if known := exchange.job_id(number):
            return known
        name = job_name(key, number)
        found = [job for job in self.slurm.find(name) if not job.is_over]
        job_id = found[0].array_id if found else self._sbatch(exchange, name, number)
        exchange.note_id(number, job_id)
        return exchange.job_id(number)

    def _sbatch(self, exchange: Exchange, name: str, number: int) -> str:
        count = len(exchange.shares(number))
        spec = replace(
            self._spec,
            name=name,
            log=str(self.folder / "logs" / f"{name}-%A{'_%a' if count > 1 else ''}.log"),
            array=f"0-{count - 1}" if count > 1 else "",
        )
        command = [*self._python, "-m", "lightkeep.engines.slurm_work"]
        arguments = [str(exchange.folder), str(number), str(self._processes)]
        lines = ["#!/bin/sh", *self._setup, f"exec {shlex.join([*command, *arguments])}"]
        return self.slurm.submit("\n".join(lines) + "\n", spec)

    def log_of(self, key: str, number: int, job: Job, *, is_array: bool) -> Path:
        """Return the file with what a job printed."""
        part = f"{job.array_id}_{job.index}" if is_array else job.array_id
        return self.folder / "logs" / f"{job_name(key, number)}-{part}.log"

    def _attend(self, tasks: Sequence[Task], exchange: Exchange, key: str, *, is_durable: bool) -> _Map:
        return _Map(self, tasks, exchange, key=key, is_durable=is_durable)

    @property
    def jobs_at_most(self) -> int:
        """Jobs of one array."""
        return self._workers

    @property
    def may_start_at_once(self) -> bool:
        """False when sbatch was told when to begin."""
        return not any(each.startswith(("--begin", "-b")) for each in self._spec.extra)

    @property
    def poll_s(self) -> float:
        """Seconds between two questions to Slurm."""
        return self._poll_s


class _Map:
    """What is known of the tasks of one `map`."""

    def __init__(
        self, engine: SlurmEngine, tasks: Sequence[Task], exchange: Exchange, *, key: str, is_durable: bool
    ) -> None:
        self._engine = engine
        self._tasks = tasks
        self._exchange = exchange
        self._key = key
        self._is_durable = is_durable
        self._answers: dict[int, Any] = {}
        self._failures: dict[int, LightkeepError] = {}
        self._missing_since: dict[int, float] = {}
        self._next_question = 0.0
        self._heard_at = time.monotonic()
        self._has_failed = False

    def run(self, done: Callable[[int, Any], None] | None, cancel: Cancel | None) -> list[Any]:
        """Submit what is not submitted, and wait for every answer."""
        try:
            self._exchange.offer(self._tasks)
            if not self._exchange.submissions():
                self._submit(range(len(self._tasks)))
            pause = _LOOK_S
            while not self._take(done):
                if cancel is not None and cancel.is_set():
                    self._has_failed = True
                    raise RunCancelled(f"cancelled after {len(self._answers)} of {len(self._tasks)} pieces")
                self._look_after_jobs()
                time.sleep(pause)
                pause = min(pause * 1.02, 5 * _LOOK_S)
        except BaseException:
            if self._has_failed or not self._is_durable:
                self._stop_quietly()
            raise  # else it is this process that stops, or has lost its catalogue: the jobs are found again
        return [self._answers[index] for index in range(len(self._tasks))]

    def _stop_quietly(self) -> None:
        try:
            self.stop()
        except LightkeepError as error:  # what was raised before says more; `abandon` tries again
            _LOG.warning("slurm: %s", error.message, extra={"about": {"key": self._key}})

    def stop(self) -> None:
        """Cancel every job that is not over, and wait a little until it is.

        Raises
        ------
        RunFailed: Slurm does not answer, or a job does not end.
        """
        slurm = self._engine.slurm
        deadline = time.monotonic() + _STOP_S
        while alive := [job for job in self._jobs() if not job.is_over]:
            if time.monotonic() > deadline:
                ids = ", ".join(job.id for job in alive)
                raise RunFailed(f"Slurm does not end {ids}", remedy=f"scancel --signal=KILL --full {ids}")
            slurm.cancel(*[job.id for job in alive])
            time.sleep(_LOOK_S)

    def _jobs(self) -> list[Job]:
        """Return every job that was submitted for these tasks, also one whose id was not written down."""
        slurm, found = self._engine.slurm, []
        for number in self._exchange.submissions():
            job_id = self._exchange.job_id(number)
            found += slurm.jobs(job_id) if job_id else slurm.find(job_name(self._key, number))
        return found

    def _take(self, done: Callable[[int, Any], None] | None) -> bool:
        """Take the new answers; return True when all are there. Raises the first failing task's error."""
        for index in sorted(self._exchange.answered() - self._answers.keys() - self._failures.keys()):
            succeeded, value = self._exchange.answer(index)
            if not succeeded:
                self._failures[index] = value
                continue
            self._answers[index] = value
            if done is not None:
                done(index, value)
        if self._failures:
            first = min(self._failures)
            if all(index in self._answers for index in range(first)):
                self._has_failed = True
                raise self._failures[first]
        return len(self._answers) == len(self._tasks)

    def _submit(self, indices: Iterable[int]) -> None:
        """Share tasks out among the jobs of a new submission, in turn: what is needed first is begun first."""
        todo = list(indices)
        count = min(self._engine.jobs_at_most, len(todo))
        number = max(self._exchange.submissions(), default=0) + 1
        self._exchange.share_out(number, [todo[start::count] for start in range(count)])
        self._next_question = 0.0

    def _look_after_jobs(self) -> None:
        """Submit what is not yet, and replace what was lost; every `poll_s`."""
        now = time.monotonic()
        if now < self._next_question:
            return
        self._next_question = now + self._engine.poll_s
        try:
            lost: dict[int, tuple[int, Job]] = {}
            for number in self._exchange.submissions():
                job_id = self._engine.submit(self._exchange, self._key, number)
                lost |= self._lost(number, job_id)
        except RunFailed as error:
            if not error.data.get("is_transient") or now - self._heard_at > _PATIENCE_S:
                self._has_failed = True
                raise
            _LOG.warning("slurm: %s", error.message, extra={"about": {"key": self._key}})
            return
        self._heard_at = now
        self._replace(lost, now)

    def _lost(self, number: int, job_id: str) -> dict[int, tuple[int, Job]]:
        """Return task -> (submission, job) for what has no answer and no job that could still bring it."""
        jobs = {job.index: job for job in self._engine.slurm.jobs(job_id)}
        lost: dict[int, tuple[int, Job]] = {}
        for index, share in enumerate(self._exchange.shares(number)):
            open_tasks = [task for task in share if task not in self._answers and task not in self._failures]
            if any(task in self._failures for task in share):
                continue  # it stopped where it failed
            job = jobs.get(index) or Job(job_id, job_id, index, "UNKNOWN", "Slurm knows nothing of it")
            if job.is_waiting and job.reason.replace(" ", "_") in _HOPELESS:
                raise RunFailed(
                    f"job {job.id} will never start: {job.reason}",
                    remedy="correct partition, account, qos or walltime of this engine",
                )
            if job.is_waiting and job.reason == "BeginTime" and self._engine.may_start_at_once:
                self._engine.slurm.start_now(job.id)
            if open_tasks and job.is_over:
                lost |= dict.fromkeys(open_tasks, (number, job))
        return lost

    def _replace(self, lost: dict[int, tuple[int, Job]], now: float) -> None:
        """Give lost tasks one more job, once their answers had time to be seen here."""
        tries = Counter(
            task
            for number in self._exchange.submissions()
            for share in self._exchange.shares(number)
            for task in share
        )
        newest = {task: self._newest(task) for task in lost}
        lost = {task: found for task, found in lost.items() if found[0] == newest[task]}
        self._missing_since = {task: self._missing_since.get(task, now) for task in lost}
        again = []
        for task, (number, job) in sorted(lost.items()):
            waited = now - self._missing_since[task]
            if waited < (_LAG_S if job.state in ("COMPLETED", "UNKNOWN") else 2 * _LOOK_S):
                continue
            if tries[task] > _RETRIES.get(job.state, 1) or job.state in ("TIMEOUT", "CANCELLED", "DEADLINE"):
                self._has_failed = True
                raise self._loss(task, number, job)
            again.append(task)
        if again:
            _LOG.warning("slurm: %d pieces lost their job", len(again), extra={"about": {"key": self._key}})
            self._missing_since = {}
            self._submit(again)

    def _newest(self, task: int) -> int:
        return max(
            number
            for number in self._exchange.submissions()
            if any(task in share for share in self._exchange.shares(number))
        )

    def _loss(self, task: int, number: int, job: Job) -> RunFailed:
        """Return the error of a task whose job ended without an answer."""
        log = self._engine.log_of(self._key, number, job, is_array=len(self._exchange.shares(number)) > 1)
        said = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
        words = f": {said[-1]}" if said else ""
        why = f" ({job.reason})" if job.reason else ""
        where = f" on {job.nodes}" if job.nodes else ""
        function = self._tasks[task].function
        return RunFailed(
            f"piece {task} ({function}): job {job.id} {job.state}{where}{why}{words}",
            remedy=_REMEDIES.get(job.state, f"its log: {log}"),
            log="\n".join(said[-40:]),
            log_file=str(log),
        )


_REMEDIES = {
    "TIMEOUT": "its wall time was over: raise `walltime` of this engine, or use smaller pieces",
    "CANCELLED": "somebody cancelled it on the cluster; start the run again",
    "OUT_OF_MEMORY": "raise `memory_mb` of this engine, or use smaller pieces",
}


def job_name(key: str, number: int) -> str:
    """Return the name of a key's job, the same whenever and by whomever it is asked.

    >>> job_name("run_01h/compute", 1)
    'lightkeep-run_01h-compute-1'
    """
    return f"lightkeep-{re.sub('[^A-Za-z0-9_.-]', '-', key)}-{number}"


def seconds_of(walltime: str) -> int:
    """Return the seconds of a wall time as Slurm writes it.

    >>> seconds_of("30"), seconds_of("30:00"), seconds_of("1:30:00"), seconds_of("1-00:00:00"), seconds_of("")
    (1800, 1800, 5400, 86400, 0)

    Raises
    ------
    ConfigError: it is none.
    """
    if not walltime:
        return 0
    found = re.fullmatch(r"(?:(\d+)-(?=\d+:\d+:\d+$))?(?:(\d+):)??(\d+)(?::(\d+))?", walltime)
    if not found:
        raise ConfigError(f"walltime `{walltime}` is not a time", remedy="write minutes, or hours:minutes:seconds")
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
