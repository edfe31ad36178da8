"""The safety suite: simulator, crash points, model check, mutants, faults. Writes build/safety.json.

make safety             the suite that CI runs
make safety-long        ten times the histories, every crash point
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path
from typing import Any

from lightkeep.testing.simulator import Violation, World

ROOT = Path(__file__).parents[2]
PARTS = ("model_check", "mutants", "faults", "simulation")
STEPS = 150
"""Of one history."""


def simulate(operations: int, *, minutes: float) -> dict[str, Any]:
    """Run histories of seeds 1, 2, 3 ... on every core until they made so many operations, or time is up."""
    until = time.monotonic() + 60 * minutes
    done: Counter[str] = Counter()
    histories = 0
    outcomes: Counter[str] = Counter()
    violations: list[str] = []
    with ProcessPoolExecutor() as pool:
        waiting = {pool.submit(history, seed) for seed in range(1, 2 * os.cpu_count() + 1)}
        seed = len(waiting)
        while waiting:
            ended, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for each in ended:
                count, said, violation = each.result()
                done.update(count)
                histories += 1
                outcomes.update(said)
                violations += [violation] if violation else []
                if done.total() < operations and not violations and time.monotonic() < until:
                    seed += 1
                    waiting.add(pool.submit(history, seed))
    return {
        "operations": done.total(),
        "operations_at": dict(done),
        "histories": histories,
        "broken_promises": len(violations),
        "violations": violations,
        "outcomes": dict(sorted(outcomes.items())),
    }


def history(seed: int) -> tuple[dict[str, int], Counter[str], str]:
    """Run one history; return its operations at the seams, how its steps ended, and what was violated."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder, World(Path(folder), seed=seed) as world:
        violation = ""
        try:
            world.run(STEPS)
            world.settle()
        except Violation as error:
            violation = str(error)
        return world.operations, world.outcomes, violation


def test_part(marker: str, *, folder: Path) -> dict[str, Any]:
    """Run the tests of a marker; return the figures that they recorded."""
    report = folder / f"{marker.split(maxsplit=1)[0]}.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-n",
        "2",
        "--dist",
        "worksteal",
        "-m",
        marker,
        f"--junitxml={report}",
    ]
    code = subprocess.run([*command, "tests"], cwd=ROOT).returncode
    suites = ElementTree.parse(report).getroot()
    counts = {
        name: sum(int(suite.get(name, 0)) for suite in suites)
        for name in ("tests", "failures", "errors", "skipped")
    }
    told = {each.get("value", "") for each in suites.iter("property") if each.get("name") == "figure"}
    figures = sorted(map(json.loads, told), key=lambda each: (int(each["fault"][1:]), each["injected"]))
    return {**counts, "exit": code, "figures": figures}


def script_part(name: str) -> dict[str, Any]:
    """Run a script of this folder that ends with a line of JSON."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name(name))], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    lines = done.stdout.strip().splitlines()
    return {**json.loads(lines[-1] if lines else "{}"), "exit": done.returncode}


def main() -> int:
    """Run every part; return 0 when all is well."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--long", action="store_true")
    parser.add_argument("--operations", type=int, default=0, help="of the simulator; 1 000 000, or ten times that")
    parser.add_argument("--minutes", type=float, default=10.0, help="that the simulator may take at most")
    parser.add_argument("--parts", nargs="+", default=PARTS, choices=PARTS)
    asked = parser.parse_args()
    os.environ["LIGHTKEEP_MANY_FILES"] = "100000"
    os.environ.setdefault("LIGHTKEEP_CRASH_POINTS", "400")
    if asked.long:
        os.environ["LIGHTKEEP_CRASH_POINTS"] = "all"
    folder = ROOT / "build" / "safety"
    folder.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Any] = {}
    operations = asked.operations or (10_000_000 if asked.long else 1_000_000)
    run = {
        "model_check": lambda: script_part("model_check.py"),
        "mutants": lambda: script_part("mutants.py"),
        "faults": lambda: test_part("fault or crash", folder=folder),
        "simulation": lambda: simulate(operations, minutes=asked.minutes),
    }
    for name in asked.parts:
        begin = time.monotonic()
        parts[name] = {**run[name](), "seconds": round(time.monotonic() - begin, 1)}
        print(f"{name}: {parts[name]['seconds']} s", flush=True)
    parts["seconds"] = round(sum(part["seconds"] for part in parts.values()), 1)
    is_well = not any(
        part.get("exit") or part.get("violations") for part in parts.values() if isinstance(part, dict)
    )
    parts["is_well"] = is_well
    target = ROOT / "build" / "safety.json"
    target.write_text(json.dumps(parts, indent=1) + "\n")
    print(f"{'all is well' if is_well else 'NOT WELL'}: {target} ({parts['seconds']:.0f} s)")
    return 0 if is_well else 1


if __name__ == "__main__":
    raise SystemExit(main())
