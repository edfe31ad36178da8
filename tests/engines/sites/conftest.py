"""A facility that speaks the IRI API, and an engine for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lightkeep.engines.sites.iri import IriSite
from lightkeep.engines.sites.site import RemoteSite
from lightkeep.testing.iri import COMPUTE, FILES, IriServer

QUICK = {"processes": 1, "poll_s": 0.02, "patience_s": 60.0}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[IriServer]:
    with IriServer(tmp_path / "facility") as running:
        yield running


@pytest.fixture
def site(server: IriServer) -> Callable[..., RemoteSite]:
    """Return a way to make the engine; further settings as keywords."""

    def make(**settings: Any) -> RemoteSite:
        return IriSite(
            **{
                "url": server.url,
                "compute": COMPUTE,
                "filesystem": FILES,
                "staging": str(server.folder / "lightkeep"),
                "token_file": str(server.token_file),
                "python": sys.executable,
                **QUICK,
                **settings,
            }
        )

    return make
