"""The audit trail can be appended to, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from lightkeep.model.people import SERVICE


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event SET actor = 'nobody' WHERE seq = 3",
        "DELETE FROM event WHERE seq = 3",
        "DELETE FROM event",
        "INSERT INTO event SELECT * FROM event WHERE seq = 3",
    ],
)
def test_the_database_refuses_to_change_the_trail(standing: Any, statement: str) -> None:
    with pytest.raises(DBAPIError), standing.catalog.writer.begin() as connection:
        connection.execute(text(statement))
    assert standing.catalog.verify_events() == []


@pytest.fixture
def tamper(backend: str) -> Callable[[Any, list[str]], None]:
    """A function that does to a catalogue what only somebody with the database in hand can do."""

    def run(catalog: Any, statements: list[str]) -> None:
        if backend == "sqlite":
            before = ["DROP TRIGGER event_is_never_changed", "DROP TRIGGER event_is_never_removed"]
        else:
            before = ["ALTER TABLE event DISABLE TRIGGER USER"]
        with catalog.writer.begin() as connection:
            for statement in [*before, *statements]:
                connection.execute(text(statement))

    return run


_SWAP = [
    "UPDATE event SET seq = -5 WHERE seq = 5",
    "UPDATE event SET seq = 5 WHERE seq = 6",
    "UPDATE event SET seq = 6 WHERE seq = -5",
]
_INSERT = (
    "INSERT INTO event SELECT {seq}, at, actor, verb, subject, experiment_id, detail, previous, hash"
    " FROM event WHERE seq = 5"
)


@pytest.mark.parametrize(
    "statements",
    [
        *(
            [f"UPDATE event SET {column} = {value} WHERE seq = 5"]
            for column, value in (
                ("at", "at + 1"),
                ("actor", "'other'"),
                ("verb", "'other'"),
                ("subject", "'other'"),
                ("experiment_id", "'other'"),
                ("detail", "'{}'"),
                ("previous", "hash"),
                ("hash", "previous"),
            )
        ),
        ["DELETE FROM event WHERE seq = 5"],
        ["DELETE FROM event WHERE seq = 1"],
        ["DELETE FROM event WHERE seq = (SELECT max(seq) FROM event)"],
        ["DELETE FROM event WHERE seq > 10"],
        _SWAP,
        ["UPDATE event SET seq = seq + 1000 WHERE seq > 5", _INSERT.format(seq=6)],
        [_INSERT.format(seq="(SELECT max(seq) + 1 FROM event)")],
        ["UPDATE chain_head SET seq = seq - 1"],
        ["DELETE FROM chain_head"],
        ["UPDATE file SET size = size + 1 WHERE id = (SELECT min(id) FROM file)"],
        ["UPDATE file SET sha256 = path WHERE id = (SELECT min(id) FROM file)"],
        ["DELETE FROM file WHERE id = (SELECT min(id) FROM file)"],
        ["UPDATE file SET event_seq = 1 WHERE id = (SELECT min(id) FROM file)"],
    ],
    ids=lambda statements: statements[0][:60],
)
@pytest.mark.fault
def test_any_row_changed_removed_swapped_or_put_in_is_found(
    house: Any, tamper: Callable[[Any, list[str]], None], statements: list[str], figure: Callable[..., None]
) -> None:
    assert house.catalog.verify_events() == []
    tamper(house.catalog, statements)
    assert house.catalog.verify_events() != []
    figure("F23", injected=f"an administrator's SQL: {statements[0][:60]}", found="found")


@pytest.mark.fault
def test_a_tail_that_was_cut_with_its_head_is_found_by_an_anchor(
    house: Any, tamper: Callable[[Any, list[str]], None], figure: Callable[..., None]
) -> None:
    anchor = house.catalog.head()
    assert house.catalog.verify_events(anchor=anchor) == []
    cut = [
        f"DELETE FROM event WHERE seq >= {anchor[0]}",
        "UPDATE chain_head SET seq = seq - 1, hash = (SELECT hash FROM event ORDER BY seq DESC LIMIT 1)",
    ]
    with house.catalog.change(SERVICE) as tx:
        tx.record("doctor.ran", "facility")
    cut[1] = cut[1].replace("seq - 1,", f"{anchor[0] - 1},")
    tamper(house.catalog, cut)
    assert house.catalog.verify_events() == []
    assert house.catalog.verify_events(anchor=anchor) != []
    figure("F23", injected="the trail's tail cut off, its head mended", found="found by the anchor on the stores")


def test_an_event_keeps_any_detail_and_its_hash(house: Any) -> None:
    detail = {"float": 0.1 + 0.2, "big": 2**70, "text": "ü\0\ud800", "nan": float("nan"), "list": (1, {"a": None})}
    with house.catalog.change(SERVICE) as tx:
        tx.record("a.b", "subject\0", detail=detail)
    event = house.view("lightkeep").events(limit=10_000)[-1]
    assert event.detail["float"] == 0.1 + 0.2
    assert event.detail["big"] == 2**70
    assert event.detail["nan"] == "nan"
    assert house.catalog.verify_events() == []
