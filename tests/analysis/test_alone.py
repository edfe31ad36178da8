"""One process compiles while the others wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightkeep.analysis.simd.alone import alone

_HOLDER = """
import sys, time
from pathlib import Path
from lightkeep.analysis.simd.alone import alone
with alone(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path / "unit")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_another_process_waits_and_goes_on_after_its_patience(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    begin = time.monotonic()
    with holder, alone(tmp_path / "unit", patience_s=0.3):
        assert time.monotonic() - begin >= 0.3
        holder.kill()


def test_a_process_that_is_killed_holds_nothing_any_more(holder: subprocess.Popen[str], tmp_path: Path) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    with holder:
        holder.wait()
    with alone(tmp_path / "unit", patience_s=60.0):
        pass
    begin = time.monotonic()
    with alone(tmp_path / "unit", patience_s=60.0):  # and the one before let go
        assert time.monotonic() - begin < 30


def test_where_nothing_can_be_locked_work_goes_on(tmp_path: Path) -> None:
    with alone(tmp_path / "no such folder" / "unit"), alone(None):
        pass


_UNITS = """
import sys
from lightkeep.analysis.simd import compile
from lightkeep.analysis.xpcs import event_work
made = compile.compile_unit
def counted(function):
    print("compiled", flush=True)
    return made(function)
compile.compile_unit = counted
event_work.UNITS.function("correlate_pixel")
"""


def test_two_processes_compile_a_unit_once(tmp_path: Path) -> None:
    environ = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    both = [
        subprocess.Popen([sys.executable, "-c", _UNITS], stdout=subprocess.PIPE, text=True, env=environ)
        for _ in range(2)
    ]
    assert [process.communicate()[0] for process in both].count("compiled\n") == 1
    assert [process.returncode for process in both] == [0, 0]
