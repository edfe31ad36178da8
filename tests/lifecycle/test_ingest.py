"""A measured file or folder becomes a complete dataset, once, as it was, and the source stays as it is."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.lifecycle.replicas.manifest import all_files
from lightkeep.lifecycle.replicas.transfer import Pace
from lightkeep.lifecycle.replicas.walk import SourceTree
from lightkeep.model.datasets import DatasetKind, DatasetState
from lightkeep.model.errors import (
    BadFile,
    Conflict,
    Corrupt,
    Forbidden,
    InvalidInput,
    NotFound,
    SourceError,
    StorageError,
    StoreFull,
    UnsafeFile,
)
from lightkeep.model.experiments import Experiment, ExperimentState, Station
from lightkeep.model.people import SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.model.stores import Proof, ReplicaState
from lightkeep.storage.posix import PosixStore
from lightkeep.testing.new_facility import new_facility
from lightkeep.testing.stores import CRASH, DROP, EIO, ENOSPC, FLIP, POWER, Crashed, Fault, FaultyStore
from lightkeep.testing.suites.objects import ODD

ADA = Principal("ada")


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    with new_facility(Config(tmp_path / "facility"), admin=Person("ada", "Ada")) as made:
        with made.catalog.change(SERVICE) as tx:
            tx.add_station(Station("2-BM"))
            tx.add_experiment(Experiment("e1", "2-BM"))
        yield made


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "scan"
    for number in range(12):
        path = folder / f"part{number % 3}" / f"frame{number}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(1000 + number))
    return folder


def take_in(facility: Facility, source: Path, **options):
    return ingest(facility, source, **{"experiment_id": "e1", "principal": ADA, "quiet_s": 0.0, **options})


def on_faulty_store(facility: Facility) -> tuple[Facility, FaultyStore]:
    """Return the facility with a store in memory instead of its own."""
    store = FaultyStore(id="faulty")
    with facility.catalog.change(SERVICE) as tx:
        tx.add_store(store.record)
    return replace(facility, stores={"faulty": store}), store


def manifest(facility: Facility, dataset_id: str) -> dict[str, str]:
    return {file.path: file.sha256 for file in all_files(facility.catalog.view(SERVICE), dataset_id)}


def contents(folder: Path) -> dict[str, str]:
    """Path -> hash of the regular files below a folder, in bytes that only this test reads."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if stat.S_ISREG(path.lstat().st_mode):
                found[str(path.relative_to(folder))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def traces(folder: Path) -> list[tuple[str, int, int, int, int]]:
    """What would show that somebody touched the folder."""
    paths = [folder, *(Path(place, name) for place, below, names in os.walk(folder) for name in [*below, *names])]
    found = ((path, path.lstat()) for path in sorted(paths))
    return [
        (str(p), s.st_ino, s.st_mtime_ns, s.st_ctime_ns, s.st_atime_ns if stat.S_ISREG(s.st_mode) else 0)
        for p, s in found
    ]


def number_of_events(facility: Facility) -> int:
    return facility.catalog.head()[0]


def test_a_folder_becomes_a_complete_dataset_with_every_file(facility, source):
    done = take_in(facility, source)
    assert (done.dataset.name, done.dataset.state, done.dataset.kind) == ("scan", "complete", DatasetKind.RAW)
    assert (done.added, done.skipped, done.was_known) == (12, 0, False)
    assert manifest(facility, done.dataset.id) == contents(source)
    assert done.dataset.size == sum(path.stat().st_size for path in source.rglob("*.tif"))
    assert facility.catalog.verify_events() == []


def test_every_replica_was_read_back_past_the_cache(facility, source):
    done = take_in(facility, source)
    replicas = facility.catalog.view(ADA).replicas(done.dataset.id)
    assert {(each.state, each.proof) for each in replicas} == {(ReplicaState.VERIFIED, Proof.DIRECT)}
    assert all(each.verified_at is not None for each in replicas)


def test_keys_on_the_store_can_be_read_by_a_person(facility, source):
    done = take_in(facility, source)
    assert local_path(facility, done.dataset.id, "part0/frame0.tif").match("2-BM/e1/scan/part0/frame0.tif")


def test_the_source_is_never_touched(facility, source):
    (source / "link").symlink_to("part0")
    before = traces(source)
    take_in(facility, source)
    take_in(facility, source)
    assert traces(source) == before


def test_one_file_becomes_a_dataset_of_its_own(facility, source):
    done = take_in(facility, source / "part0" / "frame0.tif")
    assert done.dataset.name == "frame0"
    assert list(manifest(facility, done.dataset.id)) == ["frame0.tif"]


def test_the_same_source_again_changes_nothing(facility, source):
    first = take_in(facility, source)
    events = number_of_events(facility)
    second = take_in(facility, source)
    assert second.was_known
    assert (second.dataset, second.added) == (first.dataset, 0)
    assert number_of_events(facility) == events


def test_a_moved_source_with_the_same_content_is_known(facility, source, tmp_path):
    first = take_in(facility, source)
    moved = tmp_path / "elsewhere" / "scan"
    moved.parent.mkdir()
    source.rename(moved)
    (moved / "part0" / "frame0.tif").touch()
    second = take_in(facility, moved)
    assert second.was_known
    assert second.dataset == first.dataset


def test_other_content_under_a_complete_name_becomes_a_dataset_of_its_own(facility, source):
    first = take_in(facility, source)
    before = manifest(facility, first.dataset.id)
    (source / "part0" / "frame0.tif").write_bytes(b"measured again")
    second = take_in(facility, source)
    assert second.dataset.name == "scan-2"
    assert manifest(facility, first.dataset.id) == before
    assert manifest(facility, second.dataset.id) == contents(source)
    assert take_in(facility, source).dataset.id == second.dataset.id
    assert local_path(facility, first.dataset.id, "part0/frame0.tif").read_bytes() != b"measured again"


@pytest.mark.fault
def test_names_of_any_bytes_come_back(facility, tmp_path, figure):
    source = tmp_path / "odd"
    for name in [*ODD, "back\\slash", "nfc-\u00e9", "nfd-e\u0301", "x" * 200 + "/" + "y" * 200, "..."]:
        if name.count("/") > 9:
            continue  # longer than a path may be on the way there
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))
    done = take_in(facility, source)
    assert manifest(facility, done.dataset.id) == contents(source)
    for path in contents(source):
        assert local_path(facility, done.dataset.id, path).read_bytes() == os.fsencode(path)
    figure(
        "F14", injected=f"{done.dataset.files} odd names: bytes, newline, long, NFC and NFD", found="all come back"
    )


