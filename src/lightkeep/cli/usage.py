"""`usage`: who uses how much of which store, over time, and when it will be full."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lightkeep.cli.app import Group
from lightkeep.cli.output import ago, emit, folded, plain, say, size, state, table
from lightkeep.cli.session import Session, Work
from lightkeep.model.errors import InvalidInput
from lightkeep.model.people import Scope
from lightkeep.model.usage import Growth, Quota, Step

if TYPE_CHECKING:
    from lightkeep.lifecycle.capacity.forecast import Outlook
    from lightkeep.lifecycle.capacity.usage import Row, Series
    from lightkeep.policy.forecast import Path as Course

_BY = ("station", "store", "tier", "experiment", "technique", "kind")
_AHEAD = re.compile(r"([0-9]{1,4})\s*(d|w|month|months|y|years?|days?|weeks?)")
_DAYS = {"d": 1, "w": 7, "m": 30.4375, "y": 365.25}
_BARS = "▁▂▃▄▅▆▇█"
_WIDTH = 40


class _Ahead(click.ParamType[int]):
    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the days of a text such as 2y."""
        if isinstance(value, int):
            return value
        found = _AHEAD.fullmatch(value.strip())
        if not found:
            self.fail(f"{value!r} is not a span: write 2y, 18months, 90d", param, ctx)
        return max(1, round(int(found[1]) * _DAYS[found[2][0]]))


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples=(
        "lightkeep usage                       who uses how much",
        "lightkeep usage --by store            or technique, kind, tier",
        "lightkeep usage --forecast 2y         when is which store full?",
    ),
)
@click.option("--by", type=click.Choice(_BY), default="station", show_default=True, help="One line for each.")
@click.option("--station", "station_id", default="", help="Only this station's.")
@click.option("--over-time", is_flag=True, help="How it became so, from the daily samples.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV for a spreadsheet.")
@click.option(
    "--forecast",
    "ahead",
    type=_Ahead(),
    is_flag=False,
    flag_value="2y",
    help="Run the policy so far ahead: 18months, 90d; 2y when no span is given.",
)
@click.option(
    "--scenario", type=click.Path(path_type=Path), help="A TOML file: what to assume otherwise, side by side."
)
@click.pass_context
def usage(
    ctx: click.Context,
    by: str,
    station_id: str,
    over_time: bool,
    as_csv: bool,
    ahead: int | None,
    scenario: Path | None,
) -> None:
    """Show how much lies where, and when it will be too much."""
    if ctx.invoked_subcommand is not None:
        return
    session: Session = ctx.obj
    if scenario and not ahead:
        raise InvalidInput("a scenario is for a forecast", remedy="add --forecast 2y")
    with session.opened() as work:
        if ahead:
            _forecast(session, work, ahead, scenario)
        elif over_time:
            _over_time(session, work, by, station_id, as_csv)
        else:
            _table(session, work, by, station_id, as_csv)


def _table(session: Session, work: Work, by: str, station_id: str, as_csv: bool) -> None:
    from lightkeep.lifecycle.capacity import usage as verbs

    rows = verbs.table(work.facility, by, principal=work.principal, station_id=station_id)
    full = [each for each in verbs.quotas(work.facility, principal=work.principal) if each.is_warning]
    if as_csv:
        cells = [[r.key, r.size, r.copies, r.experiments, r.measured, r.datasets, r.newest_at] for r in rows]
        names = [by, "bytes", "copies", "experiments", "measured_bytes", "datasets", "newest_at"]
        click.echo(verbs.to_csv(names, cells), nl=False)
        return

    def human() -> None:
        _print_rows(by, rows)
        for each in full:
            who = f"; ask {', '.join(each.people)}" if each.people else ""
            amount = f"{size(each.used)} of {size(each.quota.size)} ({each.fraction:.0%})"
            folded(f"{state('warning')}  {each.quota.scope} {each.quota.scope_id} has {amount}{who}")

    total = sum(row.size for row in rows)
    emit(session, {"by": by, "items": rows, "total": total, "warnings": full}, human)


def _print_rows(by: str, rows: Sequence[Row]) -> None:
    if not rows:
        say("Nothing is kept yet: lightkeep ingest FILE")
        return
    if by in ("station", "experiment"):
        columns = [f"{by}!", "on stores>!", "measured>!", "datasets>!", "experiments>!", "newest"]
        table(
            columns,
            [
                (
                    row.key,
                    size(row.size) if row.experiments else "going online",
                    size(row.measured or 0),
                    row.datasets,
                    row.experiments,
                    ago(row.newest_at),
                )
                for row in rows
            ],
        )
    else:
        columns = [f"{by}!", "on stores>!", "copies>!", "experiments>!"]
        table(columns, [(row.key or "(none)", size(row.size), row.copies, row.experiments) for row in rows])
    say(f"{size(sum(row.size for row in rows))} in all")


