"""A store on HPSS against a simulated tape library: real processes, and what goes wrong with tapes."""

from __future__ import annotations

import io
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from lightkeep.model.clock import SystemIds
from lightkeep.model.errors import (
    ConfigError,
    Conflict,
    Corrupt,
    InvalidInput,
    NotFound,
    SourceError,
    StorageError,
    StoreFull,
    StoreUnavailable,
)
from lightkeep.model.stores import Store, Tier
from lightkeep.storage import open_store
from lightkeep.storage.hpss import HpssStore
from lightkeep.storage.hpss_commands import Place, decode, encode
from lightkeep.storage.units import read_index, recall_order
from lightkeep.testing.suites.objects import ODD, content_of, keep, keep_all
from lightkeep.testing.suites.store import BrokenSource, StoreSuite
from lightkeep.testing.tape import TapeLibrary
from lightkeep.testing.units import archive, source_of

ROOT = "/home/beamline/lightkeep"


@pytest.fixture
def library(tmp_path: Path) -> TapeLibrary:
    return TapeLibrary.make(tmp_path / "library")


@pytest.fixture
def store(library: TapeLibrary) -> HpssStore:
    return HpssStore(HpssStore.initialise(library.location(ROOT), "tape", ids=SystemIds()))


class TestHpssStore(StoreSuite):
    odd = [name for name in ODD if len(name) < 300]  # noqa: RUF012

    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        library = TapeLibrary.make(tmp_path / "library")
        return HpssStore(HpssStore.initialise(library.location(ROOT), "tape", ids=SystemIds()))

    def die_while_writing(self, store: Store, key: str, content: bytes) -> None:
        child = os.fork()
        if child == 0:
            staging = store.stage()
            staging.write(key, io.BytesIO(content), size=len(content))
            staging.sync()
            os._exit(9)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9

    def unmount(self, store: Store) -> None:
        assert isinstance(store, HpssStore)
        files = Path(store.hpss.place.hsi[0]).parents[1] / "files"
        files.rename(files.with_name("elsewhere"))
        files.mkdir()


def parts(library: TapeLibrary) -> list[str]:
    """Names of the parts that are left."""
    incoming = library.file(f"{ROOT}/.incoming")
    return [path.name for path in incoming.rglob("*") if path.is_file()]


def test_a_store_is_on_tape_and_keeps_for_years(library, store):
    assert (store.record.kind, store.record.tier, store.record.is_durable) == ("hpss", Tier.TAPE, True)
    again = HpssStore.initialise(library.location(ROOT), "other", ids=SystemIds())
    assert again.uuid == store.record.uuid
    assert isinstance(open_store(store.record), HpssStore)
    keep(store, x=b"x")
    library.file(f"{ROOT}/.lightkeep-store-{store.record.uuid}").unlink()
    with pytest.raises(Conflict):
        HpssStore.initialise(library.location(ROOT), "other", ids=SystemIds())


def test_another_store_in_its_place_is_named(library, store):
    keep(store, x=b"x")
    marker = library.file(f"{ROOT}/.lightkeep-store-{store.record.uuid}")
    marker.rename(marker.with_name(".lightkeep-store-store_other"))
    with pytest.raises(StoreUnavailable, match="store_other"):
        store.check_identity()


def test_asking_who_a_store_is_or_what_it_holds_mounts_no_tape(library, store):
    keep(store, x=b"x")
    before = library.journal()
    store.check_identity()
    assert [each.key for each in store.list()] == ["x"]
    assert store.stat("x").size == 1
    store.trash("x", bin="plan_1", size=1)
    assert not any(line.startswith(("get", "mount")) for line in library.journal()[len(before) :])


def test_names_on_the_archive_are_plain_and_come_back():
    for key in [*ODD, "~x", "a/-b", "%41", "a;rm b", "x\\y", "'\"", "units/u.tar"]:
        if len(os.fsencode(key)) < 300:
            path = encode(key)
            assert decode(path) == key
            assert all(each.isalnum() or each in "/._%-" for each in path)
            assert not any(name.startswith("-") for name in path.split("/"))
    with pytest.raises(InvalidInput, match="too long"):
        encode("x" * 1000)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("half", StorageError),
        ("lost", StorageError),
        ("flip", Corrupt),
        ("late", StorageError),
        ("full", StoreFull),
        ("error", StorageError),
    ],
)
def test_a_put_that_went_wrong_leaves_nothing_under_its_name(library, store, kind, error):
    content = os.urandom(200_000)
    library.fault("put", kind, when=2)
    with pytest.raises(error):
        keep_all(store, {"a": b"first", "b": content})
    library.clear_faults()
    assert list(store.list()) == []
    keep_all(store, {"a": b"first", "b": content})
    assert content_of(store, "b") == content
    assert parts(library) == []


