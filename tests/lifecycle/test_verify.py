"""Every byte is read back; what differs is marked, never deleted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.lifecycle.replicas.verify import verify
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import Corrupt, NotFound
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Person, Principal
from lightkeep.model.stores import ReplicaState
from lightkeep.testing.new_facility import new_facility

ADA = Principal("ada")
SIZE = 20_000


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    with new_facility(Config(tmp_path / "facility"), admin=Person("ada", "Ada")) as made:
        with made.catalog.change(SERVICE) as tx:
            tx.add_station(Station("2-BM"))
            tx.add_experiment(Experiment("e1", "2-BM"))
        yield made


@pytest.fixture
def dataset(facility: Facility, tmp_path: Path) -> Dataset:
    source = tmp_path / "scan"
    source.mkdir()
    for name in ("a", "b", "c"):
        (source / name).write_bytes(os.urandom(SIZE))
    return ingest(facility, source, experiment_id="e1", principal=ADA, quiet_s=0.0).dataset


def states(facility: Facility, dataset: Dataset) -> dict[str, ReplicaState]:
    view = facility.catalog.view(SERVICE)
    return {each.key.rsplit("/")[-1]: each.state for each in view.replicas(dataset.id)}


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))
        file.flush()
        os.fsync(file.fileno())


def test_a_whole_dataset_is_verified_again_with_its_time(facility, dataset):
    before = [each.verified_at for each in facility.catalog.view(ADA).replicas(dataset.id)]
    report = verify(facility, dataset.id, principal=ADA)
    assert (report.checked, report.corrupt, report.suspect, report.unproven) == (3, (), (), ())
    after = [each.verified_at for each in facility.catalog.view(ADA).replicas(dataset.id)]
    assert all(then < now for then, now in zip(before, after, strict=True))
    assert facility.catalog.verify_events() == []


@pytest.mark.parametrize("at", [0, 4095, SIZE // 2, SIZE - 1])
def test_one_flipped_bit_anywhere_makes_a_replica_corrupt_and_keeps_it(facility, dataset, at):
    path = local_path(facility, dataset.id, "b")
    flip(path, at)
    report = verify(facility, dataset.id, principal=ADA)
    assert (report.checked, report.corrupt) == (2, ("b",))
    assert states(facility, dataset) == {"a": "verified", "b": "corrupt", "c": "verified"}
    assert path.is_file()
    with pytest.raises(NotFound):
        local_path(facility, dataset.id, "b")


@pytest.mark.parametrize("size", [0, 10, SIZE - 1, SIZE + 1])
def test_a_replica_of_another_length_is_corrupt(facility, dataset, size):
    path = local_path(facility, dataset.id, "b")
    os.truncate(path, size)
    with pytest.raises(Corrupt):
        local_path(facility, dataset.id, "b")
    assert verify(facility, dataset.id, principal=ADA).corrupt == ("b",)


def test_swapped_files_are_both_found(facility, dataset):
    first, second = (local_path(facility, dataset.id, name) for name in ("a", "b"))
    first.rename(first.with_name("x"))
    second.rename(first)
    first.with_name("x").rename(second)
    assert verify(facility, dataset.id, principal=ADA).corrupt == ("a", "b")


def test_a_file_that_is_gone_is_corrupt(facility, dataset):
    local_path(facility, dataset.id, "c").unlink()
    assert verify(facility, dataset.id, principal=ADA).corrupt == ("c",)


def test_a_store_that_is_not_mounted_says_nothing_about_its_files(facility, dataset, tmp_path):
    location = Path(facility.stores["central"].record.location)
    location.rename(tmp_path / "unplugged")
    location.mkdir()
    report = verify(facility, dataset.id, principal=ADA)
    assert (report.checked, report.corrupt, report.unavailable) == (0, (), ("central",))
    assert set(states(facility, dataset).values()) == {ReplicaState.VERIFIED}


def test_a_dataset_that_may_not_be_seen_cannot_be_verified(facility, dataset):
    with facility.catalog.change(SERVICE) as tx:
        tx.add_person(Person("eve", "Eve"))
    with pytest.raises(NotFound):
        verify(facility, dataset.id, principal=Principal("eve"))
