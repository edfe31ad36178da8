"""A run may be given other datasets: found with its person's rights, kept as parents, repeated by its command."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing.process import process, request
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.model.datasets import Dataset
from lightkeep.model.errors import InvalidInput, NotFound, RunFailed
from lightkeep.model.people import SERVICE, Grant, Person, Principal, Role, Scope

sys.path.insert(0, str(Path(__file__).parents[1] / "plugin"))
from house import ADA, EVE, EXPERIMENT, build, mean_of_scan, scan

OTHER = "2026-11-other-2"
MIA = Principal("mia")
"""May process here, and may do nothing in the other experiment."""


@pytest.fixture
def facility(tmp_path: Path) -> Iterator[Facility]:
    with build(tmp_path / "facility") as facility:
        with facility.catalog.change(SERVICE) as tx:
            tx.add_person(Person("mia", "Mia"))
            tx.add_grant(Grant("mia", Role.MEMBER, Scope.EXPERIMENT, EXPERIMENT))
        yield facility


@pytest.fixture
def tooth(facility: Facility, tmp_path: Path) -> Dataset:
    return _ingest(facility, scan(tmp_path / "weigh-me.h5"), EXPERIMENT)


def _ingest(facility: Facility, path: Path, experiment: str) -> Dataset:
    return ingest(facility, path, experiment_id=experiment, principal=ADA, quiet_s=0).dataset


def _weighed(facility: Facility, result: Dataset) -> tuple[np.ndarray, str]:
    with h5py.File(local_path(facility, result.id, result.main_file)) as file:
        return file["entry/weighed/data"][()], file["entry/process/command"].asstr()[()]


def test_an_input_named_by_its_name_becomes_a_parent_and_is_repeated_by_its_id(
    facility: Facility, tooth: Dataset, tmp_path: Path
) -> None:
    flat = _ingest(facility, scan(tmp_path / "flat.h5"), EXPERIMENT)
    run = request(facility, tooth.id, "weighed", {"weights": "flat"}, principal=MIA)
    assert run.params == {"weights": flat.id}
    result = process(facility, run.id)
    assert result.parents == (tooth.id, flat.id)
    values, command = _weighed(facility, result)
    angle = np.arange(6)[:, None, None]
    assert np.allclose(values, ((mean_of_scan() - 2.5 + angle) ** 2).mean(axis=0))
    assert shlex.split(command) == ["lightkeep", "run", "weighed", tooth.id, "--weights", flat.id]


def test_an_input_of_another_experiment_needs_the_right_to_read_it(
    facility: Facility, tooth: Dataset, tmp_path: Path
) -> None:
    secret = _ingest(facility, scan(tmp_path / "secret.h5"), OTHER)
    for asked in (secret.id, f"{OTHER}/secret", "secret", "ds_0000000000000000"):
        with pytest.raises(NotFound):
            request(facility, tooth.id, "weighed", {"weights": asked}, principal=MIA)
    request(facility, tooth.id, "weighed", {"weights": f"{OTHER}/secret"}, principal=ADA)
    with pytest.raises(NotFound):
        request(facility, tooth.id, "weighed", {"weights": secret.id}, principal=EVE)


def test_a_right_that_was_taken_away_before_the_run_began_fails_it(
    facility: Facility, tooth: Dataset, tmp_path: Path
) -> None:
    secret = _ingest(facility, scan(tmp_path / "secret.h5"), OTHER)
    grant = Grant("mia", Role.COLLABORATOR, Scope.EXPERIMENT, OTHER)
    with facility.catalog.change(SERVICE) as tx:
        tx.add_grant(grant)
    run = request(facility, tooth.id, "weighed", {"weights": secret.id}, principal=MIA)
    with facility.catalog.change(SERVICE) as tx:
        tx.remove_grant(grant)
    with pytest.raises(NotFound):
        process(facility, run.id)
    assert facility.catalog.view(ADA).run(run.id).error == "not_found"


def test_an_input_of_another_format_is_refused_before_anything_is_queued(
    facility: Facility, tooth: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("not a scan")
    _ingest(facility, tmp_path / "notes.txt", EXPERIMENT)
    with pytest.raises(InvalidInput, match="of format unknown, not data-exchange") as caught:
        request(facility, tooth.id, "weighed", {"weights": "notes"}, principal=ADA)
    assert caught.value.data["field"] == "weights"
    assert facility.catalog.view(ADA).runs(dataset_id=tooth.id).total == 0


def test_a_technique_without_the_input_that_it_needs_says_so(facility: Facility, tooth: Dataset) -> None:
    run = request(facility, tooth.id, "weighed", principal=ADA)
    with pytest.raises((InvalidInput, RunFailed), match="no weights"):
        process(facility, run.id)
