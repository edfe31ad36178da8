"""`experiment`: the unit of access and of policy."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from lightkeep.cli.app import Group
from lightkeep.cli.output import ago, count, emit, facts, say, size, state, table
from lightkeep.cli.session import Session
from lightkeep.model.errors import InvalidInput
from lightkeep.model.experiments import Experiment, ExperimentState
from lightkeep.model.people import Grant, Role, Scope

if TYPE_CHECKING:
    from lightkeep.lifecycle.people.experiments import Closed

_WHEN = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"])
_ROLES = click.Choice([each.value for each in Role if each not in (Role.FACILITY_ADMIN, Role.PUBLIC)])


@click.group(
    cls=Group,
    short_help="Make, open, close, extend, release and share experiments.",
    examples=("lightkeep experiment create 2026-11-lee-81234 --station 2-BM",),
)
def experiment() -> None:
    """Make, show, open, close, extend, release and share experiments."""


@experiment.command(
    "create",
    examples=(
        'lightkeep experiment create 2026-11-lee-81234 --station 2-BM --title "Teeth"',
        "lightkeep experiment create --from proposals.toml --proposal 81234",
    ),
)
@click.argument("experiment_id", metavar="[EXPERIMENT]", default="")
@click.option("--station", "station_id", default="", help="Where it takes place.")
@click.option("--title", default="", help="What the group set out to measure.")
@click.option("--starts", type=_WHEN, help="Beginning of the beam time, local time.")
@click.option("--ends", type=_WHEN, help="End of the beam time, local time.")
@click.option("--planned", is_flag=True, help="Make it planned instead of open.")
@click.option("--from", "place", default="", help="Proposals: a .toml, .json or .csv file, or an address.")
@click.option("--proposal", "number", default="", help="Make it from this proposal, with its people.")
@click.option("--dry-run", is_flag=True, help="With --proposal: only say what would be done.")
@click.pass_obj
def create(
    session: Session,
    experiment_id: str,
    station_id: str,
    title: str,
    starts: datetime | None,
    ends: datetime | None,
    planned: bool,
    place: str,
    number: str,
    dry_run: bool,
) -> None:
    """Make an experiment: year-month, principal investigator and proposal number make a good name."""
    if place or number:
        if experiment_id or title or starts or ends or planned:
            raise InvalidInput(
                "a proposal brings its own name, title and dates",
                remedy="leave those out, and name it: --from proposals.toml --proposal 81234",
            )
        if not number:
            raise InvalidInput(
                f"which proposal of {place} shall become an experiment?",
                remedy="add --proposal NUMBER; `lightkeep experiment sync --from` takes all of them",
            )
        _synchronise(session, place, number=number, station_id=station_id, dry_run=dry_run)
        return
    if not (experiment_id and station_id):
        raise InvalidInput(
            "an experiment needs a name and a station",
            remedy="lightkeep experiment create 2026-11-lee-81234 --station 2-BM",
        )
    made = Experiment(
        experiment_id,
        station_id,
        title,
        ExperimentState.PLANNED if planned else ExperimentState.OPEN,
        starts.astimezone() if starts else None,
        ends.astimezone() if ends else None,
    )
    from lightkeep.lifecycle.people import experiments

    with session.opened() as work:
        experiments.create(work.facility, made, principal=work.principal)
    emit(session, made, lambda: say(f"Made experiment {made.id} ({made.state}). Next: lightkeep ingest FILE"))


@experiment.command(
    "sync",
    examples=(
        "lightkeep experiment sync 2026-11-lee-81234 --dry-run",
        "lightkeep experiment sync --from proposals.json",
    ),
)
@click.argument("experiment_id", metavar="[EXPERIMENT]", default="")
@click.option("--from", "place", default="", help="A file or an address; else the setting proposals.source.")
@click.option("--proposal", "number", default="", help="Only this proposal.")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.pass_obj
def sync(session: Session, experiment_id: str, place: str, number: str, dry_run: bool) -> None:
    """Bring experiments and people up to date with their proposals.

    Only roles that came from a proposal are ever taken away again.
    """
    _synchronise(session, place, number=number, experiment_id=experiment_id, dry_run=dry_run)


def _synchronise(session: Session, place: str, **given: Any) -> None:
    from lightkeep.lifecycle.people import proposals

    with session.opened() as work:
        done = proposals.from_source(work.facility, principal=work.principal, place=place, **given)

    def human() -> None:
        for each in done:
            if not each.steps:
                say(f"{each.experiment_id} is up to date")
            for step in each.steps:
                say(("" if each.is_done else "would ") + step.text)

    items = [
        {
            "experiment": each.experiment_id,
            "done": each.is_done,
            "steps": [{"act": step.act, "subject": step.subject, "text": step.text} for step in each.steps],
        }
        for each in done
    ]
    emit(session, {"items": items, "total": len(items)}, human)


@experiment.command("list", examples=("lightkeep experiment list --station 2-BM",))
@click.option("--station", "station_id", default="", help="Only those of this station.")
@click.option("--text", default="", help="Only those whose name or title holds these words.")
@click.option("--limit", default=50, type=click.IntRange(1, 1000), show_default=True, help="At most so many.")
@click.pass_obj
def show_all(session: Session, station_id: str, text: str, limit: int) -> None:
    """List the experiments that you may see."""
    with session.opened() as work:
        page = work.view.experiments(station_id=station_id, text=text, limit=limit)

    def human() -> None:
        columns = ["experiment!", "state", "station", "title", "datasets>!", "size>!"]
        table(
            columns, [(e.id, state(e.state), e.station_id, e.title, e.datasets, size(e.size)) for e in page.items]
        )
        if page.total > len(page.items):
            say(f"{len(page.items)} of {page.total}; --limit shows more")
        if not page.total:
            say("No experiment yet: lightkeep experiment create 2026-11-lee-81234 --station 2-BM")

    emit(session, page, human)


@experiment.command("show", examples=("lightkeep experiment show 2026-11-lee-81234",))
@click.argument("experiment_id", metavar="EXPERIMENT")
@click.pass_obj
def show(session: Session, experiment_id: str) -> None:
    """Show one experiment and who may do what in it."""
    with session.opened() as work:
        found = work.view.experiment(experiment_id)
        grants = work.view.grants(experiment_id)

    def human() -> None:
        facts(
            {
                "experiment": found.id,
                "state": state(found.state),
                "station": found.station_id,
                "title": found.title,
                "beam time": " to ".join(
                    f"{t.astimezone():%Y-%m-%d %H:%M}" for t in (found.starts_at, found.ends_at) if t
                ),
                "made": ago(found.created_at),
                "datasets": f"{found.datasets} ({count(found.files, 'file')}, {size(found.size)})",
            }
        )
        for each in grants:
            say(f"  {each.person_id}  {each.role}")

    emit(session, {"experiment": found, "grants": grants}, human)


@experiment.command("open", examples=("lightkeep experiment open 2026-11-lee-81234",))
@click.argument("experiment_id", metavar="EXPERIMENT")
@click.pass_obj
def reopen(session: Session, experiment_id: str) -> None:
    """Open an experiment: raw data may be taken in. A closed one again: the clock of its policy stops."""
    from lightkeep.lifecycle.people import experiments

    with session.opened() as work:
        done = experiments.open_(work.facility, experiment_id, principal=work.principal)
    _emit_closed(session, done, f"Opened {experiment_id}")


@experiment.command("close", examples=("lightkeep experiment close 2026-11-lee-81234",))
@click.argument("experiment_id", metavar="EXPERIMENT")
@click.option("--anyway", is_flag=True, help="Also while raw data are still coming in.")
@click.pass_obj
def close(session: Session, experiment_id: str, anyway: bool) -> None:
    """Close an experiment: its raw data are complete and read-only, the clock of its policy starts."""
    from lightkeep.lifecycle.people import experiments

    with session.opened() as work:
        done = experiments.close(work.facility, experiment_id, principal=work.principal, anyway=anyway)
    _emit_closed(session, done, f"Closed {experiment_id}: {count(done.files, 'raw file')} read-only")


def _emit_closed(session: Session, done: Closed, text: str) -> None:
    def human() -> None:
        say(text)
        for why in done.skipped:
            say(f"{state('warning')}  {why}")

    emit(session, {"id": done.experiment.id, "state": done.experiment.state, "skipped": done.skipped}, human)


@experiment.command("extend", examples=("lightkeep experiment extend 2026-11-lee-81234 --days 90 --reason paper",))
@click.argument("experiment_id", metavar="EXPERIMENT")
@click.option("--days", type=click.IntRange(1, 3650), help="Keep everything so many days from now.")
@click.option("--until", type=_WHEN, help="Keep everything until this day, local time.")
@click.option(
    "--reason",
    default="more time was asked for at the command line",
    help="One sentence: why the data are still needed.",
)
@click.pass_obj
def extend(session: Session, experiment_id: str, days: int | None, until: datetime | None, reason: str) -> None:
    """Keep an experiment's data longer than its policy would: nothing of it is deleted until then."""
    from lightkeep.lifecycle.people import experiments

    if (days is None) == (until is None):
        raise InvalidInput("until when?", remedy="give either --days 90 or --until 2027-03-01")
    with session.opened() as work:
        end = until.astimezone() if until else work.facility.clock.now() + timedelta(days=days or 0)
        hold = experiments.extend(work.facility, experiment_id, until=end, reason=reason, principal=work.principal)
    emit(session, hold, lambda: say(f"Kept {experiment_id} until {end.astimezone():%Y-%m-%d %H:%M}"))


