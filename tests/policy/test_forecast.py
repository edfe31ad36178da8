"""The forecast against what can be computed by hand."""

from __future__ import annotations

import math
import time
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightkeep.model.errors import InvalidInput
from lightkeep.model.usage import Growth, Step
from lightkeep.policy.forecast import (
    Depot,
    Link,
    Lot,
    Path,
    Situation,
    Stay,
    Stream,
    first_day_after,
    run,
    total,
)
from lightkeep.policy.spans import Span

BEGIN = date(2026, 11, 22)
TB = 10**12


def one(situation: Situation, days: int, store: str = "central") -> Path:
    return next(path for path in run(situation, days=days) if path.depot.id == store)


def steady(keep: Span | None, rate: float = TB, **growth: object) -> Situation:
    stream = Stream(Growth("8-ID", "", rate, **growth), Stay("central", keep))  # type: ignore[arg-type]
    return Situation(BEGIN, (Depot("central"),), streams=(stream,))


@settings(max_examples=40, deadline=None)
@given(rate=st.integers(0, 10**18), keep=st.integers(1, 200), days=st.integers(1, 300))
def test_constant_growth_and_a_fixed_span_end_on_a_plateau_of_growth_times_span(
    rate: int, keep: int, days: int
) -> None:
    used = one(steady(Span(days=keep), rate), days).used
    assert used == tuple(rate * min(day, keep) for day in range(1, days + 1))


@settings(max_examples=40, deadline=None)
@given(rate=st.floats(1, 1e15), per_year=st.floats(0.5, 1000), keep=st.integers(1, 100))
def test_exponential_growth_is_the_difference_of_two_integrals(rate: float, per_year: float, keep: int) -> None:
    if per_year == 1:
        return
    growth = Growth("8-ID", "", rate, per_year)
    used = one(steady(Span(days=keep), rate, per_year=per_year), 150).used
    for day in (1, keep, 150):
        whole = total(growth, day, begin=BEGIN) - total(growth, max(0, day - keep), begin=BEGIN)
        assert used[day - 1] == whole
    slope = math.log(per_year) / 365.25
    assert total(growth, 150, begin=BEGIN) == pytest.approx(
        rate * math.expm1(slope * 150) / slope, rel=1e-12, abs=2
    )


def test_growth_by_a_factor_per_year_gives_that_factor_after_a_year() -> None:
    growth = Growth("8-ID", "", TB, 10.0)
    first = total(growth, 1, begin=BEGIN)
    after = total(growth, 3654, begin=BEGIN) - total(
        growth, 3653, begin=BEGIN
    )  # ten years: 10 orders of magnitude
    assert after / first == pytest.approx(10 ** (3653 / 365.25), rel=1e-9)


def test_a_step_multiplies_from_its_day_on() -> None:
    steps = (Step(BEGIN + timedelta(days=10), 100.0), Step(BEGIN + timedelta(days=20), 0.5))
    used = one(steady(None, 7, steps=steps), 30).used
    assert used[9] == 70
    assert used[19] == 70 + 7000
    assert used[29] == 70 + 7000 + 3500


def test_a_step_before_the_beginning_counts_from_the_beginning() -> None:
    assert total(Growth("A", "", 5.0, steps=(Step(date(2020, 1, 1), 3.0),)), 4, begin=BEGIN) == 60


def test_months_follow_the_calendar() -> None:
    used = one(steady(Span(months=3), 1), 400).used
    for index in (100, 200, 300, 399):
        day = BEGIN + timedelta(days=index)
        lies = 0
        for age in range(index + 1):
            end = Span(months=3).after(datetime.combine(day - timedelta(days=age), datetime.min.time(), UTC))
            lies += end > datetime.combine(day, datetime.min.time(), UTC)
        assert used[index] == lies


def test_the_clock_starts_when_the_experiment_is_closed() -> None:
    stream = Stream(Growth("8-ID", "", TB), Stay("central", Span(days=90)), closing_days=14)
    assert one(Situation(BEGIN, (Depot("central"),), streams=(stream,)), 300).used[-1] == 104 * TB


def test_what_lies_there_leaves_on_its_day_and_what_has_none_stays() -> None:
    lots = (Lot("central", 5, BEGIN + timedelta(days=2)), Lot("central", 7), Lot("central", 1, BEGIN))
    used = one(Situation(BEGIN, (Depot("central"),), lots), 4).used
    assert used == (12, 12, 7, 7)


def test_full_and_high_are_the_first_days_above_the_lines() -> None:
    situation = Situation(BEGIN, (Depot("central", 100 * TB, 0.9, 0.8),), streams=steady(None).streams)
    path = one(situation, 200)
    assert path.high_on == BEGIN + timedelta(days=90)  # the 91st terabyte
    assert path.full_on == BEGIN + timedelta(days=100)
    assert one(steady(None), 200).full_on is None


