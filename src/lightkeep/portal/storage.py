"""The stores: how full each is and will be, what takes the room, and what is on its way back."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Query
from fastapi.responses import Response
from markupsafe import Markup

from lightkeep.catalog.copies import Freshness
from lightkeep.lifecycle.capacity import forecast, scenarios, usage
from lightkeep.lifecycle.health import guards, silence
from lightkeep.lifecycle.replicas import scrub
from lightkeep.model.errors import InvalidInput, StorageError
from lightkeep.model.people import Verb
from lightkeep.model.retention import Notice, Restore, RestoreState
from lightkeep.model.stores import StoreRecord
from lightkeep.policy.forecast import Path
from lightkeep.portal import words
from lightkeep.portal.page import Here, Visit

router = APIRouter()
By = Literal["station", "store", "tier", "experiment", "technique", "kind"]
Years = Annotated[int, Query(ge=1, le=5)]
_AHEAD = 730  # days that the sentence on top looks ahead
_POINTS = 240  # of a curve on a page
_SHOWN = 200  # lines of the usage table
ASSUMED: Mapping[str, str] = {
    "twice": "twice as much data",
    "ten": "ten times as much data",
    "room": "stores twice as large",
    "keep": "nothing is ever deleted",
}
"""Scenarios that one press adds."""


@dataclass(frozen=True)
class Line:
    """One store, as far as the reader may know it."""

    record: StoreRecord
    problem: str
    """Why it cannot be reached; empty: it is there."""
    used: int
    """Bytes of what the reader sees, also what waits in a trash."""
    capacity: int = 0
    """Bytes; 0: not known, or not for this reader."""
    full_on: date | None = None
    high_on: date | None = None
    fresh: Freshness | None = None
    trash: tuple[int, int, datetime | None] = (0, 0, None)
    """Objects, bytes, and when the last of them can no longer be taken back."""

    @property
    def fraction(self) -> float:
        """Used over capacity; 0 when that is not known."""
        return self.used / self.capacity if self.capacity else 0.0

    @property
    def free(self) -> int:
        """Bytes left of the capacity."""
        return max(0, self.capacity - self.used)

    @property
    def hue(self) -> str:
        """`good` below the high watermark, `waiting` above it, `bad` when it is full."""
        return "bad" if self.fraction >= 1 else "waiting" if self.fraction > self.record.high else "good"


@router.get("/storage")
def storage(here: Here) -> Response:
    """The stores, the room left on them, what may go soon, and what is on its way back."""
    is_whole = bool(here.view.can(Verb.READ))
    lines = _lines(here, is_whole=is_whole)
    rows = usage.table(here.facility, "station", principal=here.principal)
    return here.render(
        "storage.html",
        tab="stores",
        **_head(here, lines, is_whole=is_whole),
        lines=lines,
        is_whole=is_whole,
        rows=[row for row in rows if is_whole or row.experiments],
        by="station",
        soon=_soon(here),
        restores=_restores(here),
    )


@router.get("/storage/usage")
def what_takes_room(here: Here, by: By = "station") -> Response:
    """Who uses how much, how it became so, and against which quota."""
    is_whole = bool(here.view.can(Verb.READ))
    rows = [row for row in usage.table(here.facility, by, principal=here.principal) if is_whole or row.experiments]
    over = "store" if by == "tier" else by
    series = [] if here.principal.is_anonymous else usage.history(here.facility, over, principal=here.principal)
    return here.render(
        "storage.html",
        tab="usage",
        answer=_used(rows, by),
        hue="",
        is_staff=here.view.may_review(),
        may_forecast=is_whole,
        doubts=(),
        by=by,
        over=over,
        rows=rows[:_SHOWN],
        left_out=max(0, len(rows) - _SHOWN),
        total=sum(row.size for row in rows),
        is_whole=is_whole,
        history=_history(series, here.facility.clock.now()),
        quotas=usage.quotas(here.facility, principal=here.principal),
    )


@router.get("/storage/forecast")
def ahead(
    here: Here,
    years: Years = 2,
    assume: Annotated[list[Literal["twice", "ten", "room", "keep"]], Query(max_length=4)] = [],  # noqa: B006
) -> Response:
    """When which store is full: as things are, and side by side with what one assumes otherwise."""
    return _forecast(here, _assumed(here, assume), years=years, assume=assume)


@router.post("/storage/forecast")
def ahead_with(
    here: Here,
    text: Annotated[str, Form(max_length=100_000)] = "",
    years: Annotated[int, Form(ge=1, le=5)] = 2,
) -> Response:
    """The same with scenarios as TOML; changes nothing."""
    here.view.require(Verb.READ)
    try:
        given = scenarios.parse(tomllib.loads(text), here.view.stores())
    except tomllib.TOMLDecodeError as error:
        wrong = InvalidInput(f"the scenarios: {error}", remedy="correct that line; text values need quotes")
        return _forecast(here, [], years=years, text=text, problem=wrong)
    except InvalidInput as error:
        return _forecast(here, [], years=years, text=text, problem=error)
    return _forecast(here, given, years=years, text=text)


# ---- stores


def _lines(here: Visit, *, is_whole: bool) -> list[Line]:
    if here.principal.is_anonymous:
        return []
    used = {row.key: row.size for row in usage.table(here.facility, "store", principal=here.principal)}
    silent = silence.seen(here.facility)
    lines = [Line(record, _problem(here, record, silent), used.get(record.id, 0)) for record in here.view.stores()]
    if not is_whole:
        return lines
    (outlook,) = forecast.outlooks(here.facility, principal=here.principal, days=_AHEAD)
    paths = {path.depot.id: path for path in outlook.paths}
    may_manage = bool(here.view.can(Verb.MANAGE))
    return [_known(here, line, paths[line.record.id], may_manage=may_manage) for line in lines]


def _known(here: Visit, line: Line, path: Path, *, may_manage: bool) -> Line:
    record = line.record
    fresh = None
    if may_manage:
        fresh = here.view.freshness(record.id, before=scrub.due_before(here.facility, record))
    return replace(
        line,
        capacity=path.depot.capacity if record.is_managed else 0,
        full_on=path.full_on,
        high_on=path.high_on,
        fresh=fresh,
        trash=here.view.trash_of(record.id) if may_manage else (0, 0, None),
    )


def _problem(here: Visit, record: StoreRecord, silent: Sequence[str]) -> str:
    if record.id in silent:  # asking it would keep this page
        return f"store {record.id} gives no answer: {record.location} hangs"
    try:
        here.facility.stores[record.id].check_identity()
    except StorageError as error:
        return error.message
    return ""


def _head(here: Visit, lines: Sequence[Line], *, is_whole: bool) -> dict[str, Any]:
    """Return the answer that stands on top, and what the tabs need."""
    status = guards.status(here.facility) if here.view.can(Verb.MANAGE) else None
    answer, hue = _sentence(lines) if is_whole else _mine(here, lines)
    return {
        "answer": answer,
        "hue": hue,
        "is_staff": here.view.may_review(),
        "may_forecast": is_whole,
        "doubts": status.reasons if status else (),
    }


def _sentence(lines: Sequence[Line]) -> tuple[str, str]:
    """Return how it stands with the store that is full first, and a hue."""
    away = [line.record.id for line in lines if line.problem]
    known = [line for line in lines if line.capacity]
    if away:
        return f"{words.listed(away)} cannot be reached now; what lies there cannot be read.", "bad"
    if not known:
        return "How much the stores may hold is not known: set it with `lightkeep store set`.", "waiting"
    first = min(known, key=lambda line: (line.full_on or date.max, -line.fraction))
    where = "above" if first.fraction > first.record.high else "below"
    part, high = f"{100 * first.fraction:.0f} %", f"{100 * first.record.high:.0f} %"
    now = Markup("{} is {} full, {} its watermark of {}").format(first.record.id, part, where, high)
    if where == "above":
        over = first.used - int(first.record.low * first.capacity)
        now += Markup(": {} must go").format(words.size(over))
    if first.full_on is None:
        return now + ". No store will be full within two years as it grows now.", first.hue
    then = Markup("; full on {} as it grows now.").format(words.date(first.full_on))
    return now + then, "bad" if first.hue == "bad" else "waiting"


def _mine(here: Visit, lines: Sequence[Line]) -> tuple[str, str]:
    """Return how much of what one sees lies where."""
    if here.principal.is_anonymous:
        return "What is public takes the room below. Sign in to see the stores.", ""
    full = sorted((line for line in lines if line.used), key=lambda line: -line.used)
    if not full:
        return "Nothing that you may see lies on a store.", ""
    parts = [Markup("{} on {}").format(words.size(line.used), line.record.id) for line in full]
    return Markup("What you may see takes {}.").format(words.listed(parts)), "good"


def _soon(here: Visit) -> list[Notice]:
    """Return what people were told will go, the next first: one line for each experiment and store."""
    first: dict[tuple[str, str], Notice] = {}
    told = here.view.notices(live=True, limit=500).items
    mine = here.view.mine(each.experiment_id for each in told)
    for notice in told:
        if notice.experiment_id not in mine:
            continue
        place = (notice.experiment_id, notice.store_id)
        if place not in first or notice.expires_at < first[place].expires_at:
            first[place] = notice
    return sorted(first.values(), key=lambda notice: (notice.expires_at, notice.experiment_id))[:20]


def _restores(here: Visit) -> list[tuple[Restore, str, int]]:
    """Return restores under way, then the last that ended, each with its dataset's name and its files."""
    busy = here.view.restores(states=[RestoreState.RUNNING, RestoreState.QUEUED], limit=20, newest_first=False)
    ended = here.view.restores(states=[RestoreState.DONE, RestoreState.FAILED], limit=5)
    asked = [(each, here.view.dataset(each.dataset_id)) for each in (*busy, *ended)]
    mine = here.view.mine(dataset.experiment_id for _, dataset in asked)
    return [
        (each, dataset.name, len(each.paths) or dataset.files)
        for each, dataset in asked
        if dataset.experiment_id in mine
    ]


