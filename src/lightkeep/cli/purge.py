"""`purge`: from a full disk to safe space."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import click

from lightkeep.cli.app import Group
from lightkeep.cli.holds import day
from lightkeep.cli.output import count, emit, facts, folded, printable, progress, say, size, state, table
from lightkeep.cli.session import Session, Work
from lightkeep.model.people import Verb
from lightkeep.model.retention import BY_POLICY, ItemState, PlanReason, PurgeItem, PurgePlan
from lightkeep.model.stores import StoreRecord

if TYPE_CHECKING:
    from lightkeep.lifecycle.retention.purge_session import Purged

_EXAMPLES = (
    "lightkeep purge plan central              what has expired",
    "lightkeep purge approve plan_01kb3x5e9q7m2r4t",
    "lightkeep purge run plan_01kb3x5e9q7m2r4t",
)


@click.group(cls=Group, examples=_EXAMPLES)
def purge() -> None:
    """Delete what its policy lets go: plan, approve, run, and undo for two weeks."""


@purge.command("plan", examples=("lightkeep purge plan central", "lightkeep purge plan central --pressure"))
@click.argument("store")
@click.option("--pressure", is_flag=True, help="As much as a store above its high watermark must lose.")
@click.option("--emergency", is_flag=True, help="The same; two people approve, the trash is emptied at once.")
@click.option("-e", "--experiment", "experiments", multiple=True, help="Only data of this experiment; repeatable.")
@click.pass_obj
def plan(session: Session, store: str, pressure: bool, emergency: bool, experiments: tuple[str, ...]) -> None:
    """Freeze a list of what may go from a store. Nothing is deleted."""
    from lightkeep.lifecycle.retention import plan_approval, purge_plan

    reason = PlanReason.EMERGENCY if emergency else PlanReason.PRESSURE if pressure else PlanReason.EXPIRY
    with session.opened() as work:
        made = purge_plan.plan(
            work.facility, store, principal=work.principal, reason=reason, experiments=list(experiments) or None
        )
        lacking = purge_plan.lacking(work.facility, made, made.approvals)
        decision = plan_approval.decide(work.facility, made)

    def human() -> None:
        _describe(made)
        say(f"Next: {lacking}")
        if decision.rule:
            say(f"  or {decision.reason}, unless somebody cancels it")
        say(f"  lightkeep purge show {made.id}\n  lightkeep purge approve {made.id}")

    emit(session, made, human)


@purge.command("list", examples=("lightkeep purge list",))
@click.option("--store", "store_id", default="", help="Only plans for this store.")
@click.option("--limit", default=20, type=click.IntRange(1, 1000), show_default=True, help="At most so many.")
@click.pass_obj
def show_all(session: Session, store_id: str, limit: int) -> None:
    """List the plans, newest first."""
    with session.opened() as work:
        page = work.view.plans(store_id=store_id, limit=limit)

    def human() -> None:
        rows = [
            (e.id, state(e.state), e.store_id, e.reason, e.files, size(e.size), size(e.freed)) for e in page.items
        ]
        table(["plan!", "state", "store", "reason", "files>!", "size>!", "freed>!"], rows)
        if not page.total:
            say("No plan yet: lightkeep purge plan STORE")

    emit(session, page, human)


@purge.command("show", examples=("lightkeep purge show plan_01kb3x5e9q7m2r4t --why",))
@click.argument("plan_id", metavar="PLAN")
@click.option("--why", is_flag=True, help="Also the conditions of each item, as they were decided.")
@click.option(
    "--limit", default=50, type=click.IntRange(1, 10_000), show_default=True, help="At most so many items."
)
@click.pass_obj
def show(session: Session, plan_id: str, why: bool, limit: int) -> None:
    """Show a plan: what is on it, and what became of each item."""
    from lightkeep.lifecycle.retention import plan_approval, purge_plan

    with session.opened() as work:
        made = work.view.plan(plan_id)
        items = work.view.plan_items(plan_id, limit=limit)
        counts = work.view.item_counts(plan_id)
        lacking = purge_plan.lacking(work.facility, made, made.approvals)
        decision = plan_approval.decide(work.facility, made)

    def human() -> None:
        _describe(made)
        if made.state == "frozen":
            say(f"Waiting: {lacking}")
            say(f"  {decision.reason}")
        for name, (files, bytes_) in counts.items():
            say(f"  {state(name)}  {count(files, 'file')}, {size(bytes_)}")
        table(
            ["#>!", "state", "size>!", "file"], [(i.position, state(i.state), size(i.size), i.key) for i in items]
        )
        for item in items if why else ():
            _say_why(item)

    emit(session, {"plan": made, "counts": counts, "items": items, "waiting_for": lacking}, human)


@purge.command("approve", examples=("lightkeep purge approve plan_01kb3x5e9q7m2r4t",))
@click.argument("plan_id", metavar="PLAN")
@click.pass_obj
def approve(session: Session, plan_id: str) -> None:
    """Approve a plan after looking at it. It may run when enough people have."""
    from lightkeep.lifecycle.retention import purge_plan

    with session.opened() as work:
        made = purge_plan.approve(work.facility, plan_id, principal=work.principal)
        lacking = purge_plan.lacking(work.facility, made, made.approvals)
    what = f"{count(made.files, 'file')}, {size(made.size)} on {made.store_id}"
    after = f"Still, {lacking}" if lacking else f"Next: lightkeep purge run {plan_id}"
    emit(session, made, lambda: say(f"Approved {plan_id}: {what}\n{after}"))


@purge.command("cancel", examples=("lightkeep purge cancel plan_01kb3x5e9q7m2r4t",))
@click.argument("plan_id", metavar="PLAN")
@click.pass_obj
def cancel(session: Session, plan_id: str) -> None:
    """Give a plan up before it runs."""
    from lightkeep.lifecycle.retention import purge_plan

    with session.opened() as work:
        made = purge_plan.cancel(work.facility, plan_id, principal=work.principal)
    emit(session, made, lambda: say(f"Cancelled {plan_id}"))


@purge.command("run", examples=("lightkeep purge run plan_01kb3x5e9q7m2r4t",))
@click.argument("plan_id", metavar="PLAN")
@click.pass_obj
def run(session: Session, plan_id: str) -> None:
    """Move what an approved plan names to the trash. Again: go on where it was stopped."""
    from lightkeep.lifecycle.retention import purge as lifecycle

    with session.opened() as work:
        made = work.view.plan(plan_id)
        with progress(session, f"Purging {made.store_id}") as report:
            done = lifecycle.run(work.facility, plan_id, principal=work.principal, report=report)
    undo = "" if made.reason is PlanReason.EMERGENCY else f"\nTo take it back: lightkeep purge undo {plan_id}"
    emit(session, done, lambda: say(f"{_told(done, 'went to the trash')}{undo}"))


@purge.command("undo", examples=("lightkeep purge undo plan_01kb3x5e9q7m2r4t",))
@click.argument("plan_id", metavar="PLAN")
@click.option("--replica", "replicas", multiple=True, help="Only this replica; repeatable.")
@click.pass_obj
def undo(session: Session, plan_id: str, replicas: tuple[str, ...]) -> None:
    """Give what a plan put into the trash its place back."""
    from lightkeep.lifecycle.retention import purge as lifecycle

    with session.opened() as work:
        done = lifecycle.undo(work.facility, plan_id, principal=work.principal, replica_ids=list(replicas) or None)
    emit(session, done, lambda: say(_told(done, "are back")))


@purge.command("destroy", examples=("lightkeep purge destroy", "lightkeep purge destroy plan_01kb3x5e9q7m2r4t"))
@click.argument("plan_id", metavar="[PLAN]", default="")
@click.pass_obj
def destroy(session: Session, plan_id: str) -> None:
    """Empty the trash of what has been there long enough. Every condition is asked once more."""
    from lightkeep.lifecycle.retention.purge_destroy import destroy as lifecycle

    with session.opened() as work:
        done = lifecycle(work.facility, principal=work.principal, plan_id=plan_id)

    def human() -> None:
        for each in done:
            say(f"{each.plan_id}: {_told(each, 'were destroyed')}")
        if not done:
            say("Nothing has been in the trash long enough.")

    emit(session, {"items": done, "total": len(done)}, human)


@purge.command("status", examples=("lightkeep purge status",))
@click.pass_obj
def status(session: Session) -> None:
    """Say whether purges may run, how full the stores are, and what is in the trash."""
    from lightkeep.lifecycle.health import guards

    with session.opened() as work:
        found = guards.status(work.facility)
        may_manage = bool(work.view.can(Verb.MANAGE))
        stores = [_fullness(work, each) for each in work.view.stores() if each.is_managed and may_manage]
        waiting = work.view.plans(limit=5).items

    def human() -> None:
        say("✓ purges may run" if not found.reasons else "▲ purges are suspended")
        for reason in found.reasons:
            folded(f"  {reason}", hanging=4)
        if found.clock_doubt:
            say("  hint: look at the machine's clock, then: lightkeep purge confirm-clock")
        if found.catalog_doubt or found.store_doubt:
            say("  hint: lightkeep doctor --full, then: lightkeep purge confirm-catalog")
        columns = ["store!", "held>!", "of>!", "must lose>!", "trash>!", "until!"]
        rows = [
            (each.store_id, size(each.held), size(each.capacity) if each.capacity else "?", size(each.need),
             size(each.trash), day(each.trash_until, "-"))
            for each in stores
        ]  # fmt: skip
        if rows:
            table(columns, rows)
        for each in waiting:
            if each.state in ("frozen", "approved", "running"):
                folded(f"{state(each.state)}  {each.id}  {count(each.files, 'file')}, {size(each.size)}")

    emit(session, {"suspended": found.reasons, "guards": found, "stores": stores}, human)


@dataclass(frozen=True, slots=True)
class _Fullness:
    """How full a store is."""

    store_id: str
    held: int
    capacity: int
    need: int
    """Bytes that it must lose."""
    trash: int
    trash_until: datetime | None


def _fullness(work: Work, record: StoreRecord) -> _Fullness:
    from lightkeep.lifecycle.retention.purge_plan import need_of

    held = work.view.bytes_held(record.id)
    _, trash, until = work.view.trash_of(record.id)
    return _Fullness(record.id, held, record.capacity, need_of(work.facility, record, held=held), trash, until)


@purge.command("off", examples=('lightkeep purge off --reason "The archive moves"',))
@click.option("--reason", default="", help="Why; `purge status` says it to others.")
@click.pass_obj
def off(session: Session, reason: str) -> None:
    """Switch all deletions off, at once, for everybody."""
    _switch(session, on=False, reason=reason)


@purge.command("on", examples=("lightkeep purge on",))
@click.pass_obj
def on(session: Session) -> None:
    """Allow deletions again."""
    _switch(session, on=True, reason="")


def _switch(session: Session, *, on: bool, reason: str) -> None:
    from lightkeep.lifecycle.health import guards

    with session.opened() as work:
        found = guards.switch(work.facility, on=on, principal=work.principal, why=reason)
    emit(session, found, lambda: say("Purges are on" if found.is_enabled else f"Off: {found.switch}"))


@purge.command("confirm-clock", examples=("lightkeep purge confirm-clock",))
@click.pass_obj
def confirm_clock(session: Session) -> None:
    """Say that this machine's clock is right, after it jumped or nobody had looked at it for long."""
    from lightkeep.lifecycle.health import guards

    with session.opened() as work:
        now = guards.confirm_clock(work.facility, principal=work.principal)
    emit(session, {"now": now}, lambda: say(f"It is {now:%Y-%m-%d %H:%M:%S} UTC"))


