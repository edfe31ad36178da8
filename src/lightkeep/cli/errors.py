"""How an error leaves the command line: one line, one hint, one exit code."""

from __future__ import annotations

import json
import os
import sys

from lightkeep.model import errors
from lightkeep.model.errors import LightkeepError

USAGE = 2
INTERRUPTED = 130
PIPE_CLOSED = 141

EXIT_CODES: dict[type[LightkeepError], int] = {
    errors.LightkeepError: 1,
    errors.InvalidInput: 2,
    errors.NotFound: 3,
    errors.Forbidden: 4,
    errors.SignInRequired: 5,
    errors.Conflict: 6,
    errors.BadFile: 7,
    errors.UnsafeFile: 8,
    errors.SourceError: 9,
    errors.StorageError: 10,
    errors.StoreFull: 11,
    errors.StoreUnavailable: 12,
    errors.CatalogUnavailable: 19,
    errors.Corrupt: 13,
    errors.RunFailed: 14,
    errors.RunCancelled: 15,
    errors.ConfigError: 16,
    errors.Archived: 17,
    errors.MailError: 18,
}

_HINTS: dict[type[LightkeepError], str] = {
    errors.LightkeepError: "`lightkeep doctor` looks for what is wrong",
    errors.InvalidInput: "correct the value; the command's --help says what it takes",
    errors.NotFound: "`lightkeep ls`, `lightkeep experiment list` and other lists show what you may see",
    errors.Forbidden: "ask the principal investigator or the station's staff for a grant",
    errors.SignInRequired: "ask an administrator to add you: lightkeep person add USER",
    errors.Conflict: "look at it first: `lightkeep ls`, `lightkeep station list`, `lightkeep experiment list`",
    errors.MailError: "check `[mail]` in lightkeep.toml; the mail stays in the outbox and is tried again",
    errors.Archived: "bring it near first: lightkeep restore DATASET",
    errors.BadFile: "look at the file with the program that wrote it",
    errors.SourceError: "check the path and its permissions; nothing was registered",
    errors.StorageError: "`lightkeep doctor` says what is wrong with the store",
    errors.StoreFull: "free some room on the store, then run the same command again",
    errors.StoreUnavailable: "mount the store, then run the same command again",
    errors.CatalogUnavailable: "start the database that `catalog_url` names, then run the same command again",
    errors.RunFailed: "`lightkeep runs show` has the details, `lightkeep runs retry` starts it again",
    errors.ConfigError: "`lightkeep config show` prints the settings in force",
}


LISTS: dict[str, str] = {
    "dataset": "ls",
    "experiment": "experiment list",
    "hold": "hold list",
    "person": "person list",
    "plan": "purge list",
    "policy": "policy list",
    "run": "runs list",
    "station": "station list",
    "workflow": "workflow list",
}
"""What shows the names of what was not found."""


def exit_code(error: LightkeepError) -> int:
    """Return the exit code of an error: its own class's, or its nearest parent's."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def hint_for(error: LightkeepError) -> str:
    """Return what to do next, for an error that does not say it itself."""
    missing = LISTS.get(error.message.partition(" ")[0])
    if missing and isinstance(error, errors.NotFound):
        return f"`lightkeep {missing}` shows those that you may see"
    return next(_HINTS[kind] for kind in type(error).__mro__ if kind in _HINTS)


def print_error(code: str, message: str, hint: str, *, as_json: bool) -> None:
    """Print an error to the standard error stream: two lines, or one JSON object."""
    message, hint = " ".join(message.split()), " ".join(hint.split())
    if as_json:
        text = json.dumps({"error": {"code": code, "message": message, "hint": hint}})
    elif sys.stderr.isatty() and "NO_COLOR" not in os.environ:
        text = f"\033[1;31merror:\033[0m {message}\n\033[2mhint: {hint}\033[0m"
    else:
        text = f"error: {message}\nhint: {hint}"
    print(text, file=sys.stderr, flush=True)  # noqa: T201
