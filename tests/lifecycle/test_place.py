"""Complete datasets get the copies that their policy asks for, and nothing else happens."""

from __future__ import annotations

import pytest

from lightkeep.lifecycle.people import experiments
from lightkeep.lifecycle.people.set_up import add_store
from lightkeep.lifecycle.replicas.place import lacks, place, tick
from lightkeep.model.errors import Forbidden
from lightkeep.model.people import SERVICE, Person, Principal

ADA = Principal("ada")
POLICY = """
id = "two"
stations = ["*"]

[[rule]]
name = "all"
copies = [{copies}]

[rule.hot]
keep = "3 months"
min_copies = 1
"""


def follow(house, copies: str) -> None:
    with house.catalog.change(ADA) as tx:
        tx.adopt_policy(POLICY.replace("{copies}", copies))


def on(house, dataset, store_id):
    return [each for each in house.catalog.view(SERVICE).replicas(dataset.id) if each.store_id == store_id]


def tape(house, tmp_path) -> None:
    add_store(house, "vault", tmp_path / "vault", principal=ADA)
    with house.catalog.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE store SET tier = 'tape' WHERE id = 'vault'")
    house.stores._open.clear()


def test_without_a_policy_nothing_is_copied(house, measure):
    dataset = measure()
    assert tick(house) == 0
    assert on(house, dataset, "second") == []


def test_a_copy_that_the_rule_asks_for_is_made_once(house, measure):
    dataset = measure()
    follow(house, '"store:second"')
    (wanted,) = lacks(house, dataset)
    assert (wanted.store_id, wanted.rule) == ("second", "all")
    assert tick(house) == 1
    assert len(on(house, dataset, "second")) == 3
    assert lacks(house, house.catalog.view(SERVICE).dataset(dataset.id)) == ()
    assert tick(house) == 0


def test_a_tick_looks_only_at_what_changed(house, measure):
    follow(house, '"store:second"')
    first = measure("first")
    assert tick(house) == 1
    assert tick(house) == 0
    later = measure("later", ("x",))
    assert tick(house) == 1
    assert len(on(house, later, "second")) == 1
    assert len(on(house, first, "second")) == 3


def test_tape_waits_until_the_experiment_is_closed(house, measure, tmp_path):
    tape(house, tmp_path)
    follow(house, '"tape"')
    dataset = measure()
    assert tick(house) == 0
    assert on(house, dataset, "vault") == []
    experiments.close(house, "e1", principal=ADA)
    assert tick(house) == 1
    assert len(on(house, dataset, "vault")) == 3
    assert house.catalog.view(ADA).units(experiment_id="e1").total == 1


def test_what_no_store_can_take_is_said(house, measure):
    dataset = measure()
    follow(house, '"tape"')
    done = place(house, principal=ADA)
    assert "no store fits" in done.lacking[dataset.id]


def test_a_store_that_was_away_gets_its_copies_the_next_day(house, measure, clock, tmp_path):
    dataset = measure()
    follow(house, '"store:second"')
    (tmp_path / "second").rename(tmp_path / "unplugged")
    assert tick(house) == 0
    (tmp_path / "unplugged").rename(tmp_path / "second")
    clock.forward(days=1)
    assert tick(house) == 1
    assert len(on(house, dataset, "second")) == 3


def test_who_does_not_manage_the_facility_cannot_place(house):
    with house.catalog.change(SERVICE) as tx:
        tx.add_person(Person("eve", "Eve"))
    with pytest.raises(Forbidden):
        place(house, principal=Principal("eve"))
