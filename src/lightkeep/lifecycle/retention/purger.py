"""The one purger of a store: a lease in the catalogue, with a fencing token.

Two processes that want to delete from the same store would each be right by itself and wrong together. Whoever has
the token writes it on every change it commits; one that was stopped for longer than its lease finds another token
there when it wakes up, and commits nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from lightkeep.model.errors import Conflict
from lightkeep.model.people import SERVICE, Principal

if TYPE_CHECKING:
    from lightkeep.catalog.changes import Change
    from lightkeep.facility import Facility

LENGTH: Final = timedelta(minutes=15)
"""Longer than one object takes to be moved and its other copies to be read back; renewed by each change."""


@dataclass(frozen=True, slots=True)
class Fence:
    """The right to delete from one store, as long as nobody else has taken it."""

    facility: Facility
    store_id: str
    token: int
    holder: str

    def check(self, tx: Change) -> None:
        """Hold the store for `LENGTH` more. Conflict when another purger has taken it."""
        kept = _kept(tx.fact(_name(self.store_id)))
        if kept is None or kept[0] != self.token:
            raise Conflict(
                f"another purger works on store {self.store_id} now",
                remedy="it goes on with what is left: `lightkeep purge status`",
            )
        self._write(tx, self.facility.clock.now() + LENGTH)

    def _write(self, tx: Change, until: datetime) -> None:
        value = json.dumps({"token": self.token, "holder": self.holder, "until": until.isoformat()})
        tx.set_fact(_name(self.store_id), value)


@contextmanager
def purger(facility: Facility, store_id: str, *, principal: Principal) -> Iterator[Fence]:
    """Take the right to delete from a store for as long as the block runs.

    Raises
    ------
    Conflict: somebody else has it.
    """
    with facility.catalog.change(SERVICE) as tx:
        kept = _kept(tx.fact(_name(store_id)))
        now = facility.clock.now()
        if kept is not None and now < kept[2] <= now + LENGTH:
            raise Conflict(
                f"{kept[1]} purges store {store_id} right now",
                remedy="wait until that is done: `lightkeep purge status`",
            )
        fence = Fence(facility, store_id, (kept[0] if kept else 0) + 1, principal.id)
        fence._write(tx, now + LENGTH)
    try:
        yield fence
    finally:
        with facility.catalog.change(SERVICE) as tx:
            kept = _kept(tx.fact(_name(store_id)))
            if kept is not None and kept[0] == fence.token:
                fence._write(tx, facility.clock.now())


def _name(store_id: str) -> str:
    return f"purger.{store_id}"


def _kept(text: str | None) -> tuple[int, str, datetime] | None:
    if not text:
        return None
    value = json.loads(text)
    return int(value["token"]), str(value["holder"]), datetime.fromisoformat(value["until"])
