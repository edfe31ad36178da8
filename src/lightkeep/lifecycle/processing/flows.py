"""Flows: datasets on their way through a workflow.

dataset complete, schedule, by hand ── begin ──> flow ── advance ──> runs ── advance ──> ... ──> done | failed
                                                             └── retry of a failed run takes the flow up again

Everything that a flow knows is in the catalogue: the flow, and its runs under names that follow from it. So
`advance` may be called by anybody at any time, and a stage is begun once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from lightkeep import telemetry
from lightkeep.catalog.query import parse as parse_query
from lightkeep.lifecycle.processing import awaited, process
from lightkeep.lifecycle.processing.results import SOFTWARE
from lightkeep.model.datasets import Dataset, DatasetKind, DatasetState
from lightkeep.model.errors import Conflict, Forbidden, InvalidInput, LightkeepError, NotFound
from lightkeep.model.mail import Mail
from lightkeep.model.people import SERVICE, Principal, Verb
from lightkeep.model.runs import Priority, Run, RunState
from lightkeep.model.workflows import (
    COMMAND,
    Flow,
    FlowState,
    Stage,
    Trigger,
    TriggerKind,
    Workflow,
    WorkflowVersion,
)
from lightkeep.policy import workflow_document
from lightkeep.policy.flow import Begin, Next, decide

if TYPE_CHECKING:
    from lightkeep.facility import Facility

_LOG = logging.getLogger(__name__)

AUTO: Final = "auto"
SCHEDULE: Final = "schedule"
_SEEN: Final = "workflows.seen"
"""Fact: number of the last event that was looked at for datasets that became complete."""
_MANY: Final = 500

Submit = Callable[[str], object]
"""Queues a run by its id."""


# ---- workflows


def check(text: str) -> Workflow:
    """Read a workflow. InvalidInput: it is none, with the line."""
    from lightkeep import techniques

    workflow = workflow_document.parse(text)
    for stage in workflow.stages:
        if stage.technique:
            if stage.technique not in techniques.names():
                raise InvalidInput(
                    f"stage {stage.name}: there is no technique {stage.technique!r}",
                    remedy=f"one of: {', '.join(techniques.names())}",
                )
            process.check_params(stage.technique, stage.params)
        parse_query(stage.when)
    for trigger in workflow.triggers:
        parse_query(trigger.find)
    return workflow


def adopt(facility: Facility, what: str | Workflow, *, principal: Principal) -> WorkflowVersion:
    """Adopt a workflow, as a text or as an object, as its next version.

    From now on it begins by its triggers. Its commands run with the rights of the workers, hence only managers.

    Raises
    ------
    Forbidden: the principal does not manage the facility, or is not a person. InvalidInput: it is no workflow.
    """
    if principal.is_service:
        raise Forbidden("only a person can adopt a workflow", remedy="sign in as a manager of the facility")
    facility.catalog.view(principal).require(Verb.MANAGE)
    text = what if isinstance(what, str) else workflow_document.dump(what)
    check(text)
    seen = facility.catalog.head()[0]
    with facility.catalog.change(principal) as tx:
        if tx.fact(_SEEN) is None:
            tx.set_fact(_SEEN, str(seen))  # what is complete already is for a schedule, or by hand
        return tx.adopt_workflow(text)


# ---- flows


def start(facility: Facility, workflow_id: str, dataset_id: str, *, principal: Principal) -> Flow:
    """Begin a flow by hand.

    Raises
    ------
    NotFound, Forbidden, SignInRequired: no such workflow, or the dataset may not be seen or processed.
    Conflict: the dataset is not complete.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.PROCESS, dataset_id=dataset_id)
    dataset = view.dataset(dataset_id)
    if dataset.state is not DatasetState.COMPLETE:
        raise Conflict(f"dataset {dataset.name} is {dataset.state}: only a complete one can be processed")
    version = view.workflow_version(workflow_id)
    flow_id = facility.ids.new("flow")
    flow = _flow(flow_id, version.id, version.version, dataset, f"hand:{flow_id}", principal.id)
    with facility.catalog.change(principal) as tx:
        tx.begin_flow(flow)
    return view.flow(flow_id)


