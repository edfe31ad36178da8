"""Engines: where this facility's runs can be computed, and whether it can be reached now."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from lightkeep.facility import Facility
from lightkeep.model.errors import LightkeepError


@dataclass(frozen=True, slots=True)
class EngineState:
    """One engine that a run may name."""

    name: str
    kind: str
    """`inline`, `processes`, `dask`, `slurm`, ..."""
    is_default: bool
    """True for the one that runs go to when nothing else says where."""
    runs_for: tuple[str, ...]
    """Techniques and stations whose runs go there when they name no engine."""
    is_ready: bool
    state: str
    """What it has free, or why it cannot be used."""


def engines(facility: Facility) -> list[EngineState]:
    """Return the engines of lightkeep.toml and those that need no table, each asked how it is.

    A cluster that does not answer takes its own time-out; they are asked side by side.
    """
    tables = facility.config.engines
    here = [name for name in ("inline", "processes") if name not in tables]
    default = facility.config.engine.name
    names = list(dict.fromkeys([*here, default, *tables]))
    with ThreadPoolExecutor(max_workers=8) as pool:
        return list(pool.map(lambda name: _look(facility, name), names))


def _look(facility: Facility, name: str) -> EngineState:
    table = facility.config.engines.get(name, {})
    try:
        engine = facility.engine(name)
        state, is_ready = engine.state(), True
    except LightkeepError as error:
        state, is_ready = f"{error.message}: {error.remedy}" if error.remedy else error.message, False
    return EngineState(
        name=name,
        kind=str(table.get("kind", name)),
        is_default=name == facility.config.engine.name,
        runs_for=(*table.get("techniques", ()), *table.get("stations", ())),
        is_ready=is_ready,
        state=state,
    )
