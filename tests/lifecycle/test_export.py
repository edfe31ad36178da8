"""What is got is what was kept, or an error."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people import experiments, set_up
from lightkeep.lifecycle.replicas.export import get
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import Conflict, Forbidden, NotFound, SourceError, StorageError
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.testing.new_facility import new_facility

ADMIN = Principal("ada")
CONTENT = {"a.txt": b"one", "deep/er/b.txt": b"two" * 1000, os.fsdecode(b"odd-\xff\n"): b"three", "empty": b""}


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    with new_facility(Config(tmp_path / "facility"), admin=Person("ada", "Ada")) as made:
        set_up.add_station(made, Station("2-BM"), principal=ADMIN)
        experiments.create(made, Experiment("exp", "2-BM"), principal=ADMIN)
        yield made


@pytest.fixture
def dataset(facility: Facility, tmp_path: Path) -> Dataset:
    source = tmp_path / "scan"
    for path, content in CONTENT.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(content)
    os.utime(source / "a.txt", ns=(10**18, 10**18))
    (source / "a.txt").chmod(0o640)
    return ingest(facility, source, experiment_id="exp", principal=ADMIN, quiet_s=0).dataset


def stored(facility: Facility, dataset: Dataset, path: str) -> Path:
    """Return where a file's bytes are on the store."""
    view = facility.catalog.view(SERVICE)
    (replica,) = view.replicas([view.file(dataset.id, path).id])
    return Path(facility.stores[replica.store_id].record.location) / replica.key


def content_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_file_comes_out_as_it_went_in(facility: Facility, dataset: Dataset, tmp_path: Path) -> None:
    written = get(facility, dataset.id, tmp_path / "out", principal=ADMIN)
    assert content_of(tmp_path / "out") == CONTENT
    assert sorted(written) == sorted(tmp_path / "out" / path for path in CONTENT)
    status = (tmp_path / "out" / "a.txt").stat()
    assert (status.st_mtime_ns, status.st_mode & 0o777) == (10**18, 0o640)


def test_only_the_files_asked_for_come_out(facility: Facility, dataset: Dataset, tmp_path: Path) -> None:
    get(facility, dataset.id, tmp_path / "out", principal=ADMIN, paths=["a.txt"])
    assert content_of(tmp_path / "out") == {"a.txt": b"one"}


def test_a_second_time_copies_nothing(facility: Facility, dataset: Dataset, tmp_path: Path) -> None:
    out = tmp_path / "out"
    before = [path.stat().st_ino for path in get(facility, dataset.id, out, principal=ADMIN)]
    assert [path.stat().st_ino for path in get(facility, dataset.id, out, principal=ADMIN)] == before


@pytest.mark.parametrize("in_the_way", ["file", "symlink", "folder"])
def test_what_is_in_the_way_is_never_overwritten(
    facility: Facility, dataset: Dataset, tmp_path: Path, in_the_way: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    other = tmp_path / "precious"
    other.write_text("mine")
    if in_the_way == "file":
        (out / "a.txt").write_text("mine")
    elif in_the_way == "symlink":
        (out / "a.txt").symlink_to(other)
    else:
        (out / "a.txt").mkdir()
    with pytest.raises(Conflict, match=r"a\.txt is there already"):
        get(facility, dataset.id, out, principal=ADMIN)
    assert other.read_text() == "mine"
    assert in_the_way != "file" or (out / "a.txt").read_text() == "mine"


def test_a_link_to_elsewhere_is_not_followed(facility: Facility, dataset: Dataset, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "deep").symlink_to(elsewhere)
    with pytest.raises(SourceError):
        get(facility, dataset.id, out, principal=ADMIN)
    assert list(elsewhere.iterdir()) == []


def test_an_interrupted_copy_goes_on_where_it_stopped(
    facility: Facility, dataset: Dataset, tmp_path: Path
) -> None:
    file = facility.catalog.view(ADMIN).file(dataset.id, "deep/er/b.txt")
    part = tmp_path / "out" / "deep" / "er" / f".b.txt.{file.sha256[:8]}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[file.path][:1000])
    inode = part.stat().st_ino
    get(facility, dataset.id, tmp_path / "out", principal=ADMIN)
    assert (tmp_path / "out" / file.path).read_bytes() == CONTENT[file.path]
    assert (tmp_path / "out" / file.path).stat().st_ino == inode


def test_a_part_with_other_bytes_is_thrown_away(facility: Facility, dataset: Dataset, tmp_path: Path) -> None:
    file = facility.catalog.view(ADMIN).file(dataset.id, "a.txt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f".a.txt.{file.sha256[:8]}.part").write_bytes(b"longer than the file itself")
    get(facility, dataset.id, tmp_path / "out", principal=ADMIN)
    assert content_of(tmp_path / "out") == CONTENT


def test_a_byte_that_rotted_is_never_handed_out(facility: Facility, dataset: Dataset, tmp_path: Path) -> None:
    path = stored(facility, dataset, "a.txt")
    path.chmod(0o600)
    path.write_bytes(b"0ne")
    with pytest.raises(StorageError, match=r"a\.txt"):
        get(facility, dataset.id, tmp_path / "out", principal=ADMIN, paths=["a.txt"])
    assert content_of(tmp_path / "out") == {}


def test_an_unmounted_store_is_not_an_empty_file(facility: Facility, dataset: Dataset, tmp_path: Path) -> None:
    Path(facility.stores["central"].record.location).rename(tmp_path / "unmounted")
    with pytest.raises(StorageError, match="central"):
        get(facility, dataset.id, tmp_path / "out", principal=ADMIN)
    assert content_of(tmp_path / "out") == {}


def test_who_may_not_read_gets_nothing(facility: Facility, dataset: Dataset, tmp_path: Path) -> None:
    set_up.add_person(facility, Person("bob", "Bob"), principal=ADMIN)
    with pytest.raises(NotFound):
        get(facility, dataset.id, tmp_path / "out", principal=Principal("bob"))
    set_up.grant(facility, Grant("bob", Role.COLLABORATOR, Scope.EXPERIMENT, "exp"), principal=ADMIN)
    assert len(get(facility, dataset.id, tmp_path / "out", principal=Principal("bob"))) == len(CONTENT)


def test_nobody_gives_away_what_they_do_not_have(facility: Facility) -> None:
    for name in ("pia", "bob"):
        set_up.add_person(facility, Person(name, name), principal=ADMIN)
    set_up.grant(facility, Grant("pia", Role.PI, Scope.EXPERIMENT, "exp"), principal=ADMIN)
    set_up.grant(facility, Grant("bob", Role.MEMBER, Scope.EXPERIMENT, "exp"), principal=Principal("pia"))
    with pytest.raises(Forbidden):
        set_up.grant(
            facility, Grant("bob", Role.STATION_MANAGER, Scope.EXPERIMENT, "exp"), principal=Principal("pia")
        )
    with pytest.raises(Forbidden):
        set_up.grant(facility, Grant("pia", Role.MEMBER, Scope.EXPERIMENT, "exp"), principal=Principal("bob"))
