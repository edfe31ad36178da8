"""What a run computed becomes files, and the files a derived dataset: the end of every run, live or not."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightkeep import __version__, engines
from lightkeep.facility import Facility
from lightkeep.model.datasets import Dataset, DatasetKind, Metadata
from lightkeep.model.people import SERVICE, Principal
from lightkeep.model.runs import Run
from lightkeep.model.workflows import COMMAND

if TYPE_CHECKING:
    from lightkeep.lifecycle.processing.pieces import Job
    from lightkeep.lifecycle.processing.scratch import Plan, Scratch

SOFTWARE = f"lightkeep {__version__}"


def write_result(
    run: Run, sources: Sequence[Dataset], plan: Plan, job: Job, *, metadata: Metadata | None = None
) -> None:
    """Write the files of a run whose pieces are done; see `pieces.write`.

    Parameters
    ----------
    sources: what it was computed from, the measurement first.
    metadata: of the measurement, for who has it at hand; None: the file is opened for it.
    """
    task = job.task(
        "write",
        title=f"{run.technique} of {sources[0].name}",
        software=run.software,
        inputs={each.id: each.name for each in sources},
        command=command(run, plan),
        metadata=metadata,
    )
    engines.get("inline").map([task])


def command(run: Run, plan: Plan) -> str:
    """Return the command that repeats a run, with every parameter's value in force."""
    words = ["lightkeep", "run", run.technique, run.dataset_id]
    for name, value in plan.params.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif value is not None:
            words += [f"--{option}", str(value)]
    return shlex.join(words)


def keep_result(facility: Facility, run: Run, sources: Sequence[Dataset], scratch: Scratch) -> Dataset:
    """Store the files of a run as its derived dataset. Again: the same dataset."""
    from lightkeep.lifecycle.intake.ingest import ingest

    principal = Principal(run.created_by, is_service=True)  # its right was to process, not to write
    made = _named(facility, run, sources, principal)
    stored = ingest(
        facility,
        scratch.result,
        experiment_id=run.experiment_id,
        principal=principal,
        name=made.name,
        kind=made.kind,
        technique=made.technique,
        parents=made.parents,
        run_id=run.id,
        quiet_s=0.0,
    )
    return stored.dataset


def _named(facility: Facility, run: Run, sources: Sequence[Dataset], principal: Principal) -> Dataset:
    """Return the run's dataset: the one that it has, or a new one, empty, of the name `<input>-<technique>-<n>`.

    Made before its files are stored: of runs that end at once each has its name, and its place on the store.
    """
    view, source = facility.catalog.view(SERVICE), sources[0]
    for made in view.children(source.id, run_id=run.id):
        return made
    what = run.stage if run.technique == COMMAND else run.technique
    prefix = f"{source.name}-{what}-"
    with facility.catalog.change(principal) as tx:  # one at a time: a name that is free in here stays free
        number = 1 + view.count_children(source.id, prefix=prefix)
        while view.dataset_named(run.experiment_id, f"{prefix}{number}") is not None:
            number += 1
        return tx.add_dataset(
            Dataset(
                id=facility.ids.new("ds"),
                experiment_id=run.experiment_id,
                name=f"{prefix}{number}",
                kind=DatasetKind.DERIVED,
                technique="" if run.technique == COMMAND else run.technique,
                parents=tuple(dict.fromkeys(each.id for each in sources)),
                run_id=run.id,
                created_by=principal.id,
            )
        )
