"""A document says what its rows held, whatever stands in them."""

from __future__ import annotations

from lightkeep.catalog import Catalog, snapshot
from lightkeep.model.experiments import Station
from lightkeep.model.people import SERVICE

LIKE_ROWS = [']],["row",["', '"]],["row",[1,"', "]]\n[", '\\"]],["row",[', "ü \u2028 \x00"]


def test_texts_that_look_like_the_end_of_a_row_come_back_as_they_were(catalog: Catalog) -> None:
    with catalog.change(SERVICE) as tx:
        for number, name in enumerate(LIKE_ROWS):
            tx.add_station(Station(f"S{number}", name))
    text = b"".join(catalog.state_snapshot())
    document = snapshot.read(text.splitlines(keepends=True))
    kept = {row["id"]: row["name"] for row in document.dicts("station")}
    known = {station.id: station.name for station in catalog.view(SERVICE).stations()}
    assert len(kept) == len(LIKE_ROWS)
    assert kept == known