def _over_time(session: Session, work: Work, by: str, station_id: str, as_csv: bool) -> None:
    from lightkeep.lifecycle.capacity import usage as verbs

    series = verbs.history(work.facility, by, principal=work.principal, station_id=station_id)
    if as_csv:
        days = series[0].days if series else ()
        cells = [[day, *(each.sizes[n] for each in series)] for n, day in enumerate(days)]
        click.echo(verbs.to_csv(["day", *(each.key for each in series)], cells), nl=False)
        return

    def human() -> None:
        if not series:
            say("No sample yet: `lightkeep upkeep` takes one each day")
        for each in series:
            _plot_line(each.key or "(none)", each.sizes, max(each.sizes, default=0), _course_ends(each))

    emit(session, {"by": by, "series": series}, human)


def _course_ends(series: Series) -> str:
    return (
        f"{series.days[0]:%Y-%m-%d} {size(series.sizes[0])} to {series.days[-1]:%Y-%m-%d} {size(series.sizes[-1])}"
    )


def _forecast(session: Session, work: Work, days: int, scenario: Path | None) -> None:
    from lightkeep.lifecycle.capacity import forecast, scenarios

    given = scenarios.read(scenario, work.view.stores()) if scenario else []
    found = forecast.outlooks(work.facility, given, principal=work.principal, days=days)

    def human() -> None:
        for each in found:
            _print_outlook(each)

    emit(session, {"days": days, "scenarios": [_plain_outlook(each) for each in found]}, human)


def _plain_outlook(outlook: Outlook) -> dict[str, Any]:
    stores = [
        {
            "id": each.depot.id,
            "high_on": each.high_on and each.high_on.isoformat(),
            "full_on": each.full_on and each.full_on.isoformat(),
            "peak": each.peak,
            "left": each.left,
            "squeezed": each.squeezed,
            "days": [day.isoformat() for day in each.days],
            "used": each.used,
            "capacity": each.capacity,
            "waiting": each.waiting,
        }
        for each in outlook.paths
    ]
    rate = {"bytes_per_day": outlook.bytes_per_day, "notes": plain(outlook.notes)}
    return {"name": outlook.scenario.name, "stores": stores} | rate


def _print_outlook(outlook: Outlook) -> None:
    say(f"{outlook.scenario.name}: {size(outlook.bytes_per_day)} a day")
    rows = [
        (
            each.depot.id,
            size(each.used[0]),
            size(each.used[-1]),
            size(each.peak),
            size(each.capacity[-1]) if each.capacity[-1] else "?",
            _day(each.high_on),
            _day(each.full_on),
        )
        for each in outlook.paths
    ]
    table(["store!", "now>!", "then>!", "peak>!", "room>!", "high from", "full on"], rows)
    for each in outlook.paths:
        _plot(each)
    for note in outlook.notes:
        say(f"{state('warning')}  {note}")
    say()


def _plot(course: Course) -> None:
    top = max(course.peak, *course.capacity)
    if not top:
        return
    span = f"{course.days[0]:%Y-%m-%d} to {course.days[-1]:%Y-%m-%d}, 0 to {size(top)}"
    _plot_line(course.depot.id, course.used, top, span)


