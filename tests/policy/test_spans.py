"""Dates are exact over every day of a Gregorian cycle; the oracle counts days by itself."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightkeep.model.errors import InvalidInput
from lightkeep.policy.spans import LATEST, Span, parse

SPANS = [
    Span(days=1), Span(days=90), Span(days=42), Span(months=1), Span(months=3), Span(months=18),
    Span(years=1), Span(years=4), Span(years=10), Span(years=1, months=1, days=1), Span(months=11, days=31),
]  # fmt: skip


def days_in(year: int, month: int) -> int:
    leap = year % 400 == 0 or (year % 4 == 0 and year % 100 != 0)
    return (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)[month - 1]


@pytest.fixture(scope="module")
def calendar() -> list[tuple[int, int, int]]:
    """Every date from 1999-12-31, in order, for 416 years: counted, not asked of the standard library."""
    dates = [(1999, 12, 31)]
    for year in range(2000, 2416):
        for month in range(1, 13):
            dates += [(year, month, day) for day in range(1, days_in(year, month) + 1)]
    return dates


@pytest.mark.parametrize("span", SPANS, ids=str)
def test_a_span_is_exact_from_every_day_of_400_years(span: Span, calendar: list[tuple[int, int, int]]) -> None:
    place = {date: at for at, date in enumerate(calendar)}
    begin = datetime(1999, 12, 31, 9, 30, tzinfo=UTC)
    one = timedelta(days=1)
    wrong, last = [], begin
    for number, (year, month, day) in enumerate(calendar[: 400 * 365 + 98]):
        total = year * 12 + month - 1 + span.years * 12 + span.months
        moved = (total // 12, total % 12 + 1, day)
        # The newest date that is not after the wished one: what the month has, or its last day.
        at = place[moved] if moved in place else bisect_right(calendar, moved) - 1
        end = span.after(begin + number * one)
        clock = (9, 30) if calendar[at] == moved else (23, 59)
        if (end.year, end.month, end.day) != calendar[at + span.days] or (end.hour, end.minute) != clock:
            wrong.append((year, month, day))
        assert end >= last
        last = end
    assert wrong == []


@given(
    span=st.builds(Span, st.integers(0, 20), st.integers(0, 30), st.integers(0, 800)),
    first=st.datetimes(datetime(1900, 1, 1), datetime(2400, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    later=st.timedeltas(timedelta(0), timedelta(days=70)),
)
def test_a_later_start_never_ends_earlier(span: Span, first: datetime, later: timedelta) -> None:
    assert span.after(first) <= span.after(first + later)
    assert span.after(first) >= first + timedelta(days=span.days)


@given(start=st.datetimes(datetime(1900, 1, 1), datetime(2400, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001
def test_the_empty_span_ends_where_it_begins(start: datetime) -> None:
    assert Span().after(start) == start


def test_leap_days_and_month_ends() -> None:
    leap = datetime(2024, 2, 29, 12, tzinfo=UTC)
    assert Span(years=1).after(leap).isoformat() == "2025-02-28T23:59:59.999999+00:00"
    assert Span(years=4).after(leap) == datetime(2028, 2, 29, 12, tzinfo=UTC)
    assert Span(years=2100 - 2024).after(leap).date().isoformat() == "2100-02-28"
    assert Span(months=1).after(datetime(2026, 1, 31, 0, tzinfo=UTC)).date().isoformat() == "2026-02-28"


def test_a_weekday_is_never_taken_for_a_day_of_the_month() -> None:
    """SciCat dates the three-year embargo of this Sunday 2029-10-31 and of the Saturday after 2029-11-06."""
    assert Span(years=3).after(datetime(2026, 11, 22, tzinfo=UTC)) == datetime(2029, 11, 22, tzinfo=UTC)
    assert Span(years=3).after(datetime(2026, 11, 28, tzinfo=UTC)) == datetime(2029, 11, 28, tzinfo=UTC)


def test_the_calendar_is_that_of_utc() -> None:
    late = datetime(2026, 1, 30, 22, tzinfo=timezone(timedelta(hours=-6)))
    assert Span(months=1).after(late).date().isoformat() == "2026-02-28"
    assert Span(months=1).after(late) == Span(months=1).after(late.astimezone(UTC))
    assert Span(days=1).after(late) == late + timedelta(days=1)
    assert Span(months=1).after(late.replace(day=27)) == datetime(2026, 2, 28, 4, tzinfo=UTC)


def test_a_start_without_a_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        Span(days=1).after(datetime(2026, 1, 1))  # noqa: DTZ001


def test_where_the_calendar_ends_the_span_is_the_latest_moment() -> None:
    assert Span(years=900).after(datetime(9500, 1, 1, tzinfo=UTC)) == LATEST
    assert Span(days=2).after(datetime(9999, 12, 30, 1, tzinfo=UTC)) == LATEST
    assert Span(months=1).after(datetime(9999, 12, 1, tzinfo=UTC)) == LATEST
    assert Span(days=1).after(LATEST) == LATEST


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("3 months", Span(months=3)),
        ("90 d", Span(days=90)),
        ("90d", Span(days=90)),
        ("1 year", Span(years=1)),
        ("18 months", Span(months=18)),
        ("6 weeks", Span(days=42)),
        ("3Y", Span(years=3)),
        (" 1 year, 6 Months ", Span(years=1, months=6)),
        ("0 days", Span()),
    ],
)
def test_spans_are_written_as_people_write_them(text: str, span: Span) -> None:
    assert parse(text) == span
    assert parse(str(span)) == span


@pytest.mark.parametrize(
    "text",
    ["", "3", "months", "3 m", "-3 months", "3.5 months", "3 moons", "3 months ago", "1e3 days", "3 dayss",
     "9999999 days", "2000 years", "three months", "3 months!", "٣ months"],
)  # fmt: skip
def test_anything_else_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidInput) as found:
        parse(text)
    assert text in found.value.message or "years" in found.value.message


def test_a_span_cannot_be_negative() -> None:
    with pytest.raises(InvalidInput, match="negative"):
        Span(days=-1)
