"""The reference page of the command line, made from the commands themselves.

python -m lightkeep.cli.reference > docs/reference/command-line.md
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from lightkeep.cli.app import Command, Group, root
from lightkeep.cli.errors import EXIT_CODES, INTERRUPTED, PIPE_CLOSED
from lightkeep.model.errors import LightkeepError

_HEAD = """# Command line

This page is made from the commands themselves: `python -m lightkeep.cli.reference`.

Every command takes `--json` (one JSON object on the standard output; an error is one on the standard error
stream) and `--help`. Where only one experiment is open, commands use it; `--experiment` names another. A dataset
is given by its id, by `EXPERIMENT/NAME`, or by its name in the experiment at hand. After `--`, a name may begin
with a dash.
"""


def page() -> str:
    """Return the whole page as Markdown."""
    with click.Context(root, info_name="lightkeep") as context:
        parts = [_HEAD, *(part for name, command in _commands(root, context) for part in _section(name, command))]
    rows = [f"| {code} | `{kind.code}` | {_when(kind)} |" for kind, code in EXIT_CODES.items()]
    tail = [
        "| 0 | | Done |",
        *rows,
        f"| {INTERRUPTED} | `interrupted` | Ctrl-C |",
        f"| {PIPE_CLOSED} | | The reader of a pipe went away |",
    ]
    return "\n".join(
        [*parts, "## Exit codes\n", "| Exit code | Code in JSON | When |", "|---|---|---|", *tail, ""]
    )


def _when(kind: type[LightkeepError]) -> str:
    return "Anything else" if kind is LightkeepError else re.split(r"[;.:]", kind.__doc__ or "")[0]


def _commands(group: click.Group, context: click.Context, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, Group) and name not in ("run", "live"):
            yield from _commands(command, context, f"{prefix}{name} ")
        elif command is not None:
            yield prefix + name, command


def _section(name: str, command: click.Command) -> Iterator[str]:
    yield f"## `lightkeep {name}`\n"
    yield f"{' '.join((command.help or '').split())}\n"
    examples = command.examples if isinstance(command, (Command, Group)) else ()
    yield "\n".join(["```sh", *examples, "```", ""])
    options = [each for each in command.params if isinstance(each, click.Option) and each.name != "json"]
    if options:
        rows = [f"| {', '.join(f'`{flag}`' for flag in each.opts)} | {each.help} |" for each in options]
        yield "\n".join(["| Option | Meaning |", "|---|---|", *rows, ""])


if __name__ == "__main__":
    click.echo(page(), nl=False)