def test_more_room_moves_the_day() -> None:
    depot = Depot("central", 100 * TB, upgrades=((BEGIN + timedelta(days=50), 150 * TB),))
    assert one(Situation(BEGIN, (depot,), streams=steady(None).streams), 200).full_on == BEGIN + timedelta(150)


def test_pressure_takes_what_leaves_first_and_stops_at_the_low_watermark() -> None:
    lots = (
        Lot("central", 40, BEGIN + timedelta(days=50), BEGIN),
        Lot("central", 30, BEGIN + timedelta(days=60), BEGIN),
        Lot("central", 25, BEGIN + timedelta(days=70), BEGIN + timedelta(days=5)),
    )
    path = one(Situation(BEGIN, (Depot("central", 100, 0.9, 0.5),), lots), 2)
    assert path.used == (50, 50)
    assert path.squeezed == 45
    calm = one(Situation(BEGIN, (Depot("central", 100, 0.96, 0.5),), lots), 2)
    assert calm.squeezed == 0


def archived(link: Link | None, days: int, capacity: int = 0) -> tuple[Path, Path]:
    stream = Stream(
        Growth("8-ID", "", TB), Stay("central", Span(days=30), needs_copy=True), Stay("tape", Span(years=10))
    )
    depots = (Depot("central", capacity), Depot("tape"))
    central, tape = run(Situation(BEGIN, depots, (), (stream,), (link,) if link else ()), days=days)
    return central, tape


def test_with_a_fast_link_the_archive_has_it_on_the_same_day() -> None:
    central, tape = archived(None, 100)
    assert central.used[-1] == 30 * TB
    assert tape.used[-1] == 100 * TB
    assert set(central.waiting) == {0}


def test_a_link_that_is_too_slow_fills_the_near_store_with_what_may_not_leave() -> None:
    central, tape = archived(Link("central", "tape", TB // 2), 200)
    assert tape.used == tuple(TB // 2 * day for day in range(1, 201))
    assert central.waiting == tuple(TB // 2 * day for day in range(1, 201))
    for index in range(60, 200):  # everything that was not copied, and what was but is younger than 30 days
        measured, copied = (index + 1) * TB, (index + 1) * TB // 2
        old = (index + 1 - 30) * TB
        assert central.used[index] == measured - min(copied, old)


def test_a_faster_link_moves_the_day_on_which_the_store_is_full() -> None:
    slow, _ = archived(Link("central", "tape", TB // 2), 300, capacity=60 * TB)
    fast, _ = archived(Link("central", "tape", 2 * TB), 300, capacity=60 * TB)
    assert slow.full_on == BEGIN + timedelta(days=120)
    assert fast.full_on is None


@settings(deadline=None)
@given(
    rate=st.integers(1, 50), speed=st.integers(1, 60), keep=st.integers(1, 20), early=st.integers(0, 10),
    room=st.integers(50, 2000),
)  # fmt: skip
def test_no_byte_is_lost_or_made(rate: int, speed: int, keep: int, early: int, room: int) -> None:
    stay = Stay("central", Span(days=keep), Span(days=min(early, keep)), needs_copy=True)
    stream = Stream(Growth("A", "", rate), stay, Stay("tape"))
    depots = (Depot("central", room, 0.9, 0.7), Depot("tape"))
    paths = run(Situation(BEGIN, depots, (), (stream,), (Link("central", "tape", speed),)), days=80)
    central, tape = paths
    assert central.used[-1] + central.left == rate * 80
    assert tape.used[-1] + central.waiting[-1] == rate * 80
    assert central.used[-1] >= central.waiting[-1]  # what has no copy never left


def test_a_store_that_nobody_knows_is_refused() -> None:
    with pytest.raises(InvalidInput, match="knows no store tape"):
        run(Situation(BEGIN, (), (Lot("tape", 1),)), days=1)
    with pytest.raises(InvalidInput, match="days ahead"):
        run(Situation(BEGIN, ()), days=0)


def test_a_time_has_passed_on_its_own_day_unless_the_day_is_over() -> None:
    midnight = datetime(2026, 3, 1, tzinfo=UTC)
    assert first_day_after(midnight) == date(2026, 3, 1)
    assert first_day_after(midnight + timedelta(hours=23)) == date(2026, 3, 1)
    assert first_day_after(midnight - timedelta(microseconds=1)) == date(2026, 3, 1)


def test_the_trash_takes_room_for_its_days() -> None:
    stream = Stream(Growth("8-ID", "", TB), Stay("central", Span(days=90), trash_days=14))
    assert one(Situation(BEGIN, (Depot("central"),), streams=(stream,)), 300).used[-1] == 104 * TB


def test_five_years_of_fifteen_stations_take_seconds() -> None:
    streams = steady(Span(months=3)).streams * 30
    begin = time.process_time()
    run(Situation(BEGIN, (Depot("central"),), streams=streams), days=1826)
    assert time.process_time() - begin < 8
