"""What is said to Slurm and what it answers: sbatch, squeue, sacct, scancel, sinfo; here or, over ssh, elsewhere.

    Slurm(local_runner()).submit(script, JobSpec("lightkeep-run_1", ...))

A job is known by its name: `find` looks it up, so that who was killed between submitting and writing down the id
does not submit again. Finished jobs stay in squeue for Slurm's MinJobAge (300 s by default), in sacct for ever,
where accounting is on.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from lightkeep.model.errors import ConfigError, RunFailed


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command answered."""

    status: int
    """Exit status; 0 is success."""
    out: str
    err: str


Runner = Callable[[Sequence[str], str], Answer]
"""Runs a command with a text as its stdin. Raises RunFailed when it could not be asked at all."""

Environment = Mapping[str, str]

_RUNNING = {"RUNNING", "COMPLETING", "STOPPED", "SUSPENDED", "SIGNALING", "STAGE_OUT"}
_WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
_REFUSED = re.compile(r"^(?:sbatch: )?(?:error: )?(.*)$")
_WORTH_ANOTHER_TRY = ("Socket timed out", "Unable to contact slurm controller", "Connection refused")
_SQUEUE = "%A|%F|%K|%T|%r|%N|%j"
_SACCT = "JobIDRaw,JobID,State,ExitCode,NodeList,JobName"


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What a job asks for. Only what is given is asked for: the rest is the partition's default."""

    name: str
    """Names the run and the step, so that the job is found again."""
    log: str
    """File for what the job prints; %A is the job's id, %a the index in its array."""
    array: str = ""
    """Indices of a job array, e.g. `0-7` or `2,5`; empty: one job."""
    partition: str = ""
    qos: str = ""
    account: str = ""
    walltime_s: int = 0
    """0: the partition's default."""
    cpus: int = 0
    memory_mb: int = 0
    extra: tuple[str, ...] = ()
    """Further sbatch options, e.g. `--constraint=gpu`."""

    def options(self) -> list[str]:
        """Return sbatch's options."""
        minutes, seconds = divmod(self.walltime_s, 60)
        given = {
            "array": self.array,
            "partition": self.partition,
            "qos": self.qos,
            "account": self.account,
            "time": f"{minutes}:{seconds:02}" if self.walltime_s else "",
            "cpus-per-task": str(self.cpus or ""),
            "mem": f"{self.memory_mb}M" if self.memory_mb else "",
        }
        asked = [f"--{key}={value}" for key, value in given.items() if value]
        return [f"--job-name={self.name}", f"--output={self.log}", "--ntasks=1", "--requeue", *asked, *self.extra]


@dataclass(frozen=True, slots=True)
class Job:
    """One job, or one element of a job array, as Slurm tells it."""

    id: str
    """What scancel takes: `17`, or `17_3` for an element of an array."""
    array_id: str
    """Id that sbatch gave: the whole array's."""
    index: int
    """Index in the array; 0 for a job of its own."""
    state: str
    """Slurm's word: PENDING, RUNNING, COMPLETED, FAILED, NODE_FAIL, TIMEOUT, CANCELLED, PREEMPTED, ..."""
    reason: str = ""
    """Why it waits or ended, in Slurm's words."""
    nodes: str = ""

    @property
    def is_waiting(self) -> bool:
        """True while it is queued, or queued again."""
        return self.state in _WAITING

    @property
    def is_over(self) -> bool:
        """True when it will not run any more."""
        return self.state not in _RUNNING | _WAITING


@dataclass(frozen=True, slots=True)
class Partition:
    """One partition as sinfo tells it."""

    name: str
    is_up: bool
    idle_cpus: int
    cpus: int
    limit: str
    """Longest wall time, e.g. `30:00`."""


def local_runner(environ: Environment | None = None, *, timeout_s: float = 60.0) -> Runner:
    """Return a runner of commands on this machine.

    Parameters
    ----------
    environ: environment of the commands; this process's own when it is None. SLURM_CONF in it chooses the cluster.
    """

    def run(command: Sequence[str], stdin: str) -> Answer:
        try:
            done = subprocess.run(  # noqa: S603 -- no shell; the options are ours
                list(command),
                input=stdin,
                capture_output=True,
                text=True,
                timeout=timeout_s,
                env=dict(os.environ if environ is None else environ),
                check=False,
            )
        except FileNotFoundError as error:
            raise ConfigError(
                f"there is no `{command[0]}` on this machine",
                remedy="install Slurm's commands (Debian: slurm-client), or choose another engine",
            ) from error
        except subprocess.TimeoutExpired as error:
            return Answer(124, "", f"{command[0]} did not answer in {error.timeout:.0f} s: Socket timed out")
        return Answer(done.returncode, done.stdout, done.stderr)

    return run


