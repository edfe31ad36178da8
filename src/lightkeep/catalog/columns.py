"""The kinds of column that are ours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import BigInteger, Dialect, Text, TypeDecorator

from lightkeep.catalog.text import clean

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(at: datetime) -> int:
    """Return microseconds since 1970 UTC of an aware datetime; exact."""
    return (at - _EPOCH) // _MICROSECOND


def from_microseconds(value: int) -> datetime:
    """Return the datetime in UTC; exact inverse of `to_microseconds`."""
    return _EPOCH + timedelta(microseconds=value)


class Words(TypeDecorator[str]):
    """Text that every database can hold, compared byte by byte."""

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> Any:
        """Return text in code point order: PostgreSQL would use the language of the server otherwise."""
        return dialect.type_descriptor(Text(collation="C") if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Clean what goes in, also where it is only compared with."""
        del dialect
        return None if value is None else clean(value)


class Instant(TypeDecorator[datetime]):
    """An aware datetime as microseconds since 1970 UTC: sorts, compares and comes back exactly."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        """Return the integer."""
        del dialect
        return None if value is None else to_microseconds(value)

    def process_result_value(self, value: int | None, dialect: Dialect) -> datetime | None:
        """Return the datetime in UTC."""
        del dialect
        return None if value is None else from_microseconds(value)
