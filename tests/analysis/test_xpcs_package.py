"""The package loads what is light at once, and compiled kernels when they are asked for."""

from __future__ import annotations

import subprocess
import sys

import pytest


def said(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, timeout=300
    ).stdout.strip()


def test_maps_and_blocks_load_without_compiler_and_without_scipy() -> None:
    program = (
        "import sys; from lightkeep.analysis.xpcs import QMap, FrameBlock, MultiTauResult, describe, result_of"
    )
    assert said(f"{program}; print(sorted({{'numba', 'scipy'}} & set(sys.modules)))") == "[]"


def test_every_name_that_is_offered_is_there() -> None:
    program = "import lightkeep.analysis.xpcs as it; print([name for name in it.__all__ if not hasattr(it, name)])"
    assert said(program) == "[]"


@pytest.mark.parametrize("first", ["multitau", "twotime"])
def test_a_function_is_the_function_though_its_module_was_loaded_first(first: str) -> None:
    program = f"import lightkeep.analysis.xpcs.{first}; from lightkeep.analysis.xpcs import {first}"
    assert said(f"{program}; print(callable({first}))") == "True"


def test_a_name_that_is_not_offered_is_an_error() -> None:
    import lightkeep.analysis.xpcs as package

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = package.nothing