@purge.command("confirm-catalog", examples=("lightkeep purge confirm-catalog",))
@click.pass_obj
def confirm_catalog(session: Session) -> None:
    """Say that the catalogue is the newest one; reads every byte of every store first."""
    from lightkeep.lifecycle.health import guards

    with session.opened() as work:
        guards.confirm_catalog(work.facility, principal=work.principal)
    emit(session, {"confirmed": True}, lambda: say("The catalogue and the stores agree; purges may run"))


def _describe(made: PurgePlan) -> None:
    facts(
        {
            "plan": made.id,
            "state": state(made.state),
            "store": made.store_id,
            "reason": made.reason,
            "would go": f"{count(made.files, 'file')}, {size(made.size)}",
            "must go": size(made.need) if made.need else "",
            "freed": size(made.freed) if made.freed else "",
            "approved by": ", ".join(each.replace(BY_POLICY, "policy ") for each in made.approvals),
            "run before": f"{made.expires_at:%Y-%m-%d %H:%M} UTC" if made.state != "done" else "",
            "hash": made.hash[:16],
        }
    )
    if not made.is_whole:
        say("It also names data that you do not see; its figures are left out.")


def _say_why(item: PurgeItem) -> None:
    say(f"\n{item.position}  {printable(item.key)}")
    for name in ("changed", "enough", "verdict"):
        if name in item.evidence:
            say(f"  {item.evidence[name]}")
    for key, (name, met, text, _) in item.evidence.get("conditions", {}).items():
        say(f"  {'✓' if met else '✕'} {key:<4} {name:<10} {text}")
    if item.state is ItemState.TRASHED:
        say(f"  in the trash until {day(item.destroy_after)}")


def _told(done: Purged, verb: str) -> str:
    text = f"{count(done.items, 'file')} ({size(done.size)}) {verb}"
    if done.skipped:
        text += f"; {done.skipped} stay: something changed (lightkeep purge show {done.plan_id} --why)"
    if done.left:
        text += f"; {done.left} wait: {done.why_left}"
    return text