@pytest.mark.parametrize("kind", ["mount", "media", "short", "flip"])
def test_a_read_back_that_went_wrong_keeps_nothing(library, store, kind):
    library.fault("get", kind)
    with pytest.raises(StorageError):
        keep(store, x=os.urandom(100_000))
    library.clear_faults()
    assert list(store.list()) == []
    assert parts(library) == []


@pytest.mark.parametrize("kind", ["mount", "media", "short", "flip"])
def test_a_recall_that_went_wrong_is_an_error_or_other_bytes_never_a_short_object(library, store, kind):
    content = os.urandom(100_000)
    keep(store, x=content)
    library.fault("get", kind)
    if kind == "flip":
        assert store.verify("x").sha256 != store.verify("x").sha256
        return
    with pytest.raises(StorageError) as caught:
        store.open("x")
    assert not isinstance(caught.value, StoreUnavailable)
    assert content_of(store, "x") == content


def test_a_command_that_found_no_session_is_tried_again(library, store):
    for command in ("put", "get", "ls", "mv", "mkdir"):
        library.fault(command, "temporary", times=2)
    content = os.urandom(50_000)
    keep(store, x=content)
    library.clear_faults()
    assert content_of(store, "x") == content


def test_an_archive_without_a_session_for_long_is_unavailable(library, store):
    keep(store, x=b"x")
    library.fault("get", "temporary", times=100)
    with pytest.raises(StoreUnavailable):
        store.open("x")
    library.fault("put", "temporary", times=100)
    library.clear_faults()
    library.fault("put", "temporary", times=100)
    with pytest.raises(StoreUnavailable):
        keep(store, y=b"y" * 3_000_000)


@pytest.mark.fault
def test_a_command_that_hangs_has_a_deadline(library, figure):
    location = library.location(ROOT, deadline_s=0.5, stall_s=0.5)
    store = HpssStore(HpssStore.initialise(location, "tape", ids=SystemIds()))
    keep(store, x=b"x")
    for command in ("ls", "get"):
        library.fault(command, "hang")
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable, match="did not answer"):
            store.open("x")
        assert time.monotonic() - begun < 5
        library.clear_faults()
    library.fault("put", "hang")
    with pytest.raises(StoreUnavailable):
        keep(store, y=b"y" * 3_000_000)
    library.clear_faults()
    assert [each.key for each in store.list()] == ["x"]
    figure(
        "F12", injected="a tape system that never answers ls, get, put", found="given up at the deadline; 0 lost"
    )


@pytest.mark.parametrize("command", ["put", "get", "ls", "mv", "mkdir", "rm"])
@pytest.mark.parametrize("when", [1, 2])
def test_a_client_that_dies_anywhere_leaves_whole_objects_or_none(library, store, command, when):
    contents = {"a/x": os.urandom(1000), "b": os.urandom(100)}
    library.fault(command, "die", when=when)
    with suppress(StorageError):
        keep_all(store, contents)
    library.clear_faults()
    for each in store.list():
        assert content_of(store, each.key) == contents[each.key]
    kept = keep_all(store, contents)
    assert {key: each.key for key, each in kept.items()} == {"a/x": "a/x", "b": "b"}
    assert [each.key for each in store.list()] == ["a/x", "b"]
    assert parts(library) == []


def test_a_rename_whose_answer_was_lost_is_done_once(library, store):
    keep(store, x=b"content")
    library.fault("mv", "late")
    with pytest.raises(StorageError):
        store.trash("x", bin="plan_1", size=7)
    library.clear_faults()
    trashed = store.trash("x", bin="plan_1", size=7)
    assert [each.key for each in store.trashed()] == [trashed]
    store.recover(trashed, "x")
    assert content_of(store, "x") == b"content"


