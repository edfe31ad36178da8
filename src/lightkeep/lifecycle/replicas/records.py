"""Records: what the catalogue knows, kept beside the bytes on every managed store.

    datasets/<experiment>/<dataset>.jsonl.gz    one dataset: written before the commit that completes it
    events/<first>.jsonl.gz                     the audit trail, piece by piece
    state.jsonl.gz                              the small tables: places, people, policies, holds, plans
    anchor.json                                 number and hash of the last event, and when

`rebuild` makes a lost catalogue from them; `doctor` compares the anchor with the trail (invariant A1).
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from lightkeep.model.errors import LightkeepError, NotFound
from lightkeep.model.people import SERVICE
from lightkeep.model.stores import Store

if TYPE_CHECKING:
    from lightkeep.catalog.changes import Change
    from lightkeep.facility import Facility
    from lightkeep.model.datasets import Dataset

ANCHOR: Final = "anchor.json"
STATE: Final = "state.jsonl.gz"
EVENTS: Final = "events/"
DATASETS: Final = "datasets/"


def write_dataset(facility: Facility, tx: Change, dataset: Dataset, *, store: Store) -> None:
    """Keep a dataset's document on a store, as the running change will leave it.

    Called before the commit: what is complete in the catalogue has its document. A store that is not managed takes
    none; then the store of new datasets does.

    Raises
    ------
    StorageError: it could not be written; the change must not be committed.
    """
    home = store if store.record.is_managed else facility.stores[facility.config.ingest.store]
    home.write_record(document_name(dataset), packed(tx.dataset_snapshot(dataset.id)))


def document_name(dataset: Dataset) -> str:
    """Return the name of a dataset's document on a store."""
    return f"{DATASETS}{dataset.experiment_id}/{dataset.name}.jsonl.gz"


def anchor(facility: Facility, *, age: timedelta = timedelta(0)) -> dict[str, str]:
    """Bring the documents on every managed store up to date; nothing happens when no event was added.

    Parameters
    ----------
    age: leave a store whose anchor is younger.

    Returns
    -------
    : store id -> why its documents are behind, for those that could not be written.
    """
    behind: dict[str, str] = {}
    head = facility.catalog.head()
    state = None
    for store in _managed(facility, behind):
        try:
            kept = read_anchor(store)
            if kept is not None and (kept["seq"] >= head[0] or _age(facility, kept) < age):
                continue
            since = 0 if kept is None else kept["seq"]
            state = state or packed(facility.catalog.state_snapshot())
            store.write_record(
                f"{EVENTS}{since + 1:012d}.jsonl.gz", packed(facility.catalog.event_snapshot(since))
            )
            store.write_record(STATE, state)
            at = facility.clock.now().isoformat()
            store.write_record(ANCHOR, json.dumps({"seq": head[0], "hash": head[1], "at": at}).encode())
        except LightkeepError as error:
            behind[store.record.id] = error.message
    if state is not None and not behind:
        with facility.catalog.change(SERVICE) as tx:
            tx.set_anchored(head[0])
    return behind


def read_anchor(store: Store) -> dict[str, Any] | None:
    """Return a store's anchor: `seq`, `hash`, `at`; None when it has none, or one that cannot be read."""
    try:
        kept = json.loads(store.read_record(ANCHOR))
        datetime.fromisoformat(kept["at"])
        return {"seq": int(kept["seq"]), "hash": str(kept["hash"]), "at": str(kept["at"])}
    except (NotFound, ValueError, KeyError, TypeError):
        return None


def _age(facility: Facility, kept: dict[str, Any]) -> timedelta:
    return facility.clock.now() - datetime.fromisoformat(kept["at"])


def packed(lines: Iterable[bytes]) -> bytes:
    """Return a document as it is kept: compressed, the same bytes for the same lines."""
    target = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=target, mode="wb", compresslevel=1, mtime=0) as file,
        io.BufferedWriter(cast("io.RawIOBase", file), 1 << 16) as buffer,
    ):
        buffer.writelines(lines)
    return target.getvalue()


def unpacked(content: bytes) -> io.BufferedReader:
    """Return the lines of a document that is kept."""
    return io.BufferedReader(gzip.GzipFile(fileobj=io.BytesIO(content)))


def _managed(facility: Facility, behind: dict[str, str]) -> list[Store]:
    found = []
    for store_id in facility.stores:
        try:
            store = facility.stores[store_id]
            if store.record.is_managed:
                store.check_identity()
                found.append(store)
        except LightkeepError as error:
            behind[store_id] = error.message
    return found
