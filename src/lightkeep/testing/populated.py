"""A small facility with a scan, a result, a run and a person for every role: for tests of what stands above it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from lightkeep import formats
from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people import experiments, set_up, sign_in
from lightkeep.model.clock import Clock, SystemIds
from lightkeep.model.datasets import Dataset, DatasetKind
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.formats import Output, Result
from lightkeep.model.people import SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.model.runs import Run, RunState
from lightkeep.testing.beamline import simulate_tomography
from lightkeep.testing.new_facility import new_facility

STATION = "2-BM-A"
EXPERIMENT = "2026-11-lee-81234"
PASSWORD = "light and keep it"  # noqa: S105 (of people who live for one test)
ROLES = (
    "anonymous",
    "stranger",
    "collaborator",
    "member",
    "pi",
    "station-scientist",
    "station-manager",
    "facility-admin",
)


class StillClock:
    """A clock that stands until it is set: pages made twice are equal to the byte."""

    def __init__(self, at: datetime = datetime(2026, 11, 22, 3, 0, tzinfo=UTC)) -> None:
        self.at = at

    def now(self) -> datetime:
        """Return the time that it was set to."""
        return self.at


@dataclass(frozen=True)
class Populated:
    """What is in it."""

    facility: Facility
    raw: Dataset
    """A tomography scan, 48 columns, 4 rows, 24 angles."""
    result: Dataset
    """Four slices of 48 x 48."""
    run: Run
    """That made the result."""
    tokens: dict[str, str]
    """Role -> a session's token; empty for anonymous."""

    def close(self) -> None:
        """Close the facility."""
        self.facility.close()


def populate(root: Path, *, clock: Clock | None = None) -> Populated:
    """Make the facility below `root`, with its people and its data."""
    facility = with_people(root, clock=clock)
    scan = root / "core.h5"
    scan.write_bytes(_measured())
    raw = ingest(facility, scan, experiment_id=EXPERIMENT, principal=SERVICE, quiet_s=0.0).dataset
    run, result = _result(facility, raw, root / "slices")
    tokens = {
        role: "" if role == "anonymous" else sign_in.new_api_token(facility, role, label="test") for role in ROLES
    }
    return Populated(facility, raw, result, run, tokens)


@cache
def _measured() -> bytes:
    """Return the file of the scan: half of the time of a facility is its simulation."""
    with TemporaryDirectory() as folder:
        file = Path(folder, "core.h5")
        simulate_tomography(file, size=48, rows=4, angles=24, flats=2, darks=2)
        return file.read_bytes()


def with_people(root: Path, *, clock: Clock | None = None) -> Facility:
    """Make the facility below `root`: a station, an experiment, a person for every role, and no data."""
    facility = new_facility(
        Config(root / "facility"),
        admin=Person("facility-admin", "Ada Admin"),
        password_hash=sign_in.hash_password(PASSWORD, hasher=sign_in.CHEAP),
        clock=clock or StillClock(),
        ids=SystemIds(),
    )
    admin = Principal("facility-admin")
    set_up.add_station(facility, Station(STATION, "Micro-tomography", ("tomography",)), principal=admin)
    experiments.create(facility, Experiment(EXPERIMENT, STATION, "Pore networks"), principal=admin)
    _people(facility, admin)
    return facility


def _people(facility: Facility, admin: Principal) -> None:
    for role in ROLES[1:-1]:
        hashed = sign_in.hash_password(PASSWORD, hasher=sign_in.CHEAP)
        set_up.add_person(facility, Person(role, role.title()), principal=admin, password_hash=hashed)
        if role.startswith("station"):
            set_up.grant(facility, Grant(role, Role(role), Scope.STATION, STATION), principal=admin)
        elif role != "stranger":
            set_up.grant(facility, Grant(role, Role(role), Scope.EXPERIMENT, EXPERIMENT), principal=admin)


def _result(facility: Facility, raw: Dataset, folder: Path) -> tuple[Run, Dataset]:
    """Write slices that nobody computed, as a run would have left them."""
    run = Run(
        facility.ids.new("run"), EXPERIMENT, raw.id, "tomography", created_by="member", software="lightkeep test"
    )
    with facility.catalog.change(SERVICE) as tx:
        tx.add_run(run)
        tx.update_run(
            run.id, state=RunState.RUNNING, progress=0.5, message="row 2 of 4", resolved={"center": 23.5}
        )
    y, x = np.mgrid[-1:1:48j, -1:1:48j]
    slices = np.stack([np.hypot(x, y) < radius for radius in (0.2, 0.4, 0.6, 0.8)]).astype(np.float32) * 0.01
    output = Output(slices, ("row", "y", "x"), "1/pixel", "attenuation")
    made = Result(
        "tomography", "Slices", {"attenuation": output}, "attenuation", {"center": 23.5}, "lightkeep test"
    )
    folder.mkdir()
    formats.get("nexus").write(folder, made)
    result = ingest(
        facility,
        folder,
        experiment_id=EXPERIMENT,
        principal=SERVICE,
        name="core-tomography",
        kind=DatasetKind.DERIVED,
        technique="tomography",
        parents=(raw.id,),
        run_id=run.id,
        quiet_s=0.0,
    ).dataset
    with facility.catalog.change(SERVICE) as tx:
        tx.update_run(run.id, state=RunState.DONE, progress=1.0, message="4 slices", result_id=result.id)
    return facility.catalog.view(SERVICE).run(run.id), result
