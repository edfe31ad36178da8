"""The Advanced Photon Source of 2 October 2017 as a catalogue: 15 stations, 560 TB, and no byte of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.model.clock import SystemIds
from lightkeep.model.datasets import Dataset, DatasetKind, File, Metadata
from lightkeep.model.experiments import Experiment, ExperimentState, Station
from lightkeep.model.people import SERVICE, Person
from lightkeep.model.stores import Proof, Replica, ReplicaState, StoreRecord, Tier
from lightkeep.testing.new_facility import new_facility
from lightkeep.testing.populated import StillClock

GB, TB = 10**9, 10**12
STATIONS: dict[str, tuple[str, str, int]] = {
    "1-ID": ("High-energy diffraction", "hedm", 440 * TB),
    "3-ID": ("Inelastic scattering", "", 217 * 10**6),
    "DND-CAT": ("DuPont-Northwestern-Dow", "", 723 * GB),
    "6-BM": ("EDD", "", 301 * GB),
    "6-ID": ("Magnetic scattering", "", 12 * GB),
    "7-BM": ("Time-resolved radiography", "tomography", 241 * 10**6),
    "7-ID": ("FSD", "", 6_400 * GB),
    "8-ID": ("Coherent scattering", "xpcs", 17 * TB),
    "11-ID-B": ("Pair distribution functions", "", 542 * GB),
    "11-ID-C": ("Diffraction", "", 53 * GB),
    "CARS": ("Environmental science", "xrf", 21_100 * GB),
    "Bio-CAT": ("Biophysics", "", 0),
    "33": ("XRIM", "", 1_400 * GB),
    "34": ("XMD", "", 73 * TB),
    "DCS-CAT": ("Dynamic compression", "", 5 * GB),
}
"""Station -> what is done there, technique, bytes on central storage: the slide's table."""
AS_OF = datetime(2017, 10, 2, tzinfo=UTC)
_MONTHS = 8  # 2017-1 and 2017-2: one experiment for each month from February on


def seed_facility(root: Path, *, now: datetime = AS_OF, capacity: int = 1_500 * TB) -> Facility:
    """Make the facility below `root`: the stations' experiments of 2017, all on `central`, and an empty archive.

    Every experiment has one raw dataset of two files, and was closed a week after it began. Its clock stands at
    `now`; nothing lies on the stores, so that only what reads the catalogue works.
    """
    clock = StillClock(datetime(2017, 2, 1, tzinfo=UTC))
    admin = Person("admin", "Ada Admin", "admin@aps.example")
    facility = new_facility(Config(root / "facility"), admin=admin, clock=clock, ids=SystemIds())
    with facility.catalog.change(SERVICE) as tx:
        central = facility.catalog.view(SERVICE).store("central")
        tx.set_store(replace(central, failure_domain="building-369", capacity=capacity))
        tx.add_store(
            StoreRecord("archive", "posix", "/archive", "seed-archive", Tier.TAPE, "site-2", is_durable=True)
        )
        for station, (name, technique, _) in STATIONS.items():
            tx.add_station(Station(station, name, (technique,) if technique else ()))
    for month in range(_MONTHS):
        begin = datetime(2017, 2 + month, 3, tzinfo=UTC)
        for station, (_, technique, size) in STATIONS.items():
            if size:
                clock.at = begin
                _experiment(facility, clock, station, technique, _share(size, month))
    clock.at = now
    return facility


def _share(size: int, month: int) -> int:
    """Return what a month has of all; together exactly all."""
    return size * (month + 1) // _MONTHS - size * month // _MONTHS


def _experiment(facility: Facility, clock: StillClock, station: str, technique: str, size: int) -> None:
    id_ = f"{clock.at:%Y-%m}-{station.lower()}-{clock.at:%m}0"
    with facility.catalog.change(SERVICE) as tx:
        tx.add_experiment(Experiment(id_, station, f"Measurements at {station}"))
        dataset = tx.add_dataset(Dataset(facility.ids.new("ds"), id_, "scan", DatasetKind.RAW, technique))
        tx.add_files(dataset.id, [_file(facility, dataset, n, size // 2 + n * (size % 2)) for n in range(2)])
        tx.describe_dataset(
            dataset.id, metadata=Metadata(), format="", main_file="frames_0.h5", technique=technique
        )
        tx.complete_dataset(dataset.id)
    clock.at += timedelta(days=7)
    with facility.catalog.change(SERVICE) as tx:
        tx.set_experiment_state(id_, ExperimentState.CLOSED)


def _file(facility: Facility, dataset: Dataset, number: int, size: int) -> tuple[File, Replica]:
    path = f"frames_{number}.h5"
    digest = sha256(f"{dataset.id}/{path}".encode()).hexdigest()
    file = File(facility.ids.new("file"), dataset.id, path, size, digest)
    now = facility.clock.now()
    key = f"{dataset.experiment_id}/scan/{path}"
    return file, Replica(
        facility.ids.new("replica"), file.id, "central", key, ReplicaState.VERIFIED, now, Proof.DIRECT, now
    )
