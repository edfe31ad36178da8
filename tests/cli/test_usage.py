"""Usage, quotas, the forecast and experiments from proposals, on the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from .conftest import Cli

EXP = "2026-11-lee-1"


def test_usage_is_shown_cut_and_exported(cli: Cli, scan: Path) -> None:
    assert cli("usage", "--json").data["total"] == 0
    assert cli("ingest", str(scan)).code == 0
    size = scan.stat().st_size
    shown = cli("usage", "--json").data
    assert [(row["key"], row["size"], row["datasets"]) for row in shown["items"]] == [("2-BM", size, 1)]
    for by in ("store", "tier", "experiment", "technique", "kind"):
        assert cli("usage", "--by", by, "--json").data["total"] == size
        assert cli("usage", "--by", by).code == 0
    (row,) = csv.DictReader(io.StringIO(cli("usage", "--csv").out))
    assert (row["station"], row["bytes"]) == ("2-BM", str(size))


def test_a_station_without_data_is_going_online(cli: Cli) -> None:
    cli("station", "add", "Bio-CAT")
    assert "going online" in cli("usage").out


def test_usage_over_time_comes_from_upkeep(cli: Cli, scan: Path) -> None:
    cli("ingest", str(scan))
    assert "upkeep" in cli("usage", "--over-time").out
    assert cli("upkeep").code == 0
    (series,) = cli("usage", "--over-time", "--json").data["series"]
    assert series["sizes"] == [scan.stat().st_size]


def test_a_quota_warns_and_says_whom_to_ask(cli: Cli, scan: Path) -> None:
    cli("person", "add", "maria", "--name", "Maria Lee", "--password-stdin", stdin="a good long one\n")
    cli("experiment", "grant", EXP, "maria", "--role", "pi")
    cli("ingest", str(scan))
    assert cli("usage", "quota", "set", "--experiment", EXP, f"{scan.stat().st_size + 10} B").code == 0
    assert "Maria Lee" in cli("usage").out
    assert cli("usage", "quota", "set", "--experiment", EXP, "1 B", "--hard").code == 0
    (row,) = cli("usage", "quota", "list", "--json").data["items"]
    assert row["quota"]["is_hard"]
    again = cli("ingest", str(scan), "--name", "more")
    assert again.code != 0
    assert "Maria Lee" in again.err
    assert cli("usage", "quota", "remove", "--experiment", EXP).code == 0
    assert cli("usage", "quota", "set", "1 TB").code == 2


def test_the_forecast_is_a_table_a_plot_and_json(cli: Cli, home: Path, scan: Path) -> None:
    cli("ingest", str(scan))
    assert cli("store", "set", "central", "--capacity", "100 TB").code == 0
    assert cli("usage", "growth", "set", "2-BM", "--per-day", "1 TB", "--step", "2099-01-01", "10").code == 0
    assert "x10 on 2099-01-01" in cli("usage", "growth", "list").out
    text = cli("usage", "--forecast", "1y").out
    assert "█" in text
    assert "full on" in text
    (home / "s.toml").write_text('[[scenario]]\nname = "twice"\nfactor = 2\n')
    plain, twice = cli("usage", "--forecast", "200d", "--scenario", "s.toml", "--json").data["scenarios"]
    assert (plain["bytes_per_day"], twice["bytes_per_day"]) == (1e12, 2e12)
    assert twice["stores"][0]["full_on"] < plain["stores"][0]["full_on"]
    assert len(plain["stores"][0]["used"]) == 200
    assert cli("usage", "--scenario", "s.toml").code == 2
    assert cli("usage", "--forecast", "soon").code == 2
    assert cli("usage", "--forecast").out == cli("usage", "--forecast", "2y").out
    assert cli("usage", "growth", "remove", "2-BM").code == 0


def test_stores_say_what_they_may_hold(cli: Cli, home: Path) -> None:
    done = cli("store", "add", "vault", "v", "--tier", "tape", "--durable", "--capacity", "2 PB", "--json").data
    assert (done["tier"], done["is_durable"], done["capacity"]) == ("tape", True, 2 * 10**15)
    done = cli("store", "set", "vault", "--high", "0.7", "--low", "0.5", "--json").data
    assert (done["high"], done["low"], done["capacity"]) == (0.7, 0.5, 2 * 10**15)
    assert cli("store", "set", "vault", "--low", "0.9").code != 0


def test_an_experiment_comes_from_a_proposal_and_lives(cli: Cli, home: Path) -> None:
    people = [{"last_name": "Lee", "first_name": "Ann", "email": "a@x.example", "role": "pi"}]
    record = {"number": "81234", "station": "2-BM", "title": "Teeth", "starts": "2026-11-20", "people": people}
    (home / "p.json").write_text(json.dumps([record]))
    given = ("--from", "p.json", "--proposal", "81234")
    looked = cli("experiment", "create", *given, "--dry-run")
    assert "would make lee-a pi of 2026-11-lee-81234" in looked.out
    assert cli("experiment", "create", *given).code == 0
    assert "up to date" in cli("experiment", "sync", "2026-11-lee-81234", "--from", "p.json").out
    assert cli("experiment", "create", "x", *given).code == 2
    assert cli("experiment", "sync").code == 2
    name = "2026-11-lee-81234"
    assert cli("experiment", "close", name).code == 0
    assert cli("experiment", "extend", name, "--days", "90", "--reason", "paper").code == 0
    assert cli("experiment", "extend", name, "--reason", "paper").code == 2
    assert cli("experiment", "extend", name, "--days", "90").code == 0  # as the mail says it
    released = cli("experiment", "release", name, "--at", "2099-01-01", "--json").data
    assert released["released_at"].startswith(("2098-12-31", "2099-01-01"))
    assert "is not public" in cli("experiment", "release", name, "--withdraw").out
    assert cli("experiment", "open", name).code == 0


def test_a_report_fits_a_page(cli: Cli, scan: Path) -> None:
    cli("ingest", str(scan))
    text = cli("experiment", "report", EXP).out
    assert "kept for ever" in text
    assert max(map(len, text.splitlines())) <= 80
