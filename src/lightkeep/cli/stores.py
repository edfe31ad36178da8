"""`store`: where bytes are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from lightkeep.cli.app import Group
from lightkeep.cli.output import emit, folded, plain, say, size, state, table
from lightkeep.cli.session import Session
from lightkeep.model.errors import StorageError
from lightkeep.model.stores import StoreRecord, Tier


@click.group(cls=Group, examples=("lightkeep store add 2-bm-disk /data/2-bm --in-place",))
def store() -> None:
    """Register and show stores."""


@store.command(
    "add",
    examples=(
        "lightkeep store add archive /mnt/archive",
        "lightkeep store add 2-bm-disk /data/2-bm --in-place",
        "lightkeep store add tape /home/beamline/lightkeep --kind hpss",
    ),
)
@click.argument("store_id", metavar="STORE")
@click.argument("folder")
@click.option(
    "--kind",
    type=click.Choice(["posix", "hpss"]),
    default="posix",
    show_default=True,
    help="posix: a folder; hpss: tape.",
)
@click.option("--in-place", is_flag=True, help="A station's own disk: files stay as they are, nothing is written.")
@click.option(
    "--tier",
    type=click.Choice([tier.value for tier in Tier]),
    help="How near it is; hot when left out, tape for hpss.",
)
@click.option("--domain", default="", help="What fails together with it; its filesystem when left out.")
@click.option("--durable", is_flag=True, help="Its medium is kept for years, such as tape.")
@click.option("--capacity", default="", help='What may be used: "1.5 PB"; all of the medium when left out.')
@click.pass_obj
def add(
    session: Session,
    store_id: str,
    folder: str,
    kind: str,
    in_place: bool,
    tier: str | None,
    domain: str,
    durable: bool,
    capacity: str,
) -> None:
    """Register FOLDER as a store: an empty one to copy to, or with --in-place a disk that holds data already.

    With --kind hpss it is a path on the archive, and may end in options: /home/beamline/lightkeep?hsi=/opt/bin/hsi
    """
    from lightkeep.lifecycle.capacity import scenarios
    from lightkeep.lifecycle.people import set_up

    with session.opened() as work:
        record = set_up.add_store(
            work.facility,
            store_id,
            folder if kind == "hpss" else Path(folder),
            principal=work.principal,
            kind=kind,
            is_managed=not in_place,
            tier=Tier(tier) if tier else None,
            failure_domain=domain,
            is_durable=durable,
            capacity=scenarios.size(capacity) if capacity else 0,
        )
        others = set_up.together(work.facility, record, principal=work.principal)
    emit(session, record, lambda: _added(record, others))


def _room(free: int | None) -> str:
    return "not said" if free is None else size(free)


def _added(record: StoreRecord, others: list[str]) -> None:
    folded(f"Added store {record.id} at {record.location}")
    if others:
        folded(
            f"It fails together with {', '.join(others)} (domain {record.failure_domain}): copies on both "
            f"count as one. If that is not so, name another: lightkeep store set {record.id} --domain NAME"
        )


@store.command("set", examples=('lightkeep store set central --capacity "1.5 PB" --high 0.9 --low 0.8',))
@click.argument("store_id", metavar="STORE")
@click.option("--tier", type=click.Choice([tier.value for tier in Tier]), help="How near it is.")
@click.option("--domain", help="What fails together with it, e.g. a building.")
@click.option("--durable/--not-durable", default=None, help="Its medium is kept for years, such as tape.")
@click.option("--capacity", help='What may be used: "1.5 PB"; "0 B" for all of the medium.')
@click.option("--high", type=float, help="Fraction of it above which a purge under pressure begins.")
@click.option("--low", type=float, help="Fraction at which it stops.")
@click.pass_obj
def set_(
    session: Session,
    store_id: str,
    tier: str | None,
    domain: str | None,
    durable: bool | None,
    capacity: str | None,
    high: float | None,
    low: float | None,
) -> None:
    """Change what is said of a store; what is left out stays."""
    from lightkeep.lifecycle.capacity import scenarios
    from lightkeep.lifecycle.people import set_up

    with session.opened() as work:
        old = work.view.store(store_id)
        new = replace(
            old,
            tier=Tier(tier) if tier else old.tier,
            failure_domain=old.failure_domain if domain is None else domain,
            is_durable=old.is_durable if durable is None else durable,
            capacity=old.capacity if capacity is None else scenarios.size(capacity),
            high=old.high if high is None else high,
            low=old.low if low is None else low,
        )
        set_up.set_store(work.facility, new, principal=work.principal)
    room = size(new.capacity) if new.capacity else "all of its medium"
    emit(
        session,
        new,
        lambda: say(f"Store {new.id}: {new.tier}, {room}, purge from {new.high:.0%} to {new.low:.0%}"),
    )


@store.command("list", examples=("lightkeep store list",))
@click.pass_obj
def show_all(session: Session) -> None:
    """List the stores, whether each can be reached, and the room left."""
    from lightkeep.lifecycle.health import silence

    items = []
    with session.opened() as work:
        silence.silent(work.facility)
        for record in work.view.stores():
            try:
                each = work.facility.stores[record.id]
                each.check_identity()
                items.append({**plain(record), "state": "ok", "free": each.free_bytes()})
            except StorageError as error:
                items.append({**plain(record), "state": "error", "free": None, "error": error.message})
    rows = [
        (
            s["id"],
            state(s["state"]),
            s["tier"] if s["is_managed"] else "in place",
            size(s["capacity"]) if s["capacity"] else "?",
            _room(s["free"]),
            s["failure_domain"] + (", durable" if s["is_durable"] else ""),
            s["location"],
        )
        for s in items
    ]
    emit(
        session,
        {"items": items, "total": len(items)},
        lambda: table(["store!", "state", "tier!", "capacity>!", "free>!", "domain", "location"], rows),
    )
