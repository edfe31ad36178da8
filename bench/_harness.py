"""What every benchmark shares: fair timing, figures, and how they are shown and kept.

A benchmark is a module in this folder with `run() -> list[Figure]`. Its part is its file's name, or its `PART`.
"""

from __future__ import annotations

import gc
import importlib
import json
import operator
import os
import re
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

BUILD = Path(__file__).parents[1] / "build" / "bench"
"""Where figures, and data that take long to make, are kept."""

_HOLDS = {">=": operator.ge, "<=": operator.le}
_GOAL = re.compile(r"(ours|ratio) (>=|<=) ([0-9.e+-]+)")


@dataclass(frozen=True)
class Figure:
    """One measured fact."""

    name: str
    ours: float
    """Median of ours, in `unit`."""
    peer: float | None
    """Median of the peer's in the same run, or None where there is nothing to compare with."""
    goal: str
    """`ratio >= 20` or `ours <= 15`; empty when there is none."""
    repetitions: int
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    unit: str = "s"
    is_rate: bool = False
    """True when more is better (files/s); False when less is (seconds, errors)."""
    note: str = ""
    """Who the peer is, and under which conditions."""

    def __post_init__(self) -> None:
        if self.goal and not _GOAL.fullmatch(self.goal):
            raise ValueError(f"goal {self.goal!r} is not like 'ratio >= 20' or 'ours <= 15'")

    @property
    def ratio(self) -> float | None:
        """How many times better ours is than the peer's."""
        if self.peer is None:
            return None
        better, worse = (self.ours, self.peer) if self.is_rate else (self.peer, self.ours)
        return better / worse

    @property
    def met(self) -> bool | None:
        """Whether the goal is reached; None without a goal."""
        if not self.goal:
            return None
        what, compare, bound = _GOAL.fullmatch(self.goal).groups()  # type: ignore[union-attr]
        value = self.ours if what == "ours" else self.ratio
        return value is not None and bool(_HOLDS[compare](value, float(bound)))

    def as_json(self) -> dict[str, Any]:
        """Return what is written to build/bench."""
        names = ("name", "ours", "peer", "ratio", "goal", "met", "repetitions", "threads", "unit", "note")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Timing:
    """Seconds of one function, and what it returned last."""

    seconds: list[float]
    result: Any

    @property
    def median(self) -> float:
        """The median of the repetitions, in seconds."""
        return statistics.median(self.seconds)


def interleaved(*functions: Callable[[], Any], repetitions: int = 5, warm_up: int = 1) -> list[Timing]:
    """Time functions in turn, a b c a b c ..., so that a slow minute of the machine hits all of them alike.

    Parameters
    ----------
    functions: called without arguments; preparation belongs outside of them.
    repetitions: timed rounds, at least 5.
    warm_up: rounds before, which are not timed.
    """
    if repetitions < 5:
        raise ValueError("fewer than 5 repetitions are no measurement")
    seconds: list[list[float]] = [[] for _ in functions]
    results: list[Any] = [None] * len(functions)
    for turn in range(-warm_up, repetitions):
        for place, function in enumerate(functions):
            gc.collect()
            begin = time.perf_counter()
            results[place] = function()
            spent = time.perf_counter() - begin
            if turn >= 0:
                seconds[place].append(spent)
    return [Timing(spent, result) for spent, result in zip(seconds, results, strict=True)]


def parts() -> dict[str, list[str]]:
    """Return the names of the benchmark modules of each part, by listing this folder."""
    found: dict[str, list[str]] = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        declared = re.search(r'^PART = "(\w+)"', path.read_text(), re.MULTILINE)
        found.setdefault(declared[1] if declared else path.stem, []).append(path.stem)
    return found


def measure(part: str, modules: list[str], console: Console) -> list[Figure]:
    """Run one part, show its figures and write them to build/bench/<part>.json."""
    figures: list[Figure] = []
    with _scratch():
        for module in modules:
            figures += importlib.import_module(f"bench.{module}").run()
    (BUILD / f"{part}.json").write_text(json.dumps([figure.as_json() for figure in figures], indent=1) + "\n")
    console.print(_table(part, figures))
    return figures


@contextmanager
def _scratch() -> Iterator[None]:
    """Give temporary files a place beside the figures; remove what benches left that were killed."""
    BUILD.mkdir(parents=True, exist_ok=True)
    for left in BUILD.glob("scratch-*"):
        if not Path("/proc", left.name.removeprefix("scratch-")).exists():
            shutil.rmtree(left)
    scratch = BUILD / f"scratch-{os.getpid()}"
    scratch.mkdir(exist_ok=True)
    before, tempfile.tempdir = tempfile.tempdir, str(scratch)
    try:
        yield
    finally:
        tempfile.tempdir = before
        shutil.rmtree(scratch)


def _table(part: str, figures: list[Figure]) -> Table:
    table = Table(title=part, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in ("", "ours", "peer", "", "ratio", "goal", "n", "note"):
        table.add_column(name, justify="left" if name in ("", "goal", "note") else "right")
    for figure in figures:
        colour = {True: "green", False: "red", None: "dim"}[figure.met]
        table.add_row(
            figure.name,
            f"{figure.ours:.4g}",
            "" if figure.peer is None else f"{figure.peer:.4g}",
            figure.unit,
            "" if figure.ratio is None else f"{figure.ratio:.2f}x",
            f"[{colour}]{figure.goal}[/]",
            str(figure.repetitions),
            f"[dim]{figure.note}[/]",
        )
    return table
