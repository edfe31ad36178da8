"""The commands, by name; each module is imported when its command is asked for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, ClassVar

import click

from lightkeep import __version__


class _Talk(click.Command):
    """Puts the examples above everything else that `--help` says, and takes `--json`."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        text = "Print one JSON object; errors too, on the standard error stream."
        # Its value was read before anything else was, so that a wrong command line is answered in JSON as well.
        self.params.append(click.Option(["--json"], is_flag=True, expose_value=False, help=text))

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples, then what click writes."""
        with formatter.section("Examples" if len(self.examples) > 1 else "Example"):
            for example in self.examples:
                formatter.write(f"  {example}\n")
        formatter.write("\n")
        super().format_help(ctx, formatter)

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the first sentence, or as many of its clauses as fit."""
        text = super().get_short_help_str(1000).removesuffix(".")
        if len(text) < limit:
            return f"{text}."
        ends = [found.start() for found in re.finditer(r"[,;:] ", text) if found.start() < limit]
        return f"{text[: ends[-1]]}." if ends else super().get_short_help_str(limit)


class Command(_Talk):
    """A verb."""


class Group(_Talk, click.Group):
    """A noun with its verbs."""

    command_class = Command
    contents: ClassVar[str] = ""
    """What its commands are, where they are no verbs: an unknown one is answered with all."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands in the order in which they were written."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; an unknown name is answered with those like it, also of commands not imported yet."""
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            known = self.list_commands(ctx)
            if self.contents and not get_close_matches(error.command_name, known):
                said = f"no {self.contents} is called '{error.command_name}': {', '.join(known)}"
                raise click.UsageError(said, ctx) from None
            raise click.NoSuchCommand(error.command_name, possibilities=known, ctx=ctx) from None


class _Root(Group):
    """The commands of `lightkeep`, in the order of a first day's work."""

    places: ClassVar[dict[str, str]] = {
        "demo": "demo:demo",
        "init": "settings:init",
        "station": "stations:station",
        "experiment": "experiments:experiment",
        "person": "people:person",
        "store": "stores:store",
        "simulate": "simulate:simulate",
        "ingest": "ingest:ingest",
        "ls": "datasets:ls",
        "find": "datasets:find",
        "get": "transfer:get",
        "verify": "transfer:verify",
        "replicate": "copies:replicate",
        "archive": "copies:archive",
        "restore": "copies:restore",
        "usage": "usage:usage",
        "run": "compute:run",
        "live": "live:live",
        "runs": "runs:runs",
        "engines": "engines:engines",
        "workflow": "workflows:workflow",
        "serve": "server:serve",
        "worker": "worker:worker",
        "acquire": "acquire:acquire",
        "explain": "policies:explain",
        "policy": "policies:policy",
        "hold": "holds:hold",
        "purge": "purge:purge",
        "notices": "notices:notices",
        "upkeep": "upkeep:upkeep",
        "doctor": "doctor:doctor",
        "drill": "drill:drill",
        "rebuild": "rebuild:rebuild",
        "config": "settings:config",
        "catalog": "settings:catalog",
    }

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names without importing anything."""
        return list(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the module of one command."""
        if cmd_name not in self.places:
            return None
        module, name = self.places[cmd_name].split(":")
        command: click.Command = getattr(import_module(f"lightkeep.cli.{module}"), name)
        return command


@click.group(
    cls=_Root,
    examples=(
        "lightkeep demo                     simulated measurements, processed and shown",
        "lightkeep ingest tooth.h5          keep a measured file",
        "lightkeep run tomography tooth     reconstruct it",
    ),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, "--version", message="lightkeep %(version)s")
@click.option("--config", "config_file", type=click.Path(), help="Use this lightkeep.toml.")
@click.pass_context
def root(ctx: click.Context, config_file: str | None) -> None:
    """Keep what the beamlines measure, and turn it into results while the beam is on."""
    if config_file:
        ctx.obj.config_file = config_file
