"""`lightkeep simulate`: measurements with known truth, from the command line to their results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import h5py
import pytest

SMALL = ("--size", "64", "--rows", "4", "--angles", "64")


def test_the_axis_that_it_prints_is_the_one_that_a_run_finds(cli: Any, shell: Any) -> None:
    truth = cli("simulate", "tomography", "scan_0001.h5", *SMALL, "--center-offset", "3.2", "--json").data
    assert truth["center"] == 31.5 + 3.2
    cli("ingest", "scan_0001.h5")
    run = shell("run", "tomography", "scan_0001", "--json").data["run"]
    assert abs(run["resolved"]["center"] - truth["center"]) < 0.3


def test_the_same_seed_measures_the_same(cli: Any, home: Path) -> None:
    for name in ("a.h5", "b.h5"):
        assert cli("simulate", "tomography", name, *SMALL, "--seed", "5").code == 0
    with h5py.File(home / "a.h5") as a, h5py.File(home / "b.h5") as b:
        assert (a["exchange/data"][:] == b["exchange/data"][:]).all()


def test_a_file_that_exists_is_never_overwritten(cli: Any, home: Path) -> None:
    (home / "scan.h5").write_text("precious")
    refused = cli("simulate", "tomography", "scan.h5", *SMALL)
    assert refused.code == 6
    assert "scan.h5" in refused.err
    assert (home / "scan.h5").read_text() == "precious"


def test_what_cannot_be_measured_is_one_line(cli: Any, home: Path) -> None:
    assert cli("simulate", "tomography", "no/such/scan.h5", *SMALL).code == 9
    refused = cli("simulate", "tomography", "scan.h5", *SMALL, "--center-offset", "40")
    assert refused.code == 2
    assert not (home / "scan.h5").exists()


RUN = ("--detector", "imm", "--rows", "48", "--columns", "64", "--frames", "30")


def test_an_xpcs_run_is_written_with_its_metadata_and_q_map_and_its_truth_is_printed(cli: Any, home: Path) -> None:
    truth = cli("simulate", "xpcs", "run_1", *RUN, "--modes", "4", "--diffusion", "5e4", "--json").data
    assert {each.name for each in (home / "run_1").iterdir()} == {"run_1.imm", "run_1_metadata.hdf"}
    assert (truth["file"], truth["qmap"]) == ("run_1/run_1.imm", "run_1_qmap.hdf")
    assert truth["shape"] == [30, 48, 64]
    assert truth["contrast"] == 0.25
    assert [rate / q**2 for q, rate in zip(truth["q"], truth["gamma"], strict=True)] == pytest.approx([5e4] * 9)
    shown = cli("simulate", "xpcs", "run_2", *RUN).out
    assert "30 frames of 48 x 64 pixels, one in 1 ms" in shown
    assert "q, 1/angstrom" in shown


def test_every_detector_of_the_simulated_beamline_can_be_asked_for() -> None:
    from lightkeep.cli.simulate import xpcs
    from lightkeep.testing.beamline import XPCS_FORMATS

    choices = next(each for each in xpcs.params if each.name == "detector").type
    assert isinstance(choices, click.Choice)
    assert set(choices.choices) == set(XPCS_FORMATS)


def test_an_xpcs_run_that_cannot_be_is_one_line_and_leaves_nothing(cli: Any, home: Path) -> None:
    before = set(home.iterdir())
    assert cli("simulate", "xpcs", "no/such/run", *RUN).code == 9
    assert cli("simulate", "xpcs", "run", *RUN, "--lost", "30").code == 2
    assert cli("simulate", "xpcs", "run", *RUN, "--seed", "-1").code == 2
    assert cli("simulate", "xpcs", "run", "--rows", "64").code == 2
    assert set(home.iterdir()) == before
    (home / "run_qmap.hdf").write_text("precious")
    assert cli("simulate", "xpcs", "run", *RUN).code == 6
    assert (home / "run_qmap.hdf").read_text() == "precious"
