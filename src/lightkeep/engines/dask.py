"""Tasks on Dask: a cluster in this process, one of Slurm jobs, or a scheduler that is there already.

    map ──> scheduler ──> worker, worker, ...       local: threads of this process, nothing listens on the network
             (here, or by its address)              slurm: jobs, by dask-jobqueue; lost ones are replaced

Each task runs in a process beside its worker, see `engines.dask_work`.
"""

from __future__ import annotations

import logging
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from lightkeep.engines.slurm_commands import Slurm, local_runner
from lightkeep.model.engines import Cancel, Task
from lightkeep.model.errors import ConfigError, LightkeepError, RunCancelled, RunFailed

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster
    from distributed import Client, Future, Security

_POLL_S = 0.1
_BUNDLES = 512
"""Bundles that a map is handed over in at most."""
_REFILL_S = 2.0
"""Pause between two looks for lost workers."""
_CONNECT_S = 10.0
_LOST, _LOOK = "the Dask scheduler was lost", "look at its log, then start the run again"
_SETTINGS = {
    "distributed.scheduler.allowed-failures": 1,  # a worker that dies costs its task one retry
    "distributed.deploy.lost-worker-timeout": "1s",
    "distributed.scheduler.http.routes": [],  # nothing is shown to who is not asked for a key
    "distributed.worker.daemon": False,  # a worker starts processes
    "distributed.comm.timeouts.connect": "30s",
}


