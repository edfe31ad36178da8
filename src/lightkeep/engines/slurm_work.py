"""What a Slurm job runs: its share of the tasks, each in a process that may die without taking the job with it.

Started as `python -m lightkeep.engines.slurm_work FOLDER SUBMISSION PROCESSES`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from lightkeep.engines.exchange import Exchange
from lightkeep.engines.processes import ProcessEngine
from lightkeep.model.errors import LightkeepError


def work(exchange: Exchange, number: int, *, share: int, job_id: str, processes: int, cores: int) -> None:
    """Do the tasks of one share that have no answer yet; stop at the first that fails.

    Parameters
    ----------
    number: the submission, from 1.
    share: index of this job in its array.
    job_id: what Slurm calls the array.
    processes: tasks at once.
    cores: what this job may use.
    """
    if not exchange.may_work(number, job_id):
        print(f"job {exchange.job_id(number)} does this work already")  # noqa: T201 -- the job's log
        return
    tasks, answered = exchange.tasks(), exchange.answered()
    todo = [index for index in exchange.shares(number)[share] if index not in answered]
    left = list(todo)

    def done(position: int, result: Any) -> None:
        exchange.give(todo[position], (True, result))
        left.remove(todo[position])

    engine = ProcessEngine(workers=processes, cores=cores, pieces=todo)
    try:
        engine.map([tasks[index] for index in todo], done=done)
    except LightkeepError as error:
        print(f"piece {left[0]}: {error.message}\n{error.data.get('traceback', '')}")  # noqa: T201 -- the job's log
        exchange.give(left[0], (False, error))


if __name__ == "__main__":
    there = os.environ
    work(
        Exchange(Path(sys.argv[1])),
        int(sys.argv[2]),
        share=int(there.get("SLURM_ARRAY_TASK_ID", "0")),
        job_id=there.get("SLURM_ARRAY_JOB_ID", there.get("SLURM_JOB_ID", "")),
        processes=int(sys.argv[3]),
        cores=int(there.get("SLURM_CPUS_PER_TASK", "1")),
    )