def test_what_is_no_regular_file_is_recorded_and_never_followed(facility, source):
    (source / "out").symlink_to("/etc/passwd")
    (source / "loop").symlink_to("loop")
    (source / "up").symlink_to("..")
    (source / "dangling").symlink_to(os.fsdecode(b"no\xff\xfe"))
    os.mkfifo(source / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = os.getcwd()
        os.chdir(source)  # a socket's path must be short
        server.bind("socket")
        os.chdir(here)
        done = take_in(facility, source)
    skipped = {each.path: (each.kind, each.target) for each in facility.catalog.view(ADA).skipped(done.dataset.id)}
    assert skipped == {
        "out": ("symlink", "/etc/passwd"),
        "loop": ("symlink", "loop"),
        "up": ("symlink", ".."),
        "dangling": ("symlink", os.fsdecode(b"no\xff\xfe")),
        "pipe": ("fifo", ""),
        "socket": ("socket", ""),
    }
    assert (done.added, done.skipped) == (12, 6)


def test_a_link_to_a_file_is_followed_when_the_user_names_it(facility, source, tmp_path):
    (tmp_path / "latest.tif").symlink_to(source / "part0" / "frame0.tif")
    assert take_in(facility, tmp_path / "latest.tif").dataset.name == "frame0"


def test_a_file_with_holes_keeps_its_bytes(facility, tmp_path):
    path = tmp_path / "sparse.raw"
    with path.open("wb") as file:
        file.seek(80 << 20)
        file.write(b"end")
    done = take_in(facility, path)
    kept = local_path(facility, done.dataset.id, "sparse.raw")
    assert kept.stat().st_size == (80 << 20) + 3
    assert kept.read_bytes() == path.read_bytes()
    assert kept.stat().st_blocks * 512 < 1 << 20


def test_hard_links_are_files_of_their_own(facility, source):
    os.link(source / "part0" / "frame0.tif", source / "again.tif")
    done = take_in(facility, source)
    assert manifest(facility, done.dataset.id) == contents(source)


def test_empty_files_are_kept(facility, source):
    (source / "empty").touch()
    assert "empty" in manifest(facility, take_in(facility, source).dataset.id)


def test_a_thousand_files_and_more_go_in_groups(facility, tmp_path):
    source = tmp_path / "many"
    source.mkdir()
    for number in range(250):
        (source / f"{number}").write_bytes(b"%d" % number)
    done = take_in(facility, source, pace=Pace(files=100))
    events = facility.catalog.view(SERVICE).events(subject=done.dataset.id)
    assert sum(event.verb == "dataset.files_added" for event in events) == 3
    assert manifest(facility, done.dataset.id) == contents(source)


def change_when_read(path: Path, change):
    """Return a report that changes a file once, while it is read."""
    done = []

    def report(fraction: float, text: str) -> None:
        del fraction, text
        if not done:
            done.append(True)
            change(path)

    return report


def rewrite_behind(path: Path) -> None:
    """Other bytes of the same length, with the modification time set back."""
    status = path.stat()
    with path.open("r+b") as file:
        file.write(b"other")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_another(path: Path) -> None:
    path.with_name("new").write_bytes(os.urandom(path.stat().st_size))
    path.with_name("new").rename(path)


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def shrink(path: Path) -> None:
    os.truncate(path, 10)


@pytest.mark.parametrize("change", [rewrite_behind, replace_by_another, grow, shrink])
@pytest.mark.parametrize("size", [3 << 20, 70 << 20])
@pytest.mark.fault
def test_a_file_that_changes_while_it_is_copied_is_taken_as_it_is_at_rest(
    facility, tmp_path, change, size, figure
):
    path = tmp_path / "scan" / "live.raw"
    path.parent.mkdir()
    path.write_bytes(os.urandom(size))
    done = take_in(facility, path.parent, report=change_when_read(path, change))
    assert manifest(facility, done.dataset.id) == contents(path.parent)
    assert done.dataset.files == 1
    figure("F9", injected=f"{change.__name__.replace('_', ' ')} while it is copied", found="0 sealed wrong")


@pytest.mark.parametrize("change", [Path.unlink, lambda path: (path.unlink(), path.symlink_to("/etc/passwd"))])
def test_a_file_that_goes_away_or_becomes_a_link_meanwhile_is_not_in_the_manifest(facility, source, change):
    last = source / "part2" / "frame8.tif"
    report = change_when_read(last, change)
    done = take_in(facility, source, report=report, pace=Pace(files=3, threads=1))
    assert "part2/frame8.tif" not in manifest(facility, done.dataset.id)
    assert manifest(facility, done.dataset.id) == contents(source)


def test_a_file_that_appears_meanwhile_is_in_the_manifest(facility, source):
    report = change_when_read(source / "late.tif", lambda path: path.write_bytes(b"late"))
    done = take_in(facility, source, report=report)
    assert "late.tif" in manifest(facility, done.dataset.id)


def test_a_file_that_never_rests_is_not_sealed(facility, tmp_path):
    path = tmp_path / "live.raw"
    path.write_bytes(b"0")

    class BesideAWriter(FaultyStore):
        """A store that gets each group while the source grows."""

        def stage(self, *, wait_s: float = 0.0):
            grow(path)
            return super().stage(wait_s=wait_s)

    facility, store = on_faulty_store(facility)
    facility = replace(facility, stores={"faulty": BesideAWriter(store.medium, id="faulty")})
    with pytest.raises(SourceError, match="still being written"):
        take_in(facility, path, store_id="faulty")
    assert list(store.list()) == []


def test_a_fresh_file_is_taken_only_after_its_quiet_time(facility, tmp_path):
    import time

    path = tmp_path / "fresh.raw"
    path.write_bytes(b"1")
    begin = time.monotonic()
    take_in(facility, path, quiet_s=0.3)
    assert time.monotonic() - begin > 0.25


@pytest.mark.parametrize("fault", [ENOSPC, EIO])
@pytest.mark.parametrize("operation", ["write", "sync", "rename", "sync-names"])
def test_a_store_that_fails_registers_nothing_and_the_next_ingest_finishes(facility, source, fault, operation):
    facility, store = on_faulty_store(facility)
    store.medium.faults = [Fault(operation, fault)]
    with pytest.raises(StoreFull if fault == ENOSPC else StorageError):
        take_in(facility, source, store_id="faulty")
    assert facility.catalog.view(SERVICE).dataset_named("e1", "scan") is None
    store.medium.faults = ()
    done = take_in(facility, source, store_id="faulty")
    assert sorted(each.key for each in store.list()) == [
        f"2-BM/e1/scan/{path}" for path in sorted(contents(source))
    ]
    assert manifest(facility, done.dataset.id) == contents(source)


@pytest.mark.parametrize("lie", [DROP, FLIP])
@pytest.mark.parametrize("when", [1, 5, 12])
def test_a_write_that_lies_is_found_before_anything_is_registered(facility, source, lie, when):
    facility, store = on_faulty_store(facility)
    store.medium.faults = [Fault("write", lie, when=when)]
    with pytest.raises(Corrupt):
        take_in(facility, source, store_id="faulty")
    assert facility.catalog.view(SERVICE).dataset_named("e1", "scan") is None


@pytest.mark.parametrize("fault", [CRASH, POWER])
@pytest.mark.fault
def test_an_end_at_any_operation_of_the_store_loses_nothing(facility, source, fault, figure):
    facility, store = on_faulty_store(facility)
    pace = Pace(files=5, threads=1)
    take_in(facility, source, store_id="faulty", name="first", pace=pace)  # writes the anchor, for a minute
    store.medium.counts.clear()
    take_in(facility, source, store_id="faulty", name="whole", pace=pace)
    operations = store.medium.counts[""]
    for when in range(1, operations + 1):
        name = f"run{when}"
        store.medium.counts.clear()
        store.medium.faults = [Fault("", fault, when=when)]
        with pytest.raises(Crashed):
            take_in(facility, source, store_id="faulty", name=name, pace=pace)
        store.medium.faults = ()
        done = take_in(facility, source, store_id="faulty", name=name, pace=pace)
        assert manifest(facility, done.dataset.id) == contents(source)
        store.medium.cut_power()
        keys = [replica.key for replica in facility.catalog.view(SERVICE).replicas(done.dataset.id)]
        assert keys == [f"2-BM/e1/{name}/{path}" for path in sorted(contents(source))]
        hashes = [store.verify(key).sha256 for key in keys]
        assert hashes == [digest for _, digest in sorted(contents(source).items())]
    assert facility.catalog.verify_events() == []
    which = "F3" if fault == POWER else "F1"
    figure(
        which, injected=f"{fault} at each of {operations} operations of the store", found="0 lost, 0 unfinished"
    )


def test_files_are_registered_where_they_lie(facility, source, tmp_path):
    record = PosixStore.initialise(tmp_path, "2-bm-disk", ids=facility.ids, is_managed=False)
    with facility.catalog.change(SERVICE) as tx:
        tx.add_store(record)
    before = traces(source)
    done = take_in(facility, source, in_place=True)
    assert traces(source) == before
    assert manifest(facility, done.dataset.id) == contents(source)
    assert local_path(facility, done.dataset.id, "part0/frame0.tif") == source / "part0" / "frame0.tif"
    assert take_in(facility, source, in_place=True).was_known


def test_files_outside_every_unmanaged_store_cannot_be_registered_in_place(facility, source):
    with pytest.raises(InvalidInput, match="in place"):
        take_in(facility, source, in_place=True)


def test_nothing_is_ever_written_to_an_unmanaged_store(facility, source, tmp_path):
    record = PosixStore.initialise(source, "disk", ids=facility.ids, is_managed=False)
    before = traces(source)
    with pytest.raises(StorageError):
        PosixStore(record).stage()
    PosixStore(record).check_identity()
    assert traces(source) == before


def test_a_closed_experiment_takes_no_raw_data_but_results(facility, source):
    with facility.catalog.change(SERVICE) as tx:
        tx.set_experiment_state("e1", ExperimentState.CLOSED)
    with pytest.raises(Conflict, match="closed"):
        take_in(facility, source)
    assert take_in(facility, source, kind=DatasetKind.DERIVED).dataset.state is DatasetState.COMPLETE


def test_only_who_may_write_can_ingest(facility, source):
    with facility.catalog.change(SERVICE) as tx:
        tx.add_person(Person("bob", "Bob"))
        tx.add_person(Person("eve", "Eve"))
        tx.add_grant(Grant("bob", Role.COLLABORATOR, Scope.EXPERIMENT, "e1"))
    with pytest.raises(Forbidden):
        take_in(facility, source, principal=Principal("bob"))
    with pytest.raises(NotFound):
        take_in(facility, source, principal=Principal("eve"))


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "new\nline", "x" * 300])
def test_a_dataset_has_a_name_that_can_be_shown(facility, source, name):
    if name:
        with pytest.raises(InvalidInput):
            take_in(facility, source, name=name)


