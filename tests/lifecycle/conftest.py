"""A facility with two stores, and a dataset on the first."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people.set_up import add_store
from lightkeep.model.datasets import Dataset
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Person, Principal
from lightkeep.testing.new_facility import new_facility

ADA = Principal("ada")


class HandClock:
    """Stands until somebody moves it."""

    def __init__(self) -> None:
        self.at = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def forward(self, **span: float) -> None:
        self.at += timedelta(**span)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def house(tmp_path: Path, clock: HandClock) -> Iterator[Facility]:
    """One station, one experiment, the stores `central` and `second`; its clock is the fixture `clock`."""
    config = Config(tmp_path / "house")
    with new_facility(config, admin=Person("ada", "Ada", email="ada@example.org"), clock=clock) as made:
        with made.catalog.change(SERVICE) as tx:
            tx.add_station(Station("2-BM"))
            tx.add_experiment(Experiment("e1", "2-BM"))
        add_store(made, "second", tmp_path / "second", principal=ADA)
        yield made


@pytest.fixture
def measure(house: Facility, tmp_path: Path) -> Callable[..., Dataset]:
    """Make a dataset of files of 20,000 random bytes, by its name and theirs."""

    def made(name: str = "scan", names: tuple[str, ...] = ("a", "b", "sub/c"), size: int = 20_000) -> Dataset:
        for each in names:
            path = tmp_path / name / each
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(size))
        return ingest(house, tmp_path / name, experiment_id="e1", principal=ADA, quiet_s=0.0).dataset

    return made
