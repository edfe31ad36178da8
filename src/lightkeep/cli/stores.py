"""`store`: where bytes are kept."""

from __future__ import annotations

from pathlib import Path

import click

from lightkeep.cli.app import Group
from lightkeep.cli.output import emit, plain, say, size, state, table
from lightkeep.cli.session import Session
from lightkeep.model.errors import StorageError


@click.group(cls=Group, examples=("lightkeep store add 2-bm-disk /data/2-bm --in-place",))
def store() -> None:
    """Register and show stores."""


@store.command(
    "add",
    examples=("lightkeep store add archive /mnt/archive", "lightkeep store add 2-bm-disk /data/2-bm --in-place"),
)
@click.argument("store_id", metavar="STORE")
@click.argument("folder", type=click.Path(readable=False, path_type=Path))
@click.option("--in-place", is_flag=True, help="A station's own disk: files stay as they are, nothing is written.")
@click.pass_obj
def add(session: Session, store_id: str, folder: Path, in_place: bool) -> None:
    """Register FOLDER as a store: an empty one to copy to, or with --in-place a disk that holds data already."""
    from lightkeep.lifecycle import set_up

    with session.opened() as work:
        record = set_up.add_store(
            work.facility, store_id, folder, principal=work.principal, is_managed=not in_place
        )
    emit(session, record, lambda: say(f"Added store {record.id} at {record.location}"))


@store.command("list", examples=("lightkeep store list",))
@click.pass_obj
def show_all(session: Session) -> None:
    """List the stores, whether each can be reached, and the room left."""
    items = []
    with session.opened() as work:
        for record in work.view.stores():
            try:
                each = work.facility.stores[record.id]
                each.check_identity()
                items.append({**plain(record), "state": "ok", "free": each.free_bytes()})
            except StorageError as error:
                items.append({**plain(record), "state": "error", "free": None, "error": error.message})
    rows = [
        (s["id"], state(s["state"]), "yes" if s["is_managed"] else "in place", size(s["free"] or 0), s["location"])
        for s in items
    ]
    emit(
        session,
        {"items": items, "total": len(items)},
        lambda: table(["store!", "state", "managed", "free>!", "location"], rows),
    )
