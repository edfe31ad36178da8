"""Where work runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True)
class Task:
    """One call that any process with Lightkeep installed can make."""

    function: str
    """`package.module:name` of a module-level function."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments; picklable."""


class Cancel(Protocol):
    """Whether somebody asked to stop."""

    def is_set(self) -> bool:
        """True from the moment that stopping was asked for."""
        ...


class Engine(Protocol):
    """Runs independent tasks.

    An engine MUST return results in the order of the tasks, MUST run each task to its end once when nothing
    fails, MUST raise the first failing task's own error (LightkeepError as it is, others as RunFailed with the
    last line of their traceback), and MUST NOT leave a process behind.
    """

    name: str

    def map(
        self,
        tasks: Sequence[Task],
        *,
        done: Callable[[int, Any], None] | None = None,
        cancel: Cancel | None = None,
    ) -> list[Any]:
        """Run all tasks. `done(index, result)` is called in the caller's thread as each ends.

        MUST stop within a second of `cancel` being set (a task already running in another process is killed;
        the inline engine stops between tasks) and raise RunCancelled. A worker that dies (killed, out of memory)
        costs its own task one retry, then RunFailed naming the task and the signal.
        """
        ...

    def workers(self) -> int:
        """How many tasks run at once."""
        ...
