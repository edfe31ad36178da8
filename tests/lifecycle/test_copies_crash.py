"""Replicate, repair, scrub, archive and restore: killed, cut off and refused at every single operation.

Each trial begins from the same prepared house, lets one operation go wrong, or all from there on, looks at what is
left and runs the verb again without faults: nothing is ever called good that is not, and all of it converges.
"""

from __future__ import annotations

import copy
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lightkeep.catalog import Catalog
from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.replicas.archive import archive
from lightkeep.lifecycle.replicas.replicate import replicate
from lightkeep.lifecycle.replicas.restore import request, run_queue
from lightkeep.lifecycle.replicas.scrub import scrub
from lightkeep.lifecycle.replicas.transfer import Pace
from lightkeep.lifecycle.replicas.verify import verify
from lightkeep.model.errors import Conflict, LightkeepError
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.model.stores import ReplicaState, StoreRecord, Tier
from lightkeep.testing.simulator.world import CountedIds
from lightkeep.testing.stores import CRASH, EIO, ENOSPC, POWER, Crashed, Fault, FaultyStore, Medium

ADA = Principal("ada")
ONE = Pace(threads=1)
NAMES = ("a", "b", "c")
POINTS = os.environ.get("LIGHTKEEP_CRASH_POINTS", "150")
"""`all`, or about how many trials to make of all verbs together."""
TIERS = {"central": Tier.HOT, "second": Tier.WARM}


class Clock:
    def __init__(self) -> None:
        self.at = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def now(self) -> datetime:
        self.at += timedelta(milliseconds=1)
        return self.at


class Ledger:
    """The catalogue, with each commit an operation: a kill comes before it, or right after it."""

    def __init__(self, catalog: Catalog, medium: Medium) -> None:
        self._catalog = catalog
        self._medium = medium

    def __getattr__(self, name: str) -> Any:
        return getattr(self._catalog, name)

    @contextmanager
    def change(self, principal: Principal) -> Iterator[Any]:
        with self._catalog.change(principal) as tx:
            yield tx
            self._medium.operate("before")
        self._medium.operate("after")


@dataclass
class House:
    """A facility of two stores in memory that can be set back to how it was prepared."""

    folder: Path
    media: dict[str, Medium] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    ids: CountedIds = field(default_factory=CountedIds)
    facility: Facility = None  # type: ignore[assignment]
    dataset_id: str = ""
    spoiled: frozenset[str] = frozenset()
    """Keys that were harmed on purpose."""

    def open(self) -> None:
        """Start a process on the media."""
        if self.facility is not None:
            self.facility.close()
        catalog = Catalog.open(f"sqlite:///{self.folder / 'catalog.db'}", clock=self.clock, ids=self.ids)
        ledger = Ledger(catalog, self.media["ledger"])
        stores = {name: FaultyStore(self.media[name], id=name) for name in TIERS}
        for name, store in stores.items():
            store.record = replace(store.record, tier=TIERS[name])
        self.facility = Facility(Config(self.folder), ledger, self.clock, self.ids, stores)

    def keep(self) -> None:
        """Remember how everything is now."""
        self.facility.close()
        shutil.copy(self.folder / "catalog.db", self.folder / "kept.db")
        self.kept = {
            name: (dict(m.names), {i: bytes(n.now) for i, n in m.names.items()}) for name, m in self.media.items()
        }
        self.open()

    def reset(self) -> None:
        """Be again as it was kept."""
        self.facility.close()
        for end in ("-wal", "-shm"):
            (self.folder / f"catalog.db{end}").unlink(missing_ok=True)
        shutil.copy(self.folder / "kept.db", self.folder / "catalog.db")
        for name in list(self.media):
            medium = Medium(self.media[name].uuid)
            for key, content in self.kept[name][1].items():
                inode = copy.copy(self.kept[name][0][key])
                inode.now, inode.durable = bytearray(content), content
                medium.names[key] = medium.durable_names[key] = inode
            self.media[name] = medium
        self.open()

    def wrong(self) -> list[str]:
        """Return what must never be seen: a replica called verified whose bytes on the medium are others."""
        problems = self.facility.catalog.verify_events()
        for held in self.facility.catalog.view(SERVICE).held_of(self.dataset_id):
            if held.replica.state is not ReplicaState.VERIFIED or held.replica.key in self.spoiled:
                continue
            try:
                with self.facility.stores[held.replica.store_id].open(held.replica.key) as file:
                    found = hashlib.sha256(file.read()).hexdigest()
            except LightkeepError as error:
                found = error.message
            if found != held.file.sha256:
                problems.append(f"{held.replica.key} on {held.replica.store_id}: {found}")
        return problems

    def good(self, store_id: str) -> list[str]:
        """Return the files with a verified copy on a store."""
        held = self.facility.catalog.view(SERVICE).held_of(self.dataset_id)
        return sorted(
            {
                each.file.path
                for each in held
                if each.replica.store_id == store_id
                and each.replica.state is ReplicaState.VERIFIED
                and each.replica.key not in self.spoiled
            }
        )


