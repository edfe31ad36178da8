"""The commands of a first day, in processes of their own."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

import pytest

from lightkeep.cli.output import printable, size, table
from lightkeep.cli.settings import without_password
from lightkeep.lifecycle.processing.results import command
from lightkeep.lifecycle.processing.scratch import Plan
from lightkeep.model.runs import Run

from .conftest import Cli, run


def test_init_makes_a_facility_that_the_next_command_finds(tmp_path: Path) -> None:
    made = run("init", "here", "--json", folder=tmp_path)
    assert made.code == 0, made.err
    assert made.data["created"] is True
    assert run("station", "add", "2-BM", folder=tmp_path / "here").code == 0
    assert run("station", "list", "--json", folder=tmp_path / "here").data["items"][0]["id"] == "2-BM"
    assert run("init", "here", "--json", folder=tmp_path).data["created"] is False
    assert run("doctor", "--json", folder=tmp_path / "here").data["findings"] == []


def test_a_file_goes_in_is_found_verified_and_comes_out(cli: Cli, home: Path, scan: Path) -> None:
    done = cli("ingest", str(scan), "--json")
    assert done.code == 0, done.err
    dataset = done.data["items"][0]["dataset"]
    assert (dataset["name"], dataset["technique"], dataset["state"]) == ("tooth", "tomography", "complete")
    assert [each["id"] for each in cli("ls", "--json").data["items"]] == [dataset["id"]]
    assert [each["id"] for each in cli("find", "technique:tomography", "--json").data["items"]] == [dataset["id"]]
    assert cli("find", "technique:xpcs", "--json").data["total"] == 0
    shown = cli("ls", "2026-11-lee-1/tooth", "--json").data
    assert [each["path"] for each in shown["files"]] == ["tooth.h5"]
    assert cli("verify", "tooth").code == 0
    got = cli("get", "tooth", "--to", "out", "--json").data["files"]
    assert Path(home, got[0]).read_bytes() == scan.read_bytes()
    again = cli("ingest", str(scan), "--json").data["items"][0]
    assert (again["was_known"], again["added"]) == (True, 0)
    assert cli("doctor", "--full").code == 0


@pytest.mark.parametrize("name", ["-rf.h5", "--json.h5", os.fsdecode(b"t\xff\xfeoth.h5"), "a b\tc.h5"])
def test_odd_names_go_in_and_come_out(shell: Cli, home: Path, scan: Path, name: str) -> None:
    shutil.copy(scan, home / name)
    done = shell("ingest", "--name", "odd", "--json", "--", name)
    assert done.code == 0, done.err
    assert shell("ls", "odd").code == 0
    assert shell("get", "odd", "--", name).code == 0
    assert (home / "odd" / name).read_bytes() == scan.read_bytes()


def test_a_run_is_computed_listed_and_repeated(cli: Cli, scan: Path) -> None:
    cli("ingest", str(scan))
    done = cli("run", "tomography", "tooth", "--json")
    assert done.code == 0, done.err
    assert done.data["run"]["state"] == "done"
    assert done.data["result"]["parents"] == [done.data["run"]["dataset_id"]]
    listed = cli("runs", "list", "--state", "done", "--json").data
    assert [each["id"] for each in listed["items"]] == [done.data["run"]["id"]]
    shown = cli("runs", "show", done.data["run"]["id"])
    assert "✓ done" in shown.out
    retried = cli("runs", "retry", done.data["run"]["id"], "--json").data
    assert retried["state"] == "done"
    assert retried["id"] != done.data["run"]["id"]


def test_a_run_that_is_not_waited_for_is_queued_until_cancelled(cli: Cli, scan: Path) -> None:
    cli("ingest", str(scan))
    queued = cli("run", "tomography", "tooth", "--no-wait", "--json").data["run"]
    assert queued["state"] == "queued"
    assert cli("runs", "cancel", queued["id"], "--json").data["state"] == "cancelled"
    assert cli("runs", "list", "--state", "queued", "--json").data["total"] == 0


def test_the_options_of_a_technique_are_its_parameters(cli: Cli, scan: Path) -> None:
    from lightkeep import techniques

    text = cli("run", "tomography", "--help").out
    for name in techniques.get("tomography").Params.model_fields:
        assert f"--{name.replace('_', '-')}" in text
    cli("ingest", str(scan))
    wrong = cli("run", "tomography", "tooth", "--center", "left")
    assert wrong.code == 2
    assert "--center `left`" in wrong.err


def test_a_yes_or_no_is_an_option_and_its_opposite(cli: Cli, scan: Path) -> None:
    cli("ingest", str(scan))
    done = cli("run", "tomography", "tooth", "--rings", "--no-mask", "--no-wait", "--json")
    assert done.code == 0, done.err
    assert done.data["run"]["params"] == {"rings": True, "mask": False}
    assert "[default: yes]" in " ".join(cli("run", "tomography", "--help").out.split())


def test_the_command_that_a_result_names_asks_for_the_same_run(cli: Cli, scan: Path) -> None:
    cli("ingest", str(scan))
    first = cli("run", "tomography", "tooth", "--no-wait", "--json").data["run"]
    params = {"center": 20.5, "rings": True, "mask": False, "window": "ramp"}
    run = Run(first["id"], first["experiment_id"], first["dataset_id"], "tomography")
    words = shlex.split(command(run, Plan({**params, "air": None}, [], {}, {}, "inline")))
    again = cli(*words[1:], "--no-wait", "--json")
    assert again.code == 0, again.err
    assert again.data["run"]["params"] == params


@pytest.mark.parametrize(
    ("words", "meant"),
    [(("ingets",), "ingest"), (("run", "tomografy"), "tomography"), (("runs", "lst"), "list")],
)
def test_a_mistyped_command_is_answered_with_the_one_that_was_meant(
    cli: Cli, words: tuple[str, ...], meant: str
) -> None:
    done = cli(*words)
    assert done.code == 2
    assert "Did you mean" in done.err
    assert f"'{meant}'" in done.err


def test_people_get_in_when_they_are_granted(cli: Cli) -> None:
    assert (
        cli("person", "add", "maria", "--name", "Maria Lee", "--password-stdin", stdin="a good long one\n").code
        == 0
    )
    assert cli("experiment", "grant", "2026-11-lee-1", "maria", "--role", "pi").code == 0
    shown = cli("experiment", "show", "2026-11-lee-1", "--json").data
    assert [(each["person_id"], each["role"]) for each in shown["grants"]] == [("maria", "pi")]
    assert len(cli("person", "token", "maria").out.strip()) >= 40
    assert cli("experiment", "grant", "2026-11-lee-1", "maria", "--role", "pi", "--remove").code == 0
    assert cli("experiment", "show", "2026-11-lee-1", "--json").data["grants"] == []


def test_with_two_open_experiments_one_must_be_named(cli: Cli, scan: Path) -> None:
    cli("experiment", "create", "second", "--station", "2-BM")
    asked = cli("ingest", str(scan))
    assert asked.code == 2
    assert "which experiment? second, 2026-11-lee-1 are open" in asked.err
    assert "--experiment" in asked.err.splitlines()[1]
    assert cli("ingest", str(scan), "-e", "second").code == 0
    cli("experiment", "close", "2026-11-lee-1")
    assert cli("ls", "tooth").code == 0


def test_files_on_a_stations_own_disk_stay_where_they_are(cli: Cli, scan: Path) -> None:
    assert cli("store", "add", "disk", str(scan.parent), "--in-place").code == 0
    done = cli("ingest", "--in-place", str(scan), "--json")
    assert done.code == 0, done.err
    assert cli("get", "tooth").code == 0
    assert sorted(each["id"] for each in cli("store", "list", "--json").data["items"]) == ["central", "disk"]


def test_tables_fit_80_columns(cli: Cli, scan: Path) -> None:
    cli("ingest", str(scan), "--name", "a-very-long-name-" * 6)
    cli("experiment", "create", "second-experiment", "--station", "2-BM", "--title", "a long title " * 10)
    for words in (("ls",), ("experiment", "list"), ("config", "show"), ("store", "list"), ("runs", "list")):
        lines = cli(*words).out.splitlines()
        assert max(map(len, lines), default=0) <= 80, words


def test_nothing_is_drawn_when_piped(shell: Cli, scan: Path) -> None:
    done = shell("ingest", str(scan))
    assert done.err == ""
    assert "\033" not in done.out


def test_settings_are_shown_with_where_they_came_from(cli: Cli, home: Path) -> None:
    rows = {
        row["key"]: row for row in cli("config", "show", "--json", LIGHTKEEP_HTTP_PORT="9000").data["settings"]
    }
    assert rows["http.port"]["value"] == 9000
    assert rows["http.port"]["origin"] == "LIGHTKEEP_HTTP_PORT"
    assert rows["ingest.quiet_s"]["origin"] == str(home / "lightkeep.toml")
    assert rows["http.host"]["origin"] == "default"


def test_a_password_in_an_address_is_not_shown() -> None:
    assert without_password("postgresql+psycopg://me:secret@host/db") == "postgresql+psycopg://me:***@host/db"
    assert without_password("sqlite:////a/b.db") == "sqlite:////a/b.db"


def test_a_name_cannot_drive_the_terminal() -> None:
    assert printable("\033[2Jtooth\u202e\udcff") == "\\x1b[2Jtooth\\u202e\\udcff"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (40_700_000, "40.7 MB"), (999_999, "1.00 MB")],
)
def test_sizes_have_three_digits(count: int, text: str) -> None:
    assert size(count) == text


def test_json_is_one_object_on_every_listing(cli: Cli) -> None:
    for words in (["station"], ["experiment"], ["person"], ["store"], ["runs"]):
        answer = json.loads(cli(*words, "list", "--json").out)
        assert set(answer) >= {"items", "total"}


def test_python_dash_m_is_the_same_command(home: Path) -> None:
    script = Path(sys.executable).with_name("lightkeep")
    if not script.exists():
        pytest.skip("not installed with its command")
    import subprocess

    done = subprocess.run([script, "station", "list"], cwd=home, capture_output=True, text=True)
    assert done.stdout == run("station", "list", folder=home).out


def test_the_catalogue_moves_to_another_database_and_nothing_is_lost(cli: Cli, home: Path, scan: Path) -> None:
    cli("ingest", str(scan))
    before = [cli(*words, "--json").data for words in (("ls",), ("experiment", "list"), ("station", "list"))]
    url = f"sqlite:///{home / 'other.db'}"
    assert cli("catalog", "move", url, "--json").data["rows"] > 10
    after = [
        cli(*words, "--json", LIGHTKEEP_CATALOG_URL=url).data
        for words in (("ls",), ("experiment", "list"), ("station", "list"))
    ]
    assert after == before
    assert cli("doctor", "--full", "--json", LIGHTKEEP_CATALOG_URL=url).data["findings"] == []
    assert cli("find", "tooth", "--json", LIGHTKEEP_CATALOG_URL=url).data["total"] == 1
    assert cli("catalog", "move", url).code == 6


def test_a_catalogue_of_this_version_is_left_as_it_is(cli: Cli) -> None:
    assert cli("catalog", "upgrade").code == 0
    assert cli("doctor", "--json").data["findings"] == []


def test_a_name_is_enough_while_only_one_dataset_has_it(cli: Cli, scan: Path) -> None:
    cli("ingest", str(scan))
    cli("experiment", "close", "2026-11-lee-1")
    assert cli("explain", "tooth").code == 0
    cli("experiment", "create", "second", "--station", "2-BM")
    assert cli("verify", "tooth").code == 0
    cli("ingest", str(scan), "-e", "second")
    assert cli("ls", "tooth", "--json").data["dataset"]["experiment_id"] == "second"
    cli("experiment", "close", "second")
    asked = cli("get", "tooth")
    assert (asked.code, "second, 2026-11-lee-1 have one named `tooth`" in asked.err) == (2, True)
    assert "second/tooth" in asked.err.splitlines()[1]
    none = cli("get", "nothing")
    assert (none.code, none.err.splitlines()[0]) == (3, "error: no dataset is named `nothing`")


def test_a_number_is_never_cut_off_in_a_narrow_table(capsys: pytest.CaptureFixture[str]) -> None:
    columns = ["experiment", "store", "a long head>", "another head>", "a third head>", "and a fourth>"]
    table(
        columns, [("2026-11-a-very-long-name-81234", "central-store", "1.23 PB", "4.56 GB", "7.89 kB", "1234567")]
    )
    head, row = capsys.readouterr().out.splitlines()
    assert row.split()[2:] == ["1.23", "PB", "4.56", "GB", "7.89", "kB", "1234567"]
    assert row.startswith("2026-11-a-…")
    assert len(head) <= 80
    assert head.endswith("and a fourth")
