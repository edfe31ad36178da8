"""The text of a retention policy: TOML in, `Policy` out, and every mistake named with its place and its remedy.

No default may delete: a tier that a rule does not name, a dataset that no rule matches and a station that no
policy names are kept for ever, and how long something is kept must be written down.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from fnmatch import fnmatchcase
from importlib.resources import files
from typing import Any

from lightkeep.model.datasets import DatasetKind
from lightkeep.model.errors import InvalidInput
from lightkeep.model.retention import PolicyVersion
from lightkeep.model.stores import Tier
from lightkeep.policy import spans
from lightkeep.policy.retention import Approval, Keep, Match, Policy, Rule, Target
from lightkeep.policy.spans import Span

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_SIZE = re.compile(r"(>=|<)\s*([0-9]{1,15}(?:\.[0-9]{1,3})?)\s*(B|kB|MB|GB|TB|PB)")
_BYTES = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15}
_FOR_EVER = ("for ever", "forever")
_TOP = ("id", "description", "stations", "approve", "rule")
_APPROVE = ("after_hours", "up_to", "kind")
_AMOUNT = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,3})?)\s*(B|kB|MB|GB|TB|PB)")
_MATCH = ("station", "technique", "kind", "size")
_KEEP = (
    "keep", "keep_under_pressure", "min_copies", "min_domains", "durable",
    "last_copy", "verified_days", "read_back_days",
)  # fmt: skip
_RULE = ("name", "match", "copies", "notice_days", "undo_days", "final_days", "embargo")
_STARTS = tuple(datetime(2023 + year, month, 31, tzinfo=UTC) for year in range(4) for month in (1, 8, 10, 12))


def default_text() -> str:
    """Return the packaged policy: three months on central storage. It applies only once somebody adopts it."""
    return files("lightkeep.policy").joinpath("default.toml").read_text(encoding="utf-8")


def adopted(version: PolicyVersion) -> Policy:
    """Return the policy of a version in the catalogue."""
    return parse(version.text, version=version.version, author=version.author)


def parse(text: str, *, version: int = 0, author: str = "") -> Policy:
    """Return the policy of a text.

    Raises
    ------
    InvalidInput: the text is no TOML, a key is unknown or missing, or a value cannot be meant so.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidInput(f"the policy is no TOML: {error}", remedy="correct the line that it names") from error
    where = "the policy"
    _known(document, _TOP, where)
    name = _word(document, "id", where)
    where = f"policy {name}"
    tables = document.get("rule", [])
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise InvalidInput(f"{where} has no rule", remedy="add a table [[rule]]")
    rules = tuple(_rule(table, f"{where}, rule {number}") for number, table in enumerate(tables, 1))
    names = [rule.name for rule in rules]
    for rule in rules:
        if names.count(rule.name) > 1:
            raise InvalidInput(f"{where} has two rules named {rule.name}", remedy="give each its own name")
    stations = _texts(document, "stations", where)
    approval = _approval(_table(document, "approve", where), where) if "approve" in document else None
    return Policy(name, version, author, stations, rules, _text(document, "description", where), approval)


def _approval(table: Mapping[str, Any], where: str) -> Approval:
    where = f"{where}, approve"
    _known(table, _APPROVE, where)
    hours = table.get("after_hours")
    if type(hours) is not int or not 0 < hours < 24:
        raise InvalidInput(
            f"{where}: `after_hours` must be 1 to 23", remedy="a plan is good for a day; write after_hours = 12"
        )
    amount = _text(table, "up_to", where)
    found = _AMOUNT.fullmatch(amount)
    if amount and not found:
        raise InvalidInput(f"{where}: {amount!r} is no size", remedy='write up_to = "10 TB"')
    kinds = _kinds(table, where)
    if not found and not kinds:
        raise InvalidInput(
            f"{where} would approve every plan", remedy='say up to how much (up_to = "10 TB"), or of which kind'
        )
    return Approval(hours, round(float(found[1]) * _BYTES[found[2]]) if found else None, kinds)


def _rule(table: Mapping[str, Any], where: str) -> Rule:
    _known(table, (*_RULE, *Tier), where)
    name = _word(table, "name", where)
    where = f"{where} ({name})"
    keep = {tier: _keep(_table(table, tier, where), f"{where}, tier {tier}") for tier in Tier if tier in table}
    if not keep:
        raise InvalidInput(
            f"{where} names no tier, so it keeps everything for ever",
            remedy=f"add a table such as [rule.hot] with `keep`; tiers are {', '.join(Tier)}",
        )
    embargo = _text(table, "embargo", where)
    return Rule(
        name,
        _match(_table(table, "match", where), where),
        keep,
        tuple(_target(target, where) for target in _texts(table, "copies", where)),
        _notice_days(table, where),
        _number(table, "undo_days", 14, where),
        _number(table, "final_days", 90, where),
        _span(embargo, where) if embargo else None,
    )


