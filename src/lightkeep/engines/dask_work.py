"""What runs on a Dask worker: tasks, each in a process of its own beside it.

    Dask worker ──> Children (one per map) ──pipe──> child, child, ...      a child per task that runs at once

A child that dies does not take the Dask worker and its neighbours' tasks with it, and it can be killed: Dask
itself cannot interrupt a task. When the plug-in is taken away, by a cancel or at the end of the map, its children
are killed.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock
from typing import Any

from distributed import Worker as DaskWorker
from distributed import WorkerPlugin, get_worker

from lightkeep.engines.processes import Worker, death
from lightkeep.model.engines import Task
from lightkeep.model.errors import RunFailed

_TRIES = 2


class Children(WorkerPlugin):  # type: ignore[misc]
    """The processes of one map on one Dask worker.

    Parameters
    ----------
    name: of the map; unique.
    threads: of OpenMP, BLAS and numba in each child.
    """

    def __init__(self, *, name: str, threads: int) -> None:
        self.name = name
        self._threads = threads

    def setup(self, worker: DaskWorker) -> None:  # noqa: ARG002 -- the protocol fixes it
        """Begin without any child."""
        self._lock = Lock()
        self._idle: list[Worker] = []
        self._busy: list[Worker] = []
        self._is_closed = False

    def teardown(self, worker: DaskWorker) -> None:  # noqa: ARG002
        """Kill the children."""
        with self._lock:
            self._is_closed = True
            for child in self._idle:
                child.end()
            for child in self._busy:
                child.kill()  # the thread that waits for it buries it

    def call(self, index: int, task: Task) -> tuple[bool, Any]:
        """Return (True, result) or (False, error). A child that dies costs the task one retry."""
        status = 0
        for _ in range(_TRIES):
            with self._lock:
                if self._is_closed:
                    break
                child = self._idle.pop() if self._idle else Worker(self._threads)
                self._busy.append(child)
            child.give(index, task)
            try:
                succeeded, answer = child.pipe.recv()
            except (EOFError, OSError):
                with self._lock:
                    self._busy.remove(child)
                    status = child.end()
                continue
            self._put_back(child)
            return bool(succeeded), answer
        return False, death(task, index, status) if status else RunFailed(f"piece {index} was stopped")

    def _put_back(self, child: Worker) -> None:
        with self._lock:
            self._busy.remove(child)
            if self._is_closed:
                child.end()
            else:
                self._idle.append(child)


def run(first: int, tasks: Sequence[Task], name: str) -> list[tuple[bool, Any]]:
    """Do a bundle of tasks, one after the other, on the Dask worker that this is called on.

    Parameters
    ----------
    first: index of the first of them.
    name: the map's.

    Returns
    -------
    : (True, result) or (False, error) of each; the first that fails is the last.
    """
    children = get_worker().plugins.get(name)
    if children is None:
        return [(False, RunFailed(f"piece {first} was stopped"))]
    answers = []
    for index, task in enumerate(tasks, first):
        answers.append(children.call(index, task))
        if not answers[-1][0]:
            break
    return answers
