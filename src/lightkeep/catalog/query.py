"""The search box: text to a query.

    gold wire            both words, anywhere in the dataset's texts
    "gold wire"          the two words in this order
    too*                 a word that begins so
    technique:tomography station:2-BM-A kind:raw name:tooth* sample:"gold wire"
    energy:8..9keV   energy:>10keV   energy:<=8000eV   energy:24.9keV   size:>1GB
    created:2026-11..   created:2026-11-05
    state:receiving      what is still coming in; without it, complete datasets only; `any` for all
    -technique:xpcs      not so

Case does not matter. Any metadata key can be asked for; a number without a unit is compared as it was recorded.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NoReturn

from lightkeep.catalog.text import clean, folded, words
from lightkeep.model.datasets import DatasetKind, DatasetState
from lightkeep.model.errors import InvalidInput
from lightkeep.model.quantity import Quantity, si_factor

TEXT_KEYS = ("id", "experiment", "station", "technique", "format", "name", "kind", "state")
NUMBER_KEYS = ("size", "files")
TIME_KEYS = ("created", "completed")
_CHOICES = {"kind": [k.value for k in DatasetKind], "state": [*(s.value for s in DatasetState), "any"]}
_MOST_TERMS = 50
_LONGEST = 2_000  # characters

_TERM = re.compile(
    r'(?P<minus>-?)(?:(?P<key>[^\s":]+):)?(?P<compare>[<>]=?|)(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^\s"]*))(?=\s|$)'
)
_NUMBER = re.compile(r"(?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+(?![A-Za-z]))?)\s*(?P<unit>\D\S*)?")
_DATE = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d))?)?)?Z?")


@dataclass(frozen=True, slots=True)
class Interval:
    """Numbers or times between two ends; None leaves a side open."""

    low: float | None
    high: float | None
    includes_low: bool = True
    includes_high: bool = True
    unit: str | None = None
    """The SI unit that both ends are in; None: compare with the number as it was recorded."""


@dataclass(frozen=True, slots=True)
class Term:
    """One condition."""

    key: str
    """Empty for full text; otherwise a key of a dataset or of its metadata, in lower case."""
    text: str | None = None
    """The whole value, folded; `*` stands for anything."""
    interval: Interval | None = None
    """Where the value lies: in microseconds since 1970 for a time. With `text`, either may hold."""
    words: tuple[str, ...] = ()
    """Full text: words that follow each other."""
    is_prefix: bool = False
    """Full text: the last word goes on."""
    is_negated: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """What is looked for: every term holds."""

    terms: tuple[Term, ...] = ()
    text: str = ""
    """As it was typed."""

    def __bool__(self) -> bool:
        return bool(self.terms)

    @property
    def names_state(self) -> bool:
        """True when the query itself says which states it wants."""
        return any(term.key == "state" for term in self.terms)


def parse(text: str) -> Query:
    """Return the query of a text.

    Raises
    ------
    InvalidInput: naming the term that cannot be understood, in `data["term"]`.
    """
    text = clean(text).strip()
    if len(text) > _LONGEST:
        raise InvalidInput(f"the search is longer than {_LONGEST} characters", remedy="shorten it", term="")
    terms: list[Term] = []
    at = 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        match = _TERM.match(text, at)
        if match is None or match.end() == at:
            _refuse(text[at:].split()[0], "a quotation mark is missing or stands inside a word")
        terms.extend(_term(match))
        at = match.end()
    if len(terms) > _MOST_TERMS:
        raise InvalidInput(f"the search has more than {_MOST_TERMS} terms", remedy="shorten it", term="")
    return Query(tuple(terms), text)


def _term(match: re.Match[str]) -> list[Term]:
    whole, key, compare = match.group(), folded(match["key"] or ""), match["compare"]
    is_quoted = match["quoted"] is not None
    value = re.sub(r"\\(.)", r"\1", match["quoted"]) if is_quoted else match["plain"]
    is_negated = bool(match["minus"])
    if not key:
        return _full_text(whole, compare + value, is_quoted=is_quoted, is_negated=is_negated)
    if not value:
        _refuse(whole, f"a value is missing after {key}:{compare}", remedy=f"write {key}:* for any value")
    if key in TIME_KEYS:
        return [Term(key, interval=_times(whole, compare, value), is_negated=is_negated)]
    if key in TEXT_KEYS:
        if compare:
            _refuse(whole, f"{key} is a text and cannot be compared with {compare}")
        if key in _CHOICES and folded(value) not in _CHOICES[key]:
            _refuse(whole, f"{key} is one of {', '.join(_CHOICES[key])}")
        return [Term(key, text=folded(value), is_negated=is_negated)]
    interval = None if is_quoted else _numbers(whole, compare, value, is_sure=bool(compare) or key in NUMBER_KEYS)
    is_text = not compare and ".." not in value and key not in NUMBER_KEYS
    text = folded(value) if is_text or interval is None else None
    return [Term(key, text=text, interval=interval, is_negated=is_negated)]


def _full_text(whole: str, value: str, *, is_quoted: bool, is_negated: bool) -> list[Term]:
    found = words(value)
    if not found:
        _refuse(whole, "it holds no letter and no digit")
    is_prefix = value.endswith("*") and not is_quoted
    return [Term("", words=tuple(found), is_prefix=is_prefix, is_negated=is_negated)]


def _numbers(whole: str, compare: str, value: str, *, is_sure: bool) -> Interval | None:
    """Return the interval of numbers, or None when the value is no number and need not be one."""
    if ".." in value and not compare:
        low, high = (_number(whole, part) if part else None for part in value.split("..", 1))
        if low is None and high is None:
            _refuse(whole, "a range needs a number on one side", remedy="write energy:8..9keV")
        if low and high and not low[1]:
            low = (low[0], high[1])  # 8..9keV
        return _between(whole, low, high)
    if not is_sure and not _NUMBER.fullmatch(value):
        return None
    match = _NUMBER.fullmatch(value)
    if match is not None and not is_sure and match["unit"] and si_factor(match["unit"]) is None:
        return None  # sample:3A-17 is a name
    number = _number(whole, value)
    if not compare:
        return _between(whole, number, number)
    below = compare.startswith("<")
    interval = _between(whole, None if below else number, number if below else None)
    is_open = not compare.endswith("=")
    return Interval(interval.low, interval.high, not is_open, not is_open, interval.unit)


def _number(whole: str, value: str) -> tuple[float, str]:
    match = _NUMBER.fullmatch(value)
    if match is None:
        _refuse(whole, f"{value!r} is not a number with a unit", remedy="write energy:>10keV")
    number, unit = float(match["number"]), match["unit"] or ""
    if not math.isfinite(number):
        _refuse(whole, f"{value!r} is too large")
    if si_factor(unit) is None:
        _refuse(whole, f"the unit {unit!r} is not known")
    return number, unit


def _between(whole: str, low: tuple[float, str] | None, high: tuple[float, str] | None) -> Interval:
    ends = [None if end is None else Quantity.of(*end) for end in (low, high)]
    units = {end.unit_si for end in ends if end is not None}
    if len(units) > 1:
        _refuse(whole, f"the two ends have different kinds of unit ({' and '.join(sorted(units))})")
    has_unit = any(end is not None and end[1] for end in (low, high))
    if not has_unit:
        values = [None if end is None else end.value for end in ends]
        return Interval(values[0], values[1])
    values = [None if end is None else end.value_si for end in ends]
    return Interval(values[0], values[1], unit=units.pop())


def _times(whole: str, compare: str, value: str) -> Interval:
    if ".." in value and not compare:
        first, last = value.split("..", 1)
        if not first and not last:
            _refuse(whole, "a range needs a date on one side", remedy="write created:2026-11..")
        low = _span(whole, first)[0] if first else None
        high = _span(whole, last)[1] if last else None
        return Interval(low, high, includes_high=False)
    begin, end = _span(whole, value)
    return {
        "": Interval(begin, end, includes_high=False),
        ">": Interval(end, None),
        ">=": Interval(begin, None),
        "<": Interval(None, begin, includes_high=False),
        "<=": Interval(None, end, includes_high=False),
    }[compare]


def _span(whole: str, value: str) -> tuple[int, int]:
    """Return begin and end, in microseconds since 1970 UTC, of a year, month, day or minute."""
    match = _DATE.fullmatch(value)
    try:
        if match is None:
            raise ValueError("not a date")
        year, month, day, hour, minute = (int(part) if part else None for part in match.groups())
        begin = datetime(year or 0, month or 1, day or 1, hour or 0, minute or 0, tzinfo=UTC)
        if month is None:
            end = begin.replace(year=begin.year + 1)
        elif day is None:
            end = (begin + timedelta(days=31)).replace(day=1)
        else:
            end = begin + (timedelta(days=1) if hour is None else timedelta(minutes=1))
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"search term {whole!r}: {value!r} is not a date", remedy="write created:2026-11-05 (UTC)", term=whole
        ) from error
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    microsecond = timedelta(microseconds=1)
    return (begin - epoch) // microsecond, (end - epoch) // microsecond


def _refuse(whole: str, why: str, *, remedy: str = "") -> NoReturn:
    raise InvalidInput(f"search term {whole!r}: {why}", remedy=remedy, term=whole)
