"""Archive units: what goes in comes out, every tool can read them, and a lost index is rebuilt."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import bagit
import pytest

from lightkeep.model.clock import SystemIds
from lightkeep.model.datasets import File
from lightkeep.model.errors import Corrupt, InvalidInput, NotFound, SourceError, StorageError
from lightkeep.storage.posix import PosixStore
from lightkeep.storage.unit_stream import UnitStream
from lightkeep.storage.units import (
    UnitSource,
    cut,
    index_key,
    read_index,
    recall_order,
    unit_key,
    write_unit,
)
from lightkeep.testing.stores import CRASH, EIO, FLIP, Crashed, Fault, FaultyStore
from lightkeep.testing.suites.objects import ODD, content_of, keep_all
from lightkeep.testing.units import AT, archive, source_of


@pytest.fixture
def store(tmp_path: Path) -> PosixStore:
    return PosixStore(PosixStore.initialise(tmp_path / "store", "tape", ids=SystemIds()))


def unpacked(store: PosixStore, folder: Path, key: str = "units/u_1.tar") -> Path:
    """Unpack a unit with tar(1)."""
    folder.mkdir()
    subprocess.run(["tar", "xf", Path(store.record.location, key), "-C", folder], check=True)
    return folder / "u_1"


SIZES = [0, 1, 511, 512, 513, 4096, 70_000, (1 << 20) + 5, 0]


@pytest.mark.parametrize("threads", [1, 2])
def test_every_member_comes_back_through_its_key(store, threads):
    contents = {f"scan/{number}.tif": os.urandom(size) for number, size in enumerate(SIZES)}
    index = archive(store, [source_of(content, path) for path, content in contents.items()], threads=threads)
    assert [member.path for member in index.members] == sorted(contents)
    assert index.content_size == sum(SIZES)
    assert store.verify(index.key).sha256 == index.sha256
    assert store.stat(index.key).size == index.size == index.plain_size
    for member in index.members:
        key = index.key_of(member)
        assert content_of(store, key) == contents[member.path]
        assert store.verify(key).sha256 == member.sha256 == hashlib.sha256(contents[member.path]).hexdigest()


def test_one_thread_and_several_write_the_same_bytes(tmp_path):
    sources = [source_of(os.urandom(100 * number), f"{number}") for number in range(60)]
    units = []
    for threads in (1, 3):
        store = FaultyStore()
        archive(store, list(reversed(sources)), threads=threads)
        units.append(content_of(store, "units/u_1.tar"))
    assert units[0] == units[1]


def test_bagit_finds_a_unit_whole_and_finds_a_damaged_one(store, tmp_path):
    contents = {f"a/{number}.h5": os.urandom(1000 * number) for number in range(9)} | {"T=300 K,ümlaut.h5": b"x"}
    archive(store, [source_of(content, path) for path, content in contents.items()])
    bag = unpacked(store, tmp_path / "bag")
    bagit.Bag(str(bag)).validate()
    for path, content in contents.items():
        assert (bag / "data" / "ds_1" / path).read_bytes() == content
    with (bag / "data/ds_1/a/3.h5").open("r+b") as file:
        file.seek(1500)
        file.write(bytes([contents["a/3.h5"][1500] ^ 1]))
    with pytest.raises(bagit.BagValidationError):
        bagit.Bag(str(bag)).validate()


def test_odd_names_unpack_validate_and_come_back_as_they_were(store, tmp_path):
    odd = [*ODD, "100%", "%0A", "trailing ", "e\u0301", "\xe9", "a\u2028b", "/".join(["x" * 200] * 4)]
    sources = [source_of(os.fsencode(path)[:40], path) for path in odd]
    index = archive(store, sources)
    assert {member.path for member in index.members} == set(odd)
    bagit.Bag(str(unpacked(store, tmp_path / "bag"))).validate()
    for member in index.members:
        assert content_of(store, index.key_of(member)) == os.fsencode(member.path)[:40]
    assert read_index(store, index.key) == index


def test_tar_lists_every_member_in_order(store):
    contents = {f"f/{number:03}": os.urandom(number) for number in range(50)}
    index = archive(store, [source_of(content, path) for path, content in contents.items()])
    path = Path(store.record.location, index.key)
    listed = subprocess.run(["tar", "tf", path], check=True, capture_output=True, text=True).stdout.split()
    assert [name for name in listed if "/data/" in name] == [f"u_1/{member.name}" for member in index.members]
    assert listed[:2] == ["u_1/bagit.txt", "u_1/bag-info.txt"]
    with tarfile.open(path) as tar:
        assert [(each.offset_data, each.size) for each in tar if "/data/" in each.name] == [
            (member.offset, member.size) for member in index.members
        ]
        assert tar.getmember("u_1/data/ds_1/f/001").mtime == 1_700_000_000


def test_two_versions_of_a_path_and_two_datasets_are_apart(store):
    sources = [
        source_of(b"first", "x"),
        source_of(b"second", "x", version=2),
        source_of(b"odd", "%", version=2),
        source_of(b"other", "x", dataset="ds_2"),
    ]
    index = archive(store, sources)
    found = {(m.dataset_id, m.path, m.version): content_of(store, index.key_of(m)) for m in index.members}
    assert found == {
        ("ds_1", "%", 2): b"odd",
        ("ds_1", "x", 1): b"first",
        ("ds_1", "x", 2): b"second",
        ("ds_2", "x", 1): b"other",
    }
    with pytest.raises(InvalidInput):
        archive(FaultyStore(), [source_of(b"1", "x"), source_of(b"2", "x")])


def test_a_lost_sidecar_is_rebuilt_from_the_tar_alone(store):
    sources = [source_of(os.urandom(3000 + number), f"{number}") for number in range(20)]
    index = archive(store, [*sources, source_of(b"odd", "a\nb")])
    Path(store.record.location, index_key(index.key)).unlink()
    assert read_index(store, index.key) == replace(index, sha256="")
    Path(store.record.location, index_key(index.key)).write_bytes(b"{")
    assert read_index(store, index.key) == replace(index, sha256="")


@pytest.mark.parametrize("lost", [1, 600, 40_000])
def test_a_tar_that_is_cut_short_gives_the_members_it_still_has(store, lost):
    sources = [
        source_of(os.urandom(3000 + number), f"{number:02}", version=1 + number % 2) for number in range(20)
    ]
    index = archive(store, [*sources, source_of(b"odd", "0\n0")])
    path = Path(store.record.location, index.key)
    Path(store.record.location, index_key(index.key)).unlink()
    size = index.members[-1].offset + index.members[-1].size - lost
    os.truncate(path, size)
    found = read_index(store, index.key)
    expected = [replace(m, file_id="") for m in index.members if m.offset + m.size <= size]
    assert list(found.members) == expected
    assert 0 < len(expected) < 21


def test_what_is_no_unit_is_corrupt(store):
    keep_all(store, {"units/u_1.tar": os.urandom(5000), "units/u_2.tar": b"", "units/u_3.tar": bytes(4096)})
    for key in ("units/u_1.tar", "units/u_2.tar", "units/u_3.tar"):
        with pytest.raises(Corrupt):
            read_index(store, key)
    with pytest.raises(NotFound):
        read_index(store, "units/u_4.tar")


@pytest.mark.parametrize("size", [10, 3 << 20])
def test_a_source_that_is_not_what_its_manifest_says_keeps_nothing(store, size):
    good = source_of(os.urandom(size), "good")
    content = bytearray(good.open().read())
    content[size // 2] ^= 1
    for bad in (
        replace(good, open=partial(io.BytesIO, bytes(content))),
        replace(good, open=partial(io.BytesIO, bytes(content[:-1]))),
        replace(good, open=partial(open, "/nowhere/at/all", "rb")),
    ):
        with pytest.raises(SourceError) as caught:
            archive(store, [source_of(b"other", "other"), bad])
        assert caught.value.data["file_id"] == good.file.id
        assert list(store.list()) == []


@pytest.mark.parametrize(
    "fault", [Fault("write", EIO), Fault("write", FLIP), Fault("sync", EIO), Fault("rename", CRASH)]
)
def test_a_unit_is_whole_or_not_there(fault):
    store = FaultyStore()
    store.medium.faults = [fault]
    sources = [source_of(os.urandom(5000), f"{number}") for number in range(30)]
    with pytest.raises((Crashed, StorageError)):
        archive(store, sources, threads=1)
    store.medium.faults = ()
    store.medium.cut_power()
    assert list(store.list()) == []
    index = archive(store, sources, threads=1)
    assert store.verify(index.key).sha256 == index.sha256


def test_a_unit_of_more_than_64_mib_is_written_past_the_cache(store):
    sources = [source_of(os.urandom(9 << 20), f"{number}") for number in range(8)]
    index = archive(store, sources)
    assert store.verify(index.key).sha256 == index.sha256
    assert index.size % 4096 == 0
    assert store.verify(index.key_of(index.members[5])).sha256 == index.members[5].sha256


def files_of(*sizes: tuple[str, int]) -> list[File]:
    return [File(f"f{n}", dataset, f"{n}", size, "") for n, (dataset, size) in enumerate(sizes)]


def test_datasets_stay_together_until_a_unit_has_its_target():
    files = files_of(("a", 6), ("a", 6), ("b", 1), ("c", 5), ("c", 5), ("c", 5))
    units = [[file.dataset_id for file in unit] for unit in cut(files, target=10, cap=20)]
    assert units == [["a", "a"], ["b", "c", "c", "c"]]


def test_a_dataset_larger_than_the_cap_is_cut_at_files():
    files = files_of(("z", 3), *[("a", 4)] * 6, ("b", 50), ("c", 1))
    units = [[(file.dataset_id, file.size) for file in unit] for unit in cut(files, target=10, cap=20)]
    assert units == [
        [("z", 3), ("a", 4)],
        [("a", 4), ("a", 4)],
        [("a", 4), ("a", 4)],
        [("a", 4)],
        [("b", 50)],
        [("c", 1)],
    ]
    assert all(sum(size for _, size in unit) <= 20 or len(unit) == 1 for unit in units)


def test_a_unit_never_has_more_files_than_it_may():
    units = list(cut(files_of(*[("a", 0)] * 25), target=10, cap=20, most=10))
    assert [len(unit) for unit in units] == [10, 10, 5]
    assert list(cut([], target=10, cap=20)) == []


def test_keys_say_what_a_unit_is():
    assert unit_key("u_1") == "units/u_1.tar"
    assert unit_key("u_1", is_compressed=True) == "units/u_1.tar.zst"
    for unit_id in ("", "../x", "a/b", "a b", "ü"):
        with FaultyStore().stage() as staging, pytest.raises(InvalidInput):
            write_unit(staging, unit_id, [], experiment_id="", created_at=AT)


@pytest.mark.parametrize("length", [1, 54, 55, 56, 57, 99, 100, 101, 155, 156, 200, 255, 256, 257, 300, 897])
def test_names_of_any_length_are_read_by_tar_as_they_were(store, length):
    flat = ("n" * length)[:255]
    nested = "/".join(["d" * 60] * 20)[:length].rstrip("/") or "d"
    archive(store, [source_of(b"1", flat), source_of(b"2", f"{nested}/x"), source_of(b"", f"{nested[:20]}/é")])
    with tarfile.open(Path(store.record.location, "units/u_1.tar")) as tar:
        names = {each.name.removeprefix("u_1/data/ds_1/"): each.size for each in tar if "/data/" in each.name}
    assert names == {flat: 1, f"{nested}/x": 1, f"{nested[:20]}/é": 0}


def test_a_file_beyond_what_a_plain_header_holds_is_announced_right():
    import tracemalloc

    class Zeros(io.RawIOBase):
        left = 9 << 30

        def readinto(self, buffer):
            count = min(len(buffer), self.left)
            self.left -= count
            return count

    file = File("fl_1", "ds_1", "big", 9 << 30, "", mode=0o640, mtime_ns=-5)
    stream = UnitStream([UnitSource(file, Zeros)], unit_id="u", key="k", experiment_id="e", created_at=AT)
    tracemalloc.start()
    head = bytearray(8192)
    stream.readinto(memoryview(head))
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()
    with pytest.raises(tarfile.ReadError), tarfile.open(fileobj=io.BytesIO(head), mode="r:") as tar:
        tar.getmembers()
    assert [(each.name, each.size, each.mtime, each.mode) for each in tar.members][2:] == [
        ("u/data/ds_1/big", 9 << 30, 0, 0o640)
    ]
    assert stream.size > 9 << 30


def test_keys_are_recalled_by_unit_and_place():
    keys = ["units/b.tar!512+1", "units/a.tar!100000+5", "x", "units/a.tar!9000+7"]
    assert sorted(keys, key=recall_order) == [
        "units/a.tar!9000+7",
        "units/a.tar!100000+5",
        "units/b.tar!512+1",
        "x",
    ]


# ---- many small files read together


def together(store: PosixStore, contents: dict[str, bytes]) -> list[UnitSource]:
    """Return files that lie on a store as it gives them together."""
    keep_all(store, {f"a/{path}": content for path, content in contents.items()})
    sources = [source_of(content, path) for path, content in contents.items()]
    return [
        replace(each, open=partial(store.open, f"a/{each.file.path}"), store=store, key=f"a/{each.file.path}")
        for each in sources
    ]


def tar_of(sources: list[UnitSource], *, threads: int, read: list[int] | None = None) -> bytes:
    count = None if read is None else read.append
    stream = UnitStream(
        sources, unit_id="u_1", key="k", experiment_id="e", created_at=AT, threads=threads, read=count
    )
    made = bytearray(stream.size)
    assert stream.readinto(memoryview(made)) == stream.size
    return bytes(made)


@pytest.mark.parametrize("threads", [1, 2])
def test_files_read_together_make_the_same_tar_as_one_by_one(store, threads):
    contents = {f"scan{number % 7}/{number}.tif": os.urandom(number * 37 % 9000) for number in range(300)}
    contents["scan0/large.h5"] = os.urandom((1 << 20) + 1)
    contents["scan1/with\nnewline"] = b"odd"
    sources = together(store, contents)
    read: list[int] = []
    made = tar_of(sources, threads=threads, read=read)
    assert made == tar_of([replace(each, store=None) for each in sources], threads=1)
    assert sum(read) == sum(len(content) for content in contents.values()) - (1 << 20) - 1


@pytest.mark.parametrize("harm", ["flip", "shorten", "link", "absent", "fifo"])
def test_a_file_among_many_that_is_not_what_it_was_is_named(store, tmp_path, harm):
    contents = {f"{number}.tif": os.urandom(1000) for number in range(100)}
    sources = together(store, contents)
    bad = Path(store.record.location, "a", "57.tif")
    content = bad.read_bytes()
    bad.unlink()
    if harm == "flip":
        bad.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif harm == "shorten":
        bad.write_bytes(content[:-1])
    elif harm == "link":  # to the very same bytes: outside is outside
        (tmp_path / "outside").write_bytes(content)
        bad.symlink_to(tmp_path / "outside")
    elif harm == "fifo":
        os.mkfifo(bad)
    with pytest.raises(SourceError) as raised:
        tar_of(sources, threads=2)
    assert raised.value.data["file_id"] == next(each.file.id for each in sources if each.key == "a/57.tif")


def test_what_a_store_reads_together_must_fit(store):
    together(store, {"b.tif": b"12345"})
    with pytest.raises(ValueError, match="no room"):
        store.read_many(["a/b.tif"], [5], into=bytearray(4), at=[0])
    room = bytearray(7)
    assert store.read_many(["a/b.tif", "a/none"], [5, 1], into=room, at=[1, 6]) == [
        hashlib.sha256(b"12345").hexdigest(),
        "",
    ]
    assert bytes(room) == b"\x0012345\0"
