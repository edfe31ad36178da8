"""Calendar spans: how long something is kept. Dates are UTC and exact; a span never ends early."""

from __future__ import annotations

import re
from calendar import monthrange
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta

from lightkeep.model.errors import InvalidInput

LATEST = datetime.max.replace(tzinfo=UTC)
"""What a span answers that ends after the year 9999."""
_MOST_YEARS = 1000
_PART = re.compile(r"([0-9]{1,6})\s*([a-z]+)")
_UNITS = {
    "d": (0, 0, 1),
    "day": (0, 0, 1),
    "w": (0, 0, 7),
    "week": (0, 0, 7),
    "month": (0, 1, 0),
    "y": (1, 0, 0),
    "year": (1, 0, 0),
}


@dataclass(frozen=True, slots=True)
class Span:
    """Years and months by the calendar, then days of 24 hours."""

    years: int = 0
    months: int = 0
    days: int = 0

    def __post_init__(self) -> None:
        if min(self.years, self.months, self.days) < 0:
            raise InvalidInput("a span cannot be negative")
        if self.years + self.months // 12 + self.days // 365 > _MOST_YEARS:
            raise InvalidInput(f"a span of more than {_MOST_YEARS} years", remedy='write "for ever" instead')

    def after(self, start: datetime) -> datetime:
        """Return the end of the span that begins at `start`, in UTC.

        Years and months are added first. Where the month has no such day, the span ends with the last moment of
        the month's last day: so a later start never ends earlier. Then the days are added. `LATEST` where the
        calendar ends.

        >>> Span(months=3).after(datetime(2026, 11, 30, 8, tzinfo=UTC)).isoformat(timespec="minutes")
        '2027-02-28T23:59+00:00'

        Raises
        ------
        ValueError: `start` carries no time zone.
        """
        if start.tzinfo is None:
            raise ValueError("a span begins at an aware datetime")
        start = start.astimezone(UTC)
        month = start.year * 12 + start.month - 1 + self.years * 12 + self.months
        year, month = month // 12, month % 12 + 1
        if year > LATEST.year:
            return LATEST
        last = monthrange(year, month)[1]
        if start.day > last:
            end = datetime.combine(start.replace(year, month, last), time.max, UTC)
        else:
            end = start.replace(year, month)
        return LATEST if LATEST - end < timedelta(self.days) else end + timedelta(self.days)

    def __str__(self) -> str:
        """Return what `parse` reads, e.g. `1 year 6 months`."""
        parts = ((self.years, "year"), (self.months, "month"), (self.days, "day"))
        return " ".join(f"{n} {unit}{'' if n == 1 else 's'}" for n, unit in parts if n) or "0 days"

    def __bool__(self) -> bool:
        return self != Span()


def parse(text: str) -> Span:
    """Return the span of a text such as `3 months`, `90 d`, `6 weeks` or `1 year 6 months`.

    Raises
    ------
    InvalidInput: it is anything else. `m` is refused: it may mean months or minutes.

    >>> parse("18 months"), parse("6 weeks")
    (Span(years=0, months=18, days=0), Span(years=0, months=0, days=42))
    """
    words = text.strip().lower()
    found = _PART.findall(words)
    units = [_UNITS.get(unit if unit in _UNITS else unit.removesuffix("s")) for _, unit in found]
    if not found or None in units or _PART.sub("", words).strip(" ,"):
        raise InvalidInput(f"{text!r} is not a span of time", remedy='write "3 months", "90 days" or "1 year"')
    years, months, days = (
        sum(int(number) * unit[part] for (number, _), unit in zip(found, units, strict=True) if unit)
        for part in range(3)
    )
    return Span(years, months, days)