def _keep(table: Mapping[str, Any], where: str) -> Keep:
    _known(table, _KEEP, where)
    words = _text(table, "keep", where)
    if not words:
        raise InvalidInput(f"{where} does not say how long", remedy='add keep = "3 months", or "for ever"')
    span = None if words in _FOR_EVER else _span(words, where)
    early = _text(table, "keep_under_pressure", where)
    pressure = _span(early, where) if early else None
    if pressure and span and any(pressure.after(start) > span.after(start) for start in _STARTS):
        raise InvalidInput(f"{where}: keep_under_pressure is longer than keep", remedy="make it shorter")
    if pressure and span is None:
        raise InvalidInput(f"{where}: kept for ever, but not under pressure", remedy="say how long in `keep`")
    if table.get("min_copies") == 0:
        raise InvalidInput(
            f"{where}: min_copies = 0 cannot be configured",
            remedy="write min_copies = 1 and last_copy = true: then a last copy goes after people were asked",
        )
    copies = _number(table, "min_copies", 2, where)
    domains = _number(table, "min_domains", copies, where)
    if domains > copies:
        raise InvalidInput(f"{where}: {copies} copies cannot lie in {domains} failure domains")
    return Keep(
        span,
        pressure,
        copies,
        domains,
        _flag(table, "durable", where),
        _number(table, "verified_days", 30, where),
        _number(table, "read_back_days", 1, where),
        _flag(table, "last_copy", where),
    )


def _match(table: Mapping[str, Any], where: str) -> Match:
    where = f"{where}, match"
    _known(table, _MATCH, where)
    kinds = _kinds(table, where)
    bounds: dict[str, int] = {}
    for bound in _texts(table, "size", where):
        found = _SIZE.fullmatch(bound.strip())
        if found is None or found[1] in bounds:
            raise InvalidInput(f"{where}: {bound!r} is no bound of a size", remedy='write ">= 1 TB" or "< 10 GB"')
        bounds[found[1]] = round(float(found[2]) * _BYTES[found[3]])
    at_least, below = bounds.get(">=", 0), bounds.get("<")
    if below is not None and below <= at_least:
        raise InvalidInput(f"{where}: no dataset has such a size", remedy="exchange the two bounds")
    stations, techniques = _texts(table, "station", where), _texts(table, "technique", where)
    return Match(stations, techniques, kinds, at_least, below)


def _kinds(table: Mapping[str, Any], where: str) -> tuple[DatasetKind, ...]:
    kinds = _texts(table, "kind", where)
    for kind in kinds:
        if kind not in tuple(DatasetKind):
            raise InvalidInput(
                f"{where}: {kind!r} is no kind of dataset", remedy=f"one of {', '.join(DatasetKind)}"
            )
    return tuple(DatasetKind(kind) for kind in kinds)


def _target(text: str, where: str) -> Target:
    if text.startswith("store:") and len(text) > len("store:"):
        return Target(store_id=text.removeprefix("store:"))
    if text not in tuple(Tier):
        raise InvalidInput(
            f"{where}: {text!r} is no place for a copy{_meant(text, tuple(Tier))}",
            remedy=f'write a tier ({", ".join(Tier)}) or "store:NAME"',
        )
    return Target(Tier(text))


def _notice_days(table: Mapping[str, Any], where: str) -> tuple[int, ...]:
    days = table.get("notice_days", [30, 7, 1])
    good = isinstance(days, list) and days and all(type(day) is int and 0 < day < 3_660 for day in days)
    if not good or sorted(set(days), reverse=True) != days:
        raise InvalidInput(f"{where}: notice_days must be days before, falling", remedy="e.g. [30, 7, 1]")
    return tuple(days)


# ---- kinds of values


def _known(table: Mapping[str, Any], keys: Collection[str], where: str) -> None:
    for key in table:
        if key not in keys:
            raise InvalidInput(
                f"{where}: `{key}` is not a key{_meant(key, keys)}", remedy=f"keys here: {', '.join(keys)}"
            )


def _meant(word: str, words: Collection[str]) -> str:
    close = get_close_matches(word, words, n=1)
    return f"; did you mean `{close[0]}`?" if close else ""


