"""The tutorial of a dataset's first year: every command, exactly as printed."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from lightkeep.cli import answer
from lightkeep.testing import first_year

PAGE = Path(__file__).parents[2] / "docs" / "tutorials" / "first-year.md"
REFUSED = {"lightkeep purge plan central": 6, "lightkeep get tooth --to again": 17}
"""Commands that the page shows to be refused when they are first given, and their exit codes."""
MADE = "python -m lightkeep.testing.first_year "


def test_every_command_of_the_first_year_does_what_the_page_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    refused, plan, said = dict(REFUSED), "", ""
    for each in re.findall(r"^\$ (.*)$", PAGE.read_text(), re.MULTILINE):
        words = shlex.split(each.replace("$PLAN", plan))
        if words[0] == "lightkeep":
            assert answer(words[1:]) == refused.pop(each, 0), each
            said = capsys.readouterr().out
        elif each.startswith(MADE):
            assert first_year.main(words[3:]) == 0
        elif words[0] == "cd":
            monkeypatch.chdir(words[1])
        elif each.startswith("PLAN="):
            plan = shell(f"{each}; echo $PLAN")
        else:
            shell(each)
    assert refused == {}
    assert "everything is as the catalogue says" in said


def shell(command: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", command], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