def test_a_missing_source_is_named(facility, tmp_path):
    with pytest.raises(SourceError, match="nowhere"):
        take_in(facility, tmp_path / "nowhere")


def test_an_empty_folder_is_nothing_to_ingest(facility, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="no regular file"):
        take_in(facility, tmp_path / "empty")


def test_an_unreadable_folder_is_named_with_a_remedy(source, tmp_path):
    (source / "part1").chmod(0)
    with SourceTree(source) as tree:
        child = os.fork()
        if child == 0:
            if os.geteuid() == 0:
                os.setuid(65534)  # root reads everything
            try:
                tree.walk()
            except SourceError as error:
                os._exit(0 if "part1" in error.message and "readable" in error.remedy else 2)
            os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    (source / "part1").chmod(0o755)
    assert code == 0


def test_the_store_itself_is_no_source(facility, source):
    done = take_in(facility, source)
    inside = local_path(facility, done.dataset.id, "part0/frame0.tif")
    with pytest.raises(InvalidInput, match="inside store"):
        take_in(facility, inside)


def test_a_measured_file_is_recognised(facility, shared_data):
    done = take_in(facility, shared_data / "tomography" / "tooth.h5")
    assert (done.dataset.format, done.dataset.technique) == ("data-exchange", "tomography")
    assert done.dataset.main_file == "tooth.h5"
    assert done.dataset.metadata.texts["sample"] == "Tooth"


