"""The files of deploy/ against the product that they start and watch."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lightkeep import config
from lightkeep.facility import create_facility
from lightkeep.http import metrics as server
from lightkeep.lifecycle.health import metrics
from lightkeep.model.people import SERVICE, Person

DEPLOY = Path(__file__).parents[1] / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
SETTINGS = {each.variable for each in config.settings()} | {"LIGHTKEEP_CONFIG"}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_a_command_that_there_is(unit: Path) -> None:
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment]
    read.read_string(unit.read_text())
    command = read["Service"]["ExecStart"].split()
    assert command[0] == "/opt/lightkeep/bin/lightkeep"
    done = subprocess.run(
        [sys.executable, "-m", "lightkeep", *command[1:], "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", [*(unit.name for unit in UNITS), "Containerfile"])
def test_a_variable_that_is_set_is_a_setting(name: str) -> None:
    named = set(re.findall(r"\b(LIGHTKEEP_[A-Z_]+)=", (DEPLOY / name).read_text()))
    assert named
    assert named <= SETTINGS


def test_an_alert_asks_for_numbers_that_are_measured(tmp_path: Path) -> None:
    asked = set(re.findall(r"\b(lightkeep_[a-z_]+)", (DEPLOY / "alerts.yml").read_text()))
    with create_facility(config.Config(tmp_path), admin=Person("ada", "Ada")) as facility:
        measured = {gauge.name for gauge in metrics.measure(facility, principal=SERVICE)}
    assert asked
    assert asked <= measured | {family.name for family in server.SERVER.collect()}
