"""Tasks and results through a folder that the caller and the jobs share.

    tasks                 what is to be done, by index
    1.shares  2.shares    which tasks each job of the first, second, ... submission does
    1.id                  what the batch system calls that submission
    1.owner               id of the submission whose jobs came first: another one of the same number does nothing
    0.result  1.result    one per task: (True, result) or (False, error)

Every file gets its name when its content is on the disk, and never changes after that. So whoever dies, at any
instruction, leaves either all of a file or none of it, and whoever comes next goes on from there.
"""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

from lightkeep.model.engines import Task
from lightkeep.model.errors import LightkeepError, RunFailed, StorageError

_RESULT = ".result"


class Exchange:
    """One map's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def offer(self, tasks: Sequence[Task]) -> None:
        """Write the tasks, unless they are there.

        Raises
        ------
        RunFailed: other tasks are there. StorageError: the folder cannot be written.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        self._publish("tasks", pickle.dumps((sys.path, list(tasks))))
        there = self.tasks()
        if [task.function for task in there] != [task.function for task in tasks]:
            raise RunFailed(
                f"{self.folder} holds {len(there)} other tasks", remedy="one key names one list of tasks"
            )

    def tasks(self) -> list[Task]:
        """Return the tasks; what the offering process could import, this one can after it."""
        path, tasks = pickle.loads((self.folder / "tasks").read_bytes())  # noqa: S301 -- our own folder
        sys.path.extend(each for each in path if each not in sys.path)
        return list(tasks)

    def share_out(self, number: int, shares: Sequence[Sequence[int]]) -> list[list[int]]:
        """Write what each job of a submission does; return what is written: somebody may have been first."""
        self._publish(f"{number}.shares", pickle.dumps([list(share) for share in shares]))
        return self.shares(number)

    def shares(self, number: int) -> list[list[int]]:
        """Return what each job of a submission does."""
        return list(pickle.loads((self.folder / f"{number}.shares").read_bytes()))  # noqa: S301 -- our own folder

    def submissions(self) -> list[int]:
        """Return the numbers of the submissions so far."""
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        return sorted(int(name.removesuffix(".shares")) for name in names if name.endswith(".shares"))

    def note_id(self, number: int, job_id: str) -> None:
        """Write down what the batch system calls a submission."""
        self._publish(f"{number}.id", job_id.encode())

    def job_id(self, number: int) -> str:
        """Return the id of the submission that does the work; empty when none is known."""
        for kind in ("owner", "id"):
            path = self.folder / f"{number}.{kind}"
            if path.exists():
                return path.read_text()
        return ""

    def may_work(self, number: int, job_id: str) -> bool:
        """Return whether the jobs of this id are the ones that do a submission's work; the first that asks is."""
        self._publish(f"{number}.owner", job_id.encode())
        return (self.folder / f"{number}.owner").read_text() == job_id

    def give(self, index: int, answer: tuple[bool, Any]) -> None:
        """Write a task's answer."""
        try:
            content = pickle.dumps(answer)
        except (TypeError, AttributeError, ValueError, pickle.PicklingError) as error:
            content = pickle.dumps((False, RunFailed(f"piece {index}: its result cannot be written: {error}")))
        self._publish(f"{index}{_RESULT}", content)

    def answered(self) -> set[int]:
        """Return the indices of the tasks that have an answer."""
        names = os.listdir(self.folder)  # not a stat: NFS may remember for long that a file is not there
        return {int(name.removesuffix(_RESULT)) for name in names if name.endswith(_RESULT)}

    def answer(self, index: int) -> tuple[bool, Any]:
        """Return a task's answer."""
        succeeded, value = pickle.loads((self.folder / f"{index}{_RESULT}").read_bytes())  # noqa: S301 -- ours
        if not succeeded and not isinstance(value, LightkeepError):
            raise RunFailed(f"piece {index}: {value}")
        return succeeded, value

    def times(self) -> tuple[float, float, float]:
        """Return when work was first shared out, first begun and last answered, by the clock of the file system.

        Raises
        ------
        FileNotFoundError: it was not, or not by jobs.
        """
        shared, begun = ((self.folder / name).stat().st_mtime for name in ("1.shares", "1.owner"))
        answers = [(self.folder / f"{index}{_RESULT}").stat().st_mtime for index in self.answered()]
        return shared, begun, max(answers, default=begun)

    def _publish(self, name: str, content: bytes) -> None:
        """Give a file its name, unless the name is taken."""
        path, part = self.folder / name, self.folder / f".{name}.{uuid4().hex}"
        if path.exists():
            return
        try:
            with part.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(part, path)
            except FileExistsError:
                pass
            finally:
                part.unlink()
        except OSError as error:
            raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> StorageError:
    return StorageError(f"{path}: {error.strerror}", remedy="the folder must be writable here and on the nodes")
