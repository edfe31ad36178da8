"""A catalogue of one's own for each test, on SQLite and on a real PostgreSQL, and a small facility to fill it."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import starmap
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest
from sqlalchemy import event, make_url, select

from lightkeep.catalog import Catalog, View, schema
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

    def __init__(self, first: int) -> None:
        self._count = itertools.count(first)

    def new(self, prefix: str) -> str:
        return f"{prefix}_{next(self._count):016}"


def new_catalog(url: str, *, day: int = 2) -> Catalog:
    """Opened on a day of November, with ids of that day."""
    return Catalog.open(url, clock=SteppingClock(datetime(2026, 11, day, tzinfo=UTC)), ids=CountingIds(1000 * day))


class Templates:
    """An empty catalogue and a furnished one on a backend, made once: a copy costs a tenth of making it."""

    def __init__(self, backend: str, folder: Path) -> None:
        self.backend = backend
        self._folder = folder
        self._made: list[str] = []
        self.empty = self.new()
        new_catalog(self.empty).close()
        self.furnished = self.copy(self.empty)
        house = House(new_catalog(self.furnished, day=1)).furnish()
        house.catalog.close()
        self.standing = House(new_catalog(self.copy(self.furnished)))
        """For tests that only read."""
        self._kept: dict[str, House] = {}
        self._lasting = set(self._made)

    def keep(self, name: str, fill: Callable[[House], None]) -> House:
        """Return the furnished catalogue of that name, filled at the first call; then read only."""
        if name not in self._kept:
            url = self.copy(self.furnished)
            self._lasting.add(url)
            self._kept[name] = House(new_catalog(url))
            fill(self._kept[name])
        return self._kept[name]

    def copy(self, template: str) -> str:
        """Return the address of a copy."""
        return self.new(template)

    def close(self) -> None:
        """Leave nothing behind."""
        for house in (self.standing, *self._kept.values()):
            house.catalog.close()
        self._lasting.clear()
        self.drop_copies()

    def drop_copies(self) -> None:
        """Remove the databases of a test that is over: hundreds of them would fill a small disk."""
        for url in [each for each in self._made if each not in self._lasting]:
            self._made.remove(url)
            name = make_url(url).database
            if self.backend == "sqlite":
                Path(name).unlink(missing_ok=True)
            else:
                _on_server(f"DROP DATABASE {name} WITH (FORCE)")

    def new(self, template: str = "") -> str:
        """Return the address of a database without tables, or like a template."""
        name = f"lightkeep_{uuid.uuid4().hex}"
        if self.backend == "sqlite":
            path = self._folder / f"{name}.db"
            if template:
                shutil.copy(make_url(template).database, path)
            url = f"sqlite:///{path}"
        else:
            of = f" TEMPLATE {make_url(template).database}" if template else ""
            _on_server(f"CREATE DATABASE {name}{of}")
            url = make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
        self._made.append(url)
        return url


@pytest.fixture(scope="session")
def sqlite_templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Templates]:
    templates = Templates("sqlite", tmp_path_factory.mktemp("catalog"))
    yield templates
    templates.close()


@pytest.fixture(scope="session")
def postgres_templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Templates]:
    templates = Templates("postgres", tmp_path_factory.mktemp("catalog"))
    yield templates
    templates.close()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def backend(request: pytest.FixtureRequest) -> str:
    """`sqlite`, then `postgres`."""
    if request.param == "postgres" and not POSTGRES:
        pytest.skip("no PostgreSQL: run scripts/with-postgres pytest ...")
    return request.param


@pytest.fixture
def templates(backend: str, request: pytest.FixtureRequest) -> Iterator[Templates]:
    made = request.getfixturevalue(f"{backend}_templates")
    yield made
    made.drop_copies()


@pytest.fixture
def standing(templates: Templates) -> House:
    """A furnished catalogue that all tests share: read only."""
    return templates.standing


@pytest.fixture
def url(templates: Templates) -> str:
    """The address of an empty catalogue."""
    return templates.copy(templates.empty)


@pytest.fixture
def open_catalog() -> Iterator[Callable[[str], Catalog]]:
    """A function that opens the catalogue at an address with a clock and ids of the tests; closed at the end."""
    opened: list[Catalog] = []

    def open_(url: str) -> Catalog:
        opened.append(new_catalog(url))
        return opened[-1]

    yield open_
    for catalog in opened:
        catalog.close()


@pytest.fixture
def catalog(url: str, open_catalog: Callable[[str], Catalog]) -> Catalog:
    """An empty catalogue."""
    return open_catalog(url)


@pytest.fixture
def new_house(templates: Templates, open_catalog: Callable[[str], Catalog]) -> Callable[[], House]:
    """A function that makes one more furnished catalogue, the same to the last id and second."""
    return lambda: House(open_catalog(templates.copy(templates.furnished)))


@pytest.fixture
def house(new_house: Callable[[], House]) -> House:
    """A furnished catalogue."""
    return new_house()


class House:
    """A catalogue with what the tests put into it.

    Stations: A with experiments a1 and a2, B with b1 and the released one, `open`. A person for each role.
    """

    seen: ClassVar[dict[str, set[str]]] = {
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
    """Which experiments each principal sees."""
    grants = (
        Grant("collaborator", Role.COLLABORATOR, Scope.EXPERIMENT, "a1"),
        Grant("member", Role.MEMBER, Scope.EXPERIMENT, "a1"),
        Grant("pi", Role.PI, Scope.EXPERIMENT, "a1"),
        Grant("scientist", Role.STATION_SCIENTIST, Scope.STATION, "A"),
        Grant("manager", Role.STATION_MANAGER, Scope.STATION, "A"),
        Grant("admin", Role.FACILITY_ADMIN, Scope.FACILITY),
    )

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog

    def furnish(self) -> House:
        """Stations, experiments and people, and two datasets in each experiment."""
        with self.catalog.change(SERVICE) as tx:
            tx.add_store(StoreRecord("central", "posix", "/srv/store", "uuid-1"))
            for station in ("A", "B"):
                tx.add_station(Station(station, f"Station {station}", ("tomography",)))
            for id_, station in (("a1", "A"), ("a2", "A"), ("b1", "B"), ("open", "B")):
                tx.add_experiment(Experiment(id_, station, f"Gold wire {id_}", identifiers={"gup": f"8{id_}"}))
            tx.set_experiment_state("open", ExperimentState.CLOSED)
            tx.release_experiment("open", at=datetime(2026, 1, 1, tzinfo=UTC))
            for name in ("nobody", *(grant.person_id for grant in self.grants)):
                tx.add_person(Person(name, name.title()))
            for grant in self.grants:
                tx.add_grant(grant)
        for experiment in ("a1", "a2", "b1", "open"):
            self.add_dataset(experiment, "tooth")
            self.add_dataset(experiment, "glass", technique="xpcs", kind=DatasetKind.CALIBRATION)
        return self

    def view(self, name: str) -> View:
        """What that principal sees; `lightkeep` is Lightkeep itself."""
        return self.catalog.view(SERVICE if name == "lightkeep" else Principal(name))

    def files(self, dataset_id: str, contents: dict[str, bytes]) -> list[tuple[File, Replica]]:
        """Entries for path -> content, each with a verified replica on the store `central`."""
        return list(starmap(partial(self._file, dataset_id), contents.items()))

    def begin_dataset(self, experiment_id: str = "a1", name: str = "scan", **fields: Any) -> Dataset:
        """A dataset that is receiving, with nothing in it."""
        with self.catalog.change(SERVICE) as tx:
            return tx.add_dataset(Dataset(self.catalog.ids.new("ds"), experiment_id, name, **fields))

    def add_dataset(
        self,
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
        metadata = metadata or Metadata(
            {"energy": Quantity.of(24.9, "keV")}, {"sample": f"Gold {name}"}, {"scan": 7}
        )
        contents = contents or {f"{name}.h5": b"content", f"log/{name}.txt": name.encode()}
        dataset = self.begin_dataset(experiment_id, name, kind=kind, parents=parents)
        with self.catalog.change(SERVICE) as tx:
            tx.add_files(dataset.id, self.files(dataset.id, contents))
            tx.describe_dataset(
                dataset.id, metadata=metadata, format="nexus", main_file=next(iter(contents)), technique=technique
            )
            return tx.complete_dataset(dataset.id)

    def _file(self, dataset_id: str, path: str, content: bytes) -> tuple[File, Replica]:
        ids = self.catalog.ids
        digest = hashlib.sha256(content).hexdigest()
        file = File(ids.new("fl"), dataset_id, path, len(content), digest, 17, 0o640)
        at = datetime(2026, 11, 2, tzinfo=UTC)
        key = f"{dataset_id}/{path}"
        return file, Replica(ids.new("rp"), file.id, "central", key, ReplicaState.VERIFIED, at, Proof.DIRECT)


def _on_server(statement: str) -> None:
    with psycopg.connect(POSTGRES.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture
def dump() -> Callable[[Catalog], dict[str, list[Any]]]:
    """A function that returns every row of every table."""

    def rows(catalog: Catalog) -> dict[str, list[Any]]:
        with catalog.engine.connect() as connection:
            return {
                table.name: sorted((tuple(row) for row in connection.execute(select(table))), key=repr)
                for table in schema.tables.sorted_tables
            }

    return rows


@pytest.fixture
def count_statements() -> Callable[[Catalog, Callable[[], Any]], int]:
    """A function that calls another and returns how many statements reached the database."""

    def count(catalog: Catalog, call: Callable[[], Any]) -> int:
        seen: list[str] = []

        def note(_c: Any, _k: Any, statement: str, *_: Any) -> None:
            if statement != "BEGIN":
                seen.append(statement)

        event.listen(catalog.engine, "before_cursor_execute", note)
        call()
        event.remove(catalog.engine, "before_cursor_execute", note)
        return len(seen)

    return count
