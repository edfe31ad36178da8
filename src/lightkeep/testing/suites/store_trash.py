"""What every store must do with objects on their way out, with members of units and with records."""

# ruff: noqa: S101 -- a suite is a test that ships

from __future__ import annotations

import hashlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import pytest

from lightkeep.model.errors import Conflict, InvalidInput, NotFound, StoreUnavailable
from lightkeep.model.stores import Proof, Store, member_key
from lightkeep.testing.suites.objects import ODD, content_of, keep, keep_all


class TrashSuite:
    """The MUSTs beyond writing and reading, one test each; part of `StoreSuite`."""

    odd: ClassVar[list[str]] = ODD
    """Names that a store must keep; a medium with a limit leaves out what is longer."""

    def test_a_trashed_object_is_out_of_sight_and_comes_back(self, store: Store) -> None:
        keep(store, a__x=b"content", a__y=b"y")
        trashed = store.trash("a/x", bin="plan_1", size=7)
        assert [each.key for each in store.list()] == ["a/y"]
        for ask in (store.open, store.stat, store.verify):
            with pytest.raises(NotFound):
                ask("a/x")
        assert [(each.key, each.size) for each in store.trashed()] == [(trashed, 7)]
        store.recover(trashed, "a/x")
        assert content_of(store, "a/x") == b"content"
        assert list(store.trashed()) == []

    def test_every_move_is_done_once_however_often_it_is_asked_for(self, store: Store) -> None:
        keep(store, a__x=b"content")
        trashed = store.trash("a/x", bin="plan_1", size=7)
        assert store.trash("a/x", bin="plan_1", size=7) == trashed
        store.recover(trashed, "a/x")
        store.recover(trashed, "a/x")
        assert content_of(store, "a/x") == b"content"
        store.trash("a/x", bin="plan_1", size=7)
        store.destroy(trashed)
        store.destroy(trashed)
        assert list(store.trashed()) == []
        with pytest.raises(NotFound):
            store.recover(trashed, "a/x")
        with pytest.raises(NotFound):
            store.trash("a/x", bin="plan_1", size=7)

    def test_an_object_of_another_size_than_the_plan_says_stays(self, store: Store) -> None:
        keep(store, x=b"content")
        with pytest.raises(Conflict):
            store.trash("x", bin="plan_1", size=8)
        assert content_of(store, "x") == b"content"
        assert list(store.trashed()) == []

    def test_a_trashed_object_is_never_replaced(self, store: Store) -> None:
        keep(store, x=b"first")
        trashed = store.trash("x", bin="plan_1", size=5)
        keep(store, x=b"other")
        with pytest.raises(Conflict):
            store.trash("x", bin="plan_1", size=5)
        assert content_of(store, "x") == b"other"
        with pytest.raises(Conflict):
            store.recover(trashed, "x")
        assert content_of(store, "x") == b"other"
        second = store.trash("x", bin="plan_2", size=5)
        store.recover(trashed, "x")
        assert content_of(store, "x") == b"first"
        assert [each.key for each in store.trashed()] == [second]

    def test_the_same_content_kept_anew_is_no_conflict(self, store: Store) -> None:
        keep(store, x=b"content")
        trashed = store.trash("x", bin="plan_1", size=7)
        keep(store, x=b"content")
        store.recover(trashed, "x")
        assert content_of(store, "x") == b"content"

    def test_a_key_that_became_a_folder_or_lies_below_a_file_is_a_conflict(self, store: Store) -> None:
        keep(store, x=b"content", a__b=b"below")
        first = store.trash("x", bin="plan_1", size=7)
        second = store.trash("a/b", bin="plan_1", size=5)
        keep(store, x__y=b"below")
        with pytest.raises(Conflict):
            store.recover(first, "x")
        assert sorted(each.key for each in store.trashed()) == sorted([first, second])
        assert content_of(store, "x/y") == b"below"

    def test_bins_are_apart(self, store: Store) -> None:
        keep(store, a__x=b"1", b=b"2")
        first = store.trash("a/x", bin="plan_1", size=1)
        second = store.trash("b", bin="plan_2", size=1)
        assert [each.key for each in store.trashed("plan_1")] == [first]
        assert [each.key for each in store.trashed("plan_2")] == [second]
        assert list(store.trashed("plan")) == []
        store.destroy(first)
        assert [each.key for each in store.trashed()] == [second]

    def test_odd_names_go_to_the_trash_and_back(self, store: Store) -> None:
        keep_all(store, {key: os.fsencode(key)[:50] for key in self.odd})
        names = {key: store.trash(key, bin="plan_1", size=len(os.fsencode(key)[:50])) for key in self.odd}
        assert list(store.list()) == []
        assert len(set(names.values())) == len(self.odd)
        for key, trashed in names.items():
            store.recover(trashed, key)
        assert [each.key for each in store.list()] == sorted(self.odd, key=os.fsencode)
        for key in self.odd:
            assert content_of(store, key) == os.fsencode(key)[:50]

    def test_nothing_is_destroyed_that_is_not_in_a_bin(self, store: Store) -> None:
        keep(store, a__x=b"x")
        store.trash("a/x", bin="plan_1", size=1)
        keep(store, a__x=b"x")
        store.write_record("r", b"r")
        for name in ("a/x", "", ".trash", ".trash/plan_1", ".trash/plan_1/../../a/x", "/etc/passwd", "..",
                     ".trash//a/x", ".lightkeep/records/r", ".trash/plan_1/a\0/x"):  # fmt: skip
            with pytest.raises(InvalidInput):
                store.destroy(name)
            with pytest.raises(InvalidInput):
                store.recover(name, "a/z")
        store.destroy(".trash/plan_1/a")  # a folder, or nothing: it stays
        store.destroy(".trash/plan_9/never/was")
        assert content_of(store, "a/x") == b"x"
        assert store.read_record("r") == b"r"
        assert len(list(store.trashed())) == 1

    @pytest.mark.parametrize(
        ("key", "bin_"),
        [("../x", "p"), ("a\0b", "p"), ("/etc/passwd", "p"), ("", "p"), (".trash/p/x", "p"), ("x", ""),
         ("x", ".."), ("x", "a/b"), ("x", "p\0"), (".lightkeep/records/r", "p")],
    )  # fmt: skip
    def test_only_a_plain_key_goes_to_a_plain_bin(self, store: Store, key: str, bin_: str) -> None:
        keep(store, x=b"x")
        with pytest.raises(InvalidInput):
            store.trash(key, bin=bin_, size=1)
        with pytest.raises(InvalidInput):
            store.recover(".trash/p/x", "../x")
        assert [each.key for each in store.list()] == ["x"]

    def test_what_is_beside_the_objects_cannot_be_written_or_read_as_one(self, store: Store) -> None:
        keep(store, x=b"x")
        trashed = store.trash("x", bin="plan_1", size=1)
        store.write_record("r", b"r")
        for key in (trashed, ".lightkeep/records/r"):
            with pytest.raises(InvalidInput):
                store.open(key)
            with store.stage() as staging, pytest.raises(InvalidInput):
                staging.write(key, io.BytesIO(b"y"), size=1)
        assert list(store.list()) == []
        assert list(store.list(".trash/")) == []

    def test_records_are_kept_and_replaced(self, store: Store) -> None:
        store.write_record("datasets/ds_1.json", b"one")
        store.write_record("anchor.json", b"two")
        store.write_record("datasets/ds_1.json", b"three")
        assert store.read_record("datasets/ds_1.json") == b"three"
        assert list(store.records()) == ["anchor.json", "datasets/ds_1.json"]
        assert list(store.records("datasets/")) == ["datasets/ds_1.json"]
        assert list(store.list()) == []
        assert list(store.trashed()) == []
        with pytest.raises(NotFound):
            store.read_record("datasets/ds_2.json")
        for name in ("", "../x", "/x", "a//b", "a\0"):
            with pytest.raises(InvalidInput):
                store.write_record(name, b"")

    @pytest.mark.parametrize("size", [0, 1, 100_000, 3_000_000])
    def test_a_record_of_any_length_comes_back(self, store: Store, size: int) -> None:
        content = os.urandom(size)
        store.write_record("r", content)
        assert store.read_record("r") == content

    def test_records_written_at_once_are_each_whole(self, store: Store) -> None:
        contents = [bytes([number]) * 50_000 for number in range(8)]
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda content: store.write_record("r", content), contents))
        assert store.read_record("r") in contents

    def test_a_member_of_a_unit_is_read_by_its_window(self, store: Store) -> None:
        content = os.urandom(50_000)
        keep_all(store, {"units/u.tar": content})
        for offset, size in ((0, 0), (0, 1), (511, 1030), (4095, 8194), (49_999, 1), (0, 50_000), (50_000, 0)):
            key = member_key("units/u.tar", offset, size)
            expected = content[offset : offset + size]
            assert content_of(store, key) == expected
            assert store.stat(key).size == size
            found = store.verify(key)
            assert (found.sha256, found.size) == (hashlib.sha256(expected).hexdigest(), size)
            assert found.proof in list(Proof)
        with store.open(member_key("units/u.tar", 1000, 5000)) as file:
            assert file.seek(100) == 100
            assert file.read(10) == content[1100:1110]
            assert file.seek(-5, os.SEEK_END) == 4995
            assert file.read() == content[5995:6000]
            assert file.read() == b""

    def test_a_window_that_is_not_there_is_not_found(self, store: Store) -> None:
        keep_all(store, {"units/u.tar": b"content"})
        for key in ("units/u.tar!0+8", "units/u.tar!8+0", "units/u.tar!7+1", "units/v.tar!0+1"):
            for ask in (store.open, store.stat, store.verify):
                with pytest.raises(NotFound):
                    ask(key)

    def test_a_member_is_neither_written_nor_trashed_on_its_own(self, store: Store) -> None:
        keep_all(store, {"units/u.tar": b"content"})
        with pytest.raises(InvalidInput):
            store.trash("units/u.tar!0+7", bin="plan_1", size=7)
        with store.stage() as staging, pytest.raises(InvalidInput):
            staging.write("units/u.tar!0+7", io.BytesIO(b"content"), size=7)
        assert content_of(store, "units/u.tar") == b"content"

    def test_what_went_away_gives_no_answer_about_the_trash(self, store: Store) -> None:
        keep(store, x=b"x", y=b"y")
        trashed = store.trash("x", bin="plan_1", size=1)
        self.unmount(store)
        for ask in (
            lambda: store.trash("y", bin="plan_1", size=1),
            lambda: store.recover(trashed, "x"),
            lambda: store.destroy(trashed),
            lambda: list(store.trashed()),
            lambda: store.write_record("r", b""),
            lambda: store.read_record("r"),
            lambda: list(store.records()),
        ):
            with pytest.raises(StoreUnavailable):
                ask()

    def unmount(self, store: Store) -> None:
        """Take the medium away, leaving an empty place."""
        raise NotImplementedError
