"""From one database to the other, with every row."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text

from lightkeep.catalog import parse
from lightkeep.catalog.move import copy_to
from lightkeep.model.errors import Conflict, Corrupt
from lightkeep.model.people import SERVICE

pytestmark = pytest.mark.postgres


@pytest.fixture(params=["sqlite to postgres", "postgres to sqlite"])
def ends(request: pytest.FixtureRequest, open_catalog: Callable[[str], Any]) -> tuple[Any, Any]:
    """A furnished catalogue on one database and an empty one on the other."""
    if "LIGHTKEEP_TEST_POSTGRES" not in os.environ:
        pytest.skip("no PostgreSQL: run scripts/with-postgres pytest ...")
    first, second = (request.getfixturevalue(f"{name}_templates") for name in request.param.split(" to "))
    return open_catalog(first.copy(first.furnished)), open_catalog(second.copy(second.empty))


def test_a_move_keeps_every_row_and_the_trail(ends: tuple[Any, Any], dump: Callable[[Any], Any]) -> None:
    source, target = ends
    moved = copy_to(source, target)
    assert dump(target) == dump(source)
    assert moved.head == source.head() == target.head()
    assert target.verify_events(anchor=source.head()) == []
    for query in ("gold", '"gold wire"', "energy:8..30keV", "sample:gold*"):
        assert target.view(SERVICE).datasets(parse(query)) == source.view(SERVICE).datasets(parse(query))
        assert target.view(SERVICE).facets(parse(query)) == source.view(SERVICE).facets(parse(query))


def test_work_goes_on_where_it_was_after_a_move(ends: tuple[Any, Any]) -> None:
    source, target = ends
    copy_to(source, target)
    with target.change(SERVICE) as tx:
        tx.record("doctor.ran", "facility")
    assert target.head()[0] == source.head()[0] + 1
    assert target.verify_events() == []


def test_a_target_that_holds_something_is_left_as_it_is(ends: tuple[Any, Any]) -> None:
    source, target = ends
    with target.change(SERVICE) as tx:
        tx.record("doctor.ran", "facility")
    head = target.head()
    with pytest.raises(Conflict, match="already"):
        copy_to(source, target)
    assert target.head() == head


def test_a_damaged_trail_is_not_moved(ends: tuple[Any, Any]) -> None:
    source, target = ends
    with source.writer.begin() as connection:
        connection.execute(text("UPDATE file SET size = 1 WHERE id = (SELECT min(id) FROM file)"))
    with pytest.raises(Corrupt, match="not whole"):
        copy_to(source, target)
    assert target.head()[0] == 0
