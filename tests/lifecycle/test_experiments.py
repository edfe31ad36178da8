"""The life of an experiment: one verb, one event."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from lightkeep.config import Config
from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.people import experiments, set_up
from lightkeep.model.clock import SystemIds
from lightkeep.model.datasets import Dataset, DatasetKind
from lightkeep.model.errors import Conflict, Forbidden, InvalidInput, NotFound, SignInRequired
from lightkeep.model.experiments import Experiment, ExperimentState, Station
from lightkeep.model.people import ANONYMOUS, SERVICE, Grant, Person, Principal, Role, Scope
from lightkeep.testing.new_facility import new_facility
from lightkeep.testing.populated import StillClock

ADMIN, PI, STRANGER = Principal("admin"), Principal("pi"), Principal("stranger")
EXP = "2026-11-lee-1"


@dataclass(frozen=True)
class Beam:
    """A facility with one open experiment, and a clock to set."""

    facility: Facility
    clock: StillClock

    def events(self) -> list[str]:
        return [each.verb for each in self.facility.catalog.view(SERVICE).events(experiment_id=EXP, limit=1000)]

    def state(self) -> ExperimentState:
        return self.facility.catalog.view(SERVICE).experiment(EXP).state

    def measure(self, folder: Path, name: str = "scan", **options: Any) -> Dataset:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.dat").write_bytes(name.encode())
        options = {"principal": SERVICE, "quiet_s": 0.0, "name": name} | options
        return ingest(self.facility, folder, experiment_id=EXP, **options).dataset


@pytest.fixture
def beam(tmp_path: Path) -> Iterator[Beam]:
    clock = StillClock()
    with new_facility(
        Config(tmp_path / "home"), admin=Person("admin", "Admin"), clock=clock, ids=SystemIds()
    ) as facility:
        set_up.add_station(facility, Station("2-BM"), principal=ADMIN)
        experiments.create(facility, Experiment(EXP, "2-BM", "Teeth"), principal=ADMIN)
        for name in ("pi", "stranger"):
            set_up.add_person(facility, Person(name, name.title()), principal=ADMIN)
        set_up.grant(facility, Grant("pi", Role.PI, Scope.EXPERIMENT, EXP), principal=ADMIN)
        yield Beam(facility, clock)


def modes(folder: Path) -> dict[str, int]:
    found = {str(p.relative_to(folder)): stat.S_IMODE(p.lstat().st_mode) for p in folder.rglob("*")}
    return found | {".": stat.S_IMODE(folder.stat().st_mode)}


def test_closing_is_one_event_and_closing_again_none(beam: Beam) -> None:
    experiments.close(beam.facility, EXP, principal=PI)
    experiments.close(beam.facility, EXP, principal=PI)
    assert beam.events().count("experiment.closed") == 1
    assert beam.facility.catalog.view(PI).experiment(EXP).closed_at == beam.clock.at


def test_a_closed_experiment_refuses_late_files_and_says_what_to_do(beam: Beam, tmp_path: Path) -> None:
    experiments.close(beam.facility, EXP, principal=PI)
    with pytest.raises(Conflict, match="takes no raw data") as refused:
        beam.measure(tmp_path / "late")
    assert "open" in refused.value.remedy
    assert beam.facility.catalog.view(SERVICE).datasets(experiment_id=EXP).total == 0


def test_closing_makes_raw_folders_read_only_and_nothing_else(beam: Beam, tmp_path: Path) -> None:
    beam.measure(tmp_path / "a", "raw")
    result = beam.measure(tmp_path / "b", "result", kind=DatasetKind.DERIVED)
    place = beam.facility.config.root / "stores" / "central" / "2-BM" / EXP
    before = modes(place / "result")
    done = experiments.close(beam.facility, EXP, principal=PI)
    assert done.files == 1
    assert all(not mode & 0o222 for mode in modes(place / "raw").values())
    assert modes(place / "result") == before
    assert place.stat().st_mode & stat.S_IWUSR
    assert result.kind is DatasetKind.DERIVED
    later = beam.measure(tmp_path / "c", "later", kind=DatasetKind.DERIVED)  # processing goes on
    assert later.files == 1


def test_what_was_registered_in_place_stays_as_it_is(beam: Beam, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    set_up.add_store(beam.facility, "disk", disk, principal=ADMIN, is_managed=False)
    beam.measure(disk / "scan", store_id="disk", in_place=True)
    before = modes(disk)
    experiments.close(beam.facility, EXP, principal=PI)
    assert modes(disk) == before


def test_a_symlink_in_a_raw_folder_is_not_followed(beam: Beam, tmp_path: Path) -> None:
    beam.measure(tmp_path / "a", "raw")
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "mine").write_text("mine")
    place = beam.facility.config.root / "stores" / "central" / "2-BM" / EXP / "raw"
    os.symlink(outside, place / "link")
    experiments.close(beam.facility, EXP, principal=PI)
    assert outside.stat().st_mode & stat.S_IWUSR
    assert (outside / "mine").stat().st_mode & stat.S_IWUSR


def test_it_is_not_closed_while_raw_data_are_coming_in(beam: Beam) -> None:
    with beam.facility.catalog.change(SERVICE) as tx:
        tx.add_dataset(Dataset("ds_1", EXP, "coming"))
    with pytest.raises(Conflict, match="still receiving 1 raw datasets, first of all coming"):
        experiments.close(beam.facility, EXP, principal=PI)
    assert beam.state() is ExperimentState.OPEN
    experiments.close(beam.facility, EXP, principal=PI, anyway=True)
    assert beam.state() is ExperimentState.CLOSED


def test_opening_again_takes_files_and_needs_more_than_the_groups_own_role(beam: Beam, tmp_path: Path) -> None:
    beam.measure(tmp_path / "a", "raw")
    experiments.close(beam.facility, EXP, principal=PI)
    with pytest.raises(Forbidden):
        experiments.open_(beam.facility, EXP, principal=PI)
    experiments.open_(beam.facility, EXP, principal=ADMIN)
    beam.measure(tmp_path / "b", "late")
    place = beam.facility.config.root / "stores" / "central" / "2-BM" / EXP / "raw"
    assert place.stat().st_mode & stat.S_IWUSR
    assert not (place / "raw.dat").stat().st_mode & 0o222
    assert beam.events().count("experiment.open") == 1


def test_a_planned_experiment_is_opened_by_its_group(beam: Beam) -> None:
    planned = Experiment("2026-12-lee-2", "2-BM", state=ExperimentState.PLANNED)
    experiments.create(beam.facility, planned, principal=ADMIN)
    set_up.grant(beam.facility, Grant("pi", Role.PI, Scope.EXPERIMENT, planned.id), principal=ADMIN)
    done = experiments.open_(beam.facility, planned.id, principal=PI)
    assert done.experiment.state is ExperimentState.OPEN


def test_an_embargo_ends_by_itself_and_to_the_microsecond(beam: Beam) -> None:
    experiments.close(beam.facility, EXP, principal=PI)
    end = datetime(2029, 11, 22, tzinfo=UTC)
    experiments.release(beam.facility, EXP, principal=PI, at=end)
    for principal in (ANONYMOUS, STRANGER):
        beam.clock.at = end - timedelta(microseconds=1)
        with pytest.raises(NotFound):
            beam.facility.catalog.view(principal).experiment(EXP)
        beam.clock.at = end
        assert beam.facility.catalog.view(principal).experiment(EXP).id == EXP
    assert beam.events().count("experiment.released") == 1


def test_a_release_is_one_logged_act_and_can_be_taken_back(beam: Beam) -> None:
    experiments.close(beam.facility, EXP, principal=PI)
    assert beam.facility.catalog.view(ANONYMOUS).experiments().total == 0
    experiments.release(beam.facility, EXP, principal=PI)
    assert beam.facility.catalog.view(ANONYMOUS).experiment(EXP).is_public(beam.clock.at)
    with pytest.raises(SignInRequired):
        experiments.withdraw_release(beam.facility, EXP, principal=ANONYMOUS)
    experiments.withdraw_release(beam.facility, EXP, principal=PI)
    assert beam.facility.catalog.view(ANONYMOUS).experiments().total == 0
    assert beam.events()[-2:] == ["experiment.released", "experiment.release_withdrawn"]


def test_what_is_not_closed_is_not_released(beam: Beam) -> None:
    with pytest.raises(Conflict, match="can be released when it is closed"):
        experiments.release(beam.facility, EXP, principal=ADMIN)


def test_results_are_not_released_past_the_rights_of_their_inputs(beam: Beam, tmp_path: Path) -> None:
    secret = Experiment("2026-11-kim-2", "2-BM")
    experiments.create(beam.facility, secret, principal=ADMIN)
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "x").write_bytes(b"x")
    source = ingest(beam.facility, tmp_path / "s", experiment_id=secret.id, principal=SERVICE, quiet_s=0.0).dataset
    beam.measure(tmp_path / "r", "result", kind=DatasetKind.DERIVED, parents=(source.id,))
    experiments.close(beam.facility, EXP, principal=PI)
    with pytest.raises(Forbidden, match="may not share") as refused:
        experiments.release(beam.facility, EXP, principal=PI)
    assert secret.id not in str(refused.value)
    assert experiments.release(beam.facility, EXP, principal=ADMIN).released_at is not None


@pytest.mark.parametrize("verb", ["close", "release", "withdraw_release", "open_"])
def test_who_may_not_see_it_learns_nothing(beam: Beam, verb: str) -> None:
    with pytest.raises(NotFound):
        getattr(experiments, verb)(beam.facility, EXP, principal=STRANGER)


def test_a_window_ends_after_it_starts(beam: Beam) -> None:
    at = datetime(2026, 11, 1, tzinfo=UTC)
    with pytest.raises(InvalidInput, match="end before it starts"):
        experiments.create(beam.facility, Experiment("x", "2-BM", starts_at=at, ends_at=at), principal=ADMIN)
