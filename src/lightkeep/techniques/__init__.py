"""One file per technique, binding analysis to data. Copy average.py to add one.

Found by the entry points `lightkeep.techniques`, the built-in ones like anybody's; what a module must have is in
`lightkeep.model.techniques`.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib.metadata import entry_points

from lightkeep.model.errors import InvalidInput
from lightkeep.model.techniques import Technique

_GROUP = "lightkeep.techniques"


def names() -> list[str]:
    """Return the names of the techniques, without importing any."""
    return list(_names(tuple(sys.path)))


@cache
def _names(_path: tuple[str, ...]) -> tuple[str, ...]:
    """Return them; looking through every installed package takes 15 ms."""
    return tuple(sorted({each.name for each in entry_points(group=_GROUP)}))


def live_names() -> list[str]:
    """Return the names of those that can follow a measurement: they show something before they are done."""
    return [name for name in names() if hasattr(get(name), "snapshot")]


@cache
def get(name: str) -> Technique:
    """Return a technique's module.

    Raises
    ------
    InvalidInput: there is none of that name.
    """
    for each in entry_points(group=_GROUP, name=name):
        technique: Technique = each.load()
        return technique
    raise InvalidInput(f"no technique {name!r}", remedy=f"choose one of: {', '.join(names())}")
