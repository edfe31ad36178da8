"""Fixtures that every room's tests share."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

from lightkeep.testing.correlated import Correlated, add_correlation
from lightkeep.testing.populated import Populated, populate

if TYPE_CHECKING:
    from starlette.testclient import TestClient

# Started in the background of a shell, we inherit that Ctrl-C is ignored, and so would every process under test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file() -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Leave the tests' own files out of the search for doctests: there are none, and each worker would search."""
    found = yield
    return [each for each in found if type(each) is pytest.Module]


class _Compiled(dict[Any, Any]):
    """SQL that was compiled for one engine serves all of its kind.

    A program opens one catalogue, the tests open thousands: compiling took a fifth of their time. The key's first
    part is the dialect's object, of which each engine has its own.
    """

    def get(self, key: Any, default: Any = None) -> Any:
        return super().get((type(key[0]), *key[1:]), default)

    def __setitem__(self, key: Any, value: Any) -> None:
        super().__setitem__((type(key[0]), *key[1:]), value)


_COMPILED = _Compiled()


@sqlalchemy.event.listens_for(sqlalchemy.Engine, "engine_connect")
def _share_compiled(connection: sqlalchemy.Connection) -> None:
    connection.execution_options(compiled_cache=_COMPILED)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real measurements, or skip where it is not there."""
    folder = Path(os.environ.get("LIGHTKEEP_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real measurements at {folder}: set LIGHTKEEP_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Populated]:
    """Return a facility with a person for every role. Tests that share it add, and change nothing."""
    made = populate(tmp_path_factory.mktemp("house"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def correlated(house: Populated, tmp_path_factory: pytest.TempPathFactory) -> Correlated:
    """Return results of XPCS in that facility."""
    return add_correlation(house, tmp_path_factory.mktemp("xpcs"))


@pytest.fixture(scope="session")
def web(house: Populated) -> Iterator[TestClient]:
    """Return a client of both web faces, without an identity; the API is below /api/v1."""
    from starlette.testclient import TestClient

    from lightkeep.asgi import compose
    from lightkeep.workflow import open_workflow

    with open_workflow(house.facility, work=False) as orchestrator:
        app = compose(house.facility, orchestrator)
        with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as client:
            yield client


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[..., None]:
    """Return what a test of the fault matrix tells its figure to: `make safety` collects them."""

    def tell(fault: str, *, injected: str, found: str) -> None:
        record_property("figure", json.dumps({"fault": fault, "injected": injected, "found": found}))

    return tell


@pytest.fixture
def member(web: TestClient, house: Populated) -> TestClient:
    """Return a client that carries a member's API token."""
    from starlette.testclient import TestClient

    headers = {"Authorization": f"Bearer {house.tokens['member']}"}
    return TestClient(web.app, headers=headers, raise_server_exceptions=False, follow_redirects=False)
