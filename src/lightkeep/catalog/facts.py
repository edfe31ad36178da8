"""What the facility remembers of itself: the clock's high water, the catalogue's epoch, switches.

A fact is a name and a text. Only its own module in `lifecycle` knows what the text means.
"""

from __future__ import annotations

from sqlalchemy import insert, select, update

from lightkeep.catalog import schema
from lightkeep.catalog.transaction import Transaction
from lightkeep.catalog.view_base import ViewBase

_c = schema.fact.c


class FactChanges(Transaction):
    """The part of `Change` about facts."""

    def fact(self, name: str) -> str | None:
        """Return a fact as this transaction sees it, or None."""
        return self._connection.execute(select(_c.value).where(_c.name == name)).scalar()

    def set_fact(self, name: str, value: str, *, verb: str = "") -> None:
        """Remember a text under a name. The same again: nothing.

        Parameters
        ----------
        verb: of the event, e.g. `purge.suspended`; empty: no event, for what only counts on, like a clock.
        """
        before = self.fact(name)
        if before == value:
            return
        now = self._clock.now()
        if before is None:
            self._connection.execute(insert(schema.fact).values(name=name, value=value, changed_at=now))
        else:
            self._connection.execute(
                update(schema.fact).where(_c.name == name).values(value=value, changed_at=now)
            )
        if verb:
            self._record(verb, name, "", {"from": before or "", "to": value})


class FactViews(ViewBase):
    """The part of `View` about facts. They are no secret to the house's own code; faces show what they mean."""

    def fact(self, name: str) -> str | None:
        """Return a fact, or None."""
        with self._read() as connection:
            return connection.execute(select(_c.value).where(_c.name == name)).scalar()