def test_a_folder_has_its_largest_known_file_as_main_file(facility, shared_data, source):
    (source / "tooth.h5").write_bytes((shared_data / "tomography" / "tooth.h5").read_bytes())
    (source / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(2_000_000))
    done = take_in(facility, source)
    assert (done.dataset.main_file, done.dataset.format) == ("tooth.h5", "data-exchange")
    assert "broken.h5" in manifest(facility, done.dataset.id)


@pytest.mark.parametrize("keep", [0, 7, 100, 5000])
def test_a_truncated_file_is_refused_before_anything_is_registered(facility, shared_data, tmp_path, keep):
    path = tmp_path / "cut.h5"
    path.write_bytes((shared_data / "tomography" / "tooth.h5").read_bytes()[:keep])
    events = number_of_events(facility)
    with pytest.raises(BadFile, match=r"cut\.h5"):
        take_in(facility, path)
    assert number_of_events(facility) == events
    assert list(facility.stores["central"].list()) == []


def test_a_file_that_reaches_outside_itself_is_refused(facility, tmp_path):
    h5py = pytest.importorskip("h5py")
    (tmp_path / "secret").write_bytes(b"token" * 100)
    with h5py.File(tmp_path / "evil.h5", "w") as file:
        file.create_dataset("x", (500,), "u1", external=[(str(tmp_path / "secret"), 0, 500)])
    with pytest.raises(UnsafeFile):
        take_in(facility, tmp_path / "evil.h5")
    assert facility.catalog.view(SERVICE).dataset_named("e1", "evil") is None


def test_files_taken_many_at_once_are_kept_as_one_by_one(facility, source):
    odd = source / "odd"
    odd.mkdir()
    for number, name in enumerate({key.rpartition("/")[2] for key in ODD}):
        (odd / name).write_bytes(os.urandom(4096 * number))
    (odd / "large").write_bytes(os.urandom((2 << 20) + 1))
    (odd / "link").symlink_to("large")
    keys = {}
    for name, many in (("by-one", 10**9), ("by-many", 1)):
        dataset = take_in(facility, source, name=name, pace=Pace(files=7, many=many)).dataset
        view = facility.catalog.view(ADA)
        keys[name] = {file.path: (file.sha256, file.size, file.mtime_ns) for file in all_files(view, dataset.id)}
        assert keys[name] == {
            str(path.relative_to(source)): (
                hashlib.sha256(path.read_bytes()).hexdigest(),
                path.stat().st_size,
                path.stat().st_mtime_ns,
            )
            for path in source.rglob("*")
            if path.is_file() and not path.is_symlink()
        }
        assert {replica.proof for replica in view.replicas(dataset.id)} == {Proof.DIRECT}
    assert keys["by-one"] == keys["by-many"]