def _table(table: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise InvalidInput(f"{where}: `{key}` must be a table", remedy=f"write [rule.{key}]")
    return value


def _text(table: Mapping[str, Any], key: str, where: str) -> str:
    value = table.get(key, "")
    if not isinstance(value, str) or (key in table and not value.strip()):
        raise InvalidInput(f"{where}: `{key}` must be a text", remedy="write it in quotes")
    return value.strip()


def _word(table: Mapping[str, Any], key: str, where: str) -> str:
    word = _text(table, key, where)
    if not _NAME.fullmatch(word):
        raise InvalidInput(
            f"{where}: `{key}` {'is ' + repr(word) if word else 'is missing'}",
            remedy=f'write {key} = "a-name": lower case letters, digits, dot, dash',
        )
    return word


def _texts(table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    """Return a list of texts; one text alone is a list of one. An empty list is refused: it would match all."""
    value = table.get(key)
    if value is None:
        return ()
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not listed or not all(isinstance(t, str) and t.strip() for t in listed):
        raise InvalidInput(f"{where}: `{key}` must be a list of texts", remedy="leave it out to mean all")
    return tuple(text.strip() for text in listed)


def _number(table: Mapping[str, Any], key: str, default: int, where: str) -> int:
    value = table.get(key, default)
    if type(value) is not int or not 0 < value < 100_000:
        raise InvalidInput(f"{where}: `{key}` must be a whole number of 1 or more", remedy=f"e.g. {default}")
    return value


def _flag(table: Mapping[str, Any], key: str, where: str) -> bool:
    value = table.get(key, False)
    if type(value) is not bool:
        raise InvalidInput(f"{where}: `{key}` must be true or false")
    return value


def _span(text: str, where: str) -> Span:
    try:
        span = spans.parse(text)
    except InvalidInput as error:
        raise InvalidInput(f"{where}: {error.message}", remedy=error.remedy) from error
    if not span:
        raise InvalidInput(f"{where}: {text!r} is no time at all", remedy="write at least 1 day")
    return span


# ---- what is allowed, but perhaps not meant


def check(policy: Policy) -> tuple[str, ...]:
    """Return what somebody should look at before a policy is adopted, one sentence each."""
    return tuple(_findings(policy))


def _findings(policy: Policy) -> Iterator[str]:
    if policy.approval:
        yield f"it approves plans by itself, {policy.approval.after_hours} h after they were made"
    if not policy.stations:
        yield "no station follows it: only experiments that name it do"
    for number, rule in enumerate(policy.rules):
        before = policy.rules[:number]
        cover = next((each for each in before if _covers(each.match, rule.match)), None)
        if cover is not None:
            yield f"rule {rule.name} is never reached: rule {cover.name} before it matches everything it does"
            continue
        for each in before:
            if _overlap(each.match, rule.match) and not _covers(rule.match, each.match):
                yield f"rules {each.name} and {rule.name} overlap: where both match, {each.name} decides"
        for tier, keep in rule.keep.items():
            if keep.last_copy:
                yield f"rule {rule.name} lets a last copy go from {tier} stores, after people were asked"
            elif keep.span and not rule.copies:
                copies = "another copy" if keep.min_copies == 1 else f"{keep.min_copies} other copies"
                yield f"rule {rule.name} frees {tier} stores only where {copies} exist, but asks for none"


def _covers(first: Match, second: Match) -> bool:
    """Return whether all that the second matches, the first does too; False where that is not certain."""
    return (
        _includes(first.stations, second.stations, globs=True)
        and _includes(first.techniques, second.techniques)
        and _includes(first.kinds, second.kinds)
        and first.at_least <= second.at_least
        and (first.below is None or (second.below is not None and second.below <= first.below))
    )


def _includes(first: tuple[str, ...], second: tuple[str, ...], *, globs: bool = False) -> bool:
    if not first or not second:
        return not first or (globs and "*" in first)
    return all(any(_within(each, wide) if globs else each == wide for wide in first) for each in second)


def _within(glob: str, wide: str) -> bool:
    """Return whether a glob matches only what the wide one does. `*` swallows any pattern, `?` and `[` do not."""
    return glob == wide or (not set("?[") & set(wide) and fnmatchcase(glob, wide))


def _overlap(first: Match, second: Match) -> bool:
    lowest = max(first.at_least, second.at_least)
    highest = [bound for bound in (first.below, second.below) if bound is not None]
    return (
        _meet(first.stations, second.stations, globs=True)
        and _meet(first.techniques, second.techniques)
        and _meet(first.kinds, second.kinds)
        and lowest < min(highest, default=lowest + 1)
    )


def _meet(first: tuple[str, ...], second: tuple[str, ...], *, globs: bool = False) -> bool:
    if not first or not second:
        return True
    if globs:
        return any(fnmatchcase(a, b) or fnmatchcase(b, a) for a in first for b in second)
    return bool(set(first) & set(second))
