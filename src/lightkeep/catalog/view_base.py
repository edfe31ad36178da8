"""What every read does underneath: whose eyes, one consistent read, one row, all of them, or a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, RowMapping, Select, func, select

from lightkeep.catalog.conditions import allowed
from lightkeep.catalog.dialect import Dialect
from lightkeep.catalog.page import Page
from lightkeep.model.errors import NotFound
from lightkeep.model.people import Principal, Verb
from lightkeep.policy import access

T = TypeVar("T")
_MOST = 10_000  # rows on one page, whatever is asked for


class ViewBase:
    """One principal's eyes on the catalogue at one time."""

    def __init__(
        self,
        read: Callable[[], AbstractContextManager[Connection]],
        *,
        dialect: Dialect,
        principal: Principal,
        now: datetime,
    ) -> None:
        self._read = read
        self._dialect = dialect
        self._principal = principal
        self._now = now
        self._see = allowed(access.visible(principal, Verb.SEE, now=now))

    def _all(self, statement: Select[Any], make: Callable[[RowMapping], T]) -> list[T]:
        with self._read() as connection:
            return [make(row) for row in connection.execute(statement).mappings()]

    def _one(self, statement: Select[Any], make: Callable[[RowMapping], T], what: str) -> T:
        with self._read() as connection:
            row = connection.execute(statement).mappings().first()
        if row is None:
            raise NotFound(f"{what} does not exist")
        return make(row)

    def _page(
        self, found: Select[Any], order: Sequence[Any], make: Callable[[RowMapping], T], limit: int, offset: int
    ) -> Page[T]:
        with self._read() as connection:
            total = connection.execute(select(func.count()).select_from(found.subquery())).scalar_one()
            page = found.order_by(*order).limit(row_limit(limit)).offset(row_offset(offset))
            return Page([make(row) for row in connection.execute(page).mappings()], total)


def row_limit(limit: int) -> int:
    """Return how many rows a page may have."""
    return max(0, min(int(limit), _MOST))


def row_offset(offset: int) -> int:
    """Return where a page may begin."""
    return max(0, min(int(offset), 2**62))
