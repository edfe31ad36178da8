"""The cache of compiled functions notices what numba's own does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CALLER = """
from lightkeep.analysis.simd import compiled
from callee import value
@compiled
def answer():
    return value()
print(answer(), sum(answer.stats.cache_hits.values()))
"""
CALLEE = """
from lightkeep.analysis.simd import compiled
@compiled
def value():
    return {}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "caller.py").write_text(CALLER)
    (tmp_path / "callee.py").write_text(CALLEE.format(1))
    return tmp_path


def run(folder: Path, **environment: str) -> list[str]:
    import os

    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "NUMBA_CACHE_DIR": str(folder / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",  # it would hide an edit of the same size in the same second
        **environment,
    }
    done = subprocess.run(
        [sys.executable, "caller.py"], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.split()


def test_an_edit_of_a_function_that_is_called_from_another_file_is_compiled_anew(folder: Path) -> None:
    assert run(folder) == ["1", "0"]
    assert run(folder) == ["1", "1"]
    (folder / "callee.py").write_text(CALLEE.format(2))
    assert run(folder) == ["2", "0"]


def test_a_setting_of_the_vectoriser_is_compiled_anew(folder: Path) -> None:
    assert run(folder) == ["1", "0"]
    assert run(folder, NUMBA_SLP_VECTORIZE="1") == ["1", "0"]
