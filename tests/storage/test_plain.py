"""Files taken many at once are kept, or left, exactly as files taken one by one."""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lightkeep.model.clock import SystemIds
from lightkeep.model.errors import Conflict, Corrupt, StorageError
from lightkeep.model.stores import Proof, Replicated, Seen, TakesFiles, version_key
from lightkeep.storage import posix_staging
from lightkeep.storage.calls import ANYTHING, FAILED, Call, Register, machine
from lightkeep.storage.plain import MOST
from lightkeep.storage.posix import PosixStore
from lightkeep.testing.suites.store import content_of, keep

FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
SIZES = [0, 1, 4095, 4096, 4097, 100_000, MOST, MOST + 1, MOST + 2, 3 << 20]
ODD = ["-rf", "with\nnewline", os.fsdecode(b"not utf-8 \xff\xfe"), "n" * 255, "é"]


@pytest.fixture
def store(tmp_path: Path) -> PosixStore:
    return PosixStore(PosixStore.initialise(tmp_path / "store", "central", ids=SystemIds()))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    return folder


def seen(path: Path) -> Seen:
    status = path.lstat()
    return Seen(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def write(
    staging: TakesFiles, paths: list[Path], prefix: str = "a/", *, change: Callable[[], object] = int
) -> list[bool]:
    """Look at files of one folder, let something happen, write them."""
    looked = [seen(path) for path in paths]
    change()
    folder = os.open(paths[0].parent, os.O_RDONLY)
    try:
        names = [path.name for path in paths]
        return staging.write_files([prefix + name for name in names], names, looked, folder=folder, flags=FLAGS)
    finally:
        os.close(folder)


def finish(staging: TakesFiles) -> dict[str, Replicated]:
    staging.sync()
    staging.verify()
    return {each.asked: each for each in staging.publish()}


def filled(folder: Path, sizes: dict[str, int]) -> list[Path]:
    paths = [folder / name for name in sizes]
    for path, size in zip(paths, sizes.values(), strict=True):
        path.write_bytes(os.urandom(size))
    return paths


def test_files_of_any_length_are_kept_with_their_hash_and_larger_ones_are_left(store, source):
    paths = filled(source, {f"{size}.raw": size for size in SIZES})
    with store.stage() as staging:
        written = write(staging, paths)
        assert written == [size <= MOST for size in SIZES]
        kept = finish(staging)
    for path in [path for path, is_written in zip(paths, written, strict=True) if is_written]:
        key, content = f"a/{path.name}", path.read_bytes()
        assert kept[key] == Replicated(
            key, hashlib.sha256(content).hexdigest(), len(content), Proof.DIRECT, asked=key
        )
        assert content_of(store, key) == content
    assert [each.key for each in store.list()] == sorted(kept)


def test_odd_names_are_kept(store, source):
    paths = filled(source, dict.fromkeys(ODD, 100))
    with store.stage() as staging:
        assert all(write(staging, paths, ""))
        finish(staging)
    assert {key: content_of(store, key) for key in ODD} == {path.name: path.read_bytes() for path in paths}


def longer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def rewritten(path: Path) -> None:
    before = path.stat()
    path.write_bytes(os.urandom(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # only the change time tells


def replaced(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes())
    other.rename(path)


def linked(path: Path) -> None:
    path.rename(path.with_suffix(".old"))
    path.symlink_to(path.with_suffix(".old"))


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    "happen", [longer, lambda path: os.truncate(path, 10), rewritten, replaced, linked, piped, Path.unlink]
)
def test_a_file_that_is_not_what_was_seen_is_left_and_nothing_of_it_stays(store, source, happen):
    paths = filled(source, {"before": 50, "changed": 5000, "after": 70})
    descriptors = len(os.listdir("/proc/self/fd"))
    with store.stage() as staging:
        assert write(staging, paths, change=lambda: happen(paths[1])) == [True, False, True]
        assert len(list(Path(store.record.location, ".incoming", "group-0").iterdir())) == 2
        assert sorted(finish(staging)) == ["a/after", "a/before"]
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_part_that_comes_back_as_other_bytes_is_corrupt(store, source):
    paths = filled(source, {"x": 5000, "y": 5000})
    with store.stage() as staging:
        assert all(write(staging, paths))
        staging.sync()
        part = Path(store.record.location, ".incoming", "group-0", "1")
        with part.open("r+b") as file:
            file.seek(4321)
            byte = file.read(1)
            file.seek(4321)
            file.write(bytes([byte[0] ^ 1]))
        with pytest.raises(Corrupt, match="a/y"):
            staging.verify()
    assert list(store.list()) == []


@pytest.mark.parametrize("size", [4999, 5001])
def test_a_part_that_comes_back_shorter_or_longer_is_corrupt(store, source, size):
    paths = filled(source, {"x": 5000})
    with store.stage() as staging:
        assert all(write(staging, paths))
        staging.sync()
        os.truncate(Path(store.record.location, ".incoming", "group-0", "0"), size)
        with pytest.raises(Corrupt, match=f"{size} of 5000 bytes"):
            staging.verify()


def test_names_that_are_taken_are_adopted_or_kept_beside(store, source):
    paths = filled(source, {"same": 100, "other": 100, "new": 100, "below": 100})
    keep(store, a__same=paths[0].read_bytes(), a__other=b"first")
    with store.stage() as staging:
        assert all(write(staging, paths))
        kept = finish(staging)
    assert kept["a/same"].was_adopted
    assert kept["a/new"].key == "a/new"
    assert kept["a/other"].key == version_key("a/other", kept["a/other"].sha256)
    assert content_of(store, "a/other") == b"first"
    assert content_of(store, kept["a/other"].key) == paths[1].read_bytes()


def test_a_path_that_leads_through_a_file_is_kept_beside(store, source):
    paths = filled(source, {"x": 100, "y": 100})
    keep(store, a=b"a file")
    with store.stage() as staging:
        assert all(write(staging, paths))
        kept = finish(staging)
    assert [kept[key].key for key in ("a/x", "a/y")] == [version_key(k, kept[k].sha256) for k in ("a/x", "a/y")]


def test_a_group_has_each_key_once(store, source):
    paths = filled(source, {"x": 100})
    with store.stage() as staging:
        assert all(write(staging, paths))
        with pytest.raises(Conflict):
            write(staging, paths)
        finish(staging)
        with pytest.raises(StorageError):
            write(staging, paths)


def test_a_system_without_the_loop_leaves_every_file(store, source, monkeypatch):
    monkeypatch.setattr(posix_staging, "machine", lambda: None)
    paths = filled(source, {"x": 100, "y": 100})
    with store.stage() as staging:
        assert write(staging, paths) == [False, False]


def test_a_failed_call_ends_its_file_only_and_what_cleans_up_is_still_made(tmp_path):
    (tmp_path / "there").write_bytes(b"12345")
    loop = machine()
    assert loop is not None
    room = ctypes.create_string_buffer(64)
    names = [ctypes.create_string_buffer(os.fsencode(tmp_path / name)) for name in ("absent", "there")]
    name, opened, count, hashed, closed = map(Register, range(1, 6))
    program = [
        Call("openat", (-100, name, os.O_RDONLY), into=opened),
        Call("read", (opened, ctypes.addressof(room), 64), into=count, least=6),
        Call("SHA256", (ctypes.addressof(room), 5, ctypes.addressof(room)), into=hashed, least=ANYTHING),
        Call("close", (opened,), into=closed, cleans_up=True),
    ]
    descriptors = os.listdir("/proc/self/fd")
    ran = loop.run(program, [[ctypes.addressof(name) for name in names]])
    assert os.listdir("/proc/self/fd") == descriptors
    assert list(ran[FAILED]) == [1, 1]
    assert list(ran[count.index]) == [-1, 5]
    assert list(ran[hashed.index]) == [-1, -1]
    assert list(ran[closed.index]) == [-1, 0]
    assert room.value == b"12345"