def house(folder: Path, source: Path) -> House:
    """A dataset of three files on `central`."""
    for name in NAMES:
        source.mkdir(exist_ok=True)
        (source / name).write_bytes(hashlib.sha256(name.encode()).digest() * 40)
    made = House(folder, {name: Medium(name) for name in (*TIERS, "ledger")})
    made.open()
    with made.facility.catalog.change(SERVICE) as tx:
        tx.add_person(Person("ada", "Ada", email="ada@example.org"))
        tx.add_grant(Grant("ada", Role.FACILITY_ADMIN, Scope.FACILITY))
        tx.add_station(Station("2-BM"))
        tx.add_experiment(Experiment("e1", "2-BM"))
        for name, store in made.facility.stores.items():
            tx.add_store(
                StoreRecord(name, "memory", name, store.record.uuid, tier=TIERS[name], failure_domain=name)
            )
    done = ingest(made.facility, source, experiment_id="e1", principal=ADA, quiet_s=0.0, pace=ONE)
    made.dataset_id = done.dataset.id
    return made


# ---- the verbs: how each is prepared, run, and what it must have reached


def spoil(kept: House) -> None:
    replicate(kept.facility, kept.dataset_id, principal=ADA, store_id="second", pace=ONE)
    (key,) = [key for key, _ in kept.media["second"].objects() if key.endswith("/b")]
    kept.media["second"].names[key].now[7] ^= 1
    kept.spoiled = frozenset({key})


def old(kept: House) -> None:
    spoil(kept)
    with kept.facility.catalog.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE replica SET verified_at = verified_at - 100 * 86400 * 1000000")


def far(kept: House) -> None:
    archive(kept.facility, principal=ADA, store_id="second", experiment_id="e1", pace=ONE)
    view = kept.facility.catalog.view(SERVICE)
    near = [each for each in view.replicas(kept.dataset_id) if each.store_id == "central"]
    with kept.facility.catalog.change(SERVICE) as tx:
        tx.set_replicas(near, state=ReplicaState.DELETE_PENDING)
        tx.set_replicas(near, state=ReplicaState.DELETED)
    for each in near:
        del kept.media["central"].names[each.key]


def bring_back(kept: House) -> None:
    with suppress(Conflict):
        request(kept.facility, principal=ADA, dataset_id=kept.dataset_id)
    run_queue(kept.facility, pace=ONE)


def copied(kept: House) -> None:
    assert kept.good("second") == list(NAMES)


def came_back(kept: House) -> None:
    assert kept.good("central") == list(NAMES)


def packed(kept: House) -> None:
    copied(kept)
    units = kept.facility.catalog.view(ADA).units().items
    assert sum(unit.members for unit in units) == len(NAMES)
    tars = [key for key, _ in kept.media["second"].objects() if key.endswith((".tar", ".tar.zst"))]
    assert sorted(unit.key for unit in units) == tars  # a file that could not be read goes into the next one


def repaired(kept: House) -> None:
    copied(kept)
    (key,) = kept.spoiled
    held = kept.facility.catalog.view(SERVICE).held_of(kept.dataset_id)
    assert [
        each.replica.state for each in held if each.replica.key == key and each.replica.store_id == "second"
    ] == [ReplicaState.CORRUPT]
    assert key in kept.media["second"].names