def test_a_source_that_breaks_stops_the_put_and_is_named(library, store):
    with store.stage() as staging, pytest.raises(SourceError):
        staging.write("x", BrokenSource(3_000_000), size=9_000_000)
    assert parts(library) == []


def test_no_more_sessions_run_at_once_than_allowed(tmp_path):
    library = TapeLibrary.make(tmp_path / "library", sessions=3)
    store = HpssStore(
        HpssStore.initialise(library.location(ROOT, sessions=3, pause_s=30), "tape", ids=SystemIds())
    )
    keep_all(store, {f"{number}": b"x" * number for number in range(6)})
    with ThreadPoolExecutor(6) as pool:  # a refusal would cost half a minute
        found = list(pool.map(lambda number: content_of(store, f"{number}"), range(6)))
    assert found == [b"x" * number for number in range(6)]


def test_waiting_for_a_tape_blocks_nobody_else(tmp_path):
    library = TapeLibrary.make(tmp_path / "library", mount_s=0.5, drives=1)
    store = HpssStore(HpssStore.initialise(library.location(ROOT), "tape", ids=SystemIds()))
    keep(store, x=b"x")
    reader = threading.Thread(target=content_of, args=(store, "x"))
    reader.start()
    begun = time.monotonic()
    assert store.stat("x").size == 1
    assert time.monotonic() - begun < 0.4
    reader.join()


@pytest.mark.parametrize("has_htar", [False, True])
def test_single_members_are_recalled_without_their_unit(library, has_htar):
    location = library.location(ROOT, has_htar=has_htar)
    store = HpssStore(HpssStore.initialise(location, "tape", ids=SystemIds()))
    contents = {f"scan/{number}": os.urandom(1000 * number) for number in range(3)} | {"a\nb": b"odd"}
    index = archive(store, [source_of(content, path) for path, content in contents.items()])
    assert [each.key for each in store.list()] == [index.key, f"{index.key}.json"]
    for member in sorted(index.members, key=lambda member: member.path == "a\nb"):  # for that one the unit comes
        assert content_of(store, index.key_of(member)) == contents[member.path]
        assert store.verify(index.key_of(member)).sha256 == member.sha256
    taken = [line for line in library.journal() if line.startswith("htar ")]
    assert len(taken) == (2 * 3 if has_htar else 0)  # the odd name has no place in htar's index
    assert read_index(store, index.key) == index
    trashed = store.trash(index.key, bin="plan_1", size=index.size)
    assert [each.key for each in store.list()] == [f"{index.key}.json"]
    store.recover(trashed, index.key)
    assert content_of(store, index.key_of(index.members[3])) == contents["scan/2"]


def test_a_compressed_unit_is_recalled_whole_and_its_members_come_back(library, store):
    sources = [source_of(bytes([number]) * 50_000, f"{number}") for number in range(5)]
    index = archive(store, sources, compress=True)
    for member, source in zip(index.members, sources, strict=True):
        assert content_of(store, index.key_of(member)) == source.open().read()
        assert store.stat(index.key_of(member)).size == 50_000


def test_a_damaged_tape_is_found(library, store):
    index = archive(store, [source_of(os.urandom(5000), f"{number}") for number in range(3)])
    with library.file(f"{ROOT}/{index.key}").open("r+b") as file:
        file.seek(index.members[1].offset + 100)
        file.write(b"\0\0\0\0")
    assert store.verify(index.key).sha256 != index.sha256
    whole = [store.verify(index.key_of(m)).sha256 == m.sha256 for m in index.members]
    assert whole == [True, False, True]
    os.truncate(library.file(f"{ROOT}/{index.key}"), 1000)
    with pytest.raises(NotFound):
        store.open(index.key_of(index.members[2]))


def test_a_location_says_how_the_archive_is_reached():
    place = Place.parse("/home/b/lk?hsi=hsi+-q+-l+beam&htar=/opt/htar&sessions=3&stall_s=60")
    assert place.hsi == ("hsi", "-q", "-l", "beam")
    assert (place.root, place.htar, place.sessions, place.stall_s) == ("/home/b/lk", ("/opt/htar",), 3, 60.0)
    assert Place.parse("/x").hsi == ("hsi", "-q", "-P")
    for wrong in ("relative", "/x?hsj=1", "/x?sessions=many", "hpss://host/x", ""):
        with pytest.raises(ConfigError):
            Place.parse(wrong)


