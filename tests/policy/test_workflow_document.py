"""The text of a workflow: what it says comes out, and every mistake is named with its line."""

from __future__ import annotations

import pytest

from lightkeep.model.errors import InvalidInput
from lightkeep.model.workflows import Input, RunsIf, Stage, Trigger, TriggerKind, Workflow
from lightkeep.policy.workflow_document import dump, filled, parse, values_of

GOOD = """\
id = "nightly"
stations = ["2-BM"]
[notify]
to = ["ada@example.org"]
on = ["done", "failed"]

[[trigger]]
on = "schedule"
daily_at = "03:00"
find = "technique:tomography"

[[stage]]
name = "reconstruct"
technique = "tomography"
retries = 2
[stage.params]
center = 295.5

[[stage]]
name = "mask"
command = ["mask", "{input}", "--sigma={sigma}", "{mask}"]
source = "reconstruct"
outputs = { mask = "mask.h5" }
[stage.inputs.sigma]
type = "number"
default = 1.5
low = 0

[[stage]]
name = "tell"
technique = "average"
after = ["mask"]
runs_if = "failure"
"""
TECHNIQUE = 'technique = "tomography"\nretries = 2\n[stage.params]\ncenter = 295.5'


def test_a_text_says_what_is_done_when_and_who_is_told() -> None:
    found = parse(GOOD, version=3, author="ada")
    assert (found.id, found.stations, found.version, found.author) == ("nightly", ("2-BM",), 3, "ada")
    assert found.triggers == (Trigger(TriggerKind.SCHEDULE, "technique:tomography", 0, "03:00"),)
    assert found.stage("reconstruct") == Stage("reconstruct", "tomography", {"center": 295.5}, retries=2)
    assert found.stage("mask").inputs == {"sigma": Input("number", 1.5, 0)}
    assert [each.needs for each in found.stages] == [(), ("reconstruct",), ("mask",)]
    assert found.stages[2].runs_if is RunsIf.FAILURE


def test_the_text_of_an_object_is_read_as_that_object() -> None:
    found = parse(GOOD)
    assert parse(dump(found)) == found
    odd = Workflow("odd", (Stage("a", "xpcs", {"text": 'a "quoted"\nline\\', "deep": [1, {"b": True}]}),))
    assert parse(dump(odd)) == odd


@pytest.mark.parametrize(
    ("old", "new", "line", "why"),
    [
        ('stations = ["2-BM"]', "stations = [2]", 2, "`stations` must be a list of texts"),
        ('to = ["ada@example.org"]', 'to = ["ada"]', 4, "'ada' is no address"),
        ('on = "schedule"', 'on = "dataset"', 8, "a schedule has"),
        ('daily_at = "03:00"', 'daily_at = "3am"', 9, "'3am' is no time of day"),
        ("retries = 2", "retries = 200", 15, "`retries` must be a whole number from 0 to 20"),
        ("retries = 2", "retry = 2", 15, "`retry` is not a key; did you mean `retries`"),
        (TECHNIQUE, 'command = ["x", "{output}"]', 14, "a command without outputs"),
        (TECHNIQUE, 'technique = "xpcs"\ncommand = ["x"]', 13, "a `technique` or a `command`"),
        ('"{mask}"]', '"{mast}"]', 21, "nothing is called {mast}; did you mean `mask`"),
        ('"{mask}"]', '"}"]', 21, "a brace stands alone"),
        ('"{mask}"]', '"mask.h5"]', 21, "it is not told where to write"),
        ('"--sigma={sigma}", ', "", 24, "input `sigma` is not used"),
        ('source = "reconstruct"', 'source = "mask"', 22, "stage 'mask' comes later"),
        ('source = "reconstruct"', 'source = "reconstruc"', 22, "does not exist; did you mean `reconstruct`"),
        ('mask = "mask.h5"', 'mask = "../mask.h5"', 23, "output `mask` names no file"),
        ('type = "number"', 'type = "float"', 24, "input `sigma` has no type"),
        ("default = 1.5", "default = -1", 24, "its default is less than 0"),
        ('name = "tell"', 'name = "mask"', 30, "there are two stages named mask"),
        ('after = ["mask"]', "", 33, "there is no stage to look at"),
        ('name = "tell"', 'name = "Tell it"', 30, "`name` is 'Tell it'"),
    ],
)
def test_a_mistake_is_named_with_its_line(old: str, new: str, line: int, why: str) -> None:
    assert old in GOOD
    with pytest.raises(InvalidInput) as error:
        parse(GOOD.replace(old, new, 1))
    assert why in error.value.message
    assert (error.value.data["line"], error.value.message.split(":")[0]) == (line, f"line {line}")


def test_broken_toml_is_refused_with_the_line_of_the_parser() -> None:
    with pytest.raises(InvalidInput, match="line 2"):
        parse('id = "x"\nstage = ]')


def test_a_value_stays_one_argument_whatever_is_in_it() -> None:
    places = {"input": "/data/a b;$(reboot)", "n": 2}
    assert filled(["p", "{input}", "--n={n}", "{{x}}"], places) == ["p", "/data/a b;$(reboot)", "--n=2", "{x}"]


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"sigma": "1"}, "is no number"),
        ({"sigma": True}, "is no number"),
        ({"sigma": -1}, "is less than 0"),
        ({"sigma": float("nan")}, "is not finite"),
        ({"sigm": 1}, "has no input `sigm`; did you mean `sigma`"),
    ],
)
def test_a_value_that_was_not_declared_so_is_refused(given: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        values_of(parse(GOOD).stage("mask"), given)


def test_a_text_cannot_become_an_option_of_the_program() -> None:
    stage = Stage("s", command=("p", "{note}", "{output}"), inputs={"note": Input("text")}, outputs={"o": "o"})
    with pytest.raises(InvalidInput, match="does not begin with a dash"):
        values_of(stage, {"note": "--delete"})
    with pytest.raises(InvalidInput, match="is missing"):
        values_of(stage, {})