VERBS: Mapping[str, tuple[Callable[[House], None], Callable[[House], Any], Callable[[House], None]]] = {
    "replicate": (
        lambda _kept: None,
        lambda kept: replicate(kept.facility, kept.dataset_id, principal=ADA, store_id="second", pace=ONE),
        copied,
    ),
    "repair": (spoil, lambda kept: verify(kept.facility, kept.dataset_id, principal=ADA, repair=True), repaired),
    "scrub": (old, lambda kept: scrub(kept.facility, principal=ADA, wait=lambda _s: None), repaired),
    "archive": (
        lambda _kept: None,
        lambda kept: archive(kept.facility, principal=ADA, store_id="second", experiment_id="e1", pace=ONE),
        packed,
    ),
    "restore": (far, bring_back, came_back),
}


def points(kept: House, run: Callable[[House], Any]) -> list[tuple[str, int]]:
    """Run once without faults; return every operation of every medium, as (medium, number)."""
    kept.reset()
    run(kept)
    return [(name, n) for name, medium in kept.media.items() for n in range(1, medium.counts[""] + 1)]


def attempt(kept: House, run: Callable[[House], Any]) -> str:
    try:
        run(kept)
    except Crashed:
        for medium in kept.media.values():
            medium.writers.clear()  # the locks of the process that died
        return "killed"
    except LightkeepError as error:
        return error.code
    return "done"


@dataclass(frozen=True)
class Trial:
    """What goes wrong."""

    medium: str
    number: int
    kind: str
    is_lasting: bool

    def faults(self) -> list[Fault]:
        last = self.number + (300 if self.is_lasting else 1)
        return [Fault("", self.kind, when=number) for number in range(self.number, last)]


@pytest.mark.fault
@pytest.mark.parametrize("verb", VERBS)
def test_every_operation_may_be_the_last(verb: str, tmp_path: Path, figure: Callable[..., None]) -> None:
    prepare, run, reached = VERBS[verb]
    (tmp_path / "house").mkdir()
    kept = house(tmp_path / "house", tmp_path / "scan")
    prepare(kept)
    kept.keep()
    operations = points(kept, run)
    reached(kept)
    assert kept.wrong() == []
    trials = [
        Trial(name, number, kind, is_lasting)
        for name, number in operations
        for kind in ((CRASH,) if name == "ledger" else (CRASH, POWER, EIO, ENOSPC))
        for is_lasting in ((False, True) if kind in (EIO, ENOSPC) else (False,))
    ]
    some = trials if POINTS == "all" else trials[:: -(-len(trials) // (int(POINTS) // 6))]
    killed = 0
    for trial in some:
        kept.reset()
        kept.media[trial.medium].faults = trial.faults()
        ended = attempt(kept, run)
        killed += ended == "killed"
        for medium in kept.media.values():
            medium.faults = ()
        kept.open()
        assert kept.wrong() == [], (trial, ended)
        for _ in range(2):
            assert attempt(kept, run) in ("done", "conflict"), (trial, ended)
        try:
            reached(kept)
        except AssertionError as error:
            raise AssertionError(trial, ended) from error
        assert kept.wrong() == [], (trial, ended)
    kills = sum(trial.kind in (CRASH, POWER) for trial in some)
    assert killed == kills
    kept.facility.close()
    figure(
        "F3",
        injected=f"{verb}: kill, power cut, EIO, ENOSPC at {len(operations)} operations: {len(some)} trials",
        found=f"{killed} of {kills} killed, 0 lost, 0 not converged",
    )


def test_a_flipped_bit_on_the_way_from_the_source_is_read_again_from_another_copy(tmp_path: Path) -> None:
    from lightkeep.testing.stores import FLIP

    (tmp_path / "house").mkdir()
    kept = house(tmp_path / "house", tmp_path / "scan")
    kept.media["central"].faults = [Fault("read", FLIP, when=kept.media["central"].counts["read"] + 1)]
    done = replicate(kept.facility, kept.dataset_id, principal=ADA, store_id="second", pace=ONE)
    assert done.suspect == done.failed == ("a",)
    kept.media["central"].faults = ()
    assert kept.good("second") == ["b", "c"]
    assert replicate(kept.facility, kept.dataset_id, principal=ADA, store_id="second", pace=ONE).copied == 1
    assert kept.good("second") == list(NAMES)
    kept.facility.close()
