"""Tasks in processes on this machine.

    map ──starts──> worker ──pipe──> task, task, ...      a worker per share of the cores
     │                 │
     │   cancel, error, end of map: the worker's process group is killed
     └── this process dies, even by kill -9: the kernel kills the workers (PR_SET_PDEATHSIG)

Workers are fresh interpreters, not forks: the server's threads, locks and open databases are not copied, and the
number of threads of OpenMP, BLAS and numba is set in the environment before any of them is loaded.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from lightkeep.model.engines import Cancel, Task
from lightkeep.model.errors import LightkeepError, RunCancelled, RunFailed

_POLL_S = 0.1
"""How often a cancel is looked for; ten times inside the second that the protocol grants."""
_THREAD_SETTINGS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
)


class ProcessEngine:
    """Runs tasks on this machine's cores, each worker with its share of the threads.

    Parameters
    ----------
    workers: how many tasks run at once; 0: one per core that this process may use.
    cores: how many cores it may use; 0: what the kernel says.
    pieces: numbers that errors call the tasks by; their index when it is empty.
    """

    name = "processes"

    def __init__(self, *, workers: int = 0, cores: int = 0, pieces: Sequence[int] = ()) -> None:
        self._cores = cores or len(os.sched_getaffinity(0))
        self._workers = workers or self._cores
        self._pieces = pieces

    def workers(self) -> int:
        """How many tasks run at once."""
        return self._workers

    def map(
        self,
        tasks: Sequence[Task],
        *,
        done: Callable[[int, Any], None] | None = None,
        cancel: Cancel | None = None,
        key: str = "",  # noqa: ARG002 -- nothing outlives this process
        folder: Path | None = None,  # noqa: ARG002
    ) -> list[Any]:
        """Run all tasks; see `model.engines.Engine.map`.

        When a task fails no later one is started; the earlier ones end, so that the error raised is that of the
        first failing task in the order of the tasks, as inline.
        """
        size = min(self._workers, len(tasks))
        threads = max(1, self._cores // max(1, size))
        with _Pool(tasks, size=size, threads=threads, pieces=self._pieces or range(len(tasks))) as pool:
            return pool.run(done, cancel)

    def state(self) -> str:
        """Say what there is to work on."""
        return f"{self._workers} tasks at once on this machine, {self._cores} cores"

    def abandon(self, *, key: str, folder: Path) -> None:
        """Nothing: what it started ended with its `map`."""


class Worker:
    """One process and the task that it has."""

    def __init__(self, threads: int) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "lightkeep.engines.worker", str(theirs.fileno()), str(os.getpid())]
            self.process = subprocess.Popen(  # noqa: S603 -- our own module, no shell
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=2,  # a library's print must not end up in somebody's --json
                env=os.environ | dict.fromkeys(_THREAD_SETTINGS, str(threads)),
                process_group=0,  # what a task started is killed with it
            )
        self.pipe: Connection[Any, Any] = Connection(ours.detach())
        self.index = -1
        self._send(sys.path)

    def give(self, index: int, task: Task) -> None:
        """Have it run a task."""
        self.index = index
        self._send(task)

    def _send(self, message: object) -> None:
        with suppress(BrokenPipeError):  # it died: reading from the pipe will tell
            self.pipe.send(message)

    def kill(self) -> None:
        """Kill what is left of it; whoever reads from its pipe finds the end."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def end(self) -> int:
        """Kill what is left of it; return its exit status, negative for a signal.

        The kill comes before the wait: until it is waited for, nobody else can have its process id.
        """
        self.kill()
        self.pipe.close()
        return self.process.wait()


class _Pool:
    """The workers of one `map`, and what is known of its tasks."""

    def __init__(self, tasks: Sequence[Task], *, size: int, threads: int, pieces: Sequence[int]) -> None:
        self._tasks = tasks
        self._pieces = pieces
        self._size = size
        self._threads = threads
        self._waiting = deque(range(len(tasks)))
        self._workers: list[Worker] = []
        self._answers: dict[int, Any] = {}
        self._failures: dict[int, LightkeepError] = {}
        self._deaths: Counter[int] = Counter()

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers:
            worker.end()

    def run(self, done: Callable[[int, Any], None] | None, cancel: Cancel | None) -> list[Any]:
        """Keep the workers busy until every task has ended."""
        while len(self._answers) < len(self._tasks):
            if cancel is not None and cancel.is_set():
                raise RunCancelled(f"cancelled after {len(self._answers)} of {len(self._tasks)} pieces")
            self._hand_out()
            self._raise_first_failure()
            ready = wait([worker.pipe for worker in self._workers], timeout=_POLL_S)
            for worker in [worker for worker in self._workers if worker.pipe in ready]:
                if self._receive(worker) and done is not None:
                    done(worker.index, self._answers[worker.index])
        return [self._answers[index] for index in range(len(self._tasks))]

    def _hand_out(self) -> None:
        idle = [worker for worker in self._workers if worker.index in self._answers]
        end = min(self._failures, default=len(self._tasks))
        while self._waiting and self._waiting[0] < end and (idle or len(self._workers) < self._size):
            if not idle:
                idle.append(Worker(self._threads))
                self._workers.append(idle[-1])
            index = self._waiting.popleft()
            idle.pop().give(index, self._tasks[index])

    def _raise_first_failure(self) -> None:
        if not self._failures:
            return
        first = min(self._failures)
        if all(index in self._answers for index in range(first)):
            raise self._failures[first]

    def _receive(self, worker: Worker) -> bool:
        """Take a worker's answer; return whether it is a result."""
        try:
            succeeded, answer = worker.pipe.recv()
        except (EOFError, OSError):
            self._bury(worker)
            return False
        if succeeded:
            self._answers[worker.index] = answer
        else:
            self._failures[worker.index] = answer
            self._retire(worker)
        return bool(succeeded)

    def _bury(self, worker: Worker) -> None:
        """A worker died: its task, unless it is done, has one more try."""
        index = worker.index
        status = self._retire(worker)
        if index in self._answers:
            return
        self._deaths[index] += 1
        if self._deaths[index] == 1:
            self._waiting.appendleft(index)
        else:
            self._failures[index] = death(self._tasks[index], self._pieces[index], status)

    def _retire(self, worker: Worker) -> int:
        self._workers.remove(worker)
        return worker.end()


def death(task: Task, index: int, status: int) -> RunFailed:
    """Return the error of a task that ended its worker twice; `status` as of `Popen.wait`."""
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    what = f"piece {index} ({task.function}) ended its worker process twice: {how}"
    if status == -signal.SIGKILL:
        return RunFailed(
            what,
            remedy="SIGKILL is what the kernel sends when memory runs out: use fewer workers or smaller pieces",
            signal=how,
        )
    return RunFailed(what, remedy="run it with the inline engine to see where", signal=how)