def cancel(facility: Facility, flow_id: str, *, principal: Principal) -> Flow:
    """End a flow and its runs. Over already: no change. NotFound, Forbidden, SignInRequired as of its dataset."""
    view = facility.catalog.view(principal)
    flow = view.flow(flow_id)
    view.require(Verb.PROCESS, dataset_id=flow.dataset_id)
    with suppress(Conflict), facility.catalog.change(principal) as tx:
        tx.update_flow(flow_id, FlowState.CANCELLED, f"cancelled by {principal.id}")
    for run in view.flow_runs(flow_id):
        if not run.state.is_over and view.flow(flow_id).state is FlowState.CANCELLED:
            process.cancel(facility, run.id, principal=principal)
    return view.flow(flow_id)


def advance(facility: Facility, flow_id: str, *, submit: Submit) -> Flow:
    """Begin the stages of a flow whose time has come, or end it. Nothing to do: no change."""
    view = facility.catalog.view(SERVICE)
    flow = view.flow(flow_id)
    if flow.state is not FlowState.RUNNING:
        return flow
    workflow = workflow_document.adopted(view.workflow_version(flow.workflow_id, flow.version))
    found = look(facility, flow, workflow)
    with telemetry.span("workflow", workflow=workflow.id, flow=flow.id, state=found.state.value):
        for begin in found.begin:
            run_id = _begin(facility, flow, begin)
            submit(run_id)
    with suppress(Conflict), facility.catalog.change(SERVICE) as tx:  # somebody cancelled it meanwhile
        has_changed = tx.update_flow(flow.id, found.state, found.message)
        if has_changed and workflow.notify and found.state.value in workflow.notify_on:
            tx.queue_mail(_mail(flow, found, workflow))
    return view.flow(flow_id)


def look(facility: Facility, flow: Flow, workflow: Workflow) -> Next:
    """Return where the stages of a flow stand, and what comes next."""
    view = facility.catalog.view(SERVICE)

    def matches(search: str, dataset_id: str) -> bool:
        return bool(dataset_id) and _finds(facility, search, dataset_id)

    runs = view.flow_runs(flow.id)
    return decide(workflow, flow.dataset_id, runs, now=facility.clock.now(), matches=matches)


def retry(facility: Facility, run: Run, params: Mapping[str, Any], *, principal: Principal) -> Run:
    """Begin a stage of a flow again, perhaps with other values, and take the flow up where it ended.

    Raises
    ------
    InvalidInput: a value is wrong. Conflict: the flow is done or cancelled, or the stage was begun again already.
    """
    view = facility.catalog.view(principal)
    view.require(Verb.PROCESS, run_id=run.id)
    flow = view.flow(run.flow_id)
    stage = _stage(facility, flow, run.stage)
    if stage.command:
        workflow_document.values_of(stage, params)
    had = [each for each in view.flow_runs(flow.id) if each.stage == run.stage]
    if not had[-1].state.is_over:
        raise Conflict(f"stage {run.stage} was begun again already: run {had[-1].id}", remedy="look at that one")
    with facility.catalog.change(principal) as tx:
        tx.update_flow(flow.id, FlowState.RUNNING, f"stage {run.stage} begun again by {principal.id}")
    begin = Begin(replace(stage, params=params), run.dataset_id, len(had) + 1)
    return view.run(_begin(facility, flow, begin, principal=principal, params=params))


