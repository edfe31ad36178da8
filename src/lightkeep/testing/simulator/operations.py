"""What can happen to a facility: verbs of people, the passing of time, and harm."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from lightkeep.lifecycle.ingest import ingest
from lightkeep.lifecycle.transfer import Pace
from lightkeep.lifecycle.verify import verify
from lightkeep.model.datasets import Dataset
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Grant, Person, Role, Scope
from lightkeep.testing.simulator.oracle import Acknowledged

if TYPE_CHECKING:
    from lightkeep.facility import Facility
    from lightkeep.testing.simulator.world import World

_ALONE: Final = Pace(threads=1)


@dataclass(frozen=True, slots=True)
class Operation:
    """One kind of step."""

    name: str
    run: Callable[[World], str | None]
    """Returns what came of it, in a word; None means done."""
    weight: int
    is_harm: bool = False
    """The scheduler itself destroys bytes: what is lost by it is not the program's fault."""


@dataclass(frozen=True, slots=True)
class People:
    """Who asks for things."""

    experiments: tuple[str, ...]

    @classmethod
    def arrive(cls, facility: Facility) -> People:
        """Make accounts, stations and experiments."""
        with facility.catalog.change(SERVICE) as tx:
            for person, role in (("anna", Role.FACILITY_ADMIN), ("boris", Role.FACILITY_ADMIN)):
                tx.add_person(Person(person, person.title(), f"{person}@facility.example"))
                tx.add_grant(Grant(person, role, Scope.FACILITY))
            for station in ("2-BM", "8-ID"):
                tx.add_station(Station(station))
                for number in (1, 2):
                    tx.add_experiment(Experiment(f"{station}-{number}", station))
        return cls(tuple(f"{station}-{number}" for station in ("2-BM", "8-ID") for number in (1, 2)))


def _ingest(world: World) -> None:
    experiment_id = world.random.choice(world.people.experiments)
    number = world.ids.new("src")
    source = world.folder / "sources" / number
    source.mkdir(parents=True)
    for name in range(world.random.choice((1, 2, 5, 30))):
        size = world.random.choice((0, 1, 100, 1000, 5000))
        (source / f"scan_{name:02d}.dat").write_bytes(world.random.randbytes(size))
    try:
        for _ in range(2):  # a person tries again once
            taken = ingest(
                world.facility, source, experiment_id=experiment_id, principal=SERVICE, quiet_s=0.0, pace=_ALONE
            )
        _acknowledge(world, taken.dataset)
    finally:
        shutil.rmtree(source)


def _acknowledge(world: World, dataset: Dataset) -> None:
    for file in world.facility.catalog.view(SERVICE).files(dataset.id).items:
        world.oracle.acknowledge(Acknowledged(file.sha256, dataset.id, file.path))


def _verify(world: World) -> str | None:
    dataset = _any_dataset(world)
    if dataset is None:
        return "nothing there"
    verify(world.facility, dataset.id, principal=SERVICE)
    return None


def _flip(world: World) -> str | None:
    medium = world.random.choice(list(world.media.values()))
    if not medium.names:
        return "nothing there"
    inode = medium.names[world.random.choice(sorted(medium.names))]
    if not inode.now:
        return "nothing there"
    changed = bytearray(inode.now)
    changed[world.random.randrange(len(changed))] ^= 1 << world.random.randrange(8)
    inode.now = changed
    inode.durable = bytes(changed)
    return None


def _cut_power(world: World) -> None:
    for medium in world.media.values():
        medium.cut_power()


def _wait(world: World) -> None:
    world.clock.at += timedelta(minutes=world.random.choice((1, 60, 1440, 1440, 10080, 43200)))


def _any_dataset(world: World) -> Dataset | None:
    page = world.facility.catalog.view(SERVICE).datasets(limit=10_000, order="name").items
    return world.random.choice(page) if page else None


OPERATIONS: Final = (
    Operation("ingest", _ingest, 6),
    Operation("verify", _verify, 6),
    Operation("wait", _wait, 4),
    Operation("flip a bit", _flip, 1, is_harm=True),
    Operation("power cut", _cut_power, 1),
)
