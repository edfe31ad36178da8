"""A facility in a folder, and the command line in a process of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lightkeep import config
from lightkeep.cli import answer
from lightkeep.cli.session import os_person
from lightkeep.lifecycle.people import experiments, set_up
from lightkeep.model.experiments import Experiment, Station
from lightkeep.model.people import Principal
from lightkeep.testing.new_facility import new_facility


@dataclass(frozen=True)
class Answer:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The JSON object that was printed."""
        assert self.out, self.err
        return json.loads(self.out)


Cli = Callable[..., Answer]


def run(
    *arguments: str | bytes, folder: Path, wrap: Sequence[str] = (), stdin: str = "", **environ: str
) -> Answer:
    """Run the command line as a user would, in a folder; `wrap` goes before it, e.g. `prlimit`."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("LIGHTKEEP_")} | environ
    done = subprocess.run(
        [*wrap, sys.executable, "-m", "lightkeep", *arguments],
        cwd=folder,
        env=environment | {"COLUMNS": "80"},
        input=stdin.encode(),
        capture_output=True,
        timeout=120,
    )
    return Answer(done.returncode, done.stdout.decode("utf-8", "surrogateescape"), done.stderr.decode())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return the folder of a facility with a station and one open experiment."""
    folder = tmp_path / "facility"
    folder.mkdir()
    (folder / "lightkeep.toml").write_text('[ingest]\nquiet_s = 0\n[engine]\nname = "inline"\n')
    admin = os_person()
    with new_facility(config.load(folder / "lightkeep.toml", environ={}), admin=admin) as facility:
        who = Principal(admin.id)
        set_up.add_station(facility, Station("2-BM", "Micro-tomography", ("tomography",)), principal=who)
        experiments.create(facility, Experiment("2026-11-lee-1", "2-BM", "Teeth"), principal=who)
    return folder


@pytest.fixture
def shell(home: Path) -> Cli:
    """Return the command line in a process of its own, in the facility's folder."""

    def outside(*arguments: str, **options: Any) -> Answer:
        return run(*arguments, folder=home, **options)

    return outside


@pytest.fixture
def cli(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Return the command line in this process, in the facility's folder: the same, and quicker."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("COLUMNS", "80")
    for name in [name for name in os.environ if name.startswith("LIGHTKEEP_")]:
        monkeypatch.delenv(name)

    def inside(*arguments: str, stdin: str = "", **environ: str) -> Answer:
        with monkeypatch.context() as patch:
            patch.setattr("sys.stdin", io.StringIO(stdin))
            for name, value in environ.items():
                patch.setenv(name, value)
            capsys.readouterr()
            code = answer(arguments)
        return Answer(code, *capsys.readouterr())

    return inside


def write_scan(path: Path, *, angles: int = 24, rows: int = 4, columns: int = 32, flats: int = 3) -> Path:
    """Write a small Data Exchange scan of a disk and return its path."""
    theta = np.arange(angles) * 180.0 / angles
    x = np.arange(columns) - columns / 2
    line = np.exp(-0.05 * 2 * np.sqrt(np.maximum(0, (columns / 3) ** 2 - x**2)))
    data = np.tile((line * 1000).astype("u2"), (angles, rows, 1))
    with h5py.File(path, "w") as file:
        file["implements"] = "exchange"
        file["exchange/data"] = data
        file["exchange/data_white"] = np.full((flats, rows, columns), 1000, "u2")
        file["exchange/data_dark"] = np.zeros((2, rows, columns), "u2")
        file["exchange/theta"] = theta
        file["exchange/theta"].attrs["units"] = "deg"
    return path


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    """Return a small tomography scan, as a beamline writes it."""
    return write_scan(tmp_path / "tooth.h5")