class DaskEngine:
    """Runs tasks on Dask workers.

    Parameters
    ----------
    cluster: `local`, or `slurm` for workers in Slurm jobs.
    address: of a scheduler that is there already, e.g. `tls://head:8786`; `cluster` does not matter then.
    tls_ca, tls_cert, tls_key: files for a scheduler that wants TLS.
    workers: tasks at once on `local`, 0: one per core; jobs on `slurm`, 0: two.
    processes: tasks that one job does at once.
    cpus: cores of one job; 0: one per process.
    memory_mb: of one job. It reaches sbatch as it is: dask-jobqueue would round it up to whole gigabytes.
    partition, qos, account, walltime, setup, extra, python: as for the engine `slurm`.
    interface: network interface that the nodes reach this machine by, e.g. `ib0`.
    folder: where jobs' logs and the keys of their TLS are kept, on a file system that the nodes have too.
    """

    name = "dask"

    def __init__(
        self,
        *,
        cluster: str = "local",
        address: str = "",
        tls_ca: str = "",
        tls_cert: str = "",
        tls_key: str = "",
        workers: int = 0,
        processes: int = 1,
        cpus: int = 0,
        memory_mb: int = 1000,
        partition: str = "",
        qos: str = "",
        account: str = "",
        walltime: str = "",
        setup: Sequence[str] = (),
        extra: Sequence[str] = (),
        python: str = "",
        interface: str = "",
        folder: str = "",
    ) -> None:
        if cluster not in ("local", "slurm"):
            raise ConfigError(f"dask: there is no cluster `{cluster}`", remedy="choose `local` or `slurm`")
        self._cluster, self._address = cluster, address
        self._tls = {"tls_ca_file": tls_ca, "tls_client_cert": tls_cert, "tls_client_key": tls_key}
        self._cores = len(os.sched_getaffinity(0))
        self._workers = workers or (2 if cluster == "slurm" else self._cores)
        self._processes, self._cpus = max(1, processes), cpus or max(1, processes)
        self.folder = Path(folder).expanduser() if folder else Path.home() / ".cache" / "lightkeep" / "dask"
        named = {"qos": qos, "mem": f"{memory_mb}M"}
        self._job = {
            "queue": partition or None,
            "account": account or None,
            "walltime": walltime or None,
            "memory": f"{memory_mb}MB",
            "job_directives_skip": ["--mem="],
            "job_extra_directives": [*(f"--{key}={value}" for key, value in named.items() if value), *extra],
            "job_script_prologue": list(setup),
            "python": shlex.quote(python or sys.executable),
            "interface": interface or None,
        }

    def workers(self) -> int:
        """How many tasks run at once when the cluster has room."""
        if self._address:
            with self._connected() as client:
                threads: dict[str, int] = client.nthreads()
                return max(1, sum(threads.values()))
        return self._workers * (self._processes if self._cluster == "slurm" else 1)

    def state(self) -> str:
        """Say in a line what there is to work on.

        Raises
        ------
        LightkeepError: it cannot be reached.
        """
        if self._address:
            with self._connected() as client:
                threads = client.nthreads()
            return f"{self._address}: {len(threads)} workers, {sum(threads.values())} threads"
        if self._cluster == "slurm":
            free = sum(each.idle_cpus for each in Slurm(local_runner()).partitions() if each.is_up)
            return f"Slurm: {free} cores free"
        return f"{self._workers} tasks at once on this machine"

    def abandon(self, *, key: str, folder: Path) -> None:
        """Nothing: tasks end with the process that asked for them."""

    def map(
        self,
        tasks: Sequence[Task],
        *,
        done: Callable[[int, Any], None] | None = None,
        cancel: Cancel | None = None,
        key: str = "",  # noqa: ARG002 -- nothing outlives this process
        folder: Path | None = None,  # noqa: ARG002
    ) -> list[Any]:
        """Run all tasks; see `model.engines.Engine.map`."""
        if cancel is not None and cancel.is_set():
            raise RunCancelled("cancelled before the start")
        if not tasks:
            return []
        _configure()
        with self._opened(len(tasks)) as (client, refill):
            return _Map(client, tasks, threads=self._threads(len(tasks)), refill=refill).run(done, cancel)

    def _threads(self, tasks: int) -> int:
        if self._cluster == "slurm" or self._address:
            return max(1, self._cpus // self._processes)
        return max(1, self._cores // max(1, min(self._workers, tasks)))

    @contextmanager
    def _opened(self, tasks: int) -> Iterator[tuple[Client, Callable[[], None]]]:
        if self._address:
            with self._connected() as client:
                yield client, _nothing
            return
        opened = self._slurm() if self._cluster == "slurm" else self._local(min(self._workers, tasks))
        from distributed import Client

        with opened as (cluster, refill), Client(cluster) as client:
            yield client, refill

    @contextmanager
    def _connected(self) -> Iterator[Client]:
        from distributed import Client

        try:
            client = Client(self._address, timeout=_CONNECT_S, security=self._security())
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"no Dask scheduler at {self._address}: {error}",
                remedy="start it with `dask scheduler`, or correct `address` of this engine",
            ) from error
        with client:
            yield client

    def _security(self) -> Security | None:
        from distributed import Security

        given = {key: value for key, value in self._tls.items() if value}
        return Security(require_encryption=True, **given) if given else None

    @contextmanager
    def _local(self, workers: int) -> Iterator[tuple[Any, Callable[[], None]]]:
        """A scheduler and a worker inside this process. Its threads only wait: the tasks are in processes."""
        from distributed import LocalCluster

        with LocalCluster(
            n_workers=1,
            threads_per_worker=workers,
            processes=False,
            dashboard_address=None,
            memory_limit=0,
            silence_logs=logging.CRITICAL,
        ) as cluster:
            yield cluster, _nothing

    @contextmanager
    def _slurm(self) -> Iterator[tuple[SLURMCluster, Callable[[], None]]]:
        from lightkeep.engines.dask_jobs import Jobs

        logs = self.folder / "logs"
        logs.mkdir(mode=0o700, parents=True, exist_ok=True)
        cores = {"cores": self._processes, "processes": 1, "job_cpu": self._cpus}
        jobs = Jobs(self._workers, self.folder, log_directory=str(logs), **cores, **self._job)
        try:
            yield jobs.cluster, jobs.refill
        finally:
            jobs.close()


def _configure() -> None:
    """Settle what Dask takes from its global settings. Not for the time of a map: maps run side by side."""
    import dask
    import distributed  # noqa: F401 -- its own defaults come first

    dask.config.set(_SETTINGS)


def _nothing() -> None:
    """Nothing to refill."""


class _Map:
    """What is known of the tasks of one `map`."""

    def __init__(self, client: Client, tasks: Sequence[Task], *, threads: int, refill: Callable[[], None]) -> None:
        self._client = client
        self._tasks = tasks
        self._name = f"lightkeep-{uuid4().hex}"
        self._threads = threads
        self._refill = refill
        self._first: dict[str, int] = {}
        self._ended: SimpleQueue[Future] = SimpleQueue()
        self._answers: dict[int, Any] = {}
        self._failures: dict[int, LightkeepError] = {}

    def run(self, done: Callable[[int, Any], None] | None, cancel: Cancel | None) -> list[Any]:
        """Submit all, and take the answers as they come."""
        from lightkeep.engines.dask_work import Children

        try:
            self._client.register_plugin(Children(name=self._name, threads=self._threads))
        except ImportError as error:
            raise ConfigError(
                f"a Dask worker cannot load Lightkeep: {error}", remedy="install the same version on every worker"
            ) from error
        futures = self._submit()
        try:
            next_refill = time.monotonic() + _REFILL_S
            while len(self._answers) < len(self._tasks):
                if cancel is not None and cancel.is_set():
                    raise RunCancelled(f"cancelled after {len(self._answers)} of {len(self._tasks)} pieces")
                self._take(self._some(), done)
                self._raise_first_failure(futures)
                if time.monotonic() > next_refill:
                    self._refill()
                    next_refill = time.monotonic() + _REFILL_S
        finally:
            with suppress(OSError):  # the scheduler is gone, and its workers with it
                self._client.cancel(futures, force=True)
                self._client.unregister_worker_plugin(self._name)  # kills what still runs
        return [self._answers[index] for index in range(len(self._tasks))]

    def _submit(self) -> list[Future]:
        """Hand the tasks over: many small ones some at a time, since each costs the scheduler 3 ms."""
        from lightkeep.engines.dask_work import run

        size = -(-len(self._tasks) // _BUNDLES)
        firsts = range(0, len(self._tasks), size)
        keys = [f"{self._name}-{first}" for first in firsts]
        self._first = dict(zip(keys, firsts, strict=True))
        bundles = [self._tasks[first : first + size] for first in firsts]
        futures: list[Future] = self._client.map(run, firsts, bundles, name=self._name, key=keys, pure=False)
        for future in futures:
            future.add_done_callback(self._ended.put)
        return futures

    def _some(self) -> list[Future]:
        """Wait a moment for the next that end."""
        ended = []
        with suppress(Empty):
            ended.append(self._ended.get(timeout=_POLL_S))
            while True:
                ended.append(self._ended.get_nowait())
        return ended

    def _take(self, ended: list[Future], done: Callable[[int, Any], None] | None) -> None:
        good = [future for future in ended if future.status == "finished"]
        for future in ended:
            if future.status == "error":
                index = self._first[future.key]
                self._failures[index] = _lost(index, self._tasks[index], future.exception())
            elif future.status in ("cancelled", "lost") and not self._failures:
                raise RunFailed(_LOST, remedy=_LOOK)
        try:
            gathered = self._client.gather(good)
        except OSError as error:
            raise RunFailed(_LOST, remedy=_LOOK) from error
        for future, answers in zip(good, gathered, strict=True):
            for index, (succeeded, value) in enumerate(answers, self._first[future.key]):
                if not succeeded:
                    self._failures[index] = value
                    continue
                self._answers[index] = value
                if done is not None:
                    done(index, value)

    def _raise_first_failure(self, futures: list[Future]) -> None:
        if not self._failures:
            return
        first = min(self._failures)
        if all(index in self._answers for index in range(first)):
            raise self._failures[first]
        self._client.cancel([each for each in futures if self._first[each.key] > first], force=True)


def _lost(index: int, task: Task, error: BaseException | None) -> RunFailed:
    return RunFailed(
        f"piece {index} ({task.function}) was lost twice with its Dask worker: {error}",
        remedy="look at the worker's log: its node may be short of memory",
    )
