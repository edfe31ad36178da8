"""A run through the whole house: at a remote site the same bytes, and `auto` where it ends first."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lightkeep.facility import Facility
from lightkeep.lifecycle.intake.ingest import ingest
from lightkeep.lifecycle.processing.process import PLACED, process, request
from lightkeep.lifecycle.replicas.locate import local_path
from lightkeep.model.datasets import Dataset
from lightkeep.model.people import SERVICE
from lightkeep.model.runs import Run
from lightkeep.testing.iri import COMPUTE, FILES, IriServer
from lightkeep.testing.suites.site import numbers_of, small_scan

sys.path.insert(0, str(Path(__file__).parents[2] / "plugin"))
from house import ADA, EXPERIMENT, build


@pytest.fixture
def facility(tmp_path: Path, server: IriServer) -> Iterator[Facility]:
    """A facility with an engine `far`: a facility that speaks the IRI API."""
    far: dict[str, Any] = {
        "kind": "iri",
        "url": server.url,
        "compute": COMPUTE,
        "filesystem": FILES,
        "staging": str(server.folder / "lightkeep"),
        "token_file": str(server.token_file),
        "python": sys.executable,
        "processes": 1,
        "poll_s": 0.05,
        "rate": 1e8,
    }
    with build(tmp_path / "facility") as made:
        yield replace(made, config=replace(made.config, engines={"far": far}))


@pytest.fixture
def dataset(facility: Facility, tmp_path: Path) -> Dataset:
    path = small_scan(tmp_path / "tooth.h5")
    return ingest(facility, path, experiment_id=EXPERIMENT, principal=ADA, quiet_s=0).dataset


def computed(facility: Facility, dataset: Dataset, engine: str) -> tuple[Run, bytes]:
    """Run a reconstruction on an engine; return the run, and the bytes of its numbers."""
    run = request(facility, dataset.id, "tomography", principal=ADA, engine=engine)
    result = process(facility, run.id)
    found = facility.catalog.view(SERVICE).run(run.id)
    return found, numbers_of(local_path(facility, result.id, result.main_file))


def test_a_remote_run_gives_the_same_bytes_tells_what_it_took_and_makes_no_replica(
    facility: Facility, dataset: Dataset, server: IriServer
) -> None:
    _, here = computed(facility, dataset, "inline")
    run, there = computed(facility, dataset, "far")
    assert there == here
    assert server.jobs == ["completed"]
    told = run.placement["truth"]
    assert told["moved_bytes"] >= dataset.size
    assert 0 < told["transfer_s"] < told["total_s"]
    assert run.placement["work"]["technique"] == "tomography"
    view = facility.catalog.view(SERVICE)
    assert len(list((server.folder / "lightkeep" / "objects").iterdir())) > 2
    assert {each.store_id for each in view.replicas(dataset.id)} == {"central"}
    assert not [store for store in view.stores() if str(server.folder) in store.location]


def test_auto_goes_where_it_ends_first_and_keeps_estimate_and_truth(facility: Facility, dataset: Dataset) -> None:
    assert request(facility, dataset.id, "tomography", principal=ADA, engine="auto").engine == PLACED
    run, _ = computed(facility, dataset, "auto")
    promised = run.placement["estimates"]
    assert {each["place"] for each in promised} == {"far", "inline", "processes"}
    assert run.engine == promised[0]["place"] != "far"
    assert [each["total_s"] for each in promised] == sorted(each["total_s"] for each in promised)
    assert run.placement["truth"]["total_s"] > 0


def test_a_site_that_is_down_is_not_chosen(facility: Facility, dataset: Dataset, server: IriServer) -> None:
    server.faults.is_down = True
    run, _ = computed(facility, dataset, "auto")
    (far,) = [each for each in run.placement["estimates"] if each["place"] == "far"]
    assert not far["is_possible"]
    assert "down" in far["reason"]


def test_what_a_site_holds_already_is_not_expected_to_travel_again(facility: Facility, dataset: Dataset) -> None:
    promised = []
    for engine in ("auto", "far", "auto"):
        run, _ = computed(facility, dataset, engine)
        promised += [each["transfer_s"] for each in run.placement.get("estimates", ()) if each["place"] == "far"]
    assert promised[0] == pytest.approx(run.placement["work"]["moved_bytes"] / 1e8)
    (far,) = [each for each in run.placement["estimates"] if each["place"] == "far"]
    assert f"{dataset.size / 1e6:.3g} MB there" in far["reason"]
