"""Workflows: what is done with a dataset, stage by stage, and the flows that do it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

COMMAND = "command"
"""The technique of a run that is a stage's command."""


class TriggerKind(StrEnum):
    """What begins a flow; by hand always can."""

    DATASET = "dataset"
    """A dataset became complete."""
    SCHEDULE = "schedule"
    """Its hour has come, for every dataset that has no flow of this workflow yet."""


class RunsIf(StrEnum):
    """How the stages before must have ended."""

    SUCCESS = "success"
    FAILURE = "failure"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class Trigger:
    """One way in which a flow begins by itself."""

    on: TriggerKind
    find: str = ""
    """Only datasets that this search finds; raw ones only, unless it names a kind."""
    every_s: int = 0
    """Of a schedule: seconds between two looks; 0: `daily_at` says when."""
    daily_at: str = ""
    """Of a schedule: `HH:MM`, UTC."""


@dataclass(frozen=True, slots=True)
class Input:
    """A value that a command takes."""

    type: str
    """`number`, `integer` or `text`."""
    default: Any = None
    """None: it must be given."""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """One run of a workflow: a technique, or a command."""

    name: str
    technique: str = ""
    params: Mapping[str, Any] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    """Program and arguments with `{placeholders}`; no shell reads them."""
    inputs: Mapping[str, Input] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    """Placeholder -> name of a file that the command must write; the first one is the main file."""
    source: str = ""
    """The stage whose result it works on; empty: the dataset that began the flow."""
    after: tuple[str, ...] = ()
    """Stages that must be over before, besides `source`."""
    when: str = ""
    """Only if this search finds what it would work on."""
    runs_if: RunsIf = RunsIf.SUCCESS
    retries: int = 0
    pause_s: int = 10
    """Seconds before it is tried again."""
    timeout_s: int = 0
    """Seconds after which it is ended; 0: never."""
    engine: str = ""

    @property
    def needs(self) -> tuple[str, ...]:
        """Every stage that must be over before."""
        return tuple(dict.fromkeys((*((self.source,) if self.source else ()), *self.after)))


@dataclass(frozen=True, slots=True)
class Workflow:
    """What is done with a dataset: this object, or the TOML that `policy.workflow_document` turns it into."""

    id: str
    stages: tuple[Stage, ...]
    triggers: tuple[Trigger, ...] = ()
    stations: tuple[str, ...] = ()
    """Only datasets measured there; empty: all."""
    notify: tuple[str, ...] = ()
    """Addresses that a mail goes to when a flow ends."""
    notify_on: tuple[str, ...] = ("failed",)
    """States of a flow that are told of."""
    enabled: bool = True
    """False: nothing begins by itself."""
    description: str = ""
    version: int = 0
    author: str = ""
    """Person who adopted it: what begins by itself is done on this person's behalf."""

    def stage(self, name: str) -> Stage:
        """Return a stage by its name. KeyError: there is none."""
        for each in self.stages:
            if each.name == name:
                return each
        raise KeyError(name)


@dataclass(frozen=True, slots=True)
class WorkflowVersion:
    """A workflow as it was adopted: its text never changes, a new text is a new version."""

    id: str
    version: int
    """1, 2, 3 ... without gaps."""
    text: str
    """The TOML document."""
    author: str = ""
    created_at: datetime | None = None

    @property
    def stamp(self) -> str:
        """What its flows carry, e.g. `nightly@3`."""
        return f"{self.id}@{self.version}"


class FlowState(StrEnum):
    """running -> done | failed | cancelled; failed -> running when one of its runs is started again."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Flow:
    """One dataset on its way through one version of a workflow."""

    id: str
    workflow_id: str
    version: int
    experiment_id: str
    dataset_id: str
    """What it began with."""
    trigger: str = ""
    """`auto` or `schedule`, once for each workflow and dataset; or `hand:` and the flow's own id."""
    state: FlowState = FlowState.RUNNING
    message: str = ""
    created_by: str = ""
    created_at: datetime | None = None
    ended_at: datetime | None = None
