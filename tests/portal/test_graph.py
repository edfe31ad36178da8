"""A workflow as a picture: stages behind what they wait for, and no way through a box."""

from __future__ import annotations

import re

import pytest

from lightkeep.model.workflows import RunsIf, Stage
from lightkeep.portal.graph import START, Graph, graph

STAGES = (
    Stage("reconstruct", "tomography"),
    Stage("preview", "tomography"),
    Stage("segment", command=("segment",), source="reconstruct"),
    Stage("big-ones", command=("big",), source="reconstruct", when="size:>1TB"),
    Stage("measure", command=("measure",), source="segment"),
    Stage("help", command=("help",), after=("measure",), runs_if=RunsIf.FAILURE),
    Stage("summary", command=("sum",), after=("preview", "measure", "reconstruct"), runs_if=RunsIf.ALWAYS),
)


def _points(path: str) -> list[tuple[float, float]]:
    """Return where a way goes: its curves, cut fine."""
    numbers = [float(each) for each in re.findall(r"-?\d+\.\d", path)]
    corners = list(zip(numbers[::2], numbers[1::2], strict=True))
    kinds = re.findall(r"[MCL]", path)
    found, at = [], corners[0]
    rest = iter(corners[1:])
    for kind in kinds[1:]:
        ends = [at, *(next(rest) for _ in range(3))] if kind == "C" else [at] * 3 + [next(rest)]
        for step in range(51):
            t = step / 50
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
            if kind == "L":
                weights = (1 - t, 0.0, 0.0, t)
            x, y = (sum(w * p[axis] for w, p in zip(weights, ends, strict=True)) for axis in (0, 1))
            found.append((x, y))
        at = ends[-1]
    return found


def _runs_through_a_box(drawn: Graph) -> bool:
    width, height = drawn.box
    return any(
        box.x + 1 < x < box.x + width - 1 and box.y + 1 < y < box.y + height - 1
        for way in drawn.ways
        for x, y in _points(way.path)
        for box in drawn.boxes
    )


@pytest.mark.parametrize("is_down", [False, True])
def test_no_two_boxes_touch_and_no_way_runs_through_one(is_down: bool) -> None:
    drawn = graph(STAGES, is_down=is_down)
    width, height = drawn.box
    for number, one in enumerate(drawn.boxes):
        for other in drawn.boxes[:number]:
            assert abs(one.x - other.x) >= width or abs(one.y - other.y) >= height, (one, other)
        assert 0 <= one.x <= drawn.width - width
        assert 0 <= one.y <= drawn.height - height
    assert not _runs_through_a_box(drawn)


@pytest.mark.parametrize("is_down", [False, True])
def test_a_stage_stands_behind_everything_that_it_waits_for(is_down: bool) -> None:
    drawn = graph(STAGES, is_down=is_down)
    along = {box.name: box.y if is_down else box.x for box in drawn.boxes}
    for stage in STAGES:
        assert all(along[name] < along[stage.name] for name in stage.needs or (START,))
    assert len(drawn.ways) == 10 - 1  # two from the start, seven between stages


def test_data_and_order_are_drawn_apart_and_conditions_are_said() -> None:
    drawn = graph(STAGES)
    assert sum(way.is_data for way in drawn.ways) == 5
    words = {box.name: box.word for box in drawn.boxes if box.word}
    assert words == {"big-ones": "if it matches", "help": "if it fails", "summary": "in any case"}
