"""Placing: ask every engine how it stands, choose the earliest end, and write down estimate and truth.

A run's `placement` is {"work": what it is, "estimates": one per place, "truth": what it took}, kept in the
catalogue: the truths of past runs are what the next estimate is made of.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightkeep.model.engines import Engine, FarEngine, MeasuredEngine, QueuedEngine
from lightkeep.model.errors import InvalidInput, LightkeepError
from lightkeep.model.people import SERVICE
from lightkeep.model.runs import RunState
from lightkeep.policy.placing import Estimate, Past, Place, Work, estimates

if TYPE_CHECKING:
    from lightkeep.facility import Facility
    from lightkeep.lifecycle.processing.pieces import Job
    from lightkeep.model.techniques import Preflight

_START_S = 1.0
"""Seconds in which a new process loads the numerics."""
_LOOKED_AT = 200
"""Past runs that are looked at."""


def work_of(technique: str, found: Preflight, job: Job, *, pieces: int) -> Work:
    """Return what a run is, from its preflight and the files that it reads."""
    read = sum(os.path.getsize(path) for path in job.files())
    made = sum(prod(shape) * np.dtype(found.dtypes[name]).itemsize for name, shape in found.shapes.items())
    return Work(technique, found.seconds, float(read + made), pieces)


def chosen(facility: Facility, work: Work, *, files: Sequence[str] = ()) -> tuple[str, dict[str, Any]]:
    """Return the engine where a run ends first, and its placement: an estimate per place, the earliest first.

    Parameters
    ----------
    files: what the run reads, on this machine: what a place has of them need not travel.

    Candidates are this machine (`inline`, `processes`), the configured engine, and those of lightkeep.toml.

    Raises
    ------
    InvalidInput: no place can take it.
    """
    found = weighed(facility, work, files=files)
    if not found[0].is_possible:
        told = "; ".join(f"{each.place}: {each.reason}" for each in found)
        raise InvalidInput(f"no engine can take this run: {told}", remedy="name one with --engine, or mend them")
    return found[0].place, {"work": asdict(work), "estimates": written(found)}


def weighed(facility: Facility, work: Work, *, files: Sequence[str] = ()) -> tuple[Estimate, ...]:
    """Return when a run would end at each place, the earliest first; see `chosen`."""
    names = {"inline", "processes", facility.config.engine.name, *facility.config.engines}
    places = [_place(facility, name, files) for name in sorted(names)]
    return estimates(work, places, past_runs(facility))


def written(found: Sequence[Estimate]) -> list[dict[str, Any]]:
    """Return estimates as they are kept and shown."""
    return [asdict(each) | {"total_s": each.total_s} for each in found]


def truth(known: Mapping[str, Any], engine: Engine, folder: Path, *, elapsed_s: float) -> dict[str, Any]:
    """Return a run's placement with what it took, in all and by what a far engine says of its map's folder."""
    told = {"wait_s": 0.0, "transfer_s": 0.0, "moved_bytes": 0.0, "compute_s": elapsed_s}
    if isinstance(engine, MeasuredEngine):
        told |= engine.spent(folder)
    return {**known, "truth": told | {"total_s": elapsed_s}}


def past_runs(facility: Facility) -> list[Past]:
    """Return what the newest runs that are done took, newest first."""
    done = facility.catalog.view(SERVICE).runs(state=RunState.DONE, limit=_LOOKED_AT, offset=0)
    return [
        Past(
            run.technique,
            run.engine,
            float(run.placement["work"]["seconds"]),
            float(told["wait_s"]),
            float(told["transfer_s"]),
            float(told["moved_bytes"]),
            float(told["compute_s"]),
        )
        for run in done.items
        if (told := run.placement.get("truth")) and "work" in run.placement
    ]


def _place(facility: Facility, name: str, files: Sequence[str]) -> Place:
    held = 0.0
    try:
        engine = facility.engine(name)
        if isinstance(engine, FarEngine):
            held = engine.held(files)
        wait_s = engine.expected_wait_s() if isinstance(engine, QueuedEngine) else 0.0
    except LightkeepError as error:
        return Place(name, 1, refusal=error.message)
    if isinstance(engine, FarEngine):
        return Place(
            name, engine.workers(), wait_s, is_far=True, rate=engine.rate, held_bytes=held, start_s=_START_S
        )
    return Place(name, engine.workers(), wait_s, start_s=0.0 if name == "inline" else _START_S)
