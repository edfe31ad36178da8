"""`lightkeep rebuild` after the catalogue was lost."""

from __future__ import annotations

from pathlib import Path

from .conftest import Cli


def test_a_lost_catalogue_is_rebuilt_from_its_store(cli: Cli, home: Path, scan: Path) -> None:
    before = cli("ingest", str(scan), "--json").data["items"][0]["dataset"]
    for path in home.glob("catalog.db*"):
        path.unlink()
    assert cli("ls").code != 0
    done = cli("rebuild", str(home / "stores" / "central"))
    assert done.code == 0, done.err
    assert "1 (1 file, 1 replica)" in done.out
    assert [each["id"] for each in cli("ls", "--json").data["items"]] == [before["id"]]
    assert cli("verify", "tooth").code == 0
    assert cli("get", "tooth", "--to", "out").code == 0
    assert (home / "out" / "tooth.h5").read_bytes() == scan.read_bytes()
    assert cli("doctor").code == 0


def test_a_catalogue_that_stands_is_left_alone(cli: Cli, home: Path, scan: Path) -> None:
    cli("ingest", str(scan))
    refused = cli("rebuild", str(home / "stores" / "central"))
    assert refused.code != 0
    assert "the catalogue is not empty" in refused.err
    assert cli("ls", "--json").data["total"] == 1


def test_a_folder_that_is_no_store_is_named(cli: Cli, home: Path, tmp_path: Path) -> None:
    for path in home.glob("catalog.db*"):
        path.unlink()
    refused = cli("rebuild", str(tmp_path))
    assert refused.code != 0
    assert f"{tmp_path} is no store" in refused.err
