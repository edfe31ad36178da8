"""Workflows on a real facility: begun by data, clock or hand; commands; retries; failed ones taken up."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing import flows
from lightkeep.lifecycle.processing.process import process, retry
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import Conflict, Forbidden, InvalidInput, LightkeepError
from lightkeep.model.people import SERVICE
from lightkeep.model.runs import RunState
from lightkeep.model.workflows import COMMAND, Flow, FlowState
from lightkeep.policy.workflow_document import dump, parse
from lightkeep.testing.populated import StillClock

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
from house import ADA, EVE, EXPERIMENT, build, scan

COPY = """
[[stage]]
name = "sum"
command = ["python3", "-c", "import sys, shutil; shutil.copy(sys.argv[1], sys.argv[3]); print(sys.argv[2])",
           "{input}", "{note}", "{sum}"]
source = "mean"
inputs = { note = { type = "text", default = "a; rm -rf $HOME `id`" } }
outputs = { sum = "sum.h5" }
"""
MEAN = 'id = "chain"\n[[trigger]]\non = "dataset"\nfind = "format:data-exchange"\n[[stage]]\nname = "mean"\n'
MEAN += 'technique = "gated"\n'


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    with build(tmp_path / "facility") as facility:
        yield facility


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return scan(tmp_path / "tooth.h5")


def _take_in(facility: Facility, source: Path) -> Dataset:
    return ingest(facility, source, experiment_id=EXPERIMENT, principal=ADA, quiet_s=0).dataset


def _work(facility: Facility) -> list[Flow]:
    """Do what workers do until nothing is left; return the flows."""
    queue: list[str] = []
    for _ in range(20):
        flows.tick(facility, submit=queue.append)
        if not queue:
            break
        while queue:
            run_id = queue.pop(0)
            try:
                process(facility, run_id)
            except LightkeepError:
                assert facility.catalog.view(SERVICE).run(run_id).state.is_over
    return list(facility.catalog.view(SERVICE).flows().items)


def test_a_dataset_that_becomes_complete_goes_through_every_stage_once(facility: Facility, source: Path) -> None:
    flows.adopt(facility, MEAN + COPY, principal=ADA)
    data = _take_in(facility, source)
    (flow,) = _work(facility)
    view = facility.catalog.view(SERVICE)
    assert (flow.state, flow.message) == (FlowState.DONE, "2 of 2 stages done")
    assert (flow.dataset_id, flow.created_by, flow.version) == (data.id, "ada", 1)
    mean, total = view.flow_runs(flow.id)
    assert [(r.stage, r.technique, r.state) for r in (mean, total)] == [
        ("mean", "gated", RunState.DONE),
        ("sum", COMMAND, RunState.DONE),
    ]
    assert total.dataset_id == mean.result_id
    result = view.dataset(total.result_id)
    assert result.run_id == total.id
    assert result.parents == (mean.result_id,)
    assert [each.path for each in view.files(result.id).items] == ["command.log", "sum.h5"]
    before = view.dataset(mean.result_id)
    kept, given = (local_path(facility, d.id, d.main_file).read_bytes() for d in (result, before))
    assert kept == given
    log = local_path(facility, result.id, "command.log").read_text()
    assert log == "a; rm -rf $HOME `id`\n"  # one argument, that no shell has read
    assert len(_work(facility)) == 1, "its own results do not begin it again"


def test_what_was_complete_before_is_left_to_hand_and_schedule(facility: Facility, source: Path) -> None:
    data = _take_in(facility, source)
    flows.adopt(facility, MEAN, principal=ADA)
    assert _work(facility) == []
    flows.start(facility, "chain", data.id, principal=ADA)
    flows.start(facility, "chain", data.id, principal=ADA)
    assert [each.state for each in _work(facility)] == [FlowState.DONE, FlowState.DONE]
    text = MEAN.replace('on = "dataset"', 'on = "schedule"\nevery_s = 60')
    flows.adopt(facility, text, principal=ADA)
    found = _work(facility)
    assert [each.trigger for each in found if not each.trigger.startswith("hand:")] == ["schedule"]
    assert len(_work(facility)) == 3


def test_a_failed_stage_is_tried_again_then_fails_the_flow_then_goes_on_when_it_is_corrected(
    facility: Facility, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "fail").touch()
    text = MEAN + f'params = {{ folder = "{tmp_path}" }}\nretries = 1\npause_s = 0\n' + COPY
    text += '[[stage]]\nname = "tell"\ntechnique = "gated"\nafter = ["mean"]\nruns_if = "failure"\n'
    text += '[notify]\nto = "ada@example.org"\n'
    flows.adopt(facility, text, principal=ADA)
    _take_in(facility, source)
    (flow,) = _work(facility)
    view = facility.catalog.view(SERVICE)
    assert (flow.state, flow.message) == (FlowState.FAILED, "stage mean: ValueError: row 0 is empty")
    assert [(r.stage, r.state) for r in view.flow_runs(flow.id)] == [
        ("mean", RunState.FAILED),
        ("mean", RunState.FAILED),
        ("tell", RunState.DONE),
    ]
    (mail,) = view.mail_waiting()
    assert mail.mail.to == ("ada@example.org",)
    assert "row 0 is empty" in mail.mail.text
    last = view.flow_runs(flow.id)[1]
    again = retry(facility, last.id, principal=ADA, changes={"folder": None})
    assert (again.flow_id, again.stage, dict(again.params)) == (flow.id, "mean", {})
    process(facility, again.id)
    (flow,) = _work(facility)
    assert flow.state is FlowState.DONE
    assert [r.stage for r in facility.catalog.view(SERVICE).flow_runs(flow.id)][-2:] == ["mean", "sum"]


def test_a_failed_stage_that_is_begun_again_while_others_go_on_stays_in_its_flow(
    facility: Facility, source: Path, tmp_path: Path
) -> None:
    (tmp_path / "fail").touch()
    text = MEAN + f'params = {{ folder = "{tmp_path}" }}\n' + COPY
    text += '[[stage]]\nname = "other"\ntechnique = "gated"\n'
    flows.adopt(facility, text, principal=ADA)
    _take_in(facility, source)
    queue: list[str] = []
    flows.tick(facility, submit=queue.append)
    view = facility.catalog.view(SERVICE)
    failed, other = (view.run(run_id) for run_id in queue)
    with pytest.raises(LightkeepError, match="row 0 is empty"):
        process(facility, failed.id)
    assert flows.advance(facility, failed.flow_id, submit=queue.append).state is FlowState.RUNNING
    again = retry(facility, failed.id, principal=ADA, changes={"folder": None})
    assert (again.flow_id, again.stage, again.id != failed.id) == (failed.flow_id, "mean", True)
    with pytest.raises(Conflict, match=f"begun again already: run {again.id}"):
        retry(facility, failed.id, principal=ADA)
    process(facility, again.id)
    process(facility, other.id)
    (flow,) = _work(facility)
    assert (flow.state, flow.message) == (FlowState.DONE, "3 of 3 stages done")
    assert sorted(r.stage for r in view.flow_runs(flow.id)) == ["mean", "mean", "other", "sum"]


def test_a_stage_whose_condition_is_not_met_is_left_out(facility: Facility, source: Path) -> None:
    flows.adopt(facility, MEAN + 'when = "size:>1TB"\n' + COPY, principal=ADA)
    _take_in(facility, source)
    (flow,) = _work(facility)
    assert (flow.state, flow.message) == (FlowState.DONE, "0 of 2 stages done; left out: mean, sum")


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import sys; print('bad mask'); sys.exit(3)", "stage sum: ended with exit code 3: bad mask"),
        ("pass", "stage sum: it ended well but wrote no file sum.h5"),
    ],
)
def test_a_command_that_fails_says_why(facility: Facility, source: Path, program: str, why: str) -> None:
    text = f'id = "c"\n[[stage]]\nname = "sum"\ncommand = ["python3", "-c", "{program}", "{{output}}"]\n'
    flows.adopt(facility, text + 'outputs = { sum = "sum.h5" }\n', principal=ADA)
    flows.start(facility, "c", _take_in(facility, source).id, principal=ADA)
    (flow,) = _work(facility)
    (run,) = facility.catalog.view(SERVICE).flow_runs(flow.id)
    assert (run.state, run.message) == (RunState.FAILED, why)
    assert flow.state is FlowState.FAILED


def test_a_run_that_takes_longer_than_its_stage_may_is_ended(facility: Facility, source: Path) -> None:
    flows.adopt(facility, MEAN + "timeout_s = 60\n", principal=ADA)
    _take_in(facility, source)
    queue: list[str] = []
    flows.tick(facility, submit=queue.append)
    with facility.catalog.change(SERVICE) as tx:
        tx.update_run(queue[0], state=RunState.RUNNING)
    flows.tick(facility, submit=queue.append)
    assert facility.catalog.view(SERVICE).run(queue[0]).state is RunState.RUNNING
    later = _later(facility, 61)
    flows.tick(later, submit=queue.append)
    run = facility.catalog.view(SERVICE).run(queue[0])
    assert (run.state, run.error) == (RunState.FAILED, "timeout")


def _later(facility: Facility, seconds: float) -> Facility:
    clock = StillClock(facility.clock.now() + timedelta(seconds=seconds))
    return replace(facility, clock=clock)


def test_a_cancelled_flow_begins_nothing_more(facility: Facility, source: Path) -> None:
    flows.adopt(facility, MEAN + COPY, principal=ADA)
    _take_in(facility, source)
    queue: list[str] = []
    flows.tick(facility, submit=queue.append)
    (flow,) = facility.catalog.view(SERVICE).flows().items
    assert flows.cancel(facility, flow.id, principal=ADA).state is FlowState.CANCELLED
    assert facility.catalog.view(SERVICE).run(queue[0]).state is RunState.CANCELLED
    flows.tick(facility, submit=queue.append)
    assert len(queue) == 1


def test_only_who_manages_the_facility_adopts_a_workflow(facility: Facility) -> None:
    with pytest.raises(Forbidden):
        flows.adopt(facility, MEAN, principal=EVE)
    with pytest.raises(InvalidInput, match="there is no technique 'gate'"):
        flows.adopt(facility, MEAN.replace("gated", "gate"), principal=ADA)


def test_a_workflow_made_as_an_object_is_adopted_as_its_text(facility: Facility) -> None:
    workflow = parse(MEAN + COPY)
    version = flows.adopt(facility, workflow, principal=ADA)
    assert parse(version.text) == workflow
    assert flows.adopt(facility, dump(workflow), principal=ADA).version == 1
