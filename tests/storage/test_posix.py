"""What is particular to a folder as a store: identity, symlinks, proofs, barriers."""

from __future__ import annotations

import io
import mmap
import os
from pathlib import Path

import pytest

from lightkeep.model.clock import SystemIds
from lightkeep.model.errors import ConfigError, Conflict, NotFound, StorageError, StoreUnavailable
from lightkeep.model.stores import Proof, StoreRecord
from lightkeep.storage import open_store
from lightkeep.storage.posix import PosixStore
from lightkeep.storage.syscalls import rename_new, resident_pages
from lightkeep.testing.suites.objects import content_of, keep, keep_all


@pytest.fixture
def store(tmp_path: Path) -> PosixStore:
    return PosixStore(PosixStore.initialise(tmp_path / "store", "central", ids=SystemIds()))


def test_a_folder_that_is_a_store_keeps_its_identity(store):
    again = PosixStore.initialise(store.record.location, "other", ids=SystemIds())
    assert again.uuid == store.record.uuid


def test_a_folder_with_other_things_does_not_become_a_store(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(Conflict, match=r"thesis\.tex"):
        PosixStore.initialise(tmp_path, "central", ids=SystemIds())
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_another_store_in_its_place_is_refused(store, tmp_path):
    keep(store, x=b"x")
    os.rename(store.record.location, tmp_path / "unplugged")
    PosixStore.initialise(store.record.location, "other", ids=SystemIds())
    with pytest.raises(StoreUnavailable, match="another store"):
        store.open("x")


def test_an_unmanaged_store_is_known_by_its_filesystem_and_folder(tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    store = PosixStore(PosixStore.initialise(place, "disk", ids=SystemIds(), is_managed=False))
    store.check_identity()
    assert os.listdir(place) == []
    place.rename(tmp_path / "unplugged")
    place.mkdir()
    with pytest.raises(StoreUnavailable):
        store.check_identity()


def test_no_symlink_is_followed_inside_the_store(store, tmp_path):
    keep(store, a__x=b"x")
    location = Path(store.record.location)
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "x").write_bytes(b"secret")
    (location / "folder").symlink_to(tmp_path / "secret")
    (location / "file").symlink_to(tmp_path / "secret" / "x")
    for key in ("folder/x", "file"):
        for ask in (store.open, store.stat, store.verify):
            with pytest.raises(NotFound):
                ask(key)
    kept = keep_all(store, {"folder/y": b"y", "file": b"z"})
    assert all(each.key.startswith(".versions/") for each in kept.values())
    assert os.listdir(tmp_path / "secret") == ["x"]
    assert "folder/x" not in [each.key for each in store.list()]


def test_a_pipe_in_the_store_is_no_object_and_blocks_nobody(store):
    os.mkfifo(Path(store.record.location, "pipe"))
    with pytest.raises(NotFound):
        store.open("pipe")
    assert keep(store, pipe=b"")["pipe"].key.startswith(".versions/")


def test_a_read_back_is_direct_on_a_disk_and_admits_when_memory_may_have_answered(store, monkeypatch):
    keep(store, x=os.urandom(10_000))
    assert store.verify("x").proof is Proof.DIRECT
    monkeypatch.setattr(os, "O_DIRECT", os.O_TMPFILE)  # as on a filesystem that has no O_DIRECT: EINVAL
    assert store.verify("x").proof is Proof.EVICTED
    with (
        Path(store.record.location, "x").open("rb") as file,
        mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as m,
    ):
        assert len(bytes(m)) == 10_000
        assert resident_pages(file.fileno(), 10_000) == 3
        assert store.verify("x").proof is Proof.UNPROVEN


def test_a_rename_never_replaces(tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    folder = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(FileExistsError):
        rename_new("a", "b", source_folder=folder, target_folder=folder)
    rename_new("a", "c", source_folder=folder, target_folder=folder)
    os.close(folder)
    assert sorted(os.listdir(tmp_path)) == ["b", "c"]
    assert (tmp_path / "b").read_bytes() == b"b"


def test_parts_can_be_read_by_their_owner_only(store):
    incoming = Path(store.record.location, ".incoming")
    assert incoming.stat().st_mode & 0o777 == 0o700
    with store.stage() as staging:
        staging.write("x", io.BytesIO(b"x"), size=1)
        assert [path.name for path in incoming.iterdir()] == ["group-0"]
    assert list(incoming.iterdir()) == []


def test_a_lost_folder_for_parts_is_said(store):
    Path(store.record.location, ".incoming").rmdir()
    with pytest.raises(StorageError, match=r"\.incoming"):
        store.stage()


def test_a_record_opens_its_store(store):
    keep(store, x=b"x")
    assert content_of(open_store(store.record), "x") == b"x"


def test_a_kind_that_is_not_installed_is_said():
    with pytest.raises(ConfigError, match="floppy"):
        open_store(StoreRecord("a", "floppy", "/dev/fd0", "u"))