def _begin(
    facility: Facility,
    flow: Flow,
    begin: Begin,
    *,
    principal: Principal | None = None,
    params: Mapping[str, Any] | None = None,
) -> str:
    """Ask for the run of a stage; return its id. A stage that cannot be asked for is a run that failed."""
    stage = begin.stage
    run_id = f"run_{flow.id.partition('_')[2]}-{stage.name}-{begin.attempt}"
    run = Run(
        run_id,
        flow.experiment_id,
        begin.dataset_id,
        stage.technique or COMMAND,
        params if params is not None else {} if stage.command else stage.params,
        engine="inline" if stage.command else stage.engine or process.AUTO,
        software=SOFTWARE,
        created_by=principal.id if principal else flow.created_by,
        created_at=facility.clock.now(),
        priority=_priority(facility, flow),
        flow_id=flow.id,
        stage=stage.name,
    )
    why: LightkeepError | None = None
    asker = principal or Principal(run.created_by, is_service=True)
    try:
        if stage.technique:
            run = process.prepared(facility, run, principal=asker)
        run = awaited.ask(facility, run, principal=asker)
    except LightkeepError as error:
        if principal is not None:
            raise
        why = error
    same = () if principal else (Conflict,)  # begun by another worker just now, which is as good
    with suppress(*same), facility.catalog.change(SERVICE) as tx:
        tx.add_run(run)
        if why is not None:
            tx.update_run(run_id, state=RunState.FAILED, message=why.message, error=why.code)
    return run_id


def _priority(facility: Facility, flow: Flow) -> Priority:
    usual = Priority.ASKED if flow.trigger != SCHEDULE else Priority.AGAIN
    return process.priority(facility, flow.experiment_id, usual=usual)


def _stage(facility: Facility, flow: Flow, name: str) -> Stage:
    version = facility.catalog.view(SERVICE).workflow_version(flow.workflow_id, flow.version)
    return workflow_document.adopted(version).stage(name)


def _flow(flow_id: str, workflow_id: str, version: int, dataset: Dataset, trigger: str, who: str) -> Flow:
    return Flow(flow_id, workflow_id, version, dataset.experiment_id, dataset.id, trigger, created_by=who)


def _mail(flow: Flow, found: Next, workflow: Workflow) -> Mail:
    subject = f"Workflow {flow.workflow_id}: {found.state} for dataset {flow.dataset_id}"
    stages = "\n".join(f"  {name}: {standing}" for name, standing in found.standing.items())
    text = f"{found.message}\n\nFlow {flow.id} of {flow.workflow_id}@{flow.version}\n{stages}\n"
    return Mail(f"flow.{flow.id}.{found.state}", workflow.notify, subject, text)


# ---- what a worker does beside its runs


def tick(facility: Facility, *, submit: Submit) -> int:
    """Begin the flows whose trigger came, take up those that nobody is at, end the runs that take too long."""
    count = 0
    workflows = [each for each in facility.catalog.view(SERVICE).workflows() if each.enabled and each.triggers]
    if workflows:
        count += _of_datasets(facility, workflows)
        count += _of_schedules(facility, workflows)
    for flow in facility.catalog.view(SERVICE).idle_flows():
        try:
            advance(facility, flow.id, submit=submit)
        except LightkeepError as error:  # the others go on
            _LOG.warning("flow %s: %s", flow.id, error.message, extra={"about": {"workflow": flow.workflow_id}})
            continue
        count += 1
    return count + _end_late(facility)


def _of_datasets(facility: Facility, workflows: list[Workflow]) -> int:
    """Begin flows for what became complete since the last look."""
    view = facility.catalog.view(SERVICE)
    seen = int(view.fact(_SEEN) or 0)
    events = view.events(after=seen, limit=_MANY)
    if not events:
        return 0
    new = [each.subject for each in events if each.verb == "dataset.completed"]
    flows = [flow for dataset_id in new for flow in _wanted(facility, workflows, dataset_id)]
    with facility.catalog.change(SERVICE) as tx:
        tx.set_fact(_SEEN, str(max(events[-1].seq, int(tx.fact(_SEEN) or 0))))
        return sum(tx.begin_flow(flow) for flow in flows)


