"""Units run in a process without numba, and never with machine code of other sources."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PART = """
from typing import NamedTuple
from lightkeep.analysis.simd.compile import part
from lightkeep.analysis.simd.memory import call
from lightkeep.analysis.simd.record import record
from kernels.told import Job
job_at = record(Job)
@part
def scaled(job, a):
    return int(job_at(job).factor * a)
@part
def answer(job, a):
    return call(job_at(job).scaled, (job, a)) + {}
"""
TOLD = """
from typing import NamedTuple
class Job(NamedTuple):
    scaled: int
    factor: float
"""
MAIN = """
import sys
from kernels.told import Job
from lightkeep.analysis.simd.units import Units, packed
units = Units("kernels", {"scaled": "parts", "answer": "parts"})
job = packed(Job(units.address("scaled"), 2.5))
print(units.function("answer")(job.ctypes.data, 4), "numba" in sys.modules)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    kernels = tmp_path / "kernels"
    kernels.mkdir()
    for name, text in (("__init__", ""), ("told", TOLD), ("parts", PART.format(1))):
        (kernels / f"{name}.py").write_text(text)
    (tmp_path / "main.py").write_text(MAIN)
    return tmp_path


def run(folder: Path, *arguments: str, script: str = "main.py") -> list[str]:
    # Byte code would hide an edit of the same size in the same second.
    ours = {"NUMBA_CACHE_DIR": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {**os.environ, "PYTHONPATH": str(folder), **ours}
    done = subprocess.run(
        [sys.executable, script, *arguments],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


def test_a_unit_is_compiled_once_and_then_runs_without_numba(folder: Path) -> None:
    assert run(folder) == ["11", "True"]
    assert run(folder) == ["11", "False"]


def test_an_edit_is_compiled_anew(folder: Path) -> None:
    run(folder)
    (folder / "kernels" / "parts.py").write_text(PART.format(7))
    assert run(folder) == ["17", "True"]


@pytest.mark.parametrize("damage", [b"", b"x", None])
def test_a_damaged_unit_is_compiled_anew(folder: Path, damage: bytes | None) -> None:
    run(folder)
    for unit in (folder / "cache").glob("*.unit"):
        unit.write_bytes(unit.read_bytes()[:-9] + b"123456789" if damage is None else damage)
    assert run(folder) == ["11", "True"]
    assert run(folder) == ["11", "False"]


MANY = """
import sys
from lightkeep.analysis.simd.units import Units
names = {f"plus_{i}": "many" for i in range(5)}
if sys.argv[1:] == ["alone"]:
    sys.executable = "/bin/false"
units = Units("kernels", names)
units.prepare(list(names))
print(*(units.function(name)(10) for name in names), "numba" in sys.modules)
"""


@pytest.fixture
def many(folder: Path) -> Path:
    text = "from lightkeep.analysis.simd.compile import part\n"
    text += "".join(f"@part\ndef plus_{i}(a):\n    return a + {i}\n" for i in range(5))
    (folder / "kernels" / "many.py").write_text(text)
    (folder / "main.py").write_text(MANY)
    return folder


@pytest.mark.parametrize("how", [[], ["alone"]])
def test_units_are_prepared_whether_other_processes_can_help_or_not(many: Path, how: list[str]) -> None:
    assert run(many, *how) == ["10", "11", "12", "13", "14", "True"]
    assert run(many) == ["10", "11", "12", "13", "14", "False"]


def test_a_process_that_helps_leaves_its_units_on_disk(many: Path) -> None:
    homes = [f"many.plus_{i}" for i in range(5)]
    work = f"from lightkeep.analysis.simd.units import Units; Units.help('kernels', *{homes})"
    (many / "help.py").write_text(work)
    run(many, script="help.py")
    assert run(many) == ["10", "11", "12", "13", "14", "False"]
