"""Live: a measurement is computed while it is written; its result is there within a second of its last frame.

    lightkeep live ──> dataset `receiving`, run `running` (its engine is `live`)
        │  a snapshot about every second, for the portal and the API: `snapshot`
        │
        ├── last frame, writer done, or nothing came for a while ──> result stored, then the raw data, `done`
        ├── stop ──> the result of the frames so far is stored, `stopped_early`; the raw data are left to `ingest`
        └── cancel ──> `cancelled`; the file and the receiving dataset are as they were

Nothing is kept of a run that was killed but what it follows: asked for again, it begins at the first frame and
comes to the same bytes. The measurement's file is only ever read. The raw data become a dataset by `ingest`, with
all that it checks; until then the dataset has no file and counts for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightkeep.facility import Facility
from lightkeep.lifecycle.acquisitions.following import Followed
from lightkeep.lifecycle.processing import inputs, process
from lightkeep.lifecycle.processing.results import SOFTWARE
from lightkeep.lifecycle.processing.scratch import Scratch
from lightkeep.model.datasets import Dataset, DatasetState
from lightkeep.model.errors import Conflict, InvalidInput
from lightkeep.model.experiments import ExperimentState
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.runs import LIVE, Run, RunState


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A live run at one moment."""

    run_id: str
    state: RunState
    message: str
    result_id: str
    """The derived dataset, as soon as it is there: before the raw data are."""
    frames: int = 0
    """Frames that are in `outputs`."""
    planned: int | None = None
    """Frames that there will be, where that is known."""
    rate_hz: float = 0.0
    """Frames per second since the first one."""
    latency_s: float = 0.0
    """From the newest frame being read to its being in `outputs`."""
    at: str = ""
    """When it was made, ISO 8601."""
    outputs: Mapping[str, Any] | None = None
    """What the technique shows, JSON-safe; None: nothing yet, or the run is over and its result has it all."""


