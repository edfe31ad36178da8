"""Process what a search finds: first how many and how long, then for certain."""

from __future__ import annotations

from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request
from fastapi.responses import Response

from lightkeep import techniques
from lightkeep.catalog import query
from lightkeep.lifecycle.processing import process
from lightkeep.lifecycle.processing.reprocess import Reprocessed, reprocess
from lightkeep.model.errors import InvalidInput, SignInRequired
from lightkeep.portal import forms, words
from lightkeep.portal.page import Here, Text, Visit

router = APIRouter()
_LOOKED_AT = 200
"""Datasets of a search that are asked which techniques can work on them."""


@router.get("/find/process")
def preview(here: Here, request: Request, q: Text = "", technique: Text = "") -> Response:
    """How many datasets a search finds that a technique can work on; nothing is begun."""
    return _page(here, q, technique, dict(request.query_params))


@router.post("/find/process")
async def begin(here: Here, request: Request) -> Response:
    """Ask for all of the runs, and say what became of it."""
    typed = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
    return await to_thread.run_sync(_begin, here, typed)


def _begin(here: Visit, typed: dict[str, str]) -> Response:
    q, technique = typed.get("q", "")[:1000], typed.get("technique", "")
    _signed_in(here)
    try:
        params = _params(technique, typed)
        now = reprocess(here.facility, q, technique, params, principal=here.principal, dry_run=True).datasets
        if typed.get("seen", "") != str(now):
            raise InvalidInput(
                f"the search finds {now} datasets now", remedy="look at the number, then press the button again"
            )
        found = reprocess(here.facility, q, technique, params, principal=here.principal)
    except InvalidInput as error:
        return _page(here, q, technique, typed, error=error)
    for run_id in found.runs:
        here.house.orchestrator.submit_run(run_id)
    return here.render("find_processed.html", q=q, technique=technique, found=found)


def _params(technique: str, typed: dict[str, str]) -> dict[str, Any]:
    """Return the parameters that were typed in. InvalidInput: there is no such technique, or a value is wrong."""
    if technique not in techniques.names():
        raise InvalidInput(f"there is no technique {technique!r}", remedy="choose one of the list")
    return forms.values(forms.fields(techniques.get(technique).Params.model_json_schema()), typed)


def _signed_in(here: Visit) -> None:
    if here.principal.is_anonymous:
        raise SignInRequired("only somebody signed in may process", remedy="sign in")


def _page(
    here: Visit, q: str, technique: str, typed: dict[str, str], *, error: InvalidInput | None = None
) -> Response:
    _signed_in(here)
    found: Reprocessed | None = None
    offered: list[str] = []
    try:
        first = here.view.datasets(query.parse(q), limit=_LOOKED_AT)
        offered = sorted({name for each in first.items for name in process.accepting(each)})
        technique = technique if technique in techniques.names() else next(iter(offered), "")
        if technique and q.strip():
            found = reprocess(here.facility, q, technique, principal=here.principal, dry_run=True)
    except InvalidInput as wrong:
        error = error or wrong
    known = forms.fields(techniques.get(technique).Params.model_json_schema()) if technique else []
    names = {field.name for field in known}
    return here.render(
        "find_process.html",
        status=422 if error else 200,
        q=q,
        technique=technique,
        offered=offered,
        found=found,
        days_back=here.facility.config.archive.restore_days,
        verb=words.verb(technique),
        fields=[field for field in known if field.kind != "dataset"],
        typed={name: text for name, text in typed.items() if name in names},
        error=error,
    )
