"""The safety suite: simulator, crash points, model check, mutants, faults. Writes build/safety.json.

make safety             the suite that CI runs
make safety-long        ten times the histories, every crash point

Each part is cut into pieces of one process; as many pieces as there are cores run at a time, the longest first.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
FOLDER = ROOT / "build" / "safety"
PARTS = ("crash_points", "mutants", "faults", "model_check", "simulation", "control")
ENUMERATED = ("test_kill.py", "test_copies_kill.py", "test_trash_kill.py")
"""Of tests/crash: each is a piece of its own, the system calls of one flow from end to end."""
DROPPED = (("P1", "P4", "P16"), ("P2", "P3", "P4", "P16"))
"""Conditions of the purge decision that guard one another: the simulator must see what goes wrong without them."""


@dataclass(frozen=True)
class Piece:
    """What one process does."""

    part: str
    name: str
    command: tuple[str, ...]
    report: Path | None = None
    """Where pytest tells its figures; else the last line of the output is their JSON."""


def script(part: str, number: int, name: str, *arguments: str) -> Piece:
    """Return a piece that a script of this folder does."""
    return Piece(part, f"{part}-{number}", (sys.executable, str(HERE / name), *arguments))


def tests(part: str, name: str, *paths: str) -> Piece:
    """Return a piece that pytest does: what is marked as a fault or a crash point in some files."""
    report = FOLDER / f"{name}.xml"
    marked = ("-q", "-m", "fault or crash", "-p", "no:cacheprovider", f"--junitxml={report}")
    return Piece(part, name, (sys.executable, "-m", "pytest", *marked, *paths), report)


def pieces(part: str, *, operations: int, minutes: float) -> list[Piece]:
    """Return the pieces of a part."""
    many = 8
    share = str(-(-operations // many))
    if part == "simulation":
        return [
            script(part, n, "simulate.py", "--first", str(n + 1), "--every", str(many), "--operations", share,
                   "--minutes", str(minutes))
            for n in range(many)
        ]  # fmt: skip
    if part == "control":
        return [
            script(
                part, n, "simulate.py", "--first", "4", "--every", "4", "--operations", share, "--drop", *dropped
            )
            for n, dropped in enumerate(DROPPED)
        ]
    if part == "model_check":
        return [script(part, n, "model_check.py", f"{n}/10") for n in reversed(range(10))]
    if part == "mutants":
        return [script(part, n, "mutants.py", f"{n}/4") for n in range(4)]
    enumerated = [f"tests/crash/{name}" for name in ENUMERATED]
    if part == "crash_points":
        return [tests(part, Path(path).stem, path) for path in enumerated]
    marked = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if "mark.fault" in (text := path.read_text(encoding="utf-8")) or "mark.crash" in text
    ]
    rest = [path for path in marked if path not in enumerated]
    return [tests(part, f"faults-{n}", *rest[n::3]) for n in range(3)]


def run(piece: Piece) -> dict[str, Any]:
    """Run a piece; return its figures, its exit status, and its seconds, of the clock and of the processor."""
    begin = time.monotonic()
    output = FOLDER / f"{piece.name}.log"
    with output.open("w") as log, subprocess.Popen(piece.command, cwd=ROOT, stdout=log, stderr=log) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begin
    cpu = used.ru_utime + used.ru_stime
    print(f"{piece.name}: {process.returncode}, {seconds:.0f} s, {cpu:.0f} CPU s", flush=True)
    if piece.report is None:
        lines = output.read_text(errors="replace").strip().splitlines()
        figures = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    else:
        figures = reported(piece.report)
    return {**figures, "exit": process.returncode, "seconds": seconds, "cpu_seconds": cpu}


def reported(report: Path) -> dict[str, Any]:
    """Return what tests told their report."""
    if not report.is_file():
        return {}
    suites = ElementTree.parse(report).getroot()
    counts = {
        name: sum(int(suite.get(name, 0)) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    }
    told = {each.get("value", "") for each in suites.iter("property") if each.get("name") == "figure"}
    return {**counts, "figures": [json.loads(each) for each in told]}


def merged(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a part's figures: numbers are added, lists and tables joined; `exit` is the first that is not 0."""
    whole: dict[str, Any] = {}
    for figures in found:
        for name, value in figures.items():
            if name == "exit":
                whole[name] = whole.get(name) or value
            elif name not in whole:
                whole[name] = value
            elif name in ("operations_at", "outcomes"):
                whole[name] = dict(sorted((Counter(whole[name]) + Counter(value)).items()))
            elif isinstance(value, dict):
                whole[name] = {**whole[name], **value}
            else:
                whole[name] = whole[name] + value
    if "operations_at" in whole:
        whole["operations"] = sum(whole["operations_at"].values())
        whole["broken_promises"] = len(whole["violations"])
    if "figures" in whole:
        whole["figures"].sort(key=lambda each: (int(each["fault"][1:]), each["injected"]))
    for name in ("seconds", "cpu_seconds"):
        whole[name] = round(whole[name], 1)
    return whole


def main() -> int:
    """Run every part; return 0 when all is well."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--operations", type=int, default=0, help="of the simulator; 1 000 000, or ten times that")
    parser.add_argument("--minutes", type=float, default=10.0, help="that a history's process may go on beginning")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    asked = parser.parse_args()
    os.environ["LIGHTKEEP_MANY_FILES"] = "100000"
    os.environ.setdefault("LIGHTKEEP_CRASH_POINTS", "all" if asked.long else "400")
    FOLDER.mkdir(parents=True, exist_ok=True)
    operations = asked.operations or (10_000_000 if asked.long else 1_000_000)
    begin = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        todo = [
            (each.part, pool.submit(run, each))
            for part in PARTS
            if part in asked.parts
            for each in pieces(part, operations=operations, minutes=asked.minutes)
        ]
        parts = {part: merged([done.result() for of, done in todo if of == part]) for part in asked.parts}
    is_well = all(each["exit"] == 0 and not each.get("skipped") for each in parts.values())
    if "simulation" in parts:
        is_well &= parts["simulation"]["operations"] >= operations
    figures = {
        **parts,
        "seconds": round(time.monotonic() - begin, 1),
        "cpu_seconds": round(sum(each["cpu_seconds"] for each in parts.values()), 1),
        "cores": os.cpu_count(),
        "crash_points": {
            **parts.get("crash_points", {}),
            "enumerated": f"{os.environ['LIGHTKEEP_CRASH_POINTS']} points of ingest, of each system call evenly; "
            "of replicate, archive, restore a fifth as many; all of trash, undo, destroy",
        },
        "is_well": is_well,
    }
    target = ROOT / "build" / "safety.json"
    target.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"{'all is well' if is_well else 'NOT WELL'}: {target} ({figures['seconds']:.0f} s)")
    return 0 if is_well else 1


if __name__ == "__main__":
    raise SystemExit(main())
