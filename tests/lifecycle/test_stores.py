"""Stores are registered: on a folder, on tape, and with what fails together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lightkeep.config import Config
from lightkeep.lifecycle.people.set_up import add_store, set_store, together
from lightkeep.model.errors import Conflict, Forbidden, InvalidInput, StoreUnavailable
from lightkeep.model.people import SERVICE, Person, Principal
from lightkeep.model.stores import Tier
from lightkeep.testing.new_facility import new_facility
from lightkeep.testing.suites.objects import content_of, keep
from lightkeep.testing.tape import TapeLibrary

ADA = Principal("ada")


@pytest.fixture
def facility(tmp_path: Path):
    with new_facility(Config(tmp_path / "facility"), admin=Person("ada", "Ada")) as made:
        yield made


def test_two_stores_on_one_filesystem_fail_together_unless_somebody_says_otherwise(facility, tmp_path):
    second = add_store(facility, "second", tmp_path / "second", principal=ADA)
    other = add_store(facility, "other", tmp_path / "other", principal=ADA, failure_domain="building 400")
    assert together(facility, second, principal=ADA) == ["central"]
    assert together(facility, other, principal=ADA) == []
    set_store(facility, replace(second, failure_domain="building 401"), principal=ADA)
    assert together(facility, facility.catalog.view(ADA).store("second"), principal=ADA) == []


def test_a_tape_archive_is_a_store_like_any_other(facility, tmp_path):
    library = TapeLibrary.make(tmp_path / "library")
    location = library.location("/home/beamline/lightkeep")
    record = add_store(facility, "tape", location, principal=ADA, kind="hpss", capacity=10**15)
    assert (record.tier, record.is_durable, record.capacity) == (Tier.TAPE, True, 10**15)
    assert together(facility, record, principal=ADA) == []
    keep(facility.stores["tape"], x=b"x")
    assert content_of(facility.stores["tape"], "x") == b"x"
    with pytest.raises(Conflict):
        add_store(facility, "tape", location, principal=ADA, kind="hpss")


def test_what_cannot_be_a_store_is_refused_and_leaves_no_record(facility, tmp_path):
    with pytest.raises(InvalidInput):
        add_store(facility, "s", tmp_path / "s", principal=ADA, kind="floppy")
    with pytest.raises(InvalidInput):
        add_store(facility, "s", "/home/b", principal=ADA, kind="hpss", is_managed=False)
    with pytest.raises(StoreUnavailable):
        add_store(facility, "s", f"/home/b?hsi=/no/hsi&spool={tmp_path}", principal=ADA, kind="hpss")
    with pytest.raises(Forbidden):
        add_store(facility, "s", tmp_path / "s", principal=Principal("eve"))
    assert [store.id for store in facility.catalog.view(SERVICE).stores()] == ["central"]
