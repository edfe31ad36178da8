"""`lightkeep simulate`: a scan with known truth, from the command line to its reconstruction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py

SMALL = ("--size", "64", "--rows", "4", "--angles", "64")


def test_the_axis_that_it_prints_is_the_one_that_a_run_finds(cli: Any, shell: Any) -> None:
    truth = cli("simulate", "scan_0001.h5", *SMALL, "--center-offset", "3.2", "--json").data
    assert truth["center"] == 31.5 + 3.2
    cli("ingest", "scan_0001.h5")
    run = shell("run", "tomography", "scan_0001", "--json").data["run"]
    assert abs(run["resolved"]["center"] - truth["center"]) < 0.3


def test_the_same_seed_measures_the_same(cli: Any, home: Path) -> None:
    for name in ("a.h5", "b.h5"):
        assert cli("simulate", name, *SMALL, "--seed", "5").code == 0
    with h5py.File(home / "a.h5") as a, h5py.File(home / "b.h5") as b:
        assert (a["exchange/data"][:] == b["exchange/data"][:]).all()


def test_a_file_that_exists_is_never_overwritten(cli: Any, home: Path) -> None:
    (home / "scan.h5").write_text("precious")
    refused = cli("simulate", "scan.h5", *SMALL)
    assert refused.code == 6
    assert "scan.h5" in refused.err
    assert (home / "scan.h5").read_text() == "precious"


def test_what_cannot_be_measured_is_one_line(cli: Any, home: Path) -> None:
    assert cli("simulate", "no/such/scan.h5", *SMALL).code == 9
    refused = cli("simulate", "scan.h5", *SMALL, "--center-offset", "40")
    assert refused.code == 2
    assert not (home / "scan.h5").exists()