def _wanted(facility: Facility, workflows: list[Workflow], dataset_id: str) -> list[Flow]:
    view = facility.catalog.view(SERVICE)
    try:
        dataset = view.dataset(dataset_id)
    except NotFound:
        return []
    station = view.experiment(dataset.experiment_id).station_id
    origin = view.run(dataset.run_id).flow_id if dataset.run_id else ""
    found = []
    for each in workflows:
        is_own = bool(origin) and view.flow(origin).workflow_id == each.id  # its own result never begins it again
        fits = not each.stations or station in each.stations
        if fits and not is_own and any(_fits(facility, trigger, dataset) for trigger in each.triggers):
            found.append(_flow(facility.ids.new("flow"), each.id, each.version, dataset, AUTO, each.author))
    return found


def _fits(facility: Facility, trigger: Trigger, dataset: Dataset) -> bool:
    if trigger.on is not TriggerKind.DATASET:
        return False
    if "kind:" not in trigger.find and dataset.kind is not DatasetKind.RAW:
        return False
    return not trigger.find or _finds(facility, trigger.find, dataset.id)


def _finds(facility: Facility, search: str, dataset_id: str) -> bool:
    query = parse_query(f"id:{dataset_id} {search}")
    return facility.catalog.view(SERVICE).datasets(query, limit=1).total > 0


def _of_schedules(facility: Facility, workflows: list[Workflow]) -> int:
    count = 0
    for workflow in workflows:
        for number, trigger in enumerate(workflow.triggers):
            name = f"workflow.{workflow.id}.{number}"
            if trigger.on is TriggerKind.SCHEDULE and _is_due(facility, name, trigger):
                count += _sweep(facility, workflow, trigger)
    return count


def _is_due(facility: Facility, name: str, trigger: Trigger) -> bool:
    """Return whether a schedule's hour has come; from now on it is over. A new one waits for its next hour."""
    now = facility.clock.now()
    last = facility.catalog.view(SERVICE).fact(name)
    if last is not None and not _has_come(trigger, datetime.fromisoformat(last), now):
        return False
    with facility.catalog.change(SERVICE) as tx:
        if tx.fact(name) != last:
            return False  # somebody else does it
        tx.set_fact(name, now.isoformat())
    return last is not None or bool(trigger.every_s)


def _has_come(trigger: Trigger, last: datetime, now: datetime) -> bool:
    if trigger.every_s:
        return now - last >= timedelta(seconds=trigger.every_s)
    hour, minute = map(int, trigger.daily_at.split(":"))
    today = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return last < today <= now


def _sweep(facility: Facility, workflow: Workflow, trigger: Trigger) -> int:
    """Begin a flow for every dataset that the schedule finds and that has none yet."""
    view = facility.catalog.view(SERVICE)
    kind = None if "kind:" in trigger.find else DatasetKind.RAW
    stations = {each.id: each.station_id for each in view.experiments(limit=10_000).items}
    count = offset = 0
    while page := view.datasets(parse_query(trigger.find), kind=kind, limit=_MANY, offset=offset).items:
        offset += len(page)
        fit = [each for each in page if not workflow.stations or stations[each.experiment_id] in workflow.stations]
        flows = [
            _flow(facility.ids.new("flow"), workflow.id, workflow.version, each, SCHEDULE, workflow.author)
            for each in fit
        ]
        with facility.catalog.change(SERVICE) as tx:
            count += sum(tx.begin_flow(flow) for flow in flows)
    return count


def _end_late(facility: Facility) -> int:
    """End the runs of stages that take longer than they may."""
    view = facility.catalog.view(SERVICE)
    count = 0
    for run in view.timed_runs():
        limit = _stage(facility, view.flow(run.flow_id), run.stage).timeout_s
        if limit and run.started_at and facility.clock.now() - run.started_at > timedelta(seconds=limit):
            with suppress(Conflict), facility.catalog.change(SERVICE) as tx:
                message = f"ended after {limit} s, the timeout of stage {run.stage}"
                tx.update_run(run.id, state=RunState.FAILED, message=message, error="timeout")
                count += 1
    return count
