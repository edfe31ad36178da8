"""Scenarios for a forecast, from a TOML file or a request::

[[scenario]]
name = "half a year, and a fast link to another site"
policy = "half-a-year.toml"            # beside this file; in place of the adopted policies
factor = 10                            # ten times as much of everything
archive = "nersc"                      # where the copies go
closing_days = 5

[scenario.growth."8-ID*"]
per_day = "2 TB"                       # left out: as measured
per_year = 1.5
steps = [["2027-06-01", 100]]          # a new detector

[[scenario.store]]
id = "nersc"
tier = "remote"
capacity = "50 PB"
durable = true

[[scenario.store]]
id = "central"
upgrades = [["2027-01-01", "3 PB"]]

[[scenario.link]]
from = "central"
to = "nersc"
speed = "10 Gbit/s"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Final

from lightkeep.lifecycle.capacity.forecast import Scenario
from lightkeep.model.errors import InvalidInput, LightkeepError, SourceError
from lightkeep.model.stores import StoreRecord, Tier
from lightkeep.model.usage import Growth, Step
from lightkeep.policy import document
from lightkeep.policy.forecast import Link
from lightkeep.policy.retention import Policy

_MOST: Final = 20
_SIZE: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*(k|M|G|T|P|E)?B")
_SPEED: Final = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*(k|M|G|T|P|E)?(B|bit)/(s|day)")
_PREFIX: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15, "E": 10**18}
_KEYS: Final = ("name", "policy", "policy_text", "factor", "archive", "closing_days", "growth", "store", "link")


def read(path: Path, stores: Sequence[StoreRecord]) -> list[Scenario]:
    """Return the scenarios of a file.

    Raises
    ------
    SourceError: it cannot be read. InvalidInput: it is not as the module's docstring says.
    """
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: {getattr(error, 'strerror', None) or 'not UTF-8 text'}") from error
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"{path}: {error}", remedy="correct that line; text values need quotes") from error
    return parse(parsed, stores, folder=path.parent)


def parse(
    parsed: Mapping[str, Any], stores: Sequence[StoreRecord], *, folder: Path | None = None
) -> list[Scenario]:
    """Return the scenarios of a document.

    Parameters
    ----------
    stores: those that exist; a scenario may change them or add others.
    folder: where policies are read from; None: a scenario brings the text itself, as `policy_text`.
    """
    tables = parsed.get("scenario")
    if set(parsed) != {"scenario"} or not isinstance(tables, list) or not 1 <= len(tables) <= _MOST:
        raise InvalidInput(
            f"scenarios are 1 to {_MOST} tables [[scenario]] and nothing else",
            remedy="docs/how-to/plan-capacity shows one",
        )
    return [_scenario(_table(each, f"scenario {n}"), stores, folder, n) for n, each in enumerate(tables, 1)]


def size(text: object) -> int:
    """Return the bytes of a text such as `1.5 PB`; SI prefixes.

    >>> size("1.5 TB")
    1500000000000
    """
    found = _SIZE.fullmatch(text.strip()) if isinstance(text, str) else None
    if not found:
        raise InvalidInput(f"{text!r} is not a size", remedy='write "500 GB" or "1.5 PB"')
    return round(float(found[1]) * _PREFIX[found[2] or ""])


def speed(text: object) -> int:
    """Return the bytes per day of a text such as `10 Gbit/s`, `200 MB/s` or `2 TB/day`.

    >>> speed("8 Gbit/s")
    86400000000000
    """
    found = _SPEED.fullmatch(text.strip()) if isinstance(text, str) else None
    if not found:
        raise InvalidInput(f"{text!r} is not a speed", remedy='write "10 Gbit/s", "200 MB/s" or "2 TB/day"')
    per_bit = 1 if found[3] == "B" else 8
    per_day = 86_400 if found[4] == "s" else 1
    return round(float(found[1]) * _PREFIX[found[2] or ""] * per_day / per_bit)


def _scenario(
    table: Mapping[str, Any], known: Sequence[StoreRecord], folder: Path | None, number: int
) -> Scenario:
    _only(table, _KEYS, f"scenario {number}")
    name = str(table.get("name") or f"scenario {number}")[:100]
    stores, upgrades = _stores(table.get("store", []), known, name)
    ids = {each.id for each in known} | {each.id for each in stores}
    links = tuple(_links(table.get("link", []), ids, name))
    archive = str(table.get("archive", ""))
    if archive and archive not in ids:
        raise InvalidInput(f"{name}: there is no store {archive}", remedy="add it as [[scenario.store]]")
    growth = {glob: _growth(glob, each, name) for glob, each in _table(table.get("growth", {}), name).items()}
    closing = table.get("closing_days")
    return Scenario(
        name=name,
        policies=_policies(table, folder, name),
        growth=growth,
        factor=_number(table.get("factor", 1), 1e9, f"{name}: factor"),
        stores=stores,
        upgrades=upgrades,
        links=links,
        archive=archive,
        closing_days=None if closing is None else int(_number(closing, 3650, f"{name}: closing_days")),
    )


def _policies(table: Mapping[str, Any], folder: Path | None, name: str) -> tuple[Policy, ...] | None:
    text = table.get("policy_text")
    if file := table.get("policy"):
        if folder is None:
            raise InvalidInput(f"{name}: a request brings the policy's text", remedy="send it as policy_text")
        try:
            text = (folder / str(file)).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(f"{name}: cannot read policy {file}: {error}") from error
    if not text:
        return None
    try:
        return (document.parse(str(text)),)
    except LightkeepError as error:
        raise InvalidInput(f"{name}: {error.message}", remedy=error.remedy) from error


def _growth(glob: str, value: object, name: str) -> Growth:
    table = _table(value, f"{name}: growth of {glob}")
    _only(table, ("per_day", "per_year", "steps"), f"{name}: growth of {glob}")
    steps = tuple(Step(day, _number(each, 1e9, name)) for day, each in _pairs(table.get("steps", []), name))
    per_year = _number(table.get("per_year", 1), 1e6, f"{name}: per_year")
    return Growth(glob, "", size(table["per_day"]) if "per_day" in table else 0.0, per_year, steps)


def _stores(
    value: object, known: Sequence[StoreRecord], name: str
) -> tuple[tuple[StoreRecord, ...], dict[str, tuple[tuple[date, int], ...]]]:
    present = {each.id: each for each in known}
    stores, upgrades = [], {}
    for each in _tables(value, f"{name}: store"):
        _only(each, ("id", "tier", "capacity", "high", "low", "durable", "upgrades"), f"{name}: store")
        store_id = str(each.get("id", ""))
        old = present.get(store_id)
        if not store_id or (old is None and "tier" not in each):
            raise InvalidInput(f"{name}: a new store needs an id and a tier")
        record = old or StoreRecord(store_id, "planned", "", f"planned-{store_id}", failure_domain=store_id)
        if (tier := str(each.get("tier", record.tier))) not in list(Tier):
            raise InvalidInput(f"{name}: {tier} is not a tier", remedy="one of: " + ", ".join(Tier))
        stores.append(
            replace(
                record,
                tier=Tier(tier),
                capacity=size(each["capacity"]) if "capacity" in each else record.capacity,
                high=_number(each.get("high", record.high), 1, f"{name}: high"),
                low=_number(each.get("low", record.low), 1, f"{name}: low"),
                is_durable=bool(each.get("durable", record.is_durable)),
            )
        )
        upgrades[store_id] = tuple((day, size(room)) for day, room in _pairs(each.get("upgrades", []), name))
    return tuple(stores), upgrades


def _links(value: object, ids: set[str], name: str) -> Iterator[Link]:
    for each in _tables(value, f"{name}: link"):
        _only(each, ("from", "to", "speed"), f"{name}: link")
        source, target = str(each.get("from", "")), str(each.get("to", ""))
        for end in (source, target):
            if end not in ids:
                raise InvalidInput(f"{name}: a link names the store {end!r}, which is not there")
        yield Link(source, target, speed(each.get("speed")))


def _pairs(value: object, name: str) -> Iterator[tuple[date, Any]]:
    for each in value if isinstance(value, list) else [value]:
        try:
            day, what = each  # type: ignore[misc]
            yield (day if isinstance(day, date) else date.fromisoformat(day)), what
        except (TypeError, ValueError) as error:
            raise InvalidInput(
                f"{name}: {each!r} is not a day and a value", remedy='["2027-06-01", 10]'
            ) from error


def _number(value: object, most: float, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        raise InvalidInput(f"{what} is a number from 0 to {most:g}, not {value!r}")
    return float(value)


def _tables(value: object, what: str) -> list[Mapping[str, Any]]:
    if not isinstance(value, list) or len(value) > 100:
        raise InvalidInput(f"{what} is a list of tables, e.g. [[scenario.store]]")
    return [_table(each, what) for each in value]


def _table(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise InvalidInput(f"{what} is a table of keys and values")
    return value


def _only(table: Mapping[str, Any], keys: Sequence[str], what: str) -> None:
    for key in table:
        if key not in keys:
            raise InvalidInput(f"{what}: `{key}` is not known", remedy="one of: " + ", ".join(keys))
