"""Where work runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Task:
    """One call that any process with Lightkeep installed can make."""

    function: str
    """`package.module:name` of a module-level function."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments; picklable."""
    reads: tuple[str, ...] = ()
    """Files on this machine that it reads, for an engine whose workers share no folder with it."""
    works_in: str = ""
    """Folder in which it reads and writes files, for such an engine; empty: none."""


class Cancel(Protocol):
    """Whether somebody asked to stop."""

    def is_set(self) -> bool:
        """True from the moment that stopping was asked for."""
        ...


class Engine(Protocol):
    """Runs independent tasks.

    An engine MUST return results in the order of the tasks, MUST run each task to its end once when nothing
    fails, MUST raise the first failing task's own error (LightkeepError as it is, others as RunFailed with the
    last line of their traceback), and MUST NOT leave a process behind: one that is not found again by its key.
    """

    name: str

    def map(
        self,
        tasks: Sequence[Task],
        *,
        done: Callable[[int, Any], None] | None = None,
        cancel: Cancel | None = None,
        key: str = "",
        folder: Path | None = None,
    ) -> list[Any]:
        """Run all tasks. `done(index, result)` is called in the caller's thread as each ends.

        `key` names the run and the step, `folder` is theirs alone, shared with where the tasks run. An engine
        whose work outlives this process MUST find it again when it is called with the same two and the same
        tasks, and never submit it twice. Without them nothing may outlive this process's interest in it.

        MUST stop within a second of `cancel` being set (a task already running in another process is killed;
        the inline engine stops between tasks) and raise RunCancelled. A worker that dies (killed, out of memory)
        costs its own task one retry, then RunFailed naming the task and the signal.
        """
        ...

    def abandon(self, *, key: str, folder: Path) -> None:
        """Stop what may still run under a key, for a caller that died; nothing happens when there is nothing.

        Raises
        ------
        RunFailed: it cannot be reached, so it may still run; call again later.
        """
        ...

    def workers(self) -> int:
        """How many tasks run at once."""
        ...

    def state(self) -> str:
        """Say in a line what there is to work on now.

        Raises
        ------
        LightkeepError: it cannot be reached or used; the message says why.
        """
        ...


@runtime_checkable
class QueuedEngine(Engine, Protocol):
    """An engine whose tasks may wait before they start."""

    def expected_wait_s(self) -> float | None:
        """Seconds that work handed in now would wait; None when nobody can tell. MUST raise a LightkeepError, with
        the reason, when it would not be taken at all."""
        ...


@runtime_checkable
class MeasuredEngine(Protocol):
    """An engine that can tell waiting from computing afterwards."""

    def spent(self, folder: Path) -> Mapping[str, float]:
        """What the `map` of a folder took: wait_s, compute_s; of one that is far also transfer_s, moved_bytes."""
        ...


@runtime_checkable
class FarEngine(QueuedEngine, MeasuredEngine, Protocol):
    """An engine that shares no files with this machine: those in `Task.reads` and `Task.works_in` travel."""

    @property
    def rate(self) -> float:
        """Bytes per second to expect of a transfer that nobody has measured; 0: not known."""
        ...

    def held(self, paths: Sequence[str]) -> float:
        """Bytes of these files that are there already. MUST raise a LightkeepError when it cannot be asked."""
        ...
