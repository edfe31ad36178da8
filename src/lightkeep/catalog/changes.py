"""Changes: one transaction, and one event in it for each thing that was done.

Whether the principal may do it has been asked before, with `View.require`: a change records who did it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import delete, insert, select, update

from lightkeep.catalog import counts, manifest, rows, schema, transitions
from lightkeep.catalog.acquisitions import AcquisitionChanges
from lightkeep.catalog.audit import FILES_ADDED
from lightkeep.catalog.cases import CaseChanges
from lightkeep.catalog.copies import CopyChanges
from lightkeep.catalog.experiments import ExperimentChanges
from lightkeep.catalog.facts import FactChanges
from lightkeep.catalog.holds import HoldChanges
from lightkeep.catalog.notices import NoticeChanges
from lightkeep.catalog.people import PeopleChanges
from lightkeep.catalog.plans import PlanChanges
from lightkeep.catalog.policies import PolicyChanges
from lightkeep.catalog.runs import RunChanges
from lightkeep.catalog.snapshot import DatasetSnapshot
from lightkeep.catalog.sources import SourceKey
from lightkeep.catalog.text import clean, encode_path, shown_path, to_json
from lightkeep.catalog.transaction import Transaction, among, parts
from lightkeep.catalog.usage import UsageChanges
from lightkeep.catalog.workers import WorkerChanges
from lightkeep.catalog.workflows import WorkflowChanges
from lightkeep.model.datasets import Dataset, DatasetState, File, Metadata, SkippedFile
from lightkeep.model.errors import Conflict, InvalidInput, NotFound
from lightkeep.model.experiments import Experiment, ExperimentState, Station
from lightkeep.model.stores import Proof, Replica, ReplicaState, StoreRecord


class Change(
    PeopleChanges,
    ExperimentChanges,
    DatasetSnapshot,
    RunChanges,
    HoldChanges,
    FactChanges,
    PlanChanges,
    NoticeChanges,
    PolicyChanges,
    CaseChanges,
    CopyChanges,
    UsageChanges,
    AcquisitionChanges,
    WorkerChanges,
    WorkflowChanges,
    Transaction,
):
    """One transaction, made by `Catalog.change`. Every method appends its event, or does nothing at all."""

    # ---- places

    def add_station(self, station: Station) -> None:
        """Register a station. Conflict when the id is taken."""
        self._must_be_new(schema.station, station.id, "station")
        self._insert(
            schema.station,
            id=station.id,
            name=station.name,
            techniques=to_json(station.techniques),
            created_at=self._clock.now(),
        )
        self._record("station.added", station.id, "", {"name": station.name})

    def add_experiment(self, experiment: Experiment) -> None:
        """Register an experiment. Conflict when the id is taken, NotFound when the station is not there."""
        self._row(schema.station, experiment.station_id, "station")
        self._must_be_new(schema.experiment, experiment.id, "experiment")
        self._insert(
            schema.experiment,
            number=counts.next_number(self._connection, schema.experiment),
            facets=b"",
            id=experiment.id,
            station_id=experiment.station_id,
            title=experiment.title,
            state=experiment.state.value,
            starts_at=experiment.starts_at,
            ends_at=experiment.ends_at,
            identifiers=to_json(experiment.identifiers),
            searched=rows.experiment_searched(experiment),
            policy_id=experiment.policy_id,
            released_at=experiment.released_at,
            created_at=self._clock.now(),
            datasets=0,
            files=0,
            size=0,
        )
        self._record("experiment.added", experiment.id, experiment.id, {"station": experiment.station_id})

    def set_experiment_state(self, experiment_id: str, state: ExperimentState) -> None:
        """Move an experiment on. Conflict when the state may not follow the present one."""
        row = self._row(schema.experiment, experiment_id, "experiment")
        now = ExperimentState(row["state"])
        transitions.check(transitions.EXPERIMENT, f"experiment {experiment_id}", now=now, then=state)
        closed = {"closed_at": self._clock.now()} if state is ExperimentState.CLOSED else {}
        self._set(schema.experiment, experiment_id, state=state.value, **closed)
        self._record(f"experiment.{state}", experiment_id, experiment_id, {"from": now})

    def add_store(self, store: StoreRecord) -> None:
        """Register a store. Conflict when the id or the identity of its marker is taken."""
        self._must_be_new(schema.store, store.id, "store")
        self._insert(
            schema.store,
            id=store.id,
            kind=store.kind,
            location=encode_path(store.location),
            uuid=store.uuid,
            tier=store.tier.value,
            failure_domain=store.failure_domain,
            is_managed=store.is_managed,
            is_durable=store.is_durable,
            capacity=store.capacity,
            high=store.high,
            low=store.low,
            created_at=self._clock.now(),
        )
        self.set_anchored(0)  # not every store has the trail any more
        self._record("store.added", store.id, "", {"kind": store.kind, "uuid": store.uuid})

    # ---- datasets

    def add_dataset(self, dataset: Dataset) -> Dataset:
        """Begin a dataset: state receiving, nothing in it. Conflict when the experiment has one of that name."""
        self._row(schema.experiment, dataset.experiment_id, "experiment")
        c = schema.dataset.c
        name = clean(dataset.name)
        taken = select(c.id).where((c.experiment_id == dataset.experiment_id) & (c.name == name))
        if self._connection.execute(taken).first() is not None:
            raise Conflict(
                f"experiment {dataset.experiment_id} has a dataset named {name!r} already",
                remedy="choose another name",
            )
        self._must_be_new(schema.dataset, dataset.id, "dataset")
        dataset = replace(
            dataset,
            name=name,
            state=DatasetState.RECEIVING,
            files=0,
            size=0,
            created_at=self._clock.now(),
            completed_at=None,
            created_by=dataset.created_by or self._principal.id,
        )
        number = counts.next_number(self._connection, schema.dataset)
        self._insert(schema.dataset, number=number, **rows.dataset_row(dataset))
        for position, parent in enumerate(dataset.parents):
            self._row(schema.dataset, parent, "dataset")
            self._insert(schema.dataset_parent, dataset_id=dataset.id, position=position, parent_id=parent)
        detail = {"name": name, "kind": dataset.kind, "parents": dataset.parents, "run": dataset.run_id}
        self._record("dataset.added", dataset.id, dataset.experiment_id, detail)
        return dataset

    def add_files(self, dataset_id: str, pairs: Sequence[tuple[File, Replica]]) -> list[File]:
        """Register a group of files, each with the replica that holds it; return them as the catalogue has them.

        A file that is there already (same path, same content) is left as it is and comes back with the id that it
        has; its replica is added when it is on another store or under another key. Other content at a known path
        becomes the next version of that path. Nothing new: no event.

        Raises
        ------
        Conflict: there is something new, and the dataset is no longer receiving.
        """
        row = self._entry("dataset", dataset_id, ("id", "number", "experiment_id", "state", "files", "size"))
        for store_id in {replica.store_id for _, replica in pairs}:
            self._entry("store", store_id, ("id",))
        now = self._clock.now()
        group = manifest.new_group(
            pairs, dataset_id=dataset_id, number=row["number"], event_seq=self._chain.seq + 1, now=now
        )
        if row["state"] != DatasetState.RECEIVING or not self._insert_all(
            "file", manifest.FILE_COLUMNS, group.file_rows
        ):
            paths = [file_row[1] for file_row in group.file_rows]
            known = self._dialect.files_at(self._connection, row["number"], paths)
            group = manifest.mixed_group(group, pairs, known=known, now=now)
            wanted = {(row[0], *row[2:4]): row for row in reversed(group.replica_rows)}
            old = self._replicas_of(group.revisited)
            group = replace(group, replica_rows=[r for place, r in wanted.items() if place not in old])
            if not group.replica_rows:
                return group.files
            self._must_be_receiving(row, "take files")
            self._dialect.insert(self._connection, "file", manifest.FILE_COLUMNS, group.file_rows)
        self._dialect.insert(self._connection, "replica", manifest.REPLICA_COLUMNS, group.replica_rows)
        files, size = row["files"] + group.more_files, row["size"] + group.more_bytes
        self._dialect.run(
            self._connection, "UPDATE dataset SET files = ?, size = ? WHERE id = ?", (files, size, row["id"])
        )
        detail = {
            "files": len(group.file_rows),
            "replicas": len(group.replica_rows),
            "bytes": sum(r[4] for r in group.file_rows),
            "digest": manifest.digest((r[1], r[5], r[4], r[2]) for r in group.file_rows),
        }
        verb = FILES_ADDED if group.file_rows else "dataset.replicas_added"
        self._record(verb, dataset_id, row["experiment_id"], detail)
        return group.files

    def add_skipped(self, skipped: Sequence[SkippedFile]) -> None:
        """Record names of one dataset that are not kept as content; a name recorded before is replaced."""
        if not skipped:
            return
        dataset_id = skipped[0].dataset_id
        if any(s.dataset_id != dataset_id for s in skipped):
            raise InvalidInput("skipped files of several datasets in one call")
        row = self._row(schema.dataset, dataset_id, "dataset")
        by_path = {encode_path(s.path): s for s in skipped}
        c = schema.skipped_file.c
        self._connection.execute(
            delete(schema.skipped_file).where((c.dataset_id == dataset_id) & c.path.in_(list(by_path)))
        )
        values = [
            {
                "dataset_id": dataset_id,
                "path": p,
                "kind": s.kind,
                "reason": s.reason,
                "target": encode_path(s.target),
            }
            for p, s in by_path.items()
        ]
        self._connection.execute(insert(schema.skipped_file), values)
        self._record("dataset.files_skipped", dataset_id, row["experiment_id"], {"files": len(values)})

    def describe_dataset(
        self,
        dataset_id: str,
        *,
        metadata: Metadata,
        format: str,  # noqa: A002
        main_file: str,
        technique: str,
    ) -> None:
        """Write down what the dataset is. Conflict when it is no longer receiving."""
        row = self._row(schema.dataset, dataset_id, "dataset")
        self._must_be_receiving(row, "be described")
        self._set(
            schema.dataset,
            dataset_id,
            metadata=rows.metadata_json(metadata),
            format=format,
            main_file=encode_path(main_file),
            technique=technique,
        )
        detail = {"format": format, "technique": technique, "main_file": shown_path(main_file)}
        self._record("dataset.described", dataset_id, row["experiment_id"], detail)

    def complete_dataset(self, dataset_id: str) -> Dataset:
        """Close the manifest: the dataset is found, counted and never changed again. Conflict if not receiving."""
        row = self._row(schema.dataset, dataset_id, "dataset")
        state = DatasetState(row["state"])
        transitions.check(transitions.DATASET, f"dataset {dataset_id}", now=state, then=DatasetState.COMPLETE)
        now = self._clock.now()
        self._set(schema.dataset, dataset_id, state=DatasetState.COMPLETE.value, completed_at=now)
        dataset = replace(rows.dataset_of(row, ()), state=DatasetState.COMPLETE, completed_at=now)
        experiment = rows.experiment_of(self._row(schema.experiment, dataset.experiment_id, "experiment"))
        fields = rows.field_rows(dataset_id, dataset.metadata)
        if fields:
            self._connection.execute(insert(schema.dataset_field), fields)
        self._dialect.index_words(self._connection, [(row["number"], rows.dataset_words(dataset, experiment))])
        counts.count(self._connection, dataset, sign=1)
        detail = {"files": dataset.files, "bytes": dataset.size}
        self._record("dataset.completed", dataset_id, dataset.experiment_id, detail)
        return dataset

    def withdraw_dataset(self, dataset_id: str) -> None:
        """Take a complete dataset out of lists, counts and searches; its record and files stay."""
        row = self._row(schema.dataset, dataset_id, "dataset")
        state = DatasetState(row["state"])
        transitions.check(transitions.DATASET, f"dataset {dataset_id}", now=state, then=DatasetState.WITHDRAWN)
        self._set(schema.dataset, dataset_id, state=DatasetState.WITHDRAWN.value)
        counts.count(self._connection, rows.dataset_of(row, ()), sign=-1)
        self._record("dataset.withdrawn", dataset_id, row["experiment_id"], {})

    def set_replicas(
        self,
        replicas: Sequence[Replica],
        *,
        state: ReplicaState,
        verified_at: datetime | None = None,
        proof: Proof | None = None,
        only: Collection[ReplicaState] | None = None,
    ) -> None:
        """Move replicas of one dataset on, all or none. Conflict: one may not; NotFound: one is missing.

        Parameters
        ----------
        only: those that are not in one of these states any more are left as they are: for who looked at them
            before this change began, and must not undo what was done meanwhile.
        """
        found = self._replicas(replicas)
        if len(found) != (asked := len({replica.id for replica in replicas})):
            raise NotFound(f"{asked - len(found)} of {asked} replicas do not exist")
        if only is not None:
            found = [row for row in found if row["state"] in only]
            kept = {row["id"] for row in found}
            replicas = [replica for replica in replicas if replica.id in kept]
        if not replicas:
            return
        ids = sorted(row["id"] for row in found)
        homes = {(row["dataset_id"], row["experiment_id"]) for row in found}
        if len(homes) > 1:
            raise InvalidInput("replicas of several datasets in one call", remedy="make one call for each dataset")
        for row in found:
            now = ReplicaState(row["state"])
            transitions.check(transitions.REPLICA, f"replica {row['id']}", now=now, then=state)
        values: dict[str, Any] = {"state": state.value}
        if verified_at is not None:
            values["verified_at"] = verified_at
        if proof is not None:
            values["proof"] = proof.value
        for part in parts(replicas):
            self._connection.execute(update(schema.replica).where(among(part)).values(values))
        digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()
        detail = {"replicas": len(found), "digest": digest, "first": ids[:20], "proof": proof}
        (dataset_id, experiment_id), *_ = homes
        self._record(f"replica.{state}", dataset_id, experiment_id, detail)

    def remember_sources(self, sources: Sequence[SourceKey]) -> None:
        """Keep how source files looked when they were taken: the next ingest passes over them. No event."""
        c = schema.source_key.c
        for dataset_id, root in {(s.dataset_id, s.root) for s in sources}:
            group = {encode_path(s.path): s for s in sources if s[:2] == (dataset_id, root)}
            place = encode_path(root)
            columns = list(schema.source_key.c.keys())
            values = [(dataset_id, place, path, *source[3:]) for path, source in group.items()]
            if self._insert_all("source_key", columns, values):
                continue
            for part in parts(list(group)):
                here = (c.dataset_id == dataset_id) & (c.root == place) & c.path.in_(part)
                self._connection.execute(delete(schema.source_key).where(here))
            self._dialect.insert(self._connection, "source_key", columns, values)

    # ---- the trail

    def record(
        self, verb: str, subject: str, experiment_id: str = "", detail: Mapping[str, Any] | None = None
    ) -> None:
        """Append an event for something that is no change of the catalogue, such as a download."""
        self._record(verb, subject, experiment_id, detail or {})
