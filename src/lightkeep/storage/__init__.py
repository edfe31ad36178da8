"""One file per medium that keeps bytes; the Store protocol is in lightkeep.model.stores."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoints, entry_points

from lightkeep.model.errors import ConfigError
from lightkeep.model.stores import Store, StoreRecord


def open_store(record: StoreRecord) -> Store:
    """Return the store of a record; its kind is the name of an entry point in `lightkeep.storage`.

    Nothing is read from the medium yet. Raises ConfigError for a kind that is not installed.
    """
    kinds = _kinds()
    for point in kinds.select(name=record.kind):
        store: Store = point.load()(record)
        return store
    raise ConfigError(
        f"store {record.id} is of kind {record.kind!r}, which is not installed here",
        remedy=f"install what provides it; installed: {', '.join(sorted(kinds.names))}",
    )


@cache
def _kinds() -> EntryPoints:
    """Return the kinds of stores that are installed; looking for them reads what every package says of itself."""
    return entry_points(group="lightkeep.storage")
