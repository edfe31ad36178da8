"""Dask workers as Slurm jobs, by dask-jobqueue, and what it leaves to do: saying why sbatch refused, and
replacing a job that was lost (dask-jobqueue 0.9 does neither)."""

from __future__ import annotations

import logging
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

from dask_jobqueue import SLURMCluster
from dask_jobqueue.slurm import SLURMJob

from lightkeep.engines.slurm_commands import Answer, JobSpec, Slurm, local_runner, refused
from lightkeep.model.errors import LightkeepError


class _Job(SLURMJob):  # type: ignore[misc]
    """A job that remembers why it could not be submitted."""

    refusals: ClassVar[list[str]]

    async def _submit_job(self, script_filename: str) -> Any:
        try:
            return await super()._submit_job(script_filename)
        except RuntimeError as error:
            self.refusals.append(str(error).partition("stderr:\n")[2] or str(error))
            raise


class Jobs:
    """A Dask cluster of Slurm jobs. Its scheduler is in this process and speaks TLS with a key of its own:
    who reaches a scheduler runs code as its owner."""

    def __init__(self, count: int, folder: Path, **options: Any) -> None:
        self._count = count
        self._refusals: list[str] = []
        self._slurm = Slurm(local_runner())
        self._options = options
        job_class = type("Job", (_Job,), {"refusals": self._refusals})
        logging.getLogger("distributed.deploy.spec").setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.cluster = SLURMCluster(
                job_cls=job_class,
                security=True,
                shared_temp_directory=str(folder),
                scheduler_options={"dashboard_address": None},
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
            for name, job in list(self.cluster.workers.items()):
                known = self._slurm.jobs(job.job_id) if job.job_id else []
                if known and all(each.is_over for each in known):  # it may never have reached the scheduler
                    self.cluster.loop.add_callback(self.cluster.workers.pop, name, None)
        self.cluster.scale(jobs=self._count)

    def close(self) -> None:
        """Cancel the jobs and end the scheduler."""
        ids = [job.job_id for job in self.cluster.workers.values() if job.job_id]
        if ids:
            with suppress(LightkeepError):
                self._slurm.cancel(*ids)
        self.cluster.close()
