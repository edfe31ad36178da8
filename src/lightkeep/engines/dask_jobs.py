"""Dask workers as Slurm jobs, by dask-jobqueue, and what it leaves to do: saying why sbatch refused, and
replacing a job that was lost (dask-jobqueue 0.9 does neither)."""

from __future__ import annotations

import logging
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from dask_jobqueue import SLURMCluster
from dask_jobqueue.slurm import SLURMJob
from distributed.core import Status

from lightkeep.engines.slurm_commands import Answer, JobSpec, Slurm, local_runner, refused
from lightkeep.model.errors import LightkeepError

_FORGETS_S = 5.0
_KEY_FILES = ("_job_ca_file", "_job_cert", "_job_key")
"""What dask-jobqueue calls the temporary files with the scheduler's keys."""


class _Job(SLURMJob):  # type: ignore[misc]
    """A job that remembers why it could not be submitted."""

    refusals: ClassVar[list[str]]

    async def start(self) -> None:
        """Submit it. A refusal is kept for who waits: raised here, it would be a line in a log."""
        try:
            await super().start()
        except RuntimeError as error:
            self.refusals.append(str(error).partition("stderr:\n")[2] or str(error))
            self.status = Status.running

    async def close(self) -> None:
        """Cancel it."""
        await super().close()
        self.status = Status.closed


class Jobs:
    """A Dask cluster of Slurm jobs. Its scheduler is in this process and speaks TLS with a key of its own:
    who reaches a scheduler runs code as its owner."""

    def __init__(self, count: int, folder: Path, **options: Any) -> None:
        self._count = count
        self._refusals: list[str] = []
        self._slurm = Slurm(local_runner())
        self._options = options
        self._over_since: dict[str, float] = {}
        job_class = type("Job", (_Job,), {"refusals": self._refusals})
        logging.getLogger("distributed.deploy.spec").setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.cluster = SLURMCluster(
                job_cls=job_class,
                security=True,
                shared_temp_directory=str(folder),
                scheduler_options={"dashboard": False, "dashboard_address": ":0"},
                job_name="lightkeep-dask",
                silence_logs="critical",
                **options,
            )
        self.cluster.scale(jobs=count)

    def refill(self) -> None:
        """Have every lost job replaced.

        Raises
        ------
        RunFailed: sbatch refused a job, in its own words; or Slurm does not answer.
        """
        if self._refusals:
            spec = JobSpec("lightkeep-dask", "", extra=tuple(self._options["job_extra_directives"]))
            raise refused(Answer(1, "", self._refusals[0]), spec)
        with suppress(LightkeepError):  # Slurm is silent: what it runs goes on
            for name in self._never_came():
                self.cluster.loop.add_callback(self.cluster.workers.pop, name, None)
        self.cluster.scale(jobs=self._count)

    def _never_came(self) -> list[str]:
        """Return the workers whose jobs are over for some time: dask-jobqueue forgets those that it had seen
        within a second, never those that ended before they reached the scheduler."""
        now, names = time.monotonic(), []
        for name, job in list(self.cluster.workers.items()):
            known = self._slurm.jobs(job.job_id) if job.job_id else []
            if known and all(each.is_over for each in known):
                since = self._over_since.setdefault(job.job_id, now)
                if now - since > _FORGETS_S:
                    names.append(name)
        return names

    def close(self) -> None:
        """Cancel the jobs and end the scheduler."""
        ids = [job.job_id for job in self.cluster.workers.values() if job.job_id]
        if ids:
            with suppress(LightkeepError):
                self._slurm.cancel(*ids)
        self.cluster.close()
        for part in _KEY_FILES:  # left to the garbage collector, their folder may be gone before them
            getattr(self.cluster, part).close()
