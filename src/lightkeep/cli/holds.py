"""`hold`: keep something from being deleted, and let it go again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from lightkeep.cli.app import Group
from lightkeep.cli.output import count, emit, say, table
from lightkeep.cli.session import Session
from lightkeep.model.errors import InvalidInput
from lightkeep.model.retention import Hold, HoldKind, HoldScope

_SCOPES = click.Choice([each.value for each in HoldScope])
_KINDS = click.Choice([each.value for each in HoldKind])


@click.group(cls=Group, examples=('lightkeep hold add experiment 2026-11-lee-81234 --reason "Paper in review"',))
def hold() -> None:
    """Keep data from being deleted, whatever their policy says."""


def end_of(until: datetime | None, days: int | None) -> datetime | None:
    """Return when a hold ends: at a time, or so many days from now; None: neither was given."""
    if until is not None and days is not None:
        raise InvalidInput("say either until when or for how many days", remedy="leave --until or --days away")
    if days is not None:
        return datetime.now(UTC) + timedelta(days)
    return until.astimezone(UTC) if until else None


def day(at: datetime | None, otherwise: str = "released") -> str:
    """Return a day as people read it in a table."""
    return f"{at:%Y-%m-%d}" if at else otherwise


@hold.command(
    "add",
    examples=(
        'lightkeep hold add experiment 2026-11-lee-81234 --days 90 --reason "Thesis"',
        'lightkeep hold add dataset ds_01kb3x5e9q7m2r4t --kind review --reason "Rings"',
    ),
)
@click.argument("scope", type=_SCOPES)
@click.argument("what", default="", metavar="[ID]")
@click.option("--reason", required=True, help="One sentence: who needs it.")
@click.option("--kind", type=_KINDS, default="user", show_default=True, help="Why it is held.")
@click.option("--until", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]), help="It ends by itself then.")
@click.option("--days", type=click.IntRange(1, 36500), help="It ends by itself after so many days.")
@click.pass_obj
def add(
    session: Session, scope: str, what: str, reason: str, kind: str, until: datetime | None, days: int | None
) -> None:
    """Hold a thing and everything under it. SCOPE says what ID names; the facility needs none.

    Without an end it holds until it is released. What was announced about it is void: before anything of it goes,
    people are told anew.
    """
    from lightkeep.lifecycle.retention import holds

    with session.opened() as work:
        made = holds.add(
            work.facility,
            HoldScope(scope),
            what,
            reason=reason,
            principal=work.principal,
            kind=HoldKind(kind),
            until=end_of(until, days),
        )
    emit(session, made, lambda: say(f"Held {_on(made)} until {day(made.until, 'it is released')} ({made.id})"))


@hold.command("release", examples=("lightkeep hold release hold_01kb3x5e9q7m2r4t",))
@click.argument("hold_id", metavar="HOLD")
@click.option("--reason", default="", help="Why; the audit trail keeps it.")
@click.pass_obj
def release(session: Session, hold_id: str, reason: str) -> None:
    """End a hold now. Nothing goes before people were told anew."""
    from lightkeep.lifecycle.retention import holds

    with session.opened() as work:
        ended = holds.release(work.facility, hold_id, principal=work.principal, reason=reason)
    emit(session, ended, lambda: say(f"Released {ended.id} on {_on(ended)}"))


@hold.command("list", examples=("lightkeep hold list", "lightkeep hold list --all"))
@click.option("--all", "also_ended", is_flag=True, help="Also those that have ended.")
@click.option("--limit", default=50, type=click.IntRange(1, 1000), show_default=True, help="At most so many.")
@click.pass_obj
def show_all(session: Session, also_ended: bool, limit: int) -> None:
    """List the holds that you may see, newest first."""
    with session.opened() as work:
        page = work.view.holds(standing=not also_ended, limit=limit)

    def human() -> None:
        rows = [(e.id, _on(e), e.kind, day(e.until), e.created_by, e.reason) for e in page.items]
        table(["hold!", "on", "kind", "until!", "by", "reason"], rows)
        say(count(page.total, "hold") if page.total else "Nothing is held.")

    emit(session, page, human)


def _on(made: Hold) -> str:
    return f"{made.scope} {made.scope_id}".rstrip()
