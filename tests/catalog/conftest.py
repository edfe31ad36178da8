"""A catalogue of one's own for each test, on SQLite and on a real PostgreSQL, and a small facility to fill it."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from lightkeep.catalog import Catalog
from lightkeep.model.datasets import Dataset, DatasetKind, File, Metadata
from lightkeep.model.experiments import Experiment, ExperimentState, Station
from lightkeep.model.people import SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.model.quantity import Quantity
from lightkeep.model.stores import Proof, Replica, ReplicaState, StoreRecord

POSTGRES = os.environ.get("LIGHTKEEP_TEST_POSTGRES", "")


class SteppingClock:
    """Each look at it is a second later than the last."""

    def __init__(self, start: datetime) -> None:
        self._next = start

    def now(self) -> datetime:
        self._next += timedelta(seconds=1)
        return self._next


class CountingIds:
    """ds_0000000000000001, ds_0000000000000002 ..."""

    def __init__(self) -> None:
        self._count = itertools.count(1)

    def new(self, prefix: str) -> str:
        return f"{prefix}_{next(self._count):016}"


def new_catalog(url: str) -> Catalog:
    return Catalog.open(url, clock=SteppingClock(datetime(2026, 11, 1, tzinfo=UTC)), ids=CountingIds())


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("template") / "catalog.db"
    new_catalog(f"sqlite:///{path}").close()
    return path


@pytest.fixture(scope="session")
def postgres_template() -> Iterator[str]:
    name = f"lightkeep_{uuid.uuid4().hex}"
    _on_server(f"CREATE DATABASE {name}")
    new_catalog(_database(name)).close()
    yield name
    _on_server(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def backend(request: pytest.FixtureRequest) -> str:
    """`sqlite`, then `postgres`."""
    if request.param == "postgres" and not POSTGRES:
        pytest.skip("no PostgreSQL: run scripts/with-postgres pytest ...")
    return request.param


@pytest.fixture
def new_url(backend: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], str]]:
    """A function that makes one more empty catalogue and returns its address."""
    made: list[str] = []

    def make() -> str:
        name = f"lightkeep_{uuid.uuid4().hex}"
        if backend == "sqlite":
            shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / f"{name}.db")
            return f"sqlite:///{tmp_path / name}.db"
        _on_server(f"CREATE DATABASE {name} TEMPLATE {request.getfixturevalue('postgres_template')}")
        made.append(name)
        return _database(name)

    yield make
    for name in made:
        _on_server(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def url(new_url: Callable[[], str]) -> str:
    return new_url()


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    """An empty catalogue."""
    catalog = new_catalog(url)
    yield catalog
    catalog.close()


@pytest.fixture
def house(catalog: Catalog) -> Catalog:
    """The catalogue of a small facility; see `furnish`."""
    furnish(catalog)
    return catalog


PEOPLE = {
    "collaborator": Grant("collaborator", Role.COLLABORATOR, Scope.EXPERIMENT, "a1"),
    "member": Grant("member", Role.MEMBER, Scope.EXPERIMENT, "a1"),
    "pi": Grant("pi", Role.PI, Scope.EXPERIMENT, "a1"),
    "scientist": Grant("scientist", Role.STATION_SCIENTIST, Scope.STATION, "A"),
    "manager": Grant("manager", Role.STATION_MANAGER, Scope.STATION, "A"),
    "admin": Grant("admin", Role.FACILITY_ADMIN, Scope.FACILITY),
    "nobody": None,
}
SEEN = {
    "collaborator": {"a1", "open"},
    "member": {"a1", "open"},
    "pi": {"a1", "open"},
    "scientist": {"a1", "a2", "open"},
    "manager": {"a1", "a2", "open"},
    "admin": {"a1", "a2", "b1", "open"},
    "nobody": {"open"},
    "anonymous": {"open"},
    "lightkeep": {"a1", "a2", "b1", "open"},
}
"""Which experiments each principal sees. Stations: A has a1 and a2, B has b1 and the released one, open."""


def principal(name: str) -> Principal:
    return SERVICE if name == "lightkeep" else Principal(name)


def furnish(catalog: Catalog) -> None:
    """Two stations, four experiments (one released), a person for each role, two datasets in each experiment."""
    with catalog.change(SERVICE) as tx:
        tx.add_store(StoreRecord("central", "posix", "/srv/store", "uuid-1"))
        for station in ("A", "B"):
            tx.add_station(Station(station, f"Station {station}", ("tomography",)))
        for id_, station in (("a1", "A"), ("a2", "A"), ("b1", "B"), ("open", "B")):
            tx.add_experiment(Experiment(id_, station, f"Gold wire {id_}", identifiers={"gup": f"8{id_}"}))
        tx.set_experiment_state("open", ExperimentState.CLOSED)
        tx.set_experiment_state("open", ExperimentState.RELEASED)
        for name, grant in PEOPLE.items():
            tx.add_person(Person(name, name.title()))
            if grant is not None:
                tx.add_grant(grant)
    for experiment in ("a1", "a2", "b1", "open"):
        add_dataset(catalog, experiment, "tooth", technique="tomography")
        add_dataset(catalog, experiment, "glass", technique="xpcs", kind=DatasetKind.CALIBRATION)


def make_files(catalog: Catalog, dataset_id: str, contents: dict[str, bytes]) -> list[tuple[File, Replica]]:
    """Entries for path -> content, each with a verified replica on the store `central`."""
    pairs = []
    for path, content in contents.items():
        digest = hashlib.sha256(content).hexdigest()
        file = File(catalog.ids.new("fl"), dataset_id, path, len(content), digest, 17, 0o640)
        at = datetime(2026, 11, 2, tzinfo=UTC)
        state, proof = ReplicaState.VERIFIED, Proof.DIRECT
        pairs.append(
            (file, Replica(catalog.ids.new("rp"), file.id, "central", f"{dataset_id}/{path}", state, at, proof))
        )
    return pairs


def add_dataset(
    catalog: Catalog,
    experiment_id: str,
    name: str,
    *,
    technique: str = "tomography",
    kind: DatasetKind = DatasetKind.RAW,
    parents: tuple[str, ...] = (),
    metadata: Metadata | None = None,
    contents: dict[str, bytes] | None = None,
) -> Dataset:
    """A complete dataset with two files, 24.9 keV and a sample, unless told otherwise."""
    metadata = metadata or Metadata({"energy": Quantity.of(24.9, "keV")}, {"sample": f"Gold {name}"}, {"scan": 7})
    files = contents or {f"{name}.h5": b"content", f"log/{name}.txt": name.encode()}
    with catalog.change(SERVICE) as tx:
        dataset = tx.add_dataset(
            Dataset(catalog.ids.new("ds"), experiment_id, name, kind, technique, parents=parents)
        )
        tx.add_files(dataset.id, make_files(catalog, dataset.id, files))
        tx.describe_dataset(
            dataset.id, metadata=metadata, format="nexus", main_file=f"{name}.h5", technique=technique
        )
        dataset = tx.complete_dataset(dataset.id)
    return replace(dataset, parents=parents)


def _database(name: str) -> str:
    return make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)


def _on_server(statement: str) -> None:
    engine = create_engine(POSTGRES, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()