# ---- usage


def _used(rows: Sequence[usage.Row], by: str) -> str:
    if not any(row.size for row in rows):
        return "Nothing that you may see lies on a store."
    total, first = sum(row.size for row in rows), rows[0]
    part, name = f"{100 * first.size / total:.0f} %", first.key or "without a name"
    return Markup("{} on stores; {} {} has {} of it.").format(words.size(total), by, name, part)


def _history(series: Sequence[usage.Series], now: datetime) -> str:
    """Return the largest series up to today as JSON, the others as one; empty when nothing is older than today."""
    if not series or series[0].days[0].date() >= now.date():
        return ""
    largest = sorted(series, key=lambda each: -max(each.sizes, default=0))
    shown, rest = largest[:8], largest[8:]
    if rest:
        sums = tuple(map(sum, zip(*(each.sizes for each in rest), strict=True)))
        shown = [*shown, usage.Series(f"{len(rest)} others", rest[0].days, sums)]
    days = [*(day.date().isoformat() for day in series[0].days), now.date().isoformat()]
    return json.dumps(
        [{"name": each.key or "none", "days": days, "sizes": [*each.sizes, each.sizes[-1]]} for each in shown]
    )


# ---- forecast


def _assumed(here: Visit, names: Iterable[str]) -> list[forecast.Scenario]:
    return [_scenario(here, name) for name in dict.fromkeys(names)]


