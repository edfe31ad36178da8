"""The page of the safety suite's figures, from build/safety.json: `python tests/safety/table.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PARTS = ("simulation", "crash_points", "model_check", "mutants", "faults")
FAULTS = {
    "F1": "kill -9 at any change",
    "F2": "kill during the recovery",
    "F3": "power loss",
    "F4": "no space, no inode",
    "F5": "input/output error",
    "F6": "a write that lies",
    "F7": "a bit flips at rest",
    "F8": "truncated, extended, zeroed, swapped",
    "F9": "a file changes while it is read",
    "F10": "the clock jumps",
    "F11": "database locked, or cut off at a commit",
    "F12": "a store or server away, slow, half open",
    "F13": "events twice, reordered, lost",
    "F14": "odd names and kinds of file",
    "F15": "very many small files",
    "F16": "no permission, read only",
    "F17": "purge, download, restore and hold at once",
    "F18": "two servers, one paused past its lease",
    "F19": "store not mounted, wrong disk, old snapshot",
    "F20": "a store and the catalogue lost",
    "F21": "memory or descriptors run out",
    "F22": "a wrong list given to the purge",
    "F23": "an administrator edits the database",
}
HEAD = """# Figures of the safety suite

`make safety` runs it and writes `build/safety.json`; this page is made from such a run by
`python tests/safety/table.py`. What the parts are is told in {doc}`../explanation/safety`.

| Part | Figure |
|---|---|
"""


def page(figures: Mapping[str, Any]) -> str:
    """Return the page."""
    lines = [f"| {part} | {text} |" for part, text in parts(figures)]
    faults = ["", "## Faults", "", "| Fault | Injected | Found |", "|---|---|---|", *rows(figures)]
    return HEAD + "\n".join([*lines, *faults]) + "\n"


def parts(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield each part and its figure in words."""
    simulation, model, mutants = figures["simulation"], figures["model_check"], figures["mutants"]
    at = ", ".join(f"{count:,} {seam}" for seam, count in simulation["operations_at"].items())
    yield (
        "simulator",
        f"{simulation['operations']:,} operations at the seams ({at}) in {simulation['histories']} histories; "
        f"{simulation['broken_promises']} promises broken",
    )
    yield "model check", words(model)
    yield "mutants", words(mutants)
    for planted, said in figures.get("control", {}).get("planted", {}).items():
        yield f"control, decision {planted}", f"the simulator's oracle must see a loss: {said}"
    for name in ("crash_points", "faults"):
        tests = figures[name]
        yield name.replace("_", " "), f"{tests['tests']} tests, {tests['failures'] + tests['errors']} failed"
    yield "crash points are", figures["crash_points"]["enumerated"]
    each = ", ".join(f"{name.replace('_', ' ')} {figures[name]['cpu_seconds']:.0f}" for name in PARTS)
    yield (
        "time",
        f"{figures['seconds'] / 60:.0f} minutes on {figures['cores']} cores; seconds of processor: {each}",
    )


def words(figures: Mapping[str, Any]) -> str:
    """Return figures as `name: value, ...`, lists by their length."""
    shown = {
        name.replace("_", " "): len(value)
        if isinstance(value, list | dict)
        else f"{value:,}"
        if isinstance(value, int)
        else value
        for name, value in figures.items()
        if name not in ("exit", "seconds", "cpu_seconds")
    }
    return ", ".join(f"{name}: {value}" for name, value in shown.items())


def rows(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rows of the fault table; a fault that nothing injected says so."""
    for fault, title in FAULTS.items():
        told = [*figures["crash_points"]["figures"], *figures["faults"]["figures"]]
        found = [each for each in told if each["fault"] == fault]
        if not found:
            yield f"| {fault} {title} | not injected by a test of its own | |"
        for number, each in enumerate(found):
            name = f"{fault} {title}" if number == 0 else ""
            yield f"| {name} | {clean(each['injected'])} | {clean(each['found'])} |"


def clean(text: str) -> str:
    """Return text for a cell of a table."""
    return text.replace("|", "/").replace("\n", " ").replace("*", "\\*")


if __name__ == "__main__":
    target = ROOT / "docs" / "reference" / "safety-figures.md"
    target.write_text(page(json.loads((ROOT / "build" / "safety.json").read_text())))
    print(target)