def _plot_line(name: str, values: Sequence[int], top: int, text: str) -> None:
    """Print one line of bars: each the largest value of its part of the time."""
    width = min(_WIDTH, len(values))
    edges = [len(values) * n // width for n in range(width + 1)]
    parts = [max(values[first:last]) for first, last in pairwise(edges)]
    bars = "".join(_BARS[min(7, part * 8 // max(top, 1))] for part in parts)
    say(f"  {name:<16} {bars}")
    say(f"  {'':<16} {text}")


def _day(at: date | None) -> str:
    return at.isoformat() if at else "-"


@usage.group("growth", cls=Group, examples=('lightkeep usage growth set 8-ID-I --per-day "2 TB"',))
def growth() -> None:
    """Say how fast stations will grow, where what was measured is no guide."""


@growth.command(
    "set",
    examples=('lightkeep usage growth set 8-ID-I --per-day "2 TB" --step 2027-06-01 100',),
)
@click.argument("station_id", metavar="STATION")
@click.option("--per-day", required=True, help='Raw data per day of the year: "500 GB".')
@click.option("--per-year", default=1.0, show_default=True, help="Factor by which it grows in a year.")
@click.option(
    "--step",
    "steps",
    multiple=True,
    type=(click.DateTime(["%Y-%m-%d"]), float),
    help="Day and factor of an upgrade.",
)
@click.option("--technique", default="", help="Only data of this technique.")
@click.pass_obj
def set_growth(
    session: Session,
    station_id: str,
    per_day: str,
    per_year: float,
    steps: tuple[tuple[datetime, float], ...],
    technique: str,
) -> None:
    """Set the growth of a station; several --step follow the calendar."""
    from lightkeep.lifecycle.capacity import scenarios
    from lightkeep.lifecycle.capacity import usage as verbs

    upgrades = tuple(Step(day.date(), factor) for day, factor in steps)
    made = Growth(station_id, technique, float(scenarios.size(per_day)), per_year, upgrades)
    with session.opened() as work:
        verbs.set_growth(work.facility, made, principal=work.principal)
    emit(
        session, made, lambda: say(f"{station_id} grows by {size(made.bytes_per_day)} a day, x{per_year:g} a year")
    )


@growth.command("list", examples=("lightkeep usage growth list",))
@click.pass_obj
def list_growth(session: Session) -> None:
    """List the growths that were set."""
    with session.opened() as work:
        found = work.view.growth()
    rows = [
        (g.station_id, g.technique, size(g.bytes_per_day), f"{g.per_year:g}", ", ".join(map(_step, g.steps)))
        for g in found
    ]
    emit(
        session,
        {"items": found, "total": len(found)},
        lambda: table(["station!", "technique", "per day>!", "per year>", "steps"], rows),
    )


def _step(step: Step) -> str:
    return f"x{step.factor:g} on {step.at}"


@growth.command("remove", examples=("lightkeep usage growth remove 8-ID-I",))
@click.argument("station_id", metavar="STATION")
@click.option("--technique", default="", help="The one set for this technique.")
@click.pass_obj
def remove_growth(session: Session, station_id: str, technique: str) -> None:
    """Go back to what was measured."""
    from lightkeep.lifecycle.capacity import usage as verbs

    with session.opened() as work:
        verbs.unset_growth(work.facility, station_id, principal=work.principal, technique=technique)
    emit(session, {"station": station_id}, lambda: say(f"{station_id} grows as measured"))


@usage.group("quota", cls=Group, examples=('lightkeep usage quota set --station 8-ID-I "200 TB"',))
def quota() -> None:
    """Bound what an experiment or a station may take. Nothing is ever deleted for it."""


def _place(experiment_id: str, station_id: str) -> tuple[Scope, str]:
    if bool(experiment_id) == bool(station_id):
        raise InvalidInput("a quota is for one thing", remedy="give either --experiment or --station")
    return (Scope.EXPERIMENT, experiment_id) if experiment_id else (Scope.STATION, station_id)


@quota.command("set", examples=('lightkeep usage quota set --experiment 2026-11-lee-81234 "20 TB" --hard',))
@click.argument("amount", metavar="SIZE")
@click.option("--experiment", "experiment_id", default="", help="For this experiment.")
@click.option("--station", "station_id", default="", help="For this station.")
@click.option(
    "--hard", is_flag=True, help="Ingest refuses what would go beyond; otherwise people are only warned."
)
@click.option("--warn-at", default=0.8, show_default=True, help="Warn from this fraction on.")
@click.pass_obj
def set_quota(
    session: Session, amount: str, experiment_id: str, station_id: str, hard: bool, warn_at: float
) -> None:
    """Set a quota on all copies on managed stores."""
    from lightkeep.lifecycle.capacity import scenarios
    from lightkeep.lifecycle.capacity import usage as verbs

    made = Quota(*_place(experiment_id, station_id), scenarios.size(amount), hard, warn_at)
    with session.opened() as work:
        verbs.set_quota(work.facility, made, principal=work.principal)
    emit(session, made, lambda: say(f"{made.scope} {made.scope_id} may have {size(made.size)}"))


@quota.command("list", examples=("lightkeep usage quota list",))
@click.pass_obj
def list_quotas(session: Session) -> None:
    """List the quotas and how far each is used."""
    from lightkeep.lifecycle.capacity import usage as verbs

    with session.opened() as work:
        found = verbs.quotas(work.facility, principal=work.principal)
    rows = [
        (
            f"{f.quota.scope} {f.quota.scope_id}",
            size(f.used),
            size(f.quota.size),
            f"{f.fraction:.0%}",
            "hard" if f.quota.is_hard else "warns",
            ", ".join(f.people),
        )
        for f in found
    ]
    columns = ["for!", "used>!", "quota>!", "full>!", "kind", "who"]
    emit(session, {"items": found, "total": len(found)}, lambda: table(columns, rows))


@quota.command("remove", examples=("lightkeep usage quota remove --station 8-ID-I",))
@click.option("--experiment", "experiment_id", default="", help="Of this experiment.")
@click.option("--station", "station_id", default="", help="Of this station.")
@click.pass_obj
def remove_quota(session: Session, experiment_id: str, station_id: str) -> None:
    """Take a quota away."""
    from lightkeep.lifecycle.capacity import usage as verbs

    scope, scope_id = _place(experiment_id, station_id)
    with session.opened() as work:
        verbs.unset_quota(work.facility, scope, scope_id, principal=work.principal)
    emit(session, {"scope": scope, "id": scope_id}, lambda: say(f"{scope} {scope_id} has no quota any more"))
