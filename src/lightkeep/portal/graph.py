"""A workflow as a picture: stages in columns by what they wait for, and the ways between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lightkeep.model.workflows import RunsIf, Stage

_WIDTH, _NARROW, _HEIGHT = 188, 156, 64
"""Of a box; narrow ones stand side by side on a phone."""
_GAP, _BESIDE = 44, 26
"""Between two columns, and between two boxes in one."""
_LANE = 20
"""Of a way that passes between the boxes of a column."""
_MARGIN = 2
_WORD = 14
START = ""
"""The name of the box of the dataset that began it."""


@dataclass(frozen=True)
class Box:
    """A stage, or the dataset that it begins with."""

    name: str
    x: float
    y: float
    word: str
    """On which condition it begins; empty: when what it needs is done."""


@dataclass(frozen=True)
class Way:
    """From one box to another."""

    path: str
    """Of SVG."""
    is_data: bool
    """True: the result goes this way; False: the one only waits for the other."""


@dataclass(frozen=True)
class Graph:
    """A picture of `width` x `height`, with boxes of the size `box`."""

    width: float
    height: float
    box: tuple[int, int]
    boxes: tuple[Box, ...]
    ways: tuple[Way, ...]


def graph(stages: Sequence[Stage], *, is_down: bool = False) -> Graph:
    """Lay the stages out, from left to right or downwards.

    A way over several columns keeps a lane of its own in each, so that none runs through a box.
    """
    depth: dict[str, int] = {START: 0}
    for stage in stages:
        depth[stage.name] = 1 + max(depth[name] for name in _parents(stage))
    columns: list[list[str]] = [[] for _ in range(max(depth.values()) + 1)]
    for name in depth:
        columns[depth[name]].append(name)
    before: dict[str, list[str]] = {START: []}
    routes: dict[tuple[str, str], list[str]] = {}
    for stage in stages:
        for parent in _parents(stage):
            routes[parent, stage.name] = _lanes(parent, stage.name, depth, columns, before)
    size = (_NARROW if is_down else _WIDTH, _HEIGHT)
    along, thick = size[::-1] if is_down else size
    across = _across(columns, before, thick=thick)
    middle = {
        name: (number * (along + _GAP), across[name]) for number, column in enumerate(columns) for name in column
    }
    words = {START: ""} | {stage.name: _word(stage) for stage in stages}
    boxes = tuple(Box(name, *_corner(middle[name], thick, is_down=is_down), words[name]) for name in depth)
    ways = tuple(
        Way(
            _path([middle[each] for each in (parent, *routes[parent, stage.name], stage.name)], along, is_down),
            stage.source == parent or not stage.needs,
        )
        for stage in stages
        for parent in _parents(stage)
    )
    width = max(box.x for box in boxes) + size[0] + _MARGIN
    height = max(box.y for box in boxes) + size[1] + _MARGIN
    return Graph(width, height, size, boxes, ways)


def _parents(stage: Stage) -> tuple[str, ...]:
    """Return what a stage waits for; the start, when it works on what began the flow or waits for nothing."""
    return stage.needs or (START,)


def _lanes(
    parent: str, child: str, depth: Mapping[str, int], columns: list[list[str]], before: dict[str, list[str]]
) -> list[str]:
    """Add a place in every column that a way passes; return their names."""
    last, names = parent, []
    for number in range(depth[parent] + 1, depth[child]):
        name = f"{parent} > {child} > {number}"
        columns[number].append(name)
        before[name] = [last]
        names.append(name)
        last = name
    before.setdefault(child, []).append(last)
    return names


def _across(
    columns: Sequence[Sequence[str]], before: Mapping[str, Sequence[str]], *, thick: float
) -> dict[str, float]:
    """Return the middle of each place across the columns: beside what it comes from, and never over another."""
    found: dict[str, float] = {}

    def wanted(name: str) -> float:
        parents = [found[each] for each in before[name]]
        return sum(parents) / len(parents) if parents else 0.0

    for column in columns:
        sizes = {name: _LANE if " > " in name else thick for name in column}
        ordered = sorted(column, key=wanted)
        ends = 0.0
        places = []
        for name in ordered:
            places.append(ends + sizes[name] / 2)
            ends += sizes[name] + _BESIDE
        shift = sum(wanted(name) - at for name, at in zip(ordered, places, strict=True)) / len(ordered)
        found |= {name: at + shift for name, at in zip(ordered, places, strict=True)}
    least = min(at - (_LANE if " > " in name else thick) / 2 for name, at in found.items())
    return {name: at - least + _MARGIN + _WORD for name, at in found.items()}


def _word(stage: Stage) -> str:
    words = {RunsIf.FAILURE: "if it fails", RunsIf.ALWAYS: "in any case"}
    return words.get(stage.runs_if, "if it matches" if stage.when else "")


def _corner(middle: tuple[float, float], thick: float, *, is_down: bool) -> tuple[float, float]:
    along, across = middle[0] + _MARGIN, middle[1] - thick / 2
    return (across, along) if is_down else (along, across)


def _path(points: Sequence[tuple[float, float]], along: float, is_down: bool) -> str:
    """Return the line through the middles of places, each entered and left in the direction of the picture."""

    def at(x: float, y: float) -> str:
        return f"{y:.1f} {x + _MARGIN:.1f}" if is_down else f"{x + _MARGIN:.1f} {y:.1f}"

    (x, y), *rest = points
    x += along
    path = f"M {at(x, y)}"
    for number, (to_x, to_y) in enumerate(rest):
        half = (x + to_x) / 2
        path += f" C {at(half, y)}, {at(half, to_y)}, {at(to_x, to_y)}"
        x, y = to_x, to_y
        if number < len(rest) - 1:
            path += f" L {at(x + along, y)}"
            x += along
    return path
