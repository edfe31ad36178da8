"""Correlation results with known curves in a populated facility: for tests of what shows them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lightkeep import formats
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people import experiments, set_up
from lightkeep.model.datasets import Dataset, DatasetKind
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.formats import Result
from lightkeep.model.people import SERVICE, Grant, Principal, Role, Scope
from lightkeep.testing import xpcs_results
from lightkeep.testing.populated import ROLES, Populated

STATION = "8-ID-I"
EXPERIMENT = "2026-11-chen-90210"
BINS = (1, 3)
"""Bins with a two-time correlation."""


@dataclass(frozen=True)
class Correlated:
    """Results of XPCS in an experiment of their own, in which everybody has the same role as in the other one."""

    runs: tuple[Dataset, ...]
    """Four runs; the last does not belong: its contrast is half that of the others."""

    @property
    def first(self) -> Dataset:
        """The first run."""
        return self.runs[0]


def add_correlation(house: Populated, folder: Path) -> Correlated:
    """Write results below an empty folder, and take them in."""
    admin = Principal("facility-admin")
    set_up.add_station(house.facility, Station(STATION, "Small-angle XPCS", ("xpcs",)), principal=admin)
    experiments.create(house.facility, Experiment(EXPERIMENT, STATION, "Colloids"), principal=admin)
    for role in ROLES[2:-1]:
        is_staff = role.startswith("station")
        where = (Scope.STATION, STATION) if is_staff else (Scope.EXPERIMENT, EXPERIMENT)
        set_up.grant(house.facility, Grant(role, Role(role), *where), principal=admin)
    return Correlated(tuple(_taken_in(house, folder / f"silica-{number}", number) for number in range(1, 5)))


def _taken_in(house: Populated, folder: Path, number: int) -> Dataset:
    folder.mkdir(parents=True)
    formats.get("aps-8id").write(folder, _result(number))
    return ingest(
        house.facility,
        folder,
        experiment_id=EXPERIMENT,
        principal=SERVICE,
        name=f"{folder.name}-xpcs",
        kind=DatasetKind.DERIVED,
        technique="xpcs",
        quiet_s=0.0,
    ).dataset


def _result(number: int) -> Result:
    qmap = xpcs_results.sample_qmap(dynamic=(6, 1), static=(12, 2))
    found = xpcs_results.sample_result(qmap, bins=BINS, seed=number)
    noise = np.random.default_rng(number).normal(0.0, 2e-4, found.outputs["g2"].data.shape)
    g2 = found.outputs["g2"]
    size = 0.5 if number == 4 else 1.0
    changed = replace(g2, data=1 + size * (np.asarray(g2.data) - 1) + noise)
    return replace(found, outputs={**found.outputs, "g2": changed})
