"""What a run would take on each engine, before anybody asks for it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightkeep import engines
from lightkeep.facility import Facility
from lightkeep.lifecycle.processing import placing, process
from lightkeep.model.people import Principal
from lightkeep.model.runs import Run
from lightkeep.model.techniques import Preflight


def foresee(
    facility: Facility,
    dataset_id: str,
    technique: str,
    params: Mapping[str, Any] | None = None,
    *,
    principal: Principal,
) -> list[dict[str, Any]]:
    """Return when a run would end at each place, the earliest first, as `placement` keeps it; nothing is queued.

    The technique looks at the data in a process of its own: it takes neither a server's time nor its life.

    Raises
    ------
    As `process.prepared` does. Archived: its data are in the archive only. RunFailed: the technique refused them.
    """
    wanted = Run(
        id=facility.ids.new("run"),
        experiment_id=facility.catalog.view(principal).dataset(dataset_id).experiment_id,
        dataset_id=dataset_id,
        technique=technique,
        params=params or {},
        engine=process.PLACED,
        created_by=principal.id,
    )
    run = process.prepared(facility, wanted, principal=principal)
    with TemporaryDirectory(prefix="lightkeep-") as folder:
        job, _source, _given = process.job_of(facility, run, Path(folder))
        task = job.task("preflight", params=dict(run.params))
        found: Preflight = engines.get("processes", workers=1).map([task])[0]
        cuts = process.cut(found.length, found.piece, seconds=found.seconds)
        work = placing.work_of(technique, found, job, pieces=len(cuts))
        return placing.written(placing.weighed(facility, work, files=job.files()))
