"""Where work runs. Built-ins and plugins are found by the entry point group `lightkeep.engines`."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import Any, cast

from lightkeep.model.engines import Engine
from lightkeep.model.errors import ConfigError


def names() -> list[str]:
    """Return the names of the engines installed here, sorted; none is imported for it."""
    return sorted(entry_points(group="lightkeep.engines").names)


def get(name: str, **options: Any) -> Engine:
    """Return a new engine.

    Parameters
    ----------
    name: an entry point of the group `lightkeep.engines`.
    options: what that engine's constructor takes, e.g. `workers=4`.

    Raises
    ------
    ConfigError: no engine of that name is installed here.
    """
    found = entry_points(group="lightkeep.engines", name=name)
    if not found:
        raise ConfigError(f"there is no engine {name!r}", remedy=f"choose one of {', '.join(names())}")
    return cast("Engine", next(iter(found)).load()(**options))
