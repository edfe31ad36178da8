"""One task made into one call: the same in this process and in a worker."""

from __future__ import annotations

import traceback
from importlib import import_module
from typing import Any

from lightkeep.model.engines import Task
from lightkeep.model.errors import LightkeepError, RunFailed


def call(task: Task) -> Any:
    """Return what the task's function returns.

    Raises
    ------
    LightkeepError: the function's own, as it is.
    RunFailed: anything else that it raised; the message is the last line of the traceback, `data["traceback"]`
        holds all of it.
    """
    module, _, name = task.function.partition(":")
    try:
        return getattr(import_module(module), name)(**task.arguments)
    except LightkeepError:
        raise
    except MemoryError as error:
        raise RunFailed(f"{task.function}: out of memory", remedy="use fewer workers or smaller pieces") from error
    except Exception as error:  # a task is foreign code: this is the edge that maps its errors
        last = traceback.format_exception_only(error)[-1].strip()
        raise RunFailed(last, remedy=_where(error), traceback=traceback.format_exc()) from error


def _where(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f"it was raised in {frames[-1].name}, {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
