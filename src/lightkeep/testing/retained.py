"""A closed experiment on three stores in memory, under a policy, with people to tell: for tests of retention.

kept = retained(tmp_path)
kept.dataset("scan", {"a.h5": b"...", "b.h5": b"..."})      on central, second and vault
kept.clock.at += timedelta(days=90)
kept.told(days_ago=31)                                     as if the notices had been sent
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from lightkeep.catalog import Catalog
from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.lifecycle.replicas import records
from lightkeep.model.datasets import Dataset, DatasetKind, File
from lightkeep.model.experiments import Experiment, ExperimentState, Station
from lightkeep.model.mail import Mail
from lightkeep.model.people import SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.model.retention import Notice, NoticeState
from lightkeep.model.stores import Proof, Replica, ReplicaState, StoreRecord, Tier
from lightkeep.testing.new_facility import write_tables
from lightkeep.testing.populated import StillClock
from lightkeep.testing.simulator.world import CountedIds
from lightkeep.testing.stores import FaultyStore, Medium

STATION: Final = "8-ID-I"
EXPERIMENT: Final = "2026-1-lee-81234"
BEGIN: Final = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
ADMIN, MANAGER, PI, MEMBER = (Principal(each) for each in ("ada", "manuel", "lee", "mia"))
POLICY: Final = """
id = "three-months"
stations = ["*"]

[[rule]]
name = "raw"
notice_days = [30, 7, 1]
undo_days = 14
[rule.hot]
keep = "3 months"
keep_under_pressure = "2 months"
min_copies = 1
durable = true
"""
_TIERS: Final = {"central": Tier.HOT, "second": Tier.WARM, "vault": Tier.TAPE}


@dataclass
class Retained:
    """What is in it."""

    facility: Facility
    clock: StillClock
    media: Mapping[str, Medium]
    datasets: dict[str, Dataset] = field(default_factory=dict)

    def dataset(
        self,
        name: str,
        contents: Mapping[str, bytes],
        *,
        on: Sequence[str] = ("central", "second", "vault"),
        experiment: str = EXPERIMENT,
        kind: DatasetKind = DatasetKind.RAW,
    ) -> Dataset:
        """Keep a dataset on stores, written and read back as ingest does it."""
        dataset_id = self.facility.ids.new("ds")
        with self.facility.catalog.change(SERVICE) as tx:
            tx.add_dataset(Dataset(dataset_id, experiment, name, kind, technique="xpcs"))
        files = [
            File(self.facility.ids.new("file"), dataset_id, path, len(data), hashlib.sha256(data).hexdigest())
            for path, data in contents.items()
        ]
        for store_id in on:
            keys = {file.path: f"{STATION}/{experiment}/{name}/{file.path}" for file in files}
            self._write(store_id, {keys[path]: data for path, data in contents.items()})
            with self.facility.catalog.change(SERVICE) as tx:
                tx.add_files(
                    dataset_id, [(file, self._replica(file, store_id, keys[file.path])) for file in files]
                )
        with self.facility.catalog.change(SERVICE) as tx:
            made = tx.complete_dataset(dataset_id)
            for store_id in on:
                records.write_dataset(self.facility, tx, made, store=self.facility.stores[store_id])
        self.datasets[name] = made
        return made

    def _write(self, store_id: str, objects: Mapping[str, bytes]) -> None:
        with self.facility.stores[store_id].stage() as staging:
            for key, data in objects.items():
                staging.write(key, io.BytesIO(data), size=len(data))
            staging.sync()
            staging.verify()
            staging.publish()

    def _replica(self, file: File, store_id: str, key: str) -> Replica:
        now = self.clock.now()
        replica_id = self.facility.ids.new("replica")
        return Replica(replica_id, file.id, store_id, key, ReplicaState.VERIFIED, now, Proof.DIRECT, now)

    def close(self, experiment: str = EXPERIMENT) -> None:
        """Close an experiment: its clock starts."""
        with self.facility.catalog.change(SERVICE) as tx:
            tx.set_experiment_state(experiment, ExperimentState.CLOSED)

    def verified(self, *stores: str) -> None:
        """Let every copy on the stores have been read back just now."""
        view = self.facility.catalog.view(SERVICE)
        for dataset in self.datasets.values():
            found = [each for each in view.replicas(dataset.id) if each.state is ReplicaState.VERIFIED]
            again = [each for each in found if not stores or each.store_id in stores]
            with self.facility.catalog.change(SERVICE) as tx:
                tx.set_replicas(again, state=ReplicaState.VERIFIED, verified_at=self.clock.now())

    def told(self, store: str = "central", *, experiment: str = EXPERIMENT, last_copy: bool = False) -> None:
        """Let people have been told 30, 7 and 1 days ago of all that lies on a store, with dates to match."""
        view = self.facility.catalog.view(SERVICE)
        ids = sorted(
            replica.id
            for dataset in self.datasets.values()
            if dataset.experiment_id == experiment
            for replica in view.replicas(dataset.id)
            if replica.store_id == store
        )
        listing, now = listing_of(ids), self.clock.at
        for days in (30, 7, 1):
            self.clock.at = now - timedelta(days)
            notice = Notice(
                self.facility.ids.new("notice"), experiment, store, days, listing, len(ids), 0, now,
                ("lee@example.org",), policy="three-months@1", last_copy=last_copy,
            )  # fmt: skip
            with self.facility.catalog.change(SERVICE) as tx:
                tx.add_notice(notice, members=ids, token_hash="", mail=Mail(notice.id, notice.recipients, "", ""))
                tx.set_notice_state(notice.id, NoticeState.SENT)
        self.clock.at = now

    def trust_clock(self) -> None:
        """Let somebody have looked at the clock: a test goes forward by months."""
        from lightkeep.lifecycle.health import guards

        guards.confirm_clock(self.facility, principal=ADMIN)

    def states(self, store: str = "central") -> list[str]:
        """States of the replicas on a store, in the order of datasets and paths."""
        view = self.facility.catalog.view(SERVICE)
        return [
            replica.state.value
            for dataset in self.datasets.values()
            for replica in view.replicas(dataset.id)
            if replica.store_id == store
        ]

    def bytes_on(self, store: str) -> set[str]:
        """Hashes of every content that a store's medium holds, in its place or in the trash."""
        return {hashlib.sha256(data).hexdigest() for _, data in self.media[store].objects()}

    def restart(self) -> None:
        """Begin again as a new process: nothing is left but the media and the catalogue."""
        for medium in self.media.values():
            medium.writers.clear()
            medium.faults = ()


