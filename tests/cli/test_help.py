"""What the command line says before it does anything."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from lightkeep.cli.app import Group, root
from lightkeep.cli.reference import page

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "command-line.md"
HEAVY = ("numpy", "scipy", "h5py", "fastapi", "sqlalchemy", "pydantic", "dbos", "rich")


def commands(group: click.Group = root, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        yield (*prefix, name)
        command = group.get_command(context, name)
        if isinstance(command, Group) and name != "run":
            yield from commands(command, (*prefix, name))


def test_help_imports_nothing_heavy() -> None:
    code = "import sys, lightkeep.cli as c; c.answer(['--help']); print(*sys.modules, sep='\\n', file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: lightkeep" in done.stdout
    assert set(done.stderr.split()) & set(HEAVY) == set()


def test_help_answers_in_under_half_a_second() -> None:
    # Of processor time: what else this machine does is not the question.
    before = os.times()
    subprocess.run([sys.executable, "-m", "lightkeep", "--help"], capture_output=True, check=True)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    assert spent < 0.5


@pytest.mark.parametrize("words", [(), *commands()], ids=" ".join)
def test_help_shows_an_example_first(words: tuple[str, ...]) -> None:
    command: click.Command = root
    context = click.Context(root, info_name="lightkeep")
    for word in words:
        assert isinstance(command, click.Group)
        found = command.get_command(context, word)
        assert found is not None
        command, context = found, click.Context(found, parent=context, info_name=word)
    text = command.get_help(context)
    assert text.startswith("Example")
    assert text.splitlines()[1].startswith(f"  {' '.join(['lightkeep', *words])}")
    assert max(map(len, text.splitlines())) <= 80


def test_the_version_is_the_packages() -> None:
    from lightkeep import __version__

    done = subprocess.run([sys.executable, "-m", "lightkeep", "--version"], capture_output=True, text=True)
    assert done.stdout == f"lightkeep {__version__}\n"


def test_every_command_takes_json() -> None:
    for words in commands():
        command: click.Command | None = root
        for word in words:
            assert isinstance(command, click.Group)
            command = command.get_command(click.Context(command), word)
        assert command is not None
        if not isinstance(command, click.Group):
            assert "--json" in [flag for each in command.params for flag in each.opts], words


def test_the_reference_page_is_what_the_commands_say() -> None:
    assert REFERENCE.read_text() == page(), (
        "run: python -m lightkeep.cli.reference > docs/reference/command-line.md"
    )