def _scenario(here: Visit, name: str) -> forecast.Scenario:
    said = ASSUMED[name]
    if name == "keep":
        return forecast.Scenario(said, policies=())
    if name == "room":
        (now,) = forecast.outlooks(here.facility, principal=here.principal, days=1)
        room = {path.depot.id: path.depot.capacity for path in now.paths}
        larger = [replace(each, capacity=2 * room[each.id]) for each in here.view.stores() if room[each.id]]
        return forecast.Scenario(said, stores=tuple(larger))
    return forecast.Scenario(said, factor={"twice": 2.0, "ten": 10.0}[name])


def _forecast(
    here: Visit,
    given: Sequence[forecast.Scenario],
    *,
    years: int,
    assume: Sequence[str] = (),
    text: str = "",
    problem: InvalidInput | None = None,
) -> Response:
    found = forecast.outlooks(here.facility, given, principal=here.principal, days=round(years * 365.25))
    answer, hue = _first_full(found[0], years)
    return here.render(
        "storage.html",
        status=422 if problem else 200,
        tab="forecast",
        answer=answer,
        hue=hue,
        is_staff=here.view.may_review(),
        may_forecast=True,
        doubts=(),
        outlooks=found,
        stores=_curves(found),
        years=years,
        offered=ASSUMED,
        assume=assume,
        text=text,
        home=here.facility.config.ingest.store,
        problem=problem,
    )


def _first_full(outlook: forecast.Outlook, years: int) -> tuple[str, str]:
    full = min((path for path in outlook.paths if path.full_on), key=lambda path: str(path.full_on), default=None)
    rate = words.size(round(outlook.bytes_per_day))
    if full is None or full.full_on is None:
        span = words.plural(years, "year")
        return Markup("No store is full within {} at {} of new data a day.").format(span, rate), "good"
    name, when = full.depot.id, words.date(full.full_on)
    return Markup("{} is full on {} at {} of new data a day.").format(name, when, rate), "waiting"


def _curves(outlooks: Sequence[forecast.Outlook]) -> list[dict[str, Any]]:
    """Return a figure for each store on which anything ever lies: its curves as JSON, one for each scenario."""
    names = dict.fromkeys(path.depot.id for outlook in outlooks for path in outlook.paths)
    found = []
    for name in names:
        paths = [
            (outlook.scenario.name, path)
            for outlook in outlooks
            for path in outlook.paths
            if path.depot.id == name and path.peak
        ]
        if paths:
            found.append({"id": name, "data": json.dumps([_curve(said, path) for said, path in paths])})
    return found


def _curve(said: str, path: Path) -> dict[str, Any]:
    step = max(1, len(path.days) // _POINTS)
    at = [*range(0, len(path.days) - 1, step), len(path.days) - 1]
    return {
        "name": said,
        "days": [path.days[index].isoformat() for index in at],
        "used": [path.used[index] for index in at],
        "capacity": [path.capacity[index] for index in at],
        "high": path.depot.high,
        "low": path.depot.low,
        "full_on": path.full_on.isoformat() if path.full_on else None,
    }
