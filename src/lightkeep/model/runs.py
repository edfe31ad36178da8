"""Runs: one technique on one dataset, on one engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Any

LIVE = "live"
"""The engine of a run that follows a measurement while it is written; see `lifecycle.acquisitions.live`."""


class Priority(IntEnum):
    """Which of the queued runs start first: the lower numbers."""

    BEAM = 1
    """The experiment has beam now: its scan may depend on the result."""
    ASKED = 2
    """Somebody asked for it, or its data just came in."""
    AGAIN = 3
    """Reprocessing: it waits for everything else."""


class RunState(StrEnum):
    """queued -> running -> done | failed | cancelled | stopped_early."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    STOPPED_EARLY = "stopped_early"

    @property
    def is_over(self) -> bool:
        """True when nothing more will happen to the run."""
        return self not in (RunState.QUEUED, RunState.RUNNING)


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a technique, with what is needed to repeat it."""

    id: str
    experiment_id: str
    dataset_id: str
    """The input."""
    technique: str
    params: Mapping[str, Any] = field(default_factory=dict)
    """As asked for; the values in force after preflight are in `resolved`."""
    resolved: Mapping[str, Any] = field(default_factory=dict)
    """Every parameter's value in force, defaults derived from the data included."""
    engine: str = "inline"
    """`auto` when none was named, until the preflight has said how much work it is."""
    state: RunState = RunState.QUEUED
    progress: float = 0.0
    """0 to 1."""
    message: str = ""
    """What it does now, or how it ended, in one line."""
    error: str = ""
    """The error's code when it failed."""
    result_id: str = ""
    """The derived dataset."""
    software: str = ""
    """Name and version that computed it, e.g. `lightkeep 0.1.0`."""
    created_by: str = ""
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    priority: int = 0
    """Lower numbers start first; see `Priority`."""
    flow_id: str = ""
    """The flow that it is a stage of; empty: somebody asked for it alone."""
    stage: str = ""
    """Name of the stage in the flow's workflow."""
    placement: Mapping[str, Any] = field(default_factory=dict)
    """`work`; `estimates` per place when one was chosen; `truth`; see `lifecycle.processing.placing`."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A process that works through queued runs."""

    id: str
    """New at each start: what one life of a process began, no other life commits."""
    host: str
    pid: int
    beat: int = 0
    """Signs of life so far. Others watch that it grows, each by its own clock: no two clocks are compared."""
    started_at: datetime | None = None
    seen_at: datetime | None = None