@experiment.command(
    "release",
    examples=(
        "lightkeep experiment release 2026-11-lee-81234",
        "lightkeep experiment release 2026-11-lee-81234 --at 2029-11-01",
    ),
)
@click.argument("experiment_id", metavar="EXPERIMENT")
@click.option("--at", type=_WHEN, help="Not before this day (an embargo), local time; now when left out.")
@click.option("--withdraw", is_flag=True, help="Take the release back.")
@click.pass_obj
def release(session: Session, experiment_id: str, at: datetime | None, withdraw: bool) -> None:
    """Make a closed experiment public: everybody may see and read its data, now or from a day on."""
    from lightkeep.lifecycle.people import experiments

    with session.opened() as work:
        if withdraw:
            done = experiments.withdraw_release(work.facility, experiment_id, principal=work.principal)
        else:
            when = at.astimezone() if at else None
            done = experiments.release(work.facility, experiment_id, principal=work.principal, at=when)
    public = (
        f"is public from {done.released_at.astimezone():%Y-%m-%d %H:%M}" if done.released_at else "is not public"
    )
    emit(session, done, lambda: say(f"{experiment_id} {public}"))


@experiment.command("report", examples=("lightkeep experiment report 2026-11-lee-81234",))
@click.argument("experiment_id", metavar="EXPERIMENT")
@click.pass_obj
def report(session: Session, experiment_id: str) -> None:
    """Show an experiment on one page: what it has where, until when and why, who may do what."""
    from lightkeep.lifecycle.retention import retain

    with session.opened() as work:
        found = retain.report(work.facility, experiment_id, principal=work.principal)

    def human() -> None:
        known = found.experiment
        released = f"{known.released_at.astimezone():%Y-%m-%d}" if known.released_at else ""
        facts(
            {
                "experiment": known.id,
                "state": state(known.state),
                "title": known.title,
                "closed": ago(known.closed_at),
                "public from": released,
                "datasets": f"{known.datasets} ({count(known.files, 'file')}, {size(known.size)})",
            }
        )
        columns = ["store!", "kind!", "technique", "files>!", "size>!", "until!"]
        rows = [
            (
                p.store_id,
                p.kind,
                p.technique,
                p.copies,
                size(p.size),
                f"{p.leaves_at:%Y-%m-%d}" if p.leaves_at else "-",
            )
            for p in found.places
        ]
        table(columns, rows)
        for why in dict.fromkeys(place.why for place in found.places):
            say(f"  {why}")
        for each in found.people:
            say(f"  {each.person_id}  {each.role}")

    emit(session, found, human)


@experiment.command("grant", examples=("lightkeep experiment grant 2026-11-lee-81234 maria --role member",))
@click.argument("experiment_id", metavar="EXPERIMENT")
@click.argument("person")
@click.option("--role", type=_ROLES, default="member", show_default=True, help="What the person may do.")
@click.option("--remove", is_flag=True, help="Take the grant back.")
@click.pass_obj
def grant(session: Session, experiment_id: str, person: str, role: str, remove: bool) -> None:
    """Give a person a role in an experiment, or take it back."""
    made = Grant(person, Role(role), Scope.EXPERIMENT, experiment_id)
    from lightkeep.lifecycle.people import set_up

    with session.opened() as work:
        set_up.grant(work.facility, made, principal=work.principal, remove=remove)
    verb = "is no longer" if remove else "is now"
    emit(session, {"grant": made, "removed": remove}, lambda: say(f"{person} {verb} {role} of {experiment_id}"))
