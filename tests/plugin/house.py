"""A small facility and a small scan, for tests and for the processes that they start and kill."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from lightkeep.config import Config, EngineConfig
from lightkeep.facility import Facility
from lightkeep.formats.data_exchange import ScanHeader, write_scan
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.testing.new_facility import new_facility

EXPERIMENT = "2026-11-curie-1"
ADA = Principal("ada")
"""Administrator."""
EVE = Principal("eve")
"""Sees the experiment, may not process."""


def config(root: Path, engine: str = "inline") -> Config:
    """Return the facility's configuration: no quiet time, two workers."""
    return Config(root, engine=EngineConfig(name=engine, workers=2))


def build(root: Path, engine: str = "inline") -> Facility:
    """Make a facility with one station, one experiment and two persons."""
    facility = new_facility(config(root, engine), admin=Person("ada", "Ada"))
    furnish(facility)
    return facility


def furnish(facility: Facility) -> None:
    """Add one station, two experiments and a second person."""
    with facility.catalog.change(SERVICE) as tx:
        tx.add_station(Station("2-BM-A"))
        tx.add_experiment(Experiment(EXPERIMENT, "2-BM-A"))
        tx.add_experiment(Experiment("2026-11-other-2", "2-BM-A"))
        tx.add_person(Person("eve", "Eve"))
        tx.add_grant(Grant("eve", Role.MEMBER, Scope.EXPERIMENT, "2026-11-other-2"))


def scan(path: Path, rows: int = 4) -> Path:
    """Write a scan of 6 angles, `rows` rows and 5 columns: the value is 100 * row + angle + column."""
    angle, row, column = np.ogrid[:6, :rows, :5]
    frames = 100 * row + angle + column
    header = ScanHeader(np.arange(6) * 30.0, rows, 5, title="small scan")
    flats = np.full((2, rows, 5), 60_000)
    return write_scan(path, header, projections=frames, flats=flats, darks=flats * 0)


def frames(path: Path) -> Path:
    """Write a stack of 8 frames of 16 x 16 pixels, which `average` accepts."""
    with h5py.File(path, "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        data = entry.create_group("data")
        data.attrs.update(NX_class="NXdata", signal="counts")
        data["counts"] = np.arange(8 * 16 * 16, dtype=np.uint16).reshape(8, 16, 16)
    return path


def mean_of_scan(rows: int = 4) -> np.ndarray:
    """Return what `gated` makes of the scan: (rows, 5) float32."""
    row, column = np.ogrid[:rows, :5]
    return (100 * row + 2.5 + column).astype(np.float32)
