"""The documentation builds, and says everything that there is to say."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest

from lightkeep.cli.errors import exit_code
from lightkeep.http.problem import STATUS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def everything() -> str:
    return "\n".join(page.read_text() for page in DOCS.rglob("*.md"))


def test_the_documentation_builds_without_a_warning(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", DOCS, tmp_path / "html"]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_error_is_in_the_reference_with_its_status_and_exit_code() -> None:
    page = (DOCS / "reference" / "errors.md").read_text()
    for error, status in STATUS.items():
        row = next((line for line in page.splitlines() if line.startswith(f"| `{error.code}` |")), "")
        assert f"| {status} | {exit_code(error('x'))} |" in row, error.__name__


def shipped(group: str) -> list[str]:
    return [entry.name for entry in distribution("lightkeep").entry_points if entry.group == group]


@pytest.mark.parametrize("name", [*shipped("lightkeep.techniques"), *shipped("lightkeep.formats")])
def test_every_technique_and_format_is_in_the_docs(name: str) -> None:
    assert re.search(rf"\b{re.escape(name)}\b", everything())


def test_every_decision_record_is_numbered_once() -> None:
    numbers = [page.name[:4] for page in (DOCS / "decisions").glob("0*.md")]
    assert numbers
    assert sorted(numbers) == sorted(set(numbers))


def test_every_relative_link_of_the_readme_leads_somewhere() -> None:
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_every_test_that_the_kill_points_name_is_there() -> None:
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "reference" / "kill-points.md").read_text()))
    places = [*(ROOT / "tests").rglob("*.py"), *(ROOT / "src/lightkeep/testing").rglob("*.py")]
    there = {name for place in places for name in re.findall(r"def (test_\w+)", place.read_text())}
    assert named
    assert named - there == set()
