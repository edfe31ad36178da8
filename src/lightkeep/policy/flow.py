"""What a flow does next: a pure decision on the runs that it has had."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from lightkeep.model.runs import Run, RunState
from lightkeep.model.workflows import FlowState, RunsIf, Stage, Workflow


class Standing(StrEnum):
    """Where a stage stands."""

    WAITING = "waiting"
    """For the stages that it needs, or for its time to be tried again."""
    READY = "ready"
    ACTIVE = "active"
    DONE = "done"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Begin:
    """A stage to begin now."""

    stage: Stage
    dataset_id: str
    """What it works on."""
    attempt: int
    """1, 2, 3 ..."""


@dataclass(frozen=True, slots=True)
class Next:
    """What is to be done, and how the flow stands then."""

    begin: tuple[Begin, ...]
    state: FlowState
    message: str
    standing: Mapping[str, Standing]


def decide(
    workflow: Workflow,
    dataset_id: str,
    runs: Sequence[Run],
    *,
    now: datetime,
    matches: Callable[[str, str], bool],
) -> Next:
    """Decide what a flow does next.

    Parameters
    ----------
    runs: of this flow, the oldest first.
    matches: (search, dataset id) -> whether the search finds the dataset.
    """
    had: dict[str, list[Run]] = {each.name: [] for each in workflow.stages}
    for run in runs:
        had[run.stage].append(run)
    standing: dict[str, Standing] = {}
    begin = []
    for stage in workflow.stages:
        source = dataset_id if not stage.source else next((r.result_id for r in had[stage.source][-1:]), "")
        state = _of_runs(stage, had[stage.name], now) if had[stage.name] else _of_needs(stage, standing)
        if state is Standing.READY and stage.when and not had[stage.name] and not matches(stage.when, source):
            state = Standing.SKIPPED
        if state is Standing.READY:
            begin.append(Begin(stage, source, len(had[stage.name]) + 1))
        standing[stage.name] = state
    return Next(tuple(begin), *_end(workflow, standing, had), standing)


def _of_runs(stage: Stage, runs: Sequence[Run], now: datetime) -> Standing:
    last = runs[-1]
    if not last.state.is_over:
        return Standing.ACTIVE
    if last.state in (RunState.DONE, RunState.STOPPED_EARLY):
        return Standing.DONE
    if last.state is RunState.CANCELLED or len(runs) > stage.retries:
        return Standing.FAILED
    may_again = last.ended_at is None or now >= last.ended_at + timedelta(seconds=stage.pause_s)
    return Standing.READY if may_again else Standing.WAITING


def _of_needs(stage: Stage, standing: Mapping[str, Standing]) -> Standing:
    needed = [standing[name] for name in stage.needs]
    if any(each in (Standing.WAITING, Standing.READY, Standing.ACTIVE) for each in needed):
        return Standing.WAITING
    if stage.runs_if is RunsIf.ALWAYS:
        return Standing.READY
    if stage.runs_if is RunsIf.FAILURE:
        return Standing.READY if Standing.FAILED in needed else Standing.SKIPPED
    return Standing.READY if all(each is Standing.DONE for each in needed) else Standing.SKIPPED


def _end(
    workflow: Workflow, standing: Mapping[str, Standing], had: Mapping[str, Sequence[Run]]
) -> tuple[FlowState, str]:
    names = list(standing)
    open_ones = [n for n in names if standing[n] in (Standing.WAITING, Standing.READY, Standing.ACTIVE)]
    failed = [n for n in names if standing[n] is Standing.FAILED]
    done = sum(standing[n] is Standing.DONE for n in names)
    if open_ones:
        return FlowState.RUNNING, f"{done} of {len(names)} stages done; now {', '.join(open_ones[:3])}"
    if failed:
        why = had[failed[0]][-1].message
        is_cancelled = had[failed[0]][-1].state is RunState.CANCELLED
        return (FlowState.CANCELLED if is_cancelled else FlowState.FAILED), f"stage {failed[0]}: {why}"
    skipped = [n for n in names if standing[n] is Standing.SKIPPED]
    left_out = f"; left out: {', '.join(skipped)}" if skipped else ""
    return FlowState.DONE, f"{done} of {len(workflow.stages)} stages done{left_out}"
