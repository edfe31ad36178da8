"""A new catalogue from the documents that stores kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select, update

from lightkeep.catalog import audit, counts, rows, schema
from lightkeep.catalog.audit import GENESIS
from lightkeep.catalog.catalog import Catalog
from lightkeep.catalog.columns import from_microseconds, to_microseconds
from lightkeep.catalog.dialect import errors_of
from lightkeep.catalog.snapshot import Document
from lightkeep.catalog.text import encode_path
from lightkeep.catalog.usage import SAMPLED
from lightkeep.model.datasets import DatasetState
from lightkeep.model.errors import Conflict
from lightkeep.model.people import Principal
from lightkeep.model.retention import ArchiveUnit
from lightkeep.model.stores import Proof, ReplicaState

_ENDS = (ReplicaState.DELETED.value, ReplicaState.CORRUPT.value)


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What came back."""

    datasets: int
    files: int
    replicas: int
    events: int
    """Of the audit trail, without a gap from the first."""
    lost_events: int
    """That the documents mention, and no store kept."""
    problems: tuple[str, ...]
    """What `Catalog.verify_events` says of the result."""


class Rebuilding:
    """One transaction that fills an empty catalogue."""

    def __init__(self, catalog: Catalog, connection: Connection, principal: Principal) -> None:
        self._catalog = catalog
        self._connection = connection
        self._principal = principal
        self._parents: list[Mapping[str, Any]] = []
        self._events: dict[int, Mapping[str, Any]] = {}
        self._state: Document | None = None
        self.datasets = self.files = self.replicas = 0

    def places(self, state: Document) -> None:
        """Put the small tables back, but for what points at datasets."""
        self._state = state
        for table in schema.tables.sorted_tables:
            if table.name in state.rows and table.name not in _AFTER_DATASETS:
                self._insert_new(table, state.dicts(table.name))

    def dataset(self, documents: Sequence[Document], states: Mapping[str, ReplicaState]) -> None:
        """Put a dataset back from all its documents.

        Parameters
        ----------
        documents: from several stores; the newest is taken for the dataset itself, all of them for its replicas.
        states: of replicas that are no longer what their document says; the others are `present`.
        """
        documents = sorted(documents, key=lambda each: each.head[0], reverse=True)
        newest = documents[0]
        for table in (schema.station, schema.store, schema.experiment):
            self._insert_new(table, [row for each in documents for row in each.dicts(table.name)])
        (row,) = newest.dicts("dataset")
        self._raw(schema.dataset, [row])
        self._parents += newest.dicts("dataset_parent")
        self._raw(schema.skipped_file, newest.dicts("skipped_file"))
        files = newest.dicts("file")
        self._raw(schema.file, files)
        known = {file["id"] for file in files}
        replicas = {each["id"]: each for d in reversed(documents) for each in d.dicts("replica")}
        kept = [_unread(each, states) for each in replicas.values() if each["file_id"] in known]
        self._raw(schema.replica, kept)
        for document in documents:
            self.events(document)
        self._index(row["id"])
        self.datasets, self.files, self.replicas = (
            self.datasets + 1,
            self.files + len(files),
            self.replicas + len(kept),
        )

    def unit(self, unit: ArchiveUnit) -> None:
        """Put an archive unit back that the small tables did not know yet."""
        row = {
            "id": unit.id,
            "store_id": unit.store_id,
            "key": encode_path(unit.key),
            "experiment_id": unit.experiment_id,
            "size": unit.size,
            "sha256": bytes.fromhex(unit.sha256),
            "members": unit.members,
            "content_size": unit.content_size,
            "created_at": None if unit.created_at is None else to_microseconds(unit.created_at),
            "state": unit.state.value,
        }
        self._insert_new(schema.archive_unit, [row])

    def events(self, document: Document) -> None:
        """Collect the events of a document."""
        for row in document.dicts("event"):
            self._events.setdefault(row["seq"], row)

    def begin_epoch(self, epoch: str) -> None:
        """Say that this catalogue is not the one that was lost: no purge runs on its word before a person did."""
        c = schema.fact.c
        anew = ("epoch", SAMPLED)
        self._connection.execute(delete(schema.fact).where(c.name.in_(anew)))
        now = self._catalog.clock.now()
        self._connection.execute(insert(schema.fact).values(name="epoch", value=epoch, changed_at=now))

    def finish(self, detail: Mapping[str, Any]) -> Rebuilt:
        """Put back what points at datasets, and the trail; append the event of the rebuilding."""
        there = set(self._connection.execute(select(schema.dataset.c.id)).scalars())
        self._raw(schema.dataset_parent, [row for row in self._parents if row["parent_id"] in there])
        if self._state is not None:
            for table in schema.tables.sorted_tables:
                if table.name in _AFTER_DATASETS and table.name in self._state.rows:
                    found = [row for row in self._state.dicts(table.name) if row["dataset_id"] in there]
                    self._insert_new(table, found)
        count, last = self._trail()
        self._withdraw()
        self._connection.execute(update(schema.chain_head).values(seq=count, hash=last))
        chain = audit.Chain(self._connection, self._catalog.dialect, count, last)
        lost = len(self._events) - count
        at = self._catalog.clock.now()
        detail = {**detail, "datasets": self.datasets, "files": self.files, "events": count, "lost_events": lost}
        chain.append(
            "catalog.rebuilt", "catalog", at=at, actor=self._principal.id, experiment_id="", detail=detail
        )
        problems = tuple(audit.problems(self._connection))
        return Rebuilt(self.datasets, self.files, self.replicas, count, lost, problems)

    def _trail(self) -> tuple[int, str]:
        """Insert the events that follow one another from the first; return the number and hash of the last."""
        last, number = GENESIS, 0
        found = []
        while (row := self._events.get(number + 1)) is not None and row["previous"] == last:
            found.append(row)
            last, number = row["hash"], number + 1
        self._raw(schema.event, found)
        return number, last

    def _withdraw(self) -> None:
        """Take out again what was withdrawn after its document was written."""
        c = schema.dataset.c
        withdrawn = {row["subject"] for row in self._events.values() if row["verb"] == "dataset.withdrawn"}
        found = self._connection.execute(
            select(schema.dataset).where(c.id.in_(withdrawn) & (c.state == DatasetState.COMPLETE.value))
        )
        for row in found.mappings().all():
            self._connection.execute(
                update(schema.dataset).where(c.id == row["id"]).values(state=DatasetState.WITHDRAWN.value)
            )
            counts.count(self._connection, rows.dataset_of(row, ()), sign=-1)

    def _index(self, dataset_id: str) -> None:
        """Count, and index for searches, as completing the dataset did."""
        row = (
            self._connection.execute(select(schema.dataset).where(schema.dataset.c.id == dataset_id))
            .mappings()
            .one()
        )
        dataset = rows.dataset_of(row, ())
        found = select(schema.experiment).where(schema.experiment.c.id == dataset.experiment_id)
        experiment = rows.experiment_of(self._connection.execute(found).mappings().one())
        if fields := rows.field_rows(dataset_id, dataset.metadata):
            self._connection.execute(insert(schema.dataset_field), fields)
        words = rows.dataset_words(dataset, experiment)
        self._catalog.dialect.index_words(self._connection, [(row["number"], words)])
        if dataset.state is DatasetState.COMPLETE:
            counts.count(self._connection, dataset, sign=1)

    def _insert_new(self, table: Table, found: Sequence[Mapping[str, Any]]) -> None:
        """Insert the rows whose key is not there yet; the first of each key."""
        keys = [column.name for column in table.primary_key.columns]
        there = {tuple(row) for row in self._connection.execute(select(*table.primary_key.columns))}
        fresh: dict[tuple[Any, ...], Mapping[str, Any]] = {}
        for row in found:
            key = tuple(from_microseconds(row[name]) if name == "day" else row[name] for name in keys)
            if key not in there:
                fresh.setdefault(key, row)
        self._raw(table, list(fresh.values()))

    def _raw(self, table: Table, found: Sequence[Mapping[str, Any]]) -> None:
        if found:
            names = [column.name for column in table.columns if column.name in found[0]]
            values = [tuple(row[name] for name in names) for row in found]
            self._catalog.dialect.insert(self._connection, table.name, names, values)


_AFTER_DATASETS = ("run", "restore")


@contextmanager
def rebuilding(catalog: Catalog, principal: Principal) -> Iterator[Rebuilding]:
    """Begin to fill an empty catalogue; it commits when the block ends.

    Raises
    ------
    Conflict: the catalogue holds something already.
    """
    with errors_of(catalog.dialect), catalog.writer.begin() as connection:
        catalog.dialect.lock_chain(connection)
        _must_be_empty(connection)
        yield Rebuilding(catalog, connection, principal)


def _must_be_empty(connection: Connection) -> None:
    if connection.execute(select(func.count()).select_from(schema.event)).scalar_one():
        raise Conflict(
            "the catalogue is not empty: it is not rebuilt over what is there",
            remedy="name an empty database in catalog_url, and move the damaged one away first",
        )


def _unread(row: Mapping[str, Any], states: Mapping[str, ReplicaState]) -> dict[str, Any]:
    """Return a replica that nobody has read yet: it counts as a copy only when it was verified again."""
    if row["state"] in _ENDS:
        return dict(row)
    state = states.get(row["id"], ReplicaState.PRESENT)
    return {**row, "state": state.value, "verified_at": None, "proof": Proof.UNPROVEN.value}
