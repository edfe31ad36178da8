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
from lightkeep.catalog.plans import PlanChanges
from lightkeep.catalog.policies import PolicyChanges
from lightkeep.catalog.snapshot import DatasetSnapshot
from lightkeep.catalog.sources import SourceKey
from lightkeep.catalog.text import clean, encode_path, shown_path, to_json
from lightkeep.catalog.transaction import Transaction, among, parts, same_grant
from lightkeep.catalog.usage import UsageChanges
from lightkeep.catalog.workers import WorkerChanges
from lightkeep.catalog.workflows import WorkflowChanges
from lightkeep.model.datasets import Dataset, DatasetState, File, Metadata, SkippedFile
from lightkeep.model.errors import Conflict, InvalidInput, NotFound
from lightkeep.model.experiments import Experiment, ExperimentState, Station
from lightkeep.model.people import Grant, Person, Role, Scope
from lightkeep.model.runs import Run, RunState
from lightkeep.model.stores import Proof, Replica, ReplicaState, StoreRecord


class Change(
    ExperimentChanges,
    DatasetSnapshot,
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

    # ---- places and people

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

    def add_person(self, person: Person, password_hash: str = "") -> None:
        """Make an account. Conflict when the user name is taken."""
        if person.id != person.id.lower() or person.id in ("", "anonymous", "lightkeep"):
            raise InvalidInput(
                f"{person.id!r} cannot be a user name", remedy="use lower case; some names are ours"
            )
        self._must_be_new(schema.person, person.id, "person")
        self._insert(
            schema.person,
            id=person.id,
            name=person.name,
            email=person.email,
            is_active=person.is_active,
            password_hash=password_hash,
            created_at=self._clock.now(),
        )
        self._record("person.added", person.id, "", {"name": person.name})

    def set_password(self, person_id: str, password_hash: str) -> None:
        """Change a password and end the person's sessions everywhere."""
        self._row(schema.person, person_id, "person")
        self._set(schema.person, person_id, password_hash=password_hash)
        t = schema.token.c
        self._connection.execute(delete(schema.token).where((t.person_id == person_id) & (t.kind == "session")))
        self._record("person.password_set", person_id, "", {})

    def add_grant(self, grant: Grant) -> None:
        """Give a role; twice is once. NotFound when the person, the station or the experiment is not there.

        Given by a person (origin empty) where the proposal system had given it: it is the person's from now on.
        """
        if grant.role is Role.PUBLIC:
            raise InvalidInput("the role public is nobody's: it holds for released experiments")
        self._row(schema.person, grant.person_id, "person")
        self._check_scope(grant)
        origin = self._origin_of(grant)
        if origin and not grant.origin:
            self._connection.execute(update(schema.access_grant).where(same_grant(grant)).values(origin=""))
            self._record("grant.adopted", grant.person_id, _experiment_of(grant), _grant_detail(grant))
        if origin is not None:
            return
        self._insert(
            schema.access_grant,
            person_id=grant.person_id,
            scope=grant.scope.value,
            role=grant.role.value,
            scope_id=grant.scope_id,
            origin=grant.origin,
            created_at=self._clock.now(),
        )
        self._record("grant.added", grant.person_id, _experiment_of(grant), _grant_detail(grant))

    def remove_grant(self, grant: Grant) -> None:
        """Take a role away; it counts from the next request on.

        Raises
        ------
        NotFound: it was not given. Conflict: `grant.origin` names who gave it, and it was somebody else.
        """
        origin = self._origin_of(grant)
        if origin is None:
            raise NotFound(f"{grant.person_id} is not {grant.role} of {grant.scope} {grant.scope_id}".rstrip())
        if grant.origin and origin != grant.origin:
            raise Conflict(f"{grant.person_id} was made {grant.role} by a person, not by the {grant.origin}")
        self._connection.execute(delete(schema.access_grant).where(same_grant(grant)))
        self._record("grant.removed", grant.person_id, _experiment_of(grant), _grant_detail(grant))

    def add_token(
        self, person_id: str, *, token_hash: str, kind: str, label: str = "", expires_at: datetime | None = None
    ) -> None:
        """Keep the hash of a secret that signs a person in: kind `session` or `api`."""
        self._row(schema.person, person_id, "person")
        self._insert(
            schema.token,
            token_hash=token_hash,
            person_id=person_id,
            kind=kind,
            label=label,
            created_at=self._clock.now(),
            expires_at=expires_at,
        )
        self._record("token.added", person_id, "", {"kind": kind, "label": label})

    def remove_token(self, token_hash: str) -> None:
        """Forget a secret: whoever carries it is signed out. Unknown: nothing happens."""
        c = schema.token.c
        row = self._connection.execute(select(c.person_id, c.kind).where(c.token_hash == token_hash)).first()
        if row is None:
            return
        self._connection.execute(delete(schema.token).where(c.token_hash == token_hash))
        self._record("token.removed", row.person_id, "", {"kind": row.kind})

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

    # ---- runs

    def add_run(self, run: Run) -> Run:
        """Queue a run. NotFound when the dataset or the experiment is not there."""
        self._row(schema.dataset, run.dataset_id, "dataset")
        self._row(schema.experiment, run.experiment_id, "experiment")
        self._must_be_new(schema.run, run.id, "run")
        run = replace(
            run,
            state=RunState.QUEUED,
            created_at=self._clock.now(),
            created_by=run.created_by or self._principal.id,
        )
        values = {column: getattr(run, column) for column in schema.run.c.keys()}  # noqa: SIM118
        values.update(params=to_json(run.params), resolved=to_json(run.resolved), state=run.state.value)
        values.update(placement=to_json(run.placement))
        self._insert(schema.run, **values)
        detail = {"technique": run.technique, "dataset": run.dataset_id, "engine": run.engine}
        self._record("run.queued", run.id, run.experiment_id, detail)
        return run

    def update_run(
        self,
        run_id: str,
        *,
        state: RunState | None = None,
        progress: float | None = None,
        message: str | None = None,
        resolved: Mapping[str, Any] | None = None,
        placement: Mapping[str, Any] | None = None,
        result_id: str | None = None,
        error: str | None = None,
        engine: str | None = None,
    ) -> None:
        """Write down how a run goes. A change of state is an event; progress alone is not.

        A run that is over stays as it is: being told the same state again, or late progress, does nothing.

        Raises
        ------
        Conflict: the state may not follow the present one.
        """
        row = self._row(schema.run, run_id, "run")
        now = RunState(row["state"])
        if state is not None and state is not now:
            transitions.check(transitions.RUN, f"run {run_id}", now=now, then=state)
        elif now.is_over:
            return
        given = {
            "progress": progress,
            "message": message,
            "result_id": result_id,
            "error": error,
            "engine": engine,
        }
        values: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        if resolved is not None:
            values["resolved"] = to_json(resolved)
        if placement is not None:
            values["placement"] = to_json(placement)
        if state is not None and state is not now:
            values["state"] = state.value
            values["started_at" if state is RunState.RUNNING else "ended_at"] = self._clock.now()
        if values:
            self._set(schema.run, run_id, **values)
        if "state" in values:
            detail = {"from": now, "result": result_id or "", "error": error or "", "message": message or ""}
            self._record(f"run.{state}", run_id, row["experiment_id"], detail)

    # ---- the trail

    def record(
        self, verb: str, subject: str, experiment_id: str = "", detail: Mapping[str, Any] | None = None
    ) -> None:
        """Append an event for something that is no change of the catalogue, such as a download."""
        self._record(verb, subject, experiment_id, detail or {})


def _experiment_of(grant: Grant) -> str:
    return grant.scope_id if grant.scope is Scope.EXPERIMENT else ""


def _grant_detail(grant: Grant) -> Mapping[str, Any]:
    detail = {"role": grant.role, "scope": grant.scope, "scope_id": grant.scope_id}
    return {**detail, "origin": grant.origin} if grant.origin else detail
