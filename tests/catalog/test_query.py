"""The language of the search box."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightkeep.catalog import counts, parse
from lightkeep.model.datasets import DatasetKind, Metadata
from lightkeep.model.errors import InvalidInput
from lightkeep.model.experiments import Experiment
from lightkeep.model.people import SERVICE
from lightkeep.model.quantity import Quantity


@pytest.fixture(scope="module")
def shelf() -> dict[str, Metadata]:
    """Datasets by name, for the one question which of them a query finds."""
    return {
        "tooth_8": Metadata({"energy": Quantity.of(8.5, "keV")}, {"sample": "Gold wire", "title": "Wire of gold"}),
        "tooth_25": Metadata({"energy": Quantity.of(24900, "eV")}, {"sample": "Molar"}, {"scan": {"number": 42}}),
        "100%_sure": Metadata({"pixel_size": Quantity.of(0.65, "um")}, {"sample": "Ångström_ring 2-BM"}),
        "plain": Metadata({"energy": Quantity.of(10.0)}, {"sample": "5", "user": 'O"Hara'}, {"is_test": True}),
    }


@pytest.fixture
def shelved(templates: Any, shelf: dict[str, Metadata]) -> Any:
    """A catalogue with the shelf in the experiment `shelf`, made once for each database."""

    def fill(house: Any) -> None:
        with house.catalog.change(SERVICE) as tx:
            tx.add_experiment(Experiment("shelf", "B", "Nothing"))
        for name, metadata in shelf.items():
            kind = DatasetKind.DERIVED if name == "plain" else DatasetKind.RAW
            house.add_dataset("shelf", name, metadata=metadata, technique="xrf", kind=kind)

    return templates.keep("shelf", fill)


def found(house: Any, query: str) -> set[str]:
    page = house.view("lightkeep").datasets(parse(query), experiment_id="shelf", limit=100)
    assert page.total == len(page.items)
    return {d.name for d in page}


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("gold", {"tooth_8"}),
        ("GOLD Wire", {"tooth_8"}),
        ('"gold wire"', {"tooth_8"}),
        ('"wire gold"', set()),
        ("wir*", {"tooth_8"}),
        ("tooth", {"tooth_8", "tooth_25"}),
        ("tooth -gold", {"tooth_25"}),
        ("angstrom", {"100%_sure"}),
        ("Ångström", {"100%_sure"}),
        ("2-BM", {"100%_sure"}),
        ("energy:8..9keV", {"tooth_8"}),
        ("energy:8keV..9000eV", {"tooth_8"}),
        ("energy:8..", {"tooth_8", "tooth_25", "plain"}),
        ("energy:..9keV", {"tooth_8"}),
        ("energy:>10keV", {"tooth_25"}),
        ("energy:<=8500eV", {"tooth_8"}),
        ("energy:<8500eV", set()),
        ("energy:24.9keV", {"tooth_25"}),
        ("energy:10", {"plain"}),
        ("Energy:>9", {"tooth_25", "plain"}),
        ("energy:8..9m", set()),
        ("pixel_size:650nm", {"100%_sure"}),
        ("pixel_size:0.6..0.7µm", {"100%_sure"}),
        ("sample:molar", {"tooth_25"}),
        ('sample:"gold wire"', {"tooth_8"}),
        ("sample:gold", set()),
        ("sample:gold*", {"tooth_8"}),
        ("sample:*", {"tooth_8", "tooth_25", "100%_sure", "plain"}),
        ("-sample:*o*", {"plain", "100%_sure"}),
        ("sample:5", {"plain"}),
        (r'user:"o\"hara"', {"plain"}),
        ("scan.number:42", {"tooth_25"}),
        ("is_test:true", {"plain"}),
        ("name:tooth*", {"tooth_8", "tooth_25"}),
        ("name:tooth_8", {"tooth_8"}),
        ("name:tooth%", set()),
        ("name:100%*", {"100%_sure"}),
        ("name:?lain", set()),
        ("kind:derived", {"plain"}),
        ("technique:XRF kind:raw", {"tooth_8", "tooth_25", "100%_sure"}),
        ("station:b experiment:shelf name:plain", {"plain"}),
        ("station:A", set()),
        ("size:<1kB", {"tooth_8", "tooth_25", "100%_sure", "plain"}),
        ("size:>1GB", set()),
        ("files:2", {"tooth_8", "tooth_25", "100%_sure", "plain"}),
        ("created:2026-11 created:>=2026-11-01", {"tooth_8", "tooth_25", "100%_sure", "plain"}),
        ("created:..2026-10", set()),
        ("created:2026-12..", set()),
        ("completed:2026", {"tooth_8", "tooth_25", "100%_sure", "plain"}),
        ("state:withdrawn", set()),
        ("nowhere:5..6", set()),
    ],
)
def test_a_query_finds(shelved: Any, query: str, names: set[str]) -> None:
    assert found(shelved, query) == names


@pytest.mark.parametrize(
    ("query", "term"),
    [
        ("energy:8..9furlong", "energy:8..9furlong"),
        ("gold energy:>ten", "energy:>ten"),
        ("energy:1keV..2mm", "energy:1keV..2mm"),
        ("energy:>1e999", "energy:>1e999"),
        ("energy:..", "energy:.."),
        ("energy:", "energy:"),
        ("kind:rare", "kind:rare"),
        ("state:done", "state:done"),
        ("created:yesterday", "created:yesterday"),
        ("created:2026-13", "created:2026-13"),
        ("created:0000", "created:0000"),
        ("created:9999", "created:9999"),
        ("size:big", "size:big"),
        ("technique:>3", "technique:>3"),
        ('sample:"open', 'sample:"open'),
        ('go"ld', 'go"ld'),
        ("***", "***"),
    ],
)
def test_a_bad_term_is_named(query: str, term: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(query)
    assert caught.value.data["term"] == term
    assert term in caught.value.message


def test_a_query_that_is_too_long_is_refused() -> None:
    for text in ("x" * 3_000, "x " * 60):
        with pytest.raises(InvalidInput):
            parse(text)


ATTACKS = (
    "'; DROP TABLE dataset; --",
    '" OR 1=1 --',
    "name:' OR '1'='1",
    "name:%",
    "energy:1' OR '1",
    "a NEAR b",
    "words:gold",
    "gold AND NOT wire",
    "^gold",
    "{a b}: c",
    "(gold",
    "gold)",
    "gold & !wire | <-> :*",
    "a:b:c",
    ":words_0",
    "%s %(x)s :x",
    "\\",
    "sample:\\",
    'sample:"\\\\"',
    "\x00\ud800 gold",
    "𞤀 🦷 ①",
    "'gold':1",
)


@pytest.mark.parametrize("text", ATTACKS)
def test_nothing_that_is_typed_reaches_the_database_as_language(standing: Any, text: str) -> None:
    view = standing.view("nobody")
    try:
        query = parse(text)
    except InvalidInput:
        return
    page = view.datasets(query)
    assert {d.experiment_id for d in page} <= {"open"}
    view.facets(query)
    assert view.datasets().total == 2


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.sampled_from(" \"'\\:-*<>=.%_()&|!^{}gold8keVenergyname\x00\ud800é日🦷\n"), max_size=30))
def test_any_text_is_answered_or_refused(standing: Any, text: str) -> None:
    try:
        query = parse(text)
    except InvalidInput:
        return
    page = standing.view("nobody").datasets(query)
    assert {d.experiment_id for d in page} <= {"open"}
    assert sum(n for _, n in standing.view("nobody").facets(query)["station"]) == page.total


@pytest.mark.parametrize("order", ["created_at", "-created_at", "name", "-name", "size", "-completed_at"])
def test_lists_come_in_the_order_asked_for_and_pages_join_up(standing: Any, order: str) -> None:
    view = standing.view("admin")
    whole = view.datasets(order=order, limit=1000).items
    key = order.removeprefix("-")
    values = [getattr(d, key) for d in whole]
    assert values == sorted(values, reverse=order.startswith("-"))
    pages = [view.datasets(order=order, limit=3, offset=at).items for at in range(0, len(whole), 3)]
    assert [d.id for page in pages for d in page] == [d.id for d in whole]


def test_an_order_that_does_not_exist_is_refused(standing: Any) -> None:
    with pytest.raises(InvalidInput, match="created_at"):
        standing.view("admin").datasets(order="id; DROP TABLE dataset")


@pytest.mark.parametrize("number", [-(2**70), -1, 0, 2**31, 2**63, 2**70])
def test_limits_and_offsets_of_any_size_are_answered(standing: Any, number: int) -> None:
    view = standing.view("admin")
    view.datasets(limit=number, offset=number)
    view.files(view.datasets().items[0].id, limit=number, offset=number)
    view.events(after=number, limit=number)


def test_facets_of_a_query_are_a_group_by_of_what_it_finds(house: Any) -> None:
    for i in range(12):
        house.add_dataset("a1", f"more {i}", technique=("xpcs", "", "xrf")[i % 3])
    with house.catalog.change(SERVICE) as tx:
        tx.withdraw_dataset(house.view("pi").dataset_named("a1", "more 3").id)
    for text in ("", "more", "more -technique:xrf", "state:any", "energy:>1keV"):
        view, query = house.view("pi"), parse(text)
        listed = view.datasets(query, limit=100).items
        facets = view.facets(query)
        assert dict(facets["technique"]) == Counter(d.technique for d in listed if d.technique)
        found = [n for _, n in facets["technique"]]
        assert found == sorted(found, reverse=True)
        assert sum(n for _, n in facets["kind"]) == len(listed)


def test_counts_of_thousands_of_experiments_add_up_like_those_of_a_few() -> None:
    rng = random.Random(1)
    tallies = [
        {rng.randrange(300): rng.randrange(1, 1 << 20) for _ in range(rng.randrange(12))} for _ in range(3000)
    ]
    expected: Counter[int] = Counter()
    for tally in tallies:
        expected.update(tally)
    assert counts.unpack(map(counts.pack, tallies)) == expected
    assert sum((counts.unpack([counts.pack(tally)]) for tally in tallies), Counter()) == expected
