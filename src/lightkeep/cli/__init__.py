"""The command line face: parse, call a verb, print. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import NoReturn

import click

from lightkeep.cli.app import root
from lightkeep.cli.errors import INTERRUPTED, PIPE_CLOSED, USAGE, exit_code, hint_for, print_error
from lightkeep.cli.session import Session
from lightkeep.model.errors import LightkeepError


def main() -> NoReturn:
    """Run the command line with the process's arguments, and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(answer(sys.argv[1:]))


def answer(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors are printed here and nowhere else."""
    as_json = "--json" in takewhile(lambda word: word != "--", arguments)
    try:
        with root.make_context("lightkeep", list(arguments), obj=Session(as_json=as_json)) as context:
            root.invoke(context)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.exceptions.Exit as error:
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        print_error("interrupted", "interrupted", "run the same command again to go on", as_json=as_json)
        return INTERRUPTED
    except click.ClickException as error:
        hint = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "lightkeep"
        print_error("usage", error.format_message(), f"`{hint} --help` shows how", as_json=as_json)
        return USAGE
    except LightkeepError as error:
        print_error(error.code, error.message, error.remedy or hint_for(error), as_json=as_json)
        return exit_code(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return 0
