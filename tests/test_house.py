"""The floors that must stay light: what import-linter cannot say about packages that nobody has named yet."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

import lightkeep

SOURCE = Path(lightkeep.__file__).parent


@pytest.mark.parametrize("floor", ["model", "policy"])
def test_model_and_policy_import_the_standard_library_only(floor: str) -> None:
    for file in sorted((SOURCE / floor).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.split(".")[0]
                assert top in sys.stdlib_module_names or name.startswith("lightkeep."), (
                    f"{file.name} imports {name}"
                )


def test_every_package_of_the_house_says_what_it_is() -> None:
    for package in SOURCE.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(package.read_text())), package
