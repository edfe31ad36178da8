"""`policy` and `explain` as a user types them."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import Cli, write_scan

POLICY = """
id = "imaging"
stations = ["2-BM*"]
[[rule]]
name = "scans"
copies = ["tape"]
[rule.hot]
keep = "3 months"
min_copies = 1
"""


@pytest.fixture
def text(home: Path) -> Path:
    """A policy in a file."""
    file = home / "imaging.toml"
    file.write_text(POLICY)
    return file


def test_a_policy_is_checked_then_adopted_then_read_again(cli: Cli, text: Path) -> None:
    checked = cli("policy", "check", str(text))
    assert "3 months" in checked.out
    assert "No policy" in cli("policy", "list").out
    assert cli("policy", "set", str(text), "--json").data["stamp"] == "imaging@1"
    assert cli("policy", "set", str(text), "--json").data["stamp"] == "imaging@1"
    text.write_text(POLICY.replace("3 months", "1 year"))
    assert cli("policy", "set", str(text), "--json").data["stamp"] == "imaging@2"
    assert [v["version"] for v in cli("policy", "list", "--json").data["items"]] == [2, 1]
    assert "3 months" in cli("policy", "show", "imaging", "--version", "1").out


def test_a_mistake_in_a_policy_is_one_line_with_its_remedy(cli: Cli, text: Path) -> None:
    text.write_text(POLICY.replace("keep =", "keeep ="))
    refused = cli("policy", "check", str(text))
    assert refused.code != 0
    assert "did you mean `keep`?" in refused.err
    text.write_text(POLICY.replace("min_copies = 1", "min_copies = 0"))
    assert "cannot be configured" in cli("policy", "set", str(text)).err
    assert cli("policy", "check").code != 0
    assert cli("policy", "check", str(text), "--default").code != 0
    assert "cannot read" in cli("policy", "check", "nowhere.toml").err


def test_the_packaged_policy_applies_only_when_it_is_asked_for(cli: Cli) -> None:
    assert cli("policy", "check", "--default").code == 0
    assert cli("policy", "list", "--json").data["total"] == 0
    assert cli("policy", "set", "--default", "--json").data["id"] == "central-3-months"


def test_explain_tells_why_something_stays_and_simulate_what_goes(cli: Cli, home: Path, text: Path) -> None:
    write_scan(home / "tooth.h5")
    assert cli("ingest", "tooth.h5").code == 0
    assert "none: everything is kept" in cli("explain", "tooth").out
    cli("policy", "set", str(text))
    out = cli("explain", "tooth").out
    assert "imaging@1, rule scans" in out
    assert "P11 expiry" in out
    found = cli("explain", "tooth", "--json").data
    assert found["places"][0]["store_id"] == "central"
    assert found["places"][0]["answers"][0]["stays_until"] is None
    assert cli("policy", "explain", "tooth", "--json").data["dataset_id"] == found["dataset_id"]
    assert "lies there" in cli("policy", "simulate", "--at", "2040-01-01").out
    (effect,) = cli("policy", "simulate", str(text), "--at", "2040-01-01", "--json").data["effects"]
    assert (effect["experiment_id"], effect["goes"]) == ("2026-11-lee-1", 0)
    assert "past" in cli("policy", "simulate", "--at", "2001-01-01").err


def test_an_experiment_gets_a_policy_of_its_own(cli: Cli, text: Path) -> None:
    assert cli("policy", "assign", "2026-11-lee-1", "imaging").code != 0
    cli("policy", "set", str(text))
    assert "follows policy imaging" in cli("policy", "assign", "2026-11-lee-1", "imaging").out
    assert "that of its station" in cli("policy", "assign", "2026-11-lee-1").out.replace("the policy", "that")