def request(
    facility: Facility,
    source: Path,
    technique: str,
    params: Mapping[str, Any] | None = None,
    *,
    experiment_id: str,
    principal: Principal,
    name: str = "",
    frames: int | None = None,
    idle_s: float = 5.0,
    wait_s: float = 60.0,
    run_id: str = "",
) -> Run:
    """Ask for a measurement to be followed; return the run, which `process.process` performs.

    A source that a run follows already, in a process that died, is given to that run again.

    Parameters
    ----------
    source: the file that is or will be written, or the folder where it will appear; the raw dataset is all of it.
    params: of the technique, as in `process.request`.
    name: of the raw dataset; the source's name when empty.
    frames: how many there will be; the file's metadata say it when None, else its end does.
    idle_s: without a new frame for so long, the measurement has ended.
    wait_s: how long to wait for the first frame.

    Raises
    ------
    NotFound, Forbidden, SignInRequired: the principal may not write raw data there, or not read an input.
    InvalidInput: the technique does not work live, or a parameter is wrong.
    Conflict: the experiment takes no raw data, or a process follows this source already.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.WRITE, experiment_id=experiment_id)
    view.require(Verb.PROCESS, experiment_id=experiment_id)
    check_live(technique, params or {})
    experiment = view.experiment(experiment_id)
    if experiment.state is not ExperimentState.OPEN:
        raise Conflict(f"experiment {experiment.id} is {experiment.state}: it takes no raw data")
    source = source.absolute()
    known = inputs.identified(facility, technique, params or {}, experiment_id=experiment_id, principal=principal)
    if (run := _left_over(facility, source, principal)) is not None:
        if (run.technique, dict(run.params), run.experiment_id) != (technique, known, experiment_id):
            raise Conflict(
                f"run {run.id} has followed {source} with other parameters",
                remedy=f"cancel it first: lightkeep runs cancel {run.id}",
            )
        return run
    run_id = run_id or facility.ids.new("run")
    with Scratch(process.folder_of(facility, run_id)) as scratch:
        Followed(str(source), frames, idle_s, wait_s).save(scratch)
    with facility.catalog.change(principal) as tx:
        dataset = _receiving(facility, experiment_id, name or (source.name if source.is_dir() else source.stem))
        if not dataset.id:
            dataset = tx.add_dataset(
                Dataset(facility.ids.new("ds"), experiment_id, dataset.name, technique=technique)
            )
        tx.add_run(
            Run(
                run_id,
                experiment_id,
                dataset.id,
                technique,
                known,
                engine=LIVE,
                software=SOFTWARE,
                created_by=principal.id,
            )
        )
    return view.run(run_id)


def check_live(technique: str, params: Mapping[str, Any]) -> None:
    """Raise InvalidInput for a technique that cannot follow a measurement, or naming the first wrong parameter."""
    from lightkeep import techniques

    process.check_params(technique, params)
    if technique not in techniques.live_names():
        known = ", ".join(techniques.live_names())
        raise InvalidInput(f"{technique} does not work live", remedy=f"choose one of: {known}")


def _left_over(facility: Facility, source: Path, principal: Principal) -> Run | None:
    """Return the run that followed this source when its process died.

    Raises
    ------
    Conflict: its process lives.
    """
    view = facility.catalog.view(principal)
    for state in (RunState.RUNNING, RunState.QUEUED):
        for run in view.runs(state=state, limit=1000).items:
            folder = process.folder_of(facility, run.id)
            if run.engine != LIVE or not (folder / "follow.json").exists():
                continue
            if Followed.of(folder).path == str(source):
                if is_followed(facility, run.id):
                    raise Conflict(
                        f"run {run.id} follows {source} already", remedy="look at it, or cancel it first"
                    )
                return run
    return None


def _receiving(facility: Facility, experiment_id: str, name: str) -> Dataset:
    """Return an empty dataset of this name that nobody fills, or one without an id under the first free name."""
    view = facility.catalog.view(SERVICE)
    number = 1
    while True:
        wanted = name if number == 1 else f"{name}-{number}"
        found = view.dataset_named(experiment_id, wanted)
        if found is None:
            return Dataset("", experiment_id, wanted)
        runs = view.runs(dataset_id=found.id, limit=1000).items
        if found.state is DatasetState.RECEIVING and found.files == 0 and all(run.state.is_over for run in runs):
            return found
        number += 1


def is_followed(facility: Facility, run_id: str) -> bool:
    """True while a process works on this run."""
    return Scratch(process.folder_of(facility, run_id)).is_held()


def stop(facility: Facility, run_id: str, *, principal: Principal) -> Run:
    """End a live run with the frames that it has; return it. Over already: no change.

    Raises
    ------
    NotFound, Forbidden, SignInRequired: the principal may not see or not process it.
    InvalidInput: it is not a live run.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.PROCESS, run_id=run_id)
    run = view.run(run_id)
    if run.state.is_over:
        return run
    if run.engine != LIVE:
        raise InvalidInput(f"run {run.id} is not live: it cannot be stopped early", remedy="cancel it")
    Scratch(process.folder_of(facility, run.id)).ask_to_stop()
    return run


def snapshot(facility: Facility, run_id: str, *, principal: Principal) -> Snapshot:
    """Return how a run goes; to who may read the data, with what its technique shows of it so far.

    Raises
    ------
    NotFound, SignInRequired: the principal may not see it.
    """
    view = facility.catalog.view(principal)
    run = view.run(run_id)
    shown: dict[str, Any] = {}
    if run.engine == LIVE and not run.state.is_over and view.can(Verb.READ, run_id=run_id):
        with suppress(FileNotFoundError):
            shown = json.loads((process.folder_of(facility, run.id) / "snapshot.json").read_bytes())
    return Snapshot(run.id, run.state, run.message, run.result_id, **shown)