def listing_of(replica_ids: Iterable[str]) -> str:
    """Return the hash of a list as notices carry it."""
    from lightkeep.lifecycle.retention.notices import listing_of as made

    return made(replica_ids)


def retained(
    folder: Path, *, policy: str = POLICY, capacity: int = 100_000, config: Config | None = None
) -> Retained:
    """Make the facility: a station, an open experiment, people, stores and a policy. No data yet.

    Parameters
    ----------
    capacity: bytes of the store `central`; 0: unknown.
    """
    clock = StillClock(BEGIN)
    ids = CountedIds()
    write_tables(folder / "catalog.db")
    catalog = Catalog.open(f"sqlite:///{folder / 'catalog.db'}", clock=clock, ids=ids)
    media = {name: Medium(f"medium-{name}", free=1 << 40) for name in _TIERS}
    stores = {name: FaultyStore(medium, id=name) for name, medium in media.items()}
    for name, store in stores.items():
        store.record = StoreRecord(
            name, "memory", name, store.medium.uuid, _TIERS[name], f"room-{name}",
            is_durable=name == "vault", capacity=capacity if name == "central" else 0,
        )  # fmt: skip
    facility = Facility(config or Config(folder), catalog, clock, ids, stores)
    with catalog.change(SERVICE) as tx:
        for store in stores.values():
            tx.add_store(store.record)
        tx.add_station(Station(STATION))
        tx.add_experiment(Experiment(EXPERIMENT, STATION, "Colloids"))
        for who in (ADMIN, MANAGER, PI, MEMBER):
            tx.add_person(Person(who.id, who.id.title(), f"{who.id}@example.org"))
        tx.add_grant(Grant(ADMIN.id, Role.FACILITY_ADMIN, Scope.FACILITY))
        tx.add_grant(Grant(MANAGER.id, Role.STATION_MANAGER, Scope.STATION, STATION))
        tx.add_grant(Grant(PI.id, Role.PI, Scope.EXPERIMENT, EXPERIMENT))
        tx.add_grant(Grant(MEMBER.id, Role.MEMBER, Scope.EXPERIMENT, EXPERIMENT))
    if policy:
        with catalog.change(ADMIN) as tx:
            tx.adopt_policy(policy)
    for record in catalog.view(SERVICE).stores():
        stores[record.id].record = replace(record)
    return Retained(facility, clock, media)
