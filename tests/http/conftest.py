"""A facility with a person for every role, behind both web faces."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from lightkeep.asgi import compose
from lightkeep.testing.populated import Populated, populate
from lightkeep.workflow import open_workflow


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Populated]:
    """Return a facility that the tests of this room share: they add, and change nothing that is there."""
    made = populate(tmp_path_factory.mktemp("house"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def web(house: Populated) -> Iterator[TestClient]:
    """Return a client without an identity; the API is below /api/v1."""
    with open_workflow(house.facility, work=False) as orchestrator:
        app = compose(house.facility, orchestrator)
        with TestClient(app, raise_server_exceptions=False, follow_redirects=False) as client:
            yield client


@pytest.fixture
def member(web: TestClient, house: Populated) -> TestClient:
    """Return a client that carries a member's API token."""
    headers = {"Authorization": f"Bearer {house.tokens['member']}"}
    return TestClient(web.app, headers=headers, raise_server_exceptions=False, follow_redirects=False)
