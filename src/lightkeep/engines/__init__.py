"""Where work runs. Built-ins and plugins are found by the entry point group `lightkeep.engines`."""

from __future__ import annotations

import difflib
import inspect
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any, cast, get_type_hints

from lightkeep.model.engines import Engine
from lightkeep.model.errors import ConfigError


def names() -> list[str]:
    """Return the names of the engines installed here, sorted; none is imported for it."""
    return list(_names(tuple(sys.path)))


@cache
def _names(_path: tuple[str, ...]) -> tuple[str, ...]:
    """Return them; looking through every installed package takes 15 ms, and each run that is asked for does it."""
    return tuple(sorted(entry_points(group="lightkeep.engines").names))


def get(name: str, **options: Any) -> Engine:
    """Return a new engine.

    Parameters
    ----------
    name: an entry point of the group `lightkeep.engines`.
    options: what that engine's constructor takes, e.g. `workers=4`.

    Raises
    ------
    ConfigError: no engine of that name is installed here, or it has no such option, or one of another kind.
    """
    engine = _class(name)
    known = options_of(name)
    for key, value in options.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"it has: {', '.join(known) or 'none'}"
            raise ConfigError(f"engine {name}: `{key}` is not an option", remedy=hint)
        if not _fits(value, known[key]):
            raise ConfigError(f"engine {name}: `{key}` cannot be {value!r}", remedy=f"give {_words(known[key])}")
    return cast("Engine", engine(**options))


def options_of(name: str) -> dict[str, Any]:
    """Return option -> type of what an engine's constructor takes."""
    constructor = _class(name).__init__
    if constructor is object.__init__:
        return {}
    kinds = get_type_hints(constructor)
    return {key: kinds.get(key, Any) for key in inspect.signature(constructor).parameters if key != "self"}


_EXTRAS = {"sfapi": "nersc"}
"""Engine -> extra of the package, where the names differ."""


@cache
def _class(name: str) -> Any:
    found = entry_points(group="lightkeep.engines", name=name)
    if not found:
        raise ConfigError(f"there is no engine {name!r}", remedy=f"choose one of {', '.join(names())}")
    try:
        return next(iter(found)).load()
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(name, name)
        raise ConfigError(
            f"engine {name} needs {error.name}", remedy=f"pip install 'lightkeep[{extra}]', or choose another"
        ) from error


_PLAIN = {str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false"}


def _fits(value: Any, kind: Any) -> bool:
    if kind in _PLAIN:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return is_whole or isinstance(value, float) if kind is float else type(value) is kind
    if kind == Sequence[str]:
        return isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    return not isinstance(value, str | int | float | list | dict)  # for Python, not for a file


def _words(kind: Any) -> str:
    return _PLAIN.get(kind, "a list of texts" if kind == Sequence[str] else "another")
