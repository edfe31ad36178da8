"""Find: the search field, what it finds, and how to narrow it."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlencode

from fastapi import APIRouter
from fastapi.responses import Response

from lightkeep.catalog import query
from lightkeep.model.errors import InvalidInput
from lightkeep.portal.page import PAGE_SIZE, Here, Number, Text, pages

router = APIRouter()
_KEYS = {"station": "station", "technique": "technique", "kind": "kind", "format": "format", "month": "created"}


class Choice(NamedTuple):
    """One value of a facet, as a link that adds it to the search, or takes it away."""

    value: str
    number: int
    href: str
    is_chosen: bool


@router.get("/find")
def find(here: Here, q: Text = "", page: Number = 1) -> Response:
    """Datasets that a search finds; without a search, how to ask."""
    try:
        asked = query.parse(q)
    except InvalidInput as error:
        return here.render("find.html", status=422, q=q, error=error, datasets=None, facets={}, turner=None)
    datasets = here.view.datasets(asked, limit=PAGE_SIZE, offset=(page - 1) * PAGE_SIZE)
    counted = here.view.facets(asked)
    facets = {name: [_choice(q, name, value, n) for value, n in counted[name][:12]] for name in _KEYS}
    turner = pages(datasets.total, page, keep={"q": q})
    return here.render("find.html", q=q, error=None, datasets=datasets, facets=facets, turner=turner)


def _choice(q: str, facet: str, value: str, n: int) -> Choice:
    quoted = f'"{value}"' if any(each.isspace() for each in value) else value
    term = f"{_KEYS[facet]}:{quoted}"
    parts = q.split()
    is_chosen = term in parts
    then = " ".join(part for part in parts if part != term) if is_chosen else f"{q} {term}".strip()
    return Choice(value, n, "/find?" + urlencode({"q": then}), is_chosen)
