"""`notices`: what people were told before anything goes."""

from __future__ import annotations

from typing import BinaryIO

import click

from lightkeep.cli.app import Group
from lightkeep.cli.output import ago, count, emit, say, size, state, table
from lightkeep.cli.session import Session


@click.group(cls=Group, examples=("lightkeep notices list", "lightkeep notices bounced returned.eml"))
def notices() -> None:
    """See what people were told before anything goes, and take in what came back."""


@notices.command("list", examples=("lightkeep notices list --experiment 2026-11-lee-81234",))
@click.option("-e", "--experiment", "experiment_id", default="", help="Only those to this experiment.")
@click.option("--limit", default=50, type=click.IntRange(1, 1000), show_default=True, help="At most so many.")
@click.pass_obj
def show_all(session: Session, experiment_id: str, limit: int) -> None:
    """List the notices to experiments that you may see, newest first."""
    with session.opened() as work:
        page = work.view.notices(experiment_id=experiment_id, limit=limit)

    def human() -> None:
        rows = [
            (e.id, state(e.state), e.experiment_id, e.store_id, f"{e.expires_at:%Y-%m-%d}", size(e.size),
             ago(e.sent_at))
            for e in page.items
        ]  # fmt: skip
        table(["notice!", "state", "experiment", "store", "goes on!", "size>!", "sent"], rows)
        say(count(page.total, "notice") if page.total else "Nobody had to be told anything yet.")

    emit(session, page, human)


@notices.command("acknowledge", examples=("lightkeep notices acknowledge notice_01kb3x5e9q7m2r4t",))
@click.argument("notice_id", metavar="NOTICE")
@click.pass_obj
def acknowledge(session: Session, notice_id: str) -> None:
    """Say that the files of a notice may go."""
    from lightkeep.lifecycle.retention import notices as lifecycle

    with session.opened() as work:
        done = lifecycle.acknowledge(work.facility, notice_id, principal=work.principal)
    emit(session, done, lambda: say(f"{count(done.files, 'file')} of {done.experiment_id} may go"))


@notices.command(
    "bounced", examples=("lightkeep notices bounced returned.eml", "lightkeep notices bounced - < returned.eml")
)
@click.argument("message", type=click.File("rb"))
@click.pass_obj
def bounced(session: Session, message: BinaryIO) -> None:
    """Take in a mail that came back (a delivery status message); `-` reads it from the input.

    A notice that reached nobody does not count: people are told anew, and the days are counted anew.
    """
    from lightkeep.lifecycle import outbox

    content = message.read()
    with session.opened() as work:
        notice_id, failed = outbox.bounced(work.facility, content, principal=work.principal)
        found = work.view.notice(notice_id)
    who = ", ".join(failed) or "nobody for good"
    emit(session, {"notice": found, "failed": failed}, lambda: say(f"{notice_id} is {found.state}: lost {who}"))
