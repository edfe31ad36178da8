"""What every store must do. Subclass `StoreSuite` in a test module; say how to make, kill and unmount it."""

# ruff: noqa: S101 -- a suite is a test that ships

from __future__ import annotations

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from lightkeep.model.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    SourceError,
    StorageError,
    StoreUnavailable,
)
from lightkeep.model.stores import Proof, Store, version_key
from lightkeep.testing.suites.objects import content_of, keep, keep_all
from lightkeep.testing.suites.store_trash import TrashSuite


class BrokenSource:
    """A source whose disk fails after some bytes."""

    def __init__(self, good: int) -> None:
        self.good = good

    def readinto(self, buffer: memoryview, /) -> int:
        """Give good bytes first, then an error."""
        if not self.good:
            raise OSError(5, "Input/output error")
        count = min(self.good, len(buffer))
        self.good -= count
        return count


class StoreSuite(TrashSuite):
    """The MUSTs of `lightkeep.model.stores.Store`, one test each."""

    @pytest.fixture
    def store(self) -> Store:
        """A new, empty, managed store."""
        raise NotImplementedError

    def die_while_writing(self, store: Store, key: str, content: bytes) -> None:
        """Write one part in a process that is killed before it publishes."""
        raise NotImplementedError

    def unmount(self, store: Store) -> None:
        """Take the medium away, leaving an empty place."""
        raise NotImplementedError

    def test_what_was_written_comes_back(self, store: Store) -> None:
        content = os.urandom(100_000)
        (kept,) = keep(store, a__scan=content).values()
        assert content_of(store, "a/scan") == content
        assert (kept.key, kept.size, kept.sha256) == ("a/scan", 100_000, hashlib.sha256(content).hexdigest())
        assert store.stat("a/scan").size == 100_000
        assert not kept.was_adopted

    @pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 1 << 20, (1 << 20) + 1])
    def test_content_of_any_length_comes_back(self, store: Store, size: int) -> None:
        content = os.urandom(size)
        keep(store, x=content)
        found = store.verify("x")
        assert (found.sha256, found.size) == (hashlib.sha256(content).hexdigest(), size)

    def test_a_file_of_many_blocks_comes_back(self, store: Store) -> None:
        content = os.urandom(1 << 20) + bytes(64 << 20) + os.urandom((5 << 20) + 123)
        keep(store, big=content)
        assert store.verify("big").sha256 == hashlib.sha256(content).hexdigest()
        assert content_of(store, "big") == content

    def test_a_part_is_invisible_until_it_is_published(self, store: Store) -> None:
        with store.stage() as staging:
            staging.write("x", io.BytesIO(b"x"), size=1)
            staging.sync()
            staging.verify()
            assert list(store.list()) == []
            with pytest.raises(NotFound):
                store.stat("x")
            staging.publish()
        assert [each.key for each in store.list()] == ["x"]

    def test_leaving_without_publishing_keeps_nothing(self, store: Store) -> None:
        with store.stage() as staging:
            staging.write("x", io.BytesIO(b"x"), size=1)
        assert list(store.list()) == []
        keep(store, y=b"y")
        assert [each.key for each in store.list()] == ["y"]

    def test_a_discarded_part_is_not_published(self, store: Store) -> None:
        with store.stage() as staging:
            staging.write("x", io.BytesIO(b"x"), size=1)
            staging.write("y", io.BytesIO(b"y"), size=1)
            staging.discard("x")
            staging.sync()
            staging.verify()
            assert [each.key for each in staging.publish()] == ["y"]
        assert [each.key for each in store.list()] == ["y"]

    @pytest.mark.parametrize("announced", [0, 4, 6, 100])
    def test_a_source_of_another_length_than_announced_is_refused(self, store: Store, announced: int) -> None:
        with store.stage() as staging:
            with pytest.raises(SourceError):
                staging.write("x", io.BytesIO(b"12345"), size=announced)
            staging.write("x", io.BytesIO(b"12345"), size=5)

    @pytest.mark.parametrize("size", [0, 5, 70_000, 9_000_001])
    def test_a_source_of_unknown_length_is_read_to_its_end(self, store: Store, size: int) -> None:
        content = os.urandom(size)
        with store.stage() as staging:
            assert staging.write("x", io.BytesIO(content), size=None).size == size
            staging.sync()
            staging.verify()
            staging.publish()
        assert content_of(store, "x") == content

    def test_a_source_that_breaks_leaves_no_part(self, store: Store) -> None:
        with store.stage() as staging:
            with pytest.raises(SourceError):
                staging.write("x", BrokenSource(10), size=20)
            staging.write("y", io.BytesIO(b"y"), size=1)
            staging.sync()
            staging.verify()
            assert [each.key for each in staging.publish()] == ["y"]

    def test_a_group_has_each_key_once(self, store: Store) -> None:
        with store.stage() as staging:
            staging.write("x", io.BytesIO(b"1"), size=1)
            with pytest.raises(Conflict):
                staging.write("x", io.BytesIO(b"2"), size=1)
            staging.sync()
            staging.verify()
            staging.publish()
        assert content_of(store, "x") == b"1"

    def test_steps_out_of_order_are_refused(self, store: Store) -> None:
        with store.stage() as staging:
            staging.write("x", io.BytesIO(b"x"), size=1)
            with pytest.raises(StorageError):
                staging.verify()
            with pytest.raises(StorageError):
                staging.publish()
            staging.sync()
            with pytest.raises(StorageError):
                staging.publish()
            with pytest.raises(StorageError):
                staging.write("y", io.BytesIO(b"y"), size=1)
        assert list(store.list()) == []

    def test_equal_content_is_adopted(self, store: Store) -> None:
        keep(store, a__x=b"same")
        kept = keep(store, a__x=b"same", a__y=b"new")
        assert kept["a/x"].was_adopted
        assert not kept["a/y"].was_adopted
        assert [each.key for each in store.list()] == ["a/x", "a/y"]

    def test_other_content_is_kept_beside_and_nothing_is_replaced(self, store: Store) -> None:
        keep(store, a__x=b"first")
        kept = keep(store, a__x=b"second")["a/x"]
        assert kept.key == version_key("a/x", kept.sha256)
        assert content_of(store, "a/x") == b"first"
        assert content_of(store, kept.key) == b"second"
        assert keep(store, a__x=b"second")["a/x"].was_adopted

    def test_a_path_that_leads_through_a_file_is_kept_beside(self, store: Store) -> None:
        keep(store, a=b"file")
        kept = keep(store, a__b=b"below")["a/b"]
        assert content_of(store, kept.key) == b"below"
        assert content_of(store, "a") == b"file"

    def test_a_file_where_a_folder_stands_is_kept_beside(self, store: Store) -> None:
        keep(store, a__b=b"below")
        kept = keep(store, a=b"file")["a"]
        assert content_of(store, kept.key) == b"file"
        assert content_of(store, "a/b") == b"below"

    def test_one_writer_at_a_time(self, store: Store) -> None:
        with store.stage(), pytest.raises(Conflict):
            store.stage()
        with store.stage():
            pass

    def test_a_group_is_written_while_the_one_before_is_published(self, store: Store) -> None:
        with store.stage() as first:
            first.write("x", io.BytesIO(b"x"), size=1)
            with first.beside() as second:
                second.write("y", io.BytesIO(b"y"), size=1)
                first.sync()
                second.write("z", io.BytesIO(b"z"), size=1)
                first.verify()
                assert [each.key for each in first.publish()] == ["x"]
                assert [each.key for each in store.list()] == ["x"]
                second.sync()
                second.verify()
                assert [each.key for each in second.publish()] == ["y", "z"]
        assert [each.key for each in store.list()] == ["x", "y", "z"]
        keep(store, w=b"w")

    def test_a_group_left_unpublished_takes_nothing_of_the_one_beside_it(self, store: Store) -> None:
        with store.stage() as first:
            first.write("x", io.BytesIO(b"x"), size=1)
            second = first.beside()
        with second:
            second.write("y", io.BytesIO(b"y"), size=1)
            with pytest.raises(Conflict):
                store.stage()  # the writer holds the store until its last group is left
            second.sync()
            second.verify()
            second.publish()
        assert [each.key for each in store.list()] == ["y"]

    def test_a_killed_writer_leaves_nothing_and_holds_nothing(self, store: Store) -> None:
        self.die_while_writing(store, "x", b"half")
        assert list(store.list()) == []
        keep(store, x=b"whole")
        assert content_of(store, "x") == b"whole"

    def test_a_key_that_is_not_there_is_not_found(self, store: Store) -> None:
        keep(store, a__x=b"x")
        for key in ("y", "a", "a/y", "a/x/z", "b/c/d"):
            for ask in (store.stat, store.verify, store.open):
                with pytest.raises(NotFound):
                    ask(key)

    @pytest.mark.parametrize("key", ["", "/", "/etc/passwd", "..", "a/../b", "../x", "a//b", "a/", "./a", "a\0b"])
    def test_a_key_that_is_no_plain_path_is_refused(self, store: Store, key: str) -> None:
        with pytest.raises(InvalidInput):
            store.open(key)
        with store.stage() as staging, pytest.raises(InvalidInput):
            staging.write(key, io.BytesIO(b"x"), size=1)

    def test_odd_names_come_back_as_they_are(self, store: Store) -> None:
        contents = {key: os.fsencode(key)[:50] for key in self.odd}
        kept = keep_all(store, contents)
        assert {key: each.key for key, each in kept.items()} == {key: key for key in self.odd}
        assert [each.key for each in store.list()] == sorted(self.odd, key=os.fsencode)
        for key, content in contents.items():
            assert content_of(store, key) == content

    def test_a_list_has_the_order_of_keys_and_knows_prefixes(self, store: Store) -> None:
        keep(store, a__b=b"1", ab=b"2", a__c__d=b"3", b=b"4")
        keep_all(store, {"a.txt": b"5"})
        assert [each.key for each in store.list()] == ["a.txt", "a/b", "a/c/d", "ab", "b"]
        assert [each.key for each in store.list("a/")] == ["a/b", "a/c/d"]
        assert [each.key for each in store.list("a/c/")] == ["a/c/d"]
        assert [each.key for each in store.list("a")] == ["a.txt", "a/b", "a/c/d", "ab"]
        assert list(store.list("nothing/")) == []

    def test_parts_are_written_by_several_threads(self, store: Store) -> None:
        contents = {f"f/{number}": os.urandom(1000 + number) for number in range(40)}
        with store.stage() as staging:
            with ThreadPoolExecutor(4) as pool:
                done = [
                    pool.submit(staging.write, key, io.BytesIO(content), size=len(content))
                    for key, content in contents.items()
                ]
                for each in done:
                    each.result()
            staging.sync()
            staging.verify()
            staging.publish()
        assert {each.key: content_of(store, each.key) for each in store.list()} == contents

    def test_a_medium_that_went_away_is_not_an_empty_store(self, store: Store) -> None:
        keep(store, x=b"x")
        store.check_identity()
        self.unmount(store)
        for ask in (
            store.check_identity,
            store.stage,
            store.free_bytes,
            lambda: store.open("x"),
            lambda: store.stat("x"),
        ):
            with pytest.raises(StoreUnavailable):
                ask()
        with pytest.raises(StoreUnavailable):
            list(store.list())

    def test_a_proof_is_given_with_every_read(self, store: Store) -> None:
        kept = keep(store, x=b"x")["x"]
        assert kept.proof in list(Proof)
        assert store.verify("x").proof in list(Proof)

    def test_the_room_left_is_told(self, store: Store) -> None:
        free = store.free_bytes()
        assert free is None or free > 0
