"""How much lies where: the samples and the live count agree with counting everything, for every role."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from lightkeep.catalog import schema
from lightkeep.catalog.usage import SAMPLED, Amount, Group, Groups
from lightkeep.model.datasets import DatasetKind
from lightkeep.model.errors import Conflict
from lightkeep.model.people import SERVICE
from lightkeep.model.stores import Replica, ReplicaState, StoreRecord

DAY = datetime(2026, 11, 2, tzinfo=UTC)
PRINCIPALS = ("collaborator", "scientist", "admin", "nobody", "anonymous", "lightkeep")


def counted(house: Any, who: str) -> Groups:
    """Count every copy one by one, in plain Python."""
    r, f, d = schema.replica, schema.file, schema.dataset
    found = select(d.c.experiment_id, r.c.store_id, d.c.technique, d.c.kind, r.c.state, f.c.size)
    found = found.join_from(r, f, f.c.id == r.c.file_id).join(d, d.c.number == f.c.dataset_number)
    sums: dict[Group, list[int]] = defaultdict(lambda: [0, 0])
    with house.catalog.engine.connect() as connection:
        for *key, state, size in connection.execute(found):
            if key[0] in house.seen[who] and state not in ("planned", "copying", "deleted"):
                sums[Group(*key)][0] += 1
                sums[Group(*key)][1] += size
    return {group: Amount(*sum_) for group, sum_ in sums.items()}


def sample(house: Any, day: datetime = DAY) -> None:
    fresh = house.view("lightkeep").fresh_usage()
    with house.catalog.change(SERVICE) as tx:
        tx.add_samples(day, fresh)


def copy_all(house: Any, dataset_id: str, store: str = "tape") -> list[Replica]:
    """Give every file of a dataset a second copy."""
    view = house.view("lightkeep")
    files = {file.id: file for file in view.files(dataset_id)}
    made = []
    with house.catalog.change(SERVICE) as tx:
        for old in view.replicas(dataset_id):
            copy = Replica(house.catalog.ids.new("replica"), old.file_id, store, old.key, ReplicaState.VERIFIED)
            tx._dialect.insert(
                tx._connection,
                "replica",
                list(schema.replica.c.keys()),
                [(copy.file_id, copy.id, store, old.key.encode(), "verified", None, "unproven", 1)],
            )
            made.append(copy)
        tx.record("dataset.replicas_added", dataset_id, "a1", {"files": len(files)})
    return made


def history(house: Any) -> None:
    """Things that change what lies where, with samples in between."""
    with house.catalog.change(SERVICE) as tx:
        tx.add_store(StoreRecord("tape", "posix", "/tape", "uuid-9"))
    sample(house)
    made = house.add_dataset("a1", "more", kind=DatasetKind.DERIVED, contents={"x": b"x" * 1000})
    copy_all(house, made.id)
    sample(house)
    sample(house)  # twice on a day counts once
    house.add_dataset("b1", "other", contents={"y": b"y" * 50})
    sample(house, DAY + timedelta(days=1))
    old = house.view("lightkeep").dataset_named("a1", "tooth")
    replicas = house.view("lightkeep").replicas(old.id)
    with house.catalog.change(SERVICE) as tx:
        tx.set_replicas(replicas, state=ReplicaState.DELETE_PENDING)
        tx.set_replicas(replicas[:1], state=ReplicaState.DELETED)


@pytest.mark.parametrize("who", PRINCIPALS)
def test_live_usage_is_what_counting_everything_gives(house: Any, who: str) -> None:
    assert house.view(who).usage() == counted(house, who)
    history(house)
    assert house.view(who).usage() == counted(house, who)
    sample(house, DAY + timedelta(days=3))
    assert house.view(who).usage() == counted(house, who)


def test_a_sample_again_adds_nothing(house: Any) -> None:
    sample(house)
    fresh = house.view("lightkeep").fresh_usage()
    assert not any(any(change) for change in fresh.changes.values())
    before = house.view("lightkeep").usage_history("store_id")
    sample(house)
    assert house.view("lightkeep").usage_history("store_id") == before


def test_history_is_what_was_gained_and_lost_on_each_day(house: Any) -> None:
    history(house)
    sample(house, DAY + timedelta(days=3))
    days: dict[datetime, int] = defaultdict(int)
    for change in house.view("lightkeep").usage_history("store_id"):
        days[change.day] += change.size
    assert days[DAY + timedelta(days=1)] == 50
    assert days[DAY + timedelta(days=3)] < 0
    assert sum(days.values()) == sum(amount.size for amount in counted(house, "lightkeep").values())
    late = house.view("lightkeep").usage_history("store_id", since=DAY + timedelta(days=2))
    assert {change.day for change in late} == {DAY + timedelta(days=2), DAY + timedelta(days=3)}
    assert sum(change.size for change in late) == sum(days.values())


def test_history_shows_a_principal_its_own_only(house: Any) -> None:
    sample(house)
    keys = {change.key for change in house.view("collaborator").usage_history("experiment_id")}
    assert keys == house.seen["collaborator"]


def test_of_two_that_sample_at_once_the_second_adds_nothing(house: Any) -> None:
    fresh = house.view("lightkeep").fresh_usage()
    sample(house)
    with pytest.raises(Conflict), house.catalog.change(SERVICE) as tx:
        tx.add_samples(DAY, fresh)
    assert house.view("lightkeep").usage() == counted(house, "lightkeep")


def test_an_invisible_experiment_changes_no_answer(new_house: Any) -> None:
    plain, other = new_house(), new_house()
    other.add_dataset("b1", "secret", contents={"s": b"s" * 999})
    for house in (plain, other):
        sample(house)
    for who in ("collaborator", "scientist", "anonymous"):
        assert plain.view(who).usage() == other.view(who).usage()
        assert plain.view(who).newest() == other.view(who).newest()
        assert [plain.view(who).usage_history(by) for by in ("store_id", "kind")] == [
            other.view(who).usage_history(by) for by in ("store_id", "kind")
        ]


def test_when_the_trail_begins_anew_everything_is_counted_again(house: Any) -> None:
    history(house)
    sample(house)
    with house.catalog.change(SERVICE) as tx:
        tx.set_fact(SAMPLED, "0")
    assert house.view("lightkeep").usage() == counted(house, "lightkeep")
    sample(house)
    total = sum(change.size for change in house.view("lightkeep").usage_history("store_id"))
    assert total == sum(amount.size for amount in counted(house, "lightkeep").values())
