"""How a page is made: who asks, what that person may see, and the template."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

from fastapi import Depends, Query, Request
from fastapi import Path as InPath
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from lightkeep import __version__
from lightkeep.lifecycle.people.sign_in import COOKIE, Attempts, principal_of
from lightkeep.lifecycle.pictures.preview import Previews
from lightkeep.model.people import Principal
from lightkeep.portal import forms, words

if TYPE_CHECKING:
    from lightkeep.facility import Facility
    from lightkeep.workflow import Orchestrator

STATIC = Path(__file__).parent / "static"
PAGE_SIZE = 50


@dataclass(frozen=True)
class House:
    """What all pages share; one per app, on `app.state.house`."""

    facility: Facility
    orchestrator: Orchestrator
    attempts: Attempts
    previews: Previews
    templates: Environment


@dataclass(frozen=True)
class Visit:
    """One request for a page."""

    request: Request
    house: House
    principal: Principal
    view: Any
    """The catalogue as this person sees it."""

    @property
    def facility(self) -> Facility:
        """The facility."""
        return self.house.facility

    def render(self, template: str, *, status: int = 200, **context: Any) -> HTMLResponse:
        """Return the page."""
        page = self.house.templates.get_template(template)
        who = None if self.principal.is_anonymous else self.view.person(self.principal.id)
        html = page.render(
            request=self.request,
            who=who,
            now=self.facility.clock.now(),
            path=self.request.url.path,
            version=__version__,
            **context,
        )
        return HTMLResponse(html.encode("utf-8", "replace"), status)


def visit_of(request: Request) -> Visit:
    """Return the visit that a request is."""
    house: House = request.app.state.house
    principal = principal_of(house.facility, request.cookies.get(COOKIE, ""))
    return Visit(request, house, principal, house.facility.catalog.view(principal))


Here = Annotated[Visit, Depends(visit_of)]
Name = Annotated[str, InPath(min_length=1, max_length=200)]
Text = Annotated[str, Query(max_length=1000)]
Number = Annotated[int, Query(ge=1, le=10_000_000)]


def environment() -> Environment:
    """Return the templates with the words that they use."""
    found = Environment(
        loader=PackageLoader("lightkeep.portal"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        size=words.size,
        count=words.count,
        quantity=words.quantity,
        state=words.state,
        sign=words.sign,
        day=words.day,
        date=words.date,
        span=words.span,
        plain=words.plain,
        prose=words.prose,
        brief=words.brief,
        verb=words.verb,
        title_of=words.title,
        unit=words.unit,
        shown=shown,
        address=address,
        ago=_ago,
    )
    found.globals.update(copyable=words.copyable, plural=words.plural, mark=words.mark, ticks=words.ticks, zip=zip)
    found.tests.update(told=forms.is_told)
    found.globals.update(asset=partial(_asset, {}))
    return found


@pass_context
def _ago(context: Context, at: datetime | None) -> Markup:
    return words.ago(at, context["now"])


def shown(text: str) -> str:
    """Return a path for reading: a byte that is no UTF-8 becomes `\\xNN`."""
    return os.fsencode(text).decode("utf-8", "backslashreplace")


def address(path: str) -> str:
    """Return a path for a URL, byte for byte."""
    return quote(os.fsencode(path), safe="/")


def _asset(known: dict[str, str], name: str) -> str:
    """Return the address of a static file; changes when the file does, so that browsers may keep it."""
    if name not in known:
        found = (STATIC / name).stat()
        known[name] = f"/static/{name}?{found.st_mtime_ns // 1_000_000:x}"
    return known[name]


def pages(total: int, page: int, *, keep: Mapping[str, str], size: int = PAGE_SIZE) -> dict[str, Any]:
    """Return what the page turner shows."""
    kept = {name: value for name, value in keep.items() if value}
    return {"page": page, "last": max(1, -(-total // size)), "total": total, "keep": kept}