def test_a_missing_client_is_said_with_the_remedy(tmp_path):
    with pytest.raises(StoreUnavailable, match="nohsi") as caught:
        HpssStore.initialise(f"/x?hsi=/usr/bin/nohsi&spool={tmp_path}", "tape", ids=SystemIds())
    assert "?hsi=" in caught.value.remedy


def test_older_numbers_of_a_record_are_dropped_and_a_crash_between_leaves_the_newest(library, store):
    store.write_record("a/r", b"one")
    library.fault("rm", "error", when=2)
    with pytest.raises(StorageError):
        store.write_record("a/r", b"two")
    library.clear_faults()
    assert store.read_record("a/r") == b"two"
    store.write_record("a/r", b"three")
    assert store.read_record("a/r") == b"three"
    assert [path.name for path in library.file(f"{ROOT}/.lightkeep/records/a").iterdir()] == ["r~3"]


@pytest.mark.parametrize("is_compressed", [False, True])
def test_members_that_are_expected_cost_one_recall_of_their_unit(library, store, is_compressed):
    units = [
        archive(
            store,
            [source_of(os.urandom(3000), f"{number:02}") for number in range(6)],
            unit_id=unit_id,
            compress=is_compressed,
        )
        for unit_id in ("u_1", "u_2")
    ]
    wanted = [(index.key_of(member), member) for index in units for member in index.members]
    before = len(library.journal())
    store.expect(key for key, _ in wanted)
    for key, member in wanted:
        assert store.verify(key).sha256 == member.sha256
    assert len([line for line in library.journal()[before:] if line.startswith("get ")]) == 2


def test_one_member_is_not_worth_its_unit(library, store):
    index = archive(store, [source_of(os.urandom(300_000), f"{number:02}") for number in range(3)])
    key = index.key_of(index.members[1])
    store.expect([key])
    assert store.verify(key).sha256 == index.members[1].sha256
    assert store._recalls._kept is None


def test_unannounced_the_members_of_a_unit_cost_two_recalls_however_many_they_are(library, store):
    contents = {f"{number:02}": os.urandom(3000 + number) for number in range(12)}
    index = archive(store, [source_of(content, path) for path, content in contents.items()])
    before = len(library.journal())
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda member: content_of(store, index.key_of(member)), index.members))
    assert found == list(contents.values())
    assert len([line for line in library.journal()[before:] if line.startswith("get ")]) == 2
    other = archive(store, [source_of(b"other", "x")], unit_id="u_2")
    assert content_of(store, other.key_of(other.members[0])) == b"other"
    assert content_of(store, index.key_of(index.members[3])) == contents["03"]


def test_a_spool_without_room_for_a_unit_recalls_member_by_member(library, store, monkeypatch):
    index = archive(store, [source_of(os.urandom(3000), f"{number}") for number in range(3)])
    monkeypatch.setattr("lightkeep.storage.hpss_recall.Recalls._has_room", lambda *_: False)
    for member in index.members:
        assert store.verify(index.key_of(member)).sha256 == member.sha256


def test_recalls_in_order_mount_each_tape_once(tmp_path):
    library = TapeLibrary.make(tmp_path / "library", drives=1, tape_size=20_000)
    store = HpssStore(HpssStore.initialise(library.location(ROOT), "tape", ids=SystemIds()))
    keys = []
    for unit_id in ("u_1", "u_2"):
        index = archive(store, [source_of(os.urandom(9000), f"{n}") for n in range(2)], unit_id=unit_id)
        keys += [index.key_of(member) for member in index.members]
    begun = len(library.mounts())
    for key in (keys[0], keys[2], keys[1], keys[3]):
        store.open(key).close()
    unordered = len(library.mounts()) - begun
    for key in sorted(keys, key=recall_order):
        store.open(key).close()
    ordered = len(library.mounts()) - begun - unordered
    assert (unordered, ordered) == (4, 2)
    before = len(library.journal())
    store.expect(keys[:2])
    for key in keys[:2]:
        store.open(key).close()
    assert [line.split()[0] for line in library.journal()[before:]] == ["mount", "get"]
