"""Replicate, archive and restore killed at every system call that changes something."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.crash.conftest import Bench
from tests.crash.copier import opened
from tests.crash.test_kill import POINTS, chosen

from lightkeep.config import Config
from lightkeep.facility import Facility, create_facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people.set_up import add_store
from lightkeep.lifecycle.replicas.archive import archive
from lightkeep.model.errors import LightkeepError
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Person, Principal
from lightkeep.model.stores import ReplicaState


@dataclass
class Copies(Bench):
    """One facility with three stores, and the process that copies between them."""

    def problems(self, *, is_over: bool) -> list[str]:
        """Return what must never be seen; and when it is over, what is missing."""
        facility = opened(self.root)
        try:
            return [*facility.catalog.verify_events(), *_wrong(facility), *(_missing(facility) if is_over else [])]
        finally:
            facility.close()


def _wrong(facility: Facility) -> Iterator[str]:
    view = facility.catalog.view(SERVICE)
    for dataset in view.datasets().items:
        for held in view.held_of(dataset.id):
            if held.replica.state is ReplicaState.VERIFIED:
                try:
                    with facility.stores[held.replica.store_id].open(held.replica.key) as file:
                        found = hashlib.sha256(file.read()).hexdigest()
                except LightkeepError as error:
                    found = error.message
                if found != held.file.sha256:
                    yield f"{held.replica.key} on {held.replica.store_id} is called verified: {found}"


def _missing(facility: Facility) -> Iterator[str]:
    view = facility.catalog.view(SERVICE)
    for name, homes in (("near", ("central", "second", "vault")), ("far", ("central", "vault"))):
        dataset = view.dataset_named("e1", name)
        assert dataset is not None
        for home in homes:
            good = [
                each.file.path
                for each in view.held_of(dataset.id)
                if (each.replica.store_id, each.replica.state) == (home, ReplicaState.VERIFIED)
            ]
            if len(good) != dataset.files or len(set(good)) != dataset.files:
                yield f"{name} has {len(good)} of {dataset.files} copies on {home}"
    for store in facility.stores.values():
        with store.stage():
            pass  # what a kill left is cleared by the next writer, whoever it is
        if left := os.listdir(Path(store.record.location, ".incoming")):
            yield f"{store.record.id} has parts left: {left}"
    units = [each.key for each in view.units().items]
    tars = [each.key for each in facility.stores["vault"].list() if ".tar" in each.key and "json" not in each.key]
    if sorted(units) != sorted(tars):
        yield f"units {units}, tars {tars}"


@pytest.fixture(scope="module")
def copies() -> Iterator[Copies]:
    """A dataset on `central`; another, of which only an archive unit on `vault` has a copy; `second` is empty."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: run scripts/install-services")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        root = Path(folder, "facility")
        with create_facility(Config(root), admin=Person("ada", "Ada")) as facility:
            _furnish(facility, Path(folder))
        shutil.copytree(root, Path(folder, "template"))
        command = [sys.executable, "-m", "tests.crash.copier"]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as victim:
            yield Copies(root, Path(folder), victim)
            victim.stdin.close()


def _furnish(facility: Facility, folder: Path) -> None:
    ada = Principal("ada")
    with facility.catalog.change(SERVICE) as tx:
        tx.add_station(Station("2-BM"))
        tx.add_experiment(Experiment("e1", "2-BM"))
    for name in ("second", "vault"):
        add_store(facility, name, facility.config.root / "stores" / name, principal=ada)
    kept = {}
    for name, files in (("far", 3), ("near", 6)):
        source = folder / name
        source.mkdir()
        for number in range(files):
            (source / f"frame{number}.tif").write_bytes(os.urandom(3000 + 1000 * number))
        kept[name] = ingest(facility, source, experiment_id="e1", principal=ada, quiet_s=0.0).dataset
        if name == "far":
            archive(facility, principal=ada, store_id="vault", dataset_id=kept["far"].id)
    near = [e for e in facility.catalog.view(SERVICE).replicas(kept["far"].id) if e.store_id == "central"]
    with facility.catalog.change(SERVICE) as tx:
        tx.set_replicas(near, state=ReplicaState.DELETE_PENDING)
        tx.set_replicas(near, state=ReplicaState.DELETED)
    for each in near:
        Path(facility.stores["central"].record.location, each.key).unlink()


@pytest.mark.crash
@pytest.mark.fault
def test_copies_survive_a_kill_at_any_system_call(copies, capsys, figure):
    copies.fresh()
    counts = copies.counts()
    assert copies.problems(is_over=True) == []
    points = chosen(counts) if POINTS == "all" else chosen(counts)[::5]
    killed = 0
    for call, k in points:
        copies.fresh()
        code, _ = copies.traced(inject=f"{call}:signal=KILL:when={k}", trace=call)
        killed += code == -9
        assert (call, k, copies.problems(is_over=False)) == (call, k, [])
        code = copies.ingest()
        assert (call, k, code, copies.problems(is_over=True)) == (call, k, 0, [])
    assert killed == len(points), f"{killed} of {len(points)} points were reached"
    figure(
        "F1",
        injected=f"kill -9 at {len(points)} of {sum(counts.values())} system calls ({', '.join(sorted(counts))}) "
        "of replicate, archive, restore",
        found=f"{killed} killed, 0 lost, 0 unfinished",
    )
    with capsys.disabled():
        sys.stdout.write(f"\nkilled at {killed} of {sum(counts.values())} points: {counts}\n")
