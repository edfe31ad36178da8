"""Stores whose medium gives no answer, as a mount whose server is down; asked before work that nobody watches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lightkeep.model.errors import LightkeepError, StoreUnavailable
from lightkeep.model.people import SERVICE
from lightkeep.storage.posix import PosixStore

if TYPE_CHECKING:
    from lightkeep.facility import Facility

ANSWER_S: Final = 20.0
"""A folder that says nothing for so long hangs: a tired server of files answers within a few seconds."""
_FACT: Final = "stores.silent"


def silent(facility: Facility) -> list[str]:
    """Ask every store that is a folder; return those that give no answer.

    In this process they raise StoreUnavailable at once until they answer. Other kinds have deadlines of their own.
    """
    found = []
    for store_id in facility.stores:
        try:
            store = facility.stores[store_id]
        except LightkeepError:
            continue  # of a kind that is not installed: said by whoever uses it
        if isinstance(store, PosixStore) and not store.answers(within_s=ANSWER_S):
            found.append(store_id)
    return found


def tick(facility: Facility) -> int:
    """Ask, and write down who is silent, for `seen`. StoreUnavailable names those."""
    found = silent(facility)
    if found != seen(facility):
        with facility.catalog.change(SERVICE) as tx:
            tx.set_fact(_FACT, " ".join(found), verb="store.silent" if found else "store.answered")
    if found:
        raise StoreUnavailable(f"no answer from store {', '.join(found)}: its mount hangs")
    return 0


def seen(facility: Facility) -> list[str]:
    """Return the stores that gave the last upkeep no answer."""
    return (facility.catalog.view(SERVICE).fact(_FACT) or "").split()
