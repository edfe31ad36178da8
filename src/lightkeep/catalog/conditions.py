"""A query and a predicate as SQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    TextClause,
    and_,
    bindparam,
    false,
    func,
    not_,
    or_,
    select,
    text,
    true,
    type_coerce,
)

from lightkeep.catalog import columns, schema
from lightkeep.catalog.dialect import Dialect
from lightkeep.catalog.query import Interval, Query, Term
from lightkeep.model.datasets import DatasetState
from lightkeep.policy.access import Predicate

_SAME = 1e-6
"""`energy:24.9keV` finds what differs by less than this part: units are converted, and files hold float32."""

_d, _e, _f = schema.dataset.c, schema.experiment.c, schema.dataset_field.c
_TEXT: dict[str, ColumnElement[Any]] = {
    "id": _d.id,
    "experiment": _d.experiment_id,
    "station": _e.station_id,
    "technique": _d.technique,
    "format": _d.format,
    "name": _d.name_folded,
    "kind": _d.kind,
}
_NUMBER: dict[str, ColumnElement[Any]] = {
    "size": _d.size,
    "files": _d.files,
}
_TIME: dict[str, ColumnElement[Any]] = {"created": _d.created_at, "completed": _d.completed_at}


def allowed(predicate: Predicate) -> TextClause:
    """Return the predicate as a condition on the table that it speaks of."""
    parameters = [
        bindparam(name, value, type_=columns.Instant() if isinstance(value, datetime) else columns.Words())
        for name, value in predicate.parameters.items()
    ]
    return text(predicate.sql).bindparams(*parameters)


def matches(query: Query, dialect: Dialect, *, hide_state: bool = False) -> ColumnElement[bool]:
    """Return the condition on dataset (joined with experiment) that every term holds.

    Without a term about the state, complete datasets are meant: what is still coming in is not there yet.

    Parameters
    ----------
    hide_state: keep the database from finding datasets by their state, which nearly all of them share.
    """
    terms = [_term(term, dialect, place) for place, term in enumerate(query.terms)]
    if not query.names_state:
        state = _d.state.concat("") if hide_state else _d.state
        terms.append(state == DatasetState.COMPLETE.value)
    return and_(true(), *terms)


def like(pattern: str) -> str:
    """Return a LIKE pattern of a text where `*` stands for anything; the escape character is `\\`."""
    for character in "\\%_":
        pattern = pattern.replace(character, "\\" + character)
    return pattern.replace("*", "%")


def _term(term: Term, dialect: Dialect, place: int) -> ColumnElement[bool]:
    condition = _condition(term, dialect, place)
    return not_(condition) if term.is_negated else condition


def _condition(term: Term, dialect: Dialect, place: int) -> ColumnElement[bool]:
    if not term.key:
        return _words(term, dialect, place)
    if term.key == "state":
        return true() if term.text == "any" else _d.state == term.text
    if term.key in _TEXT:
        column = _TEXT[term.key]
        return _same_text(column if term.key == "name" else func.lower(column), term.text or "")
    if term.key in _TIME and term.interval is not None:
        return _within(type_coerce(_TIME[term.key], BigInteger), term.interval, is_exact=True)
    if term.key in _NUMBER and term.interval is not None:
        return _within(_NUMBER[term.key], term.interval, is_exact=False)
    return _d.id.in_(select(_f.dataset_id).where(_f.key == term.key, or_(false(), *_field(term))))


def _words(term: Term, dialect: Dialect, place: int) -> ColumnElement[bool]:
    sql, parameter = dialect.match(term.words, is_prefix=term.is_prefix)
    name = f"words_{place}"
    clause = text(sql.replace(":words", f":{name}")).bindparams(bindparam(name, parameter, type_=columns.Words()))
    return _d.number.in_(clause)


def _field(term: Term) -> Iterator[ColumnElement[bool]]:
    if term.text == "*":
        yield true()
    elif term.text is not None:
        yield _same_text(_f.text_value, term.text)
    if term.interval is None:
        return
    if term.interval.unit is None:
        yield _within(_f.value, term.interval, is_exact=False)
    else:
        yield and_(_f.si_unit == term.interval.unit, _within(_f.si_value, term.interval, is_exact=False))


def _same_text(column: ColumnElement[Any], value: str) -> ColumnElement[bool]:
    return column.like(like(value), escape="\\") if "*" in value else column == value


def _within(column: ColumnElement[Any], interval: Interval, *, is_exact: bool) -> ColumnElement[bool]:
    low, high = interval.low, interval.high
    if low is not None and low == high and not is_exact:
        low, high = low - abs(low) * _SAME, low + abs(low) * _SAME
    ends: list[ColumnElement[bool]] = [column.is_not(None)]
    if low is not None:
        ends.append(column >= low if interval.includes_low else column > low)
    if high is not None:
        ends.append(column <= high if interval.includes_high else column < high)
    return and_(*ends)
