"""One task after the other, in the calling thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lightkeep.engines.call import call
from lightkeep.model.engines import Cancel, Task
from lightkeep.model.errors import RunCancelled


class InlineEngine:
    """No process, no thread: the engine to debug with. A running task is not interrupted by a cancel."""

    name = "inline"

    def map(
        self,
        tasks: Sequence[Task],
        *,
        done: Callable[[int, Any], None] | None = None,
        cancel: Cancel | None = None,
        key: str = "",  # noqa: ARG002 -- nothing outlives this process
        folder: Path | None = None,  # noqa: ARG002
    ) -> list[Any]:
        """Run all tasks in order; see `model.engines.Engine.map`."""
        results = []
        for index, task in enumerate(tasks):
            if cancel is not None and cancel.is_set():
                raise RunCancelled(f"cancelled after {index} of {len(tasks)} pieces")
            results.append(call(task))
            if done is not None:
                done(index, results[-1])
        return results

    def state(self) -> str:
        """Say what there is to work on."""
        return "in the process that asks, one task after the other"

    def abandon(self, *, key: str, folder: Path) -> None:
        """Nothing: what it started ended with its `map`."""

    def workers(self) -> int:
        """One."""
        return 1