@dataclass(frozen=True, slots=True)
class Slurm:
    """One cluster, through its commands."""

    run: Runner = field(default_factory=local_runner)

    def submit(self, script: str, spec: JobSpec) -> str:
        """Hand a job in; return its id.

        Raises
        ------
        RunFailed: refused; the message is sbatch's own.
        """
        answer = self.run(["sbatch", "--parsable", *spec.options()], script)
        if answer.status:
            raise refused(answer, spec)
        return answer.out.strip().partition(";")[0]

    def find(self, name: str) -> list[Job]:
        """Return every job of a name that Slurm remembers, newest last, an element of an array each.

        Raises
        ------
        RunFailed: Slurm does not answer. That is not "there is none".
        """
        found = self._squeue(f"--name={name}")
        return found or self._sacct(f"--name={name}")

    def jobs(self, array_id: str) -> list[Job]:
        """Return the elements of one submission by its id; none when Slurm has forgotten it."""
        found = self._squeue(f"--jobs={array_id}")
        return found or self._sacct(f"--jobs={array_id}")

    def cancel(self, *ids: str) -> None:
        """Stop jobs; what is over already stays as it is.

        Raises
        ------
        RunFailed: Slurm does not answer, so they may still run.
        """
        answer = self.run(["scancel", *ids], "")
        if answer.status and "Invalid job id" not in answer.err:
            raise _no_answer("scancel", answer)

    def start_now(self, job_id: str) -> None:
        """Have a job that was queued again wait for room only: Slurm lets it rest for two minutes otherwise."""
        self.run(["scontrol", "update", f"JobId={job_id}", "StartTime=now"], "")

    def expected_start(self, spec: JobSpec) -> datetime | None:
        """Return when Slurm would start such a job (local time of the cluster), None when it does not say.

        Raises
        ------
        RunFailed: it would refuse it, in its own words.
        """
        answer = self.run(["sbatch", "--test-only", *spec.options()], "#!/bin/sh\n")
        if answer.status:
            raise refused(answer, spec)
        found = re.search(r"to start at (\S+)", answer.err + answer.out)
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(found[1]) if found else None
        return None

    def partitions(self) -> list[Partition]:
        """Return the cluster's partitions.

        Raises
        ------
        RunFailed: Slurm does not answer.
        """
        answer = self.run(["sinfo", "--noheader", "--format=%R|%a|%C|%l"], "")
        if answer.status:
            raise _no_answer("sinfo", answer)
        return [_partition(line) for line in answer.out.splitlines() if line.count("|") == 3]

    def _squeue(self, which: str) -> list[Job]:
        command = ["squeue", "--noheader", "--array", "--all", "--states=all", f"--format={_SQUEUE}", which]
        answer = self.run(command, "")
        if answer.status:
            if "Invalid job id" in answer.err:
                return []
            raise _no_answer("squeue", answer)
        jobs = [_job_of_squeue(line) for line in answer.out.splitlines() if line.count("|") >= 6]
        return sorted(jobs, key=lambda job: (int(job.array_id), job.index))

    def _sacct(self, which: str) -> list[Job]:
        command = ["sacct", "--noheader", "--parsable2", "--allocations", "--array", f"--format={_SACCT}", which]
        answer = self.run([*command, "--starttime=now-30days"], "")
        if answer.status:  # no accounting here: what squeue forgot is forgotten
            return []
        jobs = [_job_of_sacct(line) for line in answer.out.splitlines() if line.count("|") >= 5]
        return sorted(jobs, key=lambda job: (int(job.array_id), job.index))


def refused(answer: Answer, spec: JobSpec) -> RunFailed:
    """Return sbatch's refusal as an error of ours, in sbatch's words."""
    lines = [found[1] for line in answer.err.splitlines() if (found := _REFUSED.match(line.strip())) and found[1]]
    words = "; ".join(lines) or f"exit status {answer.status}"
    asked = " ".join(spec.options()[3:])
    return RunFailed(
        f"Slurm refused the job: {words}",
        remedy=f"correct partition, qos, account, walltime or memory of this engine; asked was: {asked}",
        log=answer.err,
        is_transient=any(each in answer.err for each in _WORTH_ANOTHER_TRY),
    )


def _no_answer(command: str, answer: Answer) -> RunFailed:
    words = answer.err.strip().splitlines()[-1:] or [f"exit status {answer.status}"]
    return RunFailed(
        f"{command}: {words[0]}", remedy="look whether the cluster is up: sinfo", is_transient=True, log=answer.err
    )


def _job_of_squeue(line: str) -> Job:
    job_id, array_id, index, state, reason, nodes, _name = line.split("|", 6)
    is_element = index.isdigit()
    return Job(
        id=f"{array_id}_{index}" if is_element else job_id,
        array_id=array_id,
        index=int(index) if is_element else 0,
        state=state,
        reason="" if reason == "None" else reason,
        nodes=nodes,
    )


def _job_of_sacct(line: str) -> Job:
    _raw, shown, state, exit_code, nodes, _name = line.split("|", 5)
    array_id, _, index = shown.partition("_")
    return Job(
        id=shown,
        array_id=array_id,
        index=int(index) if index.isdigit() else 0,
        state=state.split()[0],  # "CANCELLED by 1000"
        reason=f"exit code {exit_code}" if exit_code not in ("", "0:0") else "",
        nodes=nodes,
    )


def _partition(line: str) -> Partition:
    name, state, cpus, limit = line.strip().split("|")
    _allocated, idle, _other, total = cpus.split("/")
    return Partition(name, state == "up", int(idle), int(total), limit)
